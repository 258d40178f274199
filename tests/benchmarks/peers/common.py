"""What a peer is: one file ``on_<name>.py`` beside this one, and the few words it understands.

The file's head says what it needs as inline script metadata (``# dependencies = [...]``); the benchmark makes an environment of that. Its end is
``serve(enqueue, worker)``. Then, with the peer's own Python:

- ``on_x.py worker`` becomes the peer's worker process;
- ``on_x.py versions`` prints what is installed, as JSON;
- ``on_x.py enqueue`` reads ``<first> <count>`` lines and enqueues that many tasks, numbered from ``first``; it answers each line with the time
  before the first call of enqueue and the time after the last.

The task is a no-op that says when it was entered: ``note(number)`` appends 16 bytes to the file PEER_NOTES, 2 µs of its time.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import struct
import sys
import time
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

URL = os.environ.get("PEER_REDIS", "")
ENTRY = struct.Struct("qd")
#: Tasks that an enqueuing loop has under way at once. Alone on the line a task is enqueued at once, as ever.
TOGETHER = 64


@cache
def _notes() -> int:
    """Opened by the process that runs the task: workers fork."""
    return os.open(os.environ["PEER_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(number: int) -> None:
    """The first line of every task."""
    entered = time.time()
    os.write(_notes(), ENTRY.pack(number, entered))


def serve(enqueue: Callable[[int], object] | Callable[[int], Awaitable[object]], worker: Sequence[str]) -> None:
    """``enqueue(number)``: put one task into the queue. ``worker``: the arguments of the peer's Python that start its worker."""
    word = sys.argv[1]
    if word == "worker":
        os.execv(sys.executable, [sys.executable, *worker])
    elif word == "versions":
        print(json.dumps(_versions(Path(sys.argv[0]))))
    elif inspect.iscoroutinefunction(enqueue):
        asyncio.run(_answer_async(enqueue))
    else:
        for line in sys.stdin:
            first, count = map(int, line.split())
            began = time.time()
            for number in range(first, first + count):
                enqueue(number)
            print(began, time.time(), flush=True)


async def _answer_async(enqueue: Callable[[int], Awaitable[object]]) -> None:
    for line in sys.stdin:  # nothing else runs on this loop meanwhile
        first, count = map(int, line.split())
        began = time.time()
        for start in range(first, first + count, TOGETHER):
            await asyncio.gather(*(enqueue(number) for number in range(start, min(start + TOGETHER, first + count))))
        print(began, time.time(), flush=True)


def dependencies(path: Path) -> list[str]:
    """What a peer's file says that it needs."""
    lines = path.read_text().split("# /// script\n", 1)[1].split("# ///\n", 1)[0].splitlines()
    return list(tomllib.loads("\n".join(line.removeprefix("#").strip() for line in lines))["dependencies"])


def _versions(path: Path) -> dict[str, str]:
    names = [wanted.partition("[")[0] for wanted in dependencies(path)]
    return {name: metadata.version(name) for name in names}
