"""What waits or runs for longer than it may fails with that reason, whoever looks and whatever it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import COMMIT

from ..conftest import Environment, ProjectMaker, wait_until
from .living import ASYNC_HANDLER
from .stage import REPLICA, Staged
from .test_cancel import Living


@pytest.mark.parametrize("do", ["loop", "sleep", "recv", "tells", "polite"])
def test_one_that_runs_too_long_is_interrupted_and_says_where_it_was(
    environment: Environment, project: ProjectMaker, tmp_path: Path, do: str
) -> None:
    living = Living(environment, project, tmp_path, f"limits-{do}", spec="timeout: 300ms\ncancel_grace: 100ms")
    ended = living.ends(living.submit(do))
    assert (ended.status, ended.error) == (
        "failed",
        {"type": "DeadlineExceeded", "message": "the workload has run for longer than 0.3 s (the API's timeout)"},
    )
    found = living.client.workload(living.name, ended.id)
    assert f", in {do}" in found["failure"]["traceback"]
    assert "jupyter_cortex" not in found["failure"]["traceback"].split("It ended here")[0]
    living.works()


def test_a_caller_may_ask_for_less_than_the_api_gives_and_not_for_more(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    living = Living(environment, project, tmp_path, "asks", spec="timeout: 2s\ncancel_grace: 0s")
    path = living.client.url("asks")
    with environment.http() as http:
        less, more = (http.post(path, json={"do": "sleep"}, headers={"Cortex-Timeout": seconds}).json()["id"] for seconds in ("0.2", "3600"))
    assert living.ends(less).error["message"] == "the workload has run for longer than 0.2 s (Cortex-Timeout)"
    assert living.ends(more).error["message"] == "the workload has run for longer than 2 s (the API's timeout)"
    assert living.client.workload("asks", less)["timeout"] == 0.2
    quick = living.submit("echo")
    assert living.ends(quick).status == "completed"
    assert not {"timeout", "due", "progress"} & set(living.client.workload("asks", quick))


def test_one_that_holds_the_gil_has_its_replica_replaced_and_fails(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    living = Living(environment, project, tmp_path, "gil", spec="timeout: 300ms\ncancel_grace: 100ms\nmax_deliveries: 1")
    pid = living.replicas()[0]["pid"]
    behind = [living.submit("gil"), *(living.submit("echo") for _ in range(3))]
    ended = living.ends(behind[0])
    assert (ended.status, ended.error["type"]) == ("failed", "DeadlineExceeded")
    assert (
        ended.error["message"]
        == "the workload has run for longer than 0.3 s (the API's timeout); it could not be interrupted, so its replica was replaced"
    )
    assert [living.ends(request_id).status for request_id in behind[1:]] == ["completed"] * 3
    assert [living.client.workload("gil", request_id)["deaths"] for request_id in behind] == [0] * 4
    assert living.noted(behind[0]) == ["began"]
    wait_until(lambda: [row["pid"] for row in living.replicas()] not in ([], [pid]), "another replica is there")


def test_an_async_handler_that_runs_too_long_says_where_it_waited(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    living = Living(environment, project, tmp_path, "slow-async", ASYNC_HANDLER, spec="timeout: 300ms")
    ended = living.ends(living.submit("sleep"))
    assert ended.error["type"] == "DeadlineExceeded"
    traceback = living.client.workload("slow-async", ended.id)["failure"]["traceback"]
    assert 'await asyncio.sleep(payload.get("seconds", 600))' in traceback


@pytest.mark.parametrize("name", ["Cortex-Timeout", "Cortex-Queue-Timeout"])
@pytest.mark.parametrize("value", ["", "soon", "-1", "0", "1e9", "nan", "1,5", "5s", "9" * 40])
def test_a_deadline_that_is_no_number_of_seconds_is_refused(environment: Environment, store_api: Staged, name: str, value: str) -> None:
    with environment.http() as http:
        refused = http.post(f"/{store_api.name}", json={}, headers={name: value})
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    assert name in refused.json()["detail"]


@pytest.fixture
def store_api(environment: Environment, request: pytest.FixtureRequest) -> Any:
    """An API that nobody serves."""
    from .stage import staged

    with staged(environment, "nobody") as made:
        yield made


def test_one_that_waits_too_long_fails_when_it_is_looked_at(environment: Environment, store_api: Staged) -> None:
    with environment.http() as http:
        path = f"/{store_api.name}"
        request_id = http.post(path, json={}, headers={"Cortex-Queue-Timeout": "0.05"}).json()["id"]
        other = http.post(path, json={}, headers={"Cortex-Queue-Timeout": "600"}).json()["id"]
        answer = wait_until(lambda: (said := http.get(f"{path}/{request_id}").json())["status"] == "failed" and said, "it fails")
        assert answer["error"]["type"] == "QueueTimeout"
        assert "longer than its queue timeout of 0.05 s; it was not begun" in answer["error"]["message"]
        assert http.get(f"{path}/{other}").json()["status"] == "in_queue"
    assert environment.redis().lrange(keys.queue(store_api.name), 0, -1) == [other.encode()]


def test_one_that_waits_too_long_fails_without_anybody_looking(environment: Environment, store_api: Staged) -> None:
    with environment.http() as http:
        request_id = http.post(f"/{store_api.name}", json={}, headers={"Cortex-Queue-Timeout": "0.05"}).json()["id"]
    store = environment.redis()
    wait_until(lambda: store.hget(keys.record(store_api.name, request_id), "status") == b"failed", "the operator has swept")
    assert not store.exists(keys.due(store_api.name))


def test_a_replica_does_not_begin_what_has_waited_too_long(environment: Environment, store_api: Staged) -> None:
    store = environment.redis()
    store_api.submit("late")
    store.hset(keys.record(store_api.name, "late"), "due", 1)
    reply = COMMIT.run(store, store_api.name, REPLICA, 1, 3600, "failed", -1, "queue", 5, 5, 0, 0, 0)
    assert reply[2:] == []
    record = store.hgetall(keys.record(store_api.name, "late"))
    assert json.loads(record[b"error"])["type"] == "QueueTimeout"
    assert b"due" not in record


def test_the_apis_queue_timeout_holds_for_what_waits_behind_a_slow_one(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    living = Living(environment, project, tmp_path, "queues", spec="queue_timeout: 500ms")
    first = living.running("wait", **{"for": str(tmp_path / "go")})
    behind = [living.submit("echo") for _ in range(5)]
    for request_id in behind:
        ended = living.ends(request_id)
        assert (ended.status, ended.error["type"]) == ("failed", "QueueTimeout")
    (tmp_path / "go").touch()
    assert living.ends(first).status == "completed"
    living.works()
    assert [living.noted(request_id) for request_id in behind] == [[]] * 5
