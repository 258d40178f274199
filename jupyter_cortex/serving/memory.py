"""Whether the kernel has ended processes for want of memory. It says so in counters only: a killed process looks the same whoever killed it."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

#: Seconds between a kill and its end that count as one: a process with much memory takes a while to go.
WINDOW_S = 15.0


def counter(root: Path = Path("/")) -> Path | None:
    """Where the kills are counted: for our own control group and those below it, else for the whole machine; None where nobody counts."""
    try:
        group = next(line[3:] for line in (root / "proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        group = "/"
    found = (root / f"sys/fs/cgroup{group}/memory.events", root / "sys/fs/cgroup/memory.events", root / "proc/vmstat")
    return next((path for path in found if _read(path) is not None), None)


def _read(path: Path) -> int | None:
    try:
        return next((int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("oom_kill ")), None)
    except (OSError, ValueError):
        return None


class Kills:
    """``look`` now and then; ``lately`` tells, when a process was killed, whether memory was the reason: None where nobody counts."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._path = counter(root)
        self._seen: deque[tuple[float, int]] = deque()
        self.look()

    def look(self) -> None:
        now = time.monotonic()
        if self._path is None or (count := _read(self._path)) is None:
            return
        self._seen.append((now, count))
        while len(self._seen) > 1 and self._seen[1][0] < now - WINDOW_S:
            self._seen.popleft()

    def lately(self) -> bool | None:
        self.look()
        return self._seen[-1][1] > self._seen[0][1] if self._seen else None
