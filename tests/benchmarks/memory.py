"""What is kept in memory: by an idle replica, and by the store for each workload that has finished.

The replica is weighed by its proportional set (what it shares with other processes counts in part), beside an interpreter that imports what the
author's handler imports, here nothing, and beside one that imports every module that the replica has.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import filling
import processes
from figures import Figure
from stage import Stage

from jupyter_cortex.store import keys

NAME = "memory"
HANDLER = """
    import sys

    class Handler:
        def handle_async(self, payload):
            return {"modules": sorted(sys.modules)} if payload.get("modules") else {"ok": 1}
"""
SETTLE_S = 3.0
BARE = """
import contextlib, importlib, json, sys, time
for name in json.loads(sys.stdin.read()):
    with contextlib.suppress(Exception):
        importlib.import_module(name)
print("ready", flush=True)
time.sleep(600)
"""


def run(stage: Stage, quick: bool) -> list[Figure]:
    stage.deploy(NAME, HANDLER)
    modules = stage.client.result(NAME, stage.client.submit(NAME, {"modules": True}), wait=30).result["modules"]
    figures = [*_replica(stage, modules), *_workload(stage, 2_000 if quick else 10_000)]
    stage.delete(NAME)
    return figures


def _replica(stage: Stage, modules: list[str]) -> list[Figure]:
    with _interpreter([]) as bare, _interpreter(modules) as same:
        time.sleep(SETTLE_S)
        replica, worker = (processes.pss(pids[0]) for pids in (processes.replicas(stage, NAME), processes.workers(stage, NAME)))
        over_bare, over_same = (replica - processes.pss(pid) for pid in (bare, same))
    return [
        Figure("idle replica: memory over a bare interpreter with the handler's imports (none)", over_bare / processes.MB, "MB", most=45),
        Figure(f"idle replica: the same over an interpreter with all of its {len(modules)} modules", over_same / processes.MB, "MB"),
        Figure("idle API: its worker, one for all replicas of a machine", worker / processes.MB, "MB"),
    ]


@contextmanager
def _interpreter(modules: list[str]) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", BARE], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([name for name in modules if name != "__main__"]))
        process.stdin.close()
        # A module may print while it is imported.
        if "ready\n" not in iter(process.stdout.readline, ""):
            raise RuntimeError("the interpreter to compare with has ended")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _workload(stage: Stage, count: int) -> list[Figure]:
    """Bytes of the store per completed workload, beyond its result (its payload is forgotten by then), and what they are made of."""
    # The first thousand bring the store's own buffers to their size.
    filling.submit(stage, NAME, [str(uuid.uuid4()) for _ in range(1000)])
    filling.drained(stage, NAME, 1001)
    before, expiries, events = _used(stage), _expiries(stage), _usage(stage, keys.events(NAME))
    ids = [str(uuid.uuid4()) for _ in range(count)]
    filling.submit(stage, NAME, ids)
    filling.drained(stage, NAME, 1001 + count)
    if stage.redis.exists(keys.body(NAME, ids[0])):
        raise RuntimeError("a completed workload's payload is still there")
    result = stage.redis.strlen(keys.result(NAME, ids[0]))
    per = (_used(stage) - before) / count - result
    index = keys.index(NAME, "completed")
    parts = {
        "its record (hash)": _usage(stage, keys.record(NAME, ids[0])),
        "its result's key, beyond the result": _usage(stage, keys.result(NAME, ids[0])) - result,
        "its entry in the index by time": _usage(stage, index) / stage.redis.zcard(index),
        "the expiry of both keys": (_expiries(stage) - expiries) / count,
        "its events (the newest 10,000 entries are kept, of one or many moves each)": (_usage(stage, keys.events(NAME)) - events) / count,
    }
    parts["the rest: the tables that find the keys grow in steps, counters, buffers"] = per - sum(parts.values())
    what = "store: a finished workload beyond payload and result"
    return [Figure(what, per, "B", most=1000), *(Figure(f"… of it {name}", size, "B") for name, size in parts.items())]


def _used(stage: Stage) -> float:
    """What data takes: all memory without the buffers of connections and of the file."""
    time.sleep(SETTLE_S)
    about = stage.redis.info("memory")
    return float(about["used_memory"] - about["mem_clients_normal"] - about["mem_aof_buffer"])


def _usage(stage: Stage, key: str) -> float:
    """A key with its name and its value, all of it counted."""
    return float(stage.redis.memory_usage(key, samples=0) or 0)


def _expiries(stage: Stage) -> float:
    return float(stage.redis.memory_stats()["db.0"]["overhead.hashtable.expires"])
