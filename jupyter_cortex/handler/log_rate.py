"""How fast a replica may log: what it writes for long goes through the worker and lies in the store's memory."""

from __future__ import annotations

from time import monotonic

#: A line of more bytes than this counts as several.
BYTES_PER_LINE = 1000
#: So many seconds' lines may come at once: what a handler says of one large request, or a traceback storm, stays whole.
BURST_S = 10


class LogRate:
    """``rate``: lines a second, for long. Not for several threads at once."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.dropped = 0
        self._free = float(rate * BURST_S)
        self._since = monotonic()

    def free(self) -> int:
        """How many lines may be written now."""
        now = monotonic()
        self._free = min(self._free + (now - self._since) * self.rate, float(self.rate * BURST_S))
        self._since = now
        return max(0, int(self._free))

    def take(self) -> bool:
        """One more line: whether it may be written. If not, it counts as dropped."""
        if self._free < 1 and self.free() < 1:
            self.dropped += 1
            return False
        self._free -= 1
        return True

    def charge(self, size: int) -> None:
        """A line that was taken turned out to have so many bytes."""
        self._free -= size // BYTES_PER_LINE

    def note(self) -> str:
        """What is to be said of the lines dropped since the last note; "" for none."""
        dropped, self.dropped = self.dropped, 0
        if not dropped:
            return ""
        lines = "1 log line was" if dropped == 1 else f"{dropped} log lines were"
        return f"{lines} left out: a replica may write {self.rate} a second for long (JUPYTER_CORTEX_LOG_RATE)"
