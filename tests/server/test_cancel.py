"""A cancel reaches what runs: asked first, then interrupted, then its replica replaced; beside it nothing is lost."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.client import Client
from jupyter_cortex.store import keys

from ..conftest import Environment, ProjectMaker, wait_until
from .living import ASYNC_HANDLER, HANDLER


class Living:
    """One API of `HANDLER`, and what its handlers have noted."""

    def __init__(self, environment: Environment, project: ProjectMaker, tmp_path: Path, name: str, handler: str = HANDLER, **options: Any) -> None:
        self.environment, self.name, self.directory = environment, name, tmp_path
        self.trace = tmp_path / f"{name}.trace"
        self.trace.touch()
        section = f"env: {{TRACE: {self.trace}}}\n" + options.pop("handler_spec", "")
        project(name, handler, handler_spec=section, **options).deploy(environment)
        self.client: Client = environment.client()

    def submit(self, do: str, request_id: str | None = None, **more: Any) -> str:
        return self.client.submit(self.name, {"do": do, **more}, request_id=request_id)

    def noted(self, request_id: str) -> list[str]:
        return [line.split()[1] for line in self.trace.read_text().splitlines() if line.split()[0] == request_id]

    def when(self, request_id: str, word: str) -> float:
        return next(float(line.split()[3]) for line in self.trace.read_text().splitlines() if line.split()[:2] == [request_id, word])

    def running(self, do: str, **more: Any) -> str:
        request_id = self.submit(do, **more)
        wait_until(lambda: self.noted(request_id) == ["began"], f"{do} runs")
        return request_id

    def ends(self, request_id: str) -> Any:
        return self.client.result(self.name, request_id, wait=60)

    def works(self) -> None:
        """A fresh workload is run: nothing holds the only replica."""
        assert self.ends(self.submit("echo")).status == "completed"

    def replicas(self) -> list[dict[str, Any]]:
        return [row for worker in self.client.get_api(self.name)["workers"].values() for row in worker["replicas"]]


@pytest.fixture(scope="module")
def shared(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One API for all tests that kill nobody."""
    made: dict[str, Living] = {}

    def get(project: ProjectMaker) -> Living:
        if not made:
            made["it"] = Living(environment, project, tmp_path_factory.mktemp("living"), "living", spec="cancel_grace: 200ms")
        return made["it"]

    return get


@pytest.mark.parametrize("do", ["loop", "sleep", "child", "recv", "lock"])
def test_what_runs_on_the_main_thread_is_interrupted_whatever_it_waits_for(shared: Any, project: ProjectMaker, do: str) -> None:
    living = shared(project)
    request_id = living.running(do)
    asked = time.time()
    assert living.client.cancel(living.name, request_id).status == "cancelled"
    wait_until(lambda: living.noted(request_id) == ["began", "Cancelled"], f"{do} is interrupted")
    print(f"\n{do}: interrupted {1000 * (living.when(request_id, 'Cancelled') - asked):.0f} ms after the cancel, 200 of them grace")
    living.works()
    assert living.ends(request_id).status == "cancelled"


def test_a_handler_that_asks_ends_without_being_interrupted(shared: Any, project: ProjectMaker) -> None:
    living = shared(project)
    request_id = living.running("polite")
    living.client.cancel(living.name, request_id)
    living.works()
    assert living.noted(request_id) == ["began"]
    assert living.ends(request_id).status == "cancelled"


def test_progress_does_not_return_in_a_cancelled_request(shared: Any, project: ProjectMaker) -> None:
    living = shared(project)
    request_id = living.running("tells")
    living.client.cancel(living.name, request_id)
    wait_until(lambda: living.noted(request_id) == ["began", "Cancelled"], "progress raises")
    living.works()


def test_what_waits_behind_a_cancelled_one_runs_and_what_is_cancelled_there_never_begins(shared: Any, project: ProjectMaker) -> None:
    living = shared(project)
    running = living.running("sleep")
    behind = [living.submit("echo", number=number) for number in range(6)]
    for request_id in behind[::2]:
        assert living.client.cancel(living.name, request_id).status == "cancelled"
    living.client.cancel(living.name, running)
    for request_id in behind[1::2]:
        assert living.ends(request_id).status == "completed"
    living.works()
    assert [living.noted(request_id) for request_id in behind[::2]] == [[], [], []]


def test_cancelling_twice_and_after_the_end_says_how_it_ended(shared: Any, project: ProjectMaker) -> None:
    living = shared(project)
    running = living.running("sleep")
    assert [living.client.cancel(living.name, running).status for _ in range(2)] == ["cancelled", "cancelled"]
    done = living.submit("echo")
    assert living.ends(done).status == "completed"
    assert living.client.cancel(living.name, done).status == "completed"
    assert living.ends(done).result == {"do": "echo"}


def test_cancels_at_every_moment_leave_each_workload_with_one_end_and_the_replica_at_work(shared: Any, project: ProjectMaker) -> None:
    living = shared(project)
    path = living.client.url(living.name)
    ends = {}
    with living.environment.http() as http:
        for number in range(60):
            request_id = http.post(path, json={"do": "sleep", "seconds": 0.002}).json()["id"]
            time.sleep((number % 12) / 2000)
            ends[request_id] = http.delete(f"{path}/{request_id}").json()["status"]
    living.works()
    assert {request_id: living.ends(request_id).status for request_id in ends} == ends
    store = living.environment.redis()
    wait_until(lambda: not store.exists(f"{keys.prefix(living.name)}:ending"), "nothing is left to end")


def test_an_async_handler_has_its_task_cancelled(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    living = Living(environment, project, tmp_path, "asyncs", ASYNC_HANDLER, handler_spec="threads_per_process: 4", spec="cancel_grace: 30s")
    ids = [living.running("sleep") for _ in range(3)]
    beside = living.submit("sleep", seconds=0.5)
    for request_id in ids:
        living.client.cancel(living.name, request_id)
    for request_id in ids:
        wait_until(lambda request_id=request_id: living.noted(request_id) == ["began", "CancelledError"], "its task is cancelled")
    assert living.ends(beside).result == {"slept": True}


def test_of_four_threads_only_the_cancelled_one_is_interrupted(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    living = Living(environment, project, tmp_path, "four-threads", handler_spec="threads_per_process: 4", spec="cancel_grace: 200ms")
    ids = [living.running("loop") for _ in range(2)]
    beside = [living.submit("wait", **{"for": str(tmp_path / "go")}) for _ in range(2)]
    for request_id in beside:
        wait_until(lambda request_id=request_id: living.noted(request_id) == ["began"], "it runs beside them")
    for request_id in ids:
        asked = time.time()
        living.client.cancel(living.name, request_id)
        wait_until(lambda request_id=request_id: living.noted(request_id) == ["began", "Cancelled"], "it is interrupted")
        print(f"\none of four threads: interrupted {1000 * (living.when(request_id, 'Cancelled') - asked):.0f} ms after the cancel")
    (tmp_path / "go").touch()
    assert [living.ends(request_id).status for request_id in beside] == ["completed"] * 2
    assert [living.client.workload(living.name, request_id)["attempts"] for request_id in beside] == [1, 1]


@pytest.mark.parametrize("do", ["gil", "stubborn"])
def test_with_cancel_kill_the_replica_is_replaced_and_its_other_workloads_are_not_charged(
    environment: Environment, project: ProjectMaker, tmp_path: Path, do: str
) -> None:
    living = Living(
        environment,
        project,
        tmp_path,
        f"kills-{do}",
        handler_spec="threads_per_process: 2",
        spec="cancel_grace: 100ms\ncancel: kill\nmax_deliveries: 1",
    )
    pid = living.replicas()[0]["pid"]
    beside = living.running("wait", **{"for": str(tmp_path / "go")})
    request_id = living.running(do)
    living.client.cancel(living.name, request_id)
    wait_until(lambda: [row["pid"] for row in living.replicas()] != [pid], "the replica is replaced")
    (tmp_path / "go").touch()
    assert living.ends(beside).status == "completed"
    found = living.client.workload(living.name, beside)
    assert (found["deaths"], found["attempts"]) == (0, 2)
    assert living.noted(request_id) in (["began"], ["began", "Cancelled"])
    assert living.ends(request_id).status == "cancelled"
    assert f"{request_id} did not end when it was cancelled" in living.client.get_api(living.name)["exits"][0]["reason"]


def test_without_kill_a_handler_that_never_ends_keeps_its_replica_and_that_is_said(
    environment: Environment, project: ProjectMaker, tmp_path: Path
) -> None:
    living = Living(environment, project, tmp_path, "keeps-it", spec="cancel_grace: 100ms")
    pid = living.replicas()[0]["pid"]
    request_id = living.running("stubborn", seconds=4)
    living.client.cancel(living.name, request_id)
    wait_until(lambda: living.replicas()[0].get("stuck") == [request_id], "it is said which one does not end")
    assert f"{request_id} was cancelled and does not end" in environment.cortex("get", "keeps-it").stdout
    living.works()
    wait_until(lambda: "stuck" not in living.replicas()[0], "it has ended")
    assert living.replicas()[0]["pid"] == pid
    assert living.ends(request_id).status == "cancelled"


def test_a_cancel_while_the_replica_dies_ends_once_and_what_ran_beside_it_runs_again(
    environment: Environment, project: ProjectMaker, tmp_path: Path
) -> None:
    living = Living(environment, project, tmp_path, "dies", handler_spec="threads_per_process: 2", spec="cancel_grace: 5s")
    beside = living.running("wait", **{"for": str(tmp_path / "go")})
    request_id = living.running("sleep")
    pid = living.replicas()[0]["pid"]
    living.client.cancel(living.name, request_id)
    os.kill(pid, 9)
    (tmp_path / "go").touch()
    assert living.ends(beside).status == "completed"
    assert living.ends(request_id).status == "cancelled"
    assert living.noted(request_id) == ["began"]
    store = environment.redis()
    wait_until(lambda: not store.exists(f"{keys.prefix(living.name)}:ending"), "nothing is left to end")
