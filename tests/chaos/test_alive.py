"""Who lives is never declared dead, and a dead machine's work is taken over."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from jupyter_cortex.operator.home import Home
from jupyter_cortex.store import keys
from jupyter_cortex.store.records import Records
from jupyter_cortex.store.registry import Registry
from jupyter_cortex.store.scripts import BEAT

from ..conftest import Environment, ProjectMaker, missing, wait_until
from .means import Clock

HOLDER = """
import ctypes
import os
import time

class Handler:
    def handle_async(self, payload, request_id):
        if payload.get("gil"):
            ctypes.PyDLL(None).usleep(int(payload["gil"] * 1e6))
        time.sleep(payload.get("sleep", 0))
        return {"pid": os.getpid()}
"""
#: Three beats of a supervisor.
LEASE_MS = 3000


@contextmanager
def elsewhere(environment: Environment, name: str, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`cortex worker`, as on another machine."""
    env = {**os.environ, "JUPYTER_CORTEX_HOME": str(directory)}
    command = [sys.executable, "-m", "jupyter_cortex.cli", "worker", name, "--redis", Home(environment.home).redis_url(), "--no-gateway"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        for one in [*_tree(process.pid), psutil.Process(process.pid)] if process.poll() is None else []:
            one.kill()
        process.wait(30)


def _tree(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def sweep(environment: Environment, api: str, seconds: float, lease_ms: int = LEASE_MS) -> set[str]:
    """Be another worker that judges by the store's clock, several times a second; whom it would call dead in that time."""
    seen: set[str] = set()
    with environment.redis() as store:
        deadline = time.monotonic() + seconds
        created = store.hget(keys.deployment(api, 1), "created")
        while time.monotonic() < deadline:
            seen.update(name.decode() for name in BEAT.run(store, api, "judge", 1, created, "{}", lease_ms, 1)[4:])
            time.sleep(0.2)
        store.hdel(keys.workers(api), "judge")
        store.zrem(keys.beats(api), "worker:judge")
    return seen - {"worker:judge"}


def test_a_replica_whose_handler_holds_the_gil_beats_on(environment: Environment, project: ProjectMaker) -> None:
    project("holder-gil", HOLDER).deploy(environment)
    client = environment.client()
    request_id = client.submit("holder-gil", {"gil": 6})
    wait_until(lambda: client.result("holder-gil", request_id).status == "in_progress", "it holds the GIL")
    assert sweep(environment, "holder-gil", 5) == set()
    assert client.result("holder-gil", request_id, wait=30).status == "completed"
    workload = client.workload("holder-gil", request_id)
    assert (workload["attempts"], workload["deaths"]) == (1, 0)
    client.delete("holder-gil")


def test_a_replica_that_is_stopped_for_a_while_beats_on(environment: Environment, project: ProjectMaker) -> None:
    project("holder-stop", HOLDER).deploy(environment)
    client = environment.client()
    request_id = client.submit("holder-stop", {"sleep": 1})
    wait_until(lambda: client.result("holder-stop", request_id).status == "in_progress", "it runs")
    pid = environment.processes("replica", "holder-stop")[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert sweep(environment, "holder-stop", 5) == set()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert client.result("holder-stop", request_id, wait=30).result == {"pid": pid}
    client.delete("holder-stop")


@pytest.mark.parametrize("step", [7200, -7200], ids=["forward", "back"])
def test_a_clock_that_is_set_makes_nobody_dead(step: int, own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path) -> None:
    """Two machines, one of them busy: the other one sees all beats grow old at once, and waits before it judges."""
    clock = Clock(tmp_path)
    if not clock.library:
        missing("libfaketime is not there: `apt-get install faketime`")
    environment = own_environment(store_server=clock.store_program())
    project("holder-clock", HOLDER).deploy(environment)
    client = environment.client()
    with elsewhere(environment, "holder-clock", tmp_path / "elsewhere"), environment.redis() as store:
        wait_until(lambda: len(client.get_api("holder-clock")["workers"]) == 2, "two machines serve")
        ids = [client.submit("holder-clock", {"sleep": 12}) for _ in range(2)]
        wait_until(lambda: all(client.result("holder-clock", one).status == "in_progress" for one in ids), "both are busy")
        # Long enough for both to be allowed to judge.
        time.sleep(4)
        before = store.time()[0]
        clock.step(step)
        wait_until(lambda: abs(store.time()[0] - before - step) < 60, "the clock was set")
        ended = [client.result("holder-clock", one, wait=50) for one in ids]
        assert [one.status for one in ended] == ["completed", "completed"]
        assert [(record.attempts, record.deaths) for record in (Records(store).get("holder-clock", one) for one in ids)] == [(1, 0), (1, 0)]
        assert len({one.result["pid"] for one in ended}) == 2


def test_a_dead_machine_s_work_is_taken_over(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path, show: Callable[[str], None]
) -> None:
    """Everything of it ends at once, so that nobody gives its work back."""
    environment = own_environment()
    project("holder-far", HOLDER).deploy(environment)
    client = environment.client()
    here = environment.processes("replica", "holder-far")[0]["id"]
    with elsewhere(environment, "holder-far", tmp_path / "elsewhere") as machine, environment.redis() as store:
        wait_until(lambda: client.get_api("holder-far")["ready"] == 2, "two machines serve")
        ids = [client.submit("holder-far", {"sleep": 3}) for _ in range(2)]
        wait_until(lambda: all(client.result("holder-far", one).status == "in_progress" for one in ids), "both are busy")
        holders = {one: Records(store).get("holder-far", one).replica for one in ids}
        request_id, holder = next((one, replica) for one, replica in holders.items() if replica != here)
        dead = _tree(machine.pid)
        for process in (psutil.Process(machine.pid), *dead):
            process.suspend()
        for process in (psutil.Process(machine.pid), *dead):
            process.kill()
        killed = time.monotonic()
        wait_until(lambda: Records(store).get("holder-far", request_id).replica not in ("", holder), "it runs here", 60)
        show(f"a dead machine's workload runs elsewhere after {time.monotonic() - killed:.1f} s (goal ≤ 30 s)")
        assert client.result("holder-far", request_id, wait=30).status == "completed"
        assert client.workload("holder-far", request_id)["deaths"] == 0, "a machine's death is charged to nobody"
        wait_until(lambda: len(Registry(store).workers("holder-far")) == 1, "the dead worker is forgotten")
        assert not store.exists(keys.held("holder-far", holder))


def test_work_that_a_worker_took_with_it_before_it_could_say_so_is_given_back(
    own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    """A replica that the store has never heard of by a beat: its board, on this machine's disk, says that there was one."""
    environment = own_environment()
    project("holder-mute", HOLDER).deploy(environment)
    client = environment.client()
    with environment.redis() as store:
        request_id = client.submit("holder-mute", {"sleep": 2})
        wait_until(lambda: client.result("holder-mute", request_id).status == "in_progress", "it runs")
        worker = environment.slot("worker-holder-mute-1")
        os.kill(worker.pid() or 0, signal.SIGSTOP)
        # As if the last beats, with this replica in them, had not arrived.
        name, status = next(iter(Registry(store).workers("holder-mute").items()))
        store.hset(keys.workers("holder-mute"), name, json.dumps({**status, "replicas": []}))
        store.zrem(keys.beats("holder-mute"), *(replica["id"] for replica in status["replicas"]))
        os.kill(worker.pid() or 0, signal.SIGKILL)
        assert client.result("holder-mute", request_id, wait=30).status == "completed"
        wait_until(lambda: not list(Home(environment.home).run.glob("*.buried")), "the second look was taken")


def test_a_live_version_that_cannot_start_a_replica_tries_until_it_can(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    """A machine out of descriptors, processes or room on its disk may have some later."""
    environment = own_environment()
    project("holder-short", HOLDER).deploy(environment)
    client = environment.client()
    worker = environment.slot("worker-holder-short-1").pid()
    assert worker
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    before = client.result("holder-short", client.submit("holder-short", {}), wait=30).result["pid"]
    # Room for a board, and not for all the pipes.
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{worker}/fd")), limits[1]))
    os.kill(before, signal.SIGKILL)
    trouble: Callable[[], bool] = lambda: any("cannot start" in status["trouble"] for status in client.get_api("holder-short")["workers"].values())  # noqa: E731
    wait_until(trouble, "it says why there is no replica")
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    assert client.result("holder-short", client.submit("holder-short", {}), wait=30).result["pid"] != before
    assert environment.slot("worker-holder-short-1").pid() == worker
    wait_until(lambda: len(list(Home(environment.home).run.glob("*.board"))) == 1, "starts in vain and the dead one have left nothing behind")
