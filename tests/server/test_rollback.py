"""An earlier version comes back in one step, as a new version, and nothing that runs or waits is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import CortexError
from jupyter_cortex.store import keys
from tests.conftest import Environment, ProjectMaker, wait_until

#: Says which code and which `.env` ran; waits for a file where the payload names one.
HANDLER = """
    import os
    import time

    class Handler:
        def __init__(self, config):
            self.of = config["of"]

        def handle_async(self, payload):
            while payload and not os.path.exists(payload["until"]):
                time.sleep(0.01)
            return {"code": %d, "config": self.of, "secret": os.environ["SECRET"]}
"""


def deploy(environment: Environment, project: ProjectMaker, name: str, number: int, spec: str = "", **options: Any) -> int:
    made = project(name, HANDLER % number, spec, {".env": f"SECRET=s{number}\n"}, handler_spec=f"config: {{of: {number}}}")
    return made.deploy(environment, **options).version


def answer(environment: Environment, name: str) -> Any:
    client = environment.client()
    return client.result(name, client.submit(name, {}), wait=30).result


def made_by(number: int) -> dict[str, Any]:
    return {"code": number, "config": number, "secret": f"s{number}"}


def test_a_rollback_brings_back_code_spec_and_env_as_a_new_version_that_says_so(environment: Environment, project: ProjectMaker) -> None:
    name = "roll-back"
    for number in (1, 2, 3):
        deploy(environment, project, name, number)
    with environment.client() as client:
        done = client.rollback(name, 1, source="there.ipynb")
        assert (done.version, done.outcome) == (4, "updating")
        assert done.message == "rolling roll-back back to version 1, as version 4"
        assert answer(environment, name) == made_by(1)
        newest, *earlier = client.get_api(name)["api_versions"]
        (entry,) = client.audit(name)
        who = entry["who"]
        assert "@" in who
        assert newest["rollback"] == {"to": 1, "who": who, "source": "there.ipynb"}
        assert {key: entry[key] for key in ("what", "to", "version", "source")} == {
            "what": "rollback",
            "to": 1,
            "version": 4,
            "source": "there.ipynb",
        }
        assert all(one["rollback"] == {} for one in earlier)
        assert newest["source"] == earlier[-1]["source"], "it says where its handler came from"
        assert ", a rollback to 1" in environment.cortex("get", name).stdout

        assert client.rollback(name).version == 5, "without a version: the one before, whatever its number"
        assert answer(environment, name) == made_by(3)
        assert environment.cortex("rollback", name, "2").stdout.startswith(
            "rolling roll-back back to version 2, as version 6\nroll-back is live (version 6)"
        )
        assert answer(environment, name) == made_by(2)
        assert deploy(environment, project, name, 4) == 7, "the API is still its source's"
        client.delete(name)


def test_what_runs_ends_where_it_runs_and_what_waits_runs_on_what_came_back(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    name, door = "roll-flight", tmp_path / "door"
    deploy(environment, project, name, 1)
    deploy(environment, project, name, 2)
    with environment.client() as client:
        running = client.submit(name, {"until": str(door)})
        wait_until(lambda: client.result(name, running).status == "in_progress", "it runs")
        waiting = [client.submit(name, {}) for _ in range(20)]
        client.rollback(name)
        assert [client.result(name, one, wait=30).result for one in waiting] == [made_by(1)] * 20
        assert client.result(name, running).status == "in_progress"
        assert client.deployment(name, 2)["state"] == "draining"
        door.touch()
        assert client.result(name, running, wait=30).result == made_by(2)
        assert client.workload(name, running)["attempts"] == 1
        wait_until(lambda: client.deployment(name, 2)["state"] == "stopped", "the version before has drained")
        client.delete(name)


def test_a_version_that_cannot_start_any_more_leaves_the_live_one_serving(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    name, weights = "roll-broken", tmp_path / "weights"
    weights.touch()
    project(name, f"open({str(weights)!r})\n" + "class Handler:\n    def handle_async(self): return {'code': 1}\n").deploy(environment)
    project(name, "class Handler:\n    def handle_async(self): return {'code': 2}\n").deploy(environment)
    weights.unlink()
    with environment.client() as client:
        with pytest.raises(CortexError, match="version 3 did not start"):
            client.rollback(name)
        assert answer(environment, name) == {"code": 2}
        client.delete(name)


def refused(environment: Environment, name: str, version: int | None, match: str) -> None:
    with pytest.raises(CortexError, match=match) as caught:
        environment.client().rollback(name, version)
    assert caught.value.status in (404, 409)


def test_a_version_that_cannot_come_back_is_refused_with_the_reason(environment: Environment, project: ProjectMaker) -> None:
    name = "roll-refused"
    deploy(environment, project, name, 1)
    refused(environment, name, None, "no version of roll-refused was live before version 1")
    refused(environment, name, 1, "version 1 of roll-refused is the live one; `cortex refresh roll-refused`")
    refused(environment, name, 9, "roll-refused has no version 9")
    refused(environment, "roll-none", None, "roll-none is not deployed")
    with pytest.raises(CortexError):
        project(name, "raise ValueError\nclass Handler:\n    def handle_async(self): return {}\n").deploy(environment)
    refused(environment, name, 2, "version 2 of roll-refused never became live \\(failed\\)")
    deploy(environment, project, name, 3)
    with environment.client() as client:
        client.rollback(name)
        refused(environment, name, 1, "version 1 of roll-refused is live already, as version 4, a rollback to it")
        digest = client.deployment(name, 3)["digest"]
        environment.redis().delete(keys.bundle(name, digest))
        refused(environment, name, 3, "version 3 of roll-refused is too old: its bundle is not kept any more")
        assert client.get_api(name)["wanted"] == 4, "a refusal leaves no version behind"
        assert [entry["version"] for entry in client.audit(name)] == [4]
        client.delete(name)


def test_a_rollback_while_it_is_updating_wants_force_and_then_ends_the_update(
    environment: Environment, project: ProjectMaker, tmp_path: Path
) -> None:
    name, door = "roll-busy", tmp_path / "door"
    deploy(environment, project, name, 1)
    deploy(environment, project, name, 2)
    slow = f"import os, time\nwhile not os.path.exists({str(door)!r}): time.sleep(0.01)\nclass Handler:\n    def handle_async(self): return {{}}\n"
    project(name, slow).deploy(environment, wait=False)
    try:
        refused(environment, name, 1, "updating \\(override with --force\\)")
        with environment.client() as client:
            assert client.rollback(name, 1, force=True).version == 4
            assert answer(environment, name) == made_by(1)
            assert client.deployment(name, 3)["state"] == "stopped"
            client.delete(name)
    finally:
        door.touch()


def test_a_spec_that_was_changed_in_place_is_what_comes_back(environment: Environment, project: ProjectMaker) -> None:
    name = "roll-place"
    deploy(environment, project, name, 1)
    assert deploy(environment, project, name, 1, "networking: {endpoint: /roll-placed}") == 1
    with environment.client() as client:
        assert client.refresh(name).endpoint == "/roll-placed"
        deploy(environment, project, name, 2)
        assert client.rollback(name, 1).endpoint == "/roll-placed"
        assert client.get_api(name)["endpoint"] == "/roll-placed"
        client.delete(name)


def test_deployments_of_an_older_release_can_come_back(environment: Environment, project: ProjectMaker) -> None:
    name = "roll-old"
    deploy(environment, project, name, 1)
    deploy(environment, project, name, 2)
    store = environment.redis()
    for version in (1, 2):
        assert store.hget(keys.deployment(name, version), "rollback") is None, "no deploy writes what is only a rollback's"
    with environment.client() as client:
        assert client.rollback(name).version == 3
        assert json.loads(store.hget(keys.deployment(name, 3), "rollback"))["to"] == 1  # type: ignore[arg-type]
        client.delete(name)
