"""``GET <endpoint>/<id>/events``: what happens to one workload, as server-sent events, to its end.

=====================================  ==========================================================================
``in_queue``                           ``{"id", "status", "position"}``: how many wait in front of it, "> 10000" beyond
``in_progress``                        ``{"id", "status", "attempt"}``
``progress``                           ``{"fraction", "text", "at"[, "partial"]}``
``log`` (``?logs=true`` and a token)   one line of its log
``completed``, ``failed``,             what GET answers; the stream ends with it
``cancelled``
=====================================  ==========================================================================

An event's id says how far the story was when it was told, not where in a log it stands: the record is the story, and whoever comes again with
``Last-Event-ID`` is told what has happened since, by any gateway, without a gap and nothing twice. Progress is coalesced: the last word counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import redis

from ..core.errors import BadRequest, CortexError
from ..core.workload import FINAL
from ..serving.intake import Intake, Sight
from ..store import logs
from ..store.records import PLACES
from .answers import without_mark, workload_body
from .polls import AGAIN_S, Polls, WaitOver, gone

#: Seconds of silence after which a comment is sent: proxies cut what is silent for a minute, and a caller that is gone is noticed by writing.
HEARTBEAT_S = 15.0
#: Seconds between two looks at its place in the queue: the nearer the oftener. Its start and its progress are told at once.
NEAR_S, FAR_S = 1.0, 10.0
#: Seconds between two looks while it runs: for what is not told (its replica died), and for its log lines.
RUNNING_S, LOGS_S = 5.0, 0.2
#: Seconds that log lines written last may take to come, after the end.
SHIPPED_S = 0.5
_ID = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d)\.(\d{1,15})(?:/(\d{1,15}-\d{1,10})\.(\d{1,9}))?")
_QUEUED, _RUNNING, _PROGRESS, _END = range(4)

#: How far a story is: run, attempt, step, and a number within the step.
Rank = tuple[int, int, int, int]


@dataclass(frozen=True)
class Event:
    rank: Rank
    kind: str
    data: bytes


class LogReader:
    """Reads an API's log for those who follow a workload."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def batches(self, api: str, position: str, *, inclusive: bool) -> list[tuple[str, list[str]]]:
        """Up to 20 batches from a position on. Raises StoreUnavailable."""
        return logs.batches(self._client, api, position, inclusive=inclusive)


def wants_logs(query: bytes) -> bool:
    """``?logs=true``. Raises BadRequest."""
    value = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("logs", ["false"])[-1].lower()
    if value not in ("true", "false", "1", "0", ""):
        raise BadRequest("logs must be true or false, as in ?logs=true")
    return value in ("true", "1", "")


class Follower:
    """One caller that follows one workload. ``last``: the id of the event that it has had last, "" for none."""

    def __init__(self, intake: Intake, api: str, request_id: str, log: LogReader | None, last: str) -> None:
        self._intake, self._api, self.request_id, self._log = intake, api, request_id, log
        said = _ID.fullmatch(last)
        self._rank: Rank | None = (int(said[1]), int(said[2]), int(said[3]), int(said[4])) if said else None
        self._position, self._own = (said[5], int(said[6])) if said and said[5] else ("", 0)
        self._sight: Sight | None = None

    async def look(self) -> bool:
        """See how it stands. False when there is no such workload."""
        self._sight = await self._intake.see(self._api, self.request_id)
        return self._sight is not None

    @property
    def knows_the_end(self) -> bool:
        """Whether this caller has had the end already."""
        sight = self._sight
        return sight is not None and sight.status in FINAL and self._rank is not None and self._rank >= _end_rank(sight)

    async def told(self) -> AsyncIterator[bytes]:
        """The stream, piece by piece, until the end. An empty piece: nothing has happened for a while."""
        while True:
            try:
                async with self._intake.hear(self._api, self.request_id) as pulse:
                    while not pulse.lost:
                        if not await self.look():
                            return  # it was deleted
                        async for piece in self._pieces():
                            yield piece
                        if self._is_over():
                            return
                        if not await pulse.wait(self._patience()):
                            yield b""
            except (redis.RedisError, OSError, CortexError):
                # The store is away: who follows waits, as those do whose workloads it has.
                await asyncio.sleep(0.2)
                yield b""

    async def once(self) -> AsyncIterator[bytes]:
        """How it stands, and no more."""
        async for piece in self._pieces():
            yield piece

    def _is_over(self) -> bool:
        return self._sight is not None and self._sight.status in FINAL

    def _patience(self) -> float:
        assert self._sight is not None
        if self._log is not None:
            return LOGS_S
        if self._sight.status != "in_queue":
            return RUNNING_S
        return FAR_S if self._sight.place < 0 else min(FAR_S, max(NEAR_S, self._sight.place / 100))

    async def _pieces(self) -> AsyncIterator[bytes]:
        """What has happened since the last one."""
        sight = self._sight
        assert sight is not None
        if self._log is not None:
            if self._is_over() and not self.knows_the_end:
                await asyncio.sleep(SHIPPED_S)
            async for line in self._lines(sight):
                yield line
        for event in story(sight, fresh=self._rank is None):
            if self._rank is None or event.rank > self._rank:
                data = await self._data(event, sight)
                # Told only now: while the store was away it would else count as told, and the stream end without its end.
                self._rank = event.rank
                if data:
                    yield self._frame(event.kind, data)

    async def _data(self, event: Event, sight: Sight) -> bytes:
        head = f'{{"id": "{self.request_id}", "status": "{event.kind}"'.encode()
        if event.kind == "progress":
            said = without_mark(event.data)
            partial = await self._intake.partial(self._api, self.request_id) if said != event.data else None
            return said[:-1] + (b', "partial": ' + partial if partial else b"") + b"}"
        if event.kind in FINAL:
            found = await self._intake.get(self._api, self.request_id)
            return workload_body(self.request_id, found) if found else b""  # it was deleted in between
        return head + b", " + event.data + b"}"

    async def _lines(self, sight: Sight) -> AsyncIterator[bytes]:
        """Its log lines behind the position; one is there from the first look on."""
        assert self._log is not None
        if not self._position:
            self._position, self._own = f"{sight.accepted}-0", 0
        self._rank = self._rank or (sight.run, 0, 0, 0)
        while True:
            batches = await asyncio.to_thread(self._log.batches, self._api, self._position, inclusive=True)
            for position, lines in batches:
                own = [line for line in lines if self.request_id in line and logs.record(line).get("request_id") == self.request_id]
                skip = self._own if position == self._position else 0
                self._position, self._own = position, max(skip, 0)
                for line in own[skip:]:
                    self._own += 1
                    yield self._frame("log", line.encode())
            if len(batches) < logs.LOOK:
                return

    def _frame(self, kind: str, data: bytes) -> bytes:
        """One event. JSON has no newline outside of its texts, and none inside."""
        assert self._rank is not None
        place = ".".join(map(str, self._rank)) + (f"/{self._position}.{self._own}" if self._log is not None else "")
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (place.encode(), kind.encode(), data)


def _end_rank(sight: Sight) -> Rank:
    return sight.run, sight.attempts + 1, _END, 0


def story(sight: Sight, *, fresh: bool) -> list[Event]:
    """What there is to tell of a workload, in order. ``fresh``: to somebody who knows nothing yet, and asks how it stands, not how it came so.

    A workload that waits again, because its replica died, is one attempt further than it was.
    """
    told = []
    final = sight.status in FINAL
    if sight.status == "in_queue":
        place = sight.place if 0 <= sight.place <= PLACES else PLACES + 1
        position = f'"position": {place}' if place <= PLACES else f'"position": "> {PLACES}"'
        told.append(Event((sight.run, sight.attempts + 1, _QUEUED, PLACES + 1 - place), "in_queue", position.encode()))
    elif sight.attempts and not (final and fresh):
        told.append(Event((sight.run, sight.attempts, _RUNNING, 0), "in_progress", b'"attempt": %d' % sight.attempts))
        if sight.progress:
            at = int(json.loads(sight.progress)["at"])
            told.append(Event((sight.run, sight.attempts, _PROGRESS, at), "progress", sight.progress))
    if final:
        told.append(Event(_end_rank(sight), sight.status, b""))
    return told


async def stream(follower: Follower, polls: Polls, receive: Any, send: Any, headers: list[tuple[bytes, bytes]]) -> None:
    """Answer one caller. He counts as one who waits; where too many do, he is told how it stands and when to come again."""
    if follower.knows_the_end:
        # To a browser this says: do not connect again.
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    start = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": [*start, *headers]})
    again = b"retry: %d\n\n" % (AGAIN_S * 1000)
    if polls.full:
        pieces = [piece async for piece in follower.once()]
        await send({"type": "http.response.body", "body": again + b"".join(pieces)})
        return
    left = asyncio.ensure_future(gone(receive))
    telling = asyncio.ensure_future(_hold(follower, polls, send))
    try:
        await asyncio.wait({left, telling}, return_when=asyncio.FIRST_COMPLETED)
        last = b""
        if telling.done():
            with contextlib.suppress(WaitOver):
                telling.result()
            last = again if isinstance(telling.exception(), WaitOver) else b""
        await send({"type": "http.response.body", "body": last})
    finally:
        for task in (left, telling):
            task.cancel()


async def _hold(follower: Follower, polls: Polls, send: Any) -> None:
    await polls.hold(_tell(follower, send))


async def _tell(follower: Follower, send: Any) -> None:
    loop = asyncio.get_running_loop()
    spoke = loop.time()
    async for piece in follower.told():
        now = loop.time()
        if not piece and now - spoke < HEARTBEAT_S:
            continue
        spoke = now
        await send({"type": "http.response.body", "body": piece or b": still here\n\n", "more_body": True})
