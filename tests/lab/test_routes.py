"""The control routes and the calls that go through the Jupyter server, to a real gateway and to one that notes what reaches it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ECHO, Environment, ProjectMaker, wait_until
from ..server.reports import write_report
from .conftest import KernelMaker, Lab, LabMaker, start, stop

ENVIRONMENT = {"name", "url", "local", "up", "message", "version", "guarded", "hub", "python"}


class Noting:
    """A gateway that notes what reaches it and answers what it was told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: tuple[int, str, bytes] = (200, "application/json", b"{}")
        noting = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                noting.calls.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                status, kind, answer = noting.answer
                self.send_response(status)
                for name, value in (("Content-Type", kind), ("Content-Length", str(len(answer))), ("Set-Cookie", "a=b"), ("X-Other", "1")):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def noting() -> Iterator[Noting]:
    made = Noting()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def noting_lab(noting: Noting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A Jupyter server that points to the noting gateway by its settings."""
    directory = tmp_path_factory.mktemp("noting", numbered=True)
    made = start(directory, directory / "home", JUPYTER_CORTEX_URL=noting.url, JUPYTER_CORTEX_TOKEN="its-token", JUPYTER_CORTEX_CALL_TOKEN="call-it")
    yield made
    stop(made)


# Control ----------------------------------------------------------------------------------------------------------------------------------------


def test_what_a_browser_may_ask_reaches_the_gateway_with_its_token(noting_lab: Lab, noting: Noting) -> None:
    asked = [
        ("GET", "status"),
        ("GET", "apis?recent=60"),
        ("GET", "apis/a-1"),
        ("GET", "apis/a-1/workloads?status=failed&limit=2&q=x%2Fy"),
        ("GET", "apis/a-1/workloads/some.id_1-"),
        ("GET", "apis/a-1/workloads/x/payload"),
        ("GET", "apis/a-1/workloads/x/logs"),
        ("GET", "apis/a-1/workloads?fingerprint=0123456789ab"),
        ("GET", "apis/a-1/failures?since=3600"),
        ("GET", "apis/a-1/audit"),
        ("GET", "apis/a-1/history?minutes=60&step=1"),
        ("GET", "apis/a-1/logs/tail?lines=5"),
        ("GET", "apis/a-1/deployments/12"),
        ("GET", "apis/a-1/deployments/12/module"),
        ("GET", "apis/a-1/deployments/12/report"),
        ("GET", "apis/a-1/deployments/12/rehearsal"),
        ("POST", "apis/a-1/deployments/12/promote"),
        ("POST", "apis/a-1/deployments/12/drop"),
        ("POST", "apis/a-1/refresh?force=true"),
        ("POST", "apis/a-1/requeue"),
        ("POST", "apis/a-1/rollback"),
        ("POST", "apis/a-1/stop"),
        ("POST", "apis/a-1/start"),
        ("DELETE", "apis/a-1"),
    ]
    noting.calls.clear()
    with noting_lab.http() as client:
        for method, path in asked:
            assert client.request(method, f"/cortex/api/{path}").status_code in (200, 503), path  # a list of APIs is read here, too
    assert [(method, path) for method, path, _, _ in noting.calls] == [(method, f"/_cortex/v1/{path}") for method, path in asked]
    assert {headers["authorization"] for _, _, headers, _ in noting.calls} == {"Bearer its-token"}


def test_nothing_else_leaves_the_server(noting_lab: Lab, noting: Noting) -> None:
    name = "apis/a"
    asked = [
        *(("GET", path) for path in ("", "x", "apis/", f"{name}/", f"{name}/bundles/{'0' * 64}", f"{name}/events", f"{name}/logs", "changes")),
        *(("GET", path) for path in (f"{name}/../status", f"{name}%2Fworkloads", f"{name}/workloads/%2e%2e", f"{name}/workloads/../../status")),
        *(("GET", path) for path in (f"{name}/workloads/..", f"{name}/workloads/./payload", f"{name}/deployments/x", "apis//a", "//status", "Apis")),
        *(("GET", path) for path in (f"{name}%0a", "apis/A", f"{name}/workloads/%C3%A9", f"{name}/deployments/%C2%B2", "artifacts/x")),
        *(("POST", path) for path in ("apis", name, "changes", f"{name}/delete", f"{name}/refresh/", "status", f"{name}/deployments/1/report")),
        *(("POST", f"{name}/{path}") for path in ("failures", "audit", "requeue/x")),
        *(("DELETE", path) for path in ("apis", "status", f"{name}/workloads/x", f"{name}/", f"{name}%2f..%2fb")),
        *((method, name) for method in ("PUT", "PATCH")),
    ]
    noting.calls.clear()
    for method, path in asked:
        status, said = noting_lab.raw(method, f"/cortex/api/{path}")
        assert status in (400, 404, 405), (method, path, said)
    assert noting.calls == []


def test_no_call_leaves_for_what_is_not_public(noting_lab: Lab, noting: Noting) -> None:
    noting.calls.clear()
    for path in ("/_cortex/v1/apis", "//metrics", "/%5fcortex/v1/apis", "/x/../_cortex/v1/apis", "/x/%2e%2e/metrics", "/./metrics", "/%2Fmetrics"):
        for method in ("GET", "POST", "DELETE"):
            status, said = noting_lab.raw(method, f"/cortex/run{path}")
            assert (status, json.loads(said)["code"]) == (404, "route_not_found"), (method, path, said)
    assert noting.calls == []


def test_jupyter_s_own_token_and_cookies_stay_with_jupyter(noting_lab: Lab, noting: Noting) -> None:
    noting.calls.clear()
    with noting_lab.http(token=False) as client:
        assert client.get(f"/cortex/api/status?recent=1&token={noting_lab.token}").status_code == 200
        assert client.get(f"/cortex/run/a/x?%74oken={noting_lab.token}&wait=1").status_code == 200
    client, xsrf = noting_lab.browser()
    headers = {**xsrf, "origin": noting_lab.url, "x-request-id": "mine", "content-type": "text/plain; charset=latin-1", "x-secret": "s"}
    answer = client.post("/cortex/run/a//b?q=%2F", content=b"\xe9\x00", headers=headers)
    client.close()
    assert [path for _, path, _, _ in noting.calls] == ["/_cortex/v1/status?recent=1", "/a/x?wait=1", "/a/b?q=%2F"]
    method, _, got, body = noting.calls[-1]
    assert (method, body) == ("POST", b"\xe9\x00")
    assert (got["content-type"], got["x-request-id"], got["authorization"]) == ("text/plain; charset=latin-1", "mine", "Bearer call-it")
    assert not {"cookie", "x-xsrftoken", "referer", "origin", "x-secret"} & set(got)
    assert noting_lab.token not in str(noting.calls)
    assert not {"x-other"} & set(answer.headers)
    assert "a=b" not in str(answer.headers.get_list("set-cookie"))


def test_a_gateway_that_speaks_otherwise_is_a_problem_in_our_words(noting_lab: Lab, noting: Noting) -> None:
    before = noting.answer
    try:
        for answer, code in [
            ((502, "text/html", b"<script>alert(1)</script>"), "environment_problem"),
            ((401, "application/problem+json", b'{"code": "unauthorized", "detail": "no"}'), "environment_problem"),
            ((200, "application/json", b"<no json>"), "environment_problem"),
            ((200, "application/json", b"[[], 5]"), "environment_problem"),
        ]:
            noting.answer = answer
            said = noting_lab.get("api/apis")
            assert (said.status_code, said.json()["code"]) == (503, code), answer
            assert "script" not in said.text
        noting.answer = (
            404,
            "application/problem+json",
            b'{"code": "api_not_found", "detail": "there is none", "status": 404, "title": "No such API"}',
        )
        said = noting_lab.get("api/apis/a")
        assert (said.status_code, said.content, said.headers["content-type"]) == (404, noting.answer[2], "application/problem+json")
        noting.answer = (200, "text/html", b"<script>alert(1)</script>")
        for path in ("api/apis/a/history", "api/apis/a/workloads/x/payload", "run/a/x"):
            said = noting_lab.get(path)
            assert said.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in said.headers["content-security-policy"]
            assert "html" not in said.headers["content-type"], path
        for path in ("snapshot", "environment"):
            assert noting_lab.get(path).status_code == 200
    finally:
        noting.answer = before


def test_the_traits_are_the_last_word(noting: Noting, own_lab: LabMaker, tmp_path: Path) -> None:
    own = own_lab(tmp_path / "home", f"--CortexExtension.url={noting.url}/", "--CortexExtension.token=of-the-trait", JUPYTER_CORTEX_TOKEN="other")
    noting.calls.clear()
    assert own.get("api/status").status_code == 200
    assert noting.calls[0][2]["authorization"] == "Bearer of-the-trait"
    said = own.get("environment").json()
    assert (said["name"], said["url"], said["local"]) == ("settings", noting.url, False)
    assert "of-the-trait" not in own.log.read_text()


def test_kernels_point_to_where_the_traits_do(noting: Noting, own_lab: LabMaker, tmp_path: Path) -> None:
    own = own_lab(tmp_path / "home", f"--CortexExtension.url={noting.url}", "--CortexExtension.token=of-the-trait", JUPYTER_CORTEX_TOKEN="other")
    one = own.kernel()
    one.run("from jupyter_cortex.core.settings import Settings\nfrom jupyter_cortex.environments import Environments")
    one.run("found = Environments(Settings.read()).find()")
    assert one.value("[found.name, found.url, found.token]") == ["settings", noting.url, "of-the-trait"]


# To a real gateway ------------------------------------------------------------------------------------------------------------------------------


def test_summaries_say_which_notebook_they_are(lab: Lab, kernel: KernelMaker, environment: Environment, project: ProjectMaker) -> None:
    cells = ("class Handler:\n    def handle_async(self, payload): return {}",)
    notebook = lab.notebook("below here/ümlaut.ipynb", *cells)
    one = kernel()
    one.run_all(*cells)
    lab.ask("deploy", one, "below here/ümlaut.ipynb", notebook, name="of-a-notebook").worked()
    project("of-a-project").deploy(environment)
    listed = {row["name"]: row for row in lab.get("api/apis").json()}
    assert listed["of-a-notebook"]["notebook"] == "below here/ümlaut.ipynb"
    assert listed["of-a-project"]["notebook"] is None
    assert lab.get("api/apis/of-a-notebook").json()["notebook"] == "below here/ümlaut.ipynb"
    assert {row["name"]: row["notebook"] for row in lab.get("snapshot").json()["apis"]}["of-a-notebook"] == "below here/ümlaut.ipynb"
    (lab.root / "below here" / "ümlaut.ipynb").rename(lab.root / "moved.ipynb")
    assert lab.get("api/apis/of-a-notebook").json()["notebook"] is None


def test_a_notebook_handlers_notebook_is_the_one_in_its_project(lab: Lab, environment: Environment) -> None:
    config = write_report(lab.root / "reports", "of-a-report", "1 / 0")
    with environment.client() as client:
        client.deploy(config)
    assert lab.get("api/apis/of-a-report").json()["notebook"] == "reports/report.ipynb"
    assert [one["notebook"] for one in lab.get("api/apis/of-a-report").json()["api_versions"]] == ["reports/report.ipynb"]
    for path in ("api/apis", "snapshot"):
        said = lab.get(path).json()
        listed = {row["name"]: row for row in (said if path == "api/apis" else said["apis"])}
        assert listed["of-a-report"]["notebook"] == "reports/report.ipynb", path
    (lab.root / "reports" / "report.ipynb").unlink()
    assert lab.get("api/apis/of-a-report").json()["notebook"] is None


def test_a_notebook_outside_the_root_or_of_another_machine_is_none_of_ours(tmp_path: Path) -> None:
    from jupyter_cortex.extension.paths import notebook_path

    root, host = tmp_path / "root", platform.node()
    root.mkdir()
    (root / "a.ipynb").touch()
    (tmp_path / "root2.ipynb").touch()
    (tmp_path / "link").symlink_to(root)
    assert notebook_path(str(root), f"me@{host}:{root}/a.ipynb") == "a.ipynb"
    assert notebook_path(str(tmp_path / "link"), f"me@{host}:{root}/a.ipynb") == "a.ipynb"
    assert notebook_path("/", f"me@{host}:{root}/a.ipynb") == f"{root}/a.ipynb".lstrip("/")
    for source in (
        f"me@{host}:{tmp_path}/root2.ipynb",
        f"me@{host}:{root}/../root2.ipynb",
        f"me@elsewhere:{root}/a.ipynb",
        f"me@{host}:{root}/none.ipynb",
        f"me@{host}:{root}",
        f"me@{host}:a.ipynb",
        "",
    ):
        assert notebook_path(str(root), source) is None, source
    assert notebook_path(None, f"me@{host}:{root}/a.ipynb") is None
    spec = {"handler": {"type": "notebook", "path": "a.ipynb"}}
    (root / "cortex.yaml").touch()
    assert notebook_path(str(root), f"me@{host}:{root}/cortex.yaml", spec) == "a.ipynb"
    assert notebook_path(str(root), f"me@{host}:{root}", spec) == "a.ipynb"
    for source, path in ((f"me@{host}:{root}/cortex.yaml", "../root2.ipynb"), (f"me@elsewhere:{root}/cortex.yaml", "a.ipynb"), ("", "a.ipynb")):
        assert notebook_path(str(root), source, {"handler": {"type": "notebook", "path": path}}) is None, source
    assert notebook_path(str(root), f"me@{host}:{root}/cortex.yaml", {"handler": {"type": "python", "path": "a.ipynb"}}) is None


def test_bodies_results_and_refusals_pass_unchanged(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    project("passes", ECHO, spec="networking: {endpoint: /some/where}").deploy(environment)
    text = '{"a": 1.50, "b": "\\ud800", "c": [12345678901234567890]}'
    with lab.http() as client, environment.http() as direct:
        said = client.post("/cortex/run/some/where", content=text, headers={"content-type": "application/json", "x-request-id": "passes-1"})
        assert (said.status_code, said.json()) == (200, {"id": "passes-1"})
        through = client.get("/cortex/run/some/where/passes-1", params={"wait": 20})
        assert through.content == direct.get("/some/where/passes-1").content
        assert "12345678901234567890" in through.text
        for content, headers in [
            (b"{", {"content-type": "application/json"}),
            (b"x", {}),
            (b"x", {"content-type": "text/plain", "x-request-id": "ä".encode()}),
        ]:
            ours, theirs = (
                one.post(f"{prefix}/some/where", content=content, headers=headers) for one, prefix in ((client, "/cortex/run"), (direct, ""))
            )
            assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
            assert ours.headers["content-type"] == "application/problem+json"
        for method, path in [("GET", "/some/where"), ("POST", "/some/where/x"), ("GET", "/nowhere"), ("DELETE", "/some/where/none")]:
            ours, theirs = client.request(method, f"/cortex/run{path}"), direct.request(method, path)
            assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json()), path
            assert ours.headers.get("allow") == theirs.headers.get("allow")


STEPS = """
    import time
    from jupyter_cortex import progress

    class Handler:
        def handle_async(self, payload):
            progress(0.5, "half")
            deadline = time.monotonic() + 60
            while not __import__("os").path.exists(payload["go"]) and time.monotonic() < deadline:
                time.sleep(0.01)
            return {"done": True}
"""


def test_events_come_as_they_happen_and_go_on_after_the_last_one_seen(
    lab: Lab, environment: Environment, project: ProjectMaker, tmp_path: Path
) -> None:
    project("follows", STEPS).deploy(environment)
    go = tmp_path / "go"
    with lab.http() as client:
        request_id = client.post("/cortex/run/follows", json={"go": str(go)}).json()["id"]
        path, last = f"/cortex/run/follows/{request_id}/events", ""
        with client.stream("GET", path) as answer:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            for line in answer.iter_lines():
                if line.startswith("id:"):
                    last = line.partition(":")[2].strip()
                if line == "event: progress":
                    break
        assert client.get(f"/cortex/run/follows/{request_id}").json()["status"] == "in_progress", "it was told while it ran"
        go.touch()
        told = client.get(path, headers={"last-event-id": last}).text
    assert "event: completed" in told
    assert "event: in_queue" not in told
    with lab.http() as client:
        assert client.get("/cortex/run/follows/none/events").json()["code"] == "workload_not_found"
        assert client.get("/cortex/run/nobody/none/events").json()["code"] == "route_not_found"


def test_a_caller_s_deadline_passes(lab: Lab, environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    project("hurries", STEPS).deploy(environment)
    with lab.http() as client:
        sent = client.post("/cortex/run/hurries", json={"go": str(tmp_path / "never")}, headers={"cortex-timeout": "1"})
        assert client.get(f"/cortex/run/hurries/{sent.json()['id']}", params={"wait": 50}).json()["error"]["type"] == "DeadlineExceeded"


def test_a_binary_body_of_many_megabytes_arrives(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    result = "{'sha': hashlib.sha256(payload).hexdigest(), 'back': 'x' * len(payload)}"
    handler = f"import hashlib\nclass Handler:\n    def handle_async(self, payload):\n        return {result}"
    project("many-megabytes", handler).deploy(environment)
    body = os.urandom(40_000_000)
    with lab.http() as client:
        sent = client.post("/cortex/run/many-megabytes", content=body, headers={"content-type": "application/octet-stream"})
        assert sent.status_code == 200, sent.text
        got = client.get(f"/cortex/run/many-megabytes/{sent.json()['id']}", params={"wait": 50})
    assert got.json()["result"]["sha"] == hashlib.sha256(body).hexdigest()
    assert len(got.content) > 40_000_000


def test_a_long_poll_holds_up_nobody(lab: Lab, environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    go = tmp_path / "go"
    loop = f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)"
    slow = f"import pathlib, time\nclass Handler:\n    def handle_async(self, payload):\n        {loop}\n        return {{'slept': True}}"
    project("long-poll", slow).deploy(environment)
    sent = lab.post("run/long-poll", json=1).json()["id"]
    got: list[Any] = []
    polls = [threading.Thread(target=lambda: got.append(lab.get(f"run/long-poll/{sent}", params={"wait": 20}).json())) for _ in range(12)]
    for poll in polls:
        poll.start()
    assert lab.get("environment").json()["up"]
    assert got == [], "it was answered while all of them wait"
    go.touch()
    for poll in polls:
        poll.join(30)
    assert [one["status"] for one in got] == ["completed"] * 12


def test_a_payload_is_bytes_to_keep_and_nothing_to_show(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    project("hostile", "class Handler:\n    def handle_async(self, payload):\n        1 / 0").deploy(environment)
    page = b"<html><script>alert(document.cookie)</script>"
    environment.client().submit("hostile", page, "text/html; charset=utf-8", "hostile-1")
    wait_until(lambda: environment.client().result("hostile", "hostile-1", 5).status == "failed", "it failed")
    said = lab.get("api/apis/hostile/workloads/hostile-1/payload")
    assert said.content == page
    assert said.headers["content-type"] == "application/octet-stream"
    assert said.headers["x-payload-content-type"].startswith("text/html")
    assert said.headers["content-disposition"].startswith("attachment")
    assert said.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in said.headers["content-security-policy"]
    assert lab.get("api/apis/hostile/workloads/hostile-1").json()["failure"]["traceback"]


def test_an_executed_notebook_is_a_page_in_which_nothing_runs(lab: Lab, environment: Environment, tmp_path: Path) -> None:
    cells = ("from IPython.display import HTML\nHTML('<script>alert(document.cookie)</script>')",)
    environment.client().deploy(write_report(tmp_path, "hostile-report", *cells))
    environment.client().submit("hostile-report", {}, request_id="report-1")
    wait_until(lambda: environment.client().result("hostile-report", "report-1", 5).status == "completed", "it ran")
    page = lab.get("api/apis/hostile-report/workloads/report-1/notebook.html")
    assert page.headers["content-type"].startswith("text/html")
    assert "alert(document.cookie)" in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script" not in policy
    file = lab.get("api/apis/hostile-report/workloads/report-1/notebook.ipynb")
    assert file.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in file.headers["content-security-policy"]
    environment.client().delete("hostile-report")


# Up and down ------------------------------------------------------------------------------------------------------------------------------------


def test_loading_it_starts_nothing_and_the_first_deploy_does(own_lab: LabMaker, own_environment: Any, tmp_path: Path) -> None:
    home = tmp_path / "home0"
    own = own_lab(home)
    said = own.get("environment").json()
    assert set(said) == ENVIRONMENT
    assert (said["name"], said["url"], said["local"], said["up"]) == ("local", "", True, False)
    assert "start" in said["message"]
    assert own.get("snapshot").json() == {"environment": said, "apis": [], "seq": {}}
    for path in ("api/apis", "run/x/y", "run/x/y/events"):
        refused = own.get(path)
        assert (refused.status_code, refused.json()["code"]) == (503, "environment_down"), path
    cells = ("class Handler:\n    def handle_async(self, payload): return {'got': payload}",)
    notebook = own.notebook("first.ipynb", *cells)
    one = own.kernel()
    one.run_all(*cells)
    assert own.ask("show", one, "first.ipynb", notebook).worked()["live"] is None
    assert own.ask("check", one, "first.ipynb", notebook).worked()["ok"]
    assert not home.exists(), "nothing was asked to start until here"
    try:
        told = own.ask("deploy", one, "first.ipynb", notebook)
        assert told.worked()
        assert told.said[0] == "starting the local environment"
        assert own.get("environment").json()["up"]
    finally:
        Environment(home).down()
    down = own.get("environment").json()
    assert (down["up"], "cortex up" in down["message"]) == (False, True)
    try:
        assert own.post("environment/start").json()["up"]
        assert own.post("environment/start").json()["up"], "once more changes nothing"
        assert {row["name"] for row in own.get("snapshot").json()["apis"]} == {"first"}
    finally:
        Environment(home).down()


def test_an_environment_that_cannot_be_told_is_said_and_never_an_error(own_lab: LabMaker, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    own = own_lab(home)
    (home / "environments.json").write_text("{")
    assert "damaged" in own.get("environment").json()["message"]
    assert own.get("api/apis").json()["code"] == "environment_problem"
    (home / "environments.json").write_text(json.dumps({"used": "team", "environments": {"team": {"url": "http://127.0.0.1:1", "token": "x"}}}))
    said = own.get("environment").json()
    assert (said["name"], said["local"], said["up"]) == ("team", False, False)
    refused = own.post("environment/start")
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    (home / "environments.json").write_text(json.dumps({"used": "team", "environments": {"team": {"url": "nonsense://x y", "token": "x"}}}))
    assert own.get("api/apis").json()["code"] == "environment_down"
