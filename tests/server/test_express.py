"""Most requests are answered on a short way past the application. Nobody can tell: however a request arrives, its answer is the same."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from jupyter_cortex.gateway.express import BODY_BYTES, Express
from jupyter_cortex.gateway.public import PublicDoor
from tests.conftest import Environment, Project, wait_until

NAME = "express"
HANDLER = """
class Handler:
    def handle_async(self, payload):
        if payload == "fail":
            raise ValueError("as told")
        return {"got": payload if len(str(payload)) < 100 else "much"}
"""
CLOSED = b"Connection: close\r\n"

Ask = Callable[..., bytes]


@pytest.fixture(scope="module")
def api(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp(NAME)
    (directory / "cortex.yaml").write_text(f"- name: {NAME}\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: handler.py\n")
    Project(directory, NAME).write(HANDLER).deploy(environment)
    yield NAME
    environment.client().delete(NAME)


@pytest.fixture(scope="module")
def ids(api: str, environment: Environment) -> dict[str, str]:
    """One workload that is completed, one that has failed."""
    found = {}
    with environment.http() as web:
        for payload, status in (("go", "completed"), ("fail", "failed")):
            found[status] = web.post(f"/{api}", json=payload).json()["id"]
            path = f"/{api}/{found[status]}"
            wait_until(lambda path=path, status=status: web.get(path).json()["status"] == status, f"the workload is {status}")
    return found


def request(method: str, path: str, *lines: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """One request, as bytes; ``lines``: header lines besides Host and, where there is a body, Content-Length."""
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *lines, *length, "", ""]).encode() + body


JSON_TYPE = "Content-Type: application/json"


def requests(ids: dict[str, str]) -> dict[str, bytes]:
    done, failed = ids["completed"], ids["failed"]
    return {
        "completed": request("GET", f"/{NAME}/{done}"),
        "failed": request("GET", f"/{NAME}/{failed}"),
        "no id at all": request("GET", f"/{NAME}/a b".replace(" ", "%20")),
        "unknown id": request("GET", f"/{NAME}/nobody"),
        "health": request("GET", f"/{NAME}/healthz"),
        "head": request("HEAD", f"/{NAME}/{done}"),
        "waits": request("GET", f"/{NAME}/{done}?wait=1"),
        "from another site": request("GET", f"/{NAME}/{done}", "Origin: http://elsewhere.example"),
        "unknown api": request("GET", "/nothing/here"),
        "twice the slash": request("GET", f"//{NAME}/{done}"),
        "accepted": request("POST", f"/{NAME}", JSON_TYPE, "X-Request-Id: mine", body=b'{"x": 1}'),
        "with a slash": request("POST", f"/{NAME}/", JSON_TYPE, "X-Request-Id: mine", body=b'{"x": 1}'),
        "other body": request("POST", f"/{NAME}", JSON_TYPE, "X-Request-Id: mine", body=b'{"x": 2}'),
        "bad id": request("POST", f"/{NAME}", JSON_TYPE, "X-Request-Id: a/b", body=b"{}"),
        "bad json": request("POST", f"/{NAME}", JSON_TYPE, body=b"{"),
        "no type": request("POST", f"/{NAME}", body=b"{}"),
        "no body": request("POST", f"/{NAME}", JSON_TYPE),
        "bytes": request("POST", f"/{NAME}", "Content-Type: image/png", "X-Request-Id: picture", body=b"\x00\xff" * 9),
        "too large for the short way": request("POST", f"/{NAME}", "Content-Type: text/plain", "X-Request-Id: text", body=b"x" * (BODY_BYTES + 1)),
        "with a deadline": request("POST", f"/{NAME}", JSON_TYPE, "X-Request-Id: due", "Cortex-Timeout: 30", body=b"1"),
        "below the API": request("POST", f"/{NAME}/more", JSON_TYPE, body=b"{}"),
        "old": request("GET", f"/{NAME}/{done}", version="1.0"),
        "put": request("PUT", f"/{NAME}/{done}"),
    }


def connected(environment: Environment) -> socket.socket:
    at = httpx.URL(environment.url)
    line = socket.create_connection((at.host, at.port or 80), timeout=30)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def answer(environment: Environment, *parts: bytes) -> bytes:
    """Everything that comes for these bytes, less what is another one each time. The last request must ask to close."""
    with connected(environment) as line:
        for part in parts:
            line.sendall(part)
        got = b"".join(iter(lambda: line.recv(1 << 20), b""))
    return re.sub(rb"date: [^\r]*\r\n", b"", got)


def closing(data: bytes) -> bytes:
    head, _, rest = data.partition(b"\r\n")
    return head + b"\r\n" + CLOSED + rest


def test_however_a_request_arrives_its_answer_is_the_same(ids: dict[str, str], environment: Environment) -> None:
    last = closing(request("GET", f"/{NAME}/healthz"))
    bye = answer(environment, last)
    for name, data in requests(ids).items():
        long_way = answer(environment, closing(data))
        cut = data.index(b"\r\n\r\n") + (4 if name != "no body" else 2)
        kept = {
            "whole": answer(environment, data, last),
            "with the next one": answer(environment, data + last),
            "behind another one": answer(environment, request("GET", f"/{NAME}/healthz") + data + last),
            "cut in its head": answer(environment, data[:9], data[9:], last),
            "cut before its body": answer(environment, data[:cut], data[cut:] + last),
        }
        expected = long_way.replace(b"connection: close\r\n", b"")
        for how, got in kept.items():
            if name == "old":  # a caller of HTTP/1.0 gets one answer
                expected, tail = long_way, b""
            else:
                tail = bye
            if how == "behind another one":
                got = got.removeprefix(bye.replace(b"connection: close\r\n", b""))
            assert got == expected + tail, (name, how)


def test_most_requests_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all of this would hold for a short way that nobody takes."""
    taken: list[Any] = []

    class Intake:
        def get_soon(self, told: Any, api: str, request_id: str) -> bool:
            taken.append((api, request_id))
            return True

        def submit_soon(self, told: Any, api: str, request_id: str, content_type: str, body: bytes) -> bool:
            taken.append((api, request_id, content_type, body))
            return True

    door = PublicDoor.__new__(PublicDoor)
    monkeypatch.setattr(door, "plain", lambda scope: scope["plain"], raising=False)
    monkeypatch.setattr(door, "check", lambda body, content_type: None, raising=False)
    express = Express(door, Intake())  # type: ignore[arg-type]

    class Route:
        api, queue_timeout = "a", None

    class Given:
        request_id, content_type = "mine", "text/plain"

    class Cycle:
        access_log = waiting_for_100_continue = False
        keep_alive = True
        body = b"hello"

        def __init__(self, method: str, rest: str) -> None:
            self.scope = {"method": method, "plain": (Given, Route, rest)}

    assert express.take(Cycle("GET", "/one"), lambda app: None)  # type: ignore[arg-type]
    assert express.take(Cycle("POST", ""), lambda app: None)  # type: ignore[arg-type]
    assert not express.take(Cycle("DELETE", "/one"), lambda app: None)  # type: ignore[arg-type]
    assert taken == [("a", "one"), ("a", "mine", "text/plain", b"hello")]


def test_who_asks_whether_to_go_on_behind_another_request_is_told(ids: dict[str, str], environment: Environment) -> None:
    first = request("GET", f"/{NAME}/{ids['completed']}")
    head = f"POST /{NAME} HTTP/1.1\r\nHost: localhost\r\n{JSON_TYPE}\r\nContent-Length: 4\r\nExpect: 100-continue\r\nX-Request-Id: asks\r\n\r\n"
    with connected(environment) as line:
        line.sendall(first + head.encode())
        got = b""
        while not got.endswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
            got += line.recv(4096)
        assert got.count(b"HTTP/1.1 200") == 1
        line.sendall(b"null")
        while not got.endswith(b'{"id": "asks"}'):
            got += line.recv(4096)


def test_ids_that_the_gateway_makes_are_told_to_their_own_callers(api: str, environment: Environment) -> None:
    """Twenty payloads on one connection, sent at once: each result belongs to the payload sent in that place."""
    sent = b"".join(request("POST", f"/{api}", JSON_TYPE, body=json.dumps(number).encode()) for number in range(20))
    got = answer(environment, sent + closing(request("GET", f"/{NAME}/healthz")))
    told = re.findall(rb'{"id": "([0-9a-f-]{36})"}', got)
    assert len(set(told)) == 20
    with environment.http() as web:
        for number, request_id in enumerate(told):
            path = f"/{api}/{request_id.decode()}"
            wait_until(lambda path=path: web.get(path).json()["status"] == "completed", "it is completed")
            assert web.get(path).json()["result"] == {"got": number}
