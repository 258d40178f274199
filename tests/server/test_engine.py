"""The engine's promises, on both store servers: atomic moves, no lost reply, no hoarded work, no innocent failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
import redis

from jupyter_cortex.core.errors import StoreUnavailable
from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.handler.live import Progress
from jupyter_cortex.operator.embedded import EmbeddedStore
from jupyter_cortex.operator.home import Home
from jupyter_cortex.operator.processes import Slot
from jupyter_cortex.serving import broker
from jupyter_cortex.serving.board import Board
from jupyter_cortex.serving.broker import CortexConsumer, Delivery, Terms, Workload
from jupyter_cortex.serving.link import Link
from jupyter_cortex.serving.reclaim import reclaim
from jupyter_cortex.store import keys
from jupyter_cortex.store.connection import is_temporary, store_errors, word_of
from jupyter_cortex.store.history import history, quantile
from jupyter_cortex.store.records import Records
from jupyter_cortex.store.scripts import CANCEL, COMMIT, PIECE, RECLAIM, REQUEUE, RESYNC, SUBMIT, SWEEP
from jupyter_cortex.store.streams import events

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
    """A consumer in a thread whose handlers begin at once, as threads do, and end by hand."""

    def __init__(self, url: str, replica: str = "r1", threads: int = 1, version: int = 1) -> None:
        self._threads = threads
        self._waiting: list[Workload] = []
        self._running: dict[str, Workload] = {}
        self._shown: set[str] = set()
        self._lock = threading.Lock()
        self.consumer = CortexConsumer(url, Terms(API, replica, version), threads, self._take, self._take_back)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            next(self.consumer)

    def _take(self, message: Workload) -> None:
        with self._lock:
            self._waiting.append(message)
            self._begin()

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self._threads:
            message = self._waiting.pop(0)
            delivery = message.args[0]
            delivery.began = time.perf_counter()
            self._running[delivery.id] = message
            self._shown.discard(delivery.id)
            if not delivery.marked:
                self.consumer.began(delivery)

    def _take_back(self) -> list[Delivery]:
        with self._lock:
            taken, self._waiting = [message.args[0] for message in self._waiting], []
        return taken

    def next(self) -> Delivery:
        """A delivery whose handler has begun, each once."""

        def unseen() -> Delivery | None:
            with self._lock:
                return next((message.args[0] for name, message in self._running.items() if name not in self._shown), None)

        delivery: Delivery = wait_until(unseen, "a handler begins")
        self._shown.add(delivery.id)
        return delivery

    def finish(self, delivery: Delivery, result: bytes = b'{"ok": 1}', run_ms: float = 1.0) -> None:
        delivery.status, delivery.result, delivery.run_ms = "completed", result, run_ms
        with self._lock:
            self.consumer.ack(self._running.pop(delivery.id))
            self._begin()

    def close(self) -> None:
        self._stop = True
        self.consumer.poke()
        self._thread.join(10)
        self.consumer.close()


def prefetch(client: redis.Redis, handling: Handling, *names: str) -> None:
    """Have the consumer look ahead: quick workloads first, then all of ``names`` in one fetch."""
    for number in range(30):
        submit(client, f"quick-{number}")
        handling.finish(handling.next(), run_ms=0.01)
    wait_until(lambda: client.zcard(keys.index(API, "completed")) == 30, "the quick ones ended")
    submit(client, "last")
    last = handling.next()
    for name in names:
        submit(client, name)
    handling.finish(last, run_ms=0.01)


@pytest.fixture
def handling(home: Home, client: redis.Redis) -> Iterator[Handling]:
    made = Handling(home.redis_url())
    yield made
    made.close()


def test_a_submit_stores_record_payload_and_place_in_the_queue_at_once(client: redis.Redis) -> None:
    assert submit(client, "a", b'{"x": 1}') == "ok"
    record = Records(client).get(API, "a")
    assert (record.status, record.content_type, record.size, record.run) == ("in_queue", "application/json", 8, 1)
    kept, body = Records(client).payload(API, "a")
    assert (kept.content_type, body) == ("application/json", b'{"x": 1}')
    assert client.lrange(keys.queue(API), 0, -1) == [b"a"]
    assert [event["state"] for event in events(client, API, "0-0")] == ["in_queue"]


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


def piece(client: redis.Redis, request_id: str, offset: int, data: bytes) -> int:
    return int(PIECE.run(client, API, request_id, "t", offset, data))


def test_a_large_body_comes_in_pieces_and_only_its_submit_makes_it_a_workload(client: redis.Redis) -> None:
    assert [piece(client, "a", 0, b"one "), piece(client, "a", 4, b"two ")] == [4, 8]
    assert piece(client, "a", 4, b"two ") == 8, "one that is said twice changes nothing"
    assert piece(client, "a", 12, b"four") == 8, "nor does one that comes too early"
    assert not client.exists(keys.record(API, "a"))
    assert client.llen(keys.queue(API)) == 0
    assert all(client.ttl(name) > 0 for name in client.scan_iter(f"{keys.prefix(API)}:u:*")), "what is never submitted goes"
    piece(client, "a", 8, b"three")
    assert SUBMIT.run(client, API, "a", "text/plain", "d", -13, b"t") == b"ok"
    assert (client.get(keys.body(API, "a")), client.ttl(keys.body(API, "a"))) == (b"one two three", -1)
    assert not list(client.scan_iter(f"{keys.prefix(API)}:u:*"))


def test_a_body_with_a_piece_missing_is_not_accepted(client: redis.Redis) -> None:
    piece(client, "a", 0, b"one ")
    assert SUBMIT.run(client, API, "a", "text/plain", "d", -13, b"t") == b"again"
    assert not client.exists(keys.record(API, "a"))
    assert not list(client.scan_iter(f"{keys.prefix(API)}:u:*"))


def test_pieces_of_what_was_accepted_before_are_not_kept(client: redis.Redis) -> None:
    submit(client, "a", body=b"one", content_type="text/plain")
    for digest, outcome in (("d", b"same"), ("other", b"conflict")):
        piece(client, "a", 0, b"two")
        assert SUBMIT.run(client, API, "a", "text/plain", digest, -3, b"t") == outcome
    assert client.get(keys.body(API, "a")) == b"one"
    assert not list(client.scan_iter(f"{keys.prefix(API)}:u:*"))


def test_a_start_mark_that_is_said_again_is_one_attempt(client: redis.Redis) -> None:
    submit(client, "a")
    hold(client, "r1", 1, start_now=0)
    for _ in range(2):
        COMMIT.run(client, API, "r1", 1, 60, "failed", -1, "queue", 0, 0, 1, 0, 0, "a")
    COMMIT.run(client, API, "r1", 1, 60, "failed", -1, "queue", 0, 0, 0, 1, 0, "a", "completed", "{}", "", "", "1", 1)
    record = Records(client).get(API, "a")
    assert (record.status, record.attempts) == ("completed", 1)


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
    assert Records(client).payload(API, "a")[1] is None
    assert client.exists(keys.held(API, "r1")) == 0
    for key in client.scan_iter(f"{keys.prefix(API)}:[wbre]:*"):
        assert client.ttl(key) > 6 * 86400, key
    assert [event["state"] for event in events(client, API, "0-0")] == ["in_queue", "in_progress", "completed"]
    row = history(client, API, 5)[-1]
    assert (row["accepted"], row["completed"], row["failed"]) == (1, 1, 0)
    assert row["wait_p50_ms"] is not None


def test_a_prefetched_workload_stays_in_queue_until_its_handler_begins(client: redis.Redis, handling: Handling) -> None:
    prefetch(client, handling, "first", "second")
    wait_until(lambda: status(client, "first") == "in_progress", "the fetch marked the first")
    assert status(client, "second") == "in_queue"
    for name in ("first", "second"):
        delivery = handling.next()
        assert delivery.id == name
        wait_until(lambda name=name: status(client, name) == "in_progress", "its start is committed")
        handling.finish(delivery)
    wait_until(lambda: status(client, "second") == "completed", "both ended")
    assert [Records(client).get(API, name).attempts for name in ("first", "second")] == [1, 1]


def test_what_waits_behind_a_slow_handler_goes_back_for_another_replica(home: Home, client: redis.Redis, handling: Handling) -> None:
    prefetch(client, handling, "slow", "b", "c")
    slow = handling.next()
    assert slow.id == "slow"
    wait_until(lambda: client.lrange(keys.queue(API), 0, -1) == [b"b", b"c"], "the others were given back")
    assert client.smembers(keys.held(API, "r1")) == {b"slow"}
    other = Handling(home.redis_url(), "r2")
    try:
        for _ in range(2):
            other.finish(other.next())
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


def test_an_end_that_is_none_changes_nothing(client: redis.Redis) -> None:
    submit(client, "a")
    submit(client, "b")
    hold(client, "r1", 2)
    dump = lambda: {key: client.dump(key) for key in client.scan_iter("cx:*")}  # noqa: E731
    before = dump()
    ends = ["a", "completed", "{}", "", "", 1, 0, "b", "finished", "{}", "", "", 1, 0]
    with pytest.raises(redis.ResponseError, match="finished"):
        COMMIT.run(client, API, "r1", 1, 60, "failed", -1, "queue", 0, 0, 0, 2, 0, *ends)
    assert dump() == before, "Lua does not roll back: what is wrong is seen before anything is done"


def test_a_start_whose_reply_was_lost_is_no_attempt(client: redis.Redis) -> None:
    submit(client, "a")
    hold(client, "r1", 1)
    assert Records(client).get(API, "a").attempts == 1
    assert RESYNC.run(client, API, "r1") == 1
    record = Records(client).get(API, "a")
    assert (record.status, record.attempts) == ("in_queue", 0)


def test_an_end_that_the_store_could_not_take_is_told_when_it_is_back(client: redis.Redis, handling: Handling) -> None:
    submit(client, "a")
    delivery = handling.next()
    client.config_set("min-replicas-to-write", 1)
    handling.finish(delivery)
    refused = client.info("errorstats")
    wait_until(lambda: client.info("errorstats") != refused, "the store has refused it")
    assert status(client, "a") == "in_progress"
    client.config_set("min-replicas-to-write", 0)
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
    ended = [event["id"] for event in events(client, API, "0-0", 100_000) if event["state"] == "completed"]
    assert sorted(ended) == sorted(ids), "each has ended once"
    assert {Records(client).details(API, request_id)["result"]["id"] == request_id for request_id in ids} == {True}
    assert client.zcard(keys.index(API, "open")) == 0


class Quick:
    """A consumer whose workloads end as fast as a thread takes them, as no-ops do."""

    def __init__(self, url: str) -> None:
        self.waiting: SimpleQueue[Workload | None] = SimpleQueue()
        self.consumer = CortexConsumer(url, Terms(API, "quick", 1), 1, self.waiting.put, self._take_back)
        self._stop = False
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._consume, self._work)]
        for thread in self._threads:
            thread.start()

    def _consume(self) -> None:
        while not self._stop:
            next(self.consumer)

    def _work(self) -> None:
        while (workload := self.waiting.get()) is not None:
            delivery = workload.args[0]
            delivery.began = time.perf_counter()
            if not delivery.marked:
                self.consumer.began(delivery)
            delivery.status, delivery.result, delivery.run_ms = "completed", json.dumps({"id": delivery.id}).encode(), 0.01
            self.consumer.ack(workload)

    def _take_back(self) -> list[Delivery]:
        taken = []
        while not self.waiting.empty():
            try:
                if (workload := self.waiting.get_nowait()) is not None:
                    taken.append(workload.args[0])
            except Empty:
                break
        return taken

    def close(self) -> None:
        self._stop = True
        self.waiting.put(None)
        self.consumer.poke()
        for thread in self._threads:
            thread.join(10)
        self.consumer.close()


def test_connections_cut_with_two_commits_under_way_lose_and_double_nothing(home: Home, client: redis.Redis) -> None:
    ids = [f"n{number}" for number in range(6000)]
    for at in range(0, len(ids), 100):
        together = [part for request_id in ids[at : at + 100] for part in (request_id, "application/json", "d", 2, b"{}")]
        assert SUBMIT.run(client, API, *together).split() == [b"ok"] * 100
    quick = Quick(home.redis_url())
    completed = keys.index(API, "completed")

    def two_are_cut() -> bool:
        """Hold the replies back for a moment, so that ends gather; true when that had two commits under way, which are lost then."""
        client.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
        try:
            for _ in range(40):
                if len(quick.consumer._flights) == 2:
                    client.client_kill_filter(_type="normal", skipme=True)
                    return True
                time.sleep(0.005)
            return False
        finally:
            client.execute_command("CLIENT", "UNPAUSE")

    try:
        wait_until(lambda: client.zcard(completed) > 0, "it works")
        wait_until(two_are_cut, "two commits are cut")
        done = 0
        while done < len(ids):
            # Each cut falls somewhere into the next few hundred ends.
            wait_until(lambda at=done: client.zcard(completed) > at, "more have ended")
            client.client_kill_filter(_type="normal", skipme=True)
            done = min(len(ids), client.zcard(completed) + 200)
        wait_until(lambda: client.zcard(completed) == len(ids), "all have ended")
        wait_until(lambda: not client.exists(keys.held(API, "quick")), "nothing is held any more")
    finally:
        quick.close()
    ended = [event["id"] for event in events(client, API, "0-0", 100_000) if event["state"] == "completed"]
    assert sorted(ended) == sorted(ids), "each ends once"
    assert {Records(client).details(API, request_id)["result"]["id"] == request_id for request_id in ids} == {True}
    assert client.zcard(keys.index(API, "open")) == 0


def test_draining_gives_back_what_waits_and_finishes_what_runs(client: redis.Redis, handling: Handling) -> None:
    prefetch(client, handling, "b", "c", "d")
    running = handling.next()
    handling.consumer.drain()
    wait_until(lambda: client.lrange(keys.queue(API), 0, -1) == [b"c", b"d"], "the others are back")
    assert not handling.consumer.drained.is_set()
    handling.finish(running)
    assert handling.consumer.drained.wait(30)
    assert status(client, "b") == "completed"
    assert {Records(client).get(API, name).attempts for name in ("c", "d")} == {0}


def hold(client: redis.Redis, replica: str, count: int, start_now: int | None = None) -> None:
    COMMIT.run(client, API, replica, 1, 60, "failed", -1, "queue", count, count if start_now is None else start_now, 0, 0, 0)


def test_once_a_newer_version_is_live_the_one_before_it_takes_nothing_more(client: redis.Redis, handling: Handling) -> None:
    submit(client, "before")
    handling.finish(handling.next())
    wait_until(lambda: status(client, "before") == "completed", "the first one ended")
    client.hset(keys.api(API), "live", 2)
    submit(client, "after")
    newer = COMMIT.run(client, API, "r2", 2, 60, "failed", -1, "queue", 1, 1, 0, 0, 0)
    assert newer[2] == b"after", "the idle replica of version 1 had its fetch waiting, and must have left it"
    assert Records(client).get(API, "after").replica == "r2"


def test_a_token_that_a_retired_replica_took_reaches_one_that_may_take(home: Home, client: redis.Redis, handling: Handling) -> None:
    client.hset(keys.api(API), "live", 2)
    second = Handling(home.redis_url(), "r2", version=2)
    try:
        for number in range(20):
            submit(client, f"w{number}")
            second.finish(second.next())
        wait_until(lambda: client.zcard(keys.index(API, "completed")) == 20, "all have ended")
        assert {Records(client).get(API, f"w{number}").replica for number in range(20)} == {"r2"}
    finally:
        second.close()


WAITER = """
import sys
from jupyter_cortex.serving.broker import CortexConsumer, Terms
consumer = CortexConsumer(sys.argv[1], Terms(sys.argv[2], "r1", 1), 1, lambda workload: None, list)
while True:
    next(consumer)
"""


@pytest.mark.parametrize("moment", ["before its process hears of it", "as it is sent"])
def test_a_wake_up_that_a_replica_takes_with_it_reaches_another(
    home: Home, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The worst moment to die: the token is gone, the fetch behind it has taken the workload, and nobody else looks."""
    # Not even after a while: who waits for a token, waits for it.
    monkeypatch.setattr(broker, "BLOCK_S", 0)
    monkeypatch.setattr(broker, "SILENCE_S", 3600.0)
    blocked = lambda: sum("b" in one["flags"] for one in client.client_list())  # noqa: E731
    for number in range(5):
        request_id = f"w{number}"
        first = subprocess.Popen([sys.executable, "-c", WAITER, home.redis_url(), API])
        wait_until(lambda: blocked() == 1, "the first replica waits for a token")
        second = Handling(home.redis_url(), "r2")
        try:
            wait_until(lambda: blocked() == 2, "the second one waits behind it")
            if moment == "as it is sent":
                first.kill()
                submit(client, request_id)
            else:
                first.send_signal(signal.SIGSTOP)
                submit(client, request_id)
                assert client.smembers(keys.held(API, "r1")) == {request_id.encode()}, "who waits for longest is served first"
                first.kill()
            first.wait()
            reclaim(client, API, "r1", SPEC, reason="killed by SIGKILL")
            second.finish(second.next())
            wait_until(lambda request_id=request_id: status(client, request_id) == "completed", "it ended")
            record = Records(client).get(API, request_id)
            assert (record.replica, record.deaths) == ("r2", 0), "it had not begun, and is charged with no death"
        finally:
            first.kill()
            first.wait()
            second.close()


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


@pytest.mark.parametrize("way", ["its reply was lost", "it was given back", "its replica ended by plan", "a neighbour died"])
def test_a_workload_with_one_chance_left_stays_aside_whatever_becomes_of_its_replica(client: redis.Redis, way: str) -> None:
    submit(client, "last chance")
    for replica in ("r1", "r2"):
        hold(client, replica, 1)
        reclaim(client, API, replica, SPEC, ran=["last chance"])
    take_alone = (API, "r3", 1, 60, "failed", -1, "suspects", 1, 1, 0, 0)
    COMMIT.run(client, *take_alone, 0)
    if way == "its reply was lost":
        assert RESYNC.run(client, API, "r3") == 1
    elif way == "it was given back":
        COMMIT.run(client, API, "r3", 1, 60, "failed", -1, "suspects", 0, 0, 0, 0, 1, "last chance")
    elif way == "its replica ended by plan":
        assert reclaim(client, API, "r3", SPEC) == (0, 1, [])
    else:
        assert reclaim(client, API, "r3", SPEC, reason="killed by SIGSEGV", ran=["somebody else"]) == (0, 1, [])
    assert client.llen(keys.queue(API)) == 0, "beside others it could fail for their crash"
    record = Records(client).get(API, "last chance")
    assert (record.status, record.deaths) == ("in_queue", 2)
    assert COMMIT.run(client, *take_alone, 0)[2] == b"last chance"


def test_a_requeued_workload_begins_anew_among_the_others(client: redis.Redis) -> None:
    submit(client, "poison")
    for replica in ("r1", "r2", "r3"):
        COMMIT.run(client, API, replica, 1, 60, "failed", -1, "suspects" if replica == "r3" else "queue", 1, 1, 0, 0, 0)
        reclaim(client, API, replica, SPEC, ran=["poison"])
    assert status(client, "poison") == "failed"
    assert REQUEUE.run(client, API, 100, "", "poison") == [b"ok"]
    hold(client, "r4", 1)
    assert reclaim(client, API, "r4", SPEC) == (1, 0, []), "what it did before does not put it aside"


@pytest.mark.parametrize("what", ["_send_notebook", "_tell"])
def test_an_end_is_said_again_when_what_goes_ahead_of_it_cannot_be_sent(
    client: redis.Redis, handling: Handling, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    failures = []
    send = getattr(handling.consumer, what)

    def break_once(*arguments: object) -> None:
        if not failures:
            failures.append(what)
            raise BrokenPipeError
        send(*arguments)

    submit(client, "a")
    delivery = handling.next()
    monkeypatch.setattr(handling.consumer, what, break_once)
    delivery.notebook = b"{}"
    handling.consumer.tell("a", Progress(0.5, "half", 1))
    handling.finish(delivery)
    wait_until(lambda: status(client, "a") == "completed", "its end is in the store")
    assert failures == [what]
    submit(client, "b")
    handling.finish(handling.next())
    wait_until(lambda: status(client, "b") == "completed", "the next one is served")


def test_what_is_given_back_needs_no_memory(client: redis.Redis) -> None:
    for name in ("runs", "waits"):
        submit(client, name)
    hold(client, "r1", 2, 0)
    client.config_set("maxmemory", 1)
    try:
        COMMIT.run(client, API, "r1", 1, 60, "failed", -1, "queue", 0, 0, 1, 0, 1, "runs", "waits")
    finally:
        client.config_set("maxmemory", 0)
    assert (status(client, "runs"), client.lrange(keys.queue(API), 0, -1)) == ("in_progress", [b"waits"])


def test_a_queue_timeout_counts_on_for_what_came_back_before_it_began(client: redis.Redis) -> None:
    SUBMIT.run(client, API, "a", "application/json", "d", 2, b"{}", 100, 500, 0)
    hold(client, "r1", 1)
    assert RESYNC.run(client, API, "r1") == 1
    wait_until(lambda: SWEEP.run(client, API, 60, "failed", -1, 10)[0], "it is over")
    assert Records(client).get(API, "a").error["type"] == "QueueTimeout"  # type: ignore[index]


def test_a_slot_whose_id_cannot_be_written_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = Slot(tmp_path, "worker-a-1")
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", lambda *arguments: (_ for _ in ()).throw(OSError(28, "no space left")))
        with pytest.raises(OSError, match="no space"):
            slot.take()
    fd = slot.take()
    assert fd is not None
    os.close(fd)


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


def test_a_consumer_is_closed_twice_after_an_error_and_bears_it(home: Home, client: redis.Redis) -> None:
    consumer = CortexConsumer(home.redis_url(), Terms(API, "r1", 1), 1, lambda workload: None, list)
    next(consumer)
    consumer.close()
    consumer.close()
    assert next(consumer) is None  # what Dramatiq's thread may still do before it sees the end


def test_ends_are_taken_when_the_stores_memory_is_out(handling: Handling, client: redis.Redis) -> None:
    submit(client, "a", body=b"x" * 1000)
    delivery = handling.next()
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            submit(client, "b")
        handling.finish(delivery)
        wait_until(lambda: status(client, "a") == "completed", "the end is taken")
    finally:
        client.config_set("maxmemory", 0)
    assert client.exists(keys.body(API, "a")) == 0


@pytest.mark.parametrize("transaction", [True, False, None], ids=["transaction", "pipeline", "single"])
def test_a_store_whose_memory_is_full_counts_as_away_however_it_was_asked(client: redis.Redis, transaction: bool | None) -> None:
    @store_errors()
    def write() -> None:
        if transaction is None:
            client.incr("n")
            return
        pipe = client.pipeline(transaction=transaction)
        pipe.hdel("h", "x")
        pipe.incr("n")
        pipe.execute()

    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="its memory is full"):
            write()
    finally:
        client.config_set("maxmemory", 0)


def test_before_it_settles_what_it_holds_a_consumer_ends_the_connections_that_it_gave_up(home: Home, client: redis.Redis) -> None:
    """What was sent over a cut cable may come through minutes later: a fetch among it would take what nobody then knows of."""
    given_up = Link(home.redis_url())
    assert given_up.id
    consumer = CortexConsumer(home.redis_url(), Terms(API, "r1", 1), 1, lambda workload: None, list)
    assert given_up.server == client.info("server")["run_id"]
    another = Link(home.redis_url())
    # The number of the second was given by a server that has ended since: here it is a stranger's.
    consumer._given_up = [(given_up.server, given_up.id), ("0" * 40, another.id)]
    next(consumer)
    with pytest.raises(OSError, match="closed"):
        given_up.receive()
    assert not consumer._given_up
    another.send(("PING",))
    assert another.receive() == [b"PONG"]
    another.close()
    given_up.close()
    consumer.close()


def test_only_a_connection_that_went_silent_is_given_up(home: Home, client: redis.Redis) -> None:
    consumer = CortexConsumer(home.redis_url(), Terms(API, "r1", 1), 1, lambda workload: None, list)
    next(consumer)
    consumer._lost(ConnectionResetError("the store closed the connection"))
    assert not consumer._given_up, "after a restart the server may call another one by this id"
    next(consumer)
    consumer._lost(TimeoutError("the store has not answered"))
    assert consumer._given_up
    next(consumer)
    assert not consumer._given_up
    consumer.close()


def test_an_end_that_was_told_to_a_silent_store_is_told_again_and_counts_once(
    home: Home, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes back, and nothing says that the connection is cut: what was sent may have arrived, or may yet."""
    monkeypatch.setattr(broker, "SILENCE_S", 0.5)
    handling = Handling(home.redis_url(), threads=2)
    store = Slot(home.run, "store").pid()
    assert store
    try:
        for request_id in ("a", "b"):
            submit(client, request_id)
        first, second = handling.next(), handling.next()
        os.kill(store, signal.SIGSTOP)
        try:
            handling.finish(first)
            wait_until(lambda: handling.consumer._given_up, "its connection is given up")
            handling.finish(second)
        finally:
            os.kill(store, signal.SIGCONT)
        wait_until(lambda: (status(client, "a"), status(client, "b")) == ("completed", "completed"), "both ends were told")
        records = [Records(client).get(API, request_id) for request_id in ("a", "b")]
        assert [(record.attempts, record.deaths) for record in records] == [(1, 0), (1, 0)]
        assert sorted(event["id"] for event in events(client, API, "0-0") if event["state"] == "completed") == ["a", "b"]
        submit(client, "c")
        handling.finish(handling.next())
        wait_until(lambda: status(client, "c") == "completed", "it goes on")
    finally:
        handling.close()


@pytest.mark.parametrize(("keep", "stays"), [("0", False), ("1", True), ("<=9", False), ("<=10", True)])
def test_a_payload_that_is_too_large_to_be_kept_goes_also_by_a_cancel_or_a_death(client: redis.Redis, keep: str, stays: bool) -> None:
    submit(client, "cancelled", b"x" * 10)
    submit(client, "died", b"x" * 10)
    CANCEL.run(client, API, "cancelled", 60, keep)
    COMMIT.run(client, API, "r1", 1, 60, "never", -1, "queue", 1, 1, 0, 0, 0)
    RECLAIM.run(client, API, "r1", 1, 60, keep, "killed by SIGKILL", "{}", "died")
    assert [status(client, one) for one in ("cancelled", "died")] == ["cancelled", "failed"]
    assert [client.exists(keys.body(API, one)) for one in ("cancelled", "died")] == [stays, stays]


AS_BEFORE_7 = "ERR Error running script (call to f_1f): @user_script:24: @user_script: 24: "


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'. script: 1f, on @user_script:24.", "OOM"),
        (f"{AS_BEFORE_7}-OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        (f"{AS_BEFORE_7}-READONLY You can't write against a read only replica.", "READONLY"),
        (f"{AS_BEFORE_7}-MISCONF Errors writing to the AOF file: No space left", "MISCONF"),
        ("LOADING Redis is loading the dataset in memory", "LOADING"),
        ("ERR Error running script (call to f_1f): @user_script:4: user_script:4: attempt to index a nil value", "ERR"),
    ],
)
def test_what_a_script_was_refused_with_is_known_as_every_server_says_it(said: str, word: str) -> None:
    """Redis 7 and Valkey begin with the word; Redis 6.2 hides it behind the script's line."""
    assert word_of(redis.ResponseError(said)) == word
    assert is_temporary(redis.ResponseError(said)) is (word != "ERR")
