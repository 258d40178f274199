"""Draining a full queue of no-ops with one replica, every workload with its full record."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from figures import Figure
from stage import ECHO, PEERS, Stage, until

from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import SUBMIT

NAME = "drain"
BODY = b'{"x": 1}'
CHUNK = 1000


def run(stage: Stage, quick: bool) -> list[Figure]:
    count = 5_000 if quick else 20_000
    ours, peer = _ours(stage, count), _peer(stage, count)
    return [Figure(f"drain of {count:,} no-ops, one replica", ours, "/s", peer, more_is_better=True, ratio=4)]


def _ours(stage: Stage, count: int) -> float:
    stage.deploy(NAME, ECHO)
    stage.stop(NAME)
    # As the gateway submits, without HTTP: the script is known to the store once a request was accepted.
    stage.redis.script_load(SUBMIT.source)
    digest = hashlib.sha256(BODY).hexdigest()[:32]
    for start in range(0, count, CHUNK):
        pipe = stage.redis.pipeline(transaction=False)
        for number in range(start, min(start + CHUNK, count)):
            pipe.execute_command("EVALSHA", SUBMIT.sha, 1, keys.prefix(NAME), f"n{number}", "application/json", digest, len(BODY), BODY)
        if set(pipe.execute()) != {b"ok"}:
            raise RuntimeError("the submit script did not accept everything")
    completed = keys.index(NAME, "completed")
    stage.client.start(NAME)
    until(lambda: stage.redis.zcard(completed) >= count or _ended_otherwise(stage), "the queue is drained", 300)
    if _ended_otherwise(stage):
        raise RuntimeError("workloads failed")
    first = stage.redis.zrange(completed, 0, 0, withscores=True)[0][1]
    last = stage.redis.zrange(completed, -1, -1, withscores=True)[0][1]
    stage.delete(NAME)
    return (count - 1) / ((last - first) / 1000)


def _ended_otherwise(stage: Stage) -> bool:
    return bool(stage.redis.zcard(keys.index(NAME, "failed")))


def _peer(stage: Stage, count: int) -> float:
    store = stage.peer_redis()
    store.flushall()
    env = {**os.environ, "PEER_REDIS": f"unix://{store.connection_pool.connection_kwargs['path']}"}
    subprocess.run([sys.executable, PEERS / "enqueue.py", str(count)], env=env, check=True)
    with stage.dramatiq():
        until(lambda: int(store.get("peer:completed") or 0) >= count, "the peer's queue is drained", 300)
    pipe = store.pipeline(transaction=False)
    for number in range(count):
        pipe.hmget(f"peer:w:{number}", "status", "finished")
    records = pipe.execute()
    if any(status != b"completed" for status, _ in records):
        raise RuntimeError("the peer did not complete everything")
    finished = [float(at) for _, at in records]
    store.flushall()
    return (count - 1) / (max(finished) - min(finished))
