"""What an author would not expect of the module made from the notebook: what, where and what to do about it."""

from __future__ import annotations

import ast
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .cells import Cell, Notebook, State
from .changes import root_name
from .lines import Dropped
from .slicing import Missing, Slice
from .steps import Step

#: A statement of a cell that ran at least this long would hold up each replica's start by as much.
SLOW_S = 1.0
#: What trains a model, by the method's name.
TRAINING = frozenset(
    {"fit", "fit_transform", "fit_resample", "partial_fit", "fit_generator", "train_on_batch", "train_model", "optimize", "backward"}
)
#: What IPython puts into a notebook's builtins, and no replica has.
IPYTHON = {"display": "from IPython.display import display", "get_ipython": "a replica has no IPython; leave it out", "In": "", "Out": "", "_": ""}
#: Lines that replicas miss nothing of.
HARMLESS = re.compile(
    r"^%(?:matplotlib|load_ext|reload_ext|autoreload|config|cortex|time|timeit|pylab|who|whos|pwd|ls|cd|precision|xmode|env)\b|^\?|\?$"
)

_SECRET_NAME = re.compile(r"(?:^|_)(?:password|passwd|pwd|secret|token|api_?key|apikey|access_?key|private_?key|credentials?)(?:$|_)", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{30,}|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{20,}|xox[abpr]-[A-Za-z0-9-]{10,}|hf_[A-Za-z0-9]{20,}|AIza[\w-]{30,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\b[a-z][a-z0-9+.-]*://[^\s:/@]+:[^\s:/@]{3,}@"
)
_PLACEHOLDER = re.compile(r"^(?:x+|\*+|\.+|<.*>|\$?\{.*\}|your.*|change.?me|example.*|test.*|dummy.*|none|secret|password|token)$", re.IGNORECASE)


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
    rows += _edited(found, notebook)
    rows += _stale(found, notebook)
    rows += _training(found)
    rows += _repeated(found)
    rows += [
        Surprise(
            "not_included",
            step.place,
            f"`{text}` may change `{name}` and is not in the module",
            f"tag the cell `cortex` to take it along, or save what it made with `%cortex save {name}`",
        )
        for step, name, text in found.left_out
    ]
    rows += [
        Surprise("order", first.place, f"`{name}` is needed by {user.place}, which comes before it", "it is moved up; move the cell up as well")
        for first, user, name in found.hoisted
    ]
    rows += _installs(found, requirements)
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
        remedy = f"it lives in this kernel only: add the cell that makes it, or keep the object with `%cortex save {name}`"
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
    for line, name in _secrets(step.node):
        message = f"`{name}` looks like a secret written into the code" if name else "this looks like a secret written into the code"
        remedy = f'put it into .env and read os.environ["{(name or "NAME").upper()}"]: .env travels apart and is masked in logs'
        yield Surprise("secret", f"{step.cell.label}, line {line}", message, remedy)


def _secrets(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of string literals that look like secrets; the value is never shown."""
    seen: set[int] = set()
    for part in ast.walk(node):
        for name, value in _named_values(part):
            text = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
            if _SECRET_NAME.search(name) and len(text) >= 6 and " " not in text.strip() and not _PLACEHOLDER.match(text):
                seen.add(id(value))
                yield value.lineno, name
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in seen and _SECRET_TEXT.search(part.value):
            yield part.lineno, ""


def _named_values(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            name = target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                name = str(target.slice.value)
            yield name, node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
        yield node.target.id, node.value
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, value


def _edited(found: Slice, notebook: Notebook) -> Iterator[Surprise]:
    """Cells of the slice that were edited after they ran: what ran is what would be published."""
    used = {step.cell.number for step in found.order}
    for cell in notebook.edited:
        if cell.number in used:
            remedy = "run it again, or publish what ran with --yes"
            yield Surprise("edited", cell.label, "it was edited after it ran; what ran would be published", remedy, asks=True)


# What only surprises ------------------------------------------------------------------------------------------------------------------------


def _stale(found: Slice, notebook: Notebook) -> Iterator[Surprise]:
    current = "\n".join(cell.source for cell in notebook.cells if cell.state is State.CURRENT)
    told: set[tuple[str, str]] = set()
    for step in found.order:
        if step.cell.state not in (State.DELETED, State.SUPERSEDED) or step.text in current:
            continue
        what = next(iter(step.names.binds), step.text.split("\n")[0][:40])
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


def _training(found: Slice) -> Iterator[Surprise]:
    """What would run at each replica's start and takes long, by its name or by how long it took."""
    told: set[str] = set()
    for step in found.order:
        if step.defines or step.imports or step.loads or step.cell.label in told:
            continue
        seconds = step.cell.seconds or 0.0
        trains = [call for call in ast.walk(step.node) if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in TRAINING]
        if not trains and seconds < SLOW_S:
            continue
        told.add(step.cell.label)
        took = f" (its cell took {seconds:.1f} s)" if step.cell.seconds is not None else ""
        name = _made_by(step, trains)
        message = f"{'training' if trains else 'this statement'} would run at each replica's start{took}"
        yield Surprise("training", step.place, message, f"save what it makes with `%cortex save {name}`: replicas then load the file")


def _made_by(step: Step, trains: list[ast.Call]) -> str:
    if step.names.binds:
        return next(iter(step.names.binds))
    changed = [change.name for change in step.names.changes if change.certain]
    return changed[0] if changed else root_name(trains[0].func) if trains else "NAME"


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
    installs = {(cell.label, line) for cell, line, _ in found.timeline.installs}
    lines = [
        (cell, dropped)
        for cell, dropped in found.timeline.dropped
        if not HARMLESS.search(dropped.text) and not dropped.text.startswith("%%") and (cell.label, dropped.line) not in installs
    ]
    if lines:
        shown = ", ".join(f"`{_short(dropped)}` ({cell.label})" for cell, dropped in lines[:3]) + (
            f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        )
        yield Surprise("magic", "", f"replicas do not run {shown}", "write what they need in Python")


def _broken(found: Slice) -> Iterator[Surprise]:
    for broken in found.timeline.broken:
        if not re.search(r"^class\s+Handler\b", broken.cell.source, re.MULTILINE):
            yield Surprise("syntax", f"{broken.cell.label}, line {broken.line}", f"not valid Python: {broken.message}", "it is left out; correct it")


def _short(dropped: Dropped) -> str:
    text = dropped.text.split("\n")[0]
    return text if len(text) <= 50 else text[:47] + "..."


def cells_of(found: Slice) -> list[Cell]:
    """The cells that the slice takes something from, each once, in order."""
    return list({id(step.cell): step.cell for step in found.order}.values())
