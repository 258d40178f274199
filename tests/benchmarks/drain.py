"""Draining a full queue of no-ops with one replica, every workload with its full record; beside it each peer with one worker process.

Ours is timed by its records, from the first end to the last. A peer's no-op says when it was entered (``peers/common.py``), and is timed from the
first entry to the last. Those that no goal compares with are looked at for a while only: what is left in the queue does not change their rate.
"""

from __future__ import annotations

import time

import filling
from figures import Figure
from peer import Peer, all_peers
from stage import ECHO, Stage, until

from jupyter_cortex.store import keys

NAME = "drain"
#: How many times faster than which peer we want to be.
GOALS = {"dramatiq_full": 10.0, "huey": 6.0}
LOOK_S = 6.0


def run(stage: Stage, quick: bool) -> list[Figure]:
    count = 3_000 if quick else 20_000
    ours = _ours(stage, count)
    figures = []
    for peer in sorted(all_peers(stage.environments), key=lambda peer: peer.name not in GOALS):
        rate = _peer(stage, peer, count, 300.0 if peer.name in GOALS else LOOK_S / (3 if quick else 1))
        name = f"drain of {count:,} queued no-ops, peer {peer.label}"
        figures.append(Figure(name, ours, "/s", rate, more_is_better=True, ratio=GOALS.get(peer.name)))
    return figures


def _ours(stage: Stage, count: int) -> float:
    stage.deploy(NAME, ECHO)
    stage.stop(NAME)
    filling.submit(stage, NAME, [f"n{number}" for number in range(count)])
    completed = keys.index(NAME, "completed")
    stage.client.start(NAME)
    filling.drained(stage, NAME, count)
    first = stage.redis.zrange(completed, 0, 0, withscores=True)[0][1]
    last = stage.redis.zrange(completed, -1, -1, withscores=True)[0][1]
    stage.delete(NAME)
    return (count - 1) / ((last - first) / 1000)


def _peer(stage: Stage, peer: Peer, count: int, seconds: float) -> float:
    """Tasks a second, all of them or as many as are done in ``seconds``."""
    store = stage.peer_redis()
    store.flushall()
    peer.forget(stage)
    # The filling is nobody's figure, and waiting for the disk with each task would make it the longest part of the run.
    store.config_set("appendfsync", "no")
    with peer.enqueuer(stage) as enqueuer:
        enqueuer.enqueue(0, count)
    store.config_set("appendfsync", "always")
    with peer.worker(stage):
        until(lambda: peer.count_entered(stage), f"{peer.label} begins", 30)
        deadline = time.monotonic() + seconds
        until(lambda: peer.count_entered(stage) >= count or time.monotonic() > deadline, f"{peer.label} has drained the queue", seconds + 10)
        if peer.name.endswith("_full") and peer.count_entered(stage) >= count:
            until(lambda: _all_completed(stage, count), f"every record of {peer.label} is completed", 20)
    entered = peer.entered(stage)
    if len(entered) < count and seconds > LOOK_S:
        raise RuntimeError(f"{peer.label} ran {len(entered)} of {count} tasks")
    store.flushall()
    return (len(entered) - 1) / (max(entered.values()) - min(entered.values()))


def _all_completed(stage: Stage, count: int) -> bool:
    pipe = stage.peer_redis().pipeline(transaction=False)
    for number in range(count):
        pipe.hget(f"peer:w:{number}", "status")
    return set(pipe.execute()) == {b"completed"}
