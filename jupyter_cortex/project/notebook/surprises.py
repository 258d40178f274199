"""What an author would not expect of the module made from the notebook: what, where and what to do about it."""

from __future__ import annotations

import ast
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .cells import Cell, Notebook, State
from .changes import Kind, root_name, running
from .lines import Dropped
from .secrets import hidden, hidden_text, may_have_secrets, secret_lines, secrets
from .slicing import LeftOut, Missing, Slice
from .steps import Step
from .undeclared import undeclared

#: A statement of a cell that ran at least this long would hold up each replica's start by as much.
SLOW_S = 1.0
#: What trains a model, by the method's name.
TRAINING = frozenset(
    "fit fit_transform fit_resample partial_fit fit_generator fit_one_cycle fine_tune train_on_batch train_model optimize backward".split()
)
#: What IPython puts into a notebook's builtins, and no replica has.
IPYTHON = {"display": "from IPython.display import display", "get_ipython": "a replica has no IPython; leave it out", "In": "", "Out": "", "_": ""}
#: Lines that replicas miss nothing of.
HARMLESS = re.compile(
    r"^%(?:matplotlib|load_ext|reload_ext|autoreload|config|cortex|time|timeit|pylab|who|whos|pwd|ls|precision|xmode)\b|^\?|\?$|^%env\s*(?:\w+\s*)?$"
)
HARMLESS_CELLS = frozenset({"html", "markdown", "latex", "svg", "writefile", "timeit", "time", "prun", "mermaid"})


@dataclass(frozen=True)
class Surprise:
    """``blocks``: a deploy is refused because of it. ``asks``: it is refused unless the author says yes."""

    kind: str
    place: str
    message: str
    remedy: str
    blocks: bool = False
    asks: bool = False

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.message}; {self.remedy}"


def surprises(found: Slice, notebook: Notebook, requirements: str | None) -> list[Surprise]:
    """All of them, what blocks first. ``requirements``: the text of requirements.txt, None where there is none."""
    if found.handler is None:
        return [_no_handler(found, notebook), *_broken(found)]
    rows = [_missing(missing, found, notebook) for missing in found.missing]
    for step in found.order:
        rows += _of_step(step)
    rows += _secrets(found, notebook)
    rows += _edited(found, notebook)
    rows += _stale(found, notebook)
    rows += _training(found, notebook)
    rows += _repeated(found)
    rows += map(_left_out, found.left_out)
    rows += [
        Surprise("order", first.place, f"`{name}` is needed by {user.place}, which comes before it", "it is moved up; move the cell up as well")
        for first, user, name in found.hoisted
    ]
    rows += _installs(found, requirements)
    rows += [
        Surprise("undeclared", place, f"`{module}` is imported but not in requirements.txt", f"this kernel has {version} — add it?")
        for place, module, version in undeclared(found, requirements)
    ]
    rows += _dropped(found)
    rows += _broken(found)
    return sorted(rows, key=lambda row: (not row.blocks, not row.asks))


# What blocks --------------------------------------------------------------------------------------------------------------------------------


def _no_handler(found: Slice, notebook: Notebook) -> Surprise:
    for broken in found.timeline.broken:
        if re.search(r"^class\s+Handler\b", broken.cell.source, re.MULTILINE):
            return Surprise(
                "syntax",
                f"{broken.cell.label}, line {broken.line}",
                f"the cell with Handler is not valid Python: {broken.message}",
                "correct it",
                True,
            )
    for cell in notebook.waiting:
        if re.search(r"^class\s+Handler\b", cell.source, re.MULTILINE):
            return Surprise("no_handler", cell.label, "it defines Handler and has not run in this kernel yet", "run it", True)
    for cell in found.timeline.ignored:
        if re.search(r"^class\s+Handler\b", cell.source, re.MULTILINE):
            return Surprise("no_handler", cell.label, "it defines Handler and is tagged `cortex-ignore`", "remove the tag", True)
    for step in [*found.timeline.steps, *found.timeline.unreached]:
        if isinstance(step.node, ast.ClassDef) and any(getattr(part, "name", "") == "handle_async" for part in step.node.body):
            if step.node.name == "Handler":
                return Surprise("no_handler", step.place, "the run of this cell ended with an error before Handler was defined", "run it again", True)
            return Surprise(
                "no_handler", step.place, f"class {step.node.name} has handle_async and is not called Handler", "rename it to Handler", True
            )
    if any("parameters" in cell.tags for cell in notebook.cells):
        section = f"handler: {{type: notebook, path: {notebook.name}}}"
        remedy = f"write one, or publish the notebook as it is: `{section}` in a cortex.yaml beside it, and then `!cortex deploy`"
        return Surprise("no_handler", notebook.name, "no cell defines a class Handler, and one is tagged `parameters`", remedy, True)
    remedy = "write a cell with `class Handler:` and its method `def handle_async(self, payload)`; `%cortex init` shows one"
    return Surprise("no_handler", notebook.name, "no cell defines a class Handler", remedy, True)


def _missing(missing: Missing, found: Slice, notebook: Notebook) -> Surprise:
    """A needed name that nobody defines; the remedy depends on where it is after all."""
    name, where = missing.name, missing.step.place
    message = f"`{name}` ({missing.by}) is defined by no cell"
    if missing.deleted is not None:
        message = f"`{name}` ({missing.by}) was deleted in {missing.deleted.place}"
        return Surprise("undefined", where, message, "define it again after that, or remove the `del`", True)
    for cell, dropped in found.timeline.dropped:
        if name in dropped.binds:
            message = f"`{name}` ({missing.by}) comes from `{_short(dropped)}`, which replicas do not run"
            return Surprise("undefined", f"{cell.label}, line {dropped.line}", message, "write it in Python, or save it with `%cortex save`", True)
    if name in IPYTHON:
        remedy = IPYTHON[name] or "give the value a name of its own"
        return Surprise("undefined", where, f"`{name}` ({missing.by}) is IPython's, and a replica has none", remedy, True)
    if hint := _where_else(name, found, notebook):
        return Surprise("undefined", where, message, hint, True)
    if name in notebook.alive:
        kept = notebook.kept_as(name)
        remedy = f"it lives in this kernel only: add the cell that makes it, or keep the object with `%cortex save {name}`{kept and f' (as {kept})'}"
        return Surprise("undefined", where, message, remedy, True)
    return Surprise("undefined", where, message, "define it in a cell, or correct the name", True)


def _where_else(name: str, found: Slice, notebook: Notebook) -> str:
    for step in found.timeline.unreached:
        if name in step.names.binds:
            return f"{step.place} would define it, but the run of that cell ended with an error before; run it again"
    defines = re.compile(
        rf"^\s*(?:(?:async\s+)?def|class)\s+{re.escape(name)}\b|^\s*{re.escape(name)}\s*(?::[^=]+)?=[^=]|import\b.*\b{re.escape(name)}\b", re.M
    )
    for cell in notebook.waiting:
        if defines.search(cell.source):
            return f"{cell.label} defines it and has not run in this kernel yet; run it"
    for cell in found.timeline.ignored:
        if defines.search(cell.source):
            return f"{cell.label} defines it and is tagged `cortex-ignore`; remove the tag"
    for broken in found.timeline.broken:
        if defines.search(broken.cell.source):
            return f"{broken.cell.label} may define it, but it is not valid Python (line {broken.line}: {broken.message}); correct it"
    for cell, magic in found.timeline.foreign:
        if defines.search(cell.source) or re.search(rf"^%%.*\b{re.escape(name)}\b", cell.source):
            return f"{cell.label} may make it, but replicas do not run `%%{magic}`: write it in Python, or save it with `%cortex save`"
    for cell, dropped in found.timeline.dropped:
        if dropped.text.startswith("%run"):
            return f"if `{_short(dropped)}` ({cell.label}) brings it, import it from that file instead: replicas do not run magics"
    return ""


def _of_step(step: Step) -> Iterator[Surprise]:
    if step.names.awaits is not None:
        place = f"{step.cell.label}, line {step.names.awaits}"
        yield Surprise(
            "await", place, "a module cannot await at its top level", "await in `async def handle_async`, or use asyncio.run(...) here", True
        )
    if isinstance(step.node, ast.If) and any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(step.node.test)):
        yield Surprise("main", step.place, '`__name__` is not "__main__" in a replica', "take the code out of the `if`")


def _secrets(found: Slice, notebook: Notebook) -> Iterator[Surprise]:
    """In all cells: the notebook travels with the module, without its outputs. The value is never shown."""
    told: set[tuple[str, int, str]] = set()
    for step in [*found.timeline.steps, *found.timeline.unreached]:
        for constant, name in secrets(step.node) if may_have_secrets(step.text) else ():
            if (key := (step.cell.label, constant.lineno, name)) not in told:
                told.add(key)
                message = f"`{name}` looks like a secret written into the code" if name else "this looks like a secret written into the code"
                remedy = f'put it into .env and read os.environ["{_variable(name)}"]: .env travels apart and is masked in logs'
                yield Surprise("secret", f"{step.cell.label}, line {constant.lineno}", message, remedy)
    yield from _secret_lines(found, notebook, {(label, line) for label, line, _ in told})


def _secret_lines(found: Slice, notebook: Notebook, told: set[tuple[str, int]]) -> Iterator[Surprise]:
    """In what is no Python of the timeline: magics, shells, comments, cells that have not run or are ignored."""
    places = [(cell, line) for cell in [*notebook.cells, *notebook.waiting] for line in secret_lines(cell.source)]
    places += [(cell, dropped.line) for cell, dropped in found.timeline.dropped for _ in secret_lines(dropped.text, shell=True)]
    places += [(cell, line) for cell, _ in found.timeline.foreign for line in secret_lines(cell.source, shell=True)]
    for cell, line in places:
        if (cell.label, line) not in told:
            told.add((cell.label, line))
            remedy = "put it into .env: that travels apart and is masked in logs, and the notebook travels with its module"
            yield Surprise("secret", f"{cell.label}, line {line}", "this looks like a secret written into the notebook", remedy)


def _variable(name: str) -> str:
    return name.upper() if name.isidentifier() else "NAME"


def _edited(found: Slice, notebook: Notebook) -> Iterator[Surprise]:
    """Cells of the slice that were edited after they ran: what ran is what would be published."""
    used = {step.cell.number for step in found.order}
    for cell in notebook.edited:
        if cell.number in used:
            remedy = "run it again, or publish what ran with --yes"
            yield Surprise("edited", cell.label, "it was edited after it ran; what ran would be published", remedy, asks=True)


# What only surprises ------------------------------------------------------------------------------------------------------------------------


def _left_out(row: LeftOut) -> Surprise:
    """What may be missing. A model whose training stays behind would answer like an untrained one: that is asked about."""
    step, name, text = row.step, row.name, row.text
    if step.ended:
        message, remedy = f"`{text}` ended with an error, may have changed `{name}` before, and is not in the module", "run it again"
    elif row.trains:
        message = f"`{text}` may train `{name}` and is not in the module: replicas would have it untrained"
        remedy = f"keep the trained one with `%cortex save {name}`, or publish it as it is with --yes"
        return Surprise("untrained", step.place, message, remedy, asks=True)
    else:
        message, remedy = f"`{text}` may change `{name}` and is not in the module", "tag the cell `cortex` to take it along"
    if name not in ("os", "sys"):  # settings of the process
        remedy = f"{remedy}, or save what it made with `%cortex save {name}`"
    return Surprise("not_included", step.place, message, remedy)


def _stale(found: Slice, notebook: Notebook) -> Iterator[Surprise]:
    current = "\n".join(cell.source for cell in notebook.cells if cell.state is State.CURRENT)
    told: set[tuple[str, str]] = set()
    for step in found.order:
        if step.cell.state not in (State.DELETED, State.SUPERSEDED) or step.text in current:
            continue
        what = next(iter(step.names.binds), hidden(step.node).split("\n")[0][:40])
        if (step.cell.label, what) in told:
            continue
        told.add((step.cell.label, what))
        ran = f"In [{step.cell.count}]" if step.cell.count else "an earlier run"
        if step.cell.state is State.DELETED:
            message = f"`{what}` comes from a cell that is not in the notebook any more ({ran})"
        else:
            message = f"`{what}` comes from an earlier text of this cell ({ran}), which does not define it any more"
        yield Surprise(
            "stale", step.cell.label if step.cell.number else notebook.name, message, "put it back into the notebook, so that it can be made again"
        )


def _training(found: Slice, notebook: Notebook) -> Iterator[Surprise]:
    """What would run at each replica's start and takes long, by its name or by how long it took; one statement of a cell stands for it."""
    of_cell: dict[str, list[tuple[Step, list[ast.Call]]]] = {}
    own = _training_functions(found)
    for step in found.order:
        calls = [part for part in ast.walk(step.node) if isinstance(part, ast.Call)]
        trains = [call for call in calls if _called(call) in TRAINING or getattr(call.func, "id", "") in own]
        slow = (step.cell.seconds or 0.0) >= SLOW_S and not _only_sets(step)
        if calls and (trains or slow) and not (step.defines or step.imports or step.loads):
            of_cell.setdefault(step.cell.label, []).append((step, trains))
    for rows in of_cell.values():
        step, trains = next((row for row in rows if row[1]), rows[0])
        took = f" (its cell took {step.cell.seconds:.1f} s)" if step.cell.seconds is not None else ""
        name = next((reason.name for reason in found.reasons[step.index] if reason.name), "") or _made_by(step, trains)
        message = f"{'training' if trains else 'this statement'} would run at each replica's start{took}"
        file = notebook.kept_as(name) or "the file"
        yield Surprise("training", step.place, message, f"save what it makes with `%cortex save {name}`: replicas then load {file}")


def _training_functions(found: Slice) -> set[str]:
    """The functions of the module that train when they are called, themselves or by others of them."""
    calls: dict[str, set[str]] = {}
    for node in (step.node for step in found.order):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            calls[node.name] = {_called(part) for line in node.body for part in running(line) if isinstance(part, ast.Call)}
    training: set[str] = set()
    while more := {name for name, called in calls.items() if name not in training and called & (TRAINING | training)}:
        training |= more
    return training


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _only_sets(step: Step) -> bool:
    """``torch.manual_seed(0)`` is quick: what took long in its cell is an import."""
    return not step.names.binds and all(change.kind is Kind.SETTING for change in step.names.changes)


def _made_by(step: Step, trains: list[ast.Call]) -> str:
    if step.names.binds:
        return next(iter(step.names.binds))
    changed = [change.name for change in step.names.changes if change.certain]
    return changed[0] if changed else root_name(trains[0].func) or "NAME" if trains else "NAME"


def _repeated(found: Slice) -> Iterator[Surprise]:
    """A statement that changes an object and ran more than once: the module repeats it, as the kernel did."""
    counts: dict[str, list[Step]] = {}
    for step in found.order:
        if not step.names.binds and not step.imports:
            counts.setdefault(step.text, []).append(step)
    for steps in counts.values():
        if len(steps) > 1 and len({step.cell.count for step in steps}) > 1:
            message = f"it ran {len(steps)} times and each run changed the object, so the module has it {len(steps)} times"
            yield Surprise("repeated", steps[-1].place, message, "restart the kernel and run all cells, if once was meant")


def _installs(found: Slice, requirements: str | None) -> Iterator[Surprise]:
    known = {_canonical(line) for line in (requirements or "").splitlines()}
    told: set[str] = set()
    for cell, line, requirement in found.timeline.installs:
        name = _canonical(requirement)
        if name in known or name in told or not name:
            continue
        told.add(name)
        try:
            pinned = f"{name}=={importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            pinned = requirement
        yield Surprise(
            "install", f"{cell.label}, line {line}", f"{requirement} is installed here and not by replicas", f"add `{pinned}` to requirements.txt"
        )


def _canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;@]", requirement.strip(), maxsplit=1)[0]).lower()


def _dropped(found: Slice) -> Iterator[Surprise]:
    """Lines of IPython's and cells of another language, in one row."""
    installs = {(cell.label, line) for cell, line, _ in found.timeline.installs}
    shown = [
        f"`{_short(dropped)}` ({cell.label})"
        for cell, dropped in found.timeline.dropped
        if not HARMLESS.search(dropped.text) and not dropped.text.startswith("%%") and (cell.label, dropped.line) not in installs
    ]
    shown += [f"`%%{magic}` ({cell.label})" for cell, magic in found.timeline.foreign if magic not in HARMLESS_CELLS]
    if shown:
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        yield Surprise("magic", "", f"replicas do not run {', '.join(shown[:3])}{more}", "write what they need in Python, and variables in .env")


def _broken(found: Slice) -> Iterator[Surprise]:
    for broken in found.timeline.broken:
        if not re.search(r"^class\s+Handler\b", broken.cell.source, re.MULTILINE):
            yield Surprise("syntax", f"{broken.cell.label}, line {broken.line}", f"not valid Python: {broken.message}", "it is left out; correct it")


def _short(dropped: Dropped) -> str:
    text = hidden_text(dropped.text.split("\n")[0])
    return text if len(text) <= 50 else text[:47] + "..."


def cells_of(found: Slice) -> list[Cell]:
    """The cells that the slice takes something from, each once, in order."""
    return list({id(step.cell): step.cell for step in found.order}.values())
