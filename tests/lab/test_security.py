"""Nobody gets in who may not, and no token gets out."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import websocket

from ..conftest import Environment, ProjectMaker, wait_until
from .conftest import KernelMaker, Lab, LabMaker, model

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
HANDLER = "class Handler:\n    def handle_async(self, payload): return {'got': payload}"
#: What each group of a route's pattern may stand for.
EXAMPLES = {"(.*)": "apis", "(/.*)": "/some/api", "(show|check|deploy|prepare)": "show"}


def paths() -> list[str]:
    """A path for every route that the extension has."""
    from jupyter_cortex.extension import ROUTES

    found = []
    for pattern, _ in ROUTES:
        for group, example in EXAMPLES.items():
            pattern = pattern.replace(group, example)
        assert re.fullmatch(r"[a-z/]+", pattern), f"an example is missing for {pattern}"
        found.append(pattern)
    return found


@pytest.fixture(scope="module", params=["as it comes", "strict"])
def doors(request: pytest.FixtureRequest, environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from .conftest import start, stop

    options = ["--ServerApp.allow_unauthenticated_access=False"] if request.param == "strict" else []
    made = start(tmp_path_factory.mktemp("doors", numbered=True), environment.home, *options)
    yield made
    stop(made)


@pytest.mark.parametrize("path", paths())
def test_no_route_answers_without_credentials(doors: Lab, path: str) -> None:
    with doors.http(token=False) as client:
        for method in METHODS:
            for headers in ({}, {"authorization": "token wrong"}, {"cookie": "username-x=2|1:0|10:1|8:username|4:YQ==|0"}):
                answer = client.request(method, path, headers=headers, follow_redirects=False)
                if method == "OPTIONS" and answer.status_code == 200:  # a browser asks about other origins; Jupyter answers by itself
                    assert answer.content == b"", path
                    continue
                assert answer.status_code in (403, 405), (method, path, answer.status_code)
                assert "environment" not in answer.text
    with pytest.raises(websocket.WebSocketBadStatusException, match=r"403|404|405|400"):
        websocket.create_connection(doors.url.replace("http", "ws") + path)


def test_jupyter_finds_no_route_without_its_decorators(doors: Lab) -> None:
    log = doors.log.read_text()
    assert "jupyter_cortex | extension was successfully loaded" in log
    assert not re.search(r"Handler registered for .*cortex", log), log


AUTHORIZER = """
from jupyter_server.auth import Authorizer

class Choosy(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return (action, resource) in {allowed} or resource not in ("cortex", "kernels")

c.ServerApp.authorizer_class = Choosy
"""


@pytest.mark.parametrize(
    ("allowed", "reads", "writes", "runs"),
    [
        (set(), False, False, False),
        ({("read", "cortex")}, True, False, False),
        ({("read", "cortex"), ("write", "cortex")}, True, True, False),
    ],
    ids=["nothing", "reading", "all but kernels"],
)
def test_the_server_s_authorizer_decides(
    allowed: set[tuple[str, str]], reads: bool, writes: bool, runs: bool, environment: Environment, own_lab: LabMaker, tmp_path: Path
) -> None:
    config = tmp_path / "config.py"
    config.write_text(AUTHORIZER.replace("{allowed}", repr(allowed)))
    own = own_lab(environment.home, f"--config={config}")
    notebook = own.notebook("n.ipynb", HANDLER)
    for path in ("environment", "snapshot", "api/status", "run/nothing/x"):
        assert (own.get(path).status_code != 403) is reads, path
        assert own.get(path).headers["content-type"].startswith("application/"), path
    for path in ("environment/start", "api/apis/none/stop", "run/nothing"):
        assert (own.post(path).status_code != 403) is writes, path
    body = {"path": "n.ipynb", "kernel_id": "x", "model": notebook}
    refused = own.post("notebook/deploy", json=body)
    assert refused.status_code == (409 if writes else 403), "a kernel that is not there is said to whoever may write"
    with own.http() as client:
        if reads:
            own.page().close()
        else:
            with pytest.raises(websocket.WebSocketBadStatusException):
                own.page()
        assert client.get("/api/status").status_code == 200


def test_who_may_not_run_code_publishes_nothing(environment: Environment, own_lab: LabMaker, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    allowed = {(action, resource) for action in ("read", "write") for resource in ("cortex", "kernels")}
    config.write_text(AUTHORIZER.replace("{allowed}", repr(allowed)))
    own = own_lab(environment.home, f"--config={config}")
    notebook = own.notebook("n.ipynb", HANDLER)
    one = own.kernel()
    told = own.ask("show", one, "n.ipynb", notebook)
    assert (told.status, told.problem["code"]) == (403, "forbidden")


def test_a_page_of_another_site_cannot_use_the_browser_s_cookie(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    project("xsrf").deploy(environment)
    browser, xsrf = lab.browser()
    with contextlib.closing(browser):
        for method, path in [("POST", "environment/start"), ("POST", "run/xsrf"), ("DELETE", "api/apis/xsrf"), ("POST", "notebook/show")]:
            for headers in ({}, {"x-xsrftoken": "wrong"}, {**xsrf, "origin": "https://evil.example"}):
                answer = browser.request(method, f"/cortex/{path}", headers=headers)
                assert answer.status_code in (403, 404), (path, headers, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"
        assert browser.get("/cortex/api/apis", headers={"origin": "https://evil.example"}).status_code in (403, 404)
        sent = browser.post("/cortex/run/xsrf", json=1, headers=xsrf)
        assert sent.status_code == 200
        assert browser.get("/cortex/snapshot", headers={"referer": xsrf["referer"]}).status_code == 200
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    with pytest.raises(websocket.WebSocketBadStatusException):
        websocket.create_connection(lab.url.replace("http", "ws") + "/cortex/stream", cookie=cookie, origin="https://evil.example")
    websocket.create_connection(lab.url.replace("http", "ws") + "/cortex/stream", cookie=cookie, origin=lab.url).close()
    assert lab.post("run/xsrf", json=1).status_code == 200, "a program with Jupyter's token needs none of that"


def test_no_token_is_in_any_answer_frame_or_log(own_lab: LabMaker, own_environment: Any, project: ProjectMaker) -> None:
    own = own_environment(call_token="the-call-token-of-this-test", redis_url="")
    lab = own_lab(own.home, JUPYTER_CORTEX_CALL_TOKEN="the-call-token-of-this-test")
    secrets = (own.token, "the-call-token-of-this-test")
    project("leaks", "class Handler:\n    def handle_async(self, payload): return {}[payload]").deploy(own)
    notebook = lab.notebook("n.ipynb", HANDLER)
    one = lab.kernel()
    one.run_all(HANDLER)
    said = []
    page = lab.page({"leaks": "0-0"}, {"leaks": "0-0"})
    with lab.http() as client:
        sent = client.post("/cortex/run/leaks", json=1, headers={"x-request-id": "one"})
        assert sent.status_code == 200, sent.text
        assert client.get("/cortex/run/leaks/one?wait=20").json()["status"] == "failed"
        for method, path in [
            *(("GET", path) for path in ("environment", "snapshot", "api/status", "api/apis?recent=60", "api/apis/leaks", "api/nothing", "run/none")),
            *(("GET", f"api/apis/leaks/{path}") for path in ("workloads", "workloads/one", "workloads/one/payload", "workloads/one/logs", "history")),
            *(("GET", f"api/apis/leaks/{path}") for path in ("logs/tail", "deployments/1", "deployments/1/module", "deployments/1/report", "none")),
            *(("POST", path) for path in ("environment/start", "api/apis/leaks/stop", "api/apis/leaks/start", "notebook/show", "notebook/deploy")),
            *(("GET", f"run/leaks/{path}") for path in ("one", "two", "healthz")),
            ("DELETE", "run/leaks/one"),
        ]:
            said.append(client.request(method, f"/cortex/{path}"))
    texts = [f"{answer.headers}{answer.text}" for answer in said]
    for verb in ("show", "check", "deploy"):
        told = lab.ask(verb, one, "n.ipynb", notebook)
        assert told.worked()
        texts += told.lines
    wait_until(lambda: page.frame(5) is None or page.moves("leaks"), "something moved")
    page.until(lambda frame: any(row["name"] == "n" for row in frame.get("apis", ())), "the new API is told")
    own.down()
    page.until(lambda frame: frame.get("environment", {}).get("up") is False, "it is told that the environment is down")
    texts += [json.dumps(page.frames), lab.get("environment").text, lab.get("snapshot").text, lab.get("api/apis").text, lab.log.read_text()]
    assert all(len(text) > 1 for text in texts)
    for secret in secrets:
        assert not [text for text in texts if secret in text]
    page.close()


def test_a_notebook_is_one_below_the_root(lab: Lab, kernel: KernelMaker, tmp_path: Path) -> None:
    (lab.root.parent / "outside.ipynb").write_text(json.dumps(model(HANDLER)))
    lab.notebook("inside/n.ipynb", HANDLER)
    one = kernel()
    for path in (
        "../outside.ipynb",
        "inside/../../outside.ipynb",
        "inside/../inside/n.ipynb",
        str(lab.root.parent / "outside.ipynb"),
        f"..//..{lab.root.parent}/outside.ipynb",
        "none.ipynb",
        "inside/n.ipynb\0.ipynb",
        ".ipynb",
        "inside/./n.ipynb",
        "a" * 5000 + ".ipynb",
        "\ud800.ipynb",
    ):
        told = lab.ask("show", one, path, model(HANDLER))
        assert (told.status, told.problem["code"]) == (404, "notebook_not_found"), path
    assert lab.ask("show", one, "/inside//n.ipynb", model(HANDLER)).status == 200


def test_a_public_call_reaches_nothing_that_is_not_public(lab: Lab) -> None:
    reserved = ["/_cortex/v1/apis", "/_cortex", "/metrics", "/healthz", "/readyz"]
    spelled = [
        "//_cortex/v1/apis",
        "/%5fcortex/v1/apis",
        "/_cortex%2fv1%2fapis",
        "/x/../_cortex/v1/apis",
        "/x/%2e%2e/metrics",
        "/./metrics",
        "/%2Fmetrics",
    ]
    spelled += ["/.%2e/_cortex/v1/status", "/%2e/metrics", "///metrics", "/metrics/", "/metrics/x"]
    for path in [*reserved, *spelled]:
        for method in ("GET", "POST", "DELETE"):
            status, said = lab.raw(method, f"/cortex/run{path}")
            assert (status, json.loads(said)["code"]) == (404, "route_not_found"), (method, path, said)
    for path in ("/_cortexx", "/%255fcortex/v1/apis", "/metrics%252f", "/a%00b", "/..;/metrics", "/\\_cortex/v1/apis"):
        status, said = lab.raw("GET", f"/cortex/run{path}")
        assert status in (400, 404), (path, said)
        assert "processes" not in said


def test_nothing_a_caller_sends_is_an_internal_error(lab: Lab, kernel: KernelMaker) -> None:
    lab.notebook("fuzzed.ipynb", HANDLER)
    one = kernel()
    good = {"path": "fuzzed.ipynb", "kernel_id": one.id, "model": model(HANDLER)}
    odd: list[Any] = [None, 1, -1, 1e400, "", "x" * 100_000, [], {}, [[]], {"a": {"b": []}}, True, False, "\ud800", {"\ud800": 1}]
    bodies = [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000, json.dumps(good).encode()[:-1]]
    bodies += [json.dumps({**good, key: value}).encode() for key in ("path", "kernel_id", "model") for value in odd]
    bodies += [json.dumps({**good, key: value}).encode() for key in ("name", "config", "replicas", "yes", "take_over", "force") for value in odd]
    with lab.http() as client:
        for body in bodies:
            answer = client.post("/cortex/notebook/show", content=body)
            assert answer.status_code in (200, 400, 404, 409), (body[:200], answer.text)
            told = [json.loads(line) for line in answer.text.splitlines()]
            problem = told[-1] if answer.status_code != 200 else told[-1].get("problem", {})
            assert problem.get("status", 0) < 500, (body[:200], problem)
            assert "Traceback" not in answer.text
    assert one.value("1") == 1
    assert "[E " not in lab.log.read_text()


def test_a_stream_is_closed_for_what_it_cannot_mean(lab: Lab) -> None:
    for message in (
        "",
        "{",
        "[]",
        "{}",
        '{"events": []}',
        '{"events": {"a": 1}}',
        '{"logs": {"a": "x"}}',
        '{"events": {"a": null}}',
        '{"logs": {}, "turn": "1"}',
        "x" * 300_000,
        '{"events": {"a": "1-1\\n"}}',
    ):
        page = lab.page()
        page.socket.send(message)
        with pytest.raises(websocket.WebSocketConnectionClosedException):
            page.until(lambda frame: False, "it is closed")
    page = lab.page({"no-such-api": "1-1", "Not A Name": "$", "../x": ""})
    assert page.until(lambda frame: "gone" in frame, "those that are not there are gone")["gone"] == ["../x", "Not A Name", "no-such-api"]
    page.close()
    assert "[E " not in lab.log.read_text()
