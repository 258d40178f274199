"""Where each name of a timeline is bound and where it is changed: by the statements themselves, and by the functions that they call."""

from __future__ import annotations

import ast
import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from .changes import KEEPING, Change, Kind, is_changing, root_name, targets
from .effects import Call, Effects, Outcome, StandIn, passed_names
from .holding import aliases, apart, held, stand_ins
from .steps import Step
from .training import THROUGH

END = 1 << 60
#: An object is known by the statement that made it, and by which of its values it is.
OBJECT_BITS = 40
#: How deep calls stand for calls, and how many a name may stand for.
DEPTH = 3
#: Asked for a star import's names: module -> its names, None when that cannot be told.
StarNames = Callable[[str], set[str] | None]
#: Of a module only these are changes of it; what else is called on it computes with its arguments.
_OF_MODULES = frozenset({Kind.STORE, Kind.SETTING})


class Index:
    """``target``: the class that is published; a statement that makes one is a trial of it, and changes nothing that replicas should see."""

    def __init__(self, steps: list[Step], star_names: StarNames, target: str) -> None:
        self.steps, self.target = steps, target
        self.binders: dict[str, list[int]] = defaultdict(list)
        self.changers: dict[str, list[tuple[int, Change]]] = defaultdict(list)
        self.maybe: dict[str, list[tuple[int, Change]]] = defaultdict(list)
        #: Where the object of a name got another name, or became a part of another object.
        self.shared: dict[str, list[int]] = defaultdict(list)
        #: What each statement draws from, and by what which statements draw.
        self.draws: dict[int, set[str]] = defaultdict(set)
        self._drawing: dict[str, list[int]] = defaultdict(list)
        #: Star imports whose names nobody can tell.
        self.unknown_stars: list[int] = []
        self._starred: dict[int, set[str]] = {}
        self._methods: dict[str, list[tuple[int, Effects]]] = defaultdict(list)
        self._outcomes: dict[tuple[int | str, ...], Outcome] = {}
        self._objects: dict[str, set[int]] = defaultdict(set)  # variable -> the objects that it may name, as far as plain `a = b` tells
        self._wholes: dict[str, dict[str, bool]] = defaultdict(dict)  # variable -> those that hold its object, and whether they surely do
        self._parts: dict[str, set[str]] = defaultdict(set)
        self._paths: dict[tuple[frozenset[int], str], int] = {}  # (whole, expression) -> the object that it takes out
        self._trials: set[str] = set()
        self._stand_ins: dict[str, list[StandIn]] = defaultdict(list)
        self._calling: set[str] = set()  # those whose call is being looked at
        #: The statements that made a name stand for a call, and what they gave to it.
        self.given: dict[int, set[str]] = defaultdict(set)
        made = [effects for step in steps for effects in step.names.effects.values()]
        calls = [call for calls in (*(step.names.calls for step in steps), *(effects.calls for effects in made)) for call in calls if not call.method]
        #: Where a name's object gets trained weights from a file.
        self.reads: dict[str, list[int]] = defaultdict(list)
        self._called = {call.function for call in calls if not call.handed}
        self._handed = {call.function for call in calls if call.handed}
        for step in steps:
            self._add(step, star_names)

    def reach(self, name: str, before: int) -> list[int]:
        """The bindings that a look-up at this point may see: back to the last one that is certain, a deletion included."""
        places, found = self.binders.get(name, []), []
        for place in reversed(places[: bisect.bisect_left(places, before)]):
            found.append(place)
            names = self.steps[place].names
            if names.binds.get(name) or name in names.deletes or name in self._starred.get(place, ()):
                break
        return found

    def drawn_before(self, source: str, before: int) -> list[int]:
        """The statements that have drawn from the same since it was made or seeded. A module that nobody seeded draws others each time."""
        name = source.partition(".")[0]
        since = min(self.reach(name, before), default=-1)
        seeds = [place for place, change in self.changers.get(name, ()) if since < place < before and "seed" in change.text.lower()]
        if not seeds and (since < 0 or self.is_module(name, before)):
            return []
        since = seeds[-1] if seeds else since
        return [place for place in self._drawing.get(source, ()) if since <= place < before]

    def is_module(self, name: str, before: int) -> bool:
        found = self.reach(name, before)
        return bool(found) and all(self.steps[place].imports for place in found)

    def _stands_for_an_object(self, name: str, before: int) -> bool:
        """Whether calling it may change it: it is no function or class of the notebook's or of a module's."""
        return all(not self.steps[place].defines and not self.steps[place].imports for place in self.reach(name, before))

    # One statement -----------------------------------------------------------------------------------------------------------------------

    def _add(self, step: Step, star_names: StarNames) -> None:
        index, names = step.index, step.names
        if isinstance(step.node, (ast.For, ast.AsyncFor)):
            for name in targets(step.node.target):  # what this loop does to it is done to what this one goes through
                self._hand_over(name)
        for name in {**names.binds, **dict.fromkeys(names.deletes)}:
            self.binders[name].append(index)
        for module in names.stars:
            brought = star_names(module)
            if brought is None:
                self.unknown_stars.append(index)
            self._starred[index] = self._starred.get(index, set()) | (brought or set())
        for name in self._starred.get(index, ()):
            self.binders[name].append(index)
        for method, effects in names.effects.items():
            self._outcomes.clear()
            if method:
                self._methods[method].append((index, effects))
        trial = any((call.function == self.target and not call.method) or call.function in self._trials for call in names.calls)
        known: set[str] = set()
        for call in dict.fromkeys(names.calls):
            if self._call(step, call, trial=trial):
                known.add(call.function)
        self.draws[index] |= names.draws
        for source in self.draws[index]:
            self._drawing[source].append(index)
        for change in names.changes:
            if change.reads and change.certain:
                self.reads[change.name].append(index)
            # What a function of the notebook does to its arguments is known.
            if change.name == change.function and not self._stands_for_an_object(change.name, index):
                continue
            if change.certain or change.function not in known:
                self._change(step, change, trial=trial)
        self._rename(step, trial=trial)

    def _change(self, step: Step, change: Change, *, trial: bool) -> None:
        if change.kind not in (*_OF_MODULES, Kind.DISCARDED) and self.is_module(change.name, step.index):
            return
        together = self._together(change.name)
        augmented = change.kind is Kind.AUGMENTED
        certain = change.certain and not trial
        for name in together - {change.name} if augmented else together:
            (self.changers if certain else self.maybe)[name].append((step.index, change))
        for name, sure in self._holders(together).items():
            if name not in together:
                (self.changers if certain and sure and not augmented else self.maybe)[name].append((step.index, change))
        if change.kind in (Kind.CALL, Kind.DISCARDED):
            parts = {part for whole in together for part in self._parts.get(whole, ()) if self._wholes[part].get(whole)}
            for name in parts - together:
                self.maybe[name].append((step.index, change))

    def _call(self, step: Step, call: Call, *, trial: bool) -> bool:
        """What the called function does counts as done by the statement that calls it. Returns whether the function is the notebook's."""
        outcome = self.outcome(call, step.index)

        def changed(name: str, *, certain: bool = False, kind: Kind = Kind.CALL) -> None:
            made = Change(name, call.text, call.line, certain, kind, name in outcome.steps, name in outcome.trains)
            self._change(step, made, trial=trial)

        for name in outcome.reads:
            self.reads[name].append(step.index)
        if call.handed:  # to something that calls it, or keeps it for later
            for name in {*outcome.binds, *outcome.changes, *outcome.doubtful}:
                changed(name)
            return False
        for name in outcome.binds - set(step.names.binds):
            self.binders[name].append(step.index)  # perhaps: which way the function went is not known
        for name, setting in outcome.changes.items():
            changed(name, certain=True, kind=Kind.SETTING if setting else Kind.CALL)
        self.draws[step.index] |= outcome.draws
        for name in outcome.doubtful - set(outcome.changes):
            changed(name)
        return outcome.known and not call.method

    def _rename(self, step: Step, *, trial: bool) -> None:
        """Which names name one object after this statement, and which objects are parts of others."""
        if isinstance(step.node, ast.AugAssign):
            return  # a list stays the list that it was
        renamed = aliases(step.node)
        holding = held(step.node)
        before = {old: self._objects[old] or {-step.index - 1} for _, old in renamed}
        before |= {one.whole: set(self._objects[one.whole]) for one in holding if one.whole not in before}
        numbers = apart(step.node)
        for name, sure in step.names.binds.items():
            if sure:
                self._forget(name)
            self._objects[name] = self._objects[name] | {step.index + (numbers.get(name, 0) << OBJECT_BITS)}
            if trial and not step.defines:
                self._trials.add(name)
            elif sure:
                self._trials.discard(name)
        for new, old in renamed:
            self.shared[old].append(step.index)
            if old not in step.names.binds:
                self._objects[old] = before[old]
            self._objects[new] = before[old] if step.names.binds.get(new) else self._objects[new] | before[old]
        for stand_in in filter(self._matters, stand_ins(step.node)):
            self._outcomes.clear()  # of functions that call it
            self.given[step.index] |= {name for _, name in stand_in.call.passed}
            self._stand_ins[stand_in.name].append(replace(stand_in, at=step.index))
        for one in holding:
            if not self.is_module(one.whole, step.index) and not self.is_module(one.part, step.index):
                self.shared[one.part].append(step.index)
                if one.path:
                    key = (frozenset(before[one.whole]), one.path)
                    self._objects[one.part] = self._objects[one.part] | {self._paths.setdefault(key, -len(self._paths) - (1 << 30))}
                if one.part == one.whole:  # `row = row["next"]`
                    continue
                certain = not one.by or any(self.steps[place].defines for place in self.reach(one.by, step.index))
                self._hold(one.part, one.whole, certain)

    def _matters(self, stand_in: StandIn) -> bool:
        """Whether anything calls it, or it is handed to something that may, and it does anything."""
        call = stand_in.call
        if call.method and not (is_changing(call.method) or call.method in self._methods):
            return False  # `shape = X.shape`
        return stand_in.name in self._called or (stand_in.name in self._handed and (not call.method or call.method in KEEPING))

    def _forget(self, name: str) -> None:
        """It names something else from now on. What is known of its object is known of the object's other names."""
        others = self._hand_over(name)
        self._objects[name] = set()
        if self._stand_ins:
            self._outcomes.clear()  # of functions that call one of them
        self._stand_ins.pop(name, None)
        another = min(others, default="")
        for standing in self._stand_ins.values():
            about = [one for one in standing if any(given == name for _, given in one.call.passed)]
            for one in about:
                standing.remove(one)
                standing += [one.renamed(name, another)] if another else []

    def _hand_over(self, name: str) -> set[str]:
        """What belongs to its object, and what that belongs to, without this name. Returns the object's other names."""
        if not (self._parts.get(name) or self._wholes.get(name) or self._stand_ins):
            return set()
        others = self._together(name) - {name}
        wholes = self._wholes.pop(name, {})
        for whole in wholes:
            self._parts[whole].discard(name)
        for part in self._parts.pop(name, ()):
            sure = self._wholes[part].pop(name, False)
            # A part of what is a part: of the whole itself.
            for heir, certain in [*dict.fromkeys(others, True).items(), *wholes.items()]:
                self._hold(part, heir, sure and certain)
        for other in others:
            for whole, sure in wholes.items():
                self._hold(other, whole, sure)
        return others

    def _hold(self, part: str, whole: str, sure: bool) -> None:
        if part != whole:
            self._parts[whole].add(part)
            self._wholes[part][whole] = sure or self._wholes[part].get(whole, False)

    def _together(self, name: str) -> set[str]:
        """All names of the object that this name names, as far as anybody can tell."""
        own = self._objects.get(name) or set()
        return {name} | {other for other, objects in self._objects.items() if objects & own}

    def _holders(self, names: Iterable[str]) -> dict[str, bool]:
        """The objects that these are parts of, and whether that is certain."""
        found: dict[str, bool] = {}
        waiting = [(name, True) for name in names]
        while waiting:
            part, sure = waiting.pop()
            for whole, certain in self._wholes.get(part, {}).items():
                for name in self._together(whole):
                    if name not in found or (sure and certain and not found[name]):
                        found[name] = sure and certain
                        waiting.append((name, sure and certain))
        return found

    # Functions ---------------------------------------------------------------------------------------------------------------------------

    def _functions(self, call: Call, before: int) -> Iterator[Effects]:
        found = self.reach(call.function, before)
        if not call.method:
            for place in found:
                # A class without a constructor has its base's.
                made = (self.steps[one].names.effects for one in self._family(place) if "" in self.steps[one].names.effects)
                yield from (effects[""] for effects in islice(made, 1))
            return
        if found and all(self.steps[place].imports or not (self.steps[place].names.calls or self.steps[place].defines) for place in found):
            return  # a module, or a plain value: no object of a class of the notebook
        of_class = [one for place in found if self.steps[place].defines for one in self._family(place)]
        yield from (effects for place, effects in self._methods.get(call.method, ()) if place < before and (not of_class or place in of_class))

    def _family(self, place: int) -> list[int]:
        """What is defined there, and if it is a class the notebook's classes that it comes from, its own first."""
        found = [place]
        for one in found:  # grows
            node = self.steps[one].node
            for base in filter(None, map(root_name, node.bases)) if isinstance(node, ast.ClassDef) else ():
                found += [above for above in self.reach(base, one) if self.steps[above].defines and above not in found]
        return found

    def _stand_ins_of(self, call: Call) -> list[StandIn]:
        if call.method or call.function in self._calling or len(self._calling) >= DEPTH:
            return []
        return self._stand_ins.get(call.function, [])[-DEPTH:]

    def outcome(self, call: Call, before: int, made: int | None = None) -> Outcome:
        """What one call does, in terms of the names that it passes. ``made``: where its function was taken, when that is not where it is called."""
        outcome = Outcome()
        for stand_in in self._stand_ins_of(call):
            self._calling.add(call.function)
            meant = stand_in.called(call)
            # The function that it was made with, whatever its name means now.
            outcome.merge(self.outcome(meant, before, stand_in.at))
            self._calling.discard(call.function)
            if meant.method and is_changing(meant.method):
                outcome.known = outcome.known or meant.method in KEEPING
                outcome.change(meant.function, setting=False)
        if call.handed and call.method in KEEPING:
            outcome.doubtful.add(call.function)
        for effects in self._functions(call, before if made is None else made):
            inside = self._of_function(effects, before)
            outcome.known = True
            outcome.binds |= inside.binds
            outcome.draws |= inside.draws
            for name, setting in inside.changes.items():
                for actual in passed_names(call, effects, name):
                    outcome.change(actual, setting and not call.through)
            for of, into in (
                (inside.doubtful, outcome.doubtful),
                (inside.trains, outcome.trains),
                (inside.steps, outcome.steps),
                (inside.reads, outcome.reads),
            ):
                into |= {actual for name in of for actual in passed_names(call, effects, name)}
        return outcome

    def _of_function(self, effects: Effects, before: int) -> Outcome:
        """What a function does, in terms of its parameters and the module's names; a circle of calls ends where it began."""
        key: tuple[int | str, ...] = (id(effects), *sorted(self._calling))  # what is cut off in a circle is no answer for others
        if (known := self._outcomes.get(key)) is not None:
            return known
        found = self._outcomes[key] = Outcome(binds=set(effects.binds), draws=set(effects.draws))
        doubts: list[Change] = []
        own: set[tuple[str, int]] = set()  # calls of the notebook's functions: what these do is known
        for change in effects.changes:
            if change.certain and change.kind is not Kind.AUGMENTED:
                found.change(change.name, change.kind in _OF_MODULES)
            elif change.kind is not Kind.AUGMENTED or change.name in effects.parameters:
                doubts.append(change)
            found.trains |= {change.name} if change.trains and change.certain else set()
            found.steps |= {change.name} if change.method in THROUGH else set()
            found.reads |= {change.name} if change.reads else set()
        for call in dict.fromkeys(effects.calls):
            inner = self.outcome(call, before)
            if call.handed:
                found.doubtful |= {*inner.binds, *inner.changes, *inner.doubtful}
                continue
            if inner.known and not call.method:
                own.add((call.function, call.line))
            found.binds |= inner.binds
            found.draws |= inner.draws
            found.doubtful |= inner.doubtful
            found.trains |= inner.trains
            found.steps |= inner.steps
            found.reads |= inner.reads
            for name, setting in inner.changes.items():
                found.change(name, setting)
        kept = [doubt for doubt in doubts if (doubt.function, doubt.line) not in own]
        found.doubtful |= {doubt.name for doubt in kept}
        found.trains |= {doubt.name for doubt in kept if doubt.trains}
        return found
