"""The control API: whom it lets in, what it refuses, and what a change of an API does."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from jupyter_cortex.core.errors import ApiNotFound, Conflict, CortexError, DeployFailed, DeploymentNotFound
from jupyter_cortex.project import bundle
from jupyter_cortex.store import keys, reports
from jupyter_cortex.store.registry import Registry
from tests.conftest import ECHO, Environment, ProjectMaker, wait_until

from .test_public_http import CALLS, ended, kept, refused, running, submit

V1 = "/_cortex/v1"
SLOW_START = """
import pathlib
import time

class Handler:
    def __init__(self, config):
        while not pathlib.Path(config["gate"]).exists():
            time.sleep(0.01)

    def handle_async(self):
        return {}
"""


@pytest.fixture
def web(environment: Environment) -> Iterator[httpx.Client]:
    with environment.http() as client:
        yield client


@pytest.fixture
def control(environment: Environment) -> Iterator[httpx.Client]:
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as client:
        yield client


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return buffer.getvalue()


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}, **more}


def uploaded(control: httpx.Client, name: str) -> str:
    """The digest of a good project, in the store."""
    data = archive({"project/handler.py": ECHO.encode()})
    digest = bundle.digest_of(data)
    answer = control.put(f"{V1}/apis/{name}/bundles/{digest}", content=data)
    assert answer.status_code == 200, answer.text
    return digest


def keys_of(environment: Environment, name: str) -> set[bytes]:
    with environment.redis() as store:
        return set(store.scan_iter(f"cx:{{{name}}}*", count=1000))


def gone(environment: Environment, name: str) -> None:
    """Delete it and wait until its last key has gone."""
    environment.client().delete(name)
    wait_until(lambda: not keys_of(environment, name), f"{name} left nothing: {keys_of(environment, name)}")


def serving(environment: Environment, name: str) -> list[tuple[int, int]]:
    """(version, pid) of the replicas that serve."""
    workers = environment.client().get_api(name)["workers"].values()
    return sorted((w["version"], r["pid"]) for w in workers for r in w["replicas"] if r["state"] == "serving")


# Who may -------------------------------------------------------------------------------------------------------------


def test_every_control_route_wants_the_token(environment: Environment, web: httpx.Client) -> None:
    paths = web.get("/_cortex/openapi.json", headers={"authorization": f"Bearer {environment.token}"}).json()["paths"]
    routes = [(method.upper(), path) for path, methods in paths.items() if path.startswith(V1) for method in methods]
    assert len(routes) >= 15
    token = environment.token
    for method, path in routes:
        filled = path.replace("{version}", "1").replace("{name}", "x").replace("{digest}", "0" * 64).replace("{request_id}", "x")
        for given in (None, "Bearer wrong", f"Basic {token}", token, f"Bearer {token}x", "Bearer", f"Bearer {token[:-1]}"):
            headers = {"authorization": given} if given else {}
            answer = web.request(method, filled, headers=headers)
            refused(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_stranger_learns_nothing_from_the_body_that_he_sends(method: str, web: httpx.Client) -> None:
    for body in (b"{", b"[1]", b'{"spec": 1}'):
        refused(web.request(method, f"{V1}/apis/x", content=body, headers={"content-type": "application/json"}), 401, "unauthorized")


# Refusals ------------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_a_404_with_a_code(control: httpx.Client) -> None:
    for path in ("", "/logs", "/workloads", "/workloads/x", "/history", "/events"):
        refused(control.get(f"{V1}/apis/control-none{path}"), 404, "api_not_found")
    refused(control.delete(f"{V1}/apis/control-none"), 404, "api_not_found")
    for verb in ("refresh", "rollback", "stop", "start"):
        refused(control.post(f"{V1}/apis/control-none/{verb}", json={}), 404, "api_not_found")
    refused(control.patch(f"{V1}/apis/control-none", json={"spec": entry("control-none")}), 404, "api_not_found")
    refused(control.get(f"{V1}/apis/control-none/deployments/1"), 404, "deployment_not_found")
    refused(control.get(f"{V1}/apis/control-none/deployments/1/rehearsal"), 404, "deployment_not_found")
    for verb in ("promote", "drop"):
        refused(control.post(f"{V1}/apis/control-none/deployments/1/{verb}", json={}), 404, "api_not_found")
    refused(control.get(f"{V1}/nonsense"), 404, "route_not_found")
    refused(control.get("/_cortex"), 404, "route_not_found")
    answer = control.post(f"{V1}/status")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers.get("allow") == "GET"


def test_a_query_out_of_range_is_refused_in_words(environment: Environment, project: ProjectMaker, control: httpx.Client) -> None:
    project("control-query").deploy(environment)
    try:
        for path in (
            "workloads?limit=0",
            "workloads?limit=x",
            "workloads?cursor=x",
            "workloads?status=nonsense",
            "history?minutes=0",
            "history?minutes=99999999",
            "events?after=x",
            "events?after=%D9%A3-%D9%A3",  # digits, but not of the store's
            "events?limit=0",
            "logs?lines=-1",
            "logs?lines=x",
        ):
            refused(control.get(f"{V1}/apis/control-query/{path}"), 400, "bad_request")
        for path in (
            "events?after=99999999999999999999999-0",
            "workloads?before=-1",
            f"deployments/{10**30}",
            "deployments/-1",
            "deployments/x",
            "workloads/%ff",
            "bundles/%00",
        ):
            answer = control.get(f"{V1}/apis/control-query/{path}")
            assert answer.status_code < 500, (path, answer.text)
    finally:
        environment.client().delete("control-query")


def request_of(name: str, digest: str, spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"spec": spec or entry(name), "digest": digest, "source": "a test", **more}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown-key": ({"netwrking": {}}, "invalid_spec", "netwrking"),
    "unknown-key-below": ({"networking": {"endpiont": "/x"}}, "invalid_spec", "networking.endpiont"),
    "reserved-endpoint": ({"networking": {"endpoint": "/_cortex/x"}}, "invalid_spec", "networking.endpoint"),
    "root-endpoint": ({"networking": {"endpoint": "/"}}, "invalid_spec", "networking.endpoint"),
    "another-kind": ({"kind": "RealtimeAPI"}, "invalid_spec", "kind"),
    "another-name": ({"name": "somebody-else"}, "invalid_spec", "name"),
    "bad-name": ({"name": "Upper"}, "invalid_spec", "name"),
    "tensorflow": (
        {"handler": {"type": "tensorflow", "path": "handler.py", "models": {"path": "model"}}},
        "invalid_spec",
        "handler.models.path",
    ),
    "file-not-shipped": ({"handler": {"type": "python", "path": "other.py"}}, "invalid_spec", "handler.path"),
    "min-over-max": ({"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, "invalid_spec", "autoscaling.min_replicas"),
    "surrogate-key": ({"\ud800": 1}, "invalid_spec", ""),
    "surrogate-value": ({"networking": {"endpoint": "/\ud800"}}, "invalid_spec", "networking.endpoint"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_spec_that_is_wrong_is_refused_with_its_path(name: str, environment: Environment, control: httpx.Client) -> None:
    change, code, path = REFUSED[name]
    digest = uploaded(control, "control-spec")
    body = json.dumps(request_of("control-spec", digest, entry("control-spec") | change))
    answer = control.put(f"{V1}/apis/control-spec", content=body, headers={"content-type": "application/json"})
    document = refused(answer, 400, code)
    if path:
        assert document["path"] == path
        assert path.rpartition(".")[2] in document["detail"]
    refused(control.get(f"{V1}/apis/control-spec"), 404, "api_not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"spec": {}}',
        json.dumps(request_of("control-body", "0" * 63)).encode(),
        json.dumps(request_of("control-body", "0" * 64, {"handler": {}})).encode(),
        json.dumps({**request_of("control-body", "0" * 64), "source": ""}).encode(),
    ],
)
def test_a_deploy_request_that_is_malformed_is_refused(body: bytes, control: httpx.Client) -> None:
    answer = control.put(f"{V1}/apis/control-body", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 404)
    assert answer.json()["code"] in ("bad_request", "deployment_not_found", "invalid_spec")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("field", ["source", "dotenv", "interpreter", "host", "config", "config-nan", "config-deep"])
def test_odd_values_in_a_deploy_request_are_no_server_error(field: str, environment: Environment, control: httpx.Client) -> None:
    name = f"control-odd-{field}"
    digest = uploaded(control, name)
    body = request_of(name, digest)
    if field == "config":
        body["spec"]["handler"]["config"] = {"a": "\ud800"}
    elif field == "config-nan":
        body["spec"]["handler"]["config"] = {"a": float("nan")}
    elif field == "config-deep":
        deep: Any = 1
        for _ in range(300):
            deep = [deep]
        body["spec"]["handler"]["config"] = {"a": deep}
    else:
        body[field] = "A=\ud800"
    answer = control.put(f"{V1}/apis/{name}", content=json.dumps(body), headers={"content-type": "application/json"})
    try:
        assert answer.status_code < 500, answer.text
        assert control.get(f"{V1}/apis").status_code == 200
        assert control.get(f"{V1}/apis/{name}").status_code in (200, 404)
    finally:
        control.delete(f"{V1}/apis/{name}")


def test_a_bundle_must_be_what_its_digest_says(environment: Environment, control: httpx.Client) -> None:
    data = archive({"project/handler.py": ECHO.encode()})
    digest = bundle.digest_of(data)
    path = f"{V1}/apis/control-bundle/bundles"
    refused(control.put(f"{path}/{'0' * 64}", content=data), 400, "refused")
    refused(control.put(f"{path}/{digest}", content=data[:-30]), 400, "invalid_project")
    refused(control.put(f"{path}/{digest}", content=b""), 400, "invalid_project")
    assert not keys_of(environment, "control-bundle")
    refused(control.put(f"{V1}/apis/control-bundle", json=request_of("control-bundle", digest)), 404, "deployment_not_found")


@pytest.mark.parametrize(
    "name", ["../evil.py", "project/../../evil.py", "/etc/evil", "project/..\\evil.py", "project//evil.py", "evil.py", "project/.env"]
)
def test_a_bundle_that_would_leave_its_directory_is_refused(name: str, environment: Environment, control: httpx.Client) -> None:
    data = archive({"project/handler.py": ECHO.encode(), name: b"x"})
    answer = control.put(f"{V1}/apis/control-slip/bundles/{hashlib.sha256(data).hexdigest()}", content=data)
    refused(answer, 400, "invalid_project")
    assert not keys_of(environment, "control-slip")


def test_a_bundle_with_a_symbolic_link_is_refused(control: httpx.Client) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        link = zipfile.ZipInfo("project/link")
        link.external_attr = 0o120777 << 16
        made.writestr(link, "/etc/passwd")
    refused(control.put(f"{V1}/apis/control-slip/bundles/{'0' * 64}", content=buffer.getvalue()), 400, "invalid_project")


def test_a_first_deploy_that_is_refused_leaves_nothing_for_ever(environment: Environment, control: httpx.Client) -> None:
    digest = uploaded(control, "control-leaves")
    body = request_of("control-leaves", digest, entry("control-leaves", nonsense=1))
    refused(control.put(f"{V1}/apis/control-leaves", json=body), 400, "invalid_spec")
    with environment.redis() as store:
        assert all(store.ttl(key) > 0 for key in keys_of(environment, "control-leaves"))


# Conflicts -----------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_another_api_has_is_refused(environment: Environment, project: ProjectMaker) -> None:
    project("control-first", spec="networking:\n  endpoint: /control-place").deploy(environment)
    try:
        with pytest.raises(Conflict, match="control-first"):
            project("control-second", spec="networking:\n  endpoint: /control-place").deploy(environment)
        with pytest.raises(ApiNotFound):
            environment.client().get_api("control-second")
    finally:
        environment.client().delete("control-first")


def test_an_api_belongs_to_its_source_until_it_is_taken_over(environment: Environment, project: ProjectMaker, web: httpx.Client) -> None:
    made = project("control-source")
    made.deploy(environment)
    try:
        client = environment.client()
        with pytest.raises(Conflict, match=r"take-over") as caught:
            client.deploy(made.directory / "cortex.yaml", source="/somewhere/else")
        assert str(made.directory) in caught.value.details["source"]
        changed = made.write(ECHO + "\n# another\n")
        taken = client.deploy(changed.directory / "cortex.yaml", source="/somewhere/else", take_over=True)[0]
        assert (taken.outcome, taken.version) == ("updating", 2)
        assert client.get_api("control-source")["source"].endswith(":/somewhere/else")
        with pytest.raises(Conflict):
            made.deploy(environment)
    finally:
        environment.client().delete("control-source")


def test_a_change_while_it_is_updating_is_refused_unless_forced(environment: Environment, project: ProjectMaker, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    made = project("control-busy", SLOW_START, handler_spec=f"config:\n  gate: {gate}")
    try:
        made.deploy(environment, wait=False)
        same = made.deploy(environment, wait=False)
        assert (same.outcome, same.version, same.message) == ("updating", 1, "control-busy (AsyncAPI) is already updating")
        with pytest.raises(Conflict, match="is updating"):
            made.write(SLOW_START + "\n# two\n").deploy(environment, wait=False)
        forced = made.deploy(environment, wait=False, force=True)
        assert (forced.outcome, forced.version) == ("updating", 2)
        gate.touch()
        environment.client().wait_live("control-busy", 2)
        states = {v["version"]: v["state"] for v in environment.client().get_api("control-busy")["api_versions"]}
        assert states == {1: "stopped", 2: "live"}
    finally:
        gate.touch()
        environment.client().delete("control-busy")


# Changes -------------------------------------------------------------------------------------------------------------


def test_the_same_again_is_up_to_date(environment: Environment, project: ProjectMaker) -> None:
    made = project("control-same")
    made.deploy(environment)
    try:
        before = serving(environment, "control-same")
        again = made.deploy(environment)
        assert (again.outcome, again.version, again.message) == ("up_to_date", 1, "control-same (AsyncAPI) is up to date")
        assert serving(environment, "control-same") == before
    finally:
        environment.client().delete("control-same")


def test_a_changed_endpoint_or_autoscaling_restarts_nothing(environment: Environment, project: ProjectMaker, web: httpx.Client) -> None:
    made = project("control-place", spec="networking:\n  endpoint: /control-old")
    made.deploy(environment)
    try:
        before = wait_until(lambda: serving(environment, "control-place"), "it serves")
        request_id = submit(web, "control-old", {"n": 1})
        ended(web, f"/control-old/{request_id}")
        changed = project("control-place", spec="networking:\n  endpoint: /control-new\nautoscaling:\n  max_replicas: 7").deploy(environment)
        assert (changed.outcome, changed.version) == ("changed", 1)
        assert serving(environment, "control-place") == before
        assert ended(web, f"/control-new/{request_id}").json()["result"]["payload"] == {"n": 1}
        refused(web.get(f"/control-old/{request_id}"), 404, "route_not_found")
        api = environment.client().get_api("control-place")
        assert (api["endpoint"], api["spec"]["autoscaling"]["max_replicas"]) == ("/control-new", 7)
    finally:
        environment.client().delete("control-place")


def test_more_min_replicas_are_added_without_a_restart(environment: Environment, project: ProjectMaker) -> None:
    project("control-more").deploy(environment)
    try:
        before = wait_until(lambda: serving(environment, "control-more"), "it serves")
        changed = project("control-more", spec="autoscaling:\n  min_replicas: 2").deploy(environment)
        assert changed.outcome == "changed"
        after = wait_until(lambda: len(found := serving(environment, "control-more")) == 2 and found, "two replicas serve")
        assert set(before) < set(after)
    finally:
        environment.client().delete("control-more")


def test_a_refresh_brings_fresh_replicas_and_is_no_other_version_of_the_project(
    environment: Environment, project: ProjectMaker, web: httpx.Client
) -> None:
    made = project("control-fresh")
    made.deploy(environment)
    try:
        before = wait_until(lambda: serving(environment, "control-fresh"), "it serves")
        refreshed = environment.client().refresh("control-fresh")
        assert (refreshed.outcome, refreshed.version) == ("updating", 2)
        after = wait_until(lambda: [one for one in serving(environment, "control-fresh") if one[0] == 2], "the fresh one serves")
        assert {pid for _, pid in after}.isdisjoint(pid for _, pid in before)
        assert ended(web, f"/control-fresh/{submit(web, 'control-fresh', 1)}").json()["status"] == "completed"
        assert made.deploy(environment).outcome == "up_to_date", "the same project and spec as what is live"
    finally:
        environment.client().delete("control-fresh")


def test_a_patch_changes_the_spec_of_what_is_deployed(environment: Environment, project: ProjectMaker, control: httpx.Client) -> None:
    project("control-patch").deploy(environment)
    try:
        client = environment.client()
        patched = client.patch(entry("control-patch", networking={"endpoint": "/control-patched"}))
        assert (patched.outcome, patched.endpoint) == ("changed", "/control-patched")
        with pytest.raises(CortexError) as caught:
            client.patch(entry("control-patch", nonsense=1))
        assert caught.value.details["path"] == "nonsense"
        assert client.get_api("control-patch")["endpoint"] == "/control-patched"
    finally:
        environment.client().delete("control-patch")


# Deleting ------------------------------------------------------------------------------------------------------------


def test_a_deleted_api_leaves_no_key_and_its_ids_do_not_come_back(
    environment: Environment, project: ProjectMaker, web: httpx.Client, tmp_path: Any
) -> None:
    gate = tmp_path / "gate"
    made = project("control-gone", CALLS)
    made.deploy(environment)
    done = submit(web, "control-gone", {"return": {"a": 1}})
    broken = submit(web, "control-gone", {"raise": "x"})
    for request_id in (done, broken):
        ended(web, f"/control-gone/{request_id}")
    ran = running(web, "control-gone", {"gate": str(gate)})
    queued = submit(web, "control-gone", {})
    ids = (done, broken, ran, queued)
    assert environment.client().delete("control-gone") == {"message": "deleting control-gone"}
    for request_id in ids:
        assert web.get(f"/control-gone/{request_id}").status_code == 404
    refused(web.post("/control-gone", json={}), 404, "route_not_found")
    gate.touch()
    wait_until(lambda: not keys_of(environment, "control-gone"), "no key is left")
    with pytest.raises(ApiNotFound):
        environment.client().get_api("control-gone")

    made.deploy(environment)
    try:
        for request_id in ids:
            refused(web.get(f"/control-gone/{request_id}"), 404, "workload_not_found")
        assert ended(web, f"/control-gone/{submit(web, 'control-gone', {})}").json()["status"] == "completed"
        assert len([key for key in kept(environment, "control-gone") if ":w:" in key]) == 1
    finally:
        gone(environment, "control-gone")


def test_an_api_that_is_deleted_while_it_talks_leaves_no_key(environment: Environment, project: ProjectMaker, web: httpx.Client) -> None:
    source = """
        import time

        class Handler:
            def __init__(self, config, metrics_client):
                self.metrics = metrics_client

            def handle_async(self):
                while True:
                    print("still here")
                    self.metrics.increment("turns")
                    time.sleep(0.002)
        """
    project("control-talks", source).deploy(environment)
    running(web, "control-talks", {})
    gone(environment, "control-talks")
    wait_until(lambda: not environment.processes("worker", "control-talks"), "its worker is gone")
    assert not keys_of(environment, "control-talks")


def test_a_bundle_that_no_version_uses_any_more_does_not_stay_for_ever(environment: Environment, project: ProjectMaker) -> None:
    made = project("control-bundles")
    try:
        for number in range(13):
            made.write(ECHO + f"\n# {number}\n").deploy(environment)
        shown = {version["digest"] for version in environment.client().get_api("control-bundles")["api_versions"]}

        def only_those() -> bool:
            with environment.redis() as store:
                found = [key.decode() for key in store.scan_iter("cx:{control-bundles}:bundle:*")]
                return {key.rpartition(":")[2] for key in found if store.ttl(key) < 0} <= shown

        wait_until(only_those, "bundles of forgotten versions are removed or expire", 15)
    finally:
        environment.client().delete("control-bundles")


def test_of_two_apis_that_were_deployed_to_one_place_in_one_moment_the_later_is_refused(environment: Environment, project: ProjectMaker) -> None:
    for name in ("place-first", "place-later"):
        project(name).deploy(environment)
    with environment.redis() as store:
        registry = Registry(store)
        one = registry.deployment("place-later", 1)
        spec = {**one.spec, "networking": {**one.spec["networking"], "endpoint": "/place-first"}}
        # As a deploy that has looked before the other one was there.
        facts = {"python_version": one.python_version, "host": one.host}
        options = {"dotenv": "", "source": registry.get("place-later").source, "interpreter": one.interpreter, "facts": facts}
        assert registry.deploy("place-later", spec, one.digest, anew=True, **options)[1] == 2
        registry.wake_operator()
    client = environment.client()
    with pytest.raises(DeployFailed, match="/place-first belongs to the API place-first by now"):
        client.wait_live("place-later", 2)
    assert client.get_api("place-later")["endpoint"] == "/place-later"
    # What never came there keeps nobody else away.
    project("place-third", spec="networking: {endpoint: /place-fourth}").write("raise RuntimeError('no')").deploy(environment, wait=False)
    with pytest.raises(DeployFailed):
        client.wait_live("place-third", 1)
    project("place-fourth").deploy(environment)
    for name in ("place-first", "place-later", "place-third", "place-fourth"):
        client.delete(name)


def test_reports_and_records_of_old_versions_are_forgotten_and_what_is_live_is_not(environment: Environment, project: ProjectMaker) -> None:
    project("control-old").deploy(environment)
    with environment.redis() as store:
        registry = Registry(store)
        prefix = keys.prefix("control-old")
        # As if 119 deploys had failed since.
        store.hset(keys.api("control-old"), "next", 120)
        for version in range(2, 121):
            store.copy(keys.deployment("control-old", 1), keys.deployment("control-old", version))
            store.hset(keys.deployment("control-old", version), "state", "failed")
        for version in (1, 5, 110, 111, 120):
            reports.put(store, "control-old", version, b"{}")
        registry.prune("control-old")
        left = {key.decode().removeprefix(f"{prefix}:") for kind in ("dep", "report") for key in store.scan_iter(f"{prefix}:{kind}:*")}
    assert left == {"report:1", "report:111", "report:120", "dep:1", *(f"dep:{version}" for version in range(21, 121))}
    with pytest.raises(DeploymentNotFound, match="no version 20 any more; the newest 100 are kept"):
        environment.client().module("control-old", 20)
    environment.client().delete("control-old")
