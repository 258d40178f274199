"""``POST /changes``: what has moved since a caller last looked, as soon as something has.

A caller keeps one position per stream it follows. It sends them, and gets what lies behind them with the new ones: nothing is told twice and nothing
left out, over lost connections and restarts of this gateway, which remembers nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

import redis
from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from ..store import keys, logs, streams
from ..store.connection import store_errors, text
from ..store.glance import glances
from ..store.records import Records, record_of
from .polls import AGAIN_S, Polls
from .summary import summary
from .watch import Watch

#: Seconds that a first move waits for company: a burst is one answer.
GATHER_S = 0.05
#: Threads that look and answer, however many callers wait: the other control routes have theirs, and requests the rest of the processor.
THREADS = 4
#: Entries of one answer, per stream; a caller that is behind by more asks again and is answered at once. A batch of log lines has up to 256 kB.
EVENTS_AT_ONCE, BATCHES_AT_ONCE = 1000, 20
#: Seconds that a position may be ahead of the store's clock; one beyond them is another store's.
AHEAD_S = 60


def _position(value: str) -> str:
    if value not in ("", "$") and not streams.POSITION.fullmatch(value):
        raise ValueError('a position is the "seq" or "position" of an earlier answer, or "$" for from now on')
    return value


Positions = Annotated[dict[str, Annotated[str, AfterValidator(_position)]], Field(max_length=2000)]


class ChangesRequest(BaseModel):
    """The body. ``registry``: the number of an earlier answer; without it, changes of the registry count from now on."""

    events: Positions = {}
    logs: Positions = {}
    wait: float = Field(0, ge=0, le=20, allow_inf_nan=False)
    complete: bool = False
    limit: int = Field(500, ge=1, le=1000)
    registry: int | None = None

    def key(self) -> tuple[Any, ...]:
        """Equal for requests with the same answer."""
        return tuple(sorted(self.events.items())), tuple(sorted(self.logs.items())), self.complete, self.limit, self.registry


@dataclass(frozen=True)
class _Stream:
    """One stream that a caller follows. ``said``: it is in the answer whatever happens; ``gap``: entries behind the position are lost."""

    api: str
    key: str
    position: str
    cap: int
    said: bool = False
    gap: bool = False
    entries: streams.Entries = field(default_factory=list)

    @property
    def end(self) -> str:
        return self.entries[-1][0] if self.entries else self.position


@dataclass(frozen=True)
class _Begun:
    """What an answer starts from. ``due``: there is something to tell already."""

    registry: int
    complete: bool
    due: bool
    events: list[_Stream]
    logs: list[_Stream]


@dataclass(frozen=True)
class _Look:
    """The registry's version and names, and the streams with what stands behind their positions."""

    registry: int
    names: set[str]
    events: list[_Stream]
    logs: list[_Stream]


class Changes:
    """Callers that ask for the same at the same time are answered with the same bytes: fifty pages of one environment cost hardly more than one, and
    once answered together they ask together again."""

    def __init__(self, client: redis.Redis, watch: Watch) -> None:
        self._client, self._watch = client, watch
        self._threads = ThreadPoolExecutor(THREADS, "cortex-changes")
        self._under_way: dict[Hashable, asyncio.Future[Any]] = {}

    async def answer(self, asked: ChangesRequest, gone: asyncio.Future[Any]) -> bytes:
        """The answer's JSON, after at most ``asked.wait`` seconds, or empty when ``gone`` is done before. Raises StoreUnavailable."""
        key = asked.key()
        begun: _Begun = await self._together(("begin", *key), partial(self._begin, asked))
        if asked.wait:
            positions = {stream.key: stream.position for stream in (*begun.events, *begun.logs)}
            moved = begun.due or await self._watch.news(positions, begun.registry, gone, asked.wait)
            if gone.done():
                return b""
            if moved:
                await asyncio.sleep(GATHER_S)
        told: bytes = await self._together(("gather", begun.registry, *key), partial(self._gather, asked, begun))
        return told

    async def _together(self, key: Hashable, job: Callable[[], Any]) -> Any:
        """Do it in a thread, once for all who want it now."""
        doing = self._under_way.get(key)
        if doing is None:
            doing = self._under_way[key] = asyncio.get_running_loop().run_in_executor(self._threads, job)
            doing.add_done_callback(lambda _: self._under_way.pop(key))
        return await asyncio.shield(doing)

    # Before the wait ---------------------------------------------------------------------------------------------------------------------

    def _begin(self, asked: ChangesRequest) -> _Begun:
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.time()
            pipe.smembers(keys.APIS)
            (seconds, _), names = pipe.execute()
        known = set(map(text, names))
        latest = (seconds + AHEAD_S) * 1000
        events = [_stream(api, keys.events(api), position, streams.EVENTS, latest) for api, position in asked.events.items() if api in known]
        lines = [_stream(api, keys.logs(api), position, logs.BATCHES, latest) for api, position in asked.logs.items() if api in known]
        unsettled = [stream for stream in (*events, *lines) if stream.said or stream.gap]
        ends = streams.ends(self._client, [stream.key for stream in unsettled])
        events, lines = ([_at_end(stream, ends) for stream in followed] for followed in (events, lines))
        look = self._look(events, lines, 1, 1)
        unknown = not known.issuperset((*asked.events, *asked.logs))
        moved = any(stream.entries or stream.gap for stream in (*look.events, *look.logs))
        return _Begun(
            registry=look.registry if asked.registry is None else asked.registry,
            complete=asked.complete or unknown,
            due=unknown or moved or asked.registry not in (None, look.registry),
            events=events,
            logs=lines,
        )

    def _look(self, events: list[_Stream], lines: list[_Stream], entries: int, batches: int) -> _Look:
        """Up to so many entries of each stream."""
        asked = [(followed, count) for followed, count in ((events, entries), (lines, batches)) if followed]
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.get(keys.REGISTRY_VERSION)
            pipe.smembers(keys.APIS)
            for followed, count in asked:
                streams.add_news(pipe, {stream.key: stream.position for stream in followed}, count)
            registry, names, *replies = pipe.execute()
        news = {name: found for reply in replies for name, found in streams.parse_news(reply).items()}
        behind = ([replace(one, entries=news[one.key]) if one.key in news else one for one in followed] for followed in (events, lines))
        return _Look(int(registry or 0), set(map(text, names)), *behind)

    # After it ----------------------------------------------------------------------------------------------------------------------------

    def _gather(self, asked: ChangesRequest, begun: _Begun) -> bytes:
        look = self._look(begun.events, begun.logs, EVENTS_AT_ONCE, BATCHES_AT_ONCE)
        events, lines = self._without_gaps(look.events), self._without_gaps(look.logs)
        complete = begun.complete or look.registry != begun.registry
        shown = sorted(look.names) if complete else [stream.api for stream in events if stream.entries or stream.gap]
        answer = {
            "summaries": [summary(glance) for glance in glances(self._client, shown)],
            "complete": complete,
            "registry": look.registry,
            "changes": self._changes(events, asked.limit),
            "logs": {stream.api: _log(stream) for stream in lines},
        }
        return json.dumps(answer).encode()

    def _without_gaps(self, followed: list[_Stream]) -> list[_Stream]:
        """Those that there is something to say of. Who has lost entries loads anew: the rest of them is of no use, so it goes on from the end."""
        told = [stream for stream in followed if stream.entries or stream.gap or stream.said]
        moved = [stream for stream in told if stream.entries]
        lost = streams.cut(self._client, {stream.key: stream.position for stream in moved}, {stream.key: stream.cap for stream in moved})
        ends = streams.ends(self._client, lost)
        return [replace(_at_end(stream, ends), gap=stream.gap or stream.key in lost) for stream in told]

    def _changes(self, followed: list[_Stream], limit: int) -> dict[str, Any]:
        told: dict[str, Any] = {}
        ids: dict[str, list[str]] = {}
        for stream in followed:
            counts: dict[str, int] = {}
            last: dict[str, None] = {}
            for _, fields in stream.entries:
                for moved, state in streams.moves(fields):
                    if streams.is_of_workload(state):
                        counts[state] = counts.get(state, 0) + 1
                        last.pop(moved, None)
                        last[moved] = None
            ids[stream.api] = list(reversed(last))[:limit]
            told[stream.api] = {"seq": stream.end, "moves": counts, "more": len(last) - len(ids[stream.api]), "gap": stream.gap}
        for api, raws in Records(self._client).read(ids).items():
            # Not those that have expired or were deleted since.
            told[api]["workloads"] = [record_of(request_id, raws[request_id]).public() for request_id in ids[api] if request_id in raws]
        return told


def _stream(api: str, key: str, position: str, cap: int, latest: int) -> _Stream:
    """Positions beyond ``latest`` (ms) are another store's: what lies behind them there is lost here."""
    said = not streams.POSITION.fullmatch(position)
    return _Stream(api, key, position, cap, said, gap=not said and streams.order(position)[0] > latest)


def _at_end(stream: _Stream, ends: dict[str, str]) -> _Stream:
    return replace(stream, position=ends[stream.key], entries=[]) if stream.key in ends else stream


def _log(stream: _Stream) -> dict[str, Any]:
    found = [(logs.record(line), logs.shipped_at(entry_id)) for entry_id, fields in stream.entries for line in logs.lines_of(fields)]
    times = [logs.written(shown, shipped) for shown, shipped in found]
    return {"position": stream.end, "records": [shown for shown, _ in found], "times": times, "gap": stream.gap}


def add_changes_route(router: APIRouter, changes: Changes, polls: Polls) -> None:
    @router.post("/changes")
    async def post_changes(request: Request, asked: ChangesRequest) -> Response:
        headers = {}
        if asked.wait and polls.full:
            asked = asked.model_copy(update={"wait": 0})
            headers["retry-after"] = str(AGAIN_S)
        gone = asyncio.ensure_future(_gone(request))
        try:
            with polls.one() if asked.wait else contextlib.nullcontext():
                return Response(await changes.answer(asked, gone), headers=headers, media_type="application/json")
        finally:
            gone.cancel()


async def _gone(request: Request) -> None:
    """Until the caller closes the connection; his body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
