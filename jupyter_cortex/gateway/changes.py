"""``POST /changes``: what has moved since a caller last looked, as soon as something has.

A caller keeps one position per stream it follows. It sends them, and gets what lies behind them with the new ones: nothing is told twice and nothing
left out, over lost connections and restarts of this gateway, which remembers nobody.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any

import redis
from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from ..store import keys, logs, streams
from ..store.connection import store_errors, text
from ..store.glance import glances
from ..store.records import Records, record_of
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


@dataclass
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


@dataclass
class _Begun:
    """What an answer starts from. ``due``: there is something to tell already."""

    registry: int
    complete: bool
    due: bool
    events: list[_Stream]
    logs: list[_Stream]


class Changes:
    def __init__(self, client: redis.Redis, watch: Watch) -> None:
        self._client, self._watch = client, watch
        self._threads = ThreadPoolExecutor(THREADS, "cortex-changes")

    async def answer(self, asked: ChangesRequest, gone: asyncio.Future[Any]) -> bytes:
        """The answer's JSON, after at most ``asked.wait`` seconds, or empty when ``gone`` is done before. Raises StoreUnavailable."""
        loop = asyncio.get_running_loop()
        begun = await loop.run_in_executor(self._threads, self._begin, asked)
        if asked.wait:
            positions = {stream.key: stream.position for stream in (*begun.events, *begun.logs)}
            moved = begun.due or await self._watch.news(positions, begun.registry, gone, asked.wait)
            if gone.done():
                return b""
            if moved:
                await asyncio.sleep(GATHER_S)
        return await loop.run_in_executor(self._threads, self._gather, asked, begun)

    # Before the wait ---------------------------------------------------------------------------------------------------------------------

    def _begin(self, asked: ChangesRequest) -> _Begun:
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.time()
            pipe.get(keys.REGISTRY_VERSION)
            pipe.smembers(keys.APIS)
            (seconds, _), registry, names = pipe.execute()
        known, version = set(map(text, names)), int(registry or 0)
        begun = _Begun(
            registry=version if asked.registry is None else asked.registry,
            complete=asked.complete,
            due=asked.registry not in (None, version),
            events=[_Stream(api, keys.events(api), position, streams.EVENTS) for api, position in asked.events.items() if api in known],
            logs=[_Stream(api, keys.logs(api), position, logs.BATCHES) for api, position in asked.logs.items() if api in known],
        )
        if not known.issuperset((*asked.events, *asked.logs)):
            begun.complete = begun.due = True
        self._settle((*begun.events, *begun.logs), (seconds + AHEAD_S) * 1000)
        self._read(begun, 1, 1)
        begun.due = begun.due or any(stream.entries or stream.gap for stream in (*begun.events, *begun.logs))
        return begun

    def _settle(self, followed: Iterable[_Stream], latest: int) -> None:
        """Real positions for "from now on", and for those that are no position of this store's."""
        for stream in followed:
            stream.said = not streams.POSITION.fullmatch(stream.position)
            stream.gap = not stream.said and streams.order(stream.position)[0] > latest
        self._to_end([stream for stream in followed if stream.said or stream.gap])

    def _to_end(self, followed: list[_Stream]) -> None:
        ends = streams.ends(self._client, [stream.key for stream in followed])
        for stream in followed:
            stream.position, stream.entries = ends[stream.key], []

    def _read(self, begun: _Begun, events: int, batches: int) -> None:
        """Up to so many entries of each stream."""
        asked = [(followed, count) for followed, count in ((begun.events, events), (begun.logs, batches)) if followed]
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            for followed, count in asked:
                streams.add_news(pipe, {stream.key: stream.position for stream in followed}, count)
            replies = pipe.execute()
        for (followed, _), reply in zip(asked, replies, strict=True):
            news = streams.parse_news(reply)
            for stream in followed:
                stream.entries = news.get(stream.key, [])

    # After it ----------------------------------------------------------------------------------------------------------------------------

    def _gather(self, asked: ChangesRequest, begun: _Begun) -> bytes:
        self._read(begun, EVENTS_AT_ONCE, BATCHES_AT_ONCE)
        moved = [stream for stream in (*begun.events, *begun.logs) if stream.entries]
        lost = streams.cut(self._client, {stream.key: stream.position for stream in moved}, {stream.key: stream.cap for stream in moved})
        for stream in moved:
            stream.gap = stream.gap or stream.key in lost
        # Who has lost entries loads anew: the rest of them is of no use to him, so he goes on from the end.
        self._to_end([stream for stream in moved if stream.key in lost])
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.get(keys.REGISTRY_VERSION)
            pipe.smembers(keys.APIS)
            registry, names = pipe.execute()
        version = int(registry or 0)
        complete = begun.complete or version != begun.registry
        shown = sorted(map(text, names)) if complete else [stream.api for stream in begun.events if stream.entries or stream.gap]
        answer = {
            "summaries": [summary(glance) for glance in glances(self._client, shown)],
            "complete": complete,
            "registry": version,
            "changes": self._changes([stream for stream in begun.events if stream.entries or stream.gap or stream.said], asked.limit),
            "logs": {stream.api: _log(stream) for stream in begun.logs if stream.entries or stream.gap or stream.said},
        }
        return json.dumps(answer).encode()

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


def _log(stream: _Stream) -> dict[str, Any]:
    lines = [line for _, fields in stream.entries for line in logs.lines_of(fields)]
    return {"position": stream.end, "records": [logs.record(line) for line in lines], "gap": stream.gap}


def add_changes_route(router: APIRouter, changes: Changes) -> None:
    @router.post("/changes")
    async def post_changes(request: Request, asked: ChangesRequest) -> Response:
        gone = asyncio.ensure_future(_gone(request))
        try:
            return Response(await changes.answer(asked, gone), media_type="application/json")
        finally:
            gone.cancel()


async def _gone(request: Request) -> None:
    """Until the caller closes the connection; his body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
