"""What an author's exception looks like in a record, an error document and a log line."""

from __future__ import annotations

import functools
import os
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from . import memory, origin
from .masking import masked

#: A traceback's size in a record. A recursion error of 1,000 frames takes about 100 kB.
MAX_TRACEBACK = 64 * 1024
#: The part of it kept from the beginning when it is cut; the end, with the exception itself, is worth more.
HEAD = 16 * 1024
MAX_MESSAGE = 8 * 1024
#: Library frames kept at the end of a stack that is too long: where it was raised.
LAST_FRAMES = 10

#: This package: its frames explain nothing to an author.
OWN = str(Path(__file__).resolve().parent.parent) + os.sep
_IMPORT_MACHINERY = "<frozen importlib"
#: How ``python -m`` enters a program.
_FROZEN = "<frozen runpy>"


class Elsewhere(Exception):
    """What was raised in another process, in a notebook's kernel, as it was described there.

    ``story``: ``{"type", "message", "traceback", "fingerprint", "frames", "place"}``.
    """

    def __init__(self, story: dict[str, Any]) -> None:
        super().__init__(story["message"])
        self.story = story


class _Memo(threading.local):
    texts: dict[int, str] | None = None  #: by exception


_memo = _Memo()


@contextmanager
def once() -> Iterator[None]:
    """Inside, a traceback that is asked for again (record, then log line) is not formatted again: that takes most of a failure's time."""
    _memo.texts = {}
    try:
        yield
    finally:
        _memo.texts = None


def describe(exc: BaseException, project_dir: str | os.PathLike[str] | None = None) -> dict[str, str]:
    """``{"type", "message", "traceback"}`` of an exception, each a str that every encoder accepts.

    The type is qualified (builtins are not), the message at most 8 kB, the traceback at most 64 kB without this
    package's frames and with project files named relative to ``project_dir``. Never raises.
    """
    return {
        "type": _clean(exc.story["type"]) if isinstance(exc, Elsewhere) else type_name(type(exc)),
        "message": _cut(_clean(message_of(exc)), MAX_MESSAGE, MAX_MESSAGE // 2),
        "traceback": traceback_text(exc, project_dir),
    }


def type_name(cls: type) -> str:
    """``ValueError``, ``numpy.float32``, ``mypackage.Problem``: the name to look a type up with."""
    module = getattr(cls, "__module__", None)
    name = str(getattr(cls, "__qualname__", None) or cls)
    return name if module in (None, "builtins", "__main__", "cortex_async_handler") else f"{module}.{name}"


def message_of(exc: BaseException) -> str:
    """``str(exc)``, or a note when that raises itself; of one that had no memory, which limit that was."""
    try:
        said, note = str(exc), memory.note(exc)
        return f"{said}; {note}" if said and note else note or said
    except BaseException as problem:  # an author's __str__ may raise anything, SystemExit included
        return f"<no message: __str__ raised {type(problem).__name__}>"


def traceback_text(exc: BaseException, project_dir: str | os.PathLike[str] | None = None) -> str:
    """The traceback as one string of at most 64 kB; see :func:`describe`. Never raises."""
    if isinstance(exc, Elsewhere):
        return _cut(_clean(exc.story["traceback"]), MAX_TRACEBACK, HEAD)
    try:
        text = _formatted(exc, project_dir, brief=False)
        if len(text) > MAX_TRACEBACK // 2:  # may be too long once encoded: the author's frames are what must stay
            text = text if _size(text) <= MAX_TRACEBACK else _formatted(exc, project_dir, brief=True)
    except BaseException as problem:  # formatting runs the author's code: __str__, __notes__, source loaders
        text = f"{type_name(type(exc))}: {message_of(exc)}\n<no traceback: {type(problem).__name__} while formatting>"
    return _cut(_clean(text), MAX_TRACEBACK, HEAD)


def stack_text(frame: FrameType | None, project_dir: str | os.PathLike[str] | None = None, calls: Iterable[FrameType] = ()) -> str:
    """Where a thread is at this moment, as a traceback's text: its frames without ours, then ``calls``, outermost first. Never raises."""
    try:
        stack = [*reversed(list(traceback.walk_stack(frame))), *((one, one.f_lineno) for one in calls)]
        lines = traceback.StackSummary.extract(iter(stack))
        lines[:] = [line for line in lines if not line.filename.startswith((OWN, _IMPORT_MACHINERY, _FROZEN))]
        text = "".join(lines.format())
        for root in [] if project_dir is None else roots(project_dir):
            text = text.replace(f'File "{root}', 'File "')
        return _cut(_clean(origin.annotated(text).rstrip("\n")), MAX_TRACEBACK, HEAD)
    except BaseException as problem:  # source loaders are the author's
        return f"<no stack: {type(problem).__name__} while formatting>"


def line_in(exc: BaseException, file: str | os.PathLike[str]) -> int | None:
    """The last line of ``file`` on the way to the exception, also for a syntax error in it; None if not there."""
    wanted = os.fspath(file)
    if isinstance(exc, SyntaxError) and exc.filename == wanted and isinstance(exc.lineno, int):
        return exc.lineno
    line, step = None, exc.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == wanted:
            line = step.tb_lineno
        step = step.tb_next
    return line


def _formatted(exc: BaseException, project_dir: str | os.PathLike[str] | None, *, brief: bool) -> str:
    ours = [] if project_dir is None else roots(project_dir)
    text = (_memo.texts or {}).get(id(exc), "") if not brief else ""
    if not text:
        report = traceback.TracebackException.from_exception(exc, compact=True, lookup_lines=False)
        _filter(report, ours, brief)
        text = "".join(report.format())
        if _memo.texts is not None and not brief:
            _memo.texts[id(exc)] = text
    for root in ours:
        text = text.replace(f'File "{root}', 'File "')
    return origin.annotated(text).rstrip("\n")


def roots(project_dir: str | os.PathLike[str]) -> list[str]:
    """What the names of a project's files may begin with."""
    return _roots(os.fspath(project_dir))


@functools.lru_cache(maxsize=8)  # looking for links takes as long as formatting a traceback
def _roots(project_dir: str) -> list[str]:
    given = os.path.join(os.path.abspath(project_dir), "")
    return list(dict.fromkeys([given, os.path.join(os.path.realpath(project_dir), "")]))


def _filter(report: Any, ours: list[str], brief: bool) -> None:
    """Drop frames in place, along causes and groups; a loop instead of recursion, because chains can be long."""
    seen: set[int] = set()
    waiting = [report]
    while waiting:
        part = waiting.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        stack = [f for f in part.stack if not f.filename.startswith((OWN, _IMPORT_MACHINERY))]
        if brief and ours:
            last = len(stack) - LAST_FRAMES
            stack = [f for i, f in enumerate(stack) if i >= last or f.filename.startswith(tuple(ours))]
        part.stack[:] = stack
        waiting += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]


def _clean(text: str) -> str:
    """Masked, and without the lone surrogates that no later ``encode()`` would take."""
    return masked(text).encode("utf-8", "backslashreplace").decode()


def _size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))


def _cut(text: str, limit: int, head: int) -> str:
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) <= limit:
        return text
    note = f"\n... {len(raw) - limit} bytes and more left out ...\n"
    tail = limit - head - len(note)
    return raw[:head].decode("utf-8", "ignore") + note + raw[-tail:].decode("utf-8", "ignore")
