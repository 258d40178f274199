"""`cortex worker` on another machine: it needs the store's URL and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_cortex.operator.home import Home
from jupyter_cortex.operator.processes import Slot

from ..conftest import Environment, ProjectMaker, runs, wait_until

WHERE = """
import os, sys, time

class Handler:
    def __init__(self, config):
        self.config = config

    def handle_async(self, payload):
        time.sleep(payload.get("sleep", 0))
        return {"project": os.environ["CORTEX_PROJECT_DIR"], "config": self.config, "python": sys.executable}
"""


class Machine:
    """Another machine, as far as processes go: ``cortex worker`` with a home of its own."""

    def __init__(self, environment: Environment, api: str, home: Path) -> None:
        self.environment, self.api, self.home = environment, api, home
        self.run = home / "elsewhere" / "run"

    def start(self, *options: str, **how: Any) -> subprocess.Popen[Any]:
        command = [sys.executable, "-m", "jupyter_cortex.cli", "worker", self.api, "--redis", Home(self.environment.home).redis_url(), *options]
        return subprocess.Popen(command, env={**os.environ, "JUPYTER_CORTEX_HOME": str(self.home)}, **how)

    def workers(self) -> list[dict[str, Any]]:
        """What its workers say of themselves."""
        said = self.environment.client().get_api(self.api)["workers"].values()
        return [worker for worker in said if worker["run_dir"] == str(self.run)]

    def ready(self, replicas: int = 1, *, but: int = 0) -> int:
        """The process id of its one worker, when it has so many replicas ready and is not ``but``; else 0."""
        workers = self.workers()
        return workers[0]["pid"] if len(workers) == 1 and workers[0]["ready"] == replicas and workers[0]["pid"] != but else 0


@contextmanager
def ending(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Drains it; it ends well."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_a_worker_elsewhere_serves_without_operator_and_gateway_and_follows_new_versions(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    project("far", WHERE, handler_spec="config: {v: 1}").deploy(environment)
    client = environment.client()
    machine = Machine(environment, "far", tmp_path / "machine")

    def served(version: int) -> bool:
        result = client.result("far", client.submit("far", {}), wait=60).result
        return bool(result["config"] == {"v": version} and all(result[place].startswith(str(machine.home)) for place in ("project", "python")))

    with ending(machine.start("--no-gateway")):
        wait_until(lambda: client.result("far", client.submit("far", {}), wait=60).result["project"].startswith(str(machine.home)), "it serves")
        # What it requires is installed on each machine.
        project("far", WHERE, handler_spec="config: {v: 2}", files={"dependencies.sh": "echo set up\n"}).deploy(environment)
        wait_until(lambda: served(2), "the worker elsewhere has followed")
        wait_until(lambda: machine.ready() and len(environment.processes("worker", "far")) == 1, "the old version's workers have left")
        # It lives on this host, but in no slot of this environment's.
        assert sum(worker["ready"] for worker in client.get_api("far")["workers"].values()) == 2
        assert len(environment.processes("replica", "far")) == 1
        listed = environment.cortex("get", "far").stdout.splitlines()
        for worker in client.get_api("far")["workers"].values():
            assert any(str(worker["pid"]) in line and worker["host"] in line for line in listed), "each machine's workers are listed"
    assert not machine.workers()
    assert not [path.name for path in machine.run.glob("*") if not path.name.startswith("follower-")]


def test_a_stopped_api_rests_on_every_machine(own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path) -> None:
    environment = own_environment()
    project("rests", WHERE).deploy(environment)
    client = environment.client()
    machine = Machine(environment, "rests", tmp_path / "machine")
    with ending(machine.start("--no-gateway", "--replicas", "2")):
        wait_until(lambda: client.get_api("rests")["ready"] == 3, "both machines serve")
        client.stop("rests")
        wait_until(lambda: not any(worker["replicas"] for worker in client.get_api("rests")["workers"].values()), "no replica is left anywhere")
        waiting = client.submit("rests", {})
        assert client.result("rests", waiting).status == "in_queue"
        client.start("rests")
        assert client.result("rests", waiting, wait=60).status == "completed"
        wait_until(lambda: client.get_api("rests")["ready"] == 3, "both machines serve again")


def test_cortex_worker_killed_and_started_again_goes_on_with_the_worker_it_left(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    project("again", WHERE).deploy(environment)
    machine = Machine(environment, "again", tmp_path / "machine")
    first = machine.start("--no-gateway")
    worker = wait_until(machine.ready, "it serves")
    first.kill()
    first.wait(30)
    second = machine.start("--no-gateway", stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None
    line = next(line for line in second.stderr if "the worker of version 1" in line)
    assert "going on with the worker of version 1 that runs here" in line
    assert machine.ready() == worker
    second.kill()
    second.wait(30)
    with ending(machine.start("--no-gateway", "--replicas", "2")):
        other = wait_until(lambda: machine.ready(2, but=worker), "one with two replicas has taken its place")
        assert not runs(worker)
    assert not runs(other)


def test_what_a_killed_worker_elsewhere_held_runs_again_and_nothing_of_it_is_left(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    project("dies", WHERE).deploy(environment)
    client = environment.client()
    machine = Machine(environment, "dies", tmp_path / "machine")
    with ending(machine.start("--no-gateway", "--replicas", "2")):
        worker = wait_until(lambda: machine.ready(2), "it serves")
        ids = [client.submit("dies", {"sleep": 2}) for _ in range(3)]
        wait_until(lambda: all(client.result("dies", one).status == "in_progress" for one in ids), "all are busy")
        boards = {path.stem for path in machine.run.glob("*.board")}
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: machine.ready(2, but=worker), "another worker is there")
        assert {client.result("dies", one, wait=60).status for one in ids} == {"completed"}
        assert sum(client.workload("dies", one)["attempts"] for one in ids) == 5
        assert sum(client.workload("dies", one)["deaths"] for one in ids) == 0, "a worker's death is charged to nobody"
        wait_until(lambda: not boards & {path.stem for path in machine.run.glob("*-v1-*")}, "the boards of the dead are gone")


def test_a_second_cortex_worker_of_one_api_in_one_home_is_refused(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    project("twice", WHERE).deploy(environment)
    machine = Machine(environment, "twice", tmp_path / "machine")
    with ending(machine.start("--no-gateway")) as first:
        worker = wait_until(machine.ready, "it serves")
        second = machine.start("--no-gateway", "--replicas", "2", stderr=subprocess.PIPE, text=True)
        said = second.communicate(timeout=60)[1]
        assert second.returncode == 1
        assert f"`cortex worker twice` runs here already (process {first.pid})" in said
        assert machine.ready() == worker


def test_the_gateway_for_chaining_names_comes_back_and_leaves_with_the_last_cortex_worker(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    project("names-a", WHERE).deploy(environment)
    project("names-b", WHERE).deploy(environment)
    machines = [Machine(environment, api, tmp_path / "machine") for api in ("names-a", "names-b")]
    gateway = Slot(machines[0].run, "gateway")
    with ending(machines[0].start()):
        with ending(machines[1].start()):
            wait_until(lambda: all(machine.ready() for machine in machines), "both APIs are served")
            first = wait_until(gateway.pid, "there is a gateway")
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: gateway.pid() not in (None, first), "there is another one")
        assert gateway.pid() is not None, "the other one's replicas need it"
    assert gateway.wait_empty(60)


def test_two_signals_that_mean_one_end_no_running_handler(own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path) -> None:
    """A service manager sends SIGTERM to all that it started, and `cortex worker` passes its own on."""
    environment = own_environment()
    project("twofold", WHERE).deploy(environment)
    client = environment.client()
    machine = Machine(environment, "twofold", tmp_path / "machine")
    with ending(machine.start("--no-gateway")):
        worker = wait_until(machine.ready, "it serves")
        ids = [client.submit("twofold", {"sleep": 3}) for _ in range(2)]
        wait_until(lambda: all(client.result("twofold", one).status == "in_progress" for one in ids), "both are busy")
        os.kill(worker, signal.SIGTERM)
    assert [client.workload("twofold", one)["attempts"] for one in ids] == [1, 1]
    assert {client.result("twofold", one, wait=30).status for one in ids} == {"completed"}


def test_two_interrupts_end_it_also_while_the_store_is_away(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    project("hurries", WHERE).deploy(environment)
    client = environment.client()
    machine = Machine(environment, "hurries", tmp_path / "machine")
    process = machine.start("--no-gateway")
    worker = wait_until(machine.ready, "it serves")
    ids = [client.submit("hurries", {"sleep": 5}) for _ in range(2)]
    wait_until(lambda: all(client.result("hurries", one).status == "in_progress" for one in ids), "both are busy")
    store = environment.slot("store").pid()
    assert store
    os.kill(store, signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert not runs(worker)
    finally:
        os.kill(store, signal.SIGCONT)
    with ending(machine.start("--no-gateway")):
        assert {client.result("hurries", one, wait=60).status for one in ids} == {"completed"}


def test_what_a_version_left_here_goes_when_another_one_is_live(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    project("moves", WHERE).deploy(environment)
    machine = Machine(environment, "moves", tmp_path / "machine")
    with ending(machine.start("--no-gateway")):
        wait_until(machine.ready, "it serves")
    projects = machine.home / "elsewhere" / "projects"
    assert [path.name for path in projects.glob("moves-v1-*")]
    project("moves", WHERE, handler_spec="config: {v: 2}").deploy(environment)
    with ending(machine.start("--no-gateway")):
        wait_until(machine.ready, "it serves version 2")
        assert not [path.name for path in projects.glob("moves-v1-*")]
