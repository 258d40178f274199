"""The gateway's two hot calls, submit and get, and the waiting for an end.

Submits that arrive together share one script. Large payloads travel on a connection of their own and in pieces, so that nobody waits behind 10 MB.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from ..core.errors import StoreUnavailable
from ..core.workload import FINAL
from ..store import keys
from ..store.connection import explain, is_temporary
from ..store.records import PLACES
from ..store.scripts import CANCEL, FOLLOW, SUBMIT, SWEEP
from .digest import PayloadDigest
from .ends import Ends
from .line import Command, Line, Packed, fulfil
from .sweeping import SWEPT_AT_ONCE
from .upload import AHEAD_BYTES, PIECE_BYTES, Upload

#: Bodies above this take the other connection.
BULK_BYTES = 64 * 1024
#: Submits that share a script: more would keep the store from everybody else for longer than 3 ms.
TOGETHER = 128
#: What the store keeps of a workload beside its body, about.
RECORD_BYTES = 1000
#: What an allocator may make of a body: jemalloc rounds up by as much as a quarter.
ROUNDED_UP = 1.25
#: Seconds between two attempts while the store is away.
RETRY_S = 0.05


@dataclass(slots=True)
class Found:
    """What GET needs of a workload: status, error JSON, result JSON, finish time in ms."""

    status: str
    error: bytes | None
    result: bytes | None
    finished: int | None
    progress: bytes | None = None
    due: bytes | None = None

    @property
    def overdue(self) -> bool:
        """Whether it has waited for longer than its queue timeout, and nobody has said so yet."""
        return self.due is not None and self.status == "in_queue" and int(self.due) <= time.time() * 1000


#: What a look at a workload asks the store, packed: with hiredis that took three times as long, 5 % of a GET.
_LOOK = (
    b"*7\r\n$5\r\nHMGET\r\n$%d\r\n%b\r\n$6\r\nstatus\r\n$5\r\nerror\r\n$8\r\nfinished\r\n$8\r\nprogress\r\n$3\r\ndue\r\n"
    b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"
)


def _looks(api: str, request_id: str) -> Packed:
    record, result = keys.record(api, request_id).encode(), keys.result(api, request_id).encode()
    return Packed(_LOOK % (len(record), record, len(result), result), 2)


def _found(replies: list[Any]) -> Found | None:
    (status, error, finished, progress, due), result = replies
    if status is None:
        return None
    return Found(status.decode(), error, result, int(finished) if finished else None, progress, due)


def _is_over(found: Found | None) -> bool:
    """Whether nothing more will come."""
    return found is None or found.status in FINAL


def _heed(look: asyncio.Task[Any]) -> None:
    """Its error is that of the look after it, too: where nobody asks for it, nobody need know."""
    if not look.cancelled():
        look.exception()


#: Hears the outcome of a submit (see `Intake.submit`), or the error that came in its place.
Told = Callable[[str, BaseException | None], object]
#: Who hears it, and the script's arguments for one workload.
_Submit = tuple[Told, tuple[Any, ...]]


#: Queue timeout and timeout of a workload in ms, 0 = none; empty for one that has neither.
Limits = tuple[()] | tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sight:
    """What one who follows a workload sees of it. ``place``: how many wait in front of it, -1 = more than PLACES. Times are ms."""

    status: str
    error: bytes | None
    started: int | None
    finished: int | None
    attempts: int
    run: int
    progress: bytes | None
    accepted: int
    place: int


class Intake:
    """``store_wait``: seconds a call rides out an absence of the store before it raises StoreUnavailable. ``max_queued``: workloads that one API's
    queue may hold. ``watermark``: the share of the store's memory above which nothing more is accepted; what lies above is for results."""

    def __init__(self, url: str, store_wait: float, max_queued: int, watermark: float) -> None:
        patience = max(store_wait, 0.05)
        self._quick, self._bulk = Line(url, patience), Line(url, patience, ahead=AHEAD_BYTES)
        self._store_wait = store_wait
        self._ends = Ends(url, max(store_wait, 0.5))
        self._gathering: dict[tuple[str, Limits], list[_Submit]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self.max_queued, self.watermark = max_queued, watermark
        #: Bytes below the watermark, by the last `measure` less what was accepted since.
        self._room = float("inf")

    async def close(self) -> None:
        await self._quick.close()
        await self._bulk.close()
        await self._ends.close()

    async def _patiently(self, line: Line, *commands: Command) -> list[Any]:
        """Every command here may be repeated: a submit knows its id, the others only read or end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._store_wait
        while True:
            try:
                return await line.call(*commands)
            except (redis.RedisError, OSError) as error:
                if isinstance(error, redis.ResponseError) and not is_temporary(error):
                    raise
                if str(error).startswith("NOSCRIPT"):
                    line.reset(ConnectionResetError("the scripts are gone"))
                if loop.time() + RETRY_S >= deadline:
                    raise StoreUnavailable(
                        f"{explain(error)}; try again (with an x-request-id of your own it is accepted only once)", retry_after=1
                    ) from error
                await asyncio.sleep(RETRY_S)

    async def submit(self, api: str, request_id: str, content_type: str, body: bytes, limits: Limits = ()) -> str:
        """Accept one workload, or nothing of it: "ok", "same" (already accepted), "conflict", "not_live", "unknown", "queue_full", "store_full"."""
        if len(body) > PIECE_BYTES:
            return await self._submit_in_pieces(api, request_id, content_type, body, limits)
        digest, kind = str(PayloadDigest(body)), content_type.encode("latin-1")
        if not self._fits(len(body)):
            return await self._known(api, request_id, kind, digest)
        arguments = (request_id, kind, digest, len(body), body)
        if len(body) > BULK_BYTES:
            return (await self._accept(self._bulk, api, arguments, limits=limits))[0]
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._gather((api, limits), partial(fulfil, outcome), arguments)
        return await outcome

    def submit_soon(self, told: Told, api: str, request_id: str, content_type: str, body: bytes) -> bool:
        """Like `submit`, for who does not wait. Whether it can be done so: else nothing was sent, and ``told`` hears nothing."""
        if len(body) > BULK_BYTES or not self._fits(len(body)):
            return False
        self._gather((api, ()), told, (request_id, content_type.encode("latin-1"), str(PayloadDigest(body)), len(body), body))
        return True

    def _gather(self, key: tuple[str, Limits], told: Told, arguments: tuple[Any, ...]) -> None:
        gathered = self._gathering.get(key)
        if gathered is None or len(gathered) >= TOGETHER:
            gathered = self._gathering[key] = []
            asyncio.get_running_loop().call_soon(self._send, key, gathered)
        gathered.append((told, arguments))

    def upload(self, api: str, request_id: str) -> Upload | None:
        """For a body that goes to the store while it comes in; None when the store has no room for it."""

        async def call(command: tuple[Any, ...]) -> Any:
            (reply,) = await self._patiently(self._bulk, command)
            return reply

        return Upload(call, api, request_id, self._bulk) if self._room > PIECE_BYTES else None

    async def submit_upload(self, content_type: str, upload: Upload, limits: Limits = ()) -> str:
        """Like `submit`, of what was added to ``upload``. Raises StoreUnavailable also when the store has lost parts of it since."""
        await upload.settle()
        kind = content_type.encode("latin-1")
        if not self._fits(upload.size):
            await upload.abandon()
            return await self._known(upload.api, upload.request_id, kind, upload.digest)
        arguments = (upload.request_id, kind, upload.digest, -upload.size, upload.token)
        (word,) = await self._accept(self._bulk, upload.api, arguments, limits=limits)
        if word == "again":
            raise upload.lost()
        return word

    async def _submit_in_pieces(self, api: str, request_id: str, content_type: str, body: bytes, limits: Limits) -> str:
        upload = self.upload(api, request_id)
        if upload is None:
            digest = str(PayloadDigest(body))
            return await self._known(api, request_id, content_type.encode("latin-1"), digest)
        try:
            while upload.size < len(body):
                await upload.add(body[upload.size : upload.size + upload.wanted])
            return await self.submit_upload(content_type, upload, limits)
        except BaseException:
            await upload.abandon()
            raise

    def _fits(self, size: int) -> bool:
        """Whether the store has room for a body of this size; what is left counts with it."""
        left = self._room - size * ROUNDED_UP - RECORD_BYTES
        if left >= 0:
            self._room = left
        return left >= 0

    def _send(self, key: tuple[str, Limits], gathered: list[_Submit]) -> None:
        """What came in during one turn of the event loop is accepted by one script: per workload that costs the store a third."""
        if self._gathering.get(key) is gathered:
            del self._gathering[key]
        sending = asyncio.get_running_loop().create_task(self._settle(*key, gathered))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _settle(self, api: str, limits: Limits, gathered: list[_Submit]) -> None:
        try:
            words = await self._accept(self._quick, api, *(arguments for _, arguments in gathered), limits=limits)
        except Exception as error:
            for told, _ in gathered:
                told("", error)
            return
        for (told, _), word in zip(gathered, words, strict=True):
            told(word, None)

    async def _accept(self, line: Line, api: str, *workloads: tuple[Any, ...], limits: Limits = ()) -> list[str]:
        command = ("EVALSHA", SUBMIT.sha, 1, keys.prefix(api), *(part for arguments in workloads for part in arguments), self.max_queued, *limits)
        said: bytes = (await self._patiently(line, command))[0]
        return said.decode().split(" ")

    async def _known(self, api: str, request_id: str, kind: bytes, digest: str) -> str:
        """The outcome of a submit that does not fit: what was accepted before is told again."""
        (record,) = await self._patiently(self._quick, ("HMGET", keys.record(api, request_id), "digest", "type"))
        if record[0] is None:
            return "store_full"
        return "same" if (record[0].decode(), record[1]) == (digest, kind) else "conflict"

    async def measure(self) -> None:
        """Look at the store's memory. Raises what a call raises."""
        (said,) = await self._quick.call(("INFO", "memory"))
        facts = dict(line.split(b":", 1) for line in said.split(b"\r\n") if b":" in line)
        # Without a `maxmemory` it is the machine's that ends. Buffers of the append-only file count for neither.
        most = int(facts[b"maxmemory"]) or int(facts[b"total_system_memory"])
        used = int(facts[b"used_memory"]) - int(facts.get(b"mem_not_counted_for_evict", 0))
        self._room = self.watermark * most - used

    async def get(self, api: str, request_id: str) -> Found | None:
        return _found(await self._patiently(self._quick, _looks(api, request_id)))

    def get_soon(self, told: Callable[[Found | None], object], api: str, request_id: str) -> bool:
        """Like `get`, for who does not wait; None also stands for a store that does not answer. Whether it can be: else nothing is heard."""
        if not self._quick.connected:
            return False
        self._quick.send(lambda replies, error: told(None if error else _found(replies)), _looks(api, request_id))
        return True

    async def wait(self, api: str, request_id: str, seconds: float) -> Found | None:
        """Like get, but not before the workload has ended or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        # One look while the subscription is on its way: a quick workload has ended by then, and its caller need not wait for another.
        early: asyncio.Task[Found | None] | None
        early = loop.create_task(self.get(api, request_id))
        early.add_done_callback(_heed)
        while True:
            try:
                async with self._ends.of(keys.done_channel(api, request_id)) as ended:
                    if early is not None:
                        found, early = await early, None
                        if _is_over(found):
                            return found
                    # That may have been before anything was heard here.
                    found = await self.get(api, request_id)
                    if _is_over(found):
                        return found
                    async with asyncio.timeout_at(deadline):
                        told = await ended
                    if told:
                        return await self.get(api, request_id)
            except (redis.RedisError, OSError):
                pass
            if loop.time() >= deadline:
                return await self.get(api, request_id)
            # The channel is gone with the store: whoever waits waits on, on the next one.
            await asyncio.sleep(RETRY_S)

    async def see(self, api: str, request_id: str) -> Sight | None:
        """What a follower sees now. From the first look on, it is told of the workload's start on `keys.news_channel`."""
        (raw,) = await self._patiently(self._quick, ("EVALSHA", FOLLOW.sha, 1, keys.prefix(api), request_id, PLACES))
        if raw[0] is None:
            return None
        status, error, started, finished, attempts, run, progress, accepted, place = raw
        numbers = (int(attempts or 0), int(run or 1), progress, int(accepted or 0), int(place))
        return Sight(status.decode(), error, int(started) if started else None, int(finished) if finished else None, *numbers)

    async def sweep(self, api: str, ttl: int, retain: str, retain_max: int) -> None:
        """Fail what has waited for too long."""
        await self._patiently(self._quick, ("EVALSHA", SWEEP.sha, 1, keys.prefix(api), ttl, retain, retain_max, SWEPT_AT_ONCE))

    async def partial(self, api: str, request_id: str) -> bytes | None:
        """The partial result that its handler has told last."""
        (raw,) = await self._patiently(self._quick, ("GET", keys.partial(api, request_id)))
        return raw if raw is None else bytes(raw)

    def hear(self, api: str, request_id: str) -> Any:
        """A context in which all that moves one workload is heard: yields a `Pulse`. Raises RedisError or OSError."""
        return self._ends.pulse(keys.news_channel(api, request_id), keys.done_channel(api, request_id))

    async def cancel(self, api: str, request_id: str, ttl: int, keep_payload: str) -> str:
        """ "cancelled", the final status it already had, or "unknown"."""
        return (await self._patiently(self._quick, ("EVALSHA", CANCEL.sha, 1, keys.prefix(api), request_id, ttl, keep_payload)))[0].decode()
