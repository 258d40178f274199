"""What a store's end may take with it, by when it writes to disk: with `always` nothing that was accepted, with `everysec` what README says.

A kill does not lose what the system has taken from the process; only a power cut does. It is played here: a marker and WAITAOF tell up to which byte
the file was surely on disk, and another store is started on a copy that ends there.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from jupyter_cortex.operator.embedded import EmbeddedStore
from jupyter_cortex.operator.home import Home
from jupyter_cortex.store import keys

from ..conftest import ECHO, Environment, ProjectMaker, missing, wait_until

API = "synced"
#: Long enough for several syncs of `everysec`.
FLOW_S = 5.0


class Flow(threading.Thread):
    """Posts without a pause; the ids accepted so far, in order, each with its time."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(daemon=True)
        self.environment, self.stop = environment, False
        self.accepted: list[tuple[float, str]] = []

    def run(self) -> None:
        with self.environment.http() as http:
            while not self.stop:
                answer = http.post(f"/{API}", json={"n": len(self.accepted)})
                if answer.status_code == 200:
                    self.accepted.append((time.monotonic(), answer.json()["id"]))


def newest(home: Home) -> Path:
    return max((home.store / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)


def synced_until(flow: Flow, store: redis.Redis, home: Home, *, at_once: bool) -> tuple[int, int, list[float]]:
    """Let it flow for a while: (bytes surely on disk, how many of the accepted must be among them, those that a cut just before a sync would have
    lost at worst, by their age in seconds).

    ``at_once``: a write must be on disk when its answer comes.
    """
    sure, worst = (0, 0), []
    deadline = time.monotonic() + FLOW_S
    while time.monotonic() < deadline or not sure[1]:
        accepted, size = len(flow.accepted), newest(home).stat().st_size
        store.set("cx:marker", size)
        # The last number: how many ms to wait for it, 0 for as long as it takes.
        on_disk = store.execute_command("WAITAOF", 1, 0, 1 if at_once else 0)[0]
        assert on_disk
        now, waiting = time.monotonic(), flow.accepted[sure[1] :] if sure[1] else []
        worst = max(worst, [now - at for at, _ in waiting], key=len)
        sure = (size, accepted)
    return *sure, worst


@contextmanager
def started_on(store: Path, home: Home) -> Iterator[redis.Redis]:
    home.make()
    shutil.copytree(store, home.store, dirs_exist_ok=True)
    embedded = EmbeddedStore(home)
    embedded.start()
    embedded.wait()
    try:
        with redis.Redis.from_url(home.redis_url()) as client:
            yield client
    finally:
        embedded.stop()


def lost(client: redis.Redis, ids: list[str]) -> list[str]:
    pipe = client.pipeline(transaction=False)
    for request_id in ids:
        pipe.exists(keys.record(API, request_id))
    return [request_id for request_id, there in zip(ids, pipe.execute(), strict=True) if not there]


@pytest.mark.parametrize("when", ["always", "everysec"])
def test_what_a_killed_store_and_a_power_cut_take_with_them(
    when: str, own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path, show: Callable[[str], None]
) -> None:
    environment = own_environment(appendfsync=when)
    project(API, ECHO).deploy(environment)
    environment.client().stop(API)
    home = Home(environment.home)
    with environment.redis() as store:
        try:
            store.execute_command("WAITAOF", 0, 0, 0)
        except redis.ResponseError:
            missing("this server has no WAITAOF (Redis 7.2 and Valkey have)")
        flow = Flow(environment)
        flow.start()
        size, sure, worst = synced_until(flow, store, home, at_once=when == "always")
    wait_until(lambda: len(flow.accepted) > sure, "more is accepted behind the last sync")
    operator, victim = environment.slot("operator").pid(), environment.slot("store").pid()
    assert operator
    assert victim
    # Nobody starts it again while we look.
    os.kill(operator, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    accepted = list(flow.accepted)
    try:
        wait_until(lambda: environment.slot("store").pid() is None, "the store is gone")
        with started_on(home.store, Home(tmp_path / "killed")) as client:
            by_kill = lost(client, [request_id for _, request_id in accepted])
        copy = tmp_path / "cut"
        shutil.copytree(home.store, copy)
        if when == "everysec":
            os.truncate(copy / "appendonlydir" / newest(home).name, size)
        with started_on(copy, Home(tmp_path / "power")) as client:
            by_cut = set(lost(client, [request_id for _, request_id in accepted]))
    finally:
        flow.stop = True
        os.kill(operator, signal.SIGCONT)
        flow.join(60)
    said = f"a power cut just before a sync loses the last {max(worst, default=0):.2f} s ({len(worst)} workloads), one just after it {len(by_cut)}"
    said = said if when == "everysec" else "each was on disk before its answer"
    show(f"appendfsync {when}: {len(accepted)} accepted; kill -9 of the store lost {len(by_kill)}; {said}")
    assert not by_cut & {request_id for _, request_id in accepted[:sure]}, "what was synced is there"
    if when == "always":
        assert by_kill == []
