"""Nothing accepted is lost, whatever dies: one process after another is killed while requests flow."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from jupyter_cortex.core.errors import CortexError
from jupyter_cortex.serving.reclaim import reclaim
from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import COMMIT

from ..conftest import Environment, ProjectMaker, wait_until

ADDER = """
import time

class Handler:
    def handle_async(self, payload, request_id):
        time.sleep(payload["sleep"])
        return {"n": payload["n"], "id": request_id}
"""
REQUESTS = 2000
CONNECTIONS = 8


class Flow:
    """Clients that post numbered requests with ids of their own and repeat each one until it was accepted, as a careful caller does."""

    def __init__(self, environment: Environment, api: str, requests: int) -> None:
        self.environment, self.api, self.requests = environment, api, requests
        self.accepted: dict[str, int] = {}
        self.strange: list[str] = []
        self._lock = threading.Lock()
        self._next = iter(range(requests))
        self._pool = ThreadPoolExecutor(CONNECTIONS)
        self._jobs = [self._pool.submit(self._client) for _ in range(CONNECTIONS)]

    def _client(self) -> None:
        http = self.environment.http()
        while True:
            with self._lock:
                number = next(self._next, None)
            if number is None:
                return
            self._post(http, number)

    def _post(self, http: httpx.Client, number: int) -> None:
        request_id = f"flow-{number}"
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                answer = http.post(f"/{self.api}", json={"n": number, "sleep": 0.004}, headers={"x-request-id": request_id})
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                with self._lock:
                    self.accepted[request_id] = number
                return
            if answer.status_code != 503:
                self.strange.append(f"{answer.status_code} {answer.text[:200]}")
            time.sleep(0.05)
        self.strange.append(f"{request_id} was never accepted")

    def progress(self) -> int:
        return len(self.accepted)

    def join(self) -> None:
        for job in self._jobs:
            job.result(timeout=180)
        self._pool.shutdown()


def check_every_answer(flow: Flow) -> None:
    """Every accepted id has ended completed, with its own result."""
    client = flow.environment.client()
    for request_id, number in flow.accepted.items():
        workload = client.result(flow.api, request_id, wait=60)
        assert (workload.status, workload.result) == ("completed", {"n": number, "id": request_id}), workload


def check_ended_once(flow: Flow) -> None:
    """The events say of each id that it ended, and only once."""
    ends: dict[str, int] = {}
    for event in flow.environment.client()._control("GET", f"/apis/{flow.api}/events", params={"limit": 10000}):
        if event["state"] in ("completed", "failed", "cancelled"):
            ends[event["id"]] = ends.get(event["id"], 0) + 1
    assert max(ends.values()) == 1


def pid_of(environment: Environment, role: str, api: str) -> int:
    if role in ("operator", "gateway", "store"):
        pid = environment.slot(role).pid()
    elif role == "worker":
        pid = environment.slot(f"worker-{api}-1").pid()
    else:
        workers = environment.client().get_api(api)["workers"].values()
        pid = next((replica["pid"] for worker in workers for replica in worker["replicas"] if replica["state"] == "serving"), None)
    return pid or 0


def test_killing_each_process_in_turn_while_requests_flow_loses_no_accepted_request(
    own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    environment = own_environment()
    project("flow", ADDER, spec="autoscaling: {min_replicas: 2}").deploy(environment)
    flow = Flow(environment, "flow", REQUESTS)
    victims = ["replica", "gateway", "worker", "store", "operator"] * 2
    for kills, role in enumerate(victims, 1):
        wait_until(lambda kills=kills: flow.progress() >= flow.requests * kills / (len(victims) + 1), "requests flow")
        victim = wait_until(lambda role=role: pid_of_or_zero(environment, role), f"there is a {role}")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda role=role, victim=victim: pid_of_or_zero(environment, role) not in (0, victim), f"another {role} runs")
    flow.join()
    assert flow.strange == []
    assert flow.progress() == flow.requests
    # The requests may all have been accepted before the last kills: then the store is still reading its data.
    wait_until(lambda: pid_of_or_zero(environment, "replica"), "all is there again")
    check_every_answer(flow)
    check_ended_once(flow)
    assert environment.redis().zcard(keys.index("flow", "failed")) == 0


def pid_of_or_zero(environment: Environment, role: str) -> int:
    """Like pid_of, while the gateway or the store may be away."""
    try:
        return pid_of(environment, role, "flow")
    except Exception:
        return 0


def test_requests_wait_while_all_replicas_are_stopped_and_finish_when_they_start(
    own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    environment = own_environment()
    project("pause", ADDER).deploy(environment)
    client = environment.client()
    client.stop("pause")
    wait_until(lambda: not environment.processes("replica", "pause"), "the replica is gone")
    ids = [client.submit("pause", {"n": n, "sleep": 0}) for n in range(10)]
    assert {client.result("pause", request_id).status for request_id in ids} == {"in_queue"}
    client.start("pause")
    assert {client.result("pause", request_id, wait=60).status for request_id in ids} == {"completed"}


def test_down_and_up_bring_everything_back_on_the_same_port(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    project("back", ADDER).deploy(environment)
    client = environment.client()
    done = client.submit("back", {"n": 1, "sleep": 0})
    assert client.result("back", done, wait=60).status == "completed"
    url = environment.url
    client.stop("back")
    wait_until(lambda: not environment.processes("replica", "back"), "the replica is gone")
    waiting = client.submit("back", {"n": 2, "sleep": 0})
    environment.down()
    for role in ("operator", "gateway", "store"):
        assert environment.slot(role).pid() is None
    environment.up()
    assert environment.url == url
    client = environment.client()
    assert client.result("back", done).result == {"n": 1, "id": done}
    client.start("back")
    assert client.result("back", waiting, wait=60).result == {"n": 2, "id": waiting}


def test_a_workload_that_runs_during_down_is_not_charged_and_runs_again(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    project("long", ADDER).deploy(environment)
    client = environment.client()
    request_id = client.submit("long", {"n": 3, "sleep": 4})
    wait_until(lambda: client.result("long", request_id).status == "in_progress", "it runs")
    environment.down(grace=0)
    environment.up()
    client = environment.client()
    assert client.result("long", request_id, wait=60).result == {"n": 3, "id": request_id}
    assert client.workload("long", request_id)["deaths"] == 0


def test_what_lies_aside_gets_a_fresh_replica_even_if_none_dies(environment: Environment, project: ProjectMaker) -> None:
    project("aside", ADDER).deploy(environment)
    client, store = environment.client(), environment.redis()
    busy = client.submit("aside", {"n": 1, "sleep": 5})
    wait_until(lambda: client.result("aside", busy).status == "in_progress", "the only replica is busy")
    last_chance = client.submit("aside", {"n": 2, "sleep": 0})
    spec = client.get_api("aside")["spec"]
    for ghost in ("ghost-1", "ghost-2"):
        take = ("aside", ghost, 1, 60, "failed", -1, "queue", 1, 1, 0, 0, 0)
        wait_until(lambda take=take: COMMIT.run(store, *take)[2:], "its look-ahead has been given back")
        reclaim(store, "aside", ghost, spec, reason="killed by SIGSEGV", ran=[last_chance])
    assert store.lrange(f"{keys.prefix('aside')}:suspects", 0, -1) == [last_chance.encode()]
    assert client.result("aside", last_chance, wait=60).result == {"n": 2, "id": last_chance}
    assert client.result("aside", busy, wait=60).result == {"n": 1, "id": busy}
    assert client.workload("aside", last_chance)["replica"] != client.workload("aside", busy)["replica"]
    assert client.workload("aside", busy)["deaths"] == 0


DIES = """
import os, time

class Handler:
    def handle_async(self, payload, request_id):
        while not os.path.exists(payload["until"]):
            time.sleep(0.01)
        if payload.get("dies"):
            os._exit(7)
        return {"lived": True}
"""


def test_what_kills_its_replica_while_that_drains_is_charged_with_it(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    project("drains", DIES, spec="max_deliveries: 1").deploy(environment)
    client = environment.client()
    killer = client.submit("drains", {"until": str(tmp_path / "now"), "dies": True})
    wait_until(lambda: client.result("drains", killer).status == "in_progress", "it runs")
    client.stop("drains")
    wait_until(lambda: "draining" in replica_states(environment, "drains"), "its replica drains")
    (tmp_path / "now").touch()
    ended = client.result("drains", killer, wait=60)
    assert (ended.status, ended.error and ended.error["type"]) == ("failed", "ReplicaDied")


def replica_states(environment: Environment, api: str) -> list[str]:
    return [replica["state"] for worker in environment.client().get_api(api)["workers"].values() for replica in worker["replicas"]]


def test_a_drain_timeout_that_was_changed_in_place_counts(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    project("hurried", DIES, spec="drain_timeout: 1h").deploy(environment)
    client = environment.client()
    slow = client.submit("hurried", {"until": str(tmp_path / "now")})
    wait_until(lambda: client.result("hurried", slow).status == "in_progress", "it runs")
    assert project("hurried", DIES, spec="drain_timeout: 1s").deploy(environment).outcome == "changed"
    project("hurried", DIES + "# changed", spec="drain_timeout: 1s").deploy(environment)
    wait_until(lambda: client.workload("hurried", slow)["version"] == 2, "it runs in the new version, since the old one did not wait for it")
    (tmp_path / "now").touch()
    assert client.result("hurried", slow, wait=60).result == {"lived": True}


def test_a_store_whose_memory_is_full_is_worked_empty_whoever_dies(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    project("empties", ADDER).deploy(environment)
    client, store = environment.client(), environment.redis()
    ids = [client.submit("empties", {"n": n, "sleep": 0.3}) for n in range(4)]
    store.config_set("maxmemory", 1)
    for role in ("replica", "worker"):
        victim = wait_until(lambda role=role: pid_of(environment, role, "empties"), f"there is a {role}")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda role=role, victim=victim: pid_of(environment, role, "empties") not in (0, victim), f"another {role} serves")
    assert [client.result("empties", one, wait=60).status for one in ids] == ["completed"] * 4
    client.delete("empties")
    wait_until(lambda: not environment.processes("worker", "empties"), "its worker has ended")
    wait_until(lambda: not list(store.scan_iter(f"{keys.prefix('empties')}:*", count=1000)), "its keys are gone")


def test_a_stopped_store_answers_503_and_recovers_without_a_restart(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment(store_wait="0.2")
    project("frozen", ADDER).deploy(environment)
    store = environment.slot("store").pid()
    assert store
    with environment.http() as http:
        os.kill(store, signal.SIGSTOP)
        try:
            answer = http.post("/frozen", json={"n": 0, "sleep": 0})
            assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "store_unavailable", "1")
            assert answer.headers["content-type"] == "application/problem+json"
        finally:
            os.kill(store, signal.SIGCONT)
        request_id = wait_until(lambda: http.post("/frozen", json={"n": 1, "sleep": 0}).json().get("id"), "it takes requests again")
    assert environment.client().result("frozen", request_id, wait=60).status == "completed"


def test_a_full_store_answers_503_and_recovers_when_there_is_room(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment(store_wait="0.2")
    project("full", ADDER).deploy(environment)
    store = environment.redis()
    store.config_set("maxmemory", "1")
    with environment.http() as http:
        answer = http.post("/full", json={"n": 0, "sleep": 0})
        # By the store itself, or by the gateway when it has looked at the store's memory meanwhile.
        said = {"store_unavailable": "memory is full", "store_full": "of the store's memory are used"}
        assert answer.status_code == 503
        assert said[answer.json()["code"]] in answer.json()["detail"]
        store.config_set("maxmemory", "0")
        request_id = wait_until(lambda: http.post("/full", json={"n": 1, "sleep": 0}).json().get("id"), "it takes requests again")
    assert environment.client().result("full", request_id, wait=60).status == "completed"


def test_a_read_only_store_answers_503_and_recovers(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment(store_wait="0.2")
    project("readonly", ADDER).deploy(environment)
    store = environment.redis()
    store.replicaof("127.0.0.1", "1")
    with environment.http() as http:
        answer = http.post("/readonly", json={"n": 0, "sleep": 0})
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        store.replicaof("NO", "ONE")
        request_id = wait_until(lambda: http.post("/readonly", json={"n": 1, "sleep": 0}).json().get("id"), "it takes requests again")
    assert environment.client().result("readonly", request_id, wait=60).status == "completed"


def test_no_control_route_breaks_while_the_store_s_memory_is_full(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment(store_wait="0.2")
    project("crammed", ADDER).deploy(environment)
    store = environment.redis()
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as control:
        api = "/_cortex/v1/apis/crammed"
        store.config_set("maxmemory", "1")
        asked = {
            "refresh": control.post(f"{api}/refresh"),
            "rollback": control.post(f"{api}/rollback"),
            "change": control.patch(api, json={"handler": {"config": {"x": 1}}}),
            "stop": control.post(f"{api}/stop"),
            "start": control.post(f"{api}/start"),
            "requeue": control.post(f"{api}/requeue", json={"ids": ["none"]}),
            "promote": control.post(f"{api}/deployments/1/promote"),
            "drop": control.post(f"{api}/deployments/1/drop"),
            "bundle": control.put(f"{api}/bundles/{'0' * 64}", content=b"PK"),
            "report": control.put(f"{api}/deployments/1/report", content=b"{}", headers={"content-type": "application/x-ipynb+json"}),
            "readyz": control.get("/readyz"),
            "look": control.get(api),
        }
        with pytest.raises(CortexError) as refused:
            environment.client().refresh("crammed")
        answered = {what: answer.status_code for what, answer in asked.items()}
        assert not {what: status for what, status in answered.items() if status >= 500 and status != 503}
        away = [what for what, answer in asked.items() if answer.status_code == 503]
        assert {"refresh", "readyz"} <= set(away), answered
        for what in away:
            assert "its memory is full" in asked[what].json()["detail"], what
            assert asked[what].headers["retry-after"] == "1"
        assert "memory is full" in refused.value.message
        store.config_set("maxmemory", "0")
        assert control.post(f"{api}/refresh").status_code == 200
        assert control.get("/readyz").status_code == 200
