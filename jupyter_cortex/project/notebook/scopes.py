"""Python's rules of scope: which names of the module a piece of code looks up, and what the functions in it do when they are called."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from .bindings import bound_by, bound_in, declared_in, deleted_in, shallow
from .changes import LOOKING, Change, Kind, Views, changes_in, root_name
from .effects import CONSTRUCTING, NOWHERE, Call, Effects, seen_through

Function = ast.FunctionDef | ast.AsyncFunctionDef


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
    #: What functions without a name that it hands to others may change.
    may_change: list[Change] = field(default_factory=list)
    #: What it draws from while it runs.
    draws: set[str] = field(default_factory=set)
    #: What its functions do when they are called: "" for the name that it binds, else by the method's name.
    effects: dict[str, Effects] = field(default_factory=dict)
    #: Calls of the notebook's functions while the statement runs.
    calls: list[Call] = field(default_factory=list)
    stars: list[str] = field(default_factory=list)
    #: The line of an ``await`` at the top level, which no module can have.
    awaits: int | None = None


#: What never calls a function that it is given.
_ONLY_LOOKING = (LOOKING | {"isinstance", "issubclass", "callable", "hasattr", "getattr", "str"}) - {"submit"}
#: Statements that hold others, which may run or not, or several times.
COMPOUND = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match, ast.With, ast.AsyncWith)


class _Scope:
    def __init__(self, kind: str, local: set[str], outside: set[str], parent: _Scope | None) -> None:
        self.kind, self.local, self.outside, self.parent = kind, local, outside, parent
        #: Of a class body: what the compound statement that is being read binds in some branch.
        self.maybe: set[str] = set()


class Scopes(ast.NodeVisitor):
    """Walks code in the order in which Python evaluates it. ``lazy``: annotations are not evaluated."""

    def __init__(self, found: Names, lazy: bool) -> None:
        self.found, self.lazy = found, lazy
        self.scope: _Scope | None = None
        self.deferred = 0
        self.path: list[str] = []
        #: Names that this statement has bound for certain by now, at the top level.
        self.bound: set[str] = set()
        #: ... and those that it may have bound, in a branch or in the turn of a loop before: nothing is missing if nobody else does.
        self.maybe: set[str] = set()
        #: Below a ``try`` that expects a NameError nothing is missing.
        self.guarded = 0
        #: Of the outermost function that is being read.
        self.effects: Effects | None = None
        #: What the function that is being read gathers arguments in.
        self.gathered: frozenset[str] = frozenset()
        #: The calls in what is being read, as they are written and as `_from_outside` has them.
        self.inside: list[tuple[Call, Call]] = []

    # Names -------------------------------------------------------------------------------------------------------------------------------

    def _use(self, name: str, *, soft: bool = False) -> None:
        scope, direct = self.scope, True
        while scope is not None:
            if name in scope.outside:
                break
            if name in scope.local and (scope.kind != "class" or direct):
                return
            soft = soft or (direct and name in scope.maybe)
            # A comprehension directly in a class body does not see the class's names; its first iterable does, which is visited outside of it.
            direct = False
            scope = scope.parent
        if not self.deferred:
            if name in self.bound:
                return
            soft = soft or name in self.maybe
        self.found.uses[Use(name, bool(self.deferred), ".".join(self.path), soft or self.guarded > 0)] = None

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

    def visit_TypeAlias(self, node: ast.AST) -> None:
        """``type Pair = ...`` (3.12) is evaluated when somebody asks for it."""
        self.deferred += 1
        types = self._type_parameters(node)
        self.visit(node.value)  # type: ignore[attr-defined]
        self._leave(types)
        self.deferred -= 1

    def visit_Call(self, node: ast.Call) -> None:
        passed: list[tuple[int | str, str]] = [(at, name) for at, arg in enumerate(node.args) if (name := self._given(arg))]
        passed += [(keyword.arg, name) for keyword in node.keywords if keyword.arg and (name := self._given(keyword.value))]
        if isinstance(node.func, ast.Name):
            self._called(Call(node.func.id, "", tuple(passed), node.lineno))
        elif isinstance(node.func, ast.Attribute) and (owner := self._given(node.func.value)):
            shifted = [(at + 1 if isinstance(at, int) else at, name) for at, name in passed]
            self._called(Call(owner, node.func.attr, ((0, owner), *shifted), node.lineno))
        elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call) and isinstance(node.func.value.func, ast.Name):
            shifted = [(at + 1 if isinstance(at, int) else at, name) for at, name in passed]
            self._called(Call(node.func.value.func.id, node.func.attr, tuple(shifted), node.lineno))  # Trainer(model).run()
        self._hands_over(node)
        self.generic_visit(node)

    def _given(self, node: ast.expr) -> str:
        """The name of what is passed, "" for none. What gathers arguments is no object of the caller's, but ``*rest`` and ``named["x"]`` are."""
        return "" if isinstance(node, ast.Name) and node.id in self.gathered else root_name(node)

    def _hands_over(self, node: ast.Call) -> None:
        """Functions among the arguments: ``df.apply(fill)``, ``map(lambda key: cache.update(...), keys)``."""
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called in _ONLY_LOOKING:
            return
        for place, argument in enumerate([*node.args, *(keyword.value for keyword in node.keywords)]):
            if isinstance(argument, ast.Name):
                if self._is_global(argument.id) and (self.deferred or argument.id not in self.bound):
                    passed = () if called == "partial" else self._handed_with(node, place)
                    self._called(Call(argument.id, "", tuple(passed), node.lineno, handed=True))
            elif isinstance(argument, ast.Attribute) and (owner := root_name(argument.value)):
                if self._is_global(owner) and (self.deferred or owner not in self.bound):
                    passed = () if called == "partial" else self._handed_with(node, place, 1)
                    self._called(Call(owner, argument.attr, ((0, owner), *passed), node.lineno, handed=True))
            elif isinstance(argument, ast.Lambda):
                own = {one.arg for one in _arguments(argument.args)}
                may = [change for change in changes_in([ast.Return(argument.body)], set()) if change.name not in own and self._is_global(change.name)]
                doubtful = [replace(change, certain=False, kind=Kind.CALL) for change in may]
                if self.effects is not None:
                    self.effects.changes += doubtful
                elif not self.deferred:
                    self.found.may_change += doubtful

    def _handed_with(self, node: ast.Call, place: int, first: int = 0) -> Iterator[tuple[int | str, str]]:
        """What the function at this place is called with, if at all: ``map(train, models)``, ``pool.submit(train, model)``, ``Thread(target=train,
        args=(model,))``, ``pool.apply_async(train, (model,))``."""
        behind = list(enumerate(node.args[place + 1 :], first))
        for at, part in behind:
            if isinstance(part, (ast.Tuple, ast.List)):
                yield from ((at, name) for one in part.elts if (name := root_name(one)))
        packed = [keyword.value for keyword in node.keywords if keyword.arg == "args"] or [part for _, part in behind[:1]]
        for values in packed:
            if isinstance(values, (ast.Tuple, ast.List)):
                behind += enumerate(values.elts, first)
        yield from ((at, name) for at, part in behind if (name := root_name(part)))
        for keyword in node.keywords:
            if keyword.arg == "kwargs" and isinstance(keyword.value, ast.Dict):
                for key, value in zip(keyword.value.keys, keyword.value.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str) and (name := root_name(value)):
                        yield key.value, name

    def _called(self, call: Call) -> None:
        known = self._from_outside(call)
        if self.effects is not None:
            self.effects.calls.append(known)
        elif not self.deferred:
            self.found.calls.append(known)
        else:
            return
        self.inside.append((call, known))

    def _from_outside(self, call: Call) -> Call:
        """Without what only the function, or the comprehension, that is being read knows."""
        own = self.effects.parameters if self.effects else ()
        return replace(call, passed=tuple((at, name) for at, name in call.passed if name in own or self._is_global(name)))

    # Scopes ------------------------------------------------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: Function) -> None:
        self._decorators(node)
        self._defaults(node.args)
        types = self._type_parameters(node)
        for argument in _arguments(node.args):
            if argument.annotation:
                self._annotation(argument.annotation)
        if node.returns:
            self._annotation(node.returns)
        self._body(node.name, node.args, node.body)
        self._leave(types)

    def _decorators(self, node: Function | ast.ClassDef) -> None:
        """A decorator is called with what it decorates."""
        for decorator in node.decorator_list:
            self.visit(decorator)
            if isinstance(decorator, ast.Name):
                self._called(Call(decorator.id, "", ((0, node.name),), decorator.lineno))
            elif isinstance(decorator, ast.Attribute) and (owner := root_name(decorator)):
                self._called(Call(owner, decorator.attr, ((0, owner), (1, node.name)), decorator.lineno))

    def _type_parameters(self, node: ast.AST) -> bool:
        """Open the scope of ``[T: Bound]``, if there is one; bounds are evaluated when somebody asks for them."""
        parameters = getattr(node, "type_params", [])
        if parameters:
            self.scope = _Scope("function", {parameter.name for parameter in parameters}, set(), self.scope)
            self.deferred += 1
            for parameter in parameters:
                for part in ast.iter_child_nodes(parameter):
                    self.visit(part)
            self.deferred -= 1
        return bool(parameters)

    def _leave(self, scope: bool) -> None:
        if scope and self.scope is not None:
            self.scope = self.scope.parent

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._defaults(node.args)
        self._body("", node.args, [ast.Return(node.body)])

    def _defaults(self, args: ast.arguments) -> None:
        for default in [*args.defaults, *filter(None, args.kw_defaults)]:
            self.visit(default)

    def _body(self, name: str, args: ast.arguments, body: Sequence[ast.stmt]) -> None:
        nodes = list(shallow(body))
        outside = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
        inherited = {name for node in nodes if isinstance(node, ast.Nonlocal) for name in node.names}
        bound = {name for node in nodes for name in bound_by(node)}
        local = {argument.arg for argument in _arguments(args)} | bound | set(declared_in(nodes)) | set(deleted_in(nodes))
        outermost = self.effects is None
        if self.effects is None:
            self.effects = self._effects(name, args)
        self.scope = _Scope("function", local - outside - inherited, outside, self.scope)
        around, self.inside = self.inside, []
        gathered, self.gathered = self.gathered, frozenset(one.arg for one in (args.vararg, args.kwarg) if one)
        self.deferred += 1
        self.path += [name] if name else []
        self.effects.binds |= bound & outside
        for written in sorted(bound & outside):
            self._use(written, soft=True)  # `global counter; counter += 1` wants its first value, if there is one
        for statement in body:
            self.visit(statement)
        parameters = self.effects.parameters
        draws: set[str] = set()
        views = Views()
        changes = changes_in(body, draws, views=views)
        known = (change for change in changes if change.name in parameters or self._is_global(change.name))
        self.effects.changes += [change for change in known if change.name not in self.gathered or change.inside]
        self.effects.calls += map(self._from_outside, seen_through(self.inside, views))
        self.inside, self.gathered = around, gathered
        self.effects.draws |= {source for source in draws if self._is_global(source.partition(".")[0])}
        self.path[len(self.path) - bool(name) :] = []
        self.deferred -= 1
        self.scope = self.scope.parent
        if outermost:
            self.effects = None

    def _effects(self, name: str, args: ast.arguments) -> Effects:
        """Where what this function does is written down: under its own name for a method, else for whoever calls what the statement binds."""
        in_class = self.scope is not None and self.scope.kind == "class"
        effects = self.found.effects.setdefault(name if in_class and name not in CONSTRUCTING else "", Effects())
        begin = -1 if in_class and name in CONSTRUCTING else 0  # who calls a class passes no `self`
        positions = [argument.arg for argument in [*args.posonlyargs, *args.args]]
        effects.parameters.update({argument: at for at, argument in enumerate(positions, begin)})
        effects.parameters.update({argument.arg: NOWHERE for argument in args.kwonlyargs})
        # Several functions may share these: definitions of one name, constructors of one class. What one of them takes as it is counts as that.
        taken = {*positions, *(argument.arg for argument in args.kwonlyargs)}
        effects.rest, effects.named = ("" if name in taken else name for name in (effects.rest, effects.named))
        if args.vararg and args.vararg.arg not in effects.parameters:
            effects.rest = args.vararg.arg
            effects.parameters[effects.rest] = begin + len(positions)
        if args.kwarg and args.kwarg.arg not in effects.parameters:
            effects.named = args.kwarg.arg
            effects.parameters[effects.named] = NOWHERE
        return effects

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
        self._decorators(node)
        types = self._type_parameters(node)
        for part in [*node.bases, *(keyword.value for keyword in node.keywords)]:
            self.visit(part)
        for base in filter(None, map(root_name, node.bases)):
            self._called(Call(base, "__init_subclass__", ((0, node.name),), node.lineno))
        self.scope = scope = _Scope("class", set(), set(), self.scope)
        self.path.append(node.name)
        for statement in node.body:
            bound = set(bound_in([statement]))
            scope.maybe = bound if isinstance(statement, COMPOUND) else set()
            self.visit(statement)
            scope.local |= bound  # grows: `limit = limit` in a class body reads the module's first
        scope.maybe = set()
        self.path.pop()
        self.scope = scope.parent
        self._leave(types)

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
        """Names in a string annotation count if they exist: whether anybody evaluates them is not known here. So do those in lazy ones."""
        for quoted in _quoted(node):
            for part in ast.walk(quoted):
                if isinstance(part, ast.Name):
                    self._use(part.id, soft=True)
        self.guarded += self.lazy
        self.deferred += self.lazy
        self.visit(node)
        self.deferred -= self.lazy
        self.guarded -= self.lazy


def _quoted(node: ast.AST) -> Iterator[ast.expr]:
    """The types that an annotation has in quotes; what ``Literal[...]`` and ``Annotated[..., "text"]`` quote are values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            yield ast.parse(node.value, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
    elif isinstance(node, ast.Subscript) and (name := getattr(node.value, "attr", getattr(node.value, "id", ""))) in ("Literal", "Annotated"):
        if name == "Annotated" and isinstance(node.slice, ast.Tuple) and node.slice.elts:
            yield from _quoted(node.slice.elts[0])
    else:
        for part in ast.iter_child_nodes(node):
            yield from _quoted(part)


def _arguments(args: ast.arguments) -> Iterator[ast.arg]:
    yield from [*args.posonlyargs, *args.args, *args.kwonlyargs]
    yield from filter(None, (args.vararg, args.kwarg))
