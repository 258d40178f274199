"""Limits: each refuses with a document that says what, where and what to do, and nothing of what it refused is kept."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from jupyter_cortex.operator.home import Home
from jupyter_cortex.serving.shipper import Shipper
from jupyter_cortex.store import keys, logs, streams
from tests.conftest import Environment, ProjectMaker, wait_until

from .stage import Staged, known, staged
from .test_public_http import ended, on_the_wire, refused, waiting

Maker = Callable[..., Environment]

#: Waits for a file, then returns as many characters as the payload says.
HOLDER = """
    import pathlib
    import time


    class Handler:
        def handle_async(self, payload):
            while not pathlib.Path(payload["until"]).exists():
                time.sleep(0.01)
            return {"x": "y" * payload["size"]}
"""


class Wire:
    """A connection on which bytes are written as they come."""

    def __init__(self, environment: Environment) -> None:
        at = httpx.URL(environment.url)
        self.sock = socket.create_connection((at.host, at.port), timeout=30)

    def send(self, data: bytes) -> Wire:
        self.sock.sendall(data)
        return self

    def send_until_closed(self, data: bytes, most: int) -> int:
        """Send again and again; how many bytes the gateway took before it closed."""
        for sent in range(0, most, len(data)):
            try:
                self.sock.sendall(data)
            except OSError:
                return sent
        pytest.fail(f"the gateway has taken {most} bytes")

    def rest(self) -> bytes:
        """All that comes until the gateway closes; what a reset cuts off is lost."""
        got = b""
        try:
            while data := self.sock.recv(65536):
                got += data
        except ConnectionResetError:
            pass
        return got

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def head(method: str, path: str, *lines: bytes) -> bytes:
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", *lines]) + b"\r\n"


def problem(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Status and document of a raw answer that closes the connection."""
    first, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in first.lower(), answer
    assert b"content-type: application/problem+json" in first.lower(), answer
    return int(first.split(b" ")[1]), json.loads(body)


def connections(environment: Environment) -> int:
    """How many connections of callers the gateway holds."""
    pid, port = environment.slot("gateway").pid(), httpx.URL(environment.url).port
    return sum(one.status == "ESTABLISHED" and one.laddr.port == port for one in psutil.Process(pid).net_connections("tcp"))


def gateway_memory(environment: Environment) -> int:
    return psutil.Process(environment.slot("gateway").pid()).memory_info().rss


# The head of a request -----------------------------------------------------------------------------------------------


def test_a_head_within_the_limits_is_taken(environment: Environment) -> None:
    most = [b"x-%d: y" % n for n in range(98)]
    assert on_the_wire(environment.url, head("GET", "/healthz", *most, b"Connection: close") + b"\r\n").startswith(b"HTTP/1.1 200 ")
    # Nearly 64 KiB, in one packet and in two.
    large = head("GET", "/healthz", b"x-long: " + b"y" * 65000, b"Connection: close") + b"\r\n"
    assert on_the_wire(environment.url, large).startswith(b"HTTP/1.1 200 ")
    with Wire(environment) as wire:
        wire.send(large[:30000])
        time.sleep(0.05)
        assert wire.send(large[30000:]).rest().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("path", "lines", "status", "code"),
    [
        ("", [b"x-%d: y" % n for n in range(100)], 431, "headers_too_large"),
        ("", [b"x-long: " + b"y" * 66000], 431, "headers_too_large"),
        ("", [b"x-%d: " % n + b"y" * 6600 for n in range(10)], 431, "headers_too_large"),
        ("?" + "x" * 9000, [], 414, "url_too_long"),
        ("?" + "x" * 90000, [], 414, "url_too_long"),
    ],
    ids=["101 headers", "one of 66 kB", "66 kB of headers", "URL of 9 kB", "URL of 90 kB"],
)
def test_a_head_beyond_them_is_refused_and_nothing_is_enqueued(
    path: str, lines: list[bytes], status: int, code: str, environment: Environment
) -> None:
    with environment.redis() as store:
        api = Staged(store, "heads")
    known(environment, "heads")
    before = waiting(environment, api.name)
    request = head("POST", f"/{api.name}{path}", *lines, b"Connection: close", b"Content-Length: 2") + b"\r\n{}"
    answer = on_the_wire(environment.url, request)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (document["status"], document["code"]) == (status, code)
    assert waiting(environment, api.name) == before


@pytest.mark.parametrize(
    "begun",
    [
        head("GET", "/healthz", b"x-endless: ")[:-2],
        b"GET /",
        head("GET", "/healthz", b"x-"),
        head("POST", "/heads", b"Transfer-Encoding: chunked") + b"\r\n2\r\n{}\r\n0\r\nx-trailer: ",
        b"",
    ],
    ids=["header", "URL", "name of a header", "trailer", "empty lines"],
)
def test_what_never_ends_is_cut_off_and_costs_no_memory(begun: bytes, environment: Environment) -> None:
    with Wire(environment) as warm:
        warm.send(begun).send_until_closed(b"x" * 65536 if begun else b"\r\n" * 32768, 1 << 30)
    before = gateway_memory(environment)
    for _ in range(20):
        with Wire(environment) as wire:
            sent = wire.send(begun).send_until_closed(b"x" * 65536 if begun else b"\r\n" * 32768, 1 << 30)
            # The kernel's buffers take some megabytes more than the gateway reads.
            assert sent < 64 << 20
    assert gateway_memory(environment) - before < 8 << 20
    with environment.http() as web:
        assert web.get("/healthz").text == "ok"


def test_requests_that_follow_each_other_in_one_packet_are_no_long_head(environment: Environment) -> None:
    one = head("GET", "/healthz") + b"\r\n"
    many = 80_000 // len(one)
    with Wire(environment) as wire:
        wire.send(one * many + head("GET", "/healthz", b"Connection: close") + b"\r\n")
        assert wire.rest().count(b"HTTP/1.1 200 ") == many + 1


@pytest.mark.parametrize("closes", [[b"Connection: close"], []], ids=["close", "keep"])
def test_an_answer_before_the_end_of_the_body_is_not_broken_off_by_it(closes: list[bytes], environment: Environment) -> None:
    """30 MB that nobody wants: the caller can send them, and read why they are refused."""
    for _ in range(5):
        with Wire(environment) as wire:
            wire.send(head("POST", "/nothing-here", *closes, b"Content-Length: 30000000") + b"\r\n")
            wire.send(b"x" * 30_000_000)
            if not closes:
                wire.send(head("GET", "/healthz", b"Connection: close") + b"\r\n")
            said = wire.rest()
        assert said.startswith(b"HTTP/1.1 404 ")
        assert said.count(b"HTTP/1.1 200 ") == (not closes)


def test_what_is_no_http_is_refused_with_a_document(environment: Environment) -> None:
    with Wire(environment) as wire:
        status, document = problem(wire.send(b"HELO example.org\r\n").rest())
    assert (status, document["code"]) == (400, "bad_request")


def test_who_asks_whether_to_go_on_and_then_sends_no_http_is_refused_once(environment: Environment) -> None:
    log = Home(environment.home).logs / "gateway.log"
    before = log.stat().st_size
    with staged(environment, "limits-expect") as api:
        known(environment, api.name)
        asks = head("POST", f"/{api.name}", b"Content-Type: text/plain", b"Expect: 100-continue", b"Transfer-Encoding: chunked")
        for _ in range(20):
            with Wire(environment) as wire:
                status, document = problem(wire.send(asks + b"\r\nno chunk\r\n").rest())
            assert (status, document["code"]) == (400, "bad_request")
        assert api.store.llen(keys.queue(api.name)) == 0
    assert b"Traceback" not in log.read_bytes()[before:]


# Slow callers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """An environment with little patience, and an API that nobody serves."""
    made = Environment(tmp_path_factory.mktemp("hurried") / "home", {"JUPYTER_CORTEX_CLIENT_TIMEOUT": "1"}).up()
    with made.redis() as store:
        Staged(store, "slow")
    known(made, "slow")
    yield made
    said = (Home(made.home).logs / "gateway.log").read_text()
    made.down()
    assert "Traceback" not in said, "an end of ours is nobody's exception"


def slow_ways(api: str) -> list[tuple[str, bytes, bytes]]:
    """What a slow caller sends at first, what he sends now and then, and the status that he may read in the end."""
    return [
        ("408", head("GET", f"/{api}/x"), b"x-more: y\r\n"),
        ("408", b"P", b""),
        ("408", head("POST", f"/{api}", b"Content-Length: 1000") + b"\r\n{", b" "),
        ("408", head("POST", f"/{api}", b"Transfer-Encoding: chunked") + b"\r\n", b"1\r\n \r\n"),
        ("", b"", b""),
        ("", b"\r\n", b"\r\n"),
        ("200", head("GET", "/healthz") + b"\r\n", b"\r\n"),
        ("413", head("POST", f"/{api}", b"Content-Length: 99999999999") + b"\r\n", b"x"),
    ]


def is_over(wire: Wire, more: bytes) -> bool:
    """Whether the gateway has ended this caller, who sends a little more."""
    try:
        if more:
            wire.sock.send(more, socket.MSG_DONTWAIT)
        answer = wire.sock.recv(65536, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return not answer or b"connection: close" in answer


def test_five_hundred_slow_callers_are_ended_beside_others_who_notice_nothing(hurried: Environment) -> None:
    before = waiting(hurried, "slow")
    ways = itertools.islice(itertools.cycle(slow_ways("slow")), 500)
    slow = [(Wire(hurried).send(begun), status, more) for status, begun, more in ways]
    left, answered = list(slow), 0
    with hurried.http() as web:

        def all_are_ended() -> bool:
            nonlocal left, answered
            assert web.get("/healthz").status_code == 200
            assert web.post("/slow", json={}).status_code == 200
            answered += 1
            left = [one for one in left if not is_over(one[0], one[2])]
            return not left

        wait_until(all_are_ended, "the slow ones are ended", 120)
    for wire, status, _ in slow:
        said = wire.rest()[9:12].decode()
        assert said in (status, ""), "it reads why, unless what it sent last has broken off the answer"
        wire.sock.close()
    assert waiting(hurried, "slow")[0] - before[0] == answered, "of the slow ones nothing was accepted"


@pytest.mark.parametrize("way", [0, 1, 2, 3], ids=["head", "first byte", "body", "chunks"])
def test_a_caller_who_stops_in_the_middle_reads_why_he_is_ended(way: int, hurried: Environment) -> None:
    before = waiting(hurried, "slow")
    _, begun, _ = slow_ways("slow")[way]
    with Wire(hurried) as wire:
        status, document = problem(wire.send(begun).rest())
    assert (status, document["code"]) == (408, "request_timeout")
    assert "JUPYTER_CORTEX_CLIENT_TIMEOUT" in document["detail"]
    assert waiting(hurried, "slow") == before


def test_a_slow_body_that_keeps_coming_is_taken(hurried: Environment) -> None:
    """Twice the patience, at 8 kB/s."""
    with Wire(hurried) as wire:
        wire.send(head("POST", "/slow", b"Content-Type: text/plain", b"Content-Length: 16384", b"Connection: close") + b"\r\n")
        for _ in range(16):
            wire.send(b"x" * 1024)
            time.sleep(0.125)
        assert wire.rest().startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_nobody_reads_is_thrown_away(hurried: Environment) -> None:
    with hurried.redis() as store:
        api = Staged(store, "unread")
        api.submit("large")
        known(hurried, api.name)
        api.commit(finish=[("large", "completed", json.dumps({"x": "y" * (16 << 20)}), "", "")])
    wires = [Wire(hurried).send(head("GET", "/unread/large") + b"\r\n") for _ in range(5)]
    wait_until(lambda: gateway_memory(hurried) > 0 and connections(hurried) >= 5, "the answers are on their way")
    wait_until(lambda: connections(hurried) == 0, "who does not read is ended")
    assert all(len(wire.rest()) < 16 << 20 for wire in wires)
    with hurried.http() as web:
        assert len(web.get("/unread/large").content) > 16 << 20, "who reads gets it whole"


def test_an_answer_that_is_waited_for_is_no_slow_request(hurried: Environment) -> None:
    """A long poll of three times the patience."""
    with hurried.redis() as store:
        request_id = Staged(store, "patient").submit()
    known(hurried, "patient")
    with hurried.http() as web:
        assert web.get(f"/patient/{request_id}", params={"wait": 3}).json()["status"] == "in_queue"


# Connections ---------------------------------------------------------------------------------------------------------


def test_connections_beyond_the_cap_are_refused_and_the_others_go_on(own_environment: Maker) -> None:
    environment = own_environment(max_connections="20")
    with environment.redis() as store:
        api = Staged(store, "crowd")
    known(environment, "crowd")
    with environment.http() as web:
        assert web.get("/healthz").status_code == 200
        others = [Wire(environment) for _ in range(19)]
        wait_until(lambda: connections(environment) >= 20, "all are there")
        before = waiting(environment, api.name)
        with Wire(environment) as wire:
            status, document = problem(wire.send(head("POST", f"/{api.name}", b"Content-Length: 2") + b"\r\n{}").rest())
        assert (status, document["code"]) == (503, "too_many_connections")
        assert "JUPYTER_CORTEX_MAX_CONNECTIONS" in document["detail"]
        assert waiting(environment, api.name) == before
        # Far beyond it nobody is listened to.
        crowd = [Wire(environment) for _ in range(100)]
        closed = [wire for wire in crowd[80:] if b"too_many_connections" in wire.rest()]
        assert len(closed) == 20
        assert web.get("/healthz").status_code == 200, "who was there before is served"
        for wire in (*others, *crowd):
            wire.sock.close()
        wait_until(lambda: connections(environment) < 20, "they are gone")
        assert environment.http().get("/healthz").status_code == 200


def test_the_gateway_may_open_as_many_files_as_its_connections_need(own_environment: Maker) -> None:
    environment = own_environment(max_connections="1500")
    soft, hard = psutil.Process(environment.slot("gateway").pid()).rlimit(psutil.RLIMIT_NOFILE)
    assert soft >= min(1500, hard - 1)


def test_a_system_that_allows_few_files_lowers_the_cap() -> None:
    code = """
        import resource
        from jupyter_cortex.gateway.connections import Limits, allow_files

        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 600))
        print(allow_files(Limits(100, 10)).connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        print(allow_files(Limits(1000, 10)).connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100", "356", "344", "600"]
    assert "at most 344 connections" in done.stderr


# Long polls ----------------------------------------------------------------------------------------------------------


@contextmanager
def polling(environment: Environment, path: str, many: int, insist: bool = False) -> Iterator[list[Any]]:
    """So many long polls under way. Who insists asks again for as long as there is no room for it."""
    with ThreadPoolExecutor(many) as pool, environment.http(headers={"authorization": f"Bearer {environment.token}"}) as web:

        def poll() -> Any:
            while True:
                answer = web.get(path, params={"wait": 50})
                if not (insist and "retry-after" in answer.headers):
                    return answer

        yield [pool.submit(poll) for _ in range(many)]


def test_polls_beyond_the_cap_are_answered_at_once_and_told_when_to_ask_again(own_environment: Maker) -> None:
    environment = own_environment(max_polls="3")
    with environment.redis() as store:
        api = Staged(store, "polled")
        request_id = api.submit()
        known(environment, api.name)
        channel = keys.done_channel(api.name, request_id)
        path = f"/{api.name}/{request_id}"
        with environment.http() as web, polling(environment, path, 3, insist=True) as polls:
            wait_until(lambda: store.pubsub_numsub(channel)[0][1], "they wait")

            def refused_one() -> bool:
                # While there is room this one takes it for a moment, and one of the three may find it gone: they insist.
                return "retry-after" in web.get(path, params={"wait": 0.01}).headers

            wait_until(refused_one, "all three wait")
            answer = web.get(path, params={"wait": 50})
            assert (answer.status_code, answer.json()) == (200, {"id": request_id, "status": "in_queue"})
            assert answer.headers["retry-after"] == "1"
            assert "retry-after" not in web.get(path).headers, "who does not wait is answered as ever"
            assert not any(poll.done() for poll in polls)
            asked: list[str] = []
            client = environment.client()
            client._connection().event_hooks["request"].append(lambda request: asked.append(str(request.url)))
            assert client.result(api.name, request_id, wait=3).status == "in_queue"
            assert len(asked) <= 5, "our own client asks no more often than it is told"
            api.complete(request_id)
            assert [poll.result().json()["status"] for poll in polls] == ["completed"] * 3
            assert "retry-after" not in web.get(path, params={"wait": 50}).headers


def test_who_hangs_up_leaves_his_place_among_those_who_wait(own_environment: Maker) -> None:
    environment = own_environment(max_polls="3")
    with environment.redis() as store, environment.http() as web:
        api = Staged(store, "left")
        path = f"/{api.name}/{api.submit()}"
        known(environment, api.name)
        address = (web.base_url.host, web.base_url.port or 80)
        callers = [socket.create_connection(address) for _ in range(3)]
        for caller in callers:
            caller.sendall(f"GET {path}?wait=50 HTTP/1.1\r\nhost: {address[0]}:{address[1]}\r\n\r\n".encode())
        full = lambda: "retry-after" in web.get(path, params={"wait": 0.01}).headers  # noqa: E731
        wait_until(full, "all three wait")
        for caller in callers:
            caller.close()
        wait_until(lambda: not full(), "their places are free", 30)


def test_changes_beyond_the_cap_are_answered_at_once(own_environment: Maker) -> None:
    environment = own_environment(max_polls="0")
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as control:
        answer = control.post("/_cortex/v1/changes", json={"wait": 20})
        assert (answer.status_code, answer.headers["retry-after"]) == (200, "1")
        assert "retry-after" not in control.post("/_cortex/v1/changes", json={}).headers


def test_a_gateway_that_stops_tells_who_waits_how_it_stands(own_environment: Maker) -> None:
    environment = own_environment()
    gateway = environment.slot("gateway")
    with environment.redis() as store:
        api = Staged(store, "stopping")
        request_id = api.submit()
        known(environment, api.name)
        with polling(environment, f"/{api.name}/{request_id}", 5) as polls:
            wait_until(lambda: store.pubsub_numsub(keys.done_channel(api.name, request_id))[0][1], "they wait")
            time.sleep(0.3)
            pid = gateway.pid()
            assert pid is not None
            os.kill(environment.slot("operator").pid() or 0, signal.SIGTERM)
            os.kill(pid, signal.SIGTERM)
            # One who is not released gets no answer: his connection is cut when the gateway's 5 s are over.
            assert [poll.result().json()["status"] for poll in polls] == ["in_queue"] * 5
            wait_until(lambda: gateway.pid() != pid, "the gateway has ended")


# Payloads and results ------------------------------------------------------------------------------------------------


def test_a_result_over_the_limit_fails_its_workload_with_the_reason(own_environment: Maker, project: ProjectMaker, tmp_path: Path) -> None:
    environment = own_environment(max_result_bytes="1000")
    project("results", HOLDER).deploy(environment)
    go = tmp_path / "go"
    go.touch()
    with environment.http() as web:
        fits, larger = (web.post("/results", json={"until": str(go), "size": size}).json()["id"] for size in (1000 - 8, 1000 - 7))
        assert ended(web, f"/results/{fits}").json()["result"] == {"x": "y" * 992}
        answer = ended(web, f"/results/{larger}").json()
    assert (answer["status"], answer["error"]["type"]) == ("failed", "ResultError")
    assert "1001 bytes" in answer["error"]["message"]
    assert "at most 1000" in answer["error"]["message"]
    assert "JUPYTER_CORTEX_MAX_RESULT_BYTES" in answer["error"]["message"]


def test_bodies_on_their_way_are_bounded_in_all(own_environment: Maker) -> None:
    environment = own_environment(max_body_bytes=str(1 << 20))
    with environment.redis() as store:
        Staged(store, "many")
    known(environment, "many")
    before = waiting(environment, "many")
    begun = head("POST", "/many", b"Content-Type: text/plain", b"Content-Length: 1048576", b"Connection: close") + b"\r\n" + b"x" * 1_000_000
    with environment.http() as web:
        # Nine of nearly 1 MB, of which eight may be there at once.
        held = [Wire(environment).send(begun) for _ in range(9)]
        (refused_one,) = wait_until(lambda: select.select([wire.sock for wire in held], [], [], 0)[0], "one is refused")
        status, document = problem(next(wire for wire in held if wire.sock is refused_one).rest())
        assert (status, document["code"]) == (503, "too_many_bodies")
        assert waiting(environment, "many") == before
        assert web.post("/many", json={}).status_code == 200, "small ones are taken"
        for wire in held:
            if wire.sock is not refused_one:
                assert wire.send(b"x" * 48576).rest().startswith(b"HTTP/1.1 200 "), "so are those that were there before"
        assert on_the_wire(environment.url, begun + b"x" * 48576).startswith(b"HTTP/1.1 200 ")


def pieces(environment: Environment, api: str) -> list[int]:
    """Bytes of each body that is on its way into the store."""
    with environment.redis() as store:
        return [store.strlen(key) for key in store.scan_iter(f"{keys.prefix(api)}:u:*", count=1000)]


def test_large_bodies_that_need_no_check_pass_through_and_what_breaks_off_leaves_nothing(own_environment: Maker) -> None:
    environment = own_environment(max_body_bytes=str(2 << 20))
    with environment.redis() as store:
        Staged(store, "passing")
    known(environment, "passing")
    before = waiting(environment, "passing")
    lines = (b"Content-Type: a/b", b"Connection: close")
    begun = head("POST", "/passing", *lines, b"Content-Length: 2000000") + b"\r\n" + b"x" * 1_500_000
    # More of them than the gateway would hold: they do not lie in its memory.
    held = [Wire(environment).send(begun) for _ in range(12)]
    wait_until(lambda: len(on_way := pieces(environment, "passing")) == 12 and min(on_way) > 1_000_000, "the store has parts of all")
    for wire in held[:6]:
        wire.sock.close()
    wait_until(lambda: len(pieces(environment, "passing")) == 6, "what its caller left is gone")
    assert waiting(environment, "passing")[:3] == before[:3]
    for wire in held[6:]:
        assert wire.send(b"x" * 500_000).rest().startswith(b"HTTP/1.1 200 ")
    assert pieces(environment, "passing") == []
    # One that turns out to be too large, and one that was accepted before.
    endless = head("POST", "/passing", *lines, b"Transfer-Encoding: chunked") + b"\r\n" + (b"80000\r\n" + b"x" * 0x80000 + b"\r\n") * 5
    status, document = problem(on_the_wire(environment.url, endless))
    assert (status, document["code"]) == (413, "body_too_large")
    known_one = head("POST", "/passing", *lines, b"x-request-id: once", b"Content-Length: 2000000") + b"\r\n" + b"x" * 2_000_000
    for expected in (b"HTTP/1.1 200 ", b"HTTP/1.1 200 "):
        assert on_the_wire(environment.url, known_one).startswith(expected)
    assert on_the_wire(environment.url, known_one[:-1] + b"y").startswith(b"HTTP/1.1 409 ")
    assert pieces(environment, "passing") == []
    assert waiting(environment, "passing")[0] == before[0] + 7


# The queue -----------------------------------------------------------------------------------------------------------


def test_a_full_queue_takes_no_more_until_some_are_worked_off(own_environment: Maker) -> None:
    environment = own_environment(max_queued="50")
    with environment.redis() as store, environment.http() as web:
        full, other = Staged(store, "full"), Staged(store, "other")
        known(environment, "other")
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda n: web.post("/full", json={"n": n}, headers={"x-request-id": f"id{n}"}), range(100)))
        assert sorted(answer.status_code for answer in answers) == [200] * 50 + [503] * 50, "counted with the submit itself, not beside it"
        before = waiting(environment, "full")
        assert before[0] == 50
        document = refused(web.post("/full", json={}), 503, "queue_full")
        assert "50 requests of full are waiting" in document["detail"]
        assert "JUPYTER_CORTEX_MAX_QUEUED" in document["detail"]
        assert web.post("/full", json={}).headers["retry-after"] == "5"
        accepted = next(n for n, answer in enumerate(answers) if answer.status_code == 200)
        again = web.post("/full", json={"n": accepted}, headers={"x-request-id": f"id{accepted}"})
        assert again.json() == {"id": f"id{accepted}"}, "what was accepted is accepted"
        refused(web.post("/full", json={"n": -1}, headers={"x-request-id": f"id{accepted}"}), 409, "request_id_conflict")
        assert waiting(environment, "full") == before
        assert web.post("/other", json={}).status_code == 200, "it is that API's queue only"
        full.commit(take=1)
        assert web.post("/full", json={}).status_code == 200
        refused(web.post("/full", json={}), 503, "queue_full")
        other.cancel("none")


# The store's memory --------------------------------------------------------------------------------------------------


def test_above_the_watermark_nothing_is_accepted_and_everything_accepted_ends(own_environment: Maker, project: ProjectMaker, tmp_path: Path) -> None:
    environment = own_environment(store_max_bytes=str(64 << 20))
    project("filling", HOLDER).deploy(environment)
    go = tmp_path / "go"
    with environment.redis() as store, environment.http() as web:
        assert store.config_get("maxmemory") == {"maxmemory": str(64 << 20)}
        payload = {"until": str(go), "size": 1 << 20}
        running = web.post("/filling", json=payload, headers={"x-request-id": "running"}).json()["id"]
        wait_until(lambda: web.get(f"/filling/{running}").json()["status"] == "in_progress", "it runs")
        queued = [web.post("/filling", json=payload).json()["id"] for _ in range(2)]
        # To 93 %: above the watermark, and room for three results of 1 MB.
        for n in itertools.count():
            if int(store.info("memory")["used_memory"]) > (64 << 20) * 0.92:
                break
            store.set(f"filler{n}", b"x" * 500_000)
        answer = wait_until(lambda: answer if (answer := web.post("/filling", json=payload)).is_error else None, "the gateway sees it")
        document = refused(answer, 503, "store_full")
        assert answer.headers["retry-after"] == "5"
        assert "90%" in document["detail"]
        assert "JUPYTER_CORTEX_MEMORY_WATERMARK" in document["detail"]
        before = waiting(environment, "filling")
        refused(web.post("/filling", json=payload), 503, "store_full")
        assert web.post("/filling", json=payload, headers={"x-request-id": "running"}).json() == {"id": "running"}
        refused(web.post("/filling", json={}, headers={"x-request-id": "running"}), 409, "request_id_conflict")
        assert waiting(environment, "filling") == before
        go.touch()
        for request_id in (running, *queued):
            assert len(ended(web, f"/filling/{request_id}").json()["result"]["x"]) == 1 << 20
        refused(web.post("/filling", json=payload), 503, "store_full")
        store.delete(*store.keys("filler*"))
        wait_until(lambda: web.post("/filling", json={**payload, "size": 1}).status_code == 200, "there is room again")


def test_what_is_accepted_between_two_looks_at_the_memory_counts(own_environment: Maker) -> None:
    """Faster than once a second: 60 bodies of 1 MB at once do not fit into the half of 64 MB. What eight callers had under way when the store was
    measured may lie above it."""
    environment = own_environment(store_max_bytes=str(64 << 20), memory_watermark="0.5")
    with environment.redis() as store, environment.http() as web:
        Staged(store, "burst")
        known(environment, "burst")
        body, kind = b"x" * (1 << 20), {"content-type": "application/octet-stream"}
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: web.post("/burst", content=body, headers=kind).status_code, range(60)))
        assert set(statuses) == {200, 503}
        assert int(store.info("memory")["used_memory"]) < (32 + 8) << 20
        assert store.llen(keys.queue("burst")) == statuses.count(200)


# Logs ----------------------------------------------------------------------------------------------------------------

FLOOD = """
    import os
    import subprocess

    from cortex_internal.lib.log import logger


    class Handler:
        def handle_async(self, payload):
            for n in range(payload["lines"]):
                logger.info("line %d of a flood", n)
            if payload.get("native"):
                subprocess.run(f"yes | head -n {payload['native']}", shell=True)
            if payload.get("endless"):
                subprocess.run(f"head -c {payload['endless']} /dev/zero | tr '\\\\0' x", shell=True)
            if payload.get("fail"):
                raise ValueError("after the flood")
            return {}
"""


def test_a_flood_of_log_lines_takes_nobody_down_and_leaves_room_for_others(own_environment: Maker, project: ProjectMaker) -> None:
    environment = own_environment(log_rate="100")
    project("flood", FLOOD).deploy(environment)
    project("beside").deploy(environment)
    workers, replicas = ([p["pid"] for p in environment.processes(role, "flood")] for role in ("worker", "replica"))
    with environment.http() as web, environment.redis() as store:

        def said(text: str) -> list[str]:
            lines = logs.tail(store, "flood", 1_000_000)[0]
            return [message for line in lines if text in (message := str(json.loads(line).get("message")))]

        flood = web.post("/flood", json={"lines": 100_000, "native": 1_000_000, "endless": 50_000_000, "fail": True}).json()["id"]
        while web.get(f"/flood/{flood}").json()["status"] in ("in_queue", "in_progress"):
            assert ended(web, f"/beside/{web.post('/beside', json={}).json()['id']}").json()["status"] == "completed"
        assert web.get(f"/flood/{flood}").json()["error"]["message"] == "after the flood"
        wait_until(lambda: sum(int(note.split(" ")[0]) for note in said("left out")) > 1_000_000, "both floods are counted")
        assert all("JUPYTER_CORTEX_LOG_RATE" in note for note in said("left out"))
        assert 1000 <= len(said("of a flood")) < 10_000
        assert store.memory_usage(keys.logs("flood")) < 4 << 20
        own = environment.client().workload("flood", flood)
        lines = web.get(f"/_cortex/v1/apis/flood/workloads/{flood}/logs", headers={"authorization": f"Bearer {environment.token}"}).json()
        assert own["status"] == "failed"
        assert "line 2000 of a flood" in json.dumps(lines), "a failed workload keeps its own lines, up to 1 MB"
        after = web.post("/flood", json={"lines": 1}).json()["id"]
        assert ended(web, f"/flood/{after}").json()["status"] == "completed"
    assert [p["pid"] for p in environment.processes("worker", "flood")] == workers
    assert [p["pid"] for p in environment.processes("replica", "flood")] == replicas


def test_the_last_words_of_a_replica_are_kept_whatever_came_before_them(own_environment: Maker, project: ProjectMaker) -> None:
    environment = own_environment(log_rate="10")
    dies = """
        import os


        class Handler:
            def handle_async(self, payload):
                os.write(1, b"y\\n" * 300_000 + b"the very last word\\n")
                os._exit(3)
    """
    project("dying", dies, spec="max_deliveries: 1").deploy(environment)
    with environment.http() as web, environment.redis() as store:
        request_id = web.post("/dying", json={}).json()["id"]
        assert ended(web, f"/dying/{request_id}").json()["status"] == "failed"
        wait_until(lambda: any("the very last word" in line for line in logs.tail(store, "dying", 100_000)[0]), "it is in the log")


def test_large_batches_of_lines_do_not_fill_the_store(environment: Environment) -> None:
    with environment.redis() as store:
        api = Staged(store, "large-lines")
        shipper = Shipper(Home(environment.home).redis_url(), api.name)
        for n in range(30):
            shipper.put(json.dumps({"message": f"{n} " + "x" * 4_000_000}))
            wait_until(lambda: not shipper._lines, "it was taken")
        shipper.close()
        assert store.memory_usage(keys.logs(api.name)) < logs.BYTES + (10 << 20)
        lines = logs.tail(store, api.name, 100)[0]
        assert json.loads(lines[-1])["message"].startswith("29 "), "the last ones stay"
        # Who reads from the beginning learns that there was more.
        name = keys.logs(api.name)
        assert streams.cut(store, {name: streams.BEGINNING}, {name: logs.BATCHES}) == {name}
        store.delete(name)
