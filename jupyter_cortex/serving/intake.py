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
from ..store.scripts import CANCEL, PIECE, SUBMIT

#: Bodies above this take the other connection.
BULK_BYTES = 64 * 1024
#: A larger body goes to the store in pieces. The store syncs each to disk before it does anything else; at 70 MB/s this one takes 4 ms.
PIECE_BYTES = 256 * 1024
#: A digest of more than this is made on another thread: it takes 1 ms.
DIGEST_INLINE_BYTES = 1 << 20
#: Submits that share a script: more would keep the store from everybody else for longer than 3 ms.
TOGETHER = 128
#: What the store keeps of a workload beside its body, about.
RECORD_BYTES = 1000
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
            try:
                self._writer.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))
            except RuntimeError:  # uvloop's word for a connection that was closed a moment ago
                self.reset(ConnectionResetError("the store closed the connection"))

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
                for script in (SUBMIT, PIECE, CANCEL):
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


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


#: Where its outcome is awaited, and the script's arguments for one workload.
_Submit = tuple[asyncio.Future[str], tuple[Any, ...]]


class Intake:
    """``store_wait``: seconds a call rides out an absence of the store before it raises StoreUnavailable. ``max_queued``: workloads that one API's
    queue may hold. ``watermark``: the share of the store's memory above which nothing more is accepted; what lies above is for results."""

    def __init__(self, url: str, store_wait: float, max_queued: int, watermark: float) -> None:
        patience = max(store_wait, 0.05)
        self._quick, self._bulk = Line(url, patience), Line(url, patience)
        self._store_wait = store_wait
        self._ends = Ends(url, max(store_wait, 0.5))
        self._gathering: dict[str, list[_Submit]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self.max_queued, self.watermark = max_queued, watermark
        #: Bytes below the watermark, by the last `measure` less what was accepted since.
        self._room = float("inf")

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
        """Accept one workload, or nothing of it: "ok", "same" (already accepted), "conflict", "not_live", "unknown", "queue_full", "store_full"."""
        digest = _digest(body) if len(body) <= DIGEST_INLINE_BYTES else await asyncio.to_thread(_digest, body)
        kind = content_type.encode("latin-1")
        self._room -= len(body) + RECORD_BYTES
        if self._room < 0:
            return await self._known(api, request_id, kind, digest, len(body))
        if len(body) > PIECE_BYTES:
            return await self._submit_in_pieces(api, request_id, kind, digest, body)
        arguments = (request_id, kind, digest, len(body), body)
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

    async def _submit_in_pieces(self, api: str, request_id: str, kind: bytes, digest: str, body: bytes) -> str:
        for _ in range(3):
            at = 0
            while at < len(body):
                piece = body[at : at + PIECE_BYTES]
                (there,) = await self._patiently(self._bulk, ("EVALSHA", PIECE.sha, 1, keys.prefix(api), request_id, digest, at, piece))
                at = int(there)
            (word,) = await self._accept(self._bulk, api, (request_id, kind, digest, len(body), b""))
            if word != "again":
                return word
        raise StoreUnavailable("the store lost parts of the body while it came in; try again", retry_after=1)

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
        command = ("EVALSHA", SUBMIT.sha, 1, keys.prefix(api), *(part for arguments in workloads for part in arguments), self.max_queued)
        said: bytes = (await self._patiently(line, command))[0]
        return said.decode().split(" ")

    async def _known(self, api: str, request_id: str, kind: bytes, digest: str, size: int) -> str:
        """The outcome of a submit that does not fit: what was accepted before is told again."""
        self._room += size + RECORD_BYTES
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
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            try:
                async with self._ends.of(keys.done_channel(api, request_id)) as ended:
                    found = await self.get(api, request_id)
                    if found is None or found.status in ("completed", "failed", "cancelled"):
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

    async def cancel(self, api: str, request_id: str, ttl: int, keep_payload: bool) -> str:
        """ "cancelled", the final status it already had, or "unknown"."""
        return (await self._patiently(self._quick, ("EVALSHA", CANCEL.sha, 1, keys.prefix(api), request_id, ttl, int(keep_payload))))[0].decode()


class _Channel:
    """Who waits on one channel. ``confirmed``: the store has said that we hear it; False when it was lost instead."""

    def __init__(self) -> None:
        self.waiters: set[asyncio.Future[bool]] = set()
        self.confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def tell(self, ended: bool) -> None:
        for future in (*self.waiters, *(() if ended else (self.confirmed,))):
            if not future.done():
                future.set_result(ended)


class Ends:
    """Ends of workloads, told by pub/sub on one channel per workload: exactly what is waited for, and nothing else, comes in.

    On a socket of our own, as `Line`: redis-py's PubSub connects again by itself, unseen and by whoever comes first, reader or writer. An end in
    between was never told. ``patience``: seconds that a subscription may take; after that the connection counts as lost.
    """

    def __init__(self, url: str, patience: float) -> None:
        self._url, self._patience = url, patience
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._channels: dict[str, _Channel] = {}
        #: Subscriptions on their way; their confirmations come in this order.
        self._asked: deque[_Channel] = deque()
        self._connecting = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def of(self, name: str) -> Any:
        """Subscribed on entry; yields a future: True when the workload has ended, False when the channel is lost. Raises RedisError or OSError."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            await self._subscribe(name, future)
            yield future
        finally:
            self._unsubscribe(name, future)

    async def _subscribe(self, name: str, future: asyncio.Future[bool]) -> None:
        writer = self._writer
        try:
            async with asyncio.timeout(self._patience):
                async with self._connecting:
                    if self._writer is None:
                        await self._connect()
                    writer = self._writer
                channel = self._channels.get(name)
                if channel is None:
                    channel = self._channels[name] = _Channel()
                    self._asked.append(channel)
                    self._send("SUBSCRIBE", name)
                channel.waiters.add(future)
                # Confirmed before the caller reads the record: an end after that read cannot be missed.
                if not await asyncio.shield(channel.confirmed):
                    raise ConnectionResetError("the store closed the connection")
        except (redis.RedisError, OSError):
            # One that does not answer: the next caller makes another. Unless somebody has already.
            if self._writer is writer:
                self._drop()
            raise

    def _unsubscribe(self, name: str, future: asyncio.Future[bool]) -> None:
        channel = self._channels.get(name)
        if channel is None or future not in channel.waiters:
            return
        channel.waiters.discard(future)
        if not channel.waiters:
            del self._channels[name]
            with contextlib.suppress(OSError):
                self._send("UNSUBSCRIBE", name)

    def _send(self, *command: str) -> None:
        try:
            assert self._writer is not None
            self._writer.write(hiredis.pack_command(command))  # type: ignore[arg-type]
        except (AssertionError, RuntimeError) as error:  # uvloop says the second of a transport that is closed
            raise ConnectionResetError("the store closed the connection") from error

    async def _connect(self) -> None:
        pool = redis.asyncio.ConnectionPool.from_url(self._url, socket_connect_timeout=self._patience, socket_timeout=self._patience, protocol=2)
        connection = pool.make_connection()
        try:
            await connection.connect()
        except BaseException:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)
            raise
        self._connection = connection
        self._writer = connection._writer  # type: ignore[attr-defined]
        self._reading = asyncio.create_task(self._read(connection._reader, hiredis.Reader()))  # type: ignore[attr-defined]

    async def _read(self, reader: asyncio.StreamReader, parser: hiredis.Reader) -> None:
        try:
            while data := await reader.read(1 << 16):
                parser.feed(data)
                while (reply := parser.gets()) is not False:
                    self._heard(reply)
        except (OSError, hiredis.HiredisError):
            pass
        finally:
            if self._reading is asyncio.current_task():
                self._drop()

    def _heard(self, reply: Any) -> None:
        """Raises ConnectionResetError for an error reply."""
        if isinstance(reply, hiredis.ReplyError):
            raise ConnectionResetError(str(reply))
        kind, name = reply[0], reply[1]
        if kind == b"message" and (channel := self._channels.get(name.decode())):
            channel.tell(True)
        elif kind == b"subscribe":
            channel = self._asked.popleft()
            if not channel.confirmed.done():
                channel.confirmed.set_result(True)

    def _drop(self) -> None:
        """Give up the connection: everybody who waits learns it, and the next one who comes connects anew."""
        writer, self._writer = self._writer, None
        reading, self._reading = self._reading, None
        channels, self._channels, self._asked = self._channels, {}, deque()
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()
        if reading is not None and reading is not asyncio.current_task():
            reading.cancel()
        for channel in channels.values():
            channel.tell(False)

    async def close(self) -> None:
        reading = self._reading
        self._drop()
        if reading is not None:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await reading
