"""What the callers and the event stream saw, and the verdict over it."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .payloads import POISON, Plan, Workload

FINAL = ("completed", "failed", "cancelled")
#: Deeds that run for so long that our own kills may hit them three times; then they end failed, and `max_deliveries` says so.
LONG = ("gil", "hang")
#: Examples kept of each kind of trouble.
EXAMPLES = 5


@dataclass
class Ledger:
    plan: Plan
    accepted: dict[str, Workload] = field(default_factory=dict)  #: without their bodies
    ends: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  #: every different end that a GET showed
    told: Counter[str] = field(default_factory=Counter)  #: ends in the event stream, by id
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    lock: threading.Lock = field(default_factory=threading.Lock)
    _expected: dict[str, tuple[str, str]] = field(default_factory=dict)

    def accept(self, workload: Workload, expected: tuple[str, str]) -> None:
        with self.lock:
            self.accepted[workload.id] = workload
            self._expected[workload.id] = expected

    def trouble(self, kind: str, what: str) -> None:
        """Something that must not be."""
        with self.lock:
            self.counts[kind] += 1
            if len(self.examples[kind]) < EXAMPLES:
                self.examples[kind].append(what)

    def answer(self, what: str, status: int, headers: Any, body: bytes) -> None:
        """Every answer passes here: no 500 at any time, and a 503 says when to come again."""
        self.counts["answers"] += 1
        if status == 503:
            self.counts["answers 503"] += 1
            if not headers.get("Retry-After"):
                self.trouble("503 without Retry-After", f"{what}: {body[:200]!r}")
        elif status >= 500:
            self.trouble("HTTP 500s", f"{what}: {status} {body[:300]!r}")

    def ended(self, workload: Workload, answer: dict[str, Any]) -> None:
        """A GET showed a final state."""
        with self.lock:
            self.ends[workload.id].add(json.dumps([answer["status"], answer.get("result"), answer.get("error")], sort_keys=True))

    def finals(self, moves: list[tuple[str, str]]) -> None:
        with self.lock:
            self.told.update(request_id for request_id, state in moves if state in FINAL)

    def deaths(self, api: str, records: list[dict[str, Any]], killed: set[int]) -> None:
        """Replicas that ended, as their log says (`Stage.deaths`): each was killed by us, or by what it ran."""
        ran: dict[tuple[int, str], list[str]] = defaultdict(list)
        for record in records:
            # "the replica ended while it ran this request: killed by SIGSEGV (a request is delivered ...)", or without the request.
            why = record["message"].partition(": ")[2].partition(" (")[0]
            workload = self.accepted.get(record.get("request_id", ""))
            ran[record["process"], why].append(workload.deed if workload else "")
        self.counts["replicas that ended"] += len(ran)
        for (pid, why), deeds in ran.items():
            by_us = pid in killed and "SIGKILL" in why
            by_itself = any(deed in POISON and POISON[deed] in why for deed in deeds)
            if not by_us and not by_itself:
                self.trouble("replicas that ended though nothing ended them", f"{api}, process {pid}: {why}; it ran {deeds}")

    # The verdict -------------------------------------------------------------------------------------------------------------------------

    def verdict(self) -> dict[str, int]:
        """Every count that must be zero."""
        counts: Counter[str] = Counter()
        for kind, request_id, what in self._findings():
            counts[kind] += 1
            if len(self.examples[kind]) < EXAMPLES:
                self.examples[kind].append(f"{request_id}: {what}")
        return {kind: counts[kind] + self.counts[kind] for kind in ZERO}

    def _findings(self) -> Iterator[tuple[str, str, str]]:
        for request_id, workload in self.accepted.items():
            ends = self.ends.get(request_id, set())
            if not ends:
                yield "accepted ids without an end", request_id, workload.deed or "good"
            if len(ends) > 1:
                yield "ids with two different results", request_id, " | ".join(sorted(ends))[:400]
            if self.told[request_id] > 1:
                yield "ids that ended twice in the event stream", request_id, str(self.told[request_id])
            for end in ends:
                status, result, error = json.loads(end)
                yield from self._judge(workload, status, result, error)

    def _judge(self, workload: Workload, status: str, result: Any, error: Any) -> Iterator[tuple[str, str, str]]:
        wanted, part = self._expected[workload.id]
        said = f"{workload.deed or 'good'} {status} {result} {error}"[:400]
        if workload.deed in LONG and status == "failed" and "died 3 times" in str(error) and "SIGKILL" in str(error):
            return
        if status == "completed" and (result.get("id"), result.get("digest")) != (workload.id, part):
            yield "results that do not belong to their payload", workload.id, said
        elif (status == "cancelled" and workload.style != "cancel") or (
            status != "cancelled" and (status != wanted or (status == "failed" and part not in str(error)))
        ):
            yield "ends that nobody asked for", workload.id, said


#: The counts of the verdict, in the order of the table.
ZERO = (
    "accepted ids without an end",
    "accepted ids that are gone",
    "workloads never accepted",
    "ids with two different results",
    "ids that ended twice in the event stream",
    "results that do not belong to their payload",
    "ends that nobody asked for",
    "replicas that ended though nothing ended them",
    "HTTP 500s",
    "503 without Retry-After",
    "other refusals",
    "faults after which service did not come back",
    "errors that nobody caught, in our logs",
    "left behind after `cortex down`",
)


@contextmanager
def noted(ledger: Ledger, kind: str, what: str) -> Iterator[None]:
    """Turn an error into a count, so that a run goes on and tells all of its troubles."""
    try:
        yield
    except Exception as error:
        ledger.trouble(kind, f"{what}: {type(error).__name__}: {error}")
