"""Pick-up and GET of a store that holds much, against one that holds 1,000 workloads of one API.

Much is 1,000,000 finished workloads: 1,000 that were submitted and run like any other, and copies of them, made in the store by a script (record and
result with their expiry, index entry; running a million takes many minutes, and the stream of events and the counters hold no more for it). And it is
200 APIs: one that is served and 199 that are deployed and stopped, written into the registry without bundles and without processes (200 replicas
do not fit on a small machine; what processes cost that wait is measured by `idle`).

The small state is measured before and after, and the mean of both is what the others are compared with. What a lone write to the store takes at the
same time says how the disk was just then.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import filling
from figures import Figure
from stage import Stage, until

from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.store import keys

NAME = "growth"
HANDLER = """
    import time

    class Handler:
        def handle_async(self, payload):
            return {"entered": time.time()}
"""
FEW, MANY, MANY_QUICK = 1_000, 1_000_000, 50_000
APIS = 200
WITHIN = 1.2
GAPS_S = (0.05, 0.25)
#: So many rounds of a POST, a pause, a write and some GETs: spread over the time, so that a busy second of the machine is not one figure's alone.
ROUNDS, ROUNDS_QUICK, GETS = 120, 40, 16
#: Copies a finished workload. KEYS: the API's prefix; ARGV: its id, then the new ones. COPY takes the expiry along.
COPY = """
local p, id = KEYS[1], ARGV[1]
local at = redis.call('ZSCORE', p .. ':completed', id)
local scored = {}
for i = 2, #ARGV do
  for _, kind in ipairs({':w:', ':r:'}) do
    if redis.call('COPY', p .. kind .. id, p .. kind .. ARGV[i]) ~= 1 then return redis.error_reply('not copied') end
  end
  scored[#scored + 1] = at
  scored[#scored + 1] = ARGV[i]
end
redis.call('ZADD', p .. ':completed', unpack(scored))
return #ARGV - 1
"""
COPIES_AT_ONCE = 1_000


def run(stage: Stage, quick: bool) -> list[Figure]:
    many, rounds = (MANY_QUICK, ROUNDS_QUICK) if quick else (MANY, ROUNDS)
    with _deployed(stage, FEW) as ids:
        before = _measure(stage, ids, rounds)
        with _registered(stage, APIS - 1):
            among_apis = _measure(stage, ids, rounds)
        ids += _copy(stage, ids, many - FEW)
        among_workloads = _measure(stage, ids, rounds)
    with _deployed(stage, FEW) as ids:
        after = _measure(stage, ids, rounds)
    figures = []
    measured = ("POST sent → handler entered, p50", WITHIN), ("GET of a result, p50", WITHIN), ("a lone write, for comparison, p50", None)
    for number, (figure, within) in enumerate(measured):
        base = (before[number] + after[number]) / 2
        for what, one in ((f"{many:,} stored workloads (peer: {FEW:,})", among_workloads), (f"{APIS} deployed APIs (peer: 1)", among_apis)):
            figures.append(Figure(f"{figure}, at {what}", one[number], "ms", base, within=within))
    return figures


@contextmanager
def _deployed(stage: Stage, count: int) -> Iterator[list[str]]:
    """The API with so many finished workloads; their ids."""
    stage.deploy(NAME, HANDLER, autoscaling={"max_replicas": 1})
    yield _fill(stage, count)
    stage.client.delete(NAME)
    # A million workloads leave a few thousand at a time.
    until(lambda: not any(stage.redis.scan_iter(f"{keys.prefix(NAME)}:*", count=100_000)), f"nothing of {NAME} is left", 600)


def _fill(stage: Stage, count: int) -> list[str]:
    ids = [str(uuid.uuid4()) for _ in range(count)]
    filling.submit(stage, NAME, ids)
    filling.drained(stage, NAME, count)
    return ids


def _copy(stage: Stage, models: list[str], count: int) -> list[str]:
    """So many more finished workloads; their ids."""
    copy = stage.redis.register_script(COPY)
    ids = [str(uuid.uuid4()) for _ in range(count)]
    with filling.without_disk(stage):
        for start in range(0, count, COPIES_AT_ONCE):
            model = models[start // COPIES_AT_ONCE % len(models)]
            copy(keys=[keys.prefix(NAME)], args=[model, *ids[start : start + COPIES_AT_ONCE]])
    until(lambda: not stage.redis.info("persistence")["aof_rewrite_in_progress"], "the store has tidied its file", 300)
    # What was written without waiting for the disk must not be what the next one waits for.
    os.sync()
    return ids


@contextmanager
def _registered(stage: Stage, count: int) -> Iterator[None]:
    names = [f"{NAME}-{number}" for number in range(count)]
    pipe = stage.redis.pipeline(transaction=False)
    for name in names:
        document = {"name": name, "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}}
        spec = json.dumps(check_specs([document], ["handler.py"])[0].resolved())
        pipe.hset(keys.deployment(name, 1), mapping={"state": "stopped", "replicas": 0, "digest": "d" * 64, "spec": spec, "source": "a benchmark"})
        entry = {"spec": spec, "endpoint": f"/{name}", "gate": "open", "live": 1, "wanted": 1, "next": 1, "stopped": 1, "source": "a benchmark"}
        pipe.hset(keys.api(name), mapping=entry)
        pipe.sadd(keys.APIS, name)
    pipe.incr(keys.REGISTRY_VERSION)
    pipe.execute()
    until(lambda: _status(stage, f"/{names[-1]}/healthz") == 200, "the gateway knows them all")
    yield
    pipe = stage.redis.pipeline(transaction=False)
    for name in names:
        pipe.unlink(keys.api(name), keys.deployment(name, 1))
    pipe.srem(keys.APIS, *names)
    pipe.incr(keys.REGISTRY_VERSION)
    pipe.execute()
    until(lambda: _status(stage, f"/{names[-1]}/healthz") == 404, "the gateway has forgotten them")


def _measure(stage: Stage, ids: list[str], rounds: int) -> tuple[float, float, float]:
    """ms from POST to handler, of a GET, and of a lone write to the store; medians."""
    chance = random.Random(13)
    connection = _connection(stage)
    posted, writes, gets = [], [], []
    for _ in range(rounds):
        began = time.time()
        posted.append((began, json.loads(_ask(connection, "POST", f"/{NAME}", b'{"x": 1}'))["id"]))
        time.sleep(chance.uniform(*GAPS_S))
        start = time.perf_counter()
        stage.redis.set(keys.metrics(NAME), "{}")
        writes.append(time.perf_counter() - start)
        for request_id in chance.choices(ids, k=GETS):
            start = time.perf_counter()
            _ask(connection, "GET", f"/{NAME}/{request_id}")
            gets.append(time.perf_counter() - start)
    waits = [json.loads(_ask(connection, "GET", f"/{NAME}/{request_id}?wait=10"))["result"]["entered"] - began for began, request_id in posted]
    connection.close()
    return statistics.median(waits) * 1000, statistics.median(gets) * 1000, statistics.median(writes) * 1000


def _ask(connection: HTTPConnection, method: str, path: str, body: bytes | None = None) -> bytes:
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path} answered {answer.status}: {said[:200]!r}")
    return said


def _status(stage: Stage, path: str) -> int:
    connection = _connection(stage)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def _connection(stage: Stage) -> HTTPConnection:
    address = urlsplit(stage.url)
    return HTTPConnection(address.hostname or "", address.port, timeout=60)
