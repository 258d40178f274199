"""The engine's promises, on both store servers: atomic moves, no lost reply, no hoarded work, no innocent failed."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.operator.embedded import EmbeddedStore
from jupyter_cortex.operator.home import Home
from jupyter_cortex.serving.board import Board
from jupyter_cortex.serving.broker import CortexConsumer, Delivery, Terms
from jupyter_cortex.serving.reclaim import reclaim
from jupyter_cortex.store import keys
from jupyter_cortex.store.records import Records, quantile
from jupyter_cortex.store.scripts import CANCEL, COMMIT, SUBMIT

from ..conftest import wait_until

API = "engine"
SPEC = check_specs([{"name": API, "kind": "AsyncAPI", "handler": {"type": "python", "path": "h.py"}}], ["h.py"])[0].resolved()


@pytest.fixture
def home(tmp_path: Path, store_server: str) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    made.make()
    store = EmbeddedStore(made, server=store_server)
    store.start()
    store.wait()
    yield made
    store.stop()


@pytest.fixture
def client(home: Home) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(home.redis_url())
    made.hset(keys.api(API), mapping={"gate": "open"})
    yield made
    made.close()


def submit(client: redis.Redis, request_id: str, body: bytes = b"{}", content_type: str = "application/json", digest: str = "d") -> str:
    return SUBMIT.run(client, API, request_id, content_type, digest, len(body), body).decode()


def status(client: redis.Redis, request_id: str) -> str:
    return str(Records(client).get(API, request_id).status)


class Handling:
    """A consumer in a thread, handling deliveries by hand."""

    def __init__(self, url: str, replica: str = "r1", threads: int = 1) -> None:
        self.waiting: list[Delivery] = []
        self.consumer = CortexConsumer(url, Terms(API, replica, 1), threads, self._take_back)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            message = next(self.consumer)
            if message is not None:
                self.waiting.append(message.args[0])
                self.messages = {**getattr(self, "messages", {}), message.args[0].id: message}

    def _take_back(self) -> list[Delivery]:
        taken, self.waiting = [d for d in self.waiting if not d.began], [d for d in self.waiting if d.began]
        return taken

    def next(self) -> Delivery:
        delivery = wait_until(lambda: next((d for d in self.waiting if not d.began), None), "a delivery comes")
        delivery.began = time.perf_counter()
        if not delivery.marked:
            self.consumer.began(delivery)
        return delivery

    def finish(self, delivery: Delivery, result: bytes = b'{"ok": 1}', run_ms: float = 1.0) -> None:
        delivery.status, delivery.result, delivery.run_ms = "completed", result, run_ms
        self.waiting.remove(delivery)
        self.consumer.ack(self.messages[delivery.id])

    def close(self) -> None:
        self._stop = True
        self.consumer.poke()
        self._thread.join(10)
        self.consumer.close()


@pytest.fixture
def handling(home: Home, client: redis.Redis) -> Iterator[Handling]:
    made = Handling(home.redis_url())
    yield made
    made.close()


def test_a_submit_stores_record_payload_and_place_in_the_queue_at_once(client: redis.Redis) -> None:
    assert submit(client, "a", b'{"x": 1}') == "ok"
    record = Records(client).get(API, "a")
    assert (record.status, record.content_type, record.size, record.run) == ("in_queue", "application/json", 8, 1)
    assert Records(client).payload(API, "a") == ("application/json", b'{"x": 1}')
    assert client.lrange(keys.queue(API), 0, -1) == [b"a"]
    assert [event["state"] for event in Records(client).events(API, "0-0")] == ["in_queue"]


def test_the_same_submit_twice_queues_once_and_another_body_conflicts(client: redis.Redis) -> None:
    assert [submit(client, "a"), submit(client, "a")] == ["ok", "same"]
    assert submit(client, "a", digest="other") == "conflict"
    assert submit(client, "a", content_type="text/plain") == "conflict"
    assert client.llen(keys.queue(API)) == 1


@pytest.mark.parametrize(("gate", "outcome"), [("closed", "not_live"), (None, "unknown")])
def test_nothing_is_stored_for_an_api_that_does_not_take_it(client: redis.Redis, gate: str | None, outcome: str) -> None:
    client.delete(keys.api(API))
    if gate:
        client.hset(keys.api(API), "gate", gate)
    before = sorted(client.keys())
    assert submit(client, "a") == outcome
    assert sorted(client.keys()) == before


def test_a_workload_goes_through_its_states_and_leaves_only_keys_that_expire(client: redis.Redis, handling: Handling) -> None:
    submit(client, "a", b'{"x": 1}')
    delivery = handling.next()
    assert (delivery.body, delivery.content_type) == (b'{"x": 1}', "application/json")
    wait_until(lambda: status(client, "a") == "in_progress", "the start mark is committed")
    handling.finish(delivery, b'{"y": 2}')
    wait_until(lambda: status(client, "a") == "completed", "the end is committed")
    record = Records(client).get(API, "a")
    assert (record.attempts, record.replica, record.version) == (1, "r1", 1)
    assert Records(client).details(API, "a")["result"] == {"y": 2}
    assert Records(client).payload(API, "a") is None
    assert client.exists(keys.held(API, "r1")) == 0
    for key in client.scan_iter(f"{keys.prefix(API)}:[wbre]:*"):
        assert client.ttl(key) > 6 * 86400, key
    assert [event["state"] for event in Records(client).events(API, "0-0")] == ["in_queue", "in_progress", "completed"]
    row = Records(client).history(API, 5)[-1]
    assert (row["accepted"], row["completed"], row["failed"]) == (1, 1, 0)
    assert row["wait_p50_ms"] is not None


def test_a_prefetched_workload_stays_in_queue_until_its_handler_begins(client: redis.Redis, handling: Handling) -> None:
    submit(client, "first")
    first = handling.next()
    handling.finish(first, run_ms=0.01)  # quick handlers make the consumer look ahead
    wait_until(lambda: status(client, "first") == "completed", "the first ended")
    for name in ("second", "third"):
        submit(client, name)
    handling.next()
    wait_until(lambda: status(client, "second") == "in_progress", "the second runs")
    assert status(client, "third") == "in_queue"


def test_what_waits_behind_a_slow_handler_goes_back_for_another_replica(home: Home, client: redis.Redis, handling: Handling) -> None:
    submit(client, "quick")
    handling.finish(handling.next(), run_ms=0.01)
    wait_until(lambda: status(client, "quick") == "completed", "the first ended")
    client.delete(keys.wake(API))
    for name in ("slow", "b", "c"):
        submit(client, name)
    slow = handling.next()
    other = Handling(home.redis_url(), "r2")
    try:
        done = set()
        for _ in range(2):
            delivery = other.next()
            done.add(delivery.id)
            other.finish(delivery)
        assert done == {"b", "c"}
        wait_until(lambda: {status(client, name) for name in ("b", "c")} == {"completed"}, "the other replica did them")
    finally:
        other.close()
    assert status(client, "slow") == "in_progress"
    handling.finish(slow)
    wait_until(lambda: status(client, "slow") == "completed", "the slow one ended")


def test_a_cancel_that_was_committed_first_wins_over_the_end(client: redis.Redis, handling: Handling) -> None:
    submit(client, "a")
    delivery = handling.next()
    assert CANCEL.run(client, API, "a", 60, 0) == b"cancelled"
    handling.finish(delivery)
    wait_until(lambda: client.exists(keys.held(API, "r1")) == 0, "the end was committed")
    assert status(client, "a") == "cancelled"
    assert client.exists(keys.result(API, "a")) == 0


def test_a_cancelled_workload_never_runs(client: redis.Redis, handling: Handling) -> None:
    submit(client, "running")
    running = handling.next()
    submit(client, "gone")
    submit(client, "stays")
    assert CANCEL.run(client, API, "gone", 60, 0) == b"cancelled"
    handling.finish(running, run_ms=1000)
    assert handling.next().id == "stays"
    assert CANCEL.run(client, API, "running", 60, 0) in (b"completed", b"cancelled")


def test_a_lost_reply_leaves_nothing_behind(home: Home, client: redis.Redis) -> None:
    """A fetch whose reply never came leaves ids under our name; the next connection gives them back."""
    submit(client, "a")
    COMMIT.run(client, API, "r1", 1, 60, "failed", -1, "queue", 1, 1, 0, 0, 0)
    assert (client.llen(keys.queue(API)), client.smembers(keys.held(API, "r1"))) == (0, {b"a"})
    handling = Handling(home.redis_url())
    try:
        delivery = handling.next()
        assert delivery.id == "a"
        handling.finish(delivery)
        wait_until(lambda: status(client, "a") == "completed", "it ended")
    finally:
        handling.close()


def test_an_end_that_the_store_could_not_take_is_told_when_it_is_back(client: redis.Redis, handling: Handling) -> None:
    submit(client, "a")
    delivery = handling.next()
    client.config_set("maxmemory", "1")
    handling.finish(delivery)
    client.client_kill_filter(_type="normal", skipme=True)
    assert status(client, "a") == "in_progress"
    client.config_set("maxmemory", "0")
    wait_until(lambda: status(client, "a") == "completed", "it was told")


def test_connections_cut_at_any_time_lose_and_double_nothing(home: Home, client: redis.Redis) -> None:
    handling = Handling(home.redis_url(), threads=4)
    ids = [f"n{number}" for number in range(300)]
    seen: list[str] = []
    try:
        for number, request_id in enumerate(ids):
            submit(client, request_id)
            if number % 20 == 0:
                client.client_kill_filter(_type="normal", skipme=True)
        while len(set(seen)) < len(ids):
            delivery = handling.next()
            seen.append(delivery.id)
            handling.finish(delivery, json.dumps({"id": delivery.id}).encode())
            if len(seen) % 30 == 0:
                client.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: client.zcard(keys.index(API, "completed")) == len(ids), "all ends are committed")
    finally:
        handling.close()
    assert {Records(client).details(API, request_id)["result"]["id"] == request_id for request_id in ids} == {True}
    assert client.zcard(keys.index(API, "open")) == 0


def test_draining_gives_back_what_waits_and_finishes_what_runs(client: redis.Redis, handling: Handling) -> None:
    submit(client, "a")
    handling.finish(handling.next(), run_ms=0.01)
    wait_until(lambda: status(client, "a") == "completed", "the first ended")
    for name in ("b", "c", "d"):
        submit(client, name)
    running = handling.next()
    handling.consumer.drain()
    wait_until(lambda: client.llen(keys.queue(API)) == 2, "the others are back")
    assert not handling.consumer.drained.is_set()
    handling.finish(running)
    assert handling.consumer.drained.wait(30)
    assert status(client, "b") == "completed"
    assert client.lrange(keys.queue(API), 0, -1) == [b"c", b"d"]


def hold(client: redis.Redis, replica: str, count: int) -> None:
    COMMIT.run(client, API, replica, 1, 60, "failed", -1, "queue", count, count, 0, 0, 0)


def test_a_dead_replicas_workloads_return_to_the_head_of_the_queue_uncharged_unless_they_ran(client: redis.Redis) -> None:
    for name in ("ran", "waited", "later"):
        submit(client, name)
    hold(client, "r1", 2)
    assert reclaim(client, API, "r1", SPEC, reason="killed by SIGKILL", ran=["ran"]) == (2, 0, [])
    assert client.lrange(keys.queue(API), -1, -1) == [b"later"]
    assert {name: Records(client).get(API, name).deaths for name in ("ran", "waited")} == {"ran": 1, "waited": 0}
    assert reclaim(client, API, "r1", SPEC, ran=["ran"]) == (0, 0, [])


def test_the_third_death_fails_a_workload_with_the_reason_after_a_last_chance_alone(client: redis.Redis) -> None:
    submit(client, "poison")
    hold(client, "r1", 1)
    assert reclaim(client, API, "r1", SPEC, ran=["poison"])[0] == 1
    hold(client, "r2", 1)
    assert reclaim(client, API, "r2", SPEC, ran=["poison"])[1] == 1
    assert (client.llen(keys.queue(API)), status(client, "poison")) == (0, "in_queue")
    COMMIT.run(client, API, "r3", 1, 60, "failed", -1, "suspects", 1, 1, 0, 0, 0)
    assert reclaim(client, API, "r3", SPEC, reason="killed by SIGSEGV", ran=["poison"])[2] == ["poison"]
    record = Records(client).get(API, "poison")
    assert (record.status, record.error["type"] if record.error else None) == ("failed", "ReplicaDied")
    assert "3 times" in str(record.error)
    assert "SIGSEGV" in str(record.error)


def test_the_store_refuses_files_of_a_newer_server(tmp_path: Path) -> None:
    fresh = Home(tmp_path / "other")
    fresh.make()
    (fresh.store / "server-version").write_text("valkey 99.0.0\n")
    with pytest.raises(Exception, match=r"written by valkey 99\.0\.0"):
        EmbeddedStore(fresh).start()


def test_a_home_with_a_long_path_uses_a_short_private_socket(tmp_path: Path) -> None:
    deep = Home(tmp_path / ("d" * 100))
    deep.make()
    assert len(str(deep.socket)) < 100
    assert deep.socket.parent.stat().st_mode & 0o077 == 0
    store = EmbeddedStore(deep)
    store.start()
    store.wait()
    assert store.stop()


def test_the_board_survives_a_kill_and_tells_what_ran(tmp_path: Path) -> None:
    board = Board(tmp_path / "board")
    code = (
        "import os, sys; from pathlib import Path; from jupyter_cortex.serving.board import Board\n"
        "b = Board(Path(sys.argv[1])); b.post(0, 'a' * 128); b.post(7, 'x-1'); b.post(8, 'done'); b.clear(8); os.kill(os.getpid(), 9)"
    )
    import sys

    subprocess.run([sys.executable, "-c", code, str(board.path)], check=False)
    assert board.read() == ["a" * 128, "x-1"]
    board.remove()


def test_quantiles_come_from_the_histogram() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({0: 99, 10: 1}, 0.5) == pytest.approx(0.414, abs=0.01)
    assert quantile({0: 1, 10: 99}, 0.95) == pytest.approx(44.25, abs=0.1)
