"""One run: callers and faults side by side, then the counting."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis

from jupyter_cortex.operator.home import Home
from jupyter_cortex.store import keys, streams

from .callers import Callers, count
from .faults import Faults, Skipped, Spared, Times
from .ledger import Ledger, noted
from .payloads import Plan
from .stage import APIS, PULSE, Stage, until

#: After the last fault: what is open must end within this. Only bounds a broken run.
DRAIN_S = 300.0


@dataclass(frozen=True)
class Size:
    """``rounds``: how often every fault comes.

    ``minutes``: no fault and no workload after so many, however few there were.
    ``held``: seconds that a handler holds the GIL; ``pause``: that the store is paused or full.
    """

    workloads: int = 20_000
    rounds: int = 4
    held: float = 60.0
    pause: float = 5.0
    minutes: float = 60.0


SHORT = Size(workloads=12_000, rounds=3, held=15.0, pause=2.0, minutes=3.0)


@dataclass
class Outcome:
    seed: int
    ledger: Ledger
    times: Times
    zero: dict[str, int]
    skipped: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)  #: how often each has hit
    kinds: list[str] = field(default_factory=list)  #: all that there are
    seconds: float = 0.0


class Events(threading.Thread):
    """Reads the event streams of the callers' APIs without a gap, whatever the store does."""

    def __init__(self, home: Home, ledger: Ledger) -> None:
        super().__init__(name="events", daemon=True)
        self._url, self._ledger = home.redis_url(), ledger
        self._positions = {keys.events(api): streams.BEGINNING for api in APIS}
        self.stop = False

    def run(self) -> None:
        client = redis.Redis.from_url(self._url, socket_timeout=5)
        quiet = False
        while not (self.stop and quiet):
            try:
                news = streams.parse_news(client.xread(dict(self._positions), count=500, block=200))
            except (redis.RedisError, OSError):
                time.sleep(0.05)
                continue
            quiet = not news
            for name, entries in news.items():
                self._positions[name] = entries[-1][0]
                for _, fields in entries:
                    self._ledger.finals(streams.moves(fields))
        client.close()


def run(directory: Path, seed: int, size: Size, say: Callable[[str], None]) -> Outcome:
    """Raises Broken, or what else kept it from being a run at all; every trouble of the product is a count of the outcome."""
    begun = time.monotonic()
    ledger = Ledger(Plan(seed, size.workloads, tuple(APIS), size.held))
    outcome = Outcome(seed, ledger, Times(), {})
    with Stage(directory) as stage:
        stage.heard = ledger.answer
        events = Events(stage.home, ledger)
        events.start()
        callers = Callers(stage.environment.url, ledger)
        callers.start()
        say(f"seed {seed}: {size.workloads} workloads; the disk is {'a tmpfs' if stage.disk.mounted else 'limited by RLIMIT_FSIZE'}")
        try:
            _faults(stage, callers, outcome, size, begun + size.minutes * 60, say)
        finally:
            callers.enough = time.monotonic() > begun + size.minutes * 60
            callers.limit = size.workloads
        _count(stage, callers, events, say)
    for what in stage.left:
        ledger.trouble("left behind after `cortex down`", what)
    for what in stage.uncaught:
        ledger.trouble("errors that nobody caught, in our logs", what)
    outcome.zero = ledger.verdict()
    outcome.seconds = time.monotonic() - begun
    return outcome


def _faults(stage: Stage, callers: Callers, outcome: Outcome, size: Size, deadline: float, say: Callable[[str], None]) -> None:
    """Faults and workloads keep step: each fault has its share of them."""
    faults = Faults(stage, random.Random(outcome.seed), size.pause)
    outcome.times = faults.times
    todo = [fault for _ in range(size.rounds) for fault in faults.all()]
    outcome.kinds = sorted({fault.__name__.replace("_", " ") for fault in todo})
    ledger = outcome.ledger
    for number, fault in enumerate(todo):
        if time.monotonic() > deadline:
            say(f"time is over after {number} of {len(todo)} faults")
            return
        callers.limit = size.workloads * (number + 1) // len(todo)
        share = size.workloads * (number + 0.2) / len(todo)
        until(lambda share=share: len(ledger.accepted) >= share or ledger.counts["workloads never accepted"], "the callers are served", 300)
        name = fault.__name__.replace("_", " ")
        try:
            fault()
            outcome.faults[name] += 1
        except Skipped as reason:
            outcome.skipped.append(f"{name}: {reason}")
        except Spared as reason:
            say(f"{name}: {reason}")
        except Exception as error:
            ledger.trouble("faults after which service did not come back", f"{name}: {type(error).__name__}: {error}")
        say(f"{number + 1:>3}/{len(todo)} {name:<24} {len(ledger.accepted):>6} accepted")


def _count(stage: Stage, callers: Callers, events: Events, say: Callable[[str], None]) -> None:
    say("no more faults; waiting for the ends")
    ledger = callers.ledger
    try:
        callers.join(DRAIN_S)
        open_ = lambda: sum(int(stage.redis.zcard(keys.index(api, "open"))) for api in APIS)  # type: ignore[arg-type]  # noqa: E731
        until(lambda: open_() == 0, "nothing is open", DRAIN_S, pause=0.1)
    except Exception as error:
        ledger.trouble("faults after which service did not come back", f"the end: {type(error).__name__}: {error}")
    count(callers, say)
    with noted(ledger, "replicas that ended though nothing ended them", "their logs cannot be read"):
        for api in (*APIS, PULSE):
            ledger.deaths(api, stage.deaths(api), stage.killed)
    events.stop = True
    events.join(30)
