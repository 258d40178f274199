"""HTTP connections with limits: heads that are too large, callers that are too slow, too many at once.

uvicorn's protocol on httptools has none of these. What a request costs here is a few attribute writes: nothing is measured per request, and one look
a second at all connections finds those that take too long.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..core.errors import BadRequest, CortexError, HeadTooLarge, RequestTimeout, TooManyConnections, UrlTooLong
from .answers import problem_body, problem_headers, refuse
from .cycle import Cycle
from .express import Express

log = logging.getLogger(__name__)

#: A request's head (its first line and headers), its number of headers, its URL: several times what browsers and proxies send.
HEAD_BYTES, HEADERS, URL_BYTES = 64 * 1024, 100, 8 * 1024
#: A body, and the reading of an answer, may always take the timeout, and as much longer as this many bytes a second need.
BYTES_PER_S = 1024
#: Connections above the cap that are still listened to, so that their caller reads why he is refused; above these they are closed at once.
REFUSED_AT_ONCE = 64
#: Of what comes after the last answer and was no request, so much is read and thrown away; seconds for that, and for the rest of a refused body.
LINGER_HEAD_BYTES, LINGER_S = 1 << 20, 5.0
#: Files of the gateway that are no callers' connections: the store's, pipes, bundles and artifacts on their way.
OTHER_FILES = 256

# What is being read of a connection.
_NOTHING, _HEAD, _BODY = range(3)


@dataclass(frozen=True)
class Limits:
    """``connections``: at once. ``timeout``: seconds for a head, and without progress of a body or an answer."""

    connections: int
    timeout: float


class Doorkeeper:
    """Looks at all connections again and again, as long as there are any. ``now`` is the time of the last look: exact enough, and free to read."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.now = 0.0
        self.interval = min(1.0, limits.timeout / 4)
        self._looking = False

    def enter(self, connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
        """One more connection is there."""
        if not self._looking:
            self._looking = True
            self.now = loop.time()
            loop.call_later(self.interval, self._look, connections, loop)

    def _look(self, connections: set[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.now = loop.time()
        self._looking = bool(connections)
        if not connections:
            return
        loop.call_later(self.interval, self._look, connections, loop)
        for connection in list(connections):
            try:
                connection.look(self.now)
            except Exception:
                log.exception("the look at a connection failed")
                connection.transport.abort()


def protocol(limits: Limits, express: Express | None = None) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn, which makes one instance for each connection. ``express``: the short way past the application."""
    return type("Connection", (Connection,), {"keeper": Doorkeeper(limits), "express": express})


# Called by name: `super()` would cost as much again as what it calls.
_data_received, _on_headers_complete, _on_body = HttpToolsProtocol.data_received, HttpToolsProtocol.on_headers_complete, HttpToolsProtocol.on_body
_on_response_complete, _on_message_complete = HttpToolsProtocol.on_response_complete, HttpToolsProtocol.on_message_complete
_start_asgi_task = HttpToolsProtocol._start_asgi_task


class Connection(HttpToolsProtocol):
    keeper: ClassVar[Doorkeeper]
    express: ClassVar[Express | None]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        #: Bytes that came since the message began, or since the last piece of its body: what the parser, or nobody, holds.
        self._pending = 0
        #: Of the message that has not come to its end: its scope, and since when it is there; bytes of its body.
        self._unfinished: tuple[Any, float] = None, 0.0
        self._body = 0
        self._answered: tuple[Any, float] = self, 0.0
        self._unread: tuple[int, float] | None = None
        self._left: float | None = None
        #: A request of which the end has not come, with its application: until that is known, who answers it is open.
        self._held: tuple[Any, Any] | None = None
        #: Since when nothing has come behind the last answer. uvicorn sets and takes away a timer for that with each request, 3 % of a GET.
        self._idle_since: float | None = None
        self.keeper.enter(self.connections, self.loop)
        if (many := len(self.connections)) > (most := self.keeper.limits.connections):
            error = TooManyConnections(f"this gateway has {most} connections, as many as JUPYTER_CORTEX_MAX_CONNECTIONS says; try again")
            self.app = _refusal(error, [(b"connection", b"close")])
            if many > most + REFUSED_AT_ONCE:
                self._say(error)
                self.transport.close()

    # The parser's callbacks, in the order of a request. Every workload passes here twice, so most of it happens only where a request comes in pieces.

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        self._idle_since = None
        _data_received(self, data)
        if self._held is not None:
            self._start()
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and cycle.scope is self.scope:
            self._pending = 0
        elif self._left is None and not self.transport.is_closing():
            self._note_unfinished()

    def _note_unfinished(self) -> None:
        if self._unfinished[0] is not self.scope:
            self._unfinished = self.scope, self.keeper.now
        if self._pending > HEAD_BYTES:
            self._end(self._head_error() or HeadTooLarge(_TOO_LARGE))

    def on_headers_complete(self) -> None:
        # `_pending` is never less than the head, so most heads need no more than these comparisons.
        error = self._head_error() if self._pending > URL_BYTES or len(self.headers) > HEADERS else None
        if error is None:
            _on_headers_complete(self)
        else:
            self._refuse(error)
        cycle = self.cycle
        # uvicorn makes the cycle itself, and offers no way to say which.
        cycle.__class__, cycle.connection = Cycle, self  # type: ignore[attr-defined]
        self._body = 0

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        self._body += len(body)
        _on_body(self, body)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """uvicorn calls it when the head has come and no request before this one is unanswered."""
        self._held = cycle, app
        if not cycle.more_body:  # it had to wait for its turn
            self._choose()
        elif cycle is not self.cycle:
            self._start()

    def on_message_complete(self) -> None:
        _on_message_complete(self)
        if self._held is not None:
            self._choose()

    def _choose(self) -> None:
        """Answer the request that has come as a whole, on the short way if it may go there."""
        assert self._held is not None
        cycle, app = self._held
        start = partial(self._start_late, cycle, app)
        if self.express is not None and app is self.app and self.express.take(cycle, start):
            self._held = None
        else:
            self._start()

    def _start(self) -> None:
        assert self._held is not None
        (cycle, app), self._held = self._held, None
        _start_asgi_task(self, cycle, app)

    def _start_late(self, cycle: Any, app: Any, other: Any | None) -> None:
        _start_asgi_task(self, cycle, other or app)

    def on_response_complete(self) -> None:
        if self.pipeline or self.flow.read_paused or self.transport.is_closing():
            _on_response_complete(self)
            if self._held is not None:  # the rest of the next request may wait for a word of its application
                self._start()
        else:
            self.server_state.total_requests += 1
            self._idle_since = self.keeper.now

    def _reading(self) -> int:
        """What is being read. A request that was answered before the end of its body counts as unfinished, also when that has come."""
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            return _BODY if cycle.more_body else _NOTHING
        return _NOTHING if self.scope is None else _HEAD

    def is_reading_body(self) -> bool:
        return self._reading() == _BODY

    # Refusals ---------------------------------------------------------------------------------------------------------------------------

    def _head_error(self) -> CortexError | None:
        """What is wrong with the head, as far as it has come."""
        if len(self.url) > URL_BYTES:
            return UrlTooLong(f"the URL is longer than {URL_BYTES} bytes; send what is long in the body", limit=URL_BYTES)
        if len(self.headers) > HEADERS:
            return HeadTooLarge(f"the request has more than {HEADERS} headers; leave some out", limit=HEADERS)
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            return HeadTooLarge(_TOO_LARGE, limit=HEAD_BYTES)
        return None

    def _refuse(self, error: CortexError) -> None:
        """Answer this request, in its turn, without the application. What is left of its body is read and thrown away, for a while."""
        app, self.app, self.url = self.app, _refusal(error), self.url[:URL_BYTES]
        try:
            _on_headers_complete(self)
        finally:
            self.app = app

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it for what is no HTTP."""
        self._end(BadRequest(f"this is no HTTP/1.1 request ({msg.rstrip('.').lower()})"))

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: who offers another protocol is answered in this one, and uvicorn's two lines for each would fill the log."""

    def _end(self, error: CortexError | None) -> None:
        """Close, with an answer where one may still be given."""
        if self.transport.is_closing():
            return
        cycle, reading = self.cycle, self._reading()
        answering = cycle is not None and not cycle.response_complete
        if answering and (reading != _BODY or self.pipeline):
            # An answer to an earlier request is on its way: the last one that is owed closes the connection.
            cycle.keep_alive = False
            self.flow.pause_reading()
        elif error is None or reading == _NOTHING or (reading == _BODY and cycle.response_started):
            self.transport.close()
        else:
            self._say(error)

    def _say(self, error: CortexError) -> None:
        body = problem_body(error)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            *problem_headers(error),
            (b"connection", b"close"),
        ]
        first = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
        self.transport.write(b"".join([first, *(b"%s: %s\r\n" % header for header in headers), b"\r\n", body]))
        self.leave(LINGER_HEAD_BYTES)

    def leave(self, most: int) -> None:
        """Close, but not before the caller has done so, or for a while: what he still sends would break off the answer on its way to him.

        ``most``: bytes that are read for that.
        """
        if self.transport.is_closing() or self._left is not None:
            return
        self._left = self.keeper.now
        self.flow.resume_reading()
        self.transport.write_eof()
        self.transport.set_protocol(_Deaf(self, most))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            # Nothing may be written any more, also not to who asks whether to go on.
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()

    # The look, once a second ------------------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        if self._is_unread(now):
            self.transport.abort()
            return
        if self.transport.is_closing():
            return
        if self._left is not None:
            if now - self._left > min(LINGER_S, self.keeper.limits.timeout):
                self.transport.abort()
            return
        if self.flow.read_paused:
            # It is we who do not read.
            self._unfinished = self._unfinished[0], self._unfinished[1] + self.keeper.interval
            return
        timeout, reading = self.keeper.limits.timeout, self._reading()
        waited = now - self._unfinished[1]
        answered = self.cycle is None or self.cycle.response_complete
        if reading == _HEAD:
            if waited > timeout:
                self._end(RequestTimeout(f"the head of the request did not arrive within {timeout:g} s ({_SETTING})"))
        elif reading == _BODY and not answered:
            if waited > timeout + self._body / BYTES_PER_S:
                self._end(RequestTimeout(f"the body came too slowly: {self._body} bytes in {waited:.0f} s ({_SETTING}); nothing was accepted"))
        elif answered and self._idle_since is not None:
            if now - self._idle_since > self.timeout_keep_alive:
                self.transport.close()
        elif answered and (reading == _BODY or self.timeout_keep_alive_task is None):
            self._linger(now)

    def _linger(self, now: float) -> None:
        """It has been answered and still sends, the rest of a body or what belongs to no request; or it has never asked. For a while it may."""
        if self._answered[0] is not self.cycle:
            self._answered = self.cycle, now
        elif now - self._answered[1] > self.keeper.limits.timeout:
            self._end(None)

    def _is_unread(self, now: float) -> bool:
        """Whether the caller takes too long to read what was written."""
        size = self.transport.get_write_buffer_size()
        if size == 0:
            self._unread = None
            return False
        if self._unread is None or size > self._unread[0]:
            self._unread = size, now
        most, since = self._unread
        return now - since > self.keeper.limits.timeout + (most - size) / BYTES_PER_S


def _refusal(error: CortexError, headers: Sequence[tuple[bytes, bytes]] = ()) -> Any:
    """An application that answers everything with this."""

    async def refusal(scope: Any, receive: Any, send: Any) -> None:
        await refuse(send, error, headers)

    return refusal


class _Deaf(asyncio.Protocol):
    """Throws away what still comes to a connection that has had its last answer."""

    def __init__(self, connection: Connection, most: int) -> None:
        self._connection, self._most = connection, most
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.pause_writing, self.resume_writing = connection.pause_writing, connection.resume_writing  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        self._most -= len(data)
        if self._most < 0:
            self._connection.transport.abort()


_SETTING = "JUPYTER_CORTEX_CLIENT_TIMEOUT"
_TOO_LARGE = f"the request's first line and headers have more than {HEAD_BYTES} bytes; send what is long in the body"


def allow_files(limits: Limits) -> Limits:
    """Raise this process's limit of open files to what the connections need; fewer connections where the system does not allow it."""
    wanted = limits.connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
        except (OSError, ValueError):
            pass
        if soft < wanted:
            most = max(soft - OTHER_FILES, soft // 2)
            log.warning("at most %d connections: this process may open %d files (`ulimit -n`)", most, soft)
            return Limits(most, limits.timeout)
    return limits
