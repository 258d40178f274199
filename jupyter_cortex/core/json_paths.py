"""The JSON paths of ``retain.redact``: a small part of JSONPath, enough to name what must not stay.

``$.card.number``, ``$.items[*].pin``, ``$..password`` (at any depth), ``$['a key']``, ``$.rows[0]``; ``card.number`` means ``$.card.number``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from .readers import FieldError, printable

#: (what, name or index): "key", "index", "each" (all members), "any" (a key at any depth).
Step = tuple[str, Any]

#: A path is read at each deploy and each start of a replica, and walked with each payload that ends.
LONGEST = 500
_STEP = re.compile(
    r"""\.\.(?P<any>[^\s.\[\]*'"$?@()]+) | \.(?P<all>\*) | \.(?P<key>[^\s.\[\]*'"$?@()]+)
      | \[\s*(?:(?P<each>\*) | (?P<index>[0-9]{1,9}) | '(?P<single>[^'\\]*)' | (?P<double>"(?:[^"\\]|\\.)*"))\s*\]""",
    re.VERBOSE,
)
_REMEDY = "write $.a.b, $.a[*].b, $.a[0], $..b or $['a b']"


def parse(path: str) -> tuple[Step, ...]:
    """The steps of a path, one or more. Raises FieldError."""
    if len(path) > LONGEST:
        raise FieldError("too_long", f"this has {len(path):,} characters; the limit is {LONGEST}.")
    rest = path[1:] if path.startswith("$") else path if path.startswith((".", "[")) else f".{path}"
    steps: list[Step] = []
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        if found is None:
            raise FieldError("value", f"{printable(path)!r} is not a path that is understood here; {_REMEDY}.")
        steps.append(_step(found, path))
        at = found.end()
    if not steps:
        raise FieldError("value", f"{printable(path)!r} names the whole payload; use `payload: never`, or name what is in it.")
    return tuple(steps)


def check(path: str) -> str:
    """``path`` as it is, if it can be read. Raises FieldError."""
    parse(path)
    return path


def _step(found: re.Match[str], path: str) -> Step:
    kind = str(found.lastgroup)
    value = found[kind]
    if kind in ("all", "each"):
        return "each", None
    if kind == "index":
        return "index", int(value)
    if kind == "double":
        try:
            return "key", json.loads(value)
        except ValueError:
            raise FieldError("value", f"{printable(path)!r}: what stands in quotes is no JSON string; {_REMEDY}.") from None
    return ("any", value) if kind == "any" else ("key", value)


def replace(document: Any, steps: tuple[Step, ...], new: Callable[[Any], Any]) -> None:
    """Put ``new(value)`` in the place of each value that the path names. A loop rather than recursion: payloads may be deep."""
    places = [(document, steps)]
    while places:
        here, (first, *rest) = places.pop()
        for holder, key in _members(here, first):
            if rest:
                places.append((holder[key], tuple(rest)))
            else:
                holder[key] = new(holder[key])


def _members(here: Any, step: Step) -> list[tuple[Any, Any]]:
    """(holder, key) of each value that one step names below ``here``."""
    kind, name = step
    if kind == "any":
        # Inner ones first: what lies below a value that goes must be seen before it goes.
        return [(holder, name) for holder in reversed(_maps(here)) if name in holder]
    if isinstance(here, dict):
        return [(here, key) for key in here] if kind == "each" else [(here, name)] if kind == "key" and name in here else []
    if isinstance(here, list):
        return [(here, at) for at in range(len(here))] if kind == "each" else [(here, name)] if kind == "index" and name < len(here) else []
    return []


def _maps(document: Any) -> list[dict[str, Any]]:
    """All maps in a document, outer ones first."""
    found, waiting = [], [document]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            found.append(here)
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here
    return found


def leaves(value: Any) -> list[Any]:
    """All values in a document that hold no others."""
    found, waiting = [], [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here
        else:
            found.append(here)
    return found
