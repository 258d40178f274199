"""What calling a function of the notebook does beside returning: the module's names that it binds or changes, the arguments that it changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from .changes import Change, Views, wholes

#: The position of a parameter that is only given by its name.
NOWHERE = -2
#: Methods of a class that run when it is called.
CONSTRUCTING = frozenset({"__init__", "__new__", "__post_init__", "__attrs_post_init__"})


@dataclass(frozen=True)
class Call:
    """``function(...)``, or ``.method(...)`` of an object that is then passed as argument 0; ``passed``: (position or keyword, name).

    ``handed``: it is no call yet: the function is an argument of another one, which may call it. ``through``: what is passed is an item of what is
    named here, which is no module's setting.
    """

    function: str
    method: str = ""
    passed: tuple[tuple[int | str, str], ...] = ()
    line: int = 0
    handed: bool = False
    through: bool = False

    @property
    def text(self) -> str:
        if self.handed:
            return f"...({self.function}.{self.method})" if self.method else f"...({self.function})"
        return f"{self.function}.{self.method}(...)" if self.method else f"{self.function}(...)"


@dataclass(frozen=True)
class StandIn:
    """Calling ``name`` is this call, with its own arguments behind the first so many: ``add = rows.append``, ``job = partial(fill, cache)``."""

    name: str
    call: Call
    before: int
    at: int = 0  #: the index of the statement that makes it so

    def renamed(self, old: str, new: str) -> StandIn:
        """The same, where an object that it is about has another name as well."""
        passed = tuple((at, new if name == old else name) for at, name in self.call.passed)
        return replace(self, call=replace(self.call, function=new if self.call.function == old else self.call.function, passed=passed))

    def called(self, call: Call) -> Call:
        behind = ((at + self.before if isinstance(at, int) else at, name) for at, name in call.passed)
        return replace(self.call, passed=(*self.call.passed, *behind), line=call.line)


@dataclass
class Effects:
    """Of one function, by its text. ``parameters``: name -> position of all of them (of ``*rest`` the first), or NOWHERE.

    ``rest``, ``named``: what the others are gathered in, ``*rest`` and ``**named``; "" for none.
    """

    parameters: dict[str, int] = field(default_factory=dict)
    rest: str = ""
    named: str = ""
    binds: set[str] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    draws: set[str] = field(default_factory=set)  #: from what, of the module's names
    calls: list[Call] = field(default_factory=list)


@dataclass
class Outcome:
    """Of one call, with what the called functions call in turn.

    ``doubtful``: names that it may change; ``trains``: those of them that it trains, by the look of it; ``steps``: names of what may change what was
    made with it; ``reads``: of what gets trained weights from a file.
    """

    known: bool = False
    binds: set[str] = field(default_factory=set)
    changes: dict[str, bool] = field(default_factory=dict)  #: name -> whether it counts where the name is a module
    doubtful: set[str] = field(default_factory=set)
    trains: set[str] = field(default_factory=set)
    steps: set[str] = field(default_factory=set)
    reads: set[str] = field(default_factory=set)
    draws: set[str] = field(default_factory=set)

    def change(self, name: str, setting: bool = True) -> None:
        self.changes[name] = self.changes.get(name, False) or setting

    def merge(self, other: Outcome) -> None:
        self.known = self.known or other.known
        self.binds |= other.binds
        self.doubtful |= other.doubtful
        self.trains |= other.trains
        self.steps |= other.steps
        self.reads |= other.reads
        self.draws |= other.draws
        for name, setting in other.changes.items():
            self.change(name, setting)


def passed_names(call: Call, effects: Effects, name: str) -> list[str]:
    """What a name inside of a function is for who calls it: what is passed for that parameter; a name of the module's is itself."""
    if name not in effects.parameters:
        return [name]
    position = effects.parameters[name]
    if name == effects.rest:
        return [given for at, given in call.passed if isinstance(at, int) and at >= position]
    if name == effects.named:
        return [given for at, given in call.passed if isinstance(at, str) and at not in effects.parameters]
    return [given for at, given in call.passed if at in (name, position)][:1]


def seen_through(calls: Iterable[tuple[Call, Call]], views: Views) -> Iterator[Call]:
    """The same calls with what a loop goes through in place of its variable: what ``train(model)`` does to an item, it does to the whole.

    ``calls``: each as it is written, and with those names only that mean something outside of where it is written.
    """
    for written, known in calls if views else ():
        for passed in written.passed:
            name = passed[1]
            if name in views.inner and passed in known.passed:  # another one than the comprehension's
                continue
            own = {name} & views.get(name, set()) if passed not in known.passed else set()  # `for row in row`
            for whole in (wholes(views, name) - views.inner) | own:
                others = (one for one in known.passed if one != passed)
                yield replace(written, passed=((passed[0], whole), *others), through=True)
