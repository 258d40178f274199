"""Which names a list of statements binds in its own scope, and which of them for certain."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from .tree import children, walk

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_TypeAlias = getattr(ast, "TypeAlias", ())
#: Context managers that go on after an error, so that what is below them may not have happened.
_SWALLOWING = frozenset({"suppress", "raises", "warns", "ignored"})


def bound_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Every name that these statements bind in their own scope; nested functions and classes bind only their own name."""
    for node in shallow(nodes):
        yield from bound_by(node)


def bound_by(node: ast.AST) -> Iterator[str]:
    """The names that this node itself binds."""
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Store):
            yield node.id
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Import):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names if alias.name != "*")
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        yield from filter(None, [node.name])
    elif isinstance(node, ast.MatchMapping):
        yield from filter(None, [node.rest])


def declared_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names that are only annotated (``x: int``): local to a function, but bound to nothing. Of nodes that :func:`shallow` found."""
    for node in nodes:
        if isinstance(node, ast.AnnAssign) and node.value is None and isinstance(node.target, ast.Name):
            yield node.target.id


def deleted_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names that ``del`` takes away, of nodes that :func:`shallow` found."""
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del):
            yield node.id


def certainly_deleted(statements: Sequence[ast.stmt]) -> set[str]:
    """Names that ``del`` takes away whenever these statements have run to their end. One in a branch may not have run."""
    found: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.Delete):
            found |= set(deleted_in(shallow([statement])))
        elif isinstance(statement, (ast.With, ast.AsyncWith)) and not _swallows(statement):
            found |= certainly_deleted(statement.body)
    return found


def shallow(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """These nodes and what is below them in the same scope. Of a comprehension only its walruses, which bind outside of it."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, (ast.Name, ast.Constant)):
            continue
        if isinstance(node, _COMPREHENSIONS):
            waiting += [inner.target for inner in walk(node) if isinstance(inner, ast.NamedExpr)]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif isinstance(node, ast.ClassDef):
            waiting += [*node.decorator_list, *node.bases, *node.keywords]
        elif _TypeAlias and isinstance(node, _TypeAlias):
            waiting.append(node.name)
        elif isinstance(node, ast.AnnAssign) and node.value is None and isinstance(node.target, ast.Name):
            continue
        elif not isinstance(node, ast.Lambda):
            waiting += children(node)


def certainly_bound(statements: Sequence[ast.stmt]) -> set[str]:
    """The names that are bound whenever these statements have run to their end."""
    found: set[str] = set()
    for statement in statements:
        found |= certain(statement)
    return found


def _swallows(node: ast.With | ast.AsyncWith) -> bool:
    return any(_called(item.context_expr) in _SWALLOWING for item in node.items)


def certain(node: ast.stmt) -> set[str]:
    """:func:`certainly_bound` of one statement."""
    if isinstance(node, ast.If):
        return evaluated(node.test) | (certainly_bound(node.body) & certainly_bound(node.orelse))
    if isinstance(node, (ast.For, ast.AsyncFor)):
        return evaluated(node.iter)
    if isinstance(node, ast.While):
        return evaluated(node.test)
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return set(bound_in(node.items)) | (set() if _swallows(node) else certainly_bound(node.body))
    if isinstance(node, (ast.Try, ast.TryStar)):
        after = certainly_bound([*node.body, *node.orelse])
        for handler in node.handlers:
            if not (handler.body and isinstance(handler.body[-1], ast.Raise)):
                after &= certainly_bound(handler.body)
        return after | certainly_bound(node.finalbody)
    if isinstance(node, ast.Match):
        total = any(isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None for case in node.cases)
        each = [certainly_bound(case.body) for case in node.cases]
        return evaluated(node.subject) | (set.intersection(*each) if total and each else set())
    return evaluated(node)


def evaluated(node: ast.AST) -> set[str]:
    """What a simple statement or an expression binds, without the walruses that it may skip."""
    skipped: set[str] = set()
    nodes = list(shallow([node]))
    for part in nodes:
        if isinstance(part, ast.BoolOp):
            skipped |= set(bound_in(part.values[1:]))
        elif isinstance(part, ast.IfExp):
            skipped |= set(bound_in([part.body, part.orelse]))
        elif isinstance(part, _COMPREHENSIONS):
            skipped |= {inner.target.id for inner in walk(part) if isinstance(inner, ast.NamedExpr)}
    return {name for part in nodes for name in bound_by(part)} - skipped


def _called(node: ast.expr) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", getattr(function, "id", ""))
