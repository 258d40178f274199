"""Which request a line belongs to, and the lines that a request keeps."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .live import Interrupted, Stage
    from .prints import Partial
    from .redaction import Mask

#: What a failed workload keeps of its own lines, in bytes: enough to see what happened, small enough for a record.
MAX_KEPT_BYTES = 1_000_000

#: Of so many requests, or of those with so many characters in all, the redacted values stay hidden in lines that belong to no request: a thread of
#: the author's may still speak of them.
MASKS_KEPT, MASK_CHARACTERS = 128, 1 << 20

_current: contextvars.ContextVar[Request | None] = contextvars.ContextVar("cortex_request", default=None)


class Request:
    """Binds a request id to everything logged inside its ``with`` block, awaited coroutines and tasks included.

    ``lines`` holds the request's own encoded lines, the oldest up to 1 MB and then one note. Threads that the author
    starts begin without a request (Python gives them an empty context) unless they are run in a copied context.
    """

    __slots__ = ("_kept", "_token", "ending", "full", "lines", "mask", "partials", "request_id", "run", "stage", "task", "where")

    def __init__(self, request_id: str, run: int = 1, stage: Stage | None = None) -> None:
        self.request_id, self.run = request_id, run
        #: What the spec redacts of its payload.
        self.mask: Mask | None = None
        #: Who hears of its progress (live.py); None once the handler has returned, and where nobody listens.
        self.stage = stage
        #: What is raised in it because it should end, and where it was when that was decided; None and "" as long as it may go on.
        self.ending: type[Interrupted] | None = None
        self.where = ""
        #: The task of an async handler and its loop.
        self.task: Any = None
        self.lines: list[str] = []
        #: Printed text without its newline yet, by stream and thread: an async handler prints on another thread.
        self.partials: dict[tuple[str, int], Partial] = {}
        self.full = False
        self._kept = 0
        self._token: contextvars.Token[Request | None] | None = None

    def __enter__(self) -> Request:
        self._token = _current.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if self.partials:
                for partial in list(self.partials.values()):
                    partial.flush()
        finally:
            if self._token is not None:
                _current.reset(self._token)

    def hide(self, mask: Mask) -> None:
        """From now on none of these values appears in the request's texts, nor in those of no request."""
        self.mask = mask
        _recent.append(mask)
        size = sum(one.size for one in list(_recent))  # a copy: other threads add theirs
        while len(_recent) > 1 and (len(_recent) > MASKS_KEPT or size > MASK_CHARACTERS):
            size -= _recent.popleft().size

    def keep(self, line: str) -> bool:
        """Add a line; False for the first one that does not fit, so that the caller adds its note."""
        if self.full:
            return True
        size = len(line) + 1  # lines are ASCII: characters are bytes
        if self._kept + size > MAX_KEPT_BYTES:
            self.full = True
            return False
        self._kept += size
        self.lines.append(line)
        return True


def current() -> Request | None:
    """The request that this thread or coroutine works for."""
    return _current.get()


def masks() -> Sequence[Mask]:
    """What to hide in a text that is written here and now."""
    request = _current.get()
    if request is not None:
        return () if request.mask is None else (request.mask,)
    return tuple(_recent) if _recent else ()


class _Guard(threading.local):
    after: type[BaseException] | None = None  #: an interruption that came while this thread wrote a line: it is raised when the line is whole
    busy = False  #: this thread is inside a log handler: what is printed or logged there must not come back to it
    printing = False  #: this thread logs a printed line: another handler of the logger may print it again


guard = _Guard()
_recent: deque[Mask] = deque()
