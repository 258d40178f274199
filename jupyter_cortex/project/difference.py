"""Two JSON values beside each other: what is new, gone and changed, by path, and which numbers are the same within what arithmetic may differ by."""

from __future__ import annotations

import json
import math
from typing import Any

from .check_cells import FLOAT_TOLERANCE

#: Differences that are listed; behind them only their number is told.
MOST = 200
#: Characters of a value beside another one.
SHOWN = 300


def difference(then: Any, now: Any) -> dict[str, Any]:
    """``{"rows": [{"path", "kind", "then", "now"}], "more", "same", "tolerance"}``; kinds are added, removed, changed and close.

    ``then`` and ``now`` are short JSON texts, None where there is no value. ``close``: numbers within ``tolerance`` of each other, which ``same``
    (no other difference) takes for equal, as samples do. ``more``: how many rows were left out.
    """
    rows: list[dict[str, Any]] = []
    counted, same = 0, True
    waiting: list[tuple[str, Any, Any]] = [("result", then, now)]
    while waiting:
        path, old, new = waiting.pop()
        if isinstance(old, dict) and isinstance(new, dict):
            waiting += reversed(list(_of_maps(path, old, new)))
        elif isinstance(old, list) and isinstance(new, list):
            waiting += reversed([(f"{path}[{at}]", *pair) for at, pair in enumerate(_paired(old, new))])
        elif kind := _kind(old, new):
            same = same and kind == "close"
            counted += 1
            if len(rows) < MOST:
                rows.append({"path": path, "kind": kind, "then": _brief(old), "now": _brief(new)})
    return {"rows": rows, "more": counted - len(rows), "same": same, "tolerance": FLOAT_TOLERANCE}


def verdict(production: dict[str, Any], here: dict[str, Any], compared: dict[str, Any] | None) -> tuple[str, str]:
    """(kind, sentence): how what happened here stands to what production answered."""
    if here["status"] == "refused":
        return "refused", "it would be refused at the door: the Handler does not see it"
    if production["status"] not in ("completed", "failed"):
        ended = "completes" if here["status"] == "completed" else "fails"
        return "unfinished", f"production has no answer ({production['status']}); here it {ended}"
    if production["status"] == "failed":
        if here["status"] == "completed":
            return "fixed", "it failed in production and succeeds here"
        if here["fingerprint"] and here["fingerprint"] == production["fingerprint"]:
            return "same_failure", "the same failure as in production"
        return "another_failure", "it fails here, too, but otherwise"
    if here["status"] == "failed":
        return "fails_here", "it succeeded in production and fails here"
    assert compared is not None
    if compared["same"]:
        close = f" (numbers within {compared['tolerance']:g})" if compared["rows"] else ""
        return "same_result", f"the same result as in production{close}"
    count = len(compared["rows"]) + compared["more"]
    return "changed", f"another result than in production: {count} difference{'s' * (count != 1)}"


class _Missing:
    """Stands where one of the two has no value: JSON's null is a value."""


_MISSING = _Missing()


def _of_maps(path: str, old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    keys = [*old, *(key for key in new if key not in old)]
    return [(f"{path}.{key}", old.get(key, _MISSING), new.get(key, _MISSING)) for key in keys]


def _paired(old: list[Any], new: list[Any]) -> list[tuple[Any, Any]]:
    length = max(len(old), len(new))
    return [(old[at] if at < len(old) else _MISSING, new[at] if at < len(new) else _MISSING) for at in range(length)]


def _kind(old: Any, new: Any) -> str:
    """How two values that are not both maps or both lists differ; "" when they do not."""
    if old is _MISSING:
        return "added"
    if new is _MISSING:
        return "removed"
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new)):
        return "" if old == new else "close" if _close(old, new) else "changed"
    return "" if type(old) is type(new) and old == new else "changed"


def _close(old: float, new: float) -> bool:
    """As the checks before a deploy see it: whole numbers are exact."""
    if not isinstance(old, float) and not isinstance(new, float):
        return False
    try:
        return math.isclose(old, new, rel_tol=FLOAT_TOLERANCE, abs_tol=1e-12)
    except OverflowError:  # an integer that no float holds
        return False


def _brief(value: Any) -> str | None:
    if value is _MISSING:
        return None
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return f"{type(value).__name__}, nested too deeply to show"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"
