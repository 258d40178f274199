"""Which failures are the same: the exception's type and the author's lines on the way to it.

Function names and source text rather than files and line numbers: shifted lines, moved cells, a new version, and running in a notebook's kernel
instead of the module made from it all leave the fingerprint as it is.
"""

from __future__ import annotations

import functools
import hashlib
import json
import linecache
import os
import re
import sysconfig
import traceback
from collections import Counter
from dataclasses import dataclass
from typing import Any

from jupyter_cortex.core.errors import CortexError

from . import errors_text, origin
from .masking import masked

#: Hex digits: 48 bits are enough to tell an API's failures apart, and short enough to be typed.
DIGITS = 12
#: Of a stack that is longer, as many frames from its beginning and from its end.
FIRST_FRAMES, LAST_FRAMES = 5, 25
MAX_TEXT = 200
#: Links of a chain of causes that count.
CHAIN = 10

_LIBRARIES = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
#: What differs between two messages of one kind: numbers, and what is quoted.
_VARIABLE = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|0x[0-9a-fA-F]+|\d+")


@dataclass(frozen=True, slots=True)
class _Step:
    """One frame. ``place``: the notebook's cell and line, or ""."""

    file: str
    line: int
    function: str
    text: str
    place: str
    user: bool


def explain(error: BaseException, kind: str, message: str, project_dir: str | os.PathLike[str]) -> tuple[str, list[dict[str, Any]]]:
    """The fingerprint of an exception and its frames; ``kind`` is its type's name. Never raises.

    One without a frame of the author's goes by its reason. The author's frames come first, each from the outermost to the one that raised:
    ``{"file", "line", "function", "text", "place", "user"}``; ``place`` is ``"cell 3, line 4"`` or "", ``file`` is relative to the project.
    """
    if isinstance(error, errors_text.Elsewhere):
        return error.story["fingerprint"], [
            {name: masked(value) if isinstance(value, str) else value for name, value in frame.items()} for frame in error.story["frames"]
        ]
    try:
        chain = [(link, _steps(link)) for link in _chain(error)]
        shown = _shown(chain[0][1], errors_text.roots(project_dir))
        first, *others = [[errors_text.type_name(type(link)), _path(link, steps)] for link, steps in chain]
        if first[1] or any(path for _, path in others):
            return _digest([kind, first[1], sorted(map(json.dumps, others))]), shown
    except BaseException:  # an author's class may raise anything where it is looked at; a failure is recorded all the same
        shown = []
    reason = error.details.get("kind") if isinstance(error, CortexError) else None
    return of_reason(kind, str(reason or message)), shown


def of_reason(kind: str, reason: str) -> str:
    """The fingerprint of a failure that no exception tells of: its type, and its reason without numbers and quoted parts."""
    return _digest([kind, _VARIABLE.sub("#", reason)])


def _shown(steps: list[_Step], roots: list[str]) -> list[dict[str, Any]]:
    mine = _ends([step for step in steps if step.user], FIRST_FRAMES, LAST_FRAMES)
    return [_frame(step, roots) for step in mine + _ends([step for step in steps if not step.user], 0, errors_text.LAST_FRAMES)]


def _frame(step: _Step, roots: list[str]) -> dict[str, Any]:
    file = next((step.file[len(root) :] for root in roots if step.file.startswith(root)), step.file)
    return {
        "file": "" if step.place and origin.is_kernel() else masked(file),
        "line": step.line,
        "function": step.function,
        "text": masked(step.text)[:MAX_TEXT],
        "place": step.place,
        "user": step.user,
    }


def _ends(steps: list[_Step], first: int, last: int) -> list[_Step]:
    return steps if len(steps) <= first + last else steps[:first] + steps[len(steps) - last :]


def _steps(error: BaseException) -> list[_Step]:
    """The frames but those of this package."""
    found = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        file = code.co_filename
        if line is not None and not file.startswith(errors_text.OWN):
            function = "<module>" if code.co_name.startswith("<cell line") else code.co_name
            place = origin.place(file, line)
            text = linecache.getline(file, line, frame.f_globals).strip()
            found.append(_Step(file, line, function, text, place, bool(place) or not _is_foreign(file)))
    return found


@functools.lru_cache(maxsize=512)
def _is_foreign(file: str) -> bool:
    """A library's, or code that was made by code ("<string>", "<frozen importlib._bootstrap>")."""
    return file.startswith(("<", *_LIBRARIES)) or any(part in file for part in _INSTALLED)


def _path(error: BaseException, steps: list[_Step]) -> list[tuple[str, str]]:
    """The author's lines on the way to an exception, each once: how deep a recursion went is the payload's affair."""
    mine = Counter((step.function, step.text) for step in steps if step.user)
    # Where in the circle the limit was met is chance; what came by once only may be, too.
    circle = isinstance(error, RecursionError) and any(times > 1 for times in mine.values())
    return [step for step, times in mine.items() if times > 1 or not circle]


def _chain(error: BaseException) -> list[BaseException]:
    """An exception, what caused it, and the members of groups."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < CHAIN:
        link = waiting.pop(0)
        if any(link is one for one in found):
            continue
        found.append(link)
        cause = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        waiting += [one for one in (cause, *(getattr(link, "exceptions", None) or ())) if isinstance(one, BaseException)]
    return found


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:DIGITS]
