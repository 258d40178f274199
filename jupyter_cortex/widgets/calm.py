"""Drawing at a pace that an eye can follow, and a browser too."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable

#: Seconds between two drawings.
DRAW_S = 0.1


class Calm:
    """Calls ``draw`` after each `touch`, at most ten times a second and not in the first tenth; what was touched last is drawn in any case."""

    def __init__(self, draw: Callable[[], None]) -> None:
        self._draw, self._drawn = draw, time.monotonic()
        self._lock = threading.RLock()
        self._later: threading.Timer | None = None
        self._done = False

    def touch(self) -> None:
        """There is something new: drawn now, or a moment later, so that it is seen also when a long silence follows."""
        with self._lock:
            if self._later is not None or self._done:
                return
            if (wait := DRAW_S - (time.monotonic() - self._drawn)) > 0:
                # In the cell's own context: the front end must know which cell's output it is.
                self._later = threading.Timer(wait, contextvars.copy_context().run, (self._draw_now,))
                self._later.daemon = True
                self._later.start()
            else:
                self._draw_now()

    def _draw_now(self) -> None:
        with self._lock:
            if not self._done:
                self._later = None
                self._draw()
                self._drawn = time.monotonic()

    def close(self) -> None:
        """Nothing is drawn any more."""
        with self._lock:
            self._done = True
            if self._later is not None:
                self._later.cancel()
