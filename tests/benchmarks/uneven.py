"""Two replicas, 0.5 % of the workloads take 2 s and the rest 1 ms: nobody should wait behind a slow one while the other replica has nothing to do.

Requests come by chance (seeded), 60 % of what two replicas can serve, until 40 slow ones have come. The handler notes when it was entered and left,
on the clock that stamps the acceptance. A replica is idle while its handler is not running, except for short pauses between two workloads: a queue
that has gathered behind two slow ones is not waiting for an idle replica when one of them drains it. What counts of a workload's wait, from accepted
to entered, is the part in which a replica other than the one that ran it was idle, all of its idle times together.

A machine that is shared stands still now and then, and everybody with it. A bystander, a process that only sleeps for a ms again and again, says for
how long: a row of its own counts the waits without what it was late meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from figures import Figure, quantile
from load import Connection
from stage import Stage, until

from jupyter_cortex.store import keys

NAME = "uneven"
HANDLER = """
    import os, time

    class Handler:
        def handle_async(self, payload):
            entered = time.time()
            time.sleep(payload["s"])
            return {"entered": entered, "left": time.time(), "replica": os.getpid()}
"""
REPLICAS, LOAD = 2, 0.6
SLOW_SHARE, SLOW_S, QUICK_S = 0.005, 2.0, 0.001
SLOW_ONES, SLOW_ONES_QUICK = 40, 8
#: A shorter pause is the engine's: ends, start marks and the next fetch on their way to a store that writes to disk, and the core that is somebody
#: else's for a moment. While one replica is held up the other one's pauses are 9 ms on average, most of their time in longer ones.
PAUSE_S = 0.010
#: ... or so many lone writes to the store, when they take long: on a slow disk the fetch takes long, too, and nobody is idle meanwhile.
PAUSE_WRITES, WRITE_EVERY_S = 5, 0.25
#: The bystander sleeps for so long; up to twice that is the timer's, and not the machine's.
STEP_S = 0.001
BYSTANDER = """
import sys, time

step, began = float(sys.argv[1]), time.time()
while True:
    time.sleep(step)
    ended = time.time()
    if ended - began > 2 * step:
        print(began + step, ended, flush=True)
    began = ended
"""
#: Connections that were idle for longer are not used again: after 30 s the gateway closes them.
KEPT_S = 15.0


@dataclass(frozen=True)
class Ran:
    accepted: float
    entered: float
    left: float
    replica: int


class Busy:
    """The times in which one replica had work. It has one thread: its handler's times do not overlap."""

    def __init__(self, ran: list[tuple[float, float]], pause: float) -> None:
        self._spans: list[tuple[float, float]] = []
        for start, end in sorted(ran):
            if self._spans and start - self._spans[-1][1] < pause:
                start = self._spans.pop()[0]
            self._spans.append((start, end))
        self._starts = [start for start, _ in self._spans]
        self._before = [0.0]
        for start, end in self._spans:
            self._before.append(self._before[-1] + end - start)

    def _until(self, moment: float) -> float:
        """Seconds of work up to a moment."""
        number = bisect_right(self._starts, moment)
        if number == 0:
            return 0.0
        start, end = self._spans[number - 1]
        return self._before[number - 1] + min(moment, end) - start

    def within(self, start: float, end: float) -> float:
        return self._until(end) - self._until(start)

    def idle(self, start: float, end: float) -> float:
        return max(0.0, end - start - self.within(start, end))


def run(stage: Stage, quick: bool) -> list[Figure]:
    api = stage.deploy(NAME, HANDLER, autoscaling={"min_replicas": REPLICAS, "max_replicas": REPLICAS})
    until(lambda: stage.client.get_api(NAME)["ready"] == REPLICAS, "two replicas serve")
    with _bystander(stage) as stood:
        ids, write = asyncio.run(_load(stage, api.endpoint, SLOW_ONES_QUICK if quick else SLOW_ONES))
    until(lambda: not stage.redis.zcard(keys.index(NAME, "open")), "everything accepted has ended", 120)
    ran = _ran(stage, ids)
    stage.delete(NAME)
    unfair = [wait * 1000 for wait in waits_beside_idle(ran, max(PAUSE_S, PAUSE_WRITES * write))]
    still = Busy(stood(), 0.0)
    own = [max(0.0, wait - 1000 * still.within(one.accepted, one.entered)) for wait, one in zip(unfair, ran, strict=True)]
    waits = [(one.entered - one.accepted) * 1000 for one in ran]
    what = f"two replicas, {SLOW_SHARE:.1%} of the handlers take {SLOW_S:.0f} s, the rest 1 ms"
    return [
        Figure(f"{what}: longest wait while the other replica is idle", max(unfair), "ms", most=50, worst=True),
        Figure(f"{what}: the same without what a process that only sleeps was late meanwhile", max(own), "ms", worst=True),
        Figure(f"{what}: the same, p99", quantile(unfair, 0.99), "ms"),
        Figure(f"{what}: wait at all, p99", quantile(waits, 0.99), "ms"),
        Figure("… a lone write to the store meanwhile, p50", write * 1000, "ms"),
    ]


def waits_beside_idle(ran: list[Ran], pause: float = PAUSE_S) -> list[float]:
    """Of each workload's wait the seconds in which another replica had nothing to do."""
    spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for one in ran:
        spans[one.replica].append((one.entered, one.left))
    busy = {replica: Busy(those, pause) for replica, those in spans.items()}
    return [max((busy[other].idle(one.accepted, one.entered) for other in busy if other != one.replica), default=0.0) for one in ran]


def schedule(slow_ones: int) -> list[tuple[float, float]]:
    """(seconds from the start, seconds the handler takes) of each request."""
    chance = random.Random(10)
    mean = SLOW_SHARE * SLOW_S + (1 - SLOW_SHARE) * QUICK_S
    rate = LOAD * REPLICAS / mean
    at, slow, plan = 0.0, 0, []
    while slow < slow_ones:
        at += chance.expovariate(rate)
        takes = SLOW_S if chance.random() < SLOW_SHARE else QUICK_S
        slow += takes == SLOW_S
        plan.append((at, takes))
    return plan


async def _load(stage: Stage, path: str, slow_ones: int) -> tuple[list[str], float]:
    """Send them when they are due, whatever came of the others; their ids, and the seconds of a lone write to the store meanwhile (median)."""
    address = urlsplit(stage.url)
    writes: list[float] = []
    free: list[tuple[float, Connection]] = []
    ids: list[str] = []

    async def connected() -> Connection:
        while free:
            since, connection = free.pop()
            if time.monotonic() - since < KEPT_S:
                return connection
            await connection.__aexit__()
        return await Connection(address.hostname or "", address.port or 80).__aenter__()

    async def post(seconds: float) -> None:
        connection = await connected()
        status, body = await connection.request("POST", path, json.dumps({"s": seconds}))
        if status != 200:
            raise RuntimeError(f"POST answered {status}: {body!r}")
        ids.append(json.loads(body)["id"])
        free.append((time.monotonic(), connection))

    writing = asyncio.create_task(_write(stage, writes))
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for at, takes in schedule(slow_ones):
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            group.create_task(post(takes))
    writing.cancel()
    for _, connection in free:
        await connection.__aexit__()
    return ids, statistics.median(writes)


@contextmanager
def _bystander(stage: Stage) -> Iterator[Callable[[], list[tuple[float, float]]]]:
    """Gives, after its end, the times in which the bystander was late."""
    path = stage.directory / "bystander"
    with open(path, "w") as out:
        process = subprocess.Popen([sys.executable, "-c", BYSTANDER, str(STEP_S)], stdout=out)
    try:
        yield lambda: [(float(since), float(until)) for since, until in map(str.split, path.read_text().splitlines())]
    finally:
        process.kill()
        process.wait()


async def _write(stage: Stage, took: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.to_thread(stage.redis.set, keys.metrics(NAME), "{}")
        took.append(time.perf_counter() - began)
        await asyncio.sleep(WRITE_EVERY_S)


def _ran(stage: Stage, ids: list[str]) -> list[Ran]:
    pipe = stage.redis.pipeline(transaction=False)
    for request_id in ids:
        pipe.hget(keys.record(NAME, request_id), "accepted")
        pipe.get(keys.result(NAME, request_id))
    replies = pipe.execute()
    if None in replies:
        raise RuntimeError("not every workload is completed")
    return [Ran(accepted=int(accepted) / 1000, **json.loads(result)) for accepted, result in zip(replies[::2], replies[1::2], strict=True)]
