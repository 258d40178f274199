"""Large bodies are parsed beside the gateway: with the same words, without keeping anybody waiting, and whoever of the processes dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
import uvloop

from jupyter_cortex.core.errors import BodyCheckFailed, PayloadError
from jupyter_cortex.gateway import checkers
from jupyter_cortex.gateway.checkers import ATTEMPTS, MOST, Checkers
from jupyter_cortex.handler import payload
from tests.conftest import Environment, children, runs, wait_until

from .stage import Staged, known, staged
from .test_limits import Wire, head, problem
from .test_public_http import CASES, body_of, refused, waiting

#: Above PARSE_INLINE_BYTES of the gateway.
LARGE = json.dumps({"x": "y" * 300_000}).encode()
BROKEN = LARGE[:-1] + b"]"
JSON = {"content-type": "application/json"}


def processes(parent: int) -> list[psutil.Process]:
    """The checkers of a gateway, or of this process."""
    return children(parent, "jupyter_cortex.gateway.checker")


def gateway(environment: Environment) -> int:
    pid = environment.slot("gateway").pid()
    assert pid is not None
    return pid


def in_a_loop(use: Callable[[Checkers], Any]) -> Any:
    """Run a coroutine function on checkers of this process, on the gateway's loop; they are ended with it."""

    async def run() -> Any:
        made = Checkers()
        try:
            async with asyncio.timeout(120):
                return await use(made)
        finally:
            made.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run())
    wait_until(lambda: not processes(os.getpid()), "none of them is left")
    return found


async def under_way(made: Checkers) -> tuple[psutil.Process, asyncio.Task[None]]:
    """A checker that stands still, and the check of a broken body that waits for it."""
    await made.check(b"{}", "application/json")
    (checker,) = processes(os.getpid())
    checker.suspend()
    asked = asyncio.create_task(made.check(BROKEN, "application/json"))
    while made._idle:
        await asyncio.sleep(0)
    return checker, asked


def said(parse: Callable[[], object]) -> tuple[str, dict[str, Any]] | None:
    try:
        parse()
    except PayloadError as error:
        return error.message, error.details
    return None


def test_a_checker_says_of_every_body_what_the_parser_says_here() -> None:
    asked = [(body_of(case), case["content_type"]) for case in CASES]
    asked += [(LARGE, "application/json"), (BROKEN, "application/json"), (b"\xff" * 300_000, "text/plain"), (b"", "text/plain; charset=nonsense")]
    expected = [said(lambda body=body, kind=kind: payload.parse(body, kind)) for body, kind in asked]  # type: ignore[misc]
    assert None in expected
    assert len(set(filter(None, (one and one[0] for one in expected)))) > 10

    async def use(made: Checkers) -> list[tuple[str, dict[str, Any]] | None]:
        found: list[tuple[str, dict[str, Any]] | None] = []
        for body, kind in asked:
            try:
                await made.check(body, kind)
                found.append(None)
            except PayloadError as error:
                found.append((error.message, error.details))
        assert len(processes(os.getpid())) == 1, "one process has checked them all"
        return found

    assert in_a_loop(use) == expected


def test_whoever_breaks_off_leaves_no_answer_for_the_next_one() -> None:
    async def use(made: Checkers) -> None:
        first, broken_off = await under_way(made)
        broken_off.cancel()
        with pytest.raises(asyncio.CancelledError):
            await broken_off
        await made.check(LARGE, "application/json")
        wait_until(lambda: not runs(first.pid), "the one that was asked by him is gone")

    in_a_loop(use)


def test_who_is_being_checked_when_the_gateway_stops_is_told_so_and_who_waits_for_a_turn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(made: Checkers) -> None:
        await asyncio.gather(*(made.check(LARGE, "application/json") for _ in range(MOST)))
        there = processes(os.getpid())
        assert len(there) == MOST, "as many as were asked at once"
        for checker in there:
            checker.suspend()
        asked = [asyncio.create_task(made.check(LARGE, "application/json")) for _ in range(MOST + 1)]
        while made._idle:
            await asyncio.sleep(0)
        under_way, waits = asked[:MOST], asked[MOST]
        monkeypatch.setattr(checkers, "LAST_S", 60.0)
        made.end_waits()
        with pytest.raises(BodyCheckFailed, match="about to stop; nothing was accepted"):
            await waits
        assert not any(task.done() for task in under_way)
        monkeypatch.setattr(checkers, "LAST_S", 0.0)
        made.end_waits()
        for task in under_way:
            with pytest.raises(BodyCheckFailed, match="about to stop"):
                await task
        monkeypatch.undo()
        await made.check(LARGE, "application/json")  # one that comes now may still be in time

    in_a_loop(use)


def test_numbers_with_too_many_digits_are_found_at_the_end_of_64_mb() -> None:
    """Looking for them from each digit of each number took minutes: the check's own limit bounds that."""
    numbers = b"[" + b",".join([b"1" * 4300] * 15_000) + b"," + b"1" * 4301 + b"]"

    async def use(made: Checkers) -> None:
        with pytest.raises(PayloadError, match="more than 4300 digits") as refusal:
            await made.check(numbers, "application/json")
        assert refusal.value.details["offset"] == len(numbers) - 4302

    in_a_loop(use)


def test_no_more_than_so_many_check_at_once_and_those_that_are_idle_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(made: Checkers) -> None:
        await asyncio.gather(*(made.check(LARGE, "application/json") for _ in range(4 * MOST)))
        assert 1 <= len(processes(os.getpid())) <= MOST
        monkeypatch.setattr(checkers, "IDLE_S", 0.01)
        await asyncio.gather(*(made.check(LARGE, "application/json") for _ in range(MOST)))
        async with asyncio.timeout(30):
            while processes(os.getpid()):
                await asyncio.sleep(0.01)
        await made.check(LARGE, "application/json")

    in_a_loop(use)


def test_one_that_is_killed_over_a_body_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async def use(made: Checkers) -> None:
        first, asked = await under_way(made)
        first.kill()
        with pytest.raises(PayloadError, match="not valid JSON"):
            await asked

    in_a_loop(use)
    assert caplog.text.count("is gone") == 1


def test_one_that_was_killed_while_it_had_nothing_to_do_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async def use(made: Checkers) -> None:
        await made.check(LARGE, "application/json")
        (idle,) = processes(os.getpid())
        idle.kill()
        wait_until(lambda: not runs(idle.pid), "it is dead")
        await made.check(LARGE, "application/json")

    in_a_loop(use)
    assert "is gone" not in caplog.text, "that is no attempt"


@pytest.mark.parametrize("program", ["/bin/false", "/no/such/program"])
def test_a_checker_that_cannot_live_is_tried_so_often_and_then_told_to_the_caller(
    program: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", program)

    async def use(made: Checkers) -> None:
        with pytest.raises(BodyCheckFailed, match="nothing was accepted"):
            await made.check(LARGE, "application/json")

    in_a_loop(use)
    assert caplog.text.count("is gone") == ATTEMPTS


def test_while_large_bodies_are_checked_others_are_answered_and_a_wrong_one_is_refused_with_its_place(
    own_environment: Callable[..., Environment],
) -> None:
    environment = own_environment()
    with staged(environment, "checked") as api, environment.http() as web, ThreadPoolExecutor(2) as pool:
        assert web.post("/checked", content=LARGE, headers=JSON).status_code == 200
        document = refused(web.post("/checked", content=BROKEN, headers=JSON), 400, "invalid_payload")
        assert (document["kind"], document["line"], document["column"]) == ("json_decode", 1, len(BROKEN))
        (checker,) = processes(gateway(environment))
        checker.suspend()
        with environment.http() as other:
            large = pool.submit(other.post, "/checked", content=LARGE, headers=JSON)
            wait_until(lambda: checker.status() == psutil.STATUS_STOPPED, "it stands still")
            before = waiting(environment, "checked")
            for _ in range(50):
                request_id = web.post("/checked", json={}).json()["id"]
                assert web.get(f"/checked/{request_id}").json()["status"] == "in_queue"
            assert waiting(environment, "checked")[0] == before[0] + 50
            assert not large.done()
            checker.resume()
            accepted = large.result(60)
        assert accepted.status_code == 200
        assert api.store.get(f"cx:{{checked}}:b:{accepted.json()['id']}") == LARGE


def test_a_body_over_which_every_checker_is_killed_is_refused_and_nobody_else_notices(own_environment: Callable[..., Environment]) -> None:
    environment = own_environment()
    with staged(environment, "killed"), environment.http() as web, environment.http() as other, ThreadPoolExecutor(1) as pool:
        assert web.post("/killed", content=LARGE, headers=JSON).status_code == 200
        parent = gateway(environment)
        before = waiting(environment, "killed")
        # Its parse takes 0.3 s and more: nobody is so slow to kill.
        always = pool.submit(other.post, "/killed", content=json.dumps([[0]] * 5_000_000).encode(), headers=JSON)
        while not always.done():
            for process in processes(parent):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        document = refused(always.result(), 503, "body_check_failed")
        assert "nothing was accepted" in document["detail"]
        assert always.result().headers["retry-after"] == "5"
        assert waiting(environment, "killed") == before
        assert web.post("/killed", json={}).status_code == 200
        assert web.post("/killed", content=LARGE, headers=JSON).status_code == 200
        assert gateway(environment) == parent


def accepts(web: httpx.Client, path: str) -> bool:
    with contextlib.suppress(httpx.TransportError):  # it has just been started
        return web.post(path, content=LARGE, headers=JSON).status_code == 200
    return False


def test_no_checker_outlives_its_gateway(own_environment: Callable[..., Environment]) -> None:
    environment = own_environment()
    with staged(environment, "outlived"), environment.http() as web:
        for end in (signal.SIGKILL, signal.SIGTERM):
            parent = gateway(environment)
            wait_until(lambda: accepts(web, "/outlived"), "the gateway answers")
            (checker,) = processes(parent)
            checker.suspend()  # it sees nothing of its socket
            os.kill(parent, end)
            wait_until(lambda checker=checker: not runs(checker.pid), "the checker is gone with it")
            wait_until(lambda parent=parent: (now := environment.slot("gateway").pid()) is not None and now != parent, "another gateway is there")
        wait_until(lambda: accepts(web, "/outlived"), "the last one answers, too")


def test_a_gateway_that_is_told_to_stop_refuses_what_it_cannot_check_in_time(own_environment: Callable[..., Environment]) -> None:
    environment = own_environment()
    whole = head("POST", "/stopped", b"Content-Type: application/json", b"Content-Length: %d" % len(LARGE), b"Connection: close") + b"\r\n" + LARGE
    with staged(environment, "stopped"), environment.http() as web:
        assert web.post("/stopped", content=LARGE, headers=JSON).status_code == 200
        before, parent = waiting(environment, "stopped"), gateway(environment)
        (checker,) = processes(parent)
        checker.suspend()
        wire = Wire(environment).send(whole)
        for _ in range(3):
            assert web.get("/healthz").status_code == 200, "what came before it has been read, too"
        os.kill(parent, signal.SIGTERM)
        status, document = problem(wire.rest())
        assert (status, document["code"]) == (503, "body_check_failed")
        assert "about to stop; nothing was accepted" in document["detail"]
        wait_until(lambda: not runs(checker.pid), "its checker is gone")
        assert waiting(environment, "stopped") == before
        wait_until(lambda: accepts(web, "/stopped"), "another gateway is there")


def test_bodies_that_wait_for_their_check_count_as_being_on_their_way(own_environment: Callable[..., Environment]) -> None:
    environment = own_environment(max_body_bytes=str(1 << 20))
    with environment.redis() as store:
        Staged(store, "many")
    known(environment, "many")
    body = json.dumps("x" * 1_000_000).encode()
    whole = head("POST", "/many", b"Content-Type: application/json", b"Content-Length: %d" % len(body), b"Connection: close") + b"\r\n" + body
    with environment.http() as web, ThreadPoolExecutor(MOST) as pool:

        def so_many() -> bool:
            assert all(answer.status_code == 200 for answer in pool.map(lambda _: web.post("/many", content=body, headers=JSON), range(8)))
            return len(processes(gateway(environment))) == MOST

        wait_until(so_many, "there are as many checkers as there may be")
        there = processes(gateway(environment))
        for checker in there:
            checker.suspend()
        held = [Wire(environment).send(whole) for _ in range(9)]
        (refused_one,) = wait_until(lambda: select.select([wire.sock for wire in held], [], [], 0)[0], "one is refused")
        status, document = problem(next(wire for wire in held if wire.sock is refused_one).rest())
        assert (status, document["code"]) == (503, "too_many_bodies")
        for checker in there:
            checker.resume()
        for wire in held:
            if wire.sock is not refused_one:
                assert wire.rest().startswith(b"HTTP/1.1 200 ")
