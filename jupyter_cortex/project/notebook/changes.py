"""What a statement changes in place: assigned attributes and items, methods that change their object, functions that change an argument."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from .secrets import hidden
from .training import is_training, perhaps_trained, reads_weights, trained_by_gradients, trained_through, trained_with
from .tree import children, root_name

#: Methods that change what they are called on, in the standard library and in the libraries that models are made with.
CHANGING = frozenset(
    """append appendleft extend extendleft insert remove pop popitem popleft clear sort reverse update setdefault add discard rotate
    difference_update intersection_update symmetric_difference_update subtract
    fit partial_fit fit_transform fit_resample fit_predict fit_generator train eval half float double bfloat16 cuda cpu compile build adapt
    load_state_dict load_weights load_model requires_grad_ zero_grad backward step fine_tune fit_one_cycle train_on_batch learn
    register_buffer register_parameter register_module register add_module add_pipe add_tokens resize_token_embeddings freeze unfreeze
    seed set_params set_output setLevel addHandler addFilter put itemset fill resize setflags partition shuffle read_dict
    add_argument set_defaults add_patterns enable_model_cpu_offload to_empty share_memory""".split()
)
CHANGING_PREFIXES = ("set_", "add_", "register_", "load_", "init_", "enable_", "disable_", "manual_")
#: Methods and functions that look and do not change: a discarded call of them is there for the reader.
LOOKING = frozenset(
    """head tail sample describe info summary plot hist show display print pprint imshow scatter bar barh boxplot heatmap pairplot
    figure subplot subplots title suptitle xlabel ylabel xlim ylim legend grid axis tight_layout savefig colorbar text annotate axhline axvline
    matshow contour contourf fill_between stackplot pie violinplot errorbar close clf cla style
    score predict predict_proba decision_function transform evaluate value_counts unique nunique items keys values shape dtypes memory_usage
    get mean sum std min max count corr groupby query save dump to_csv to_json to_parquet to_pickle to_excel write writelines
    flush get_params state_dict parameters named_parameters isnull isna any all equals format join split lower upper startswith endswith copy
    debug warning error exception critical log len assert_allclose assert_equal assert_array_equal testmod doctest
    index find rfind rindex isin contains
    submit result get_api list_apis logs status help dir type id repr sleep time perf_counter""".split()
)
#: Functions that change an argument, and its position.
CHANGES_ARGUMENT = {
    **dict.fromkeys("next setattr delattr shuffle heappush heappop heapify heapreplace heappushpop insort insort_left insort_right".split(), 0),
    **dict.fromkeys("copyto fill_diagonal place putmask put_along_axis move_to_end".split(), 0),
    **dict.fromkeys("normal_ uniform_ xavier_uniform_ xavier_normal_ kaiming_uniform_ kaiming_normal_ zeros_ ones_ constant_ orthogonal_".split(), 0),
}


#: Methods of containers: they keep their arguments and do not change them.
KEEPING = frozenset("append appendleft extend extendleft insert remove update setdefault add discard put".split())
#: What sets a module up for everything after it (``np.random.seed``, ``warnings.filterwarnings``), rather than computing with its arguments.
SETTING = frozenset(
    """seed manual_seed manual_seed_all basicConfig filterwarnings simplefilter setrecursionlimit setlocale setLevel addHandler addFilter
    addLevelName use configure init login""".split()
)
SETTING_PREFIXES = ("set_", "enable_", "disable_", "register_")
#: Functions of modules that act on the world and leave the module as it is.
ACTING = frozenset(
    """run call check_call check_output post put patch delete request urlopen urlretrieve system rmtree remove unlink rename move copyfile
    shuffle sort append insert partition resize""".split()
)
#: Methods that hand out the next one: the random number after the last, the line after the last. What is drawn later depends on what was before.
DRAWING = frozenset(
    """random randint randrange choice choices uniform triangular gauss normal normalvariate expovariate standard_normal integers permutation permuted
    rand randn randperm random_sample random_integers multivariate_normal poisson binomial exponential lognormal getrandbits randbytes
    readline readlines read fetchone fetchmany""".split()
)
#: What hands on the items of its arguments.
_ITERATING = frozenset("enumerate zip reversed sorted list tuple iter tqdm chain islice cycle track".split())


class Kind(StrEnum):
    """How a change is written, which decides what it means where the name is a module."""

    STORE = "store"  #: ``x.y = ...``, ``x[y] = ...``, ``del x.y``
    SETTING = "setting"  #: ``x.set_option(...)``
    CALL = "call"  #: ``y = x.pop()``: of a module that is a function, which changes an argument if anything
    DISCARDED = "discarded"  #: ``x.connect()`` as a statement: it is there for what it does
    AUGMENTED = "augmented"  #: ``x += y``: binds the name anew, and changes a list or an array for its other names


@dataclass(frozen=True)
class Change:
    """``name`` is changed by ``code``, a node or its text. Not ``certain``: it may be.

    ``steps``: what was made with its object may be changed by it, as a model is by its optimizer's step. ``trains``: it looks like training.
    """

    name: str
    code: ast.AST | str
    line: int
    certain: bool
    kind: Kind = Kind.STORE
    steps: bool = False
    trains: bool = False

    @cached_property
    def text(self) -> str:
        """Source, cut short, secrets left out."""
        text = " ".join((self.code if isinstance(self.code, str) else hidden(self.code)).split())
        return text if len(text) <= 60 else text[:57] + "..."

    @property
    def sets_up(self) -> bool:
        """Whether it may set a module up by a name that was imported from it: ``set_config(...)``, ``getcontext().prec = 4``."""
        function = self.function
        if self.kind is Kind.SETTING and isinstance(self.code, ast.AST) and not isinstance(self.code, ast.Call):
            return not self.certain
        return self.name == function and _is_setting(function)

    @property
    def inside(self) -> bool:
        """Whether it is done to what is in the object, and not to the object itself: ``tables[0]["x"] = 1``, ``for table in tables: fill(table)``."""
        if not isinstance(self.code, (ast.Attribute, ast.Subscript, ast.Call)):
            return False
        done = self.code.func if isinstance(self.code, ast.Call) else self.code
        if isinstance(done, (ast.Attribute, ast.Subscript)) and root_name(done.value) == self.name:
            return not isinstance(done.value, ast.Name)
        given = [*self.code.args, *(keyword.value for keyword in self.code.keywords)] if isinstance(self.code, ast.Call) else []
        return self.trains or not any(isinstance(part, ast.Name) and part.id == self.name for part in given)

    @property
    def method(self) -> str:
        """The method whose call this is, of whatever object."""
        return self.code.func.attr if isinstance(self.code, ast.Call) and isinstance(self.code.func, ast.Attribute) else ""

    @property
    def reads(self) -> bool:
        """Whether it puts trained weights in the place of those that its object had."""
        return isinstance(self.code, ast.Call) and reads_weights(self.code)

    @property
    def function(self) -> str:
        """The function whose call this is, where a plain name is called."""
        return self.code.func.id if isinstance(self.code, ast.Call) and isinstance(self.code.func, ast.Name) else ""


class Views(dict[str, set[str]]):
    """name -> the objects that it is a part of. ``inner``: the variables of comprehensions, whatever else has their names."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: set[str] = set()


def changes_of(statement: ast.stmt, draws: set[str], views: Views, *, last: bool) -> list[Change]:
    """What this statement itself changes when it runs; not what the functions that it defines will change."""
    return changes_in([statement], draws, statement if last else None, views)


def changes_in(statements: Sequence[ast.stmt], draws: set[str], looked_at: ast.stmt | None = None, views: Views | None = None) -> list[Change]:
    """What these statements change when they run; what they draw from is added to ``draws``, and what names are parts of to ``views``.

    ``looked_at``: the one that ends a cell, where an expression is there to be looked at.
    """
    found: list[Change] = []
    views = Views() if views is None else views
    made: dict[str, list[ast.Call]] = defaultdict(list)
    calls: list[ast.Call] = []
    for node in (node for statement in statements for node in running(statement)):
        if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
            if name := root_name(node):
                found.append(Change(name, node, node.lineno, True))
            elif isinstance(of := _innermost(node), ast.Call) and isinstance(of.func, ast.Name):
                found.append(Change(of.func.id, node, node.lineno, False, Kind.SETTING))  # getcontext().prec = 4
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and not _counts(node):
            grows = isinstance(node.value, (ast.List, ast.Dict, ast.Set, ast.ListComp))  # what that is added to is no number
            found.append(Change(node.target.id, node, node.lineno, True, Kind.CALL if grows else Kind.AUGMENTED))
        elif isinstance(node, ast.Call):
            calls.append(node)
            found += _call(node, discarded=False, looked_at=False)
            if source := _source(node):
                draws.add(source)
        elif isinstance(node, ast.Expr):
            call = node.value.value if isinstance(node.value, ast.Await) else node.value
            if isinstance(call, ast.Call):
                found += _call(call, discarded=True, looked_at=node is looked_at)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for decorator in node.decorator_list:  # `@convert.register` is called with what it decorates
                if isinstance(decorator, ast.Attribute) and decorator.attr.startswith(("register", "add_", "set_")):
                    found += _call(ast.copy_location(ast.Call(decorator, [], []), decorator), discarded=True, looked_at=False)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            for target, whole in gone_through(node.target, node.iter):
                views.setdefault(target, set()).add(whole)
            if isinstance(node, ast.comprehension):
                views.inner.update(targets(node.target))
        elif isinstance(node, ast.Assign) and not (len(statements) == 1 and node is statements[0]):
            for target in (target.id for target in node.targets if isinstance(target, ast.Name)):
                views.setdefault(target, set()).update({part_of(node.value)} - {""})
                made[target] += [node.value] if isinstance(node.value, ast.Call) else []
    found += list(_training(statements, calls, found, made, views))
    for change in list(found):
        certain = change.certain and change.kind is not Kind.AUGMENTED  # `row += 1` changes what the loop goes through if that is an array
        found += [replace(change, name=name, certain=certain, kind=Kind.CALL) for name in wholes(views, change.name)]
    # A call is met twice where it is a whole statement: the firmer judgement counts.
    firm = {(change.name, change.line) for change in found if change.certain and change.kind is not Kind.AUGMENTED}
    trained = {(change.name, change.line) for change in found if change.trains}
    kept = (change for change in found if change.certain or (change.name, change.line) not in firm)
    return list(dict.fromkeys(change for change in kept if change.certain or change.trains or (change.name, change.line) not in trained))


def _training(
    statements: Sequence[ast.stmt], calls: list[ast.Call], found: list[Change], made: dict[str, list[ast.Call]], views: dict[str, set[str]]
) -> Iterator[Change]:
    """What is trained by way of something else, all of it here: by an optimizer or a trainer that was made with it, or by a loop of its own."""
    for change in found:
        for name in trained_through(change.code, made.get(change.name, ())) if isinstance(change.code, ast.Call) else ():
            yield Change(name, change.code, change.line, False, Kind.CALL, trains=True)
    for call in calls:
        maker = _innermost(call.func)  # Trainer(model).fit()
        through = trained_through(call, [maker]) if isinstance(maker, ast.Call) else []
        for name in dict.fromkeys([*through, *trained_by_gradients(statements, call)]):
            yield Change(name, call, call.lineno, False, Kind.CALL, trains=True)
        for name in trained_with(call, views):  # what a function of the notebook does is known
            yield Change(name, call, call.lineno, False, Kind.DISCARDED, trains=True)
    for call in perhaps_trained(calls):
        yield Change(root_name(call.func), call, call.lineno, False, Kind.CALL)


def _counts(node: ast.AugAssign) -> bool:
    """``n += 1``: of a number, mostly. ``pixels /= 255`` is done to arrays."""
    return isinstance(node.value, ast.Constant) and isinstance(node.op, (ast.Add, ast.Sub))


def _source(call: ast.Call) -> str:
    """What a call draws from, as it is written: ``rng``, ``np.random``, ``file``; "" for any other call."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in DRAWING:
        return ""
    if call.func.attr == "read" and any(not isinstance(argument, ast.Constant) or isinstance(argument.value, str) for argument in call.args):
        return ""  # an archive's `read("name")` is no next one
    return _dotted(call.func.value)


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` as text, "" for anything else."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def wholes(views: dict[str, set[str]], name: str) -> set[str]:
    """The objects that ``name`` is a part of: a loop's variable, of what the loop goes through."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = views.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found - {name}


def part_of(node: ast.expr) -> str:
    """``x`` for ``x``, ``x.part``, ``x["part"]``, ``x.get_part(...)``: an expression whose object belongs to x's. "" for anything else."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute) or (isinstance(node, ast.Subscript) and isinstance(node.slice, (ast.Constant, ast.Name, ast.UnaryOp))):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (node.func.attr + "_").startswith(("get_", "setdefault_")):
            node = node.func.value
        else:
            return ""
    return node.id


def gone_through(target: ast.expr, iterable: ast.expr) -> Iterator[tuple[str, str]]:
    """(name, whole): what each variable of a loop is an item of. ``for number, (name, model) in enumerate(zip(names, models))``: each of its own."""
    parts = target.elts if isinstance(target, (ast.Tuple, ast.List)) else []
    called = getattr(iterable.func, "attr", getattr(iterable.func, "id", "")) if isinstance(iterable, ast.Call) else ""
    given = iterable.args if isinstance(iterable, ast.Call) else []
    if any(isinstance(part, ast.Starred) for part in [*parts, *given]):
        parts = []
    if called == "enumerate" and len(parts) == 2 and given:
        yield from gone_through(parts[1], given[0])
    elif called == "zip" and parts and len(parts) == len(given):
        for part, one in zip(parts, given, strict=True):
            yield from gone_through(part, one)
    else:
        yield from ((name, whole) for whole in roots(iterable) for name in targets(target))


def roots(node: ast.expr) -> Iterator[str]:
    """What an iterable hands on the items of."""
    if isinstance(node, ast.Call) and (isinstance(node.func, ast.Name) or getattr(node.func, "attr", "") in _ITERATING):
        if getattr(node.func, "id", getattr(node.func, "attr", "")) in _ITERATING:
            for argument in node.args:
                yield from roots(argument)
            # `root.iter("item")`; of `itertools.chain(rows)` it is a module, which no item changes.
            if isinstance(node.func, ast.Attribute) and (owner := root_name(node.func)):
                yield owner
    elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        yield from filter(None, map(root_name, node.elts))
    elif name := root_name(node):
        yield name


def targets(node: ast.expr) -> Iterator[str]:
    """The names that a target binds."""
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store))


def _call(call: ast.Call, *, discarded: bool, looked_at: bool) -> Iterator[Change]:
    function = call.func
    called = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    if isinstance(function, ast.Attribute) and (owner := root_name(function.value)):
        in_place = any(keyword.arg == "inplace" and getattr(keyword.value, "value", None) is True for keyword in call.keywords)
        kind = _kind(function, discarded=discarded)
        if in_place or is_changing(called):
            yield Change(owner, call, call.lineno, True, kind)
        elif kind is Kind.SETTING or (discarded and called not in LOOKING):
            # Its value goes nowhere, so it is there for what it does; the last line of a cell may be there to be looked at.
            yield Change(owner, call, call.lineno, not looked_at or kind is Kind.SETTING, kind)
    elif isinstance(function, ast.Name) and discarded and called not in LOOKING and (not looked_at or _is_setting(called)):
        # An object that is called, a layer that gets its weights by it; a function is none, which the index knows.
        yield Change(called, call, call.lineno, False, Kind.DISCARDED)
    if called in CHANGES_ARGUMENT and len(call.args) > CHANGES_ARGUMENT[called] and (name := root_name(call.args[CHANGES_ARGUMENT[called]])):
        yield Change(name, call, call.lineno, True, Kind.CALL)
    elif (discarded and called not in LOOKING and not (called in KEEPING and isinstance(function, ast.Attribute))) or (
        isinstance(function, ast.Name) and is_training(called)
    ):
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
            if name := root_name(argument):
                yield Change(name, call, call.lineno, False, Kind.DISCARDED)


def _kind(function: ast.Attribute, *, discarded: bool) -> Kind:
    if _is_setting(function.attr):
        return Kind.SETTING
    if isinstance(function.value, ast.Attribute) and function.attr in (*KEEPING, "pop", "clear", "remove"):
        return Kind.SETTING  # sys.path.append, os.environ.update: a container that the module holds
    if function.attr.endswith("_") or function.attr in ACTING or _of_a_result(function.value):
        return Kind.CALL
    return Kind.DISCARDED if discarded else Kind.CALL


def _of_a_result(node: ast.expr) -> bool:
    """``torch.nn.functional.mse_loss(a, b)`` in front of ``.backward()``: what is called is a method of what the function gave."""
    return isinstance(_innermost(node), ast.Call)


def _innermost(node: ast.AST) -> ast.AST:
    """What an attribute or item is of, however deep."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node


def _is_setting(function: str) -> bool:
    return function in SETTING or function.startswith(SETTING_PREFIXES)


def is_changing(method: str) -> bool:
    """Whether a method of this name changes what it is called on, as far as a name tells."""
    in_place = method.endswith("_") and not method.endswith("__") and len(method) > 1
    return method in CHANGING or in_place or method.startswith(CHANGING_PREFIXES)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """The statement and what is below it in the order of the source, without the bodies of the functions that it defines."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Name, ast.Constant)):
            continue
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += reversed([*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)])
        elif not isinstance(node, ast.Lambda):
            waiting += reversed(children(node))
