"""When the embedded store's log is written anew: real stores, with smaller limits."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from jupyter_cortex.operator import rewriting
from jupyter_cortex.operator.embedded import EmbeddedStore
from jupyter_cortex.operator.home import Home
from jupyter_cortex.operator.rewriting import Rewriting
from tests.conftest import Environment, wait_until

BYTES, CHANGES = 400_000, 5_000


@pytest.fixture
def store(tmp_path: Path, store_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[EmbeddedStore, redis.Redis, Rewriting]]:
    monkeypatch.setattr(rewriting, "BYTES", BYTES)
    monkeypatch.setattr(rewriting, "CHANGES", CHANGES)
    home = Home(tmp_path / "cortex")
    home.make()
    made = EmbeddedStore(home, appendfsync="everysec", server=store_server)
    made.start()
    made.wait()
    client = redis.Redis.from_url(home.redis_url())
    yield made, client, Rewriting(client, home.store)
    client.close()
    made.stop()


def small(client: redis.Redis, count: int) -> None:
    """So many changes, in about 90 bytes of log each."""
    client.eval("for at = 1, ARGV[1] do redis.call('SET', 'small:' .. at % 10, string.rep('x', 50)) end", 0, str(count))


def behind(client: redis.Redis) -> int:
    """Bytes of log behind what it was last written anew."""
    facts: Any = client.info("persistence")
    return int(facts["aof_current_size"] - facts["aof_base_size"])


def written(client: redis.Redis) -> Callable[[], bool]:
    return lambda: not client.info("persistence")["aof_rewrite_in_progress"] and behind(client) < BYTES  # type: ignore[index]


def test_a_log_of_many_small_changes_is_written_anew_and_they_are_counted_anew(store: tuple[EmbeddedStore, redis.Redis, Rewriting]) -> None:
    _, client, one = store
    assert not one.look()
    small(client, 2 * CHANGES)
    assert one.look()
    wait_until(written(client), "the log is short")
    assert not one.look()
    small(client, CHANGES // 5)
    client.set("large", b"x" * 2 * BYTES)
    assert behind(client) > 2 * BYTES
    assert not one.look(), "few changes since"
    small(client, CHANGES)
    assert one.look()


def test_a_log_of_a_few_large_payloads_is_left_to_the_store(store: tuple[EmbeddedStore, redis.Redis, Rewriting]) -> None:
    _, client, one = store
    assert not one.look()
    for number in range(10):
        client.set(f"large:{number}", b"x" * BYTES)
        assert not one.look()
    assert client.config_get("auto-aof-rewrite-min-size")["auto-aof-rewrite-min-size"] == str(rewriting.BYTES_BY_ITSELF)
    assert client.config_get("auto-aof-rewrite-percentage")["auto-aof-rewrite-percentage"] == "100"


def test_a_log_has_to_double_first(store: tuple[EmbeddedStore, redis.Redis, Rewriting]) -> None:
    _, client, one = store
    client.set("base", b"x" * 4 * BYTES)
    client.bgrewriteaof()
    wait_until(written(client), "the log is short")
    assert not one.look()
    small(client, 2 * CHANGES)
    assert BYTES < behind(client) < 4 * BYTES
    assert not one.look()
    small(client, 8 * CHANGES)
    assert one.look()


def test_what_was_written_before_anybody_looked_counts_as_small(store: tuple[EmbeddedStore, redis.Redis, Rewriting]) -> None:
    made, client, one = store
    assert not one.look()
    client.set("large", b"x" * 2 * BYTES)
    assert not one.look()
    made.slot.signal(signal.SIGKILL)
    wait_until(lambda: made.pid() is None, "it is gone")
    with pytest.raises((redis.RedisError, OSError)):
        Rewriting(client, made._home.store).look()
    made.start()
    made.wait()
    assert Rewriting(client, made._home.store).look()


def test_where_it_cannot_be_written_anew_it_is_not_asked_for_again_at_once(store: tuple[EmbeddedStore, redis.Redis, Rewriting]) -> None:
    made, client, _ = store
    client.execute_command("ACL", "SETUSER", "shy", "on", "nopass", "~*", "+@all", "-bgrewriteaof")
    shy = redis.Redis(unix_socket_path=str(made._home.socket), username="shy", password="")
    one = Rewriting(shy, made._home.store)
    assert not one.look()
    small(client, 2 * CHANGES)
    assert not any(one.look() for _ in range(5))
    denied: Any = client.execute_command("ACL", "LOG")
    assert len(denied) == 1
    assert "bgrewriteaof" in str(denied)
    facts: Any = client.info("persistence")
    assert facts["aof_last_bgrewrite_status"] == "ok"
    shy.close()


def test_a_disk_without_room_for_it_is_left_alone(store: tuple[EmbeddedStore, redis.Redis, Rewriting], monkeypatch: pytest.MonkeyPatch) -> None:
    _, client, one = store
    assert not one.look()
    small(client, 2 * CHANGES)
    monkeypatch.setattr(rewriting.shutil, "disk_usage", lambda path: SimpleNamespace(free=BYTES))
    assert not one.look()
    monkeypatch.undo()
    monkeypatch.setattr(rewriting, "BYTES", BYTES)
    monkeypatch.setattr(rewriting, "CHANGES", CHANGES)
    assert one.look()


def test_an_environment_s_store_is_told(own_environment: Callable[..., Environment]) -> None:
    store = own_environment().redis()
    script = "for at = 1, 500000 do redis.call('SET', 'small:' .. at % 10, string.rep('x', 90)) end"
    for _ in range(3):
        store.eval(script, 0)
    wait_until(lambda: store.info("persistence")["aof_rewrites"], "it has begun")  # type: ignore[index]
    wait_until(lambda: not store.info("persistence")["aof_rewrite_in_progress"], "it is done")  # type: ignore[index]
    assert behind(store) < 3 * 500_000 * 90, "the log is shorter than what was written"
