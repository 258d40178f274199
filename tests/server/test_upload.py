"""Bodies on their way to the store, with a connection that loses and reorders what is sent."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import redis

from jupyter_cortex.core.errors import StoreUnavailable
from jupyter_cortex.serving.upload import LEAST_BYTES, MOST_BYTES, PIECE_BYTES, QUICK_S, SLOW_S, UNDER_WAY, Upload
from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import PIECE, SUBMIT

from .test_engine import API, client, home  # noqa: F401 (fixtures)


class Road:
    """Calls the real store. ``before``: what happens on the way of the n-th call."""

    def __init__(self, store: redis.Redis) -> None:
        self.store, self.calls, self.under_way, self.most = store, 0, 0, 0
        self.before: dict[int, Any] = {}
        store.execute_command("SCRIPT LOAD", PIECE.source)

    async def __call__(self, command: tuple[Any, ...]) -> Any:
        self.calls += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if (happens := self.before.get(self.calls)) is not None:
                await happens()
            return await asyncio.to_thread(self.store.execute_command, *command)
        finally:
            self.under_way -= 1


@pytest.fixture
def road(client: redis.Redis) -> Road:  # noqa: F811
    return Road(client)


PIECES = [random.Random(3).randbytes(size) for size in (300, 1, 250, 4000)]


async def send(road: Road) -> Upload:
    upload = Upload(road, API, "a")
    for piece in PIECES:
        await upload.add(piece)
    await upload.settle()
    return upload


def accepted(road: Road, upload: Upload) -> bytes | None:
    """The body that the submit made of it."""
    assert SUBMIT.run(road.store, API, "a", "a/b", upload.digest, -upload.size, upload.token) == b"ok"
    return road.store.get(keys.body(API, "a"))


def test_pieces_travel_beside_each_other_and_arrive_in_their_order(road: Road) -> None:
    assert accepted(road, asyncio.run(send(road))) == b"".join(PIECES)
    assert road.most == UNDER_WAY


@pytest.mark.parametrize("late", range(1, len(PIECES)))
def test_a_piece_that_is_overtaken_is_waited_for(late: int, road: Road) -> None:
    async def run() -> Upload:
        overtaken = asyncio.Event()
        road.before = {late: overtaken.wait, late + 2: lambda: _set(overtaken)}
        asyncio.get_running_loop().call_later(0.2, overtaken.set)
        return await send(road)

    assert accepted(road, asyncio.run(run())) == b"".join(PIECES)


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_what_the_store_has_lost_is_refused(road: Road) -> None:
    async def forget() -> None:
        road.store.flushall()
        road.store.execute_command("SCRIPT LOAD", PIECE.source)

    road.before = {4: forget}
    with pytest.raises(StoreUnavailable, match="lost parts"):
        asyncio.run(send(road))


def test_what_is_abandoned_is_gone_also_when_the_store_was_away(road: Road) -> None:
    async def away() -> None:
        raise StoreUnavailable("away")

    async def run() -> None:
        upload = Upload(road, API, "a")
        road.before = {3: away}
        for piece in PIECES[:3]:
            await upload.add(piece)
        with pytest.raises(StoreUnavailable):
            await upload.settle()
        assert road.store.strlen(keys.upload(API, "a", upload.token)) == sum(map(len, PIECES[:2]))
        await upload.abandon()

    asyncio.run(run())
    assert not list(road.store.scan_iter(f"{keys.prefix(API)}:u:*"))


@pytest.mark.parametrize("size", [300_000, 1_500_000, 2_000_000, 3_000_000])
def test_a_body_takes_no_more_memory_than_the_allocator_must_give(road: Road, size: int) -> None:
    """A string that grew holds room for as much again, 1 MB at most. Allocators round up by a quarter at most; 1 kB is for key and object."""
    body = random.Random(size).randbytes(size)

    async def sent() -> Upload:
        upload = Upload(road, API, "a")
        for at in range(0, size, PIECE_BYTES):
            await upload.add(body[at : at + PIECE_BYTES])
        await upload.settle()
        return upload

    upload = asyncio.run(sent())
    assert accepted(road, upload) == body
    key = keys.body(API, "a")
    assert road.store.ttl(key) == -1
    assert not road.store.exists(keys.upload(API, "a", upload.token))
    spare = 0 if size < 2 << 20 else 1 << 20
    assert road.store.memory_usage(key) < (size + spare) * 1.25 + 1000


def test_pieces_grow_while_the_store_is_quick_and_shrink_when_it_is_slow(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    monkeypatch.setattr("jupyter_cortex.serving.upload.perf_counter", lambda: times.pop())

    async def run() -> list[int]:
        upload, wanted = Upload(road, API, "a"), []
        for took in (QUICK_S / 2, QUICK_S / 2, QUICK_S / 2, QUICK_S / 2, SLOW_S * 2, SLOW_S * 2, (QUICK_S + SLOW_S) / 2):
            times[:] = [took, 0.0]
            await upload.add(b"x")
            await upload.settle()
            wanted.append(upload.wanted)
        return wanted

    assert asyncio.run(run()) == [LEAST_BYTES * factor for factor in (2, 4, 8, 8, 4, 2, 2)]
    assert MOST_BYTES == 8 * LEAST_BYTES
