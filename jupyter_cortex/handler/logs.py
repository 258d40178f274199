"""The logger ``cortex``: one JSON object per line in a replica, readable lines in a notebook.

``setup_worker`` or ``setup_notebook`` once, ``request(id)`` around every workload, ``capture_prints`` for print, and
``mask`` for what must not appear. Nothing here ever raises into a handler, but what was to interrupt it: a line that cannot be written is counted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from jupyter_cortex.core.errors import SpecError

from . import log_context, log_lines
from .log_context import Request
from .log_rate import LogRate
from .masking import mask, masked, masked_line
from .prints import Capture, CapturedStream, capture_prints

if TYPE_CHECKING:
    from .live import Stage

__all__ = [
    "Capture",
    "CortexLogger",
    "Request",
    "capture_prints",
    "current_request_id",
    "logger",
    "mask",
    "masked",
    "request",
    "setup_notebook",
    "setup_worker",
    "tell_dropped",
]

#: A longer line, in bytes once encoded, is cut to CUT_LINE_BYTES: logs are for reading, and a store holds them in memory.
MAX_LINE_BYTES, CUT_LINE_BYTES = 5_000_000, 100_000

cut_lines = 0  #: lines over MAX_LINE_BYTES
failed_writes = 0  #: lines that the output refused, and lines logged from within the output

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class CortexLogger(logging.Logger):
    """A logger whose ``extra`` may hold any key: the standard one raises KeyError for ``message``, ``name``, ..."""

    def makeRecord(  # noqa: N802 (the standard library's name)
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Any = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        record = super().makeRecord(name, level, fn, lno, msg, args, exc_info, func, None, sinfo)
        log_lines.attach(record, extra)
        return record


logger = logging.getLogger("cortex")
# By class rather than by setLoggerClass, which is process-wide: whoever asked for "cortex" earlier holds this object.
logger.__class__ = CortexLogger
logger.propagate = False


class LineHandler(logging.Handler):
    """Turns records into lines and hands them on, one at a time and without a newline. Lines beyond ``rate`` are dropped, and counted."""

    def __init__(self, output: Callable[[str], None], *, labels: dict[str, str] | None, human: bool, rate: LogRate | None = None) -> None:
        super().__init__()
        self._output = output
        self._rate = rate
        self._labels = None if labels is None else log_lines.Labels(labels)
        self._human = human

    def emit(self, record: logging.LogRecord) -> None:
        global failed_writes
        if log_context.guard.busy:  # the output or an extra's __str__ logs: once more would never end
            failed_writes += 1
            return
        request = log_context.current()
        goes_out = self._rate is None or self._rate.take()
        # What is dropped still belongs to its request, which keeps its own lines in case that it fails.
        if not goes_out and (request is None or request.full):
            return
        log_context.guard.busy = True
        try:
            self._write(log_lines.fields(record), request, goes_out)
        except Exception:  # a full disk, a closed pipe: the workload goes on
            failed_writes += 1
        finally:
            log_context.guard.busy = False
        if (interruption := log_context.guard.after) is not None:
            log_context.guard.after = None
            raise interruption

    def tell_dropped(self) -> None:
        """Say how many lines were dropped since the last time."""
        # In a flood the lock is hardly ever free: then the next time will do.
        if self._rate is None or self.lock is None or not self.lock.acquire(timeout=0.5):
            return
        try:
            if note := self._rate.note():
                self._write(self._note(note), None, True)
        except Exception:
            pass  # a closed pipe: there is nobody left to tell
        finally:
            self.lock.release()

    def _write(self, values: dict[str, Any], request: Request | None, goes_out: bool) -> None:
        if self._labels is not None:
            values["labels"] = self._labels
        if request is not None:
            # Popped first: the bound id is the truth and stands last, also when the author logs one of that name.
            values.pop("request_id", None)
            values["request_id"] = request.request_id
            if request.run > 1:
                values["run"] = request.run
        line = masked_line(log_lines.encode(values)) if request is not None or not self._human else ""
        if len(line) > MAX_LINE_BYTES:  # ASCII: characters are bytes
            values, line = self._cut(values, len(line))
        if request is not None and not request.keep(line):
            request.lines.append(log_lines.encode(self._note(f"later lines are left out here: {_LIMIT_NOTE}")))
        if goes_out:
            if self._rate is not None:
                self._rate.charge(len(line))
            self._output(masked(log_lines.readable(values)) if self._human else line)

    def _cut(self, values: dict[str, Any], size: int) -> tuple[dict[str, Any], str]:
        global cut_lines
        cut_lines += 1
        values = log_lines.cut(values, CUT_LINE_BYTES, masked)
        values["cut"] = f"the line had {size} bytes, and at most {MAX_LINE_BYTES} are kept whole"
        return values, masked_line(log_lines.encode(values))

    def _note(self, message: str) -> dict[str, Any]:
        record = logging.LogRecord(logger.name, logging.WARNING, "", 0, message, (), None)
        values = log_lines.fields(record)
        request = log_context.current()
        return values if request is None else {**values, "request_id": request.request_id}


_LIMIT_NOTE = f"a request keeps {log_context.MAX_KEPT_BYTES} bytes of its log"


def setup_worker(write: Callable[[str], None], *, labels: dict[str, str], level: str = "info", rate: int | None = None) -> None:
    """Send every record as one JSON line (without newline) to ``write``, but for long no more than ``rate`` a second; replaces an earlier set-up.

    ``write`` is called by one thread at a time. `tell_dropped` must be called now and then. Raises :class:`SpecError` for a level that is not
    debug, info, warning or error.
    """
    _setup(LineHandler(write, labels=labels, human=False, rate=None if rate is None else LogRate(rate)), level)


def tell_dropped() -> None:
    """Log how many lines were dropped since the last time, if any."""
    for handler in logger.handlers:
        if isinstance(handler, LineHandler):
            handler.tell_dropped()


def setup_notebook(stream: TextIO | None = None, level: str = "info") -> None:
    """Show the same records as readable lines on ``stream`` (by default whatever sys.stdout is at that moment)."""

    def write(text: str) -> None:
        target = sys.stdout if stream is None else stream
        if isinstance(target, CapturedStream):
            target = target.original
        target.write(text + "\n")

    _setup(LineHandler(write, labels=None, human=True), level)


def request(request_id: str, run: int = 1, stage: Stage | None = None) -> Request:
    """Bind a request id inside a ``with`` block and collect the request's lines in ``.lines``; after a requeue they carry their ``run``. ``stage``
    hears of its progress."""
    return Request(request_id, run, stage)


def current_request_id() -> str | None:
    """The id of the request that this thread or coroutine works for."""
    found = log_context.current()
    return None if found is None else found.request_id


def _setup(handler: LineHandler, level: str) -> None:
    number = _LEVELS.get(str(level).lower())
    if number is None:
        raise SpecError(f"log_level is {ascii(level)[:40]}; use one of {', '.join(_LEVELS)}", path="handler.log_level")
    for old in [old for old in logger.handlers if isinstance(old, LineHandler)]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(number)
