"""The board: a small shared file on which a replica's threads post the id they run.

When a replica dies, its supervisor reads there which workloads were inside the handler: only those are charged with the death. Posting must not cost
a system call (it happens twice a workload), hence a memory map; the file survives any kind of death of the process.

Beside an id that has a deadline stands when its replica is to be replaced: a handler may hold the GIL, and then nobody in it could say so.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

#: Bytes per slot: one length byte and an id of at most 128 characters.
SLOT = 130
#: threads_per_process is at most 100.
SLOTS = 100
#: Behind all slots, one time for each (monotonic, which all processes of a machine share; 0 = none), and where all ends.
TIMES = SLOT * SLOTS
END = TIMES + 8 * SLOTS


class Board:
    """Slots 0..99, each free or holding one request id."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("a+b") as file:
                if (size := file.seek(0, 2)) < END:
                    # Really there rather than a hole: on a full disk, a post into a hole would be a SIGBUS.
                    file.write(bytes(END - size))
                    file.flush()
                self._map = mmap.mmap(file.fileno(), END)
        except OSError:
            path.unlink(missing_ok=True)  # nothing was posted, and each further attempt has a name of its own
            raise

    def post(self, slot: int, request_id: str) -> None:
        """Post an id. The length byte is written last, so that a death in between leaves a free slot rather than half an id."""
        data = request_id.encode("ascii", "replace")[: SLOT - 2]
        start = slot * SLOT
        self._map[start + 1 : start + 1 + len(data)] = data
        self._map[start] = len(data)

    def limit(self, slot: int, until: float) -> None:
        """Until when what is posted there next may run; it stays until it is said anew."""
        struct.pack_into("d", self._map, TIMES + 8 * slot, until)

    def clear(self, slot: int) -> None:
        self._map[slot * SLOT] = 0

    def read(self) -> list[str]:
        ids = []
        for start in range(0, TIMES, SLOT):
            if length := self._map[start]:
                ids.append(self._map[start + 1 : start + 1 + length].decode("ascii", "replace"))
        return ids

    def overdue(self, now: float) -> list[str]:
        """The ids that should not run any more."""
        ids = []
        for slot, (until,) in enumerate(struct.iter_unpack("d", self._map[TIMES:END])):
            start = slot * SLOT
            if 0 < until <= now and (length := self._map[start]):
                ids.append(self._map[start + 1 : start + 1 + length].decode("ascii", "replace"))
        return ids

    def close(self) -> None:
        self._map.close()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
