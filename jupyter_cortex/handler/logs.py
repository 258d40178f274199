"""The logger ``cortex``: one JSON object per line in a replica, readable lines in a notebook.

``setup_worker`` or ``setup_notebook`` once, ``request(id)`` around every workload, ``capture_prints`` for print, and
``mask`` for what must not appear. Nothing here ever raises into a handler: a line that cannot be written is counted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO

from jupyter_cortex.core.errors import SpecError

from . import log_context, log_lines
from .log_context import Request
from .masking import mask, masked, masked_line
from .prints import Capture, CapturedStream, capture_prints

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
]

#: A longer line, in bytes once encoded, is not stored: logs are for reading, and a store holds them in memory.
MAX_LINE_BYTES = 5_000_000

dropped_lines = 0  #: lines over MAX_LINE_BYTES
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
    """Turns records into lines and hands them on, one at a time and without a newline."""

    def __init__(self, output: Callable[[str], None], *, labels: dict[str, str] | None, human: bool) -> None:
        super().__init__()
        self._output = output
        self._labels = None if labels is None else log_lines.Labels(labels)
        self._human = human

    def emit(self, record: logging.LogRecord) -> None:
        global failed_writes
        if log_context.guard.busy:  # the output or an extra's __str__ logs: once more would never end
            failed_writes += 1
            return
        log_context.guard.busy = True
        try:
            self._write(log_lines.fields(record))
        except Exception:  # a full disk, a closed pipe: the workload goes on
            failed_writes += 1
        finally:
            log_context.guard.busy = False

    def _write(self, values: dict[str, Any]) -> None:
        request = log_context.current()
        if self._labels is not None:
            values["labels"] = self._labels
        if request is not None:
            # Popped first: the bound id is the truth and stands last, also when the author logs one of that name.
            values.pop("request_id", None)
            values["request_id"] = request.request_id
        line = masked_line(log_lines.encode(values)) if request is not None or not self._human else ""
        if len(line) > MAX_LINE_BYTES:  # ASCII: characters are bytes
            self._too_long(len(line))
            return
        if request is not None and not request.keep(line):
            request.lines.append(log_lines.encode(self._note(f"later lines are left out here: {_LIMIT_NOTE}")))
        self._output(masked(log_lines.readable(values)) if self._human else line)

    def _too_long(self, size: int) -> None:
        global dropped_lines
        dropped_lines += 1
        if dropped_lines == 1:  # said once per process: such lines come in series
            self._write(self._note(f"a log line of {size} bytes was left out; at most {MAX_LINE_BYTES} are kept"))

    def _note(self, message: str) -> dict[str, Any]:
        record = logging.LogRecord(logger.name, logging.WARNING, "", 0, message, (), None)
        values = log_lines.fields(record)
        request = log_context.current()
        return values if request is None else {**values, "request_id": request.request_id}


_LIMIT_NOTE = f"a request keeps {log_context.MAX_KEPT_BYTES} bytes of its log"


def setup_worker(write: Callable[[str], None], *, labels: dict[str, str], level: str = "info") -> None:
    """Send every record as one JSON line (without newline) to ``write``; replaces an earlier set-up.

    ``write`` is called by one thread at a time. Raises :class:`SpecError` for a level that is not debug, info,
    warning or error.
    """
    _setup(LineHandler(write, labels=labels, human=False), level)


def setup_notebook(stream: TextIO | None = None, level: str = "info") -> None:
    """Show the same records as readable lines on ``stream`` (by default whatever sys.stdout is at that moment)."""

    def write(text: str) -> None:
        target = sys.stdout if stream is None else stream
        if isinstance(target, CapturedStream):
            target = target.original
        target.write(text + "\n")

    _setup(LineHandler(write, labels=None, human=True), level)


def request(request_id: str) -> Request:
    """Bind a request id inside a ``with`` block and collect the request's lines in ``.lines``."""
    return Request(request_id)


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
