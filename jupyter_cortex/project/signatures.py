"""The Handler's signatures, checked on its source: no module is run for it, so `show` and `check` can say it at once."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from ..core.errors import HandlerError
from ..handler.signature import check_class

#: Decorators that do not change what a method declares.
_KNOWN = frozenset({"staticmethod", "classmethod", "abstractmethod"})


def check_source(classes: Iterable[ast.ClassDef], name: str, *, handler_type: str, path: str) -> HandlerError | None:
    """What `handler.signature.check_class` says of the class ``name``, made again from the given class definitions without their bodies.

    None when it says nothing, or when the source alone cannot tell: a base class from elsewhere, a decorator that may wrap, a method that is
    assigned. The gate and each replica check the real class.
    """
    known = {node.name: node for node in classes}
    stubs: list[ast.stmt] = []
    try:
        _add(name, known, stubs, [])
    except LookupError:
        return None
    module = ast.fix_missing_locations(ast.Module(body=stubs, type_ignores=[]))
    space: dict[str, object] = {}
    exec(compile(module, "<signatures>", "exec"), space)
    try:
        check_class(space[name], handler_type=handler_type, path=path)  # type: ignore[arg-type]
    except HandlerError as error:
        return error
    return None


def _add(name: str, known: dict[str, ast.ClassDef], stubs: list[ast.stmt], path: list[str]) -> None:
    """Append the stub of a class, its bases first. Raises LookupError where the source cannot tell."""
    if any(isinstance(stub, ast.ClassDef) and stub.name == name for stub in stubs):
        return
    if name not in known or name in path or known[name].decorator_list or known[name].keywords:
        raise LookupError
    node = known[name]
    bases: list[ast.expr] = []
    for base in node.bases:
        if not isinstance(base, ast.Name):
            raise LookupError
        if base.id != "object":
            _add(base.id, known, stubs, [*path, name])
        bases.append(ast.Name(base.id, ast.Load()))
    body: list[ast.stmt] = [_stub(part) for part in node.body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))]
    others = [part for part in node.body if not isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Expr, ast.Pass, ast.AnnAssign))]
    if any(isinstance(target, ast.Name) and target.id in ("__init__", "handle_async", "__new__") for part in others for target in ast.walk(part)):
        raise LookupError
    stubs.append(ast.ClassDef(name=name, bases=bases, keywords=[], body=body or [ast.Pass()], decorator_list=[], **_types()))


def _stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    """The function with its parameters and nothing else: no body, annotations, or default values but None."""
    decorators: list[ast.expr] = []
    for decorator in node.decorator_list:
        if not isinstance(decorator, ast.Name) or decorator.id not in _KNOWN:
            raise LookupError
        if decorator.id != "abstractmethod":
            decorators.append(ast.Name(decorator.id, ast.Load()))
    args = node.args

    def bare(argument: ast.arg | None) -> ast.arg | None:
        return None if argument is None else ast.arg(argument.arg)

    bare_args = ast.arguments(
        posonlyargs=[ast.arg(one.arg) for one in args.posonlyargs],
        args=[ast.arg(one.arg) for one in args.args],
        vararg=bare(args.vararg),
        kwonlyargs=[ast.arg(one.arg) for one in args.kwonlyargs],
        kw_defaults=[None if default is None else ast.Constant(None) for default in args.kw_defaults],
        kwarg=bare(args.kwarg),
        defaults=[ast.Constant(None) for _ in args.defaults],
    )
    kind = type(node)
    return kind(name=node.name, args=bare_args, body=[ast.Pass()], decorator_list=decorators, returns=None, **_types())


def _types() -> dict[str, Any]:
    """Python 3.12's type parameters, which its constructors want."""
    return {"type_params": []} if "type_params" in ast.ClassDef._fields else {}
