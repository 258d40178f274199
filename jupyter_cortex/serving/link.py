"""One raw connection to the store: packed commands out, parsed replies in.

The socket is taken from redis-py's own Connection after its handshake, so that TLS, users and passwords, unix sockets and connect errors are
redis-py's; packing and parsing are hiredis's, which cost about 1 µs a command where a client call costs 60.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterable
from typing import Any

import hiredis
import redis

from ..store.scripts import Script

Argument = str | int | float | bytes

_RUN = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
#: Seconds a send may take before the connection counts as dead.
SEND_TIMEOUT = 10.0


class Link:
    """A connection with the given scripts loaded.

    Raises redis.ConnectionError, redis.TimeoutError or redis.ResponseError (LOADING, NOAUTH...) when it cannot be made.
    """

    def __init__(self, url: str, scripts: Iterable[Script] = ()) -> None:
        # RESP2: with RESP3 a server may push messages between the replies.
        pool = redis.ConnectionPool.from_url(url, socket_connect_timeout=2.0, socket_timeout=SEND_TIMEOUT, protocol=2)
        self._connection = pool.make_connection()
        try:
            self._connection.connect()
            for script in scripts:
                self._connection.send_command("SCRIPT LOAD", script.source)
                self._connection.read_response()
            #: What the server calls this connection, 0 where this user may not ask; and which run of the server does: another gives the numbers anew.
            self.id, self.server = int(self._asked("CLIENT", "ID") or 0), ""
            if self.id and (run := _RUN.search(self._asked("INFO", "server") or b"")):
                self.server = run[1].decode()
        except BaseException:
            self._connection.disconnect()
            raise
        sock = self._connection._sock  # type: ignore[attr-defined]
        assert sock is not None
        self.sock: socket.socket = sock
        self._reader = hiredis.Reader()

    def _asked(self, *command: str) -> Any:
        """The reply, None where this user may not ask."""
        self._connection.send_command(*command)
        with contextlib.suppress(redis.ResponseError):
            return self._connection.read_response()
        return None

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, *commands: tuple[Argument, ...]) -> None:
        """Send commands as one packet; raises OSError when the connection is gone."""
        self.sock.sendall(b"".join(hiredis.pack_command(command) for command in commands))  # type: ignore[arg-type]

    def receive(self) -> list[Any]:
        """The replies that have arrived; blocks when none has, so call it on a readable socket. Raises ConnectionError at the end of the stream.

        An error reply is returned (a ``hiredis.ReplyError``), not raised.
        """
        data = self.sock.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the store closed the connection")
        self._reader.feed(data)
        # TLS may hold decrypted bytes that no selector would ever report.
        while pending := getattr(self.sock, "pending", int)():
            self._reader.feed(self.sock.recv(pending))
        replies = []
        while (reply := self._reader.gets()) is not False:
            replies.append(reply)
        return replies

    def close(self) -> None:
        self._connection.disconnect()
