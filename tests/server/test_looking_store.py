"""Looking at large stores, on both servers: pages are exact, searches end, history adds up, and the number of round trips does not grow."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from jupyter_cortex.core.workload import Status
from jupyter_cortex.operator.embedded import EmbeddedStore
from jupyter_cortex.operator.home import Home
from jupyter_cortex.store import history, keys
from jupyter_cortex.store.glance import glances
from jupyter_cortex.store.history import quantile
from jupyter_cortex.store.listing import SCAN_MAX, Page, page

from .stage import REPLICA, Staged

NONE: frozenset[Status] = frozenset()


class Counting(redis.UnixDomainSocketConnection):
    """A connection that counts what is sent: each is a round trip."""

    sent = 0

    def send_packed_command(self, *args: Any, **options: Any) -> Any:
        Counting.sent += 1
        return super().send_packed_command(*args, **options)  # type: ignore[no-untyped-call]


@pytest.fixture
def home(tmp_path: Path, store_server: str) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    made.make()
    store = EmbeddedStore(made, appendfsync="everysec", server=store_server)
    store.start()
    store.wait()
    yield made
    store.stop()


@pytest.fixture
def store(home: Home) -> Iterator[redis.Redis]:
    with redis.Redis(connection_pool=redis.ConnectionPool(connection_class=Counting, path=str(home.socket))) as client:
        yield client


def round_trips(job: Any) -> int:
    before = Counting.sent
    job()
    return Counting.sent - before


def calls(store: redis.Redis, command: str, job: Any) -> int:
    """How often the store runs a command for a job."""
    store.config_resetstat()
    job()
    stats: Any = store.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


def all_pages(store: redis.Redis, api: str, statuses: frozenset[Status] = NONE, limit: int = 50, q: str = "") -> list[Page]:
    found = [page(store, api, statuses, limit, "", q)]
    while found[-1].next is not None:
        found.append(page(store, api, statuses, limit, found[-1].next, q))
    return found


def ids_of(pages: list[Page]) -> list[str]:
    return [record.id for one in pages for record in one.records]


# Pages ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
def test_pages_show_each_of_many_that_share_one_ms_exactly_once(store: redis.Redis, limit: int) -> None:
    api = Staged(store, "same-ms")
    ids = [api.submit() for _ in range(60 if limit == 1 else 600)]
    for at in range(0, len(ids), 20):
        ended = ids[at : at + 20]
        api.complete(*ended[:12])
        api.fail(*ended[12:18])
    # All in two ms: the indexes overlap, and pages end in the middle of a ms.
    for name in ("completed", "failed", "open"):
        members: Any = store.zrange(keys.index(api.name, name), 0, -1)
        store.zadd(keys.index(api.name, name), {member: 1_800_000_000_000 + member[-1] % 2 for member in members})
    pages = all_pages(store, api.name, limit=limit)
    assert sorted(ids_of(pages)) == sorted(ids)
    assert all(len(one.records) == limit for one in pages[:-1])
    assert sum(one.scanned for one in pages) == len(ids)


def test_what_ends_while_somebody_pages_shifts_nobody_else(store: redis.Redis) -> None:
    api = Staged(store, "shifts")
    ids = [api.submit() for _ in range(200)]
    first = page(store, api.name, NONE, 50)
    moved = [first.records[3].id, ids[100]]
    api.complete(*moved)
    rest: list[str] = []
    cursor = first.next
    while cursor is not None:
        one = page(store, api.name, NONE, 50, cursor)
        rest += [record.id for record in one.records]
        cursor = one.next
    shown = [record.id for record in first.records] + rest
    assert len(shown) == len(set(shown))
    assert set(ids) - set(shown) == {ids[100]}, "it is at the top now"
    assert {record.id for record in page(store, api.name, NONE, 2).records} == set(moved)


def test_index_entries_whose_record_has_expired_take_no_place_on_a_page(store: redis.Redis) -> None:
    api = Staged(store, "ghosts")
    ids = [api.submit() for _ in range(1000)]
    api.complete(*ids)
    for request_id in ids[:900]:
        store.delete(keys.record(api.name, request_id))
    assert sorted(ids_of(all_pages(store, api.name))) == sorted(ids[900:])
    assert len(page(store, api.name, NONE, 100).records) == 100


def test_what_runs_is_found_behind_a_queue_of_any_length(store: redis.Redis) -> None:
    api = Staged(store, "queue")
    ids = [api.submit() for _ in range(3000)]
    api.commit(take=5)
    store.zadd(keys.beats(api.name), {REPLICA: 1, "worker:x": 1})
    api.commit(start=ids[:3])
    found = page(store, api.name, frozenset({Status.IN_PROGRESS}), 50)
    assert ([record.id for record in found.records], found.next) == (ids[2::-1], None)
    assert found.scanned <= 5
    api.complete(ids[0])
    both = frozenset({Status.IN_PROGRESS, Status.COMPLETED})
    assert ids_of(all_pages(store, api.name, both, 1)) == [ids[0], ids[2], ids[1]]
    assert len(ids_of(all_pages(store, api.name, frozenset({Status.IN_QUEUE}), 1000))) == 2997


def test_a_search_for_a_whole_id_finds_it_at_once_and_shows_it_once(store: redis.Redis) -> None:
    api = Staged(store, "whole-id")
    wanted = api.submit("Known-7")
    others = [api.submit(f"Known-7{at}") for at in range(30)]
    api.fail(wanted)
    first = page(store, api.name, NONE, 1, q="Known-7")
    assert ([record.id for record in first.records], first.next is None) == ([wanted], False)
    assert round_trips(lambda: page(store, api.name, NONE, 50, q="Known-7")) <= 2
    shown = ids_of(all_pages(store, api.name, limit=7, q="Known-7"))
    assert (shown[0], sorted(shown[1:])) == (wanted, sorted(others))
    assert ids_of(all_pages(store, api.name, frozenset({Status.COMPLETED}), q="Known-7")) == []
    assert ids_of(all_pages(store, api.name, q="Known-7:b")) == [], "which is no id, but may be a key's name"


def test_a_search_looks_at_20_000_and_says_so_and_goes_on_behind_them(store: redis.Redis) -> None:
    api = Staged(store, "search")
    oldest = api.submit("needle-1")
    pipe = store.pipeline(transaction=False)
    for at in range(SCAN_MAX + 500):
        request_id = f"id-{at:05}"
        pipe.hset(keys.record(api.name, request_id), mapping={"status": "completed", "accepted": 1, "finished": 2})
        pipe.zadd(keys.index(api.name, "completed"), {request_id: int(time.time() * 1000) + 1000 + at // 10})
    pipe.execute()
    first = page(store, api.name, NONE, 50, q="NEEDLE")
    assert (first.records, first.scanned) == ([], SCAN_MAX)
    assert first.next is not None
    second = page(store, api.name, NONE, 50, first.next, "NEEDLE")
    assert ([record.id for record in second.records], second.next, second.scanned) == ([oldest], None, 501)
    assert [record.id for record in page(store, api.name, NONE, 1, q="id-20499").records] == ["id-20499"]
    assert round_trips(lambda: page(store, api.name, NONE, 50, q="needle")) <= 20


# Summaries -----------------------------------------------------------------------------------------------------------


def test_200_apis_take_as_many_round_trips_as_one(store: redis.Redis) -> None:
    names = [f"api-{at}" for at in range(200)]
    for name in names:
        Staged(store, name).submit()
    glances(store, names[:1])
    for minutes in (1, 60):
        assert round_trips(lambda: glances(store, names[:1], minutes)) == round_trips(lambda: glances(store, names, minutes)) == 1  # noqa: B023
    assert calls(store, "evalsha", lambda: glances(store, names)) == 200
    assert calls(store, "hgetall", lambda: glances(store, names)) == 0
    store.script_flush()
    assert [one.counts["in_queue"] for one in glances(store, names)] == [1] * 200
    assert [one.name for one in glances(store, ["api-1", "nobody", "api-3"])] == ["api-1", "api-3"]


@pytest.mark.parametrize("minutes", [1, 2, 9, 10, 11, 37, 60])
def test_the_last_minutes_are_those_with_traffic_and_the_current_one(store: redis.Redis, minutes: int) -> None:
    api = Staged(store, "recent").name
    known = traffic(store, api, 70, seed=minutes)
    idle = Staged(store, "idle").name
    rows, none = (one.minutes for one in glances(store, [api, idle], minutes))
    last = rows[-1]["minute"] // 60
    wanted = [minute for minute in range(last - minutes + 1, last + 1) if any(known.get(minute, {}).values()) or minute == last]
    assert [row["minute"] // 60 for row in rows] == wanted
    for row in rows:
        counted = known.get(row["minute"] // 60, {})
        assert [row[name] for name in history.COUNTERS] == [counted.get(name, 0) for name in history.COUNTERS]
    assert len(none) == 1
    # Not sixty looks at an API that rests.
    assert calls(store, "hmget", lambda: glances(store, [idle], 60)) <= 4


# History -------------------------------------------------------------------------------------------------------------


def traffic(store: redis.Redis, api: str, minutes: int, seed: int) -> dict[int, dict[str, int]]:
    """Counters as the scripts write them, over the last minutes; what is open at the end is in the index."""
    rng = random.Random(seed)
    last = int(time.time()) // 60
    rows: dict[int, dict[str, int]] = {}
    open_now = 0
    pipe = store.pipeline(transaction=False)
    for minute in range(last - minutes + 1, last + 1):
        if rng.random() < 0.4:
            continue
        accepted = rng.randrange(50)
        ended = rng.randrange(open_now + accepted + 1)
        failed = rng.randrange(ended + 1)
        open_now += accepted - ended
        rows[minute] = {"accepted": accepted, "completed": ended - failed, "failed": failed, f"wait:{rng.randrange(20)}": ended}
        for key in (keys.minute(api, minute), keys.ten_minutes(api, minute // 10), keys.hour(api, minute // 60)):
            for field, number in rows[minute].items():
                if number:
                    pipe.hincrby(key, field, number)
    pipe.execute()
    if open_now:
        store.zadd(keys.index(api, "open"), {f"open-{at}": at for at in range(open_now)})
    return rows


@pytest.mark.parametrize("step", [1, 5, 7, 10, 15, 60, 1440])
def test_dense_history_adds_up_and_knows_what_was_open_at_the_end_of_each_row(store: redis.Redis, step: int) -> None:
    api = Staged(store, "dense").name
    known = traffic(store, api, 4 * 1440, seed=step)
    span = 3 * 1440
    said = history.dense(store, api, span, step)
    rows = said["rows"]
    assert len(rows) == -(-span // step)
    opened = 0
    begin = rows[0]["minute"] // 60
    for minute in sorted(known):
        if minute < begin:
            opened += known[minute]["accepted"] - known[minute]["completed"] - known[minute]["failed"]
    for row in rows:
        start = row["minute"] // 60
        inside = [known[minute] for minute in range(start, start + step) if minute in known]
        for name in ("accepted", "completed", "failed"):
            assert row[name] == sum(one[name] for one in inside)
        opened += row["accepted"] - row["completed"] - row["failed"]
        assert row["open"] == opened
        merged: dict[int, int] = {}
        for one in inside:
            for field, number in one.items():
                if field.startswith("wait:"):
                    merged[int(field[5:])] = merged.get(int(field[5:]), 0) + number
        assert row["wait_p95_ms"] == (quantile(merged, 0.95) if sum(merged.values()) else None)
        assert row["run_p50_ms"] is None


def test_a_week_in_hours_is_170_keys_and_four_round_trips(store: redis.Redis) -> None:
    api = Staged(store, "week").name
    traffic(store, api, 100, seed=1)
    assert calls(store, "hgetall", lambda: history.dense(store, api, 10080, 60)) <= 168 + 6
    assert calls(store, "hgetall", lambda: history.dense(store, api, 10080, 10)) <= 1008 + 6
    assert calls(store, "hgetall", lambda: history.dense(store, api, 10080, 75)) <= 10080 / 75 * 16
    assert round_trips(lambda: history.dense(store, api, 10080, 60)) <= 4


def test_what_happens_is_counted_by_the_minute_by_ten_and_by_the_hour_and_forgotten(store: redis.Redis) -> None:
    api = Staged(store, "counted")
    ids = [api.submit() for _ in range(30)]
    api.complete(*ids[:10])
    api.fail(*ids[10:20])
    api.cancel(ids[20])
    counted: dict[str, dict[bytes, int]] = {"m": {}, "t": {}, "h": {}}
    for span, sums in counted.items():
        for key in store.scan_iter(f"{keys.prefix(api.name)}:{span}:*"):
            assert 6 * 86400 < int(store.ttl(key)) <= 7 * 86400 + 3600  # type: ignore[arg-type]
            raw: Any = store.hgetall(key)
            for field, number in raw.items():
                sums[field] = sums.get(field, 0) + int(number)
    assert counted["m"] == counted["t"] == counted["h"]
    assert {name: counted["h"][name.encode()] for name in history.COUNTERS} == {"accepted": 30, "completed": 10, "failed": 10, "cancelled": 1}
    assert history.dense(store, api.name, 60, 60)["rows"][-1]["open"] == 9
