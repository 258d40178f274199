"""Failed workloads run again under their old ids while everything else goes on: none is lost, none runs twice for one requeue."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from jupyter_cortex.client import Client
from jupyter_cortex.core.errors import CortexError
from jupyter_cortex.store import keys
from tests.conftest import Environment, ProjectMaker, wait_until

#: Notes each run in a file of its own process, and fails until somebody has mended it.
HANDLER = """
    import os

    MENDED = %s

    class Handler:
        def __init__(self, config):
            self.file = open(os.path.join(config["runs"], str(os.getpid())), "a", buffering=1)

        def handle_async(self, payload, request_id):
            self.file.write(request_id + "\\n")
            return {"value": 1 / payload["divisor"] if MENDED and payload["divisor"] else payload["missing"]}
"""
TWO = "max_deliveries: 3\nautoscaling: {min_replicas: 2, max_replicas: 2}"


def deploy(environment: Environment, project: ProjectMaker, name: str, runs: Path, *, mended: bool) -> None:
    runs.mkdir(exist_ok=True)
    project(name, HANDLER % mended, TWO, handler_spec=f"config: {{runs: {runs}}}").deploy(environment)


def ran(runs: Path) -> Counter[str]:
    return Counter(line for file in runs.iterdir() for line in file.read_text().split())


def submit(client: Client, name: str, ids: list[str], divisor: int = 1) -> None:
    for request_id in ids:
        client.submit(name, {"divisor": divisor}, request_id=request_id)


def ended(environment: Environment, name: str, status: str, count: int) -> Callable[[], bool]:
    store = environment.redis()
    return lambda: bool(store.zcard(keys.index(name, status)) == count)


def test_many_at_once_requeue_a_group_under_load_and_each_id_runs_once_more(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    name, runs = "requeue-load", tmp_path / "runs"
    old, fresh = [f"old{number}" for number in range(400)], [f"new{number}" for number in range(200)]
    deploy(environment, project, name, runs, mended=False)
    with environment.client() as client:
        submit(client, name, old)
        wait_until(ended(environment, name, "failed", len(old)), "all have failed")
        (group,) = client.failures(name)
        assert (group["count"], group["versions"], group["place"]) == (len(old), [1], "handler.py, line 12")
        deploy(environment, project, name, runs, mended=True)
        load = threading.Thread(target=submit, args=(environment.client(), name, fresh))
        load.start()
        with ThreadPoolExecutor(6) as pool:
            by_group = [pool.submit(lambda: environment.client().requeue(name, fingerprint=group["fingerprint"])) for _ in range(3)]
            by_id = [pool.submit(lambda: environment.client().requeue(name, old)) for _ in range(3)]
            said = [one.result() for one in (*by_group, *by_id)]
        load.join()
        assert Counter(one for answer in said for one in answer["requeued"]) == Counter(old), "each by one of them, and once"
        wait_until(ended(environment, name, "completed", len(old) + len(fresh)), "all have completed")
        assert ran(runs) == Counter(dict.fromkeys(old, 2) | dict.fromkeys(fresh, 1))
        assert {client.result(name, one).status for one in old[::40]} == {"completed"}, "who polls the old id has its result"
        assert {client.workload(name, one)["run"] for one in old[::40]} == {2}
        assert client.failures(name) == []
        assert sorted(one for entry in client.audit(name) for one in entry["ids"]) == sorted(old)
    with environment.redis() as store:
        assert not store.zcard(keys.index(name, "open"))
        assert not store.zcard(keys.index(name, "failed"))
        accepted = sum(int(store.hget(key, "accepted") or 0) for key in store.scan_iter(f"{keys.prefix(name)}:h:*"))
        assert accepted == 2 * len(old) + len(fresh)


def test_what_fails_again_is_in_its_group_again_with_its_run(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    name, runs = "requeue-again", tmp_path / "runs"
    deploy(environment, project, name, runs, mended=False)
    with environment.client() as client:
        submit(client, name, ["w1"], divisor=0)
        wait_until(ended(environment, name, "failed", 1), "it has failed")
        first = client.failures(name)[0]
        deploy(environment, project, name, runs, mended=True)
        assert client.requeue(name, fingerprint=first["fingerprint"])["requeued"] == ["w1"]
        wait_until(lambda: client.failures(name), "it has failed again")
        (again,) = client.failures(name)
        assert (again["fingerprint"], again["versions"], again["count"]) == (first["fingerprint"], [1, 2], 1), "another version, the same mistake"
        shown = client.workload(name, "w1")
        assert (shown["run"], shown["version"], shown["attempts"]) == (2, 2, 1)
        assert [one["version"] for one in shown["requeues"]] == [1]
        assert {json.loads(line).get("run") for line in shown["failure"]["logs"]} == {2}, "its lines say so"


def test_a_store_that_dies_meanwhile_loses_and_doubles_nothing(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment, name, runs = own_environment(), "requeue-store", tmp_path / "runs"
    ids = [f"w{number}" for number in range(300)]
    deploy(environment, project, name, runs, mended=False)
    client = environment.client()
    submit(client, name, ids)
    wait_until(ended(environment, name, "failed", len(ids)), "all have failed")
    deploy(environment, project, name, runs, mended=True)
    began = threading.Event()

    def requeue_all() -> int:
        """Batch by batch, saying again what was not answered."""
        said, batches = 0, [ids[at : at + 10] for at in range(0, len(ids), 10)]
        while batches:
            try:
                said += len(environment.client().requeue(name, batches[0])["requeued"])
            except CortexError:
                continue
            batches.pop(0)
            began.set()
        return said

    def kill_store() -> None:
        began.wait(60)
        psutil.Process(_store(environment)["pid"]).send_signal(signal.SIGKILL)

    with ThreadPoolExecutor(3) as pool:
        killer = pool.submit(kill_store)
        said = [one.result(120) for one in [pool.submit(requeue_all) for _ in range(2)]]
        killer.result()
    assert sum(said) <= len(ids)
    wait_until(ended(environment, name, "completed", len(ids)), "all have completed", 120)
    with environment.redis() as store:
        records = [store.hmget(keys.record(name, one), "status", "run") for one in ids]
        assert Counter(map(tuple, records)) == {(b"completed", b"2"): len(ids)}
        assert not store.llen(keys.queue(name))
        assert not store.zcard(keys.index(name, "open"))
    # A replica whose reply was lost says an end again, but runs nothing again.
    assert ran(runs) == Counter(dict.fromkeys(ids, 2))


def _store(environment: Environment) -> dict[str, Any]:
    return wait_until(lambda: next(iter(environment.processes("store")), None), "the store runs")
