"""One connection to the store on the event loop, for the gateway's hot calls.

Requests that arrive together leave in one packet: what gathered during one turn of the event loop is written at once, and replies are matched in
order. That is the difference between one round trip per request and one per batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import hiredis
import redis
import redis.asyncio

from ..store.connection import is_temporary
from ..store.scripts import CANCEL, FOLLOW, PIECE, SUBMIT, SWEEP

#: A command's last argument that is larger goes out as it is: packing 10 MB in pieces took 11 ms, a fifth of what the gateway does for them.
COPIED_BYTES = 64 * 1024


_RUN = re.compile(rb"run_id:(\w+)")
#: A number that no connection has: who may ask to end that one may end others.
NOBODY = (1 << 63) - 1

_Value = TypeVar("_Value")
#: Hears the replies to commands that were sent together, or the error that came in their place.
Tell = Callable[[list[Any], BaseException | None], object]


class Packed(NamedTuple):
    """Commands as they go out, and how many they are."""

    data: bytes
    replies: int


Command = tuple[Any, ...] | Packed


def _packed(command: tuple[Any, ...]) -> list[bytes]:
    last = command[-1]
    if not isinstance(last, bytes) or len(last) <= COPIED_BYTES:
        return [hiredis.pack_command(command)]
    head = hiredis.pack_command((*command[:-1], b"")).removesuffix(b"$0\r\n\r\n")
    return [head + b"$%d\r\n" % len(last), last, b"\r\n"]


def fulfil(future: asyncio.Future[_Value], value: _Value, error: BaseException | None) -> None:
    """Who waits is told what came, or the error in its place."""
    if future.done():  # whoever asked has gone
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


class Line:
    """One pipelined connection. It connects when first used, and again when it was lost.

    ``patience``: seconds without a reply after which it counts as lost (a stopped server accepts and never answers). One timer watches all calls: a
    timeout object for each would be 7 % of what a request costs. ``ahead``: bytes that the kernel may hold on their way to a store on this machine;
    0 = as many as it thinks fit.
    """

    def __init__(self, url: str, patience: float, ahead: int = 0) -> None:
        self._url, self._ahead = url, ahead
        self._writer: asyncio.StreamWriter | None = None
        self._patience = patience
        #: Who is told the replies, how many they are, and when they were asked for.
        self._waiting: deque[tuple[Tell, int, float]] = deque()
        self._watching = False
        self._outgoing: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._replies: list[Any] = []
        self._epochs, self._sole = 0, False
        self._server: tuple[int, bytes] = (0, b"")  # what the server calls this connection, and which run of the server does
        #: Whether what an earlier connection was sent may still be run, since nobody could end that one.
        self.haunted = False

    @property
    def epoch(self) -> int:
        """The number of this connection; 0 while there is none, and where nobody could end it once it is lost."""
        return self._epochs if self._writer is not None and self._sole and not self.haunted else 0

    def at_once(self, epoch: int, command: Command) -> asyncio.Future[list[Any]] | None:
        """Send a command once, on that very connection, behind what it was sent before; None when it is another one by now."""
        if not epoch or epoch != self.epoch:
            return None
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.send(partial(fulfil, future), command)
        return future

    async def call(self, *commands: Command) -> list[Any]:
        """Send commands together; their replies in order. Raises ConnectionError, or redis.ResponseError for an error reply."""
        if self._writer is None:
            await self._connect()
            if self._writer is None:  # lost before we were woken: nothing may wait here that was not sent
                raise ConnectionResetError("the store closed the connection")
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.send(partial(fulfil, future), *commands)
        return await future

    @property
    def connected(self) -> bool:
        return self._writer is not None

    def send(self, tell: Tell, *commands: Command) -> None:
        """Like `call`, on a line that is connected, for who does not wait: ``tell`` hears the replies, or the error, exactly once."""
        loop = asyncio.get_running_loop()
        if not self._outgoing:
            loop.call_soon(self._flush)
        replies = 0
        for command in commands:
            if type(command) is Packed:
                self._outgoing.append(command.data)
                replies += command.replies
            else:
                self._outgoing += _packed(command)
                replies += 1
        self._waiting.append((tell, replies, loop.time()))
        if not self._watching:
            self._watching = True
            loop.call_later(self._patience / 4, self._watch)

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
                if any(len(part) > COPIED_BYTES for part in outgoing):
                    self._writer.writelines(outgoing)
                else:
                    self._writer.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))
            except RuntimeError:  # uvloop's word for a connection that was closed a moment ago
                self.reset(ConnectionResetError("the store closed the connection"))

    async def _connect(self) -> None:
        """One attempt for all who wait: with a store that accepts and never answers, the tenth would else wait for ten of them."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._attempt())
            self._connecting.add_done_callback(self._attempted)
        await asyncio.shield(self._connecting)

    def _attempted(self, attempt: asyncio.Task[None]) -> None:
        self._connecting = None
        if not attempt.cancelled():
            attempt.exception()  # seen, also when everybody who waited has gone

    async def _attempt(self) -> None:
        wait = max(self._patience, 0.5)
        pool = redis.asyncio.ConnectionPool.from_url(self._url, socket_connect_timeout=wait, socket_timeout=wait, protocol=2)
        connection = pool.make_connection()
        try:
            await connection.connect()
            await self._end_predecessor(connection)
            for script in (SUBMIT, PIECE, CANCEL, FOLLOW, SWEEP):
                await connection.send_command("SCRIPT LOAD", script.source)
                await connection.read_response()
        except BaseException:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)
            raise
        if self._waiting or self._outgoing:  # replies are matched in order: who waits from before would be given another's
            self._drop(ConnectionResetError("the store closed the connection"))
        # From here on packing and parsing are ours; the streams are redis-py's, with TLS and all.
        self._connection = connection
        self._epochs += 1
        self._replies = []
        self._reading = asyncio.create_task(self._read(connection._reader, hiredis.Reader()))  # type: ignore[attr-defined]
        self._writer = connection._writer  # type: ignore[attr-defined]
        self._let_ahead(self._writer.get_extra_info("socket"))

    def _let_ahead(self, sock: socket.socket) -> None:
        """Of a unix socket only: a size that is set ends TCP's own search for one."""
        if self._ahead and sock.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):  # more than this system allows: it stays as it is
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._ahead)

    async def _end_predecessor(self, connection: Any) -> None:
        """What the connection before this one was sent, and a stalled server has not run yet, is not run any more."""
        (number, run), self._sole = self._server, False
        said = [await _asked(connection, "CLIENT", "ID"), await _asked(connection, "INFO", "server")]
        found = _RUN.search(said[1]) if isinstance(said[1], bytes) else None
        if not isinstance(said[0], int) or found is None:
            self.haunted = self.haunted or bool(number)
            return
        # Another run of the server gives the numbers anew, and has nothing of what the one before was sent.
        before = number if found[1] == run else 0
        ended = isinstance(await _asked(connection, "CLIENT", "KILL", "ID", str(before or NOBODY)), int)
        self.haunted = self.haunted or bool(before and not ended)
        self._server, self._sole = (said[0], found[1]), ended

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
        tell, needed, _ = self._waiting[0]
        self._replies.append(reply)
        if len(self._replies) == needed:
            self._waiting.popleft()
            replies, self._replies = self._replies, []
            for reply in replies:
                if isinstance(reply, hiredis.ReplyError):
                    tell([], redis.ResponseError(str(reply)))
                    break
            else:
                tell(replies, None)

    def _drop(self, error: BaseException) -> None:
        """The connection is gone: everybody who waits learns it and may try again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()
        waiting, self._waiting = self._waiting, deque()
        self._outgoing = []
        for tell, _, _ in waiting:
            tell([], error if isinstance(error, TimeoutError) else ConnectionResetError(str(error)))

    def reset(self, error: BaseException) -> None:
        """Give up this connection; the next call makes a new one."""
        # The reader must not drop the connection that comes after this one.
        reading, self._reading = self._reading, None
        self._drop(error)
        if reading is not None:
            reading.cancel()

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._reading


async def _asked(connection: Any, *command: str) -> Any:
    """The reply, None where this user may not ask. Raises redis.ResponseError for what passes (a script that holds the store)."""
    await connection.send_command(*command)
    try:
        return await connection.read_response()
    except redis.ResponseError as error:
        if is_temporary(error):
            raise
        return None
