"""Bodies on their way to the store, with a connection that loses and reorders what is sent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from jupyter_cortex.core.errors import StoreUnavailable
from jupyter_cortex.operator.home import Home
from jupyter_cortex.operator.processes import Slot
from jupyter_cortex.serving.intake import Intake
from jupyter_cortex.serving.line import Line
from jupyter_cortex.serving.upload import AHEAD_BYTES, LEAST_BYTES, MOST_BYTES, PIECE_BYTES, QUICK_S, SLOW_S, UNDER_WAY, Upload
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


# On a connection of its own ------------------------------------------------------------------------------------------------------------------


def intake_of(home: Home, store_wait: float = 5.0, url: str = "") -> Intake:  # noqa: F811
    return Intake(url or home.redis_url(), store_wait, 1000, 0.9)


async def send_body(intake: Intake, request_id: str, body: bytes, size: int = LEAST_BYTES) -> str:
    upload = intake.upload(API, request_id)
    assert upload is not None
    try:
        for at in range(0, len(body), size):
            await upload.add(body[at : at + size])
        return await intake.submit_upload("a/b", upload)
    except BaseException:
        await upload.abandon()
        raise


def appended(store: redis.Redis) -> int:
    """How many pieces went without the script, which appends, too."""
    calls: Any = store.info("commandstats")
    return int(calls.get("cmdstat_append", {"calls": 0})["calls"] - calls.get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_after_the_first_piece_the_script_is_not_asked_any_more(home: Home, client: redis.Redis) -> None:  # noqa: F811
    body = random.Random(5).randbytes(20 * LEAST_BYTES + 7)

    async def run() -> str:
        intake = intake_of(home)
        said = await send_body(intake, "a", body)
        await intake.close()
        return said

    assert asyncio.run(run()) == "ok"
    assert client.get(keys.body(API, "a")) == body
    assert appended(client) > 10
    assert client.ttl(keys.body(API, "a")) == -1


def test_a_body_is_the_same_whole_and_in_pieces_of_any_size(home: Home, client: redis.Redis) -> None:  # noqa: F811
    body = random.Random(8).randbytes(3 * PIECE_BYTES + 5)

    async def run() -> list[str]:
        intake = intake_of(home)
        said = [
            await send_body(intake, "a", body),
            await send_body(intake, "a", body, 3 * LEAST_BYTES + 1),
            await intake.submit(API, "a", "a/b", body),
            await send_body(intake, "a", body[:-1] + b"?"),
            await send_body(intake, "b", body[:1000]),
            await intake.submit(API, "b", "a/b", body[:1000]),
            await intake.submit(API, "b", "a/b", body[1:1001]),
        ]
        await intake.close()
        return said

    assert asyncio.run(run()) == ["ok", "same", "same", "conflict", "ok", "same", "conflict"]


def test_pieces_that_are_under_way_fit_into_the_socket_to_a_store_on_this_machine(home: Home, client: redis.Redis) -> None:  # noqa: F811
    most = int(Path("/proc/sys/net/core/wmem_max").read_text())

    async def given(ahead: int) -> int:
        line = Line(home.redis_url(), 5.0, ahead)
        await line.call(("PING",))
        assert line._writer is not None
        given = int(line._writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
        await line.close()
        return given

    assert asyncio.run(given(AHEAD_BYTES)) >= min(AHEAD_BYTES, most)
    assert asyncio.run(given(0)) == int(Path("/proc/sys/net/core/wmem_default").read_text())


def faults(first: str) -> int:
    """How many pages a process is given anew while it makes and drops four pieces of a body, 50 times over."""
    probe = f"""
import resource
{first}
def four(): return [b"x" * {MOST_BYTES} for _ in range(4)]
for _ in range(5): four()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50): four()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    return int(subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="another C library, whose memory is left as it is")
def test_pieces_of_a_body_reuse_the_memory_of_those_before_them() -> None:
    pages = 50 * 4 * MOST_BYTES // os.sysconf("SC_PAGE_SIZE")
    assert faults("") > pages / 2, "what the C library does by itself; where it has learned better, the gateway need not tell it"
    assert faults("from jupyter_cortex.gateway.buffers import keep_in_hand; keep_in_hand()") < pages / 20


def test_connections_that_are_cut_leave_every_body_as_it_was_or_nothing_of_it(home: Home, client: redis.Redis) -> None:  # noqa: F811
    dice = random.Random(6)
    bodies = {f"r{number}": dice.randbytes(dice.randrange(2, 30) * LEAST_BYTES // 2) for number in range(60)}
    outcomes: dict[str, str] = {}

    async def run() -> int:
        intake, cuts, over = intake_of(home), 0, asyncio.Event()

        async def cut() -> None:
            nonlocal cuts
            while not over.is_set():
                await asyncio.sleep(dice.uniform(0, 0.02))
                cuts += await asyncio.to_thread(client.execute_command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        cutting = asyncio.create_task(cut())
        for request_id, body in bodies.items():
            try:
                outcomes[request_id] = await send_body(intake, request_id, body)
            except StoreUnavailable:
                outcomes[request_id] = ""
        over.set()
        await cutting
        await intake.close()
        return cuts

    assert asyncio.run(run()) > 10
    # "same": it was accepted, and the answer was lost.
    assert set(outcomes.values()) <= {"ok", "same", ""}
    assert sum(map(bool, outcomes.values())) > len(bodies) / 2
    for request_id, body in bodies.items():
        assert client.get(keys.body(API, request_id)) == (body if outcomes[request_id] else None), request_id
    assert not list(client.scan_iter(f"{keys.prefix(API)}:u:*"))


def test_a_store_that_stood_still_has_each_piece_once(home: Home, client: redis.Redis) -> None:  # noqa: F811
    body = random.Random(7).randbytes(12 * LEAST_BYTES)
    store = Slot(home.run, "store").pid()
    assert store

    async def run() -> str:
        intake = intake_of(home, 1.0)
        upload = intake.upload(API, "a")
        assert upload is not None
        for at in range(0, 4 * LEAST_BYTES, LEAST_BYTES):
            await upload.add(body[at : at + LEAST_BYTES])
        await upload.settle()
        epoch = intake._bulk.epoch
        assert epoch
        os.kill(store, signal.SIGSTOP)
        try:
            await upload.add(body[4 * LEAST_BYTES : 5 * LEAST_BYTES])
            while intake._bulk.epoch == epoch:  # until nobody believes in that connection any more
                await asyncio.sleep(0.01)
        finally:
            os.kill(store, signal.SIGCONT)
        for at in range(5 * LEAST_BYTES, len(body), LEAST_BYTES):
            await upload.add(body[at : at + LEAST_BYTES])
        said = await intake.submit_upload("a/b", upload)
        await intake.close()
        return said

    assert asyncio.run(run()) == "ok"
    assert client.get(keys.body(API, "a")) == body


def test_a_connection_ends_the_one_before_it(home: Home, client: redis.Redis) -> None:  # noqa: F811
    """One that was lost here may still be open there, with commands that a stalled server has not read."""

    async def run() -> tuple[int, int]:
        line = Line(home.redis_url(), 5.0)
        (first,) = await line.call(("CLIENT", "ID"))
        lost, line._writer = line._writer, None
        (second,) = await line.call(("CLIENT", "ID"))
        assert line.epoch == 2
        assert {int(one["id"]) for one in client.client_list()} & {first, second} == {second}
        assert lost is not None
        lost.close()
        await line.close()
        return first, second

    first, second = asyncio.run(run())
    assert first != second


@pytest.mark.parametrize("forbidden", ["client", "info"])
def test_who_may_not_end_a_connection_sends_by_the_script(forbidden: str, home: Home, client: redis.Redis) -> None:  # noqa: F811
    client.acl_setuser("limited", enabled=True, passwords=["+open"], keys=["*"], channels=["*"], categories=["+@all"], commands=[f"-{forbidden}"])
    url = home.redis_url().replace("unix://", "unix://limited:open@")
    body = random.Random(8).randbytes(9 * LEAST_BYTES)

    async def run() -> str:
        intake = intake_of(home, url=url)
        said = await send_body(intake, "a", body)
        assert intake._bulk.epoch == 0
        await intake.close()
        return said

    assert asyncio.run(run()) == "ok"
    assert client.get(keys.body(API, "a")) == body
    assert appended(client) < 0


def test_what_may_be_appended_once_more_is_refused(home: Home, client: redis.Redis) -> None:  # noqa: F811
    async def run() -> None:
        intake = intake_of(home)
        upload = intake.upload(API, "a")
        assert upload is not None
        for _ in range(3):
            await upload.add(b"x" * 1000)
            await upload.settle()
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        intake._bulk.haunted = True
        await upload.add(b"y" * 1000)
        with pytest.raises(StoreUnavailable, match="lost parts"):
            await upload.settle()
        await upload.abandon()
        await intake.close()

    asyncio.run(run())
    assert not list(client.scan_iter(f"{keys.prefix(API)}:u:*"))


class Parted:
    """A store that runs what it is sent at once and answers later.

    By their numbers: the commands that it refuses, those whose reply goes with the connection, and those that come late, as does what is tried again
    after a while.
    """

    def __init__(self, *, refused: set[int], lost: set[int], late: set[int]) -> None:
        self.refused, self.lost, self.late = refused, lost, late
        self.value, self.told, self.epoch, self.haunted = b"", 0, 1, False

    def _run(self, command: tuple[Any, ...]) -> int:
        if command[0] == "APPEND":
            self.value += command[2]
            return len(self.value)
        if command[0] == "UNLINK":
            return 1
        offset, piece = command[6], command[7]
        if len(self.value) == offset:
            self.value += piece
        elif len(self.value) >= offset + len(piece) and self.value[offset : offset + len(piece)] != piece:
            return -1
        return len(self.value)

    async def call(self, command: tuple[Any, ...]) -> Any:
        self.told += 1
        if self.told in self.late:
            await asyncio.sleep(0.05)
        said = self._run(command)
        await asyncio.sleep(0.005)
        return said

    def at_once(self, epoch: int, command: tuple[Any, ...]) -> Any:
        if epoch != self.epoch:
            return None
        self.told += 1
        number, said = self.told, self._run(command) if self.told not in self.refused else 0

        async def answer() -> list[int]:
            await asyncio.sleep(0.01)
            if number in self.refused:
                raise redis.ResponseError("OOM command not allowed")
            if number in self.lost or epoch != self.epoch:
                self.epoch += 1
                raise ConnectionResetError
            return [said]

        return asyncio.get_running_loop().create_task(answer())


@pytest.mark.parametrize("seed", range(150))
def test_whatever_is_refused_late_or_lost_a_body_is_whole_or_refused(seed: int) -> None:
    """All pieces have one length: no count of bytes tells one that stands in another one's place."""
    dice = random.Random(seed)
    some = lambda: set(dice.sample(range(1, 12), dice.randrange(3)))  # noqa: E731
    store = Parted(refused=some(), lost=some(), late=some())
    pieces = [bytes([number]) * 100 for number in range(8)]

    async def run() -> bool:
        upload = Upload(store.call, API, "a", store)
        try:
            for piece in pieces:
                await asyncio.sleep(dice.choice((0.0, 0.02)))
                await upload.add(piece)
            await upload.settle()
        except StoreUnavailable:
            await upload.abandon()
            return False
        return len(store.value) == upload.size  # what submit.lua asks

    if asyncio.run(run()):
        assert store.value == b"".join(pieces)
    else:
        assert store.refused | store.lost, "nothing was refused or lost, and it is not there"
