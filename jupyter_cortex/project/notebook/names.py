"""What one top-level statement binds, uses and changes, by Python's rules of scope.

A use is *immediate* when the name is looked up while the statement runs (decorators, defaults, base classes, class bodies, annotations, plain
expressions), and *deferred* when it is looked up later, when a function that the statement makes is called.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from .bindings import bound_by, bound_in, certain, certainly_bound, certainly_deleted, evaluated, shallow
from .changes import Views, changes_of
from .effects import seen_through
from .scopes import Names, Scopes, Use

__all__ = ["LAZY_ANNOTATIONS", "Names", "Use", "bound_in", "names_of"]

#: From 3.14 on, annotations are evaluated when somebody asks for them, as with `from __future__ import annotations`.
LAZY_ANNOTATIONS = sys.version_info >= (3, 14)


def names_of(statement: ast.stmt, *, last: bool = False, lazy: bool = LAZY_ANNOTATIONS) -> Names:
    """The names of one top-level statement. ``last``: it ends its cell, where an expression is there to be looked at.

    ``lazy``: annotations are not evaluated (`from __future__ import annotations`).
    """
    found = Names()
    reader = _Reader(found, lazy)
    reader.statements([statement])
    nodes = list(shallow([statement]))
    sure = certain(statement)
    found.binds = {name: name in sure for node in nodes for name in bound_by(node)}
    found.deletes = certainly_deleted([statement])
    views = Views()
    found.changes = [*changes_of(statement, found.draws, views, last=last), *found.may_change]
    found.calls += seen_through(reader.inside, views)
    return found


class _Reader(Scopes, ast.NodeVisitor):
    """Top-level statements, where the order counts in which names are bound."""

    def __init__(self, found: Names, lazy: bool) -> None:
        super().__init__(found, lazy)
        #: What each loop around the place binds, and how often.
        self._again: tuple[Counter[str], ...] = ()

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if self.scope is None and isinstance(statement, (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match)):
                self._branches(statement)
            elif self.scope is None and isinstance(statement, (ast.With, ast.AsyncWith)):
                if isinstance(statement, ast.AsyncWith):
                    self._top_level_async(statement)
                for item in statement.items:
                    self.visit(item)
                    self.bound |= set(bound_in([item]))
                self.statements(statement.body)
            else:
                self.visit(statement)
            if self.scope is None and statement is not body[-1]:  # nobody asks after the last
                self.bound |= certain(statement)
                self.maybe |= set(bound_in([statement]))

    def _branches(self, statement: ast.stmt) -> None:
        """Each branch sees what was bound before it, what a loop or a pattern binds for it, and what an earlier branch may have bound."""
        before, again = set(self.bound), self._again
        loops = isinstance(statement, (ast.For, ast.AsyncFor, ast.While))
        if isinstance(statement, ast.AsyncFor):
            self._top_level_async(statement)
        for name, value in ast.iter_fields(statement):
            for part in value if isinstance(value, list) else [value]:
                if name in ("body", "orelse", "finalbody", "handlers", "cases"):
                    continue
                if isinstance(part, ast.AST):
                    self.visit(part)
                    before |= evaluated(part) if name in ("test", "iter", "subject") else set()
                    self.maybe |= set(bound_in([part]))
        targets = set(bound_in([statement.target])) if isinstance(statement, (ast.For, ast.AsyncFor)) else set()
        for name in ("body", "handlers", "cases", "orelse", "finalbody"):
            part = getattr(statement, name, [])
            if name in ("handlers", "cases"):
                for branch in part:
                    with self._perhaps([branch]):
                        self._branch(branch, before)
                continue
            tried = statement if isinstance(statement, (ast.Try, ast.TryStar)) else None
            self.bound = before | targets | (certainly_bound(tried.body) if tried and name == "orelse" else set())
            guarded = tried is not None and name == "body" and any(map(_expects_name_error, tried.handlers))
            self.guarded += guarded
            # What a loop binds, the part of its first turn that always runs cannot have from a turn before.
            self._again = (*again, Counter(bound_in(part))) if loops and name == "body" else again
            with nullcontext() if tried else self._perhaps(part, again):
                self.statements(part)
            self._again = again
            self.maybe |= set(bound_in(part))
            self.guarded -= guarded
        self.bound = before

    @contextmanager
    def _perhaps(self, part: Sequence[ast.AST], again: tuple[Counter[str], ...] | None = None) -> Iterator[None]:
        """What may be skipped: in a loop it may run in a later turn only, when what the loop binds elsewhere may be bound."""
        before, own = set(self.maybe), Counter(bound_in(part))
        for loop in self._again if again is None else again:
            self.maybe |= (loop - own).keys()
        yield
        self.maybe = before | own.keys()

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        with self._perhaps(node.values[1:]):
            for value in node.values[1:]:
                self.visit(value)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        with self._perhaps([node.body, node.orelse]):
            self.visit(node.body)
            self.visit(node.orelse)

    def _branch(self, branch: ast.ExceptHandler | ast.match_case, before: set[str]) -> None:
        self.bound = set(before)
        if isinstance(branch, ast.ExceptHandler):
            if branch.type:
                self.visit(branch.type)
            self.bound |= {branch.name} if branch.name else set()
        else:
            self.visit(branch.pattern)
            self.bound |= set(bound_in([branch.pattern]))
            if branch.guard:
                self.visit(branch.guard)
        self.statements(branch.body)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self._use(node.target.id)
        else:
            self.visit(node.target)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)  # before the targets: in `x = x + 1` the use comes first
        for target in node.targets:
            self.visit(target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        if (self.scope is None or self.scope.kind == "comprehension") and not self.deferred:
            self.bound.add(node.target.id)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)
        self.visit(node.target)
        if self.scope is None or self.scope.kind != "function":  # in functions they are never evaluated
            self._annotation(node.annotation)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if any(alias.name == "*" for alias in node.names) and self.scope is None:
            self.found.stars.append("." * node.level + (node.module or ""))


def _expects_name_error(handler: ast.ExceptHandler) -> bool:
    return handler.type is not None and any(isinstance(part, ast.Name) and part.id == "NameError" for part in ast.walk(handler.type))
