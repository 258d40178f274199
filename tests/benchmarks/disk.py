"""The disk alone: what a write costs that has to be there before anybody is answered. Below it no store can come that syncs each write."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import MB

#: About what the store writes for a request that comes in.
RECORD_BYTES = 700


class Disk:
    """A file that grows as the store's does."""

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, data: bytes = b"x" * RECORD_BYTES) -> float:
        """Append and sync; ms."""
        began = time.perf_counter()
        os.write(self._file, data)
        os.fdatasync(self._file)
        return (time.perf_counter() - began) * 1000


@contextmanager
def disk_of(directory: Path) -> Iterator[Disk]:
    """The disk of that directory."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        yield Disk(file.fileno())


def rate(directory: Path, body: bytes, piece: int, count: int) -> float:
    """MB/s of writing a body so many times in pieces, each synced, and nothing else."""
    with disk_of(directory) as disk:
        took = sum(disk.write(body[at : at + piece]) for _ in range(count) for at in range(0, len(body), piece))
    return len(body) * count / (took / 1000) / MB


def allocate(directory: Path, size: int) -> None:
    """Have the disk find room for what is written there next.

    A virtual disk takes blocks that are new to it at 1.8 GB/s for some 500 MB and at 340 MB/s behind them, and those that were in use a moment ago at
    1.8 GB/s: without this a row shows how much others have written in the minutes before it.
    """
    piece = os.urandom(1 << 20)
    rate(directory, piece, len(piece), size // len(piece))
    os.sync()
