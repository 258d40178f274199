"""The request that a handler works for, while it does: how far it is, and whether it should go on.

Known by context, so a handler's signature says nothing of it: `progress` and `cancelled` mean the request of the thread, coroutine or copied context
that calls them. Notebook and replica run the same code; they differ in who hears what is told (`Stage`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jupyter_cortex.core.errors import ResultError

from . import log_context, logs, masking, result

#: Characters of a progress's text, and bytes of a partial result: they are for looking at while the whole is on its way.
TEXT, PARTIAL_BYTES = 500, 1 << 20


class Interrupted(BaseException):
    """Raised in a handler that is to end. No ``Exception``: a handler's own ``except Exception`` must not swallow it."""


class Cancelled(Interrupted):
    """The caller has taken the request back"""


class DeadlineExceeded(Interrupted):
    """The request has run for longer than its timeout allows"""


@dataclass(frozen=True)
class Progress:
    """How far a request is. ``at``: ms since the epoch; ``partial``: JSON of a result so far, or empty."""

    fraction: float
    text: str
    at: int
    partial: bytes = b""

    def public(self) -> dict[str, Any]:
        return {"fraction": self.fraction, "text": self.text, "at": self.at}


class Stage:
    """Where one thread runs its handlers: who hears of their progress, and what an interruption must know.

    ``request`` is what is inside the handler at this moment, None otherwise. Only who finds it set may interrupt the thread, so that nothing but
    the author's code is ever hit. On the main thread a signal's handler looks there itself; into another thread the exception is put from outside and
    comes a little later: ``pending`` says so, and `settle` takes back what came too late.
    """

    __slots__ = ("deadline", "ident", "limit", "lock", "pending", "request", "take_back", "tell")

    def __init__(self, tell: Callable[[str, Progress], None], take_back: Callable[[int], None] = lambda ident: None) -> None:
        self.tell, self.take_back = tell, take_back
        self.ident = threading.get_ident()
        self.lock = threading.Lock()
        self.request: log_context.Request | None = None
        self.pending = False
        #: When (monotonic) the request's time is over, 0 = never, and the sentence that says which limit that is.
        self.deadline, self.limit = 0.0, ""

    def settle(self) -> None:
        """An interruption was on its way while the handler ended: from here on it is not."""
        with self.lock:
            self.take_back(self.ident)
            self.pending = False


def progress(fraction: float, text: str = "", *, partial: dict[str, Any] | None = None) -> None:
    """Tell how far the request is that this code works for: ``fraction`` from 0 to 1, in words, and what there is of the result.

    Callers see it at ``GET …/<id>`` and ``GET …/<id>/events``, the notebook and JupyterLab as a bar. Cheap: what comes more often than ten times a
    second is told with the next. Outside of a request it does nothing. When the request was cancelled or its time is over, it does not return.

    Raises TypeError or ValueError when ``fraction`` is no number, and what a result of that kind would fail with when ``partial`` is no JSON or
    larger than 1 MiB.
    """
    request = log_context.current()
    stage = request.stage if request is not None else None
    if request is None or stage is None:
        logs.logger.debug("progress(%r) outside of a request is told to nobody", fraction)
        return
    if request.ending is not None:
        raise request.ending()
    number = float(fraction)
    if math.isnan(number):
        raise ValueError("progress: fraction must be a number from 0 to 1, but is NaN")
    encoded = b"" if partial is None else result.encode(partial)
    if len(encoded) > PARTIAL_BYTES:
        raise ResultError(
            f"progress: the partial result has {len(encoded)} bytes as JSON, and at most {PARTIAL_BYTES} are told; leave some of it out",
            kind="too_large",
            limit=PARTIAL_BYTES,
        )
    said = masking.masked(str(text))[:TEXT]
    stage.tell(request.request_id, Progress(min(1.0, max(0.0, number)), said, int(time.time() * 1000), encoded))


def cancelled() -> bool:
    """Whether the request that this code works for should end: its caller took it back, or its time is over. False outside of a request."""
    request = log_context.current()
    return request is not None and request.ending is not None
