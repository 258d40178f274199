"""What one top-level statement binds, uses and changes, by Python's rules of scope.

A use is *immediate* when the name is looked up while the statement runs (decorators, defaults, base classes, class bodies, annotations, plain
expressions), and *deferred* when it is looked up later, when a function that the statement makes is called.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .changes import Change, changes_of, root_name

Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_TypeAlias = getattr(ast, "TypeAlias", ())


@dataclass(frozen=True)
class Use:
    """``where``: "Handler.handle_async" inside a function, "" at the top level. ``soft``: nothing is missing if nobody defines it."""

    name: str
    deferred: bool
    where: str = ""
    soft: bool = False


@dataclass
class Names:
    """``binds``: name -> whether it is certain (false below an ``if`` without ``else``, in a loop...)."""

    binds: dict[str, bool] = field(default_factory=dict)
    uses: dict[Use, None] = field(default_factory=dict)
    deletes: set[str] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    #: Module names that its functions bind (``global``), and those that they change in place, when they are called.
    binds_later: set[str] = field(default_factory=set)
    changes_later: set[str] = field(default_factory=set)
    #: Parameters (position and name) that a function changes in place when it is called.
    changes_parameters: dict[str, int] = field(default_factory=dict)
    #: Calls of plain names while the statement runs: function -> names passed, by position or keyword.
    calls: list[tuple[str, list[tuple[int | str, str]]]] = field(default_factory=list)
    stars: list[str] = field(default_factory=list)
    #: The line of an ``await`` at the top level, which no module can have.
    awaits: int | None = None


def names_of(statement: ast.stmt, *, last: bool = False) -> Names:
    """The names of one top-level statement. ``last``: it ends its cell, where an expression is there to be looked at."""
    found = Names()
    _Reader(found).statements([statement])
    certain = certainly_bound([statement])
    found.binds = {name: name in certain for name in bound_in([statement])}
    found.deletes = {
        target.id for node in _shallow([statement]) if isinstance(node, ast.Delete) for target in node.targets if isinstance(target, ast.Name)
    }
    found.changes = changes_of(statement, last=last)
    return found


def bound_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Every name that these statements bind in their own scope; nested functions and classes bind only their own name."""
    for node in _shallow(nodes):
        yield from _bound_by(node)


def _bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Import):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names if alias.name != "*")
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        if node.name:
            yield node.name
    elif isinstance(node, ast.MatchMapping):
        if node.rest:
            yield node.rest
    elif _TypeAlias and isinstance(node, _TypeAlias):
        yield node.name.id


def _shallow(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """These nodes and what is below them in the same scope. Of a comprehension only its walruses, which bind outside of it."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _COMPREHENSIONS):
            waiting += [inner for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)]
            continue
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            waiting += node.decorator_list
        elif isinstance(node, ast.NamedExpr):
            waiting += [node.target, node.value]
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def certainly_bound(statements: Sequence[ast.stmt]) -> set[str]:
    """The names that are bound whenever these statements have run to their end."""
    found: set[str] = set()
    for statement in statements:
        found |= _certain(statement)
    return found


def _certain(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.If):
        return set(bound_in([node.test])) | (certainly_bound(node.body) & certainly_bound(node.orelse))
    if isinstance(node, (ast.For, ast.AsyncFor)):
        return set(bound_in([node.iter]))
    if isinstance(node, ast.While):
        return set(bound_in([node.test]))
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return set(bound_in(node.items)) | certainly_bound(node.body)
    if isinstance(node, (ast.Try, ast.TryStar)):
        after = certainly_bound([*node.body, *node.orelse])
        for handler in node.handlers:
            if not (handler.body and isinstance(handler.body[-1], ast.Raise)):
                after &= certainly_bound(handler.body)
        return after | certainly_bound(node.finalbody)
    if isinstance(node, ast.Match):
        total = any(isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None for case in node.cases)
        each = [certainly_bound(case.body) for case in node.cases]
        return set(bound_in([node.subject])) | (set.intersection(*each) if total and each else set())
    return set(bound_in([node]))


class _Scope:
    def __init__(self, kind: str, local: set[str], outside: set[str], parent: _Scope | None) -> None:
        self.kind, self.local, self.outside, self.parent = kind, local, outside, parent


class _Reader(ast.NodeVisitor):
    """Walks one statement in the order in which Python evaluates it."""

    def __init__(self, found: Names) -> None:
        self.found = found
        self.scope: _Scope | None = None
        self.deferred = 0
        self.path: list[str] = []
        #: Names that this statement has bound for certain by now, at the top level.
        self.bound: set[str] = set()

    # Statements at the top level, where order counts -------------------------------------------------------------------------------------

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
            if self.scope is None:
                self.bound |= _certain(statement)

    def _branches(self, statement: ast.stmt) -> None:
        """Each branch sees what was bound before it, and what a loop or a pattern binds for it."""
        before = set(self.bound)
        if isinstance(statement, ast.AsyncFor):
            self._top_level_async(statement)
        for name, value in ast.iter_fields(statement):
            for part in value if isinstance(value, list) else [value]:
                if name in ("body", "orelse", "finalbody", "handlers", "cases"):
                    continue
                if isinstance(part, ast.AST):
                    self.visit(part)
        targets = set(bound_in([statement.target])) if isinstance(statement, (ast.For, ast.AsyncFor)) else set()
        for name in ("body", "handlers", "cases", "orelse", "finalbody"):
            part = getattr(statement, name, [])
            if name in ("handlers", "cases"):
                for branch in part:
                    self._branch(branch, before)
                continue
            begun = (
                before | targets | (certainly_bound(statement.body) if name == "orelse" and isinstance(statement, (ast.Try, ast.TryStar)) else set())
            )
            self.bound = begun
            self.statements(part)
        self.bound = before

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

    # Names -------------------------------------------------------------------------------------------------------------------------------

    def _use(self, name: str, *, soft: bool = False) -> None:
        scope, direct = self.scope, True
        while scope is not None:
            if name in scope.outside:
                break
            if name in scope.local and (scope.kind != "class" or direct):
                return
            # A comprehension directly in a class body does not see the class's names; its first iterable does, which is visited outside of it.
            direct = False
            scope = scope.parent
        if not self.deferred and name in self.bound:
            return
        self.found.uses[Use(name, bool(self.deferred), ".".join(self.path), soft)] = None

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, (ast.Load, ast.Del)):
            self._use(node.id)

    def visit_Await(self, node: ast.Await) -> None:
        if not self.deferred and self.found.awaits is None:
            self.found.awaits = node.lineno
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._top_level_async(node)
        self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self._top_level_async(node)
        self.generic_visit(node)

    def _top_level_async(self, node: ast.stmt) -> None:
        if not self.deferred and self.found.awaits is None:
            self.found.awaits = node.lineno

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

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and not self.deferred:
            passed: list[tuple[int | str, str]] = [(at, name) for at, arg in enumerate(node.args) if (name := root_name(arg))]
            passed += [(keyword.arg, name) for keyword in node.keywords if keyword.arg and (name := root_name(keyword.value))]
            self.found.calls.append((node.func.id, passed))
        self.generic_visit(node)

    # Scopes ------------------------------------------------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: Function) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._defaults(node.args)
        types = {parameter.name for parameter in getattr(node, "type_params", [])}
        if types:
            self.scope = _Scope("function", types, set(), self.scope)
        for argument in _arguments(node.args):
            if argument.annotation:
                self._annotation(argument.annotation)
        if node.returns:
            self._annotation(node.returns)
        self._body(node.name, node.args, node.body)
        if types and self.scope:
            self.scope = self.scope.parent
        if self.scope is None:
            parameters = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args]]
            changed = {change.name for change in _changes_in(node.body) if change.certain}
            self.found.changes_parameters = {name: at for at, name in enumerate(parameters) if name in changed}

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._defaults(node.args)
        self._body("", node.args, [ast.Expr(node.body)])

    def _defaults(self, args: ast.arguments) -> None:
        for default in [*args.defaults, *filter(None, args.kw_defaults)]:
            self.visit(default)

    def _body(self, name: str, args: ast.arguments, body: Sequence[ast.stmt]) -> None:
        outside = {name for node in _shallow(body) if isinstance(node, ast.Global) for name in node.names}
        inherited = {name for node in _shallow(body) if isinstance(node, ast.Nonlocal) for name in node.names}
        local = {argument.arg for argument in _arguments(args)} | set(bound_in(body))
        self.scope = _Scope("function", local - outside - inherited, outside, self.scope)
        self.deferred += 1
        self.path += [name] if name else []
        stored = set(bound_in(body)) & outside
        self.found.binds_later |= stored
        for written in stored:
            self._use(written, soft=True)  # `global counter; counter += 1` wants its first value, if there is one
        for statement in body:
            self.visit(statement)
        for change in _changes_in(body):
            if change.certain and change.name not in local and self._is_global(change.name):
                self.found.changes_later.add(change.name)
        self.path[len(self.path) - bool(name) :] = []
        self.deferred -= 1
        self.scope = self.scope.parent

    def _is_global(self, name: str) -> bool:
        scope = self.scope
        while scope is not None:
            if name in scope.outside:
                return True
            if name in scope.local and scope.kind != "class":
                return False
            scope = scope.parent
        return True

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        types = {parameter.name for parameter in getattr(node, "type_params", [])}
        if types:
            self.scope = _Scope("function", types, set(), self.scope)
        for part in [*node.bases, *(keyword.value for keyword in node.keywords)]:
            self.visit(part)
        self.scope = scope = _Scope("class", set(), set(), self.scope)
        self.path.append(node.name)
        for statement in node.body:
            self.visit(statement)
            scope.local |= set(bound_in([statement]))  # grows: `limit = limit` in a class body reads the module's first
        self.path.pop()
        self.scope = scope.parent
        if types and self.scope:
            self.scope = self.scope.parent

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node, [node.elt])

    visit_SetComp = visit_GeneratorExp = visit_ListComp  # type: ignore[assignment]  # noqa: N815

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node, [node.key, node.value])

    def _comprehension(self, node: ast.ListComp | ast.DictComp, results: list[ast.expr]) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        targets = {name for generator in node.generators for name in bound_in([generator.target])}
        self.scope = _Scope("comprehension", targets, set(), self.scope)
        if any(generator.is_async for generator in node.generators):
            self._top_level_async(node)  # type: ignore[arg-type]
        for generator in node.generators:
            self.visit(generator.target)
            for part in generator.ifs:
                self.visit(part)
        for generator in others:
            self.visit(generator.iter)
        for result in results:
            self.visit(result)
        self.scope = self.scope.parent

    def _annotation(self, node: ast.expr) -> None:
        """Names in a string annotation count if they exist: whether anybody evaluates them is not known here."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                try:
                    quoted = ast.parse(inner.value, mode="eval")
                except (SyntaxError, ValueError):
                    continue
                for part in ast.walk(quoted):
                    if isinstance(part, ast.Name):
                        self._use(part.id, soft=True)
        self.visit(node)


def _arguments(args: ast.arguments) -> Iterator[ast.arg]:
    yield from [*args.posonlyargs, *args.args, *args.kwonlyargs]
    yield from filter(None, (args.vararg, args.kwarg))


def _changes_in(body: Sequence[ast.stmt]) -> Iterator[Change]:
    for statement in body:
        yield from changes_of(statement, last=False)
