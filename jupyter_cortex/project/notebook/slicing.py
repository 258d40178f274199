"""The slice: ``class Handler`` and exactly what it needs of a notebook, transitively, each statement with its reason.

A timeline of statements comes in (what ran, in the order in which it ran). A name that is looked up while a statement runs means the last binding
before that statement; one that is looked up when a function is called means the last binding of all. Statements that change a needed object in
place come along. Where a cell ran several times with the same text and the same inputs, its first run stands for all.
"""

from __future__ import annotations

import ast
import builtins
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from .cells import ALWAYS, Cell, State
from .changes import Change
from .index import END, Index, StarNames
from .names import Use
from .scopes import COMPOUND
from .steps import Step, Timeline
from .training import THROUGH, is_mode_switch, trained_by, wraps

#: What every module has beside the builtins.
MODULE_NAMES = frozenset({"__name__", "__doc__", "__file__", "__builtins__", "__spec__", "__loader__", "__package__", "__class__", "__annotations__"})
#: What a notebook's kernel puts into the builtins, and a replica does not have. The slice is made in that kernel.
OF_IPYTHON = frozenset({"display", "get_ipython", "__IPYTHON__"})
BUILTINS = (frozenset(dir(builtins)) - OF_IPYTHON) | MODULE_NAMES
#: Settings of the process that hold for everything after them, whoever uses the name.
AMBIENT = ("sys.path", "os.environ")


@dataclass(frozen=True)
class Reason:
    """``name`` is needed by ``by`` ("Handler.handle_async", "`index`"); ``change``: the text that changes it."""

    name: str
    by: str
    change: str = ""

    def __str__(self) -> str:
        if not self.name:
            return self.by
        return f"changes `{self.name}`, {self.by}" if self.change else f"`{self.name}`, {self.by}"


@dataclass
class Missing:
    """A needed name that no statement of the timeline binds; ``deleted``: the step that deleted it."""

    name: str
    by: str
    step: Step
    deleted: Step | None = None


@dataclass(frozen=True)
class LeftOut:
    """``text`` may change the needed ``name`` and is not included; ``trains``: it looks like the model's training."""

    step: Step
    name: str
    text: str
    trains: bool = False


@dataclass
class Slice:
    """``order``: the included steps in an order that runs. ``left_out``: changes that may matter and are not included."""

    timeline: Timeline
    handler: Step | None = None
    order: list[Step] = field(default_factory=list)
    reasons: dict[int, list[Reason]] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    hoisted: list[tuple[Step, Step, str]] = field(default_factory=list)

    @cached_property
    def included(self) -> set[int]:
        return set(self.reasons)


def slice_timeline(found: Timeline, star_names: StarNames = lambda module: None, target: str = "Handler") -> Slice:
    """Slice a timeline for the class ``target``. Never raises; without the class, ``handler`` is None and nothing is included."""
    return _Slicer(found, star_names, target).run()


class _Slicer:
    def __init__(self, found: Timeline, star_names: StarNames, target: str) -> None:
        self.steps = found.steps
        self.result = Slice(found)
        self.target = target
        self.index = Index(found.steps, star_names, target)
        self.edges: dict[int, set[int]] = defaultdict(set)
        self.asked: dict[tuple[str, int], bool] = {}
        self.waiting: list[tuple[str, int, int, str, bool]] = []
        self.canonical: dict[int, int] = {}
        #: Name -> (binding, use): between them its object is to be what it was in the notebook.
        self.spans: dict[str, set[tuple[int, int]]] = defaultdict(set)

    # What is needed ----------------------------------------------------------------------------------------------------------------------

    def run(self) -> Slice:
        defined = [found for found in self.index.reach(self.target, END) if self.target in self.steps[found].names.binds]
        if not defined:
            return self.result
        self.result.handler = self.steps[self._first_alike(defined[0])]
        self._need(self.target, END, -1, "this is what is published", False)
        tagged = {cell.number: cell for cell in self._cells() if ALWAYS in cell.tags and cell.state in (State.CURRENT, State.EDITED)}
        for step in self.steps:
            if tagged.get(step.cell.number) is step.cell:  # its last run
                self._include(self._first_alike(step.index), Reason("", f"{step.cell.label} is tagged `{ALWAYS}`"))
        self._work()
        self._include_ambient()
        self._work()
        self._look_at_the_rest()
        self.result.order = list(self._ordered())
        return self.result

    def _cells(self) -> Iterator[Cell]:
        return (step.cell for step in self.steps)

    def _work(self) -> None:
        while self.waiting:
            name, before, user, by, soft = self.waiting.pop()
            self._resolve(name, before, user, by, soft)

    def _need(self, name: str, before: int, user: int, by: str, soft: bool) -> None:
        if self.asked.get((name, before), 2) <= soft:  # asked already, as firmly
            return
        self.asked[name, before] = soft
        self.waiting.append((name, before, user, by, soft))

    def _include(self, index: int, reason: Reason) -> None:
        reasons = self.result.reasons.setdefault(index, [])
        if len(reasons) < 20 and reason not in reasons:
            reasons.append(reason)
        if len(reasons) > 1:
            return
        step = self.steps[index]
        for use in step.names.uses:
            self._need(use.name, END if use.deferred else index, index, _by(step, use), use.soft)
        for source in sorted(self.index.draws[index]):
            for place in self.index.drawn_before(source, index):
                self._include(place, Reason("", f"draws from `{source}` before {_who(step)} does"))
                self.edges[place].add(index)

    def _resolve(self, name: str, before: int, user: int, by: str, soft: bool) -> None:
        found = self.index.reach(name, before)
        if found and name in self.steps[found[-1]].names.deletes and name not in self.steps[found[-1]].names.binds:
            deleted = self.steps[found.pop()]
            if not found and name not in BUILTINS and not soft:
                self._miss(name, user, by, deleted)
        if not found:
            self._elsewhere(name, before, user, by, soft)
            return
        for place in found:
            self._take(name, self._first_alike(place), before, user, by)
        since = min(self._first_alike(place) for place in found)
        if user < 0 or not self.steps[user].loads:  # weights from a file do not care what training did before
            self._take_changes(name, since, before, user, by)
        if before != END:
            # What a function found here looks up later is looked up now if this statement calls it.
            for place in found:
                for use in self.steps[place].names.uses:
                    if (use.deferred or use.name in self.index.given.get(place, ())) and self.index.reach(use.name, before):
                        self._need(use.name, before, user, _by(self.steps[place], use), True)

    def _take(self, name: str, place: int, before: int, user: int, by: str) -> None:
        self._include(place, Reason(name, by))
        if before != END and user >= 0:
            self.edges[place].add(user)

    def _take_changes(self, name: str, since: int, before: int, user: int, by: str) -> None:
        changes = [(place, change) for place, change in self.index.changers.get(name, []) if since < place < before and place != user]
        # Weights that are loaded from a file replace whatever training did before.
        since = self._loaded(place for place, _ in changes) or since
        if user not in self.index.reads.get(name, ()):
            self.spans[name].add((since, before))
        for place, change in changes:
            if place >= since:
                self._include(place, Reason(name, by, change.text))
                self._need(name, place, place, f"changed in {self.steps[place].cell.label}", False)
                if before != END and user >= 0:
                    self.edges[place].add(user)

    def _loaded(self, places: Iterable[int]) -> int:
        """The first statement of the last line among these that loads from a file; 0 where none does."""
        steps = [self.steps[place] for place in places if self.steps[place].loads]
        last = steps[-1] if steps else None
        return min((step.index for step in steps if last and step.cell is last.cell and step.first == last.first), default=0)

    def _elsewhere(self, name: str, before: int, user: int, by: str, soft: bool) -> None:
        """No statement before this point binds the name: a builtin, a later cell, a star import perhaps, or nobody."""
        if name in BUILTINS or (soft and not self.index.binders.get(name)):
            return
        later = [place for place in self.index.binders.get(name, []) if place > before and name in self.steps[place].names.binds]
        if later and not soft:
            self._take(name, later[0], before, user, by)
            self.result.hoisted.append((self.steps[later[0]], self.steps[user], name))
            return
        unknown = list({self.steps[star].text: star for star in reversed(self.index.unknown_stars) if star < before}.values())
        for star in unknown:
            self._take(name, star, before, user, f"{by}, if `import *` brings it")
        if not unknown and not soft:
            self._miss(name, user, by, None)

    def _miss(self, name: str, user: int, by: str, deleted: Step | None) -> None:
        if all(missing.name != name for missing in self.result.missing):
            self.result.missing.append(Missing(name, by, self.steps[user] if user >= 0 else self.result.handler or self.steps[-1], deleted))

    # Runs of the same text ---------------------------------------------------------------------------------------------------------------

    def _first_alike(self, index: int, depth: int = 0) -> int:
        """The earliest run of the same statement that made the same: same text, same inputs, nothing changed in between."""
        if index in self.canonical or depth > 50:
            return self.canonical.get(index, index)
        step, answer = self.steps[index], index
        self.canonical[index] = index  # a circle of definitions ends here
        names = list(step.names.binds)
        earlier = max((place for name in names for place in self.index.binders[name] if place < index), default=-1)
        if earlier >= 0 and self.steps[earlier].text == step.text and self._same_inputs(step, self.steps[earlier], depth):
            answer = self._first_alike(earlier, depth + 1)
        self.canonical[index] = answer
        return answer

    def _same_inputs(self, step: Step, earlier: Step, depth: int) -> bool:
        def changed(name: str, since: int) -> bool:
            return any(since <= place < step.index for place, _ in self.index.changers.get(name, ()))

        def drawn(at: int) -> list[int]:
            return [self._first_alike(place, depth + 1) for source in sorted(self.index.draws[at]) for place in self.index.drawn_before(source, at)]

        if any(changed(name, earlier.index + 1) for name in step.names.binds) or drawn(step.index) != drawn(earlier.index):
            return False
        if any(earlier.index < place < step.index for name in step.names.binds for place in self.index.shared.get(name, ())):
            return False  # what was made first lives on under another name
        names = {use.name for use in step.names.uses if not use.deferred}
        if names & set(step.names.binds):
            return False  # `total = total + 1` made something else each time
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            reached = self.index.reach(name, step.index)
            now = [self._first_alike(place, depth + 1) for place in reached]
            then = [self._first_alike(place, depth + 1) for place in self.index.reach(name, earlier.index)]
            if now != then or changed(name, earlier.index):
                return False
            # What a function looks up when it is called is an input of the statement that calls it; so is what a partial call was given.
            uses = (use for place in reached for use in self.steps[place].names.uses if use.deferred or use.name in self.index.given.get(place, ()))
            new = {use.name for use in uses} - names - set(step.names.binds)
            names |= new
            waiting += new
        return True

    # What else ---------------------------------------------------------------------------------------------------------------------------

    def _include_ambient(self) -> None:
        """`sys.path` and `os.environ` hold for every import after them, so they come along whoever needs `sys`; so does what sets a module up by
        a name that was imported from it, where anything of that module is needed."""
        last = max(self.result.reasons, default=-1)
        packages = {package for index in self.result.reasons for package in _packages(self.steps[index].node)}
        for step in self.steps[: last + 1]:
            for change in step.names.changes if not step.defines else ():
                if what := self._ambient(change, step.index, packages):
                    self._include(step.index, Reason("", f"sets {what} for what comes after it"))
            for call in step.names.calls if step.index not in self.result.reasons else ():
                outcome = self.index.outcome(call, step.index)
                self.result.left_out += [LeftOut(step, name, call.text) for name in ("os", "sys") if outcome.changes.get(name)]
        for step in self.steps:
            if step.is_future and step.index <= last:
                self._include(step.index, Reason("", "changes how the code after it is read"))

    def _ambient(self, change: Change, at: int, packages: set[str]) -> str:
        """What a change sets for the whole process; "" for nothing that the slice would miss."""
        if change.certain and change.name in ("sys", "os"):
            return next((setting for setting in AMBIENT if setting in change.text), "")
        if not change.sets_up and not (change.certain and change.name in ("path", "environ")):
            return ""
        found = [self.steps[place].node for place in self.index.reach(change.name, at)]
        of = {package for node in found for package in _packages(node)} if all(map(_imports, found)) else set()
        if change.sets_up:
            return f"up `{min(of)}`" if of & packages else ""
        return next((setting for setting in AMBIENT if of == {setting.partition(".")[0]} and setting.endswith(f".{change.name}")), "")

    def _look_at_the_rest(self) -> None:
        """Statements that may change a needed object and are not included; also through an object that was made from it."""
        for name in sorted({reason.name for reasons in self.result.reasons.values() for reason in reasons if reason.name}):
            since = min(self.index.reach(name, END), default=-1)
            since = max(since, self._loaded(place for place, _ in self.index.changers.get(name, ())))
            if since < 0 or self.steps[since].imports or self.steps[since].defines:
                continue
            rows: dict[int, LeftOut] = {}
            for place, change in [*self.index.maybe.get(name, []), *self._through(name)]:
                if change.trains and not self._matters(name, place):
                    continue
                after = change.trains or place > since
                if after and place not in self.result.reasons and (change.trains or place not in rows):
                    rows[place] = LeftOut(self.steps[place], name, change.text, change.trains)
            last = {row.text: place for place, row in sorted(rows.items())}  # the same once more is the same question
            self.result.left_out += [rows[place] for place in sorted(rows) if not rows[place].trains or last[rows[place].text] == place]
            for step in self.result.timeline.unreached:
                if step.ended and step.index > since and (text := self._half_done(step, name)):
                    self.result.left_out.append(LeftOut(step, name, text))

    def _half_done(self, step: Step, name: str) -> str:
        """What a statement may have done to this name before its run ended with an error; "" for nothing."""
        known: set[str] = set()
        for call in step.names.calls:
            outcome = self.index.outcome(call, step.index)
            if name in outcome.binds or name in outcome.changes or name in outcome.doubtful:
                return call.text
            if outcome.known:
                known.add(call.function)
        for change in step.names.changes:
            if change.name == name and (change.certain or change.function not in known):
                return change.text
        # An assignment that failed has bound nothing, unless it is inside of another statement, or in front of one on its line.
        unreached = self.result.timeline.unreached
        at = unreached.index(step)
        followed = any(other.cell is step.cell and other.node.lineno == step.last for other in unreached[at + 1 : at + 2])
        if name in step.names.binds and (followed or isinstance(step.node, COMPOUND)):
            return Change(name, step.node, step.first, False).text
        return ""

    def _matters(self, name: str, place: int) -> bool:
        """Whether training that is left out at this place is missed: the object is used as it was behind it, and nobody reads its weights first."""
        if all(map(self._is_plain, self.index.reach(name, place))):
            return False
        text = self.steps[place].text
        if any(step.text == text and step.index in self.result.reasons for step in self.steps[place + 1 :]):
            return False  # its last run is in the module
        reads = [read for read in self.index.reads.get(name, ()) if read > place and read in self.result.reasons]
        by_itself = any(
            change.name == name and change.reads
            for index in self.result.reasons
            for effects in self.steps[index].names.effects.values()
            for change in effects.changes
        )
        spans = self.spans.get(name, ())
        return not by_itself and any(since < place < before and not any(place < read < before for read in reads) for since, before in spans)

    def _is_plain(self, place: int) -> bool:
        """Whether a statement binds what nobody trains: text, numbers, a lambda, a function, a module."""
        step = self.steps[place]
        value = getattr(step.node, "value", None) if isinstance(step.node, (ast.Assign, ast.AnnAssign)) else None
        if step.defines or step.imports or isinstance(value, ast.Lambda):
            return True
        return value is not None and not any(isinstance(part, (ast.Call, ast.Name)) for part in ast.walk(value))

    def _through(self, name: str, depth: int = 0) -> Iterator[tuple[int, Change]]:
        """Calls on objects that were made with the object: an optimizer's `step` changes the model that it was given."""
        for step in self.steps:
            calls = [part for part in ast.walk(step.node) if isinstance(part, ast.Call)] if name in step.text else []
            given = any(name == passed for call in step.names.calls for _, passed in call.passed)
            trains = any(name in trained_by(call) for call in calls)
            if step.index in self.result.reasons or step.defines or not (given or trains):
                continue
            for other in step.names.binds:
                later = [*self.index.changers.get(other, ()), *self.index.maybe.get(other, ())]
                for place, change in later:
                    switches = isinstance(change.code, ast.Call) and is_mode_switch(change.code)
                    known = trains or not all(map(self._is_plain, self.index.reach(name, step.index)))
                    if place > step.index and known and not switches and (change.steps or change.method in THROUGH):
                        yield place, replace(change, trains=trains)
                if depth < 2 and other != name and any(map(wraps, calls)):
                    of_wrapped = [*later, *self._through(other, depth + 1)]
                    yield from ((place, change) for place, change in of_wrapped if place > step.index and change.trains)

    def _ordered(self) -> Iterator[Step]:
        """Future imports first, then by the timeline, except that what is needed while a statement runs comes before it."""
        chosen = set(self.result.reasons)
        future = sorted(index for index in chosen if self.steps[index].is_future)
        yield from (self.steps[index] for index in future)
        chosen -= set(future)
        before: dict[int, int] = dict.fromkeys(chosen, 0)
        after = {index: {user for user in self.edges.get(index, ()) if user in chosen and user != index} for index in chosen}
        for users in after.values():
            for user in users:
                before[user] += 1
        ready = [index for index in chosen if not before[index]]
        heapq.heapify(ready)
        placed: set[int] = set()
        while len(placed) < len(chosen):
            if not ready:  # a circle: the order in which it ran is the best there is
                ready = [min(chosen - placed)]
            index = heapq.heappop(ready)
            if index in placed:
                continue
            placed.add(index)
            yield self.steps[index]
            for user in after[index]:
                before[user] -= 1
                if before[user] == 0 and user not in placed:
                    heapq.heappush(ready, user)


def _imports(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _packages(node: ast.stmt) -> set[str]:
    """The top-level packages that an import statement imports from."""
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]} if not node.level else set()
    return {alias.name.partition(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()


def _by(step: Step, use: Use) -> str:
    if use.where:
        return f"used in {use.where}"
    return f"used by {_who(step)}" if step.names.binds else f"used in {step.place}"


def _who(step: Step) -> str:
    names = list(step.names.binds)
    return f"`{names[0]}` ({step.cell.label})" if names else step.place
