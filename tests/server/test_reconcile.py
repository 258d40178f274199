"""One pass of the operator at a time, against workers that say what the test lets them say."""

from __future__ import annotations

import json
import os
import platform
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.connection import AbstractConnection

from jupyter_cortex.core.errors import ApiNotFound, Conflict
from jupyter_cortex.core.workload import DeploymentState as State
from jupyter_cortex.operator.embedded import EmbeddedStore
from jupyter_cortex.operator.home import Home
from jupyter_cortex.operator.reconcile import Reconciler
from jupyter_cortex.store import keys
from jupyter_cortex.store.records import Records
from jupyter_cortex.store.registry import Registry
from jupyter_cortex.store.scripts import BEAT, COMMIT, SUBMIT

from .stage import spec_of

API = "passes"


class Passes:
    """An operator's passes over one API. This process is the worker of each version that it says runs."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.client = redis.Redis.from_url(home.redis_url())
        self.registry = Registry(self.client)
        self.started: list[tuple[str, int]] = []
        self.over = Reconciler(self.client, home.run, lambda api, version: self.started.append((api, version)), platform.node(), 8)

    def deploy(self, digest: str = "0" * 64) -> int:
        return self.registry.deploy(API, spec_of(API), digest, dotenv="", source="a test", interpreter="python", facts={})[1]

    def state(self, version: int) -> State:
        return self.registry.deployment(API, version).state

    def beat(self, version: int, ready: int, worker: str = "here", replicas: tuple[str, ...] = (), **more: Any) -> None:
        said = {
            "pid": os.getpid(),
            "host": platform.node(),
            "run_dir": str(self.home.run),
            "version": version,
            "ready": ready,
            "failure": None,
            "trouble": "",
            "replicas": [{"id": replica, "pid": os.getpid(), "state": "serving"} for replica in replicas],
        }
        created = self.registry.deployment(API, version).times["created"]
        BEAT.run(self.client, API, worker, version, created, json.dumps({**said, **more}), 15000, 0, *replicas)

    def run(self, version: int) -> int:
        """Live in the slot of a version, as its worker would, until the descriptor is closed."""
        taken = self.over.slot(API, version).take()
        assert taken is not None
        return taken


@pytest.fixture
def passes(tmp_path: Path) -> Iterator[Passes]:
    home = Home(tmp_path / "home")
    home.make()
    store = EmbeddedStore(home)
    store.start()
    store.wait()
    yield Passes(home)
    store.stop()


def live(passes: Passes) -> tuple[int, int]:
    """A version that is live, and the descriptor that keeps its worker alive."""
    version = passes.deploy()
    passes.over.pass_over()
    running = passes.run(version)
    passes.beat(version, ready=1)
    passes.over.pass_over()
    assert passes.state(version) is State.LIVE
    return version, running


@pytest.fixture(autouse=True)
def unharmed() -> Iterator[None]:
    """The operator pokes its workers, and here that is this process."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_version_that_was_deployed_while_the_api_rested_takes_over_only_with_its_replicas(passes: Passes) -> None:
    before, _ = live(passes)
    passes.registry.set_stopped(API, True)
    version = passes.deploy("1" * 64)
    passes.over.pass_over()
    assert (passes.state(version), passes.registry.deployment(API, version).replicas) == (State.STARTING, 0)
    passes.registry.set_stopped(API, False)
    passes.run(version)
    passes.beat(version, ready=0)
    passes.over.pass_over()
    assert (passes.state(version), passes.state(before)) == (State.STARTING, State.LIVE), "nobody would serve"
    assert passes.registry.deployment(API, version).replicas == 1
    passes.beat(version, ready=1)
    passes.over.pass_over()
    assert (passes.state(version), passes.state(before)) == (State.LIVE, State.DRAINING)


def test_a_version_of_an_api_that_rests_takes_over_without_replicas(passes: Passes) -> None:
    live(passes)
    version = passes.deploy("1" * 64)
    passes.over.pass_over()
    passes.registry.set_stopped(API, True)
    passes.run(version)
    passes.beat(version, ready=0)
    passes.over.pass_over()
    assert passes.state(version) is State.LIVE


def test_work_of_a_worker_of_another_home_on_this_host_is_not_given_back(passes: Passes) -> None:
    version, running = live(passes)
    passes.beat(version, 1, "there", ("far-replica",), pid=os.getpid() + 1, run_dir="/somewhere/else/run")
    assert SUBMIT.run(passes.client, API, "a", "", "d", 2, b"{}") == b"ok"
    COMMIT.run(passes.client, API, "far-replica", version, 60, "failed", 100, "queue", 1, 1, 0, 0, 0)
    assert [passes.over.is_ours(worker) for _, worker in sorted(passes.registry.workers(API).items())] == [True, False]
    os.close(running)
    passes.over.pass_over()
    assert set(passes.registry.workers(API)) == {"there"}, "ours is gone and forgotten"
    assert str(Records(passes.client).get(API, "a").status) == "in_progress"
    assert passes.client.smembers(keys.held(API, "far-replica")) == {b"a"}


def test_nobody_brings_back_half_of_an_api_by_stopping_it_while_it_is_deleted(passes: Passes) -> None:
    live(passes)
    passes.registry.delete(API)
    for stopped in (True, False):
        with pytest.raises(ApiNotFound):
            passes.registry.set_stopped(API, stopped)
    assert not passes.client.exists(keys.api(API))


@contextmanager
def before_command(number: int, happens: Callable[[], None]) -> Iterator[None]:
    """Something happens in the moment before so many commands, or pipelines, are sent to the store."""
    send, sent = AbstractConnection.send_packed_command, 0

    def counting(self: AbstractConnection, *args: Any, **options: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == number:
            happens()
        return send(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", counting)
        yield


@pytest.mark.parametrize("inner", ["deploy", "purge"])
@pytest.mark.parametrize("number", range(1, 9))
def test_a_deploy_that_meets_the_end_of_a_delete_is_never_forgotten_with_it(passes: Passes, inner: str, number: int) -> None:
    passes.deploy()
    passes.registry.delete(API)
    refused: list[bool] = []

    def deploy() -> None:
        try:
            passes.deploy("1" * 64)
        except Conflict:  # it is still being deleted, and says so
            refused.append(True)

    def purge() -> None:
        passes.registry.purge(API)

    outer, happens = (purge, deploy) if inner == "deploy" else (deploy, purge)
    with before_command(number, happens):
        outer()
    if refused:
        passes.registry.purge(API)
        passes.deploy("1" * 64)
    elif passes.registry.find(API) is None:  # there are not so many commands
        deploy()
    assert (passes.registry.names(), passes.registry.get(API).wanted) == ([API], 1)


def test_a_worker_of_a_deleted_api_is_told_so_though_another_has_its_number(passes: Passes) -> None:
    version = passes.deploy()
    created = passes.registry.deployment(API, version).times["created"]
    ask = (passes.client, API, "elsewhere", version)
    assert BEAT.run(*ask, created, "{}", 15000, 0)[0] == b"pending"
    assert BEAT.run(*ask, created - 1, "{}", 15000, 0)[0] == b""


def test_an_archive_that_is_sent_again_stays_as_long_as_it_is_deployed(passes: Passes) -> None:
    digest = "ab" * 32
    passes.registry.put_bundle(API, digest, b"archive")
    assert passes.client.ttl(keys.bundle(API, digest)) > 0
    passes.deploy(digest)
    passes.registry.put_bundle(API, digest, b"archive")
    assert passes.client.ttl(keys.bundle(API, digest)) == -1


def test_what_brings_workers_back_and_makes_room_needs_no_memory(passes: Passes) -> None:
    version = passes.deploy()
    passes.over.pass_over()
    alive = passes.run(version)
    passes.client.config_set("maxmemory", 1)
    try:
        passes.beat(version, 1)
        passes.over.pass_over()
        assert passes.state(version) is State.LIVE
        passes.registry.set_replicas(API, version, 3, 4, "")
        assert passes.registry.deployment(API, version).replicas == 3
        passes.registry.set_stopped(API, True)
        before = passes.registry.version()
        passes.registry.forget_worker(API, "here")
        assert passes.registry.workers(API) == {}
        passes.registry.delete(API)
        assert passes.registry.version() > before, "gateways look again"
    finally:
        os.close(alive)
        passes.client.config_set("maxmemory", 0)
