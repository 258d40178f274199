"""The payload door under 60,000 inputs: none is answered 500, none ends the gateway, and what is refused leaves nothing in the queue.

Two thirds are messages with odd parts, sent many at a time over several connections, each answered on its own; the rest have bytes, lines or lengths
wrong anywhere (mutator.py). The API that they are for is served by nobody, so that all it accepted lies there to be counted. There is no guidance by
coverage: the door is small, and its branches are in the mutator's lists. A failure prints the seed and the bytes that it came from.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable

from jupyter_cortex.store import keys

from .client import Answer, Connection
from .conftest import Watched
from .mutator import framed, wild

FRAMED, WILD = 42_000, 20_000
#: Requests that are sent before the first answer is read, and connections at a time.
AT_ONCE, CONNECTIONS = 50, 12
#: Ends a wild message: whatever it lacks, its headers end here, and what is missing of its body are these requests. The last one closes.
SENTINEL = b"GET /resting/sentinel HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 3
LAST = b"GET /resting/last HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
#: A message that says that more is to come than all of these are has no answer.
SILENCE_S = 0.25


def seed_of(offset: int) -> int:
    """CI tries the same inputs at each run; elsewhere `CORTEX_FUZZ_SEED` repeats a run."""
    given = os.environ.get("CORTEX_FUZZ_SEED", "1" if os.environ.get("CI") == "true" else "")
    return (int(given) if given else random.randrange(1 << 32)) * 1_000_000 + offset


class Tally:
    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.accepted: set[str] = set()
        #: Messages without a last answer, and those that were cut short by one that was no HTTP: what came before it may have been accepted.
        self.unanswered = 0

    def add(self, answer: Answer, seed: int, sent: bytes) -> None:
        assert not answer.wrong, f"{answer.status} with seed {seed}\nfor {sent!r}\n{answer.head!r}\n{answer.body!r}"
        self.statuses[answer.status] += 1
        if answer.accepted:
            self.accepted.add(answer.accepted)


async def send_framed(url: str, seed: int, tally: Tally) -> None:
    """One pipeline of requests; as many answers, in order."""
    rng = random.Random(seed)
    sent = [framed(rng) for _ in range(AT_ONCE)]
    connection = await Connection.open(url)
    try:
        connection.writer.write(b"".join(sent) + LAST)
        for one in sent:
            answer = await connection.answer()
            assert answer, f"the connection ended with seed {seed}\nafter {one!r}"
            tally.add(answer, seed, one)
        last = await connection.answer()
        assert last, f"more or fewer answers than requests with seed {seed}"
        assert (last.status, b"last" in last.body) == (404, True), f"more or fewer answers than requests with seed {seed}: {last}"
    finally:
        connection.close()


async def send_wild(url: str, seed: int, tally: Tally) -> None:
    """One message on a connection of its own, and every answer until the gateway closes."""
    sent = wild(random.Random(seed)) + b"\r\n\r\n" + SENTINEL + LAST
    connection = await Connection.open(url)
    try:
        connection.writer.write(sent)
        async with asyncio.timeout(SILENCE_S):
            while answer := await connection.answer():
                tally.add(answer, seed, sent)
                tally.unanswered += answer.cut_short
    except TimeoutError:
        tally.unanswered += 1
    finally:
        connection.close()


def send(url: str, how: Callable[[str, int, Tally], Coroutine[None, None, None]], seeds: Iterable[int]) -> Tally:
    tally, left = Tally(), iter(seeds)

    async def worker() -> None:
        for seed in left:
            await how(url, seed, tally)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(worker())

    asyncio.run(run())
    return tally


def stored(watched: Watched) -> set[str]:
    prefix = keys.record(watched.api.name, "")
    return {key.decode().removeprefix(prefix) for key in watched.api.store.scan_iter(f"{prefix}*", count=5000)}


def check_counts(watched: Watched, ids: set[str]) -> None:
    """Nothing was accepted but these; none is cancelled (DELETE is among the requests) twice or lost."""
    counted, queued = watched.accepted()
    cancelled = watched.api.store.zcard(keys.index(watched.api.name, "cancelled"))
    assert counted == len(ids)
    assert queued + cancelled == len(ids)
    assert watched.api.store.zcard(keys.index(watched.api.name, "open")) == queued


def test_odd_requests_are_answered_each_and_a_refusal_enqueues_nothing(watched: Watched) -> None:
    first = seed_of(0)
    tally = send(watched.url, send_framed, range(first, first + FRAMED // AT_ONCE))
    print(f"seed {first}: {FRAMED} requests, {dict(sorted(tally.statuses.items()))}, {len(tally.accepted)} accepted")
    assert sum(tally.statuses.values()) == FRAMED // AT_ONCE * AT_ONCE
    assert {200, 400, 403, 404, 405, 409} <= set(tally.statuses), "the inputs come everywhere"
    assert stored(watched) == tally.accepted
    check_counts(watched, tally.accepted)
    watched.check_alive()


def test_broken_messages_end_nothing_and_a_refusal_enqueues_nothing(watched: Watched) -> None:
    first = seed_of(500_000)
    tally = send(watched.url, send_wild, range(first, first + WILD))
    print(f"seed {first}: {WILD} messages, {dict(sorted(tally.statuses.items()))}, {len(tally.accepted)} accepted, {tally.unanswered} without an end")
    found = stored(watched)
    assert tally.accepted <= found
    # Whose answers were not waited for may have been accepted; in all others a refusal was a refusal.
    assert len(found - tally.accepted) <= tally.unanswered
    check_counts(watched, found)
    watched.check_alive()
