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
from collections import Counter
from dataclasses import dataclass
from types import CodeType
from typing import Any

from jupyter_cortex.core.errors import CortexError, ResultError

from . import errors_text, log_context, masking, origin
from .masking import masked

#: Hex digits: 48 bits are enough to tell an API's failures apart, and short enough to be typed.
DIGITS = 12
#: Of a stack that is longer, as many frames from its beginning and from its end.
FIRST_FRAMES, LAST_FRAMES = 5, 25
MAX_TEXT = 200
#: Links of a chain of causes that count.
CHAIN = 10
#: Failures whose story is kept, and the frames of one that is: a production's mistakes come again and again, and telling of one takes 0.15 ms in a
#: busy replica.
KNOWN, KNOWN_FRAMES = 64, 100

_LIBRARIES = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
#: What differs between two messages of one kind: numbers, and what is quoted.
_VARIABLE = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|0x[0-9a-fA-F]+|\d+")


#: One link of a chain of causes: its exception's type, and for each frame its code, its line, and where its source may be asked for.
_Link = tuple[type[BaseException], list[tuple[CodeType, int, dict[str, Any]]]]


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
        links = [(type(link), _walked(link)) for link in _chain(error)]
        if (path := _of_path(links, kind, project_dir)) is not None:
            return path
        shown = _shown(_steps(links[0]), errors_text.roots(project_dir))
    except BaseException:  # an author's class may raise anything where it is looked at; a failure is recorded all the same
        shown = []
    reason = error.details.get("kind") if isinstance(error, CortexError) else None
    if isinstance(error, ResultError) and error.alike:
        reason = f"{reason} {error.alike}"
    return of_reason(kind, str(reason or message)), shown


@dataclass(frozen=True, slots=True)
class _Known:
    """What was said of a path. It holds what the key names by id, so that no other code or class can come by that id."""

    links: list[_Link]
    surroundings: tuple[Any, ...]
    said: tuple[str, list[dict[str, Any]]]


_known: dict[tuple[Any, ...], _Known] = {}


def _of_path(links: list[_Link], kind: str, project_dir: str | os.PathLike[str]) -> tuple[str, list[dict[str, Any]]] | None:
    """What :func:`explain` says of a path on which a frame is the author's; None of another. The same path is worked out once.

    Not in a kernel, where a line's text may change under its code, and not where a request hides values of its own.
    """
    key = None
    if not origin.is_kernel() and not log_context.masks() and sum(len(frames) for _, frames in links) <= KNOWN_FRAMES:
        surroundings = (origin.used()[0], masking.known())
        path = tuple((id(cls), *((id(code), line) for code, line, _ in frames)) for cls, frames in links)
        key = (kind, os.fspath(project_dir), *map(id, surroundings), path)
        if (known := _known.get(key)) is not None:
            return known.said
    steps = [_steps(link) for link in links]
    first, *others = [[errors_text.type_name(cls), _path(cls, found)] for (cls, _), found in zip(links, steps, strict=True)]
    if not first[1] and not any(path for _, path in others):
        return None
    said = _digest([kind, first[1], sorted(map(json.dumps, others))]), _shown(steps[0], errors_text.roots(project_dir))
    if key is not None:
        if len(_known) >= KNOWN:
            _known.clear()
        _known[key] = _Known([(cls, [(code, line, {}) for code, line, _ in frames]) for cls, frames in links], surroundings, said)
    return said


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


def _walked(error: BaseException) -> list[tuple[CodeType, int, dict[str, Any]]]:
    """The frames on the way to an exception but those of this package."""
    found, step = [], error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if step.tb_lineno is not None and not code.co_filename.startswith(errors_text.OWN):
            found.append((code, step.tb_lineno, step.tb_frame.f_globals))
        step = step.tb_next
    return found


def _steps(link: _Link) -> list[_Step]:
    found = []
    for code, line, names in link[1]:
        file = code.co_filename
        function = "<module>" if code.co_name.startswith("<cell line") else code.co_name
        place = origin.place(file, line)
        text = linecache.getline(file, line, names).strip()
        found.append(_Step(file, line, function, text, place, bool(place) or not _is_foreign(file)))
    return found


@functools.lru_cache(maxsize=512)
def _is_foreign(file: str) -> bool:
    """A library's, or code that was made by code ("<string>", "<frozen importlib._bootstrap>")."""
    return file.startswith(("<", *_LIBRARIES)) or any(part in file for part in _INSTALLED)


def _path(cls: type[BaseException], steps: list[_Step]) -> list[tuple[str, str]]:
    """The author's lines on the way to an exception, each once: how deep a recursion went is the payload's affair."""
    mine = Counter((step.function, step.text) for step in steps if step.user)
    # Where in the circle the limit was met is chance; what came by once only may be, too.
    circle = issubclass(cls, RecursionError) and any(times > 1 for times in mine.values())
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
