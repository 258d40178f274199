"""What looking costs: ``python tests/benchmarks/looking.py``. 200 APIs, 20,000 workloads, a week of history, and how soon a move is told.

Each figure is best / p50 / p99.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from stage import ECHO, Stage

from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.store import keys

V1 = "/_cortex/v1"
APIS, RECORDS, WEEK = 200, 20_000, 10_080
BUSY = "api-0"


def timed(job: Callable[[], Any], times: int) -> str:
    """Best / p50 / p99 of its ms."""
    job()
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        job()
        spent.append((time.perf_counter() - began) * 1000)
    return percentiles(spent)


def percentiles(spent: list[float]) -> str:
    spent = sorted(spent)
    return f"{spent[0]:7.1f} / {spent[len(spent) // 2]:.1f} / {spent[min(len(spent) - 1, int(len(spent) * 0.99))]:.1f} ms"


def fill(stage: Stage) -> None:
    """APIs as they look when they are live, with an hour of traffic; the busy one with a week of it and its workloads."""
    rng = random.Random(1)
    now = int(time.time())
    pipe = stage.redis.pipeline(transaction=False)
    for at in range(APIS):
        name = f"api-{at}"
        document = {"name": name, "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}}
        spec = json.dumps(check_specs([document], ["handler.py"])[0].resolved())
        pipe.hset(keys.deployment(name, 1), mapping={"state": "live", "replicas": 1, "digest": "d" * 64, "spec": spec})
        pipe.hset(keys.api(name), mapping={"spec": spec, "endpoint": f"/{name}", "gate": "open", "live": 1, "wanted": 1, "source": "a benchmark"})
        worker = {"version": 1, "host": "elsewhere", "pid": 1, "code": "", "ready": 1, "failure": None, "trouble": "", "drift": {}, "replicas": []}
        pipe.hset(keys.workers(name), "w", json.dumps(worker))
        pipe.sadd(keys.APIS, name)
        for minute in range(now // 60 - (WEEK + 60 if name == BUSY else 60), now // 60):
            fields = {"accepted": 9, "completed": 8, "failed": 1}
            fields.update({f"{kind}:{rng.randrange(24)}": rng.randrange(1, 9) for kind in ("wait", "run") for _ in range(8)})
            pipe.hset(keys.minute(name, minute), mapping=fields)
            for field, number in fields.items():
                pipe.hincrby(keys.ten_minutes(name, minute // 10), field, number)
                pipe.hincrby(keys.hour(name, minute // 60), field, number)
        pipe.execute()
    for at in range(RECORDS):
        failed = at % 20 == 0
        record = {"status": "failed" if failed else "completed", "type": "application/json", "digest": "d" * 32, "size": 100, "run": 1, "attempts": 1}
        error = {"error": json.dumps({"type": "ValueError", "message": "there is no such thing as what was asked for"})} if failed else {}
        times = {"accepted": now * 1000 + at, "started": now * 1000 + at + 1, "finished": now * 1000 + at + 2}
        pipe.hset(keys.record(BUSY, f"workload-{at}"), mapping={**record, **times, **error, "replica": "api-0-v1-00000000", "version": 1})
        pipe.zadd(keys.index(BUSY, str(record["status"])), {f"workload-{at}": now * 1000 + at + 2})
    pipe.incr(keys.REGISTRY_VERSION)
    pipe.execute()


def told_after(stage: Stage, control: httpx.Client, name: str, times: int, beside: int) -> tuple[list[float], list[float]]:
    """ms from a POST that is sent, and from one that is answered, to the answer of a caller that waited; ``beside`` more wait for the same."""
    sent, answered = [], []
    stop = threading.Event()

    def wait_on() -> None:
        with httpx.Client(base_url=stage.url, headers=control.headers, timeout=60, trust_env=False) as own:
            seq: dict[str, str] = {name: "$"}
            while not stop.is_set():
                said = own.post(f"{V1}/changes", json={"events": seq, "wait": 2}).json()
                seq = {name: one["seq"] for name, one in said["changes"].items()} or seq

    others = [threading.Thread(target=wait_on) for _ in range(beside)]
    for other in others:
        other.start()
    with httpx.Client(base_url=stage.url, timeout=60, trust_env=False) as web:
        said = control.post(f"{V1}/changes", json={"events": {name: "$"}}).json()
        for _ in range(times):
            began: list[float] = []

            def post() -> None:
                time.sleep(random.uniform(0.05, 0.25))
                began.append(time.perf_counter())  # noqa: B023
                web.post(f"/{name}", json={"x": 1})
                began.append(time.perf_counter())  # noqa: B023

            sending = threading.Thread(target=post)
            sending.start()
            asked = {"events": {name: said["changes"][name]["seq"]}, "registry": said["registry"], "wait": 20}
            said = control.post(f"{V1}/changes", json=asked).json()
            ended = time.perf_counter()
            sending.join()
            sent.append((ended - began[0]) * 1000)
            answered.append((ended - began[1]) * 1000)
    stop.set()
    for other in others:
        other.join()
    return sent, answered


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Stage(Path(directory)) as stage:
        token = stage.client.environment.token
        with httpx.Client(base_url=stage.url, headers={"authorization": f"Bearer {token}"}, timeout=60, trust_env=False) as control:
            stage.deploy("moves", ECHO)
            for beside in (0, 50):
                sent, answered = told_after(stage, control, "moves", 50 if "--quick" in sys.argv else 200, beside)
                print(
                    f"a move is told, {beside} others waiting: {percentiles(sent)} after the POST is sent, {percentiles(answered)} after its answer"
                )
            fill(stage)

            def get(path: str) -> Callable[[], int]:
                return lambda: len(control.get(f"{V1}{path}").raise_for_status().content)

            for path in ("/apis", "/apis?recent=60"):
                print(f"GET {path:52} {timed(get(path), 40)}  ({get(path)() / 1e3:.0f} kB)")
            for query in ("limit=50", "limit=50&status=failed", "limit=50&q=workload-1", "limit=50&q=nowhere", "limit=1000"):
                print(f"GET {f'/apis/{BUSY}/workloads?{query}':52} {timed(get(f'/apis/{BUSY}/workloads?{query}'), 20)}")
            for minutes, step in ((WEEK, 60), (WEEK, 30), (WEEK, 15), (WEEK, 1), (1440, 10), (1440, 5), (60, 1)):
                path = f"/apis/{BUSY}/history?minutes={minutes}&step={step}"
                print(f"GET {path:52} {timed(get(path), 10)}")
            asked = {"events": {f"api-{at}": "0-0" for at in range(APIS)}, "complete": True}
            print(f"POST /changes, complete, 200 APIs, nothing new {timed(lambda: control.post(f'{V1}/changes', json=asked), 40):>28}")


if __name__ == "__main__":
    main()
