"""What a statement changes in place: assigned attributes and items, methods that change their object, functions that change an argument."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

#: Methods that change what they are called on, in the standard library and in the libraries that models are made with.
CHANGING = frozenset(
    """append appendleft extend extendleft insert remove pop popitem popleft clear sort reverse update setdefault add discard rotate
    difference_update intersection_update symmetric_difference_update subtract
    fit partial_fit fit_transform fit_resample fit_predict fit_generator train eval half float double bfloat16 cuda cpu compile build adapt
    load_state_dict load_weights load_model requires_grad_ zero_grad backward step
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
    submit result get_api list_apis logs status help dir type id repr sleep time perf_counter""".split()
)
#: Functions that change an argument, and its position.
CHANGES_ARGUMENT = {
    **dict.fromkeys("setattr delattr shuffle heappush heappop heapify heapreplace heappushpop insort insort_left insort_right".split(), 0),
    **dict.fromkeys("copyto fill_diagonal place putmask put_along_axis move_to_end".split(), 0),
    **dict.fromkeys("normal_ uniform_ xavier_uniform_ xavier_normal_ kaiming_uniform_ kaiming_normal_ zeros_ ones_ constant_ orthogonal_".split(), 0),
}


@dataclass(frozen=True)
class Change:
    """``name`` is changed by ``text`` (source, cut short). Not ``certain``: it may be."""

    name: str
    text: str
    line: int
    certain: bool


def changes_of(statement: ast.stmt, *, last: bool) -> list[Change]:
    """What this statement itself changes when it runs; not what the functions that it defines will change."""
    found: list[Change] = []
    for node in _running(statement):
        if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
            if name := root_name(node):
                found.append(Change(name, _short(node), node.lineno, True))
        elif isinstance(node, ast.Call):
            found += _call(node, discarded=False, looked_at=False)
        elif isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Await)):
            call = node.value.value if isinstance(node.value, ast.Await) else node.value
            if isinstance(call, ast.Call):
                found += _call(call, discarded=True, looked_at=last and node is statement)
    # A call is met twice where it is a whole statement: the firmer judgement counts.
    firm = {(change.name, change.line) for change in found if change.certain}
    return list(dict.fromkeys(change for change in found if change.certain or (change.name, change.line) not in firm))


def _call(call: ast.Call, *, discarded: bool, looked_at: bool) -> Iterator[Change]:
    function, text = call.func, _short(call)
    called = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    owner = root_name(function.value) if isinstance(function, ast.Attribute) else ""
    if owner:
        in_place = any(keyword.arg == "inplace" and getattr(keyword.value, "value", None) is True for keyword in call.keywords)
        if in_place or _is_changing(called):
            yield Change(owner, text, call.lineno, True)
        elif discarded and called not in LOOKING:
            # Its value goes nowhere, so it is there for what it does; the last line of a cell may be there to be looked at.
            yield Change(owner, text, call.lineno, not looked_at)
    if called in CHANGES_ARGUMENT and len(call.args) > CHANGES_ARGUMENT[called] and (name := root_name(call.args[CHANGES_ARGUMENT[called]])):
        yield Change(name, text, call.lineno, True)
    elif discarded and called not in LOOKING:
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
            if name := root_name(argument):
                yield Change(name, text, call.lineno, False)


def _is_changing(method: str) -> bool:
    in_place = method.endswith("_") and not method.endswith("__") and len(method) > 1
    return method in CHANGING or in_place or method.startswith(CHANGING_PREFIXES)


def root_name(node: ast.AST) -> str:
    """``x`` for ``x``, ``x.y``, ``x[0].z``, ``x.get(1)``; "" for what begins with something else."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred, ast.Call)):
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Attribute):
                return ""
            node = node.func.value
        else:
            node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """The statement and what is below it, without the bodies of the functions that it defines."""
    yield node
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for part in node.decorator_list:
            yield from _running(part)
    elif not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _running(child)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else text[:57] + "..."
