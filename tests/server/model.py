"""What the atomic moves promise, in plain Python: the store must show the same after every one of them.

A `Model` is one API. It says where each workload lies (queue, suspects, hands of replicas), what its record holds, and what was counted and told.
It knows nothing of Redis; test_model.py carries out the same moves there and compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from jupyter_cortex.handler import execution
from jupyter_cortex.handler.fingerprint import of_reason
from jupyter_cortex.serving.sweeping import QUEUE_TIMEOUT

FINAL = ("completed", "failed", "cancelled")
#: What a workload keeps that failed by deaths.
DIED = '{"fingerprint": "ddddddddddd1"}'
#: The payload bytes of one reply beyond which the rest waits for its turn.
REPLY_BYTES = 1 << 20


def fingerprint_in(details: str) -> str:
    return details.partition('"fingerprint": "')[2][:12]


#: What is kept of one that was not begun in time.
ALIKE = of_reason(QUEUE_TIMEOUT, "")
NOT_BEGUN = execution.details(ALIKE, [], "", [])


@dataclass
class Workload:
    """One accepted id."""

    id: str
    body: bytes
    content_type: str
    digest: str
    size: int
    status: str = "in_queue"
    attempts: int = 0
    deaths: int = 0
    alone: bool = False  #: put aside, for its last chance
    started: bool = False
    replica: str = ""
    version: int = 0
    result: bytes | None = None
    error: str | None = None  #: None: none, "": one that the store words itself
    details: str = ""
    kept: bool = True
    run: int = 1
    fingerprint: str = ""  #: of a failure whose details name one
    redacted: bool = False  #: what is kept is not what came
    due: bool | None = None  #: whether its queue timeout is over; None: it has none
    timeout: int = 0  #: ms, 0: none
    progress: str | None = None
    told: list[str] = field(default_factory=lambda: ["in_queue"])  #: its states as the event stream tells them, repetitions left out

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def overdue(self) -> bool:
        """A queue timeout counts until it is begun for the first time."""
        return bool(self.due) and self.status == "in_queue" and not self.started

    def move(self, status: str) -> None:
        self.status = status
        if self.told[-1] != status:
            self.told.append(status)


@dataclass(frozen=True)
class End:
    """How a replica says that a workload ended. ``began``: the same commit says that it had begun."""

    id: str
    status: str
    result: bytes = b""
    error: str = ""
    details: str = ""
    began: bool = False
    run: int = 1
    replaced: bytes | None = None  #: what stays of the payload (empty: as it came) where the spec redacts

    @property
    def fingerprint(self) -> str:
        return fingerprint_in(self.details)


@dataclass(frozen=True)
class Terms:
    """Who commits, and what its spec says."""

    replica: str
    version: int
    retain: str = "failed"
    retain_max: int = -1


@dataclass(frozen=True)
class Commit:
    """What one commit of a replica carries."""

    terms: Terms
    starts: Sequence[str] = ()
    ends: Sequence[End] = ()
    back: Sequence[str] = ()
    take: int = 0
    start_now: int = 0
    source: str = "queue"


class Model:
    def __init__(self, max_deliveries: int) -> None:
        self.groups: dict[str, set[int]] = {}  #: the versions in which failures alike were seen
        self.requeues: dict[str, list[int]] = {}  #: the runs of an id that a requeue ended
        self.max_deliveries = max_deliveries
        self.workloads: dict[str, Workload] = {}
        self.queue: list[str] = []
        self.suspects: list[str] = []
        self.aside_again = 0  #: how often one lay aside that had done so before
        self.held: dict[str, set[str]] = {}
        self.live = 1
        self.counts: Counter[str] = Counter()
        self.told_before: dict[str, list[str]] = {}  #: the events of earlier workloads with the same id
        self.ends: Counter[tuple[str, str]] = Counter()  #: what was published on the channels of ends
        self.stale: set[tuple[str, str]] = set()  #: (id, status) that an index lists still though the workload has expired
        self.once_alike: set[tuple[str, str]] = set()  #: (id, fingerprint) that a group may list still; it is tidied when it grows

    def submit(self, workloads: Sequence[Workload], most: int | None = None) -> list[str]:
        """A word for each. ``most``: how many may wait."""
        room = len(workloads) if most is None else most - len(self.queue)
        accepted: list[str] = []
        words = []
        for workload in workloads:
            old = self.workloads.get(workload.id)
            if old:
                words.append("same" if (old.digest, old.content_type) == (workload.digest, workload.content_type) else "conflict")
            elif len(accepted) >= room:
                words.append("queue_full")
            else:
                self.workloads[workload.id] = workload
                accepted.append(workload.id)
                words.append("ok")
        self.queue += accepted
        self.counts["accepted"] += len(accepted)
        return words

    def commit(self, commit: Commit) -> tuple[list[str], list[tuple[Workload, bool]], int]:
        """(ends that came too late, what was taken and whether its start is marked, what the source holds still)."""
        held = self.held.setdefault(commit.terms.replica, set())
        for name in commit.starts:
            self._start(name, commit.terms)
        late = [end.id for end in commit.ends if not self._end(end, commit.terms)]
        held.difference_update(end.id for end in commit.ends if not self._is_stale(end))
        for name in reversed(commit.back):
            if name in held:
                held.remove(name)
                self._back(name, never_ran=True)
        if commit.ends:
            self.stale.clear()
        taken, left = self._take(commit, held)
        return late, taken, left

    def _start(self, name: str, terms: Terms) -> None:
        found = self.workloads.get(name)
        if found and found.status == "in_progress" and found.replica == terms.replica:
            return
        if found and not found.final:
            found.replica, found.version, found.started = terms.replica, terms.version, True
            found.attempts += 1
            found.move("in_progress")

    def _is_stale(self, end: End) -> bool:
        """It ends a run after which another has begun."""
        found = self.workloads.get(end.id)
        return found is not None and not found.final and found.run != end.run

    def _end(self, end: End, terms: Terms) -> bool:
        found = self.workloads.get(end.id)
        if found is None or found.final or found.run != end.run:
            return False
        if end.began:
            self._start(end.id, terms)
        keep = terms.retain == "always" or (terms.retain == "failed" and end.status == "failed")
        found.kept = (keep or end.replaced is not None) and (terms.retain_max < 0 or found.size <= terms.retain_max)
        if end.replaced and found.kept:
            found.body, found.redacted = end.replaced, True
        if end.status == "completed":
            found.result = end.result
        found.error, found.details = end.error or None, end.details
        self._file(found, end.fingerprint)
        self._final(found, end.status, ran=True)
        return True

    def _file(self, workload: Workload, fingerprint: str) -> None:
        workload.fingerprint = fingerprint
        if fingerprint:
            self.groups.setdefault(fingerprint, set()).add(workload.version)

    def _final(self, workload: Workload, status: str, *, ran: bool) -> None:
        workload.move(status)
        self.counts[status] += 1
        self.ends[workload.id, status] += 1
        if workload.started:
            self.counts["wait"] += 1
            self.counts["run"] += ran

    def _back(self, name: str, *, never_ran: bool, aside: bool = False) -> None:
        """To the head of the queue, or where those are that were put aside, as it is now or was before. ``never_ran``: a start that is marked was
        the fetch's, and does not count."""
        found = self.workloads.get(name)
        if found and not found.final:
            if never_ran and found.status == "in_progress":
                found.attempts -= 1
                found.started = found.attempts > 0  # its queue timeout counts on
            found.move("in_queue")
            self.aside_again += found.alone
            found.alone = found.alone or aside
            self.suspects.append(name) if found.alone else self.queue.insert(0, name)

    def _take(self, commit: Commit, held: set[str]) -> tuple[list[tuple[Workload, bool]], int]:
        if commit.take and self.live > commit.terms.version:
            return [], 0
        source = self.suspects if commit.source == "suspects" else self.queue
        taken: list[tuple[Workload, bool]] = []
        size, start_now = 0, commit.start_now
        for _ in range(min(commit.take, len(source))):
            found = self.workloads.get(source[0])
            if found is None or found.final:
                source.pop(0)  # it ended while it waited: by a replica that was taken for dead
                continue
            if found.overdue:
                source.pop(0)
                self._overdue(found, commit.terms)
                continue
            size += found.size
            if taken and size > REPLY_BYTES:
                break
            source.pop(0)
            held.add(found.id)
            if len(taken) < start_now:
                self._start(found.id, commit.terms)
            taken.append((found, len(taken) < start_now))
        return taken, len(source)

    def cancel(self, name: str, keep: bool) -> str:
        found = self.workloads.get(name)
        if found is None:
            return "unknown"
        if found.final:
            return found.status
        found.kept = keep
        self._final(found, "cancelled", ran=False)
        for waiting in (self.queue, self.suspects):
            if name in waiting:
                waiting.remove(name)
        return "cancelled"

    def requeue(self, ids: Sequence[str], most: int) -> list[str]:
        """A word for each: the one move out of a final state."""
        words: list[str] = []
        room = most - len(self.queue)
        for name in ids:
            found = self.workloads.get(name)
            if found is None:
                words.append("unknown")
            elif found.status != "failed":
                words.append(found.status)
            elif found.redacted:
                words.append("redacted")
            elif not found.kept:
                words.append("gone")
            elif words.count("ok") >= room:
                words.append("full")
            else:
                words.append("ok")
                self._again(found)
        return words

    def _again(self, found: Workload) -> None:
        for places in (self.queue, self.suspects):
            if found.id in places:
                places.remove(found.id)
        for held in self.held.values():
            held.discard(found.id)
        self.requeues.setdefault(found.id, []).append(found.run)
        self.stale.discard((found.id, "failed"))  # one entry stands for both
        found.run += 1
        found.attempts = found.deaths = found.version = 0
        found.started, found.replica, found.error, found.details, found.fingerprint = False, "", None, "", ""
        found.due, found.progress, found.alone = None, None, False
        found.move("in_queue")
        self.queue.append(found.id)
        self.counts["accepted"] += 1

    def alike(self, fingerprint: str) -> set[str]:
        """The failures with one fingerprint."""
        return {name for name, found in self.workloads.items() if found.fingerprint == fingerprint}

    def _overdue(self, workload: Workload, terms: Terms) -> None:
        workload.kept = terms.retain in ("failed", "always") and (terms.retain_max < 0 or workload.size <= terms.retain_max)
        workload.error, workload.details, workload.due = "", NOT_BEGUN, None
        self._file(workload, ALIKE)
        self._final(workload, "failed", ran=False)

    def sweep(self, terms: Terms) -> int:
        """How many have waited for too long. What a replica has in its hands is left to it."""
        swept = [found for name in self.queue if (found := self.workloads.get(name)) and found.overdue]
        for found in swept:
            self.queue.remove(found.id)
            self._overdue(found, terms)
        return len(swept)

    def overrun(self, name: str, replica: str, keep: bool, error: str, details: str) -> bool:
        """It did not end when its time was over."""
        found = self.workloads.get(name)
        if found is None or found.final or name not in self.held.get(replica, ()):
            return False
        found.kept, found.error, found.details = keep, error, details
        self._file(found, fingerprint_in(details))
        self.held[replica].discard(name)
        self._final(found, "failed", ran=False)
        return True

    def progress(self, name: str, terms: Terms, said: str) -> bool:
        """Only who holds a workload speaks for it."""
        found = self.workloads.get(name)
        if found is None or found.final or name not in self.held.get(terms.replica, ()):
            return False
        self._start(name, terms)
        found.progress = said
        found.told += ["progress"] if found.told[-1] != "progress" else []
        return True

    def resync(self, replica: str, known: Iterable[tuple[str, int]]) -> tuple[int, int]:
        """A replica is back and says what it has, and of which run: the rest was in replies that never came. How many (go back to the queue,
        are put aside again)."""
        held = self.held.setdefault(replica, set())
        has = set(known)
        lost = {name for name in held if (name, self.workloads[name].run if name in self.workloads else 1) not in has}
        held -= lost
        before = len(self.queue), len(self.suspects)
        for name in sorted(lost):
            self._back(name, never_ran=True)
        return len(self.queue) - before[0], len(self.suspects) - before[1]

    def reclaim(self, replica: str, ran: Iterable[str], keep: bool) -> tuple[int, int, set[str]]:
        """A replica is dead; ``ran`` were inside its handlers. (Back in the queue, put aside, failed)."""
        ran = set(ran)
        requeued, suspected, failed = 0, 0, set()
        for name in sorted(self.held.pop(replica, set())):
            found = self.workloads.get(name)
            if found is None or found.final:
                continue
            found.deaths += name in ran
            if name in ran and found.deaths >= self.max_deliveries:
                found.kept, found.error, found.details = keep, "", DIED
                self._file(found, End("", "", details=DIED).fingerprint)
                self._final(found, "failed", ran=False)
                failed.add(name)
            else:
                aside = name in ran and self.max_deliveries > 1 and found.deaths >= self.max_deliveries - 1
                self._back(name, never_ran=bool(ran) and name not in ran, aside=aside)
                suspected += found.alone
                requeued += not found.alone
        return requeued, suspected, failed

    def expire(self, name: str) -> None:
        """Its days are over."""
        gone = self.workloads.pop(name)
        self.told_before.setdefault(name, []).extend(gone.told)
        self.requeues.pop(name, None)
        self.stale.add((name, gone.status))
        self.once_alike.add((name, gone.fingerprint))

    def listed(self, index: str) -> set[str]:
        """What the index of a final status (or ``open``) holds."""
        if index == "open":
            return self.open()
        return {name for name, found in self.workloads.items() if found.status == index} | {name for name, status in self.stale if status == index}

    def open(self) -> set[str]:
        return {name for name, found in self.workloads.items() if not found.final}
