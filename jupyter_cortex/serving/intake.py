"""The gateway's two hot calls, submit and get, and the waiting for an end.

Requests that arrive together leave in one packet: what gathered during one turn of the event loop is written at once, and replies are matched in
order.
That is the difference between one Redis round trip per request and one per batch. Large payloads travel on a connection of their own, so that nobody
waits behind 10 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from dataclasses import dataclass
from typing import Any

import hiredis
import redis
import redis.asyncio

from ..core.errors import StoreUnavailable
from ..store import keys
from ..store.connection import explain, is_temporary
from ..store.scripts import CANCEL, SUBMIT

#: Bodies above this take the other connection.
BULK_BYTES = 64 * 1024
#: Submits that share a script: more would keep the store from everybody else for longer than 3 ms.
TOGETHER = 128
#: Seconds between two attempts while the store is away.
RETRY_S = 0.05


class Line:
    """One pipelined connection. It connects when first used, and again when it was lost.

    ``patience``: seconds without a reply after which it counts as lost (a stopped server accepts and never answers). One timer watches all calls: a
    timeout object for each would be 7 % of what a request costs.
    """

    def __init__(self, url: str, patience: float) -> None:
        self._url = url
        self._writer: asyncio.StreamWriter | None = None
        self._patience = patience
        #: Future of the replies, how many they are, and when they were asked for.
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._watching = False
        self._outgoing: list[bytes] = []
        self._connecting: asyncio.Lock | None = None
        self._reading: asyncio.Task[None] | None = None
        self._replies: list[Any] = []

    async def call(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands together; their replies in order. Raises ConnectionError, or redis.ResponseError for an error reply."""
        if self._writer is None:
            await self._connect()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        if not self._outgoing:
            loop.call_soon(self._flush)
        for command in commands:
            self._outgoing.append(hiredis.pack_command(command))
        self._waiting.append((future, len(commands), loop.time()))
        if not self._watching:
            self._watching = True
            loop.call_later(self._patience / 4, self._watch)
        replies = await future
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise redis.ResponseError(str(reply))
        return replies

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._watching = bool(self._waiting)
        if not self._waiting:
            return
        if loop.time() - self._waiting[0][2] >= self._patience:
            self.reset(TimeoutError("the store has not answered"))
        loop.call_later(self._patience / 4, self._watch)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._writer is not None:
            self._writer.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))

    async def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._writer is not None:
                return
            wait = max(self._patience, 0.5)
            pool = redis.asyncio.ConnectionPool.from_url(self._url, socket_connect_timeout=wait, socket_timeout=wait, protocol=2)
            connection = pool.make_connection()
            try:
                await connection.connect()
                for script in (SUBMIT, CANCEL):
                    await connection.send_command("SCRIPT LOAD", script.source)
                    await connection.read_response()
            except BaseException:
                with contextlib.suppress(Exception):
                    await connection.disconnect(nowait=True)
                raise
            # From here on packing and parsing are ours; the streams are redis-py's, with TLS and all.
            self._connection = connection
            self._replies = []
            self._reading = asyncio.create_task(self._read(connection._reader, hiredis.Reader()))  # type: ignore[attr-defined]
            self._writer = connection._writer  # type: ignore[attr-defined]

    async def _read(self, reader: asyncio.StreamReader, parser: hiredis.Reader) -> None:
        error: BaseException = ConnectionResetError("the store closed the connection")
        try:
            while data := await reader.read(1 << 18):
                parser.feed(data)
                while (reply := parser.gets()) is not False:
                    self._replied(reply)
        except (OSError, hiredis.HiredisError) as caught:
            error = caught
        finally:
            if self._reading is asyncio.current_task():
                self._drop(error)

    def _replied(self, reply: Any) -> None:
        future, needed, _ = self._waiting[0]
        self._replies.append(reply)
        if len(self._replies) == needed:
            self._waiting.popleft()
            replies, self._replies = self._replies, []
            if not future.done():
                future.set_result(replies)

    def _drop(self, error: BaseException) -> None:
        """The connection is gone: everybody who waits learns it and may try again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()
        waiting, self._waiting = self._waiting, deque()
        self._outgoing = []
        for future, _, _ in waiting:
            if not future.done():
                future.set_exception(error if isinstance(error, TimeoutError) else ConnectionResetError(str(error)))

    def reset(self, error: BaseException) -> None:
        """Give up this connection; the next call makes a new one."""
        # The reader must not drop the connection that comes after this one.
        reading, self._reading = self._reading, None
        self._drop(error)
        if reading is not None:
            reading.cancel()

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._reading


@dataclass(slots=True)
class Found:
    """What GET needs of a workload: status, error JSON, result JSON, finish time in ms."""

    status: str
    error: bytes | None
    result: bytes | None
    finished: int | None


#: Where its outcome is awaited, and the script's arguments for one workload.
_Submit = tuple[asyncio.Future[str], tuple[Any, ...]]


class Intake:
    """``store_wait``: seconds a call rides out an absence of the store before it raises StoreUnavailable."""

    def __init__(self, url: str, store_wait: float) -> None:
        patience = max(store_wait, 0.05)
        self._quick, self._bulk = Line(url, patience), Line(url, patience)
        self._store_wait = store_wait
        self._ends = Ends(url)
        self._gathering: dict[str, list[_Submit]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await self._quick.close()
        await self._bulk.close()
        await self._ends.close()

    async def _patiently(self, line: Line, *commands: tuple[Any, ...]) -> list[Any]:
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

    async def submit(self, api: str, request_id: str, content_type: str, body: bytes) -> str:
        """Accept one workload, or nothing of it: "ok", "same" (already accepted), "conflict", "not_live" or "unknown"."""
        digest = hashlib.sha256(body).hexdigest()[:32]
        arguments = (request_id, content_type.encode("latin-1"), digest, len(body), body)
        if len(body) > BULK_BYTES:
            return (await self._accept(self._bulk, api, arguments))[0]
        loop = asyncio.get_running_loop()
        gathered = self._gathering.get(api)
        if gathered is None or len(gathered) >= TOGETHER:
            gathered = self._gathering[api] = []
            loop.call_soon(self._send, api, gathered)
        outcome: asyncio.Future[str] = loop.create_future()
        gathered.append((outcome, arguments))
        return await outcome

    def _send(self, api: str, gathered: list[_Submit]) -> None:
        """What came in during one turn of the event loop is accepted by one script: per workload that costs the store a third."""
        if self._gathering.get(api) is gathered:
            del self._gathering[api]
        sending = asyncio.get_running_loop().create_task(self._settle(api, gathered))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _settle(self, api: str, gathered: list[_Submit]) -> None:
        try:
            words = await self._accept(self._quick, api, *(arguments for _, arguments in gathered))
        except Exception as error:
            for outcome, _ in gathered:
                if not outcome.done():
                    outcome.set_exception(error)
            return
        for (outcome, _), word in zip(gathered, words, strict=True):
            if not outcome.done():
                outcome.set_result(word)

    async def _accept(self, line: Line, api: str, *workloads: tuple[Any, ...]) -> list[str]:
        command = ("EVALSHA", SUBMIT.sha, 1, keys.prefix(api), *(part for arguments in workloads for part in arguments))
        said: bytes = (await self._patiently(line, command))[0]
        return said.decode().split(" ")

    async def get(self, api: str, request_id: str) -> Found | None:
        record, result = await self._patiently(
            self._quick,
            ("HMGET", keys.record(api, request_id), "status", "error", "finished"),
            ("GET", keys.result(api, request_id)),
        )
        if record[0] is None:
            return None
        return Found(record[0].decode(), record[1], result, int(record[2]) if record[2] else None)

    async def wait(self, api: str, request_id: str, seconds: float) -> Found | None:
        """Like get, but not before the workload has ended or the time is over."""
        try:
            async with self._ends.of(keys.done_channel(api, request_id)) as ended:
                found = await self.get(api, request_id)
                if found is None or found.status in ("completed", "failed", "cancelled"):
                    return found
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await ended
        except (redis.RedisError, OSError):
            pass  # the channel is gone with the store; the get below says what is
        return await self.get(api, request_id)

    async def cancel(self, api: str, request_id: str, ttl: int, keep_payload: bool) -> str:
        """ "cancelled", the final status it already had, or "unknown"."""
        return (await self._patiently(self._quick, ("EVALSHA", CANCEL.sha, 1, keys.prefix(api), request_id, ttl, int(keep_payload))))[0].decode()


class Ends:
    """Ends of workloads, told by pub/sub on one channel per workload: exactly what is waited for, and nothing else, comes in."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pubsub: Any = None
        self._reading: asyncio.Task[None] | None = None
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def of(self, channel: str) -> Any:
        """Subscribed on entry; yields a future that is done when the workload ends."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._subscribe(channel, future)
        try:
            yield future
        finally:
            await self._unsubscribe(channel, future)

    async def _subscribe(self, channel: str, future: asyncio.Future[None]) -> None:
        async with self._lock:
            if self._pubsub is None:
                client = redis.asyncio.Redis.from_url(self._url, socket_connect_timeout=2.0, socket_timeout=None, protocol=2)
                self._pubsub = client.pubsub()
                await self._pubsub.subscribe("cx:nothing")
                self._reading = asyncio.create_task(self._read(self._pubsub, client))
            first = channel not in self._waiters
            self._waiters.setdefault(channel, set()).add(future)
            if first:
                # Confirmed before the caller reads the record: an end after that read cannot be missed.
                confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiters.setdefault(f"+{channel}", set()).add(confirmed)
                await self._pubsub.subscribe(channel)
                await confirmed

    async def _unsubscribe(self, channel: str, future: asyncio.Future[None]) -> None:
        async with self._lock:
            waiters = self._waiters.get(channel, set())
            waiters.discard(future)
            if not waiters and channel in self._waiters:
                del self._waiters[channel]
                if self._pubsub is not None:
                    with contextlib.suppress(redis.RedisError, OSError):
                        await self._pubsub.unsubscribe(channel)

    async def _read(self, pubsub: Any, client: Any) -> None:
        try:
            while True:
                message = await pubsub.get_message(timeout=None)
                if message is None:
                    continue
                channel = message["channel"].decode()
                if message["type"] == "subscribe":
                    self._tell(f"+{channel}", forget=True)
                elif message["type"] == "message":
                    self._tell(channel)
        except (redis.RedisError, OSError, asyncio.CancelledError):
            pass
        finally:
            # Whoever waits looks for himself; the next wait subscribes anew.
            self._pubsub = None
            for name in list(self._waiters):
                self._tell(name, forget=True)
            with contextlib.suppress(Exception):
                await client.aclose()

    def _tell(self, name: str, *, forget: bool = False) -> None:
        for future in self._waiters.get(name, ()):
            if not future.done():
                future.set_result(None)
        if forget:
            self._waiters.pop(name, None)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._reading
