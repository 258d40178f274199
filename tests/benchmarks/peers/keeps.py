"""The least that keeps a body: its digest (BLAKE3, as ours) and one file, which is on disk before anybody is answered. No record, no queue, nobody
to run it.

Hashing, writing and syncing are done by threads, while more of the body comes in.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from blake3 import blake3
from floor import END, START

#: Bytes that are handed to a thread together, and that are written before the disk is asked to begin.
TOGETHER, BEGIN_SYNC = 256 * 1024, 2 * 1024 * 1024
THREADS = ThreadPoolExecutor(4)


def write(file: int, digest: Any, parts: Sequence[bytes]) -> None:
    for part in parts:
        digest.update(part)
    os.writev(file, parts)


def finish(file: int, directory: str) -> None:
    os.fsync(file)
    place = os.open(directory, os.O_RDONLY)
    os.fsync(place)
    os.close(place)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    loop = asyncio.get_running_loop()
    file, path = tempfile.mkstemp(dir=os.getcwd())
    digest, parts, held, unsynced = blake3(), [], 0, 0
    writing: asyncio.Future[None] | None = None
    syncing: asyncio.Future[None] | None = None
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        parts.append(message.get("body", b""))
        held += len(parts[-1])
        if held < TOGETHER and more:
            continue
        if writing is not None:
            await writing
        writing = loop.run_in_executor(THREADS, write, file, digest, parts)
        unsynced += held
        parts, held = [], 0
        if unsynced >= BEGIN_SYNC and more and (syncing is None or syncing.done()):
            syncing = loop.run_in_executor(THREADS, os.fdatasync, file)
            unsynced = 0
    for under_way in (writing, syncing):
        if under_way is not None:
            await under_way
    await loop.run_in_executor(THREADS, finish, file, os.getcwd())
    os.close(file)
    os.unlink(path)
    await send(START)
    await send(END)
