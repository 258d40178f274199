"""How answers leave the gateway's connections, on real sockets with small applications behind them."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from jupyter_cortex.gateway.connections import Limits, protocol
from jupyter_cortex.gateway.cycle import TOGETHER_BYTES
from jupyter_cortex.gateway.server import bind
from tests.conftest import wait_until

Serve = Callable[..., socket.socket]
HEADERS = [(b"content-type", b"text/plain")]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves an application; a connection to it."""
    ends: list[Callable[[], None]] = []

    def start(app: Any, **settings: Any) -> socket.socket:
        door = bind("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(app, http=protocol(Limits(10, 30.0)), ws="none", lifespan="off", log_config=None, **settings))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        wait_until(lambda: server.started, "the server listens")
        line = socket.create_connection(door.getsockname(), timeout=30)

        def end() -> None:
            line.close()
            server.should_exit = True
            thread.join()
            door.close()

        ends.append(end)
        return line

    yield start
    for end in ends:
        end()


def answering(*parts: bytes, length: bool = True, hold: threading.Event | None = None) -> Any:
    """An application that answers everything with these parts of a body; with ``hold`` they come later."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size = [(b"content-length", b"%d" % sum(map(len, parts)))] if length else []
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *size]})
        if hold is not None:
            await asyncio.to_thread(hold.wait, 30)
        for at, part in enumerate(parts, 1):
            await send({"type": "http.response.body", "body": part, "more_body": at < len(parts)})

    return app


def ask(line: socket.socket, method: bytes = b"GET", *lines: bytes) -> None:
    line.sendall(b"\r\n".join([method + b" / HTTP/1.1", b"host: x", *lines, b"", b""]))


def until(line: socket.socket, end: bytes) -> bytes:
    """Everything that comes, up to this."""
    got = b""
    while not got.endswith(end):
        data = line.recv(1 << 20)
        assert data, f"closed after {got[-200:]!r}"
        got += data
    return got


def packets(line: socket.socket) -> int:
    """How many packets with data have come: tcpi_data_segs_in of Linux' struct tcp_info."""
    return int.from_bytes(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)[152:156], sys.byteorder)


@pytest.mark.skipif(sys.platform != "linux", reason="counts packets as Linux does")
def test_an_answer_comes_in_one_piece(serve: Serve) -> None:
    line = serve(answering(b"whole"))
    for _ in range(20):
        ask(line)
        until(line, b"\r\n\r\nwhole")
    assert packets(line) == 20


@pytest.mark.parametrize("size", [0, 1, TOGETHER_BYTES, TOGETHER_BYTES + 1, 5_000_000])
def test_a_body_of_any_size_arrives_as_it_was_sent(size: int, serve: Serve) -> None:
    body = bytes(index % 251 for index in range(size))
    line = serve(answering(body, b"|", body, b"."))
    for _ in range(2):
        ask(line)
        got = until(line, b".") if size else until(line, b"|.")
        head, _, rest = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"content-length: %d" % (2 * size + 2) in head
        while len(rest) < 2 * size + 2:
            rest += line.recv(1 << 20)
        assert rest == body + b"|" + body + b"."


def test_a_body_without_a_length_arrives_in_chunks(serve: Serve) -> None:
    line = serve(answering(b"one", b"HTTP/1.1 100 two", length=False))
    for _ in range(2):
        ask(line)
        got = until(line, b"0\r\n\r\n")
        assert got.partition(b"\r\n\r\n")[2] == b"3\r\none\r\n10\r\nHTTP/1.1 100 two\r\n0\r\n\r\n"


def test_a_head_does_not_wait_for_a_body_that_is_long_in_coming(serve: Serve) -> None:
    hold = threading.Event()
    line = serve(answering(b"late", hold=hold))
    ask(line)
    assert until(line, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
    hold.set()
    assert until(line, b"late") == b"late"


def test_an_answer_without_a_body_is_a_head(serve: Serve) -> None:
    line = serve(answering(b"unsaid"))
    for _ in range(2):
        ask(line, b"HEAD")
        assert until(line, b"\r\n\r\n").count(b"HTTP/1.1 200 OK") == 1
    ask(line)
    assert until(line, b"unsaid").startswith(b"HTTP/1.1 200 OK")


def test_requests_sent_together_are_answered_in_their_order(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.001 * (scope["path"] == "/0"))
        body = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    line = serve(app)
    line.sendall(b"".join(b"%s /%d HTTP/1.1\r\nhost: x\r\n\r\n" % (b"HEAD" if one == 5 else b"GET", one) for one in range(10)))
    got = until(line, b"/9")
    assert got.count(b"HTTP/1.1 200 OK") == 10
    assert [part.rpartition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 200 OK")[1:]] == [b"" if one == 5 else b"/%d" % one for one in range(10)]


def test_who_asks_whether_to_go_on_is_told_before_the_answer(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    line = serve(app)
    ask(line, b"POST", b"content-length: 3", b"expect: 100-continue")
    assert until(line, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.sendall(b"abc")
    got = until(line, b"abc")
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert got.count(b"HTTP/1.1") == 1


def test_an_application_that_breaks_off_closes_what_it_began(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})

    line = serve(app)
    ask(line)
    got = b"".join(iter(lambda: line.recv(4096), b""))
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert got.endswith(b"\r\n\r\n")


def test_a_connection_on_which_nothing_comes_any_more_is_closed(serve: Serve) -> None:
    line = serve(answering(b"whole"), timeout_keep_alive=1)
    for _ in range(2):
        ask(line)
        until(line, b"\r\n\r\nwhole")
    assert line.recv(1) == b""
