"""Waiting for ends of workloads, told by pub/sub on one channel per workload."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

import hiredis
import redis
import redis.asyncio


class _Channel:
    """Who waits on one channel. ``confirmed``: the store has said that we hear it; False when it was lost instead."""

    def __init__(self) -> None:
        self.waiters: set[asyncio.Future[bool] | Pulse] = set()
        self.confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def tell(self, ended: bool) -> None:
        for future in (*self.waiters, *(() if ended else (self.confirmed,))):
            if not future.done():
                future.set_result(ended)


class Pulse:
    """Hears a channel again and again. Like a future to those who tell it, but never done."""

    def __init__(self) -> None:
        self._beat = asyncio.Event()
        #: The connection is gone: what happens from now on is not heard.
        self.lost = False

    def done(self) -> bool:
        return False

    def set_result(self, told: bool) -> None:
        self.lost = self.lost or not told
        self._beat.set()

    async def wait(self, seconds: float) -> bool:
        """Until something was told since the last wait, or the time is over; whether it was."""
        try:
            async with asyncio.timeout(seconds):
                await self._beat.wait()
        except TimeoutError:
            return False
        self._beat.clear()
        return True


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

    @contextlib.asynccontextmanager
    async def pulse(self, *names: str) -> Any:
        """Subscribed to all of these on entry; yields a `Pulse`. Raises RedisError or OSError."""
        pulse = Pulse()
        try:
            for name in names:
                await self._subscribe(name, pulse)
            yield pulse
        finally:
            for name in names:
                self._unsubscribe(name, pulse)

    async def _subscribe(self, name: str, future: asyncio.Future[bool] | Pulse) -> None:
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

    def _unsubscribe(self, name: str, future: asyncio.Future[bool] | Pulse) -> None:
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
