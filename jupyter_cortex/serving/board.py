"""The board: a small shared file on which a replica's threads post the id they run.

When a replica dies, its supervisor reads there which workloads were inside the handler: only those are charged with the death. Posting must not cost
a system call (it happens twice a workload), hence a memory map; the file survives any kind of death of the process.
"""

from __future__ import annotations

import mmap
from pathlib import Path

#: Bytes per slot: one length byte and an id of at most 128 characters.
SLOT = 130
#: threads_per_process is at most 100.
SLOTS = 100


class Board:
    """Slots 0..99, each free or holding one request id."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("a+b") as file:
            if (size := file.seek(0, 2)) < SLOT * SLOTS:
                # Really there rather than a hole: on a full disk, a post into a hole would be a SIGBUS.
                file.write(bytes(SLOT * SLOTS - size))
                file.flush()
            self._map = mmap.mmap(file.fileno(), SLOT * SLOTS)

    def post(self, slot: int, request_id: str) -> None:
        """Post an id. The length byte is written last, so that a death in between leaves a free slot rather than half an id."""
        data = request_id.encode("ascii", "replace")[: SLOT - 2]
        start = slot * SLOT
        self._map[start + 1 : start + 1 + len(data)] = data
        self._map[start] = len(data)

    def clear(self, slot: int) -> None:
        self._map[slot * SLOT] = 0

    def read(self) -> list[str]:
        ids = []
        for start in range(0, SLOT * SLOTS, SLOT):
            if length := self._map[start]:
                ids.append(self._map[start + 1 : start + 1 + length].decode("ascii", "replace"))
        return ids

    def close(self) -> None:
        self._map.close()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
