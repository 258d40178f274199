"""What ``handle_async`` returned, as JSON."""

from __future__ import annotations

import json
import math
import sys
from typing import Any, NoReturn

from jupyter_cortex.core.errors import ResultError

from .errors_text import type_name

#: Characters of a path that a message shows, and of one key in it.
PATH_SHOWN, KEY_SHOWN = 200, 40
#: Values looked at when searching for the one that is not JSON; a result that large is named without a path.
SEARCHED = 5_000_000

#: One for all results: `json.dumps` would make an encoder for each.
_as_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

#: A step on the way to a value: the step before it, and its key or index. The root is None.
Step = tuple[Any, Any] | None

_REMEDIES = {
    "datetime.datetime": ".isoformat()",
    "datetime.date": ".isoformat()",
    "datetime.time": ".isoformat()",
    "datetime.timedelta": ".total_seconds()",
    "decimal.Decimal": "float(...) or str(...)",
    "fractions.Fraction": "float(...)",
    "uuid.UUID": "str(...)",
    "complex": "[z.real, z.imag]",
    "bytes": 'base64.b64encode(...).decode() or .decode("utf-8")',
    "bytearray": 'base64.b64encode(...).decode() or .decode("utf-8")',
    "memoryview": "base64.b64encode(...).decode()",
    "set": "sorted(...) or list(...)",
    "frozenset": "sorted(...) or list(...)",
    "coroutine": "await (it was never awaited)",
    "mappingproxy": "dict(...)",
    "numpy.ndarray": ".tolist()",
    "pandas.DataFrame": '.to_dict("records")',
    "pandas.Series": ".tolist()",
    "pandas.Index": ".tolist()",
    "torch.Tensor": ".item() for one number, .tolist() for several",
}


#: The largest result, in bytes of JSON; a replica is told its environment's.
_most = 64 * 1024 * 1024


def limit(most: int) -> None:
    """From now on, results of more bytes are refused."""
    global _most
    _most = most


class Encoded:
    """A result that is JSON already: a notebook's, which its kernel has encoded under these very rules."""

    __slots__ = ("json",)

    def __init__(self, json: bytes) -> None:
        self.json = json


def most() -> int:
    """The largest result, in bytes."""
    return _most


def encode(value: Any) -> bytes:
    """The result as compact ASCII JSON; order and numbers are kept, lone surrogates stay escaped.

    Raises :class:`ResultError` of kind ``not_a_dict``, ``too_large``, or ``not_json`` with the ``path`` of the offending value.
    """
    encoded = _encode(value)
    if len(encoded) > _most:
        raise ResultError(
            f"handle_async's result has {len(encoded)} bytes as JSON, and at most {_most} are kept (JUPYTER_CORTEX_MAX_RESULT_BYTES); "
            "write what is large to a file or a bucket and return where it is",
            kind="too_large",
            limit=_most,
        )
    return encoded


def _encode(value: Any) -> bytes:
    if not isinstance(value, dict):
        if isinstance(value, Encoded):
            return value.json
        raise ResultError(
            f"handle_async returned {_a(value)}, and it must return a dict{_dict_remedy(value)}", kind="not_a_dict", alike=type_name(type(value))
        )
    try:
        return _as_json(value).encode("ascii")
    except Exception as exc:  # TypeError, ValueError, RecursionError, and whatever a dict subclass raises
        problem = exc
    try:
        _explain(value)
    except ResultError as explained:
        raise explained from problem
    except Exception:  # the search runs the author's subclasses too
        pass
    raise ResultError(
        f"handle_async's result cannot be written as JSON ({type(problem).__name__}); return only dicts, lists, strings, numbers, booleans and None",
        kind="not_json",
        alike=type(problem).__name__,
    ) from problem


def _dict_remedy(value: Any) -> str:
    if value is None:
        return " (is a return missing?)"
    if isinstance(value, tuple) and value and isinstance(value[0], dict):
        return "; return only its first element: there is no status code to give"
    if isinstance(value, (list, tuple, str, int, float)):
        return '; wrap it, as in {"result": ...}'
    return f"; use {remedy}" if (remedy := _remedy(value)).startswith((".to_dict", "dict", "await", ".model")) else ""


def _explain(result: dict[Any, Any]) -> None:
    """Find the first value that JSON has no form for and raise its error; an explicit stack, so depth is no matter."""
    deepest = sys.getrecursionlimit()
    open_ids: set[int] = set()  # the containers around the current value: meeting one again is a circle
    waiting: list[tuple[Any, Step, int, bool]] = [(result, None, 0, False)]
    for _ in range(SEARCHED):
        if not waiting:
            return
        value, step, depth, leaving = waiting.pop()
        if leaving:
            open_ids.discard(id(value))
            continue
        if not isinstance(value, (dict, list, tuple)):
            _check_scalar(value, step)
            continue
        if id(value) in open_ids:
            _refuse(step, "contains itself (a circular reference); return a copy without the circle")
        if depth >= deepest:
            _refuse(step, f"is nested more than {deepest} levels deep; return a flatter structure")
        open_ids.add(id(value))
        waiting.append((value, step, depth, True))
        if isinstance(value, dict):
            for key in value:
                _check_key(key, step)
            children = [(item, (step, key), depth + 1, False) for key, item in value.items()]
        else:
            children = [(item, (step, index), depth + 1, False) for index, item in enumerate(value)]
        waiting += reversed(children)
    # Deep but within Python's own limit: the encoder's stack was not empty when it began.


def _check_scalar(value: Any, step: Step) -> None:
    if value is None or isinstance(value, (str, bool)):
        return
    if isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError:
            _refuse(step, "has more digits than Python writes out; use str(...) in base 16 or a float")
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            _refuse(step, f"is {_non_finite(value)}, which JSON does not have; use None or leave it out")
        return
    remedy = _remedy(value)
    _refuse(step, f"is {type_name(type(value))}; {f'use {remedy}' if remedy else 'turn it into plain Python values'}")


def _check_key(key: Any, step: Step) -> None:
    if isinstance(key, float) and not math.isfinite(key):
        _refuse(step, f"has the key {_non_finite(key)}, which JSON does not have; use a string")
    if key is not None and not isinstance(key, (str, int, float)):
        _refuse(step, f"has a key of type {type_name(type(key))}; use str(...) for the keys")


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _remedy(value: Any) -> str:
    cls = type(value)
    name = type_name(cls)
    root, _, short = name.partition(".")
    for base in cls.__mro__:
        if (found := _REMEDIES.get(type_name(base))) is not None:
            return found
    if root == "numpy":
        for prefix, python in (("float", "float"), ("int", "int"), ("uint", "int"), ("bool", "bool"), ("str", "str")):
            if short.startswith(prefix):
                return f"{python}(...)"
        return ".item()"
    if root in ("pandas", "torch", "jax", "jaxlib", "tensorflow"):
        # Guessed from what it offers: one method name is worth more than the exact class path of a version.
        return next((f".{m}()" for m in ("isoformat", "tolist", "item", "numpy") if hasattr(value, m)), "str(...)")
    if hasattr(cls, "model_dump"):
        return ".model_dump()"
    if hasattr(cls, "__dataclass_fields__"):
        return "dataclasses.asdict(...)"
    if hasattr(cls, "__members__"):
        return ".value"
    if hasattr(cls, "__fspath__") or isinstance(value, BaseException):
        return "str(...)"
    if hasattr(cls, "keys") and hasattr(cls, "__getitem__"):
        return "dict(...)"
    return "list(...)" if hasattr(cls, "__iter__") or hasattr(cls, "__next__") else ""


def _a(value: Any) -> str:
    return "None" if value is None else f"a value of type {type_name(type(value))}"


def _refuse(step: Step, what: str) -> NoReturn:
    path = _path(step)
    raise ResultError(f"{path} {what}", kind="not_json", path=path, alike=f"{_place(step)} {what}")


def _place(step: Step) -> str:
    """The path's first key, where it is a name: what lies deeper is data, often, and differs from result to result."""
    key: Any = None
    while step is not None:
        step, key = step
    return key if isinstance(key, str) and key.isidentifier() else "*"


def _path(step: Step) -> str:
    parts: list[str] = []
    while step is not None:
        step, key = step
        text = ascii(key)
        if isinstance(key, str):
            text = json.dumps(key if len(key) <= KEY_SHOWN else key[: KEY_SHOWN - 3] + "...")
        parts.append(f"[{text[: 6 * KEY_SHOWN]}]")
    whole = "result" + "".join(reversed(parts))
    half = PATH_SHOWN // 2
    return whole if len(whole) <= PATH_SHOWN else whole[:half] + "..." + whole[-half:]
