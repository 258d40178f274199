"""From a payload to a notebook's parameters, and to the cell that papermill injects."""

from __future__ import annotations

import base64
import copy
import json
import keyword
from collections.abc import Sequence
from typing import Any

from jupyter_cortex.core import json_paths
from jupyter_cortex.core.errors import PayloadError
from jupyter_cortex.core.readers import FieldError
from jupyter_cortex.handler.masking import STARS

#: Offered to a notebook whose ``parameters`` cell has a name for them.
OURS = ("config", "request_id")
#: Characters of a literal, and how deep it may be nested, before it is read as JSON instead: Python's own parser gives up at about 100 levels.
LITERAL, NESTED = 100_000, 20


def of(payload: Any, config: dict[str, Any], request_id: str, declared: set[str] | None) -> dict[str, Any]:
    """Parameter -> value: a dict's members by their names, any other payload as ``payload``; ``config`` and ``request_id`` where ``declared``.

    Raises :class:`PayloadError` of kind ``parameter`` for a member that is no name of Python's, or that is ours.
    """
    given = payload if isinstance(payload, dict) else {"payload": payload}
    ours = {"config": config, "request_id": request_id}
    wanted = {name: ours[name] for name in OURS if name in (declared or ())}
    for name in given:
        shown = json.dumps(name if len(name) <= 60 else name[:57] + "...")
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
            raise PayloadError(
                f"{shown} cannot be a parameter of the notebook: members of the payload must be Python names; rename it", kind="parameter"
            )
        if name in wanted:
            raise PayloadError(f"{shown} is what this notebook gets from its API, not from the payload; rename it", kind="parameter")
    return {**given, **wanted}


def unknown(given: dict[str, Any], declared: set[str] | None) -> list[str]:
    """Names that the ``parameters`` cell does not know: mistyped, perhaps."""
    return [] if declared is None else sorted(set(given) - declared)


def covered(payload: Any, paths: Sequence[str]) -> Any:
    """The payload as a kept notebook may show it: ``***`` at ``paths``. None for what is no JSON document: nobody can say what may be shown of it."""
    if not isinstance(payload, (dict, list)):
        return None
    document = [copy.deepcopy(payload)]
    for path in paths:
        try:
            json_paths.replace(document[0], json_paths.parse(path), lambda value: STARS)
        except FieldError:
            return None
    return document[0]


def translator(base: type) -> type:
    """papermill's translator for Python, which knows bytes as well, and large or deep values."""

    class Translator(base):  # type: ignore[misc, valid-type]
        @classmethod
        def translate(cls, val: Any) -> str:
            if isinstance(val, bytes):
                return f'__import__("base64").b64decode("{base64.b64encode(val).decode()}")'
            if isinstance(val, (dict, list)) and _is_much(val):
                return f'__import__("json").loads({cls.translate_str(json.dumps(val))})'
            return str(super().translate(val))

    return Translator


def _is_much(value: Any) -> bool:
    waiting, size = [(value, 1)], 0
    while waiting:
        one, depth = waiting.pop()
        size += len(one) if isinstance(one, (str, dict, list)) else 8
        if depth > NESTED or size > LITERAL:
            return True
        if isinstance(one, dict):
            waiting += [(item, depth + 1) for item in one.values()]
        elif isinstance(one, list):
            waiting += [(item, depth + 1) for item in one]
    return False
