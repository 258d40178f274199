"""Which objects a statement makes parts of others: whoever changes the part later changes the whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from .bindings import bound_in, shallow
from .changes import KEEPING, gone_through, part_of, root_name, targets
from .effects import Call, StandIn
from .tree import walk

_DISPLAYS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Starred, ast.IfExp, ast.BoolOp)


@dataclass(frozen=True)
class Held:
    """``part`` belongs to ``whole`` from now on.

    ``by``: the class that was called with it, "" where no call is needed to tell. ``path``: the expression that is the part, where it was taken out.
    """

    part: str
    whole: str
    by: str = ""
    path: str = ""


def aliases(statement: ast.stmt) -> list[tuple[str, str]]:
    """(new, old): ``new = old`` makes two names of one object."""
    pairs = (pair for target, value in _assigned(statement) for pair in _paired(target, value))
    return [(target.id, value.id) for target, value in pairs if isinstance(target, ast.Name) and isinstance(value, ast.Name)]


def apart(statement: ast.stmt) -> dict[str, int]:
    """name -> which of the statement's values it gets: ``a, b = [], []`` has two, and nothing else is known to make two objects."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1 or any(isinstance(part, ast.NamedExpr) for part in walk(statement)):
        return {}
    values: dict[int, int] = {}
    found: dict[str, int] = {}
    for target, value in _paired(statement.targets[0], statement.value):
        found.update(dict.fromkeys(targets(target), values.setdefault(id(value), len(values))))
    return found


def held(statement: ast.stmt) -> list[Held]:
    """``rows`` in ``table = {"rows": rows}``, ``table.rows = rows``, ``tables.append(rows)``, ``Table(rows)``, ``def f(x=rows)``.

    And ``part`` in ``part = whole.part``, as well as what a ``match`` takes out of its subject.
    """
    found: list[Held] = []
    pairs = [pair for assigned in _assigned(statement) for pair in _paired(*assigned)]
    for target, value in pairs:
        if isinstance(target, ast.Name) and not isinstance(value, ast.Name) and (whole := part_of(value)):
            found.append(Held(target.id, whole, path=ast.unparse(value)))
        elif owner := root_name(target):
            direct = not isinstance(target, ast.Name)
            found += [Held(part, owner, by) for part, by in _parts(value, direct=direct)]
    for node in walk(statement):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in KEEPING
            and (owner := root_name(node.func.value))
        ):
            found += [Held(part, owner, by) for argument in node.args for part, by in _parts(argument, direct=True)]
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        defaults = [*statement.args.defaults, *filter(None, statement.args.kw_defaults)]
        found += [Held(part, statement.name, by) for default in defaults for part, by in _parts(default, direct=True)]
    elif isinstance(statement, (ast.For, ast.AsyncFor)):  # after the loop its variable is still the last item
        found += [Held(name, whole) for name, whole in gone_through(statement.target, statement.iter)]
    elif isinstance(statement, ast.Match) and (whole := root_name(statement.subject)):
        found += [Held(name, whole) for case in statement.cases for name in bound_in([case.pattern])]
    elif isinstance(statement, ast.ClassDef):
        values = [value for inner in statement.body for _, value in _assigned(inner)]
        found += [Held(part, statement.name, by) for value in values for part, by in _parts(value, direct=True)]
    return [one for one in dict.fromkeys(found) if one.part != one.whole or one.path]


def stand_ins(statement: ast.stmt) -> list[StandIn]:
    """The names that this statement makes stand for a call."""
    found = []
    for target, value in (pair for assigned in _assigned(statement) for pair in _paired(*assigned)):
        given: list[ast.expr] = []
        if isinstance(value, ast.Call) and value.args and getattr(value.func, "attr", getattr(value.func, "id", "")) == "partial":
            named = tuple((one.arg, name) for one in value.keywords if one.arg and (name := root_name(one.value)))
            value, *given = value.args
            if isinstance(value, ast.Name) and isinstance(target, ast.Name) and value.id != target.id:
                found.append(StandIn(target.id, Call(value.id, "", (*_passed(given, 0), *named)), len(given)))
        if isinstance(value, ast.Attribute) and isinstance(target, ast.Name) and (owner := root_name(value.value)) not in ("", target.id):
            found.append(StandIn(target.id, Call(owner, value.attr, ((0, owner), *_passed(given, 1))), 1 + len(given)))
    return found


def _passed(arguments: list[ast.expr], first: int) -> tuple[tuple[int | str, str], ...]:
    return tuple((at, name) for at, argument in enumerate(arguments, first) if (name := root_name(argument)))


def _assigned(statement: ast.stmt) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What it assigns to what, in its branches and loops too."""
    for node in shallow([statement]):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield node.target, node.value


def _paired(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """``a, b = c, d`` as ``a = c`` and ``b = d``."""
    if not isinstance(target, (ast.Tuple, ast.List)):
        yield target, value
        return
    values = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
    if len(target.elts) == len(values) and not any(isinstance(part, ast.Starred) for part in [*target.elts, *values]):
        for inner, part in zip(target.elts, values, strict=True):
            yield from _paired(inner, part)
    else:
        yield from ((inner.value if isinstance(inner, ast.Starred) else inner, value) for inner in target.elts)


def _parts(node: ast.expr, *, direct: bool) -> Iterator[tuple[str, str]]:
    """(name, class) of the objects that an expression's object holds; ``direct``: the expression itself is held, not only its items."""
    if direct and (name := part_of(node)):
        yield name, ""
    elif isinstance(node, _DISPLAYS):
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr):
                yield from _parts(part, direct=True)
    elif isinstance(node, ast.Call) and (called := getattr(node.func, "attr", getattr(node.func, "id", ""))) and called[0].isupper():
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            yield from ((name, called) for name, _ in _parts(argument, direct=True))
