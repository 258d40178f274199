"""The atomic moves against a model: whatever comes in whatever order, the store shows what model.py says, on both store servers.

Hypothesis makes up histories of submits, commits whose reply is lost, cancels, requeues, deaths, replicas taken for dead that live on, new versions
and expiry, and makes one that fails as short as it can. After each move all of the API's keys are read and compared: nothing accepted lies in two
places or in none, an end is for good but for a requeue, and what ends leaves with its days.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from jupyter_cortex.operator.embedded import EmbeddedStore
from jupyter_cortex.operator.home import Home
from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import CANCEL, COMMIT, DELETE, OVERRUN, PROGRESS, PURGE, RECLAIM, REQUEUE, RESYNC, SUBMIT, SWEEP

from .model import DIED, FINAL, Commit, End, Model, Terms, Workload

TTL = 7 * 86400
IDS = [f"w{number}" for number in range(12)]
#: The moves that a run must have made to have tried what it promises.
MUST_SEE = {
    *("ok", "same", "conflict", "taken", "lost", "repeated", "late", "cancelled", "requeued", "suspected", "failed by deaths", "alive after all"),
    *("put back", "run again", "end of an earlier run", "gone"),
    *("overdue in the queue", "overdue when taken", "overrun", "progress", "cancelled in a replica's hands"),
    *("retired", "given back", "reply full", "expired", "ended without an own begin", "resynced", "put aside again", "queue_full", "two repeated"),
}


class Moves:
    """The scripts with their documented arguments, for one API."""

    def __init__(self, client: redis.Redis, api: str) -> None:
        self.client, self.api = client, api
        client.hset(keys.api(api), mapping={"gate": "open", "live": 1, "next": 2})

    def submit(self, works: list[Workload], most: int | None = None) -> list[str]:
        args = [part for one in works for part in (one.id, one.content_type, one.digest, one.size, one.body)]
        # Those of one script have the same limits.
        limits = [] if works[0].due is None and not works[0].timeout else [3_600_000 if works[0].due is False else 0, works[0].timeout]
        return (
            SUBMIT.run(self.client, self.api, *args, *([] if most is None and not limits else [1_000_000 if most is None else most]), *limits)
            .decode()
            .split()
        )

    def commit(self, commit: Commit) -> tuple[list[str], list[tuple[str, bytes, bytes, bool, int]], int]:
        terms = commit.terms
        args: list[Any] = [terms.replica, terms.version, TTL, terms.retain, terms.retain_max, commit.source, commit.take, commit.start_now]
        args += [len(commit.starts), len(commit.ends), len(commit.back), *commit.starts]
        for end in commit.ends:
            began = int(end.began) if end.run == 1 else f"{int(end.began)} {end.run}"
            args += [end.id, end.status, end.result, end.error, end.details, "1.500", began]
        replaced = [part for end in commit.ends if end.replaced is not None for part in (end.id, end.replaced)]
        late, left, *flat = COMMIT.run(self.client, self.api, *args, *commit.back, *replaced)
        taken = []
        for at in range(0, len(flat), 4):
            started, *told = flat[at + 3].decode().split()
            taken.append((flat[at].decode(), flat[at + 1], flat[at + 2], started == "1", int(told[0]) if told else 1))
        return late.decode().split(), taken, int(left)

    def cancel(self, name: str, keep: bool) -> str:
        return CANCEL.run(self.client, self.api, name, TTL, int(keep)).decode()

    def requeue(self, ids: list[str], most: int) -> list[str]:
        return [word.decode() for word in REQUEUE.run(self.client, self.api, most, ', "who": "a \\"test\\""', *ids)]

    def time_passes(self, name: str) -> None:
        """Its queue timeout is over."""
        self.client.hset(keys.record(self.api, name), "due", 1)
        self.client.zadd(keys.due(self.api), {name: 1})

    def sweep(self, terms: Terms) -> int:
        for name in self.client.zrange(keys.due(self.api), 0, -1):
            # Those in a replica's hands were put off for a second, which has passed by now.
            if self.client.hget(keys.record(self.api, name.decode()), "due") == b"1":
                self.client.zadd(keys.due(self.api), {name: 1})
        return int(SWEEP.run(self.client, self.api, TTL, terms.retain, terms.retain_max, 500)[0])

    def overrun(self, name: str, replica: str, keep: bool, error: str, details: str) -> bool:
        return bool(OVERRUN.run(self.client, self.api, name, replica, TTL, int(keep), error, details))

    def progress(self, name: str, terms: Terms, said: str) -> bool:
        return bool(PROGRESS.run(self.client, self.api, terms.replica, terms.version, name, said, '{"so": "far"}'))

    def resync(self, replica: str, known: list[tuple[str, int]]) -> int:
        return int(RESYNC.run(self.client, self.api, replica, *(name if run == 1 else f"{name} {run}" for name, run in known)))

    def reclaim(self, replica: str, deliveries: int, ran: list[str], keep: bool) -> tuple[int, int, set[str]]:
        requeued, suspected, *failed = RECLAIM.run(self.client, self.api, replica, deliveries, TTL, int(keep), "SIGKILL", DIED, *ran)
        return int(requeued), int(suspected), {name.decode() for name in failed}

    def purge(self) -> None:
        DELETE.run(self.client, self.api)
        while PURGE.run(self.client, self.api):
            pass


@dataclass
class Replica:
    """What a replica knows of itself. ``flying``: up to two commits whose replies were lost, to be repeated."""

    name: str
    version: int
    hand: list[str] = field(default_factory=list)
    runs: dict[str, int] = field(default_factory=dict)
    marked: set[str] = field(default_factory=set)
    entered: set[str] = field(default_factory=set)
    flying: list[Commit] = field(default_factory=list)

    def drop(self, commit: Commit) -> None:
        for name in (*(end.id for end in commit.ends), *commit.back):
            for own in (self.marked, self.entered):
                own.discard(name)
            if name in self.hand:
                self.hand.remove(name)

    def known(self) -> list[tuple[str, int]]:
        return [(name, self.runs[name]) for name in self.hand]


class Seen:
    """All keys of an API, read in two round trips."""

    def __init__(self, client: redis.Redis, api: str) -> None:
        prefix = keys.prefix(api)
        names = [name.decode().removeprefix(f"{prefix}:") for name in sorted(client.keys(f"{prefix}*"))]
        pipe = client.pipeline(transaction=True)
        for name in names:
            kind, key = name.partition(":")[0], f"{prefix}:{name}"
            if kind in ("queue", "suspects", "wake", "audit"):
                pipe.lrange(key, 0, -1)
            elif kind == "held":
                pipe.smembers(key)
            elif kind == "events":
                pipe.xrange(key)
            elif kind in ("open", "due", "groups", "beats", "f", *FINAL):
                pipe.zrange(key, 0, -1)
            else:
                (pipe.hgetall if kind in ("api", "w", "m", "t", "h", "ending") else pipe.get)(key)
            pipe.ttl(key)
        flat = pipe.execute()
        self.values: dict[str, Any] = dict(zip(names, flat[::2], strict=True))
        self.ttls: dict[str, int] = dict(zip(names, flat[1::2], strict=True))

    def ids(self, name: str) -> list[str]:
        return [one.decode() for one in self.values.get(name, ())]

    def told(self) -> dict[str, list[str]]:
        """The states of each id in order, repetitions left out."""
        told: dict[str, list[str]] = {}
        for _, fields in self.values.get("events", ()):
            parts = fields[b"m"].decode().split("\n")
            for name, state in zip(parts[::2], parts[1::2], strict=True):
                states = told.setdefault(name, [])
                if states[-1:] != [state]:
                    states.append(state)
        return told

    def counts(self, span: str) -> Counter[str]:
        """The counters of all minutes (``m:``), tens or hours; histograms as the number of what they hold."""
        sums: Counter[str] = Counter()
        for name, fields in self.values.items():
            if name.startswith(span):
                for counter, number in fields.items():
                    sums[counter.decode().partition(":")[0]] += int(number)
        return sums


class Histories(RuleBasedStateMachine):
    client: ClassVar[redis.Redis]
    seen: ClassVar[Counter[str]]
    numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.moves = Moves(self.client, f"model-{next(self.numbers)}")
        self.frozen: dict[str, Any] = {}
        self.replicas: dict[str, Replica] = {}
        self.lives = itertools.count()
        self.ends = self.client.pubsub()
        self.ends.psubscribe(f"{keys.prefix(self.moves.api)}:d:*")

    @initialize(
        deliveries=st.integers(1, 3), retain=st.sampled_from([("failed", -1), ("failed", 100), ("always", 100), ("never", -1), ("replaced", -1)])
    )
    def begin(self, deliveries: int, retain: tuple[str, int]) -> None:
        self.model, self.retain = Model(deliveries), retain
        for slot, version in (("a", 1), ("b", 1), ("c", 2)):
            self._born(slot, version)

    def _born(self, slot: str, version: int) -> None:
        self.replicas[slot] = Replica(f"{slot}{next(self.lives)}", version)
        self._beat(self.replicas[slot])

    def _beat(self, replica: Replica) -> None:
        self.client.zadd(keys.beats(self.moves.api), {replica.name: time.time() * 1000})

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """One move of those that can be made now. Rules of their own would be left out of half the histories each, and few would go far."""
        replicas, model = self.replicas.values(), self.model
        can = ["submit"] * 3 + ["submit_before_anything_is_live"]
        can += ["requeue"] * 6 * any(work.status == "failed" for work in model.workloads.values())
        can += ["cancel"] * bool(model.workloads) + ["expire"] * bool(self._old())
        can += ["commit"] * 8 * bool(model.queue or model.suspects or any(one.hand or one.flying for one in replicas))
        can += ["wake_up"] * 2 * any(not (one.hand or one.flying) for one in replicas)
        can += ["die", "die", "be_taken_for_dead"] * any(model.held.values()) + ["a_newer_version_goes_live"] * (model.live == 1)
        can += ["progress", "overrun"] * any(one.hand for one in replicas)
        can += ["sweep"] + ["sweep"] * 4 * any(work.overdue for work in model.workloads.values())
        can += ["time_passes"] * 3 * any(work.due is not None and not work.final for work in model.workloads.values())
        getattr(self, data.draw(st.sampled_from(can), label="move"))(data.draw)

    # Callers -----------------------------------------------------------------------------------------------------------------------------

    def submit(self, draw: Any) -> None:
        """Those that arrive together are accepted by one script."""
        size = draw(st.sampled_from([10, 10, 10, 600_000]), label="size")
        digests = st.sampled_from(["d1", "d1", "d2"])
        drawn = draw(st.lists(st.tuples(st.sampled_from(IDS), digests), min_size=1, max_size=4), label="ids and digests")
        due, timeout = draw(st.sampled_from([(None, 0), (None, 0), (False, 0), (False, 500), (None, 500)]), label="limits")
        works = [
            Workload(name, f"{name} {next(self.lives)}".encode(), "text/plain", digest, size, due=due, timeout=timeout) for name, digest in drawn
        ]
        most = draw(st.none() | st.integers(0, 8), label="may wait")
        outcome = self.moves.submit(works, most)
        assert outcome == self.model.submit(works, most)
        self.seen.update(outcome)

    def submit_before_anything_is_live(self, draw: Any) -> None:
        self.client.hset(keys.api(self.moves.api), "gate", "closed")
        assert self.moves.submit([Workload(draw(st.sampled_from(IDS)), b"", "", "d", 0)]) == ["not_live"]
        self.client.hset(keys.api(self.moves.api), "gate", "open")

    def cancel(self, draw: Any) -> None:
        name, keep = draw(st.sampled_from(IDS), label="id"), draw(st.booleans(), label="keep the payload")
        found = self.model.workloads.get(name)
        holders = [replica for replica, held in self.model.held.items() if name in held and found and not found.final]
        outcome = self.moves.cancel(name, keep)
        assert outcome == self.model.cancel(name, keep)
        self.seen[outcome] += 1
        if holders and self.client.zscore(keys.beats(self.moves.api), holders[0]):
            # Its worker is told until the replica has let go.
            assert self.client.hget(f"{keys.prefix(self.moves.api)}:ending", name) == holders[0].encode()
            self.seen["cancelled in a replica's hands"] += 1

    def time_passes(self, draw: Any) -> None:
        """The queue timeout of one that has one is over, wherever it lies."""
        names = sorted(name for name, work in self.model.workloads.items() if work.due is not None and not work.final)
        name = draw(st.sampled_from(names), label="whose")
        self.moves.time_passes(name)
        self.model.workloads[name].due = True
        if draw(st.booleans(), label="and is noticed"):
            self.sweep(draw)

    def sweep(self, draw: Any) -> None:
        terms = Terms("", 0, *self.retain)
        swept = self.moves.sweep(terms)
        assert swept == self.model.sweep(terms)
        self.seen["overdue in the queue"] += swept

    def requeue(self, draw: Any) -> None:
        """Some of the failed, and some that are not."""
        failed = sorted(name for name, work in self.model.workloads.items() if work.status == "failed")
        ids = draw(st.lists(st.sampled_from(failed), min_size=1, max_size=3, unique=True) | st.lists(st.sampled_from(IDS), max_size=3, unique=True))
        most = draw(st.sampled_from([100, 100, 100, 1]), label="may wait")
        words = self.moves.requeue(ids, most)
        assert words == self.model.requeue(ids, most)
        for name, word in zip(ids, words, strict=True):
            if word == "ok":
                self.frozen.pop(name, None)
        self.seen.update("put back" if word == "ok" else word for word in words)

    # Replicas ----------------------------------------------------------------------------------------------------------------------------

    def _in_hand(self, draw: Any) -> tuple[Replica, str]:
        return draw(st.sampled_from([(one, name) for one in self.replicas.values() for name in one.hand]), label="replica and id")  # type: ignore[no-any-return]

    def progress(self, draw: Any) -> None:
        """A handler says how far it is; perhaps its workload is somebody else's by now."""
        replica, name = self._in_hand(draw)
        replica.entered.add(name)
        terms, said = Terms(replica.name, replica.version), f'{{"fraction": 0.5, "text": "{next(self.lives)}", "at": 1}}'
        told = self.moves.progress(name, terms, said)
        assert told == self.model.progress(name, terms, said)
        self.seen["progress"] += told

    def overrun(self, draw: Any) -> None:
        """A supervisor ends what its replica cannot end."""
        replica, name = self._in_hand(draw)
        keep = draw(st.booleans(), label="keep")
        arguments = (name, replica.name, keep, '{"type": "DeadlineExceeded", "message": "m"}', '{"logs": []}')
        ended = self.moves.overrun(*arguments)
        assert ended == self.model.overrun(*arguments)
        self.seen["overrun"] += ended

    def _carry_out(self, replica: Replica, commit: Commit, lost: bool) -> None:
        overdue = sum(work.overdue for work in self.model.workloads.values())
        late, taken, left = self.moves.commit(commit)
        expected_late, expected, expected_left = self.model.commit(commit)
        assert late == expected_late, "ends that came too late"
        shown = [(work.id, work.content_type.encode(), work.body, started, work.run) for work, started in expected]
        assert taken == shown, "what was taken, oldest first"
        assert left == expected_left, "what the source holds still"
        if commit.source == "queue" and not self.model.queue:
            assert not self.client.llen(keys.wake(self.moves.api)), "tokens for an empty queue wake replicas for nothing"
        self.seen["end of an earlier run"] += any(self.model.requeues.get(end.id, [0])[-1] >= end.run for end in commit.ends)
        fenced = commit.take and self.model.live > replica.version
        told = {
            "late": late,
            "taken": taken,
            "given back": commit.back,
            "retired": fenced,
            "lost": lost,
            "reply full": len(taken) < commit.take and left,
        }
        told["overdue when taken"] = sum(work.overdue for work in self.model.workloads.values()) < overdue
        told["ended without an own begin"] = any(end.began for end in commit.ends)
        self.seen.update(name for name, happened in told.items() if happened)
        if lost:
            replica.flying.append(commit)
            return
        replica.drop(commit)
        replica.marked.update(commit.starts)
        for name, _, _, started, run in taken:
            replica.runs[name] = run
            self.seen["run again"] += run > 1
            replica.hand += [name] if name not in replica.hand else []
            replica.entered.discard(name)
            (replica.marked.add if started else replica.marked.discard)(name)

    def commit(self, draw: Any) -> None:
        replica = draw(st.sampled_from(list(self.replicas.values())), label="replica")
        take = draw(st.integers(0, 4), label="take")
        if replica.flying and (len(replica.flying) == 2 or draw(st.booleans(), label="reconnect")):
            self._reconnect(replica, take)
            return
        starts, ends, back = [], [], []
        told = {name for commit in replica.flying for name in (*(end.id for end in commit.ends), *commit.back, *commit.starts)}
        for name in replica.hand:
            if name in told:
                continue  # a second commit on the heels of the first says nothing again
            can = ["wait", "completed", "completed", "failed"] + ([] if name in replica.entered else ["begin", "back"])
            what = draw(st.sampled_from(can), label=f"{name} on {replica.name}")
            if what == "begin":
                replica.entered.add(name)
                starts += [] if name in replica.marked else [name]
            elif what == "back":
                back.append(name)
            elif what != "wait":
                ends.append(self._end(replica, name, what, draw(self._replaced(), label="what stays")))
        alone = not replica.hand and bool(self.model.suspects) and draw(st.booleans(), label="from the suspects")
        take = min(take, 1) if alone else take
        terms = Terms(replica.name, replica.version, *self.retain)
        start_now = draw(st.integers(0, take), label="start now")
        commit = Commit(terms, starts, ends, back, take, start_now, "suspects" if alone else "queue")
        self._carry_out(replica, commit, bool(replica.flying) or draw(st.sampled_from([False, False, True]), label="reply lost"))

    def _replaced(self) -> st.SearchStrategy[bytes | None]:
        return st.sampled_from([None, b"", b"***"]) if self.retain[0] == "replaced" else st.none()

    def _end(self, replica: Replica, name: str, status: str, replaced: bytes | None) -> End:
        result = f'{{"by": "{replica.name} {next(self.lives)}"}}'.encode()
        more: dict[str, Any] = {"began": name not in replica.marked, "run": replica.runs[name], "replaced": replaced}
        if status == "completed":
            return End(name, status, result=result, **more)
        details = f'{{"fingerprint": "{"ab"[int(name[1:]) % 2] * 12}", "logs": []}}' if name != "w0" else '{"logs": []}'
        return End(name, status, error='{"type": "E", "message": "m"}', details=details, **more)

    def _reconnect(self, replica: Replica, take: int) -> None:
        """First what the replica has, so that what it does not know goes back; then what the commits said again, in one, with another fetch."""
        flying, replica.flying = replica.flying, []
        expected = self.model.resync(replica.name, replica.known())
        assert self.moves.resync(replica.name, replica.known()) == sum(expected)
        self._adopt_order(*expected)
        starts, ends, back = ([one for commit in flying for one in getattr(commit, part)] for part in ("starts", "ends", "back"))
        ended = {end.id for end in ends}
        ends = [replace(end, began=end.began or end.id in starts) for end in ends]
        again = Commit(flying[0].terms, [name for name in starts if name not in ended], ends, back, take, take)
        self._carry_out(replica, again, lost=False)
        self.seen.update({"repeated": 1, "resynced": sum(expected), "two repeated": len(flying) == 2})

    def wake_up(self, draw: Any) -> None:
        """An idle replica gets a token and fetches, again and again. Without a token it would sleep, so there must be nothing to do."""
        replica = draw(st.sampled_from([one for one in self.replicas.values() if not (one.flying or one.hand)]), label="replica")
        for _ in range(draw(st.sampled_from([1, 3, 70]), label="times")):
            token = self.client.lpop(keys.wake(self.moves.api))
            assert token or not self.model.queue, "work waits and nobody is woken"
            self._carry_out(replica, Commit(Terms(replica.name, replica.version, *self.retain), take=1, start_now=1), lost=False)
            if replica.hand:
                break

    # Deaths ------------------------------------------------------------------------------------------------------------------------------

    def _holder(self, draw: Any) -> str:
        return str(draw(st.sampled_from([slot for slot, one in self.replicas.items() if self.model.held.get(one.name)]), label="slot"))

    def die(self, draw: Any) -> None:
        """While it ran something, as its board says, or by plan."""
        slot = self._holder(draw)
        replica = self.replicas[slot]
        held = sorted(self.model.held[replica.name])
        ran = draw(st.lists(st.sampled_from(held), unique=True), label="ran")
        self._reclaim(replica, ran, draw(st.booleans(), label="keep payloads"))
        self._born(slot, replica.version)

    def be_taken_for_dead(self, draw: Any) -> None:
        """A machine was paused: another worker gave its work away, and now it goes on as if nothing had been."""
        self.seen["alive after all"] += 1
        replica = self.replicas[self._holder(draw)]
        self._reclaim(replica, [], keep=True)
        if draw(st.booleans(), label="its worker, too"):
            self._beat(replica)

    def _reclaim(self, replica: Replica, ran: list[str], keep: bool) -> None:
        expected = self.model.reclaim(replica.name, ran, keep)
        assert self.moves.reclaim(replica.name, self.model.max_deliveries, ran, keep) == expected
        requeued, suspected, failed = expected
        self._adopt_order(requeued, suspected)
        self.seen.update({"requeued": requeued, "suspected": suspected, "failed by deaths": len(failed)})
        assert self.moves.reclaim(replica.name, self.model.max_deliveries, ran, keep) == (0, 0, set()), "safe to repeat"

    def _adopt_order(self, first: int, last: int) -> None:
        """What a replica held has no order: any is right for those that went to the head of the queue, and to the end of the suspects."""
        queue, suspects = (self.client.lrange(f"{keys.prefix(self.moves.api)}:{name}", 0, -1) for name in ("queue", "suspects"))
        head, tail = [one.decode() for one in queue[:first]], [one.decode() for one in suspects[len(suspects) - last :]]
        assert (sorted(head), sorted(tail)) == (sorted(self.model.queue[:first]), sorted(self.model.suspects[len(self.model.suspects) - last :]))
        self.model.queue[:first] = head
        self.model.suspects[len(self.model.suspects) - last :] = tail

    # Versions and time -------------------------------------------------------------------------------------------------------------------

    def a_newer_version_goes_live(self, draw: Any) -> None:
        if draw(st.integers(0, 5)) == 5:  # seldom, since only replica c takes work from then on
            self.client.hset(keys.api(self.moves.api), "live", 2)
            self.model.live = 2

    def _old(self) -> list[str]:
        """Ended workloads that no replica has still in its hands: those hold it for less than days."""
        busy = {*self.model.queue, *self.model.suspects, *itertools.chain(*self.model.held.values(), *(r.hand for r in self.replicas.values()))}
        return sorted(name for name, work in self.model.workloads.items() if work.final and name not in busy)

    def expire(self, draw: Any) -> None:
        """The days of an ended workload are over."""
        name = draw(st.sampled_from(self._old()), label="old")
        prefix = keys.prefix(self.moves.api)
        self.client.delete(*(f"{prefix}:{kind}:{name}" for kind in "wbrep"))
        work = self.model.workloads[name]
        self.client.zadd(f"{prefix}:{work.status}", {name: 1}, xx=True)
        if work.fingerprint:
            self.client.zadd(f"{prefix}:f:{work.fingerprint}", {name: 1}, xx=True)
        self.model.expire(name)
        self.frozen.pop(name)
        self.seen["expired"] += 1

    # What must hold after every move -----------------------------------------------------------------------------------------------------

    @invariant()
    def the_store_shows_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        model, shown = self.model, Seen(self.client, self.moves.api)
        assert shown.ids("queue") == model.queue
        assert shown.ids("suspects") == model.suspects
        held = {name: set(shown.ids(name)) for name in shown.values if name.startswith("held:")}
        assert held == {f"held:{name}": ids for name, ids in model.held.items() if ids}
        assert {name.removeprefix("held:") for name in held} <= set(shown.ids("beats")), "who holds something is missed when it falls silent"
        places = Counter([*shown.ids("queue"), *shown.ids("suspects"), *itertools.chain(*held.values())])
        assert {name: places[name] for name in model.open()} == dict.fromkeys(model.open(), 1), "each open workload lies in exactly one place"
        for index in ("open", *FINAL):
            assert set(shown.ids(index)) == model.listed(index), index
        self._check_groups(shown)
        assert len(shown.ids("wake")) <= 64
        assert shown.ids("wake") or not model.queue, "work waits and nobody can be woken"
        for span in ("m:", "t:", "h:"):
            assert shown.counts(span) == +model.counts, span
        self._check_told(shown)
        for work in model.workloads.values():
            self._check_record(work, shown)
        self._check_expiry(shown)

    def _check_groups(self, shown: Seen) -> None:
        groups = {name.removeprefix("f:"): set(shown.ids(name)) for name in shown.values if name.startswith("f:")}
        for mark in {*groups, *self.model.groups}:
            alike = self.model.alike(mark)
            assert alike <= groups.get(mark, set()) <= alike | {name for name, once in self.model.once_alike if once == mark}, mark
        seen = {f"{mark} {version}" for mark, versions in self.model.groups.items() for version in versions}
        assert set(shown.ids("groups")) == seen

    def _check_told(self, shown: Seen) -> None:
        expected = {name: list(states) for name, states in self.model.told_before.items()}
        for name, work in self.model.workloads.items():
            expected.setdefault(name, []).extend(work.told)
        assert shown.told() == expected

    def _check_record(self, work: Workload, shown: Seen) -> None:
        record = {key.decode(): value.decode() for key, value in shown.values[f"w:{work.id}"].items()}
        number = {key: int(record.get(key, 0)) for key in ("attempts", "deaths", "size", "version", "run")}
        assert record["status"] == work.status
        assert number == {"attempts": work.attempts, "deaths": work.deaths, "size": work.size, "version": work.version, "run": work.run}
        assert (record.get("fingerprint", ""), "redacted" in record) == (work.fingerprint, work.redacted)
        assert [json.loads(record[f"requeue:{run}"])["run"] for run in self.model.requeues.get(work.id, ())] == self.model.requeues.get(work.id, [])
        assert (record["digest"], record["type"], record.get("replica", "")) == (work.digest, work.content_type, work.replica)
        times = [int(record[key]) for key in ("accepted", "started", "finished") if key in record]
        assert times == sorted(times)
        assert ("started" in record, "finished" in record) == (work.started, work.final)
        assert shown.values.get(f"b:{work.id}") == (work.body if work.kept else None)
        assert shown.values.get(f"r:{work.id}") == work.result
        assert shown.values.get(f"e:{work.id}", b"").decode() == work.details
        assert ("error" in record) == (work.status == "failed")
        assert ("due" in record, int(record.get("timeout", 0))) == (work.due is not None, work.timeout)
        assert record.get("progress") == work.progress
        assert any(word in record["error"] for word in ("ReplicaDied", "QueueTimeout")) if work.error == "" else record.get("error") == work.error
        if work.final:
            ended = {kind: shown.values.get(f"{kind}:{work.id}") for kind in "wrbe"}
            assert self.frozen.setdefault(work.id, ended) == ended, "an end is for good"

    def _check_expiry(self, shown: Seen) -> None:
        for name, ttl in shown.ttls.items():
            kind, _, rest = name.partition(":")
            work = self.model.workloads.get(rest) if kind in "wbre" else None
            if kind in ("p", "ending"):
                assert 0 < ttl <= 86400, name
            elif work is not None and not work.final:
                assert ttl == -1, f"{name} of an open workload must not expire"
            elif work is not None:
                assert 0 < ttl <= TTL, f"{name} of an ended workload must expire"
            elif kind in ("m", "t", "h"):
                assert 0 < ttl <= TTL + 3600, name
            elif kind in ("f", "groups"):
                assert 0 < ttl <= TTL, name
            else:
                assert kind in ("api", "queue", "suspects", "wake", "held", "events", "open", "due", "audit", "beats", *FINAL), f"what is {name}?"

    def teardown(self) -> None:
        """Each end was published once, and a deleted API leaves nothing."""
        self.ends.ping()
        told: Counter[tuple[str, str]] = Counter()
        while (message := self.ends.get_message(timeout=5)) and message["type"] != "pong":
            if message["type"] == "pmessage":
                told[message["channel"].decode().rpartition(":")[2], message["data"].decode()] += 1
        self.ends.close()
        for replica in self.replicas.values():
            self.moves.reclaim(replica.name, 3, [], False)
        self.moves.purge()
        left = self.client.keys(f"{keys.prefix(self.moves.api)}*")
        if left:
            self.client.flushall()
        assert not left, "a deleted API leaves nothing"
        if hasattr(self, "model"):
            self.seen["put aside again"] += self.model.aside_again
            assert told == self.model.ends


@pytest.fixture
def client(tmp_path: Path, store_server: str) -> Iterator[redis.Redis]:
    home = Home(tmp_path / "home")
    home.make()
    # What is written when is not the question here.
    store = EmbeddedStore(home, appendfsync="everysec", server=store_server)
    store.start()
    store.wait()
    with redis.Redis.from_url(home.redis_url()) as made:
        yield made
    store.stop()


def test_any_history_of_moves_leaves_what_the_model_says(client: redis.Redis) -> None:
    machine = type("TheseHistories", (Histories,), {"client": client, "seen": Counter()})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    # Which moves come is chance: more histories where one of them did not.
    for examples in (45, 90, 180, 360):
        limits = settings(max_examples=examples, stateful_step_count=50, deadline=None, suppress_health_check=checks)
        run_state_machine_as_test(machine, settings=limits)
        missing = MUST_SEE - set(+machine.seen)
        if not missing:
            break
    print(dict(machine.seen))
    assert not missing, f"no history had: {missing}"
