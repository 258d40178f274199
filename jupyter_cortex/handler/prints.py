"""``print`` as log lines: line-buffered stand-ins for sys.stdout and sys.stderr."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

from . import log_context

#: Characters of an unfinished line after which it is sent anyway; a progress bar may never end one.
MAX_PARTIAL = 64 * 1024

_LEVELS = {"stdout": logging.INFO, "stderr": logging.WARNING}


class Partial:
    """Text of one thread that has not ended its line yet."""

    __slots__ = ("_emit", "_pieces", "_size")

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._pieces: list[str] = []
        self._size = 0

    def write(self, text: str) -> None:
        """Take text of any number of lines; those that have ended are sent."""
        first, *others = text.split("\n")
        if first:
            self.add(first)
        for line in others:
            self.flush()
            if line:
                self.add(line)

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self._size += len(text)
        if self._size > MAX_PARTIAL:
            self.flush()

    def flush(self) -> None:
        """Send what is there; a line that was rewritten with carriage returns counts as its last state."""
        text = "".join(self._pieces)
        self._pieces, self._size = [], 0
        text = text.rstrip("\r").rpartition("\r")[2]
        if text:  # a bare newline is spacing for people and no event
            self._emit(text)


class CapturedStream(io.TextIOBase):
    """Takes text, sends lines to the logger ``cortex``. ``fileno()`` is the original's, ``isatty()`` is False."""

    mode = "w"
    line_buffering = True
    write_through = False

    def __init__(self, name: str, original: TextIO) -> None:
        super().__init__()
        self.name = f"<{name}>"
        self.original = original
        self.buffer = _Bytes(self)
        self._stream = name
        self._partials: dict[int, Partial] = {}  # of threads that work for no request

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        guard = log_context.guard
        if guard.busy or guard.printing:  # a log handler that prints, also about its own failure
            self._direct(text)
            return len(text)
        self._partial().write(text)
        return len(text)

    def flush(self) -> None:
        """Nothing: a line goes when it ends, or when its request does; ``flush=True`` is used by progress dots."""

    def flush_partials(self) -> None:
        for partial in list(self._partials.values()):
            partial.flush()

    def fileno(self) -> int:
        return self.original.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing: closing standard output would silence every later request."""

    def reconfigure(self, **_: Any) -> None:
        """Nothing to configure: lines are text until a log handler encodes them."""

    def _partial(self) -> Partial:
        request = log_context.current()
        ident = threading.get_ident()
        if request is not None:
            return request.partials.setdefault((self._stream, ident), Partial(self._emit))
        return self._partials.setdefault(ident, Partial(self._emit))

    def _emit(self, line: str) -> None:
        logger = logging.getLogger("cortex")
        if not logger.handlers:
            self._direct(line + "\n")
            return
        # Past the level check on purpose: log_level is about the logger, and a print always comes out.
        record = logger.makeRecord(logger.name, _LEVELS[self._stream], "", 0, line, (), None, extra={"stream": self._stream})
        log_context.guard.printing = True
        try:
            logger.handle(record)
        except Exception:  # a foreign handler that raises must not fail a print
            self._direct(line + "\n")
        finally:
            log_context.guard.printing = False

    def _direct(self, text: str) -> None:
        try:
            self.original.write(text)
        except Exception:  # a closed or full pipe: there is nobody left to tell
            pass


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer`` of a captured stream: bytes are shown as text."""

    def __init__(self, owner: CapturedStream) -> None:
        super().__init__()
        self._owner = owner

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._owner.write(raw.decode("utf-8", "backslashreplace"))
        return len(raw)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._owner.fileno()

    def close(self) -> None:
        """Nothing, as for the text stream."""


class Capture:
    """What :func:`capture_prints` has put in place; leaving the ``with`` block or ``uninstall()`` puts it back."""

    def __init__(self) -> None:
        # Taken only once: a second capture must not log the lines of the first.
        self._replaced = [name for name in _LEVELS if not isinstance(getattr(sys, name), CapturedStream)]
        self._streams = {name: CapturedStream(name, _original(name)) for name in self._replaced}
        self._before = {name: getattr(sys, name) for name in self._replaced}
        for name, stream in self._streams.items():
            setattr(sys, name, stream)

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstall()

    def uninstall(self) -> None:
        """Send unfinished lines and restore the streams, unless somebody else has replaced them since."""
        for name, stream in self._streams.items():
            stream.flush_partials()
            if getattr(sys, name) is stream:
                setattr(sys, name, self._before[name])


def capture_prints() -> Capture:
    """Replace sys.stdout and sys.stderr from now on: their lines become records of level info and warning.

    Each line carries ``stream`` and the request id of the code that printed it. ``sys.__stdout__`` and what C code
    writes to the file descriptors stay as they are.
    """
    return Capture()


def _original(name: str) -> TextIO:
    return getattr(sys, name) or getattr(sys, f"__{name}__") or open_null()


def open_null() -> TextIO:
    """A stream for processes without standard streams (a detached replica)."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
