"""A long poll misses no end, whenever it comes, and waits for nothing once it has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest
import redis

from jupyter_cortex.core.errors import StoreUnavailable
from jupyter_cortex.operator.home import Home
from jupyter_cortex.serving.intake import Found, Intake
from jupyter_cortex.serving.line import Line
from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import CANCEL

from ..conftest import wait_until
from .test_engine import API, client, home, submit  # noqa: F401 (fixtures)

#: The wait's own end is out of reach: what is answered was told.
HOUR_S, PATIENCE_S = 3600.0, 30.0
#: What a line loads when it has connected.
SCRIPTS = 5


@pytest.fixture
def queued(client: redis.Redis) -> str:  # noqa: F811
    assert submit(client, "a") == "ok"
    return "a"


def end(store: redis.Redis) -> None:
    assert CANCEL.run(store, API, "a", 3600, 0) == b"cancelled"


def polled(url: str, change: Callable[[Intake], Awaitable[None]]) -> str:
    """What a long poll answers, once ``change`` has had its way with the intake."""

    async def poll() -> Found | None:
        intake = Intake(url, 5.0, 1000, 0.9)
        try:
            await change(intake)
            async with asyncio.timeout(PATIENCE_S):
                return await intake.wait(API, "a", HOUR_S)
        finally:
            await intake.close()

    found = asyncio.run(poll())
    assert found is not None
    return found.status


def test_an_end_between_the_first_look_and_the_subscription_is_seen(home: Home, client: redis.Redis, queued: str) -> None:  # noqa: F811
    async def end_in_between(intake: Intake) -> None:
        looked = asyncio.Event()
        get, of = intake.get, intake._ends.of

        async def look(*about: Any) -> Found | None:
            found = await get(*about)
            looked.set()
            return found

        @asynccontextmanager
        async def late(name: str) -> AsyncIterator[Any]:
            await looked.wait()
            if client.exists(keys.body(API, queued)):
                end(client)
            async with of(name) as ended:
                yield ended

        intake.get, intake._ends.of = look, late  # type: ignore[method-assign]

    assert polled(home.redis_url(), end_in_between) == "cancelled"


def test_an_end_after_the_subscription_is_told(home: Home, client: redis.Redis, queued: str) -> None:  # noqa: F811
    async def end_when_heard(intake: Intake) -> None:
        async def once_somebody_listens() -> None:
            while not client.pubsub_numsub(keys.done_channel(API, queued))[0][1]:
                await asyncio.sleep(0.01)
            end(client)

        intake.ending = asyncio.create_task(once_somebody_listens())  # type: ignore[attr-defined]

    assert polled(home.redis_url(), end_when_heard) == "cancelled"


def test_what_has_ended_is_answered_at_the_first_look(home: Home, client: redis.Redis, queued: str) -> None:  # noqa: F811
    looks = []

    async def count(intake: Intake) -> None:
        end(client)
        get = intake.get

        async def look(*about: Any) -> Found | None:
            looks.append(about)
            return await get(*about)

        intake.get = look  # type: ignore[method-assign]

    assert polled(home.redis_url(), count) == "cancelled"
    assert len(looks) == 1
    wait_until(lambda: client.pubsub_channels() == [], "nobody listens any more")


def test_what_is_accepted_since_the_last_look_stays_below_the_watermark_however_the_store_rounds_up(home: Home, client: redis.Redis) -> None:  # noqa: F811
    most, body = 64 << 20, b"x" * (1 << 20)
    client.config_set("maxmemory", most)

    async def fill() -> list[str]:
        intake = Intake(home.redis_url(), 5.0, 1000, 0.5)
        try:
            await intake.measure()
            return [await intake.submit(API, str(number), "a/b", body) for number in range(40)]
        finally:
            await intake.close()

    try:
        assert set(asyncio.run(fill())) == {"ok", "store_full"}
        wait_until(lambda: int(client.info("memory")["used_memory"]) <= most // 2, "no more than the watermark is taken")
    finally:
        client.config_set("maxmemory", 0)


def test_a_store_that_is_not_there_is_told_once_and_leaves_no_noise(
    home: Home,  # noqa: F811
    client: redis.Redis,  # noqa: F811
    queued: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ask() -> str:
        intake = Intake(home.redis_url() + ".gone", 0.1, 1000, 0.9)
        try:
            await intake.wait(API, queued, 0.2)
        except Exception as error:
            return type(error).__name__
        finally:
            await intake.close()
        return ""

    assert asyncio.run(ask()) == "StoreUnavailable"
    assert "never retrieved" not in caplog.text


def test_all_who_wait_for_a_store_that_never_answers_wait_for_one_attempt() -> None:
    attempts: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(writer)

    async def ask() -> list[Any]:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        intake = Intake(f"redis://127.0.0.1:{port}/0", 0.2, 1000, 0.9)
        answers = await asyncio.gather(*(intake.get(API, str(one)) for one in range(20)), return_exceptions=True)
        await intake.close()
        for writer in attempts:
            writer.close()
        server.close()
        return answers

    assert all(isinstance(answer, StoreUnavailable) for answer in asyncio.run(ask()))
    assert len(attempts) == 1, "one after the other, the last would wait for 20 of them"


def test_a_connection_that_is_lost_as_soon_as_it_is_there_gives_nobody_another_s_reply() -> None:
    """Replies are matched in order: one who waits without having asked would be given the next one's."""
    connections = 0

    async def store(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        first, scripts, parser = connections == 1, 0, hiredis.Reader()
        while data := await reader.read(1 << 16):
            parser.feed(data)
            while (command := parser.gets()) is not False:
                scripts += command[0] == b"SCRIPT"
                writer.write(b"$%d\r\n%b\r\n" % (len(command[1]), command[1]) if command[0] == b"ECHO" else b"+OK\r\n")
                if first and scripts == SCRIPTS:
                    writer.close()
                    return

    async def ask() -> list[str]:
        server = await asyncio.start_server(store, "127.0.0.1", 0)
        line = Line(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", PATIENCE_S)

        async def echo(name: str) -> str:
            while True:
                try:
                    return str((await line.call(("ECHO", name)))[0].decode())
                except OSError:
                    pass

        asking = []
        for name in ("alice", "bob", "carol"):
            asking.append(asyncio.create_task(echo(name)))
            await asyncio.wait(asking, timeout=0.2)  # one after the other, also where the first one is not answered
        heard = list(await asyncio.gather(*asking))
        await line.close()
        server.close()
        return heard

    assert asyncio.run(ask()) == ["alice", "bob", "carol"]
    assert connections == 2
