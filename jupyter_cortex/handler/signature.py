"""Which arguments the author's methods declare, and whether the runtime can give them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, NoReturn

from jupyter_cortex.core.errors import HandlerError

#: What each type of Handler must and may declare in its constructor (the receiver, ``self``, comes first).
CONSTRUCTOR: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "python": (("self", "config"), ("metrics_client",)),
    "tensorflow": (("self", "tensorflow_client", "config"), ("metrics_client",)),
}
#: ... and in ``handle_async``.
HANDLE_ASYNC: tuple[tuple[str, ...], tuple[str, ...]] = (("self",), ("payload", "request_id"))

_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_class(cls: type, *, handler_type: str = "python", path: str = "handler.py") -> None:
    """Check the signatures of a Handler class: the constructor first, then ``handle_async``; the first problem wins.

    Raises :class:`HandlerError` with stage ``validate`` and kind ``method_missing``, ``not_a_method``,
    ``arg_missing``, ``arg_unsupported``, ``self_missing``, ``self_not_first`` or ``positional_only``.
    """
    required, optional = CONSTRUCTOR.get(handler_type, CONSTRUCTOR["python"])
    if written_constructor(cls):
        _check_method(cls, "__init__", required, optional, path)
    elif _static(cls, "__new__") is object.__new__ and not _static(cls, "handle_async"):
        # No constructor is fine for a class that handles requests. One without either is not a Handler at all, and
        # by the order of the checks the constructor is what its error is about.
        _fail(
            cls,
            path,
            "arg_missing",
            "it has neither a constructor that takes config nor the required method handle_async; define def handle_async(self, payload)",
            method="__init__",
        )
    _check_method(cls, "handle_async", *HANDLE_ASYNC, path)


def constructor_arguments(cls: type) -> frozenset[str]:
    """The names that the class's own ``__init__`` (or, without one, its ``__new__``) declares; no ``*args``."""
    if written_constructor(cls):
        return frozenset(named_arguments(cls.__init__)[1:])  # type: ignore[misc]
    new = _static(cls, "__new__")
    written = isinstance(new, staticmethod) and isinstance(new.__func__, types.FunctionType)
    return frozenset(named_arguments(new.__func__)[1:]) if written else frozenset()


def written_constructor(cls: type) -> bool:
    """Whether somebody wrote an ``__init__``: those in C (object, dict, threading.local) and typing's do not count."""
    init = _static(cls, "__init__")
    return not isinstance(init, types.WrapperDescriptorType) and getattr(init, "__module__", None) != "typing"


def named_arguments(function: Callable[..., Any]) -> list[str]:
    """Declared names in order, keyword-only ones included; ``functools.wraps`` is followed."""
    return [name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in _NAMED]


def is_async(cls: type) -> bool:
    """Whether ``handle_async`` is an ``async def``, also below a wrapper that used ``functools.wraps``."""
    method = _static(cls, "handle_async")
    try:
        return inspect.iscoroutinefunction(inspect.unwrap(method))
    except ValueError:  # wrappers in a circle
        return False


def _static(cls: type, name: str) -> Any:
    return inspect.getattr_static(cls, name, None)


def _check_method(cls: type, name: str, required: tuple[str, ...], optional: tuple[str, ...], path: str) -> None:
    static = _static(cls, name)
    try:
        missing = not static
    except Exception:  # truth of an arbitrary object, such as an array
        missing = False
    if missing:
        _fail(cls, path, "method_missing", f"required method {name} is not defined; define def {name}(...)", method=name)
    try:
        function = getattr(cls, name)
        parameters = inspect.signature(function).parameters if callable(function) else None
    except Exception:  # a descriptor that raises, or something in C without a signature
        parameters = None
    if parameters is None:
        _fail(cls, path, "not_a_method", f"{name} is defined, but is not a method; write it with def", method=name)
    kinds = {key: parameter.kind for key, parameter in parameters.items() if parameter.kind in _NAMED}
    if isinstance(static, (staticmethod, classmethod)):
        kinds.pop("self", None)  # a static method may call a parameter so, but it is not given an instance
    problem = _problem(kinds, required, optional)
    if problem is not None:
        kind, argument, sense = problem
        shown = ", ".join(str(parameter).partition(":")[0] for parameter in parameters.values())
        sense = f'invalid signature for method "{name}({shown})": "{argument}" {sense}'
        _fail(cls, path, kind, sense, method=name, argument=argument, line=_line(function, path))


def _problem(kinds: dict[str, Any], required: tuple[str, ...], optional: tuple[str, ...]) -> tuple[str, str, str] | None:
    """The first thing wrong: kind, argument, sense."""
    names = list(kinds)
    allowed = ", ".join((*required, *optional))
    for name in required:
        if name not in kinds:
            kind = "self_missing" if name == "self" else "arg_missing"
            return kind, name, "is a required argument, but is not declared; add it by this name"
    if names[0] != "self" or kinds["self"] is inspect.Parameter.KEYWORD_ONLY:
        return "self_not_first", "self", "must be the first argument; move it there"
    for name in names:
        if name not in required and name not in optional:
            return "arg_unsupported", name, f"is not supported, with or without a default; the names are {allowed}"
    for name in names[1:]:
        if kinds[name] is inspect.Parameter.POSITIONAL_ONLY:
            return "positional_only", name, "is positional-only, and arguments are passed by name; remove the /"
    return None


def _line(function: Any, path: str) -> int | None:
    """Where the method begins, if that is in the handler's own file (it may be inherited from another)."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_firstlineno if code is not None and code.co_filename.endswith(path) else None


def _fail(cls: type, path: str, kind: str, sense: str, **details: Any) -> NoReturn:
    line = details.get("line")
    where = f"{path}, line {line}" if line else path
    raise HandlerError(f"error in {where}: class {cls.__name__}: {sense}", stage="validate", kind=kind, path=path, **details)
