"""One request and its answer, on uvicorn's cycle: an answer that is there as a whole leaves as such."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from .connections import Connection

#: A body up to this size is copied behind its head; a larger one is handed over as it is.
TOGETHER_BYTES = 64 * 1024
#: Of a body that was refused, so much is read and thrown away.
LINGER_BODY_BYTES = 64 << 20


class Cycle(RequestResponseCycle):
    """``connection``: whose request it is. All else is as in uvicorn."""

    connection: Connection
    #: What stands in the head of every answer, and that as bytes: uvicorn makes a new list each second, for the date.
    _defaults: ClassVar[tuple[Any, bytes]] = (None, b"")

    async def send(self, message: Any) -> None:
        """An answer in parts."""
        if not self.response_started:
            self.transport = _Transport(self.connection)  # type: ignore[assignment]
        await super().send(message)

    def answer(self, body: bytes, content_type: bytes) -> bool:
        """Say 200 with this body; whether it was said. What is out of the ordinary (a caller who does not read, a log of accesses) is for `send`:
        its two messages, with their checks of each header, were 12 % of what a GET costs."""
        if self.response_started or self.flow.write_paused or self.access_log or not self.keep_alive or self.scope["method"] == "HEAD":
            return False
        self.response_started, self.waiting_for_100_continue = True, False
        if self.disconnected:
            return True
        known, defaults = Cycle._defaults
        if known is not self.default_headers:
            defaults = b"".join(b"%s: %s\r\n" % header for header in self.default_headers)
            Cycle._defaults = self.default_headers, defaults
        head = b"HTTP/1.1 200 OK\r\n%scontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (defaults, content_type, len(body))
        if len(body) > TOGETHER_BYTES:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head + body)
        self.response_complete = True
        self.message_event.set()
        self.on_response()
        return True


class _Transport:
    """The transport of an answer in parts. Its head leaves together with the first bytes of its body, in one write to the socket: a second one was
    17 % of what a GET costs. An answer that comes before the end of its request is not broken off by what still comes of that."""

    __slots__ = ("_connection", "_head", "_started", "is_closing")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._head = b""
        self._started = False
        self.is_closing = connection.transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            if len(data) > TOGETHER_BYTES:
                self._connection.transport.writelines((head, data))
            else:
                self._connection.transport.write(head + data)
        elif self._started or data.startswith(b"HTTP/1.1 100"):
            self._connection.transport.write(data)
        else:
            self._started, self._head = True, data
            # An answer without a body, or one whose body is long in coming: the head does not wait for it.
            self._connection.loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._connection.transport.write(head)

    def close(self) -> None:
        self._flush()
        if self._connection.is_reading_body():
            self._connection.leave(LINGER_BODY_BYTES)
        else:
            self._connection.transport.close()
