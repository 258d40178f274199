"""Who waits with the client, the shell or a cell: over a gateway that is started anew, with a call token, and never without the id."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jupyter_cortex
from jupyter_cortex.client import Client
from jupyter_cortex.commands.completing import complete_api
from jupyter_cortex.core.errors import (
    BadRequest,
    Conflict,
    DeployFailed,
    EnvironmentDown,
    EnvironmentProblem,
    SpecError,
    StoreUnavailable,
    Unauthorized,
)
from jupyter_cortex.core.settings import Settings
from jupyter_cortex.environments import Environment as Where
from jupyter_cortex.environments import Environments

from ..conftest import Environment, ProjectMaker, wait_until

SLOW = "import time\nclass Handler:\n    def handle_async(self, payload):\n        time.sleep(payload)\n        return {'slept': payload}"


@pytest.fixture
def scripted() -> Iterator[Any]:
    """``scripted(answer)``: a gateway whose answers a test makes. ``answer(method, path, body, headers)``: (status, document), or None to hang up."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[..., tuple[int, Any] | None]) -> Client:
        class Scripted(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                said = answer(self.command, self.path.split("?")[0], body, self.headers)
                if said is None:
                    self.close_connection = True
                    return
                data = json.dumps(said[1]).encode()
                self.send_response(said[0])
                self.send_header("content-type", "application/json" if said[0] < 400 else "application/problem+json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_PUT = do_GET  # noqa: N815 - http.server's names

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Client(Where("team", f"http://127.0.0.1:{server.server_port}", "t"), Settings.read({"HOME": "/"}))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_who_waits_bears_a_gateway_that_is_started_anew(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    project("bears", SLOW).deploy(environment)
    client = environment.client()
    request_id = client.submit("bears", 3)
    gateway = environment.slot("gateway")
    before = gateway.pid()
    assert before
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(client.result("bears", request_id, wait=60)))
    waiting.start()
    wait_until(lambda: client.result("bears", request_id).status == "in_progress", "it runs")
    os.kill(before, signal.SIGKILL)
    waiting.join()
    assert [one.status for one in found] == ["completed"]
    assert gateway.pid() != before


def test_an_answer_that_was_lost_has_it_sent_again_under_the_same_id(scripted: Any) -> None:
    ids: list[str] = []

    def answer(method: str, path: str, body: bytes, headers: Any) -> tuple[int, Any] | None:
        if method == "GET":
            return 200, {"endpoint": "/a"}
        ids.append(headers["x-request-id"])
        return None if len(ids) == 1 else (200, {"id": ids[-1]})

    assert scripted(answer).submit("a", 1) == ids[0]
    assert ids == [ids[0]] * 2


def test_an_absence_counts_from_when_it_is_noticed(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll lasts up to 20 s: a gateway that is killed in its twelfth second has not been away for twelve."""
    monkeypatch.setattr("jupyter_cortex.client.wire.AWAY_S", 0.5)
    polls: list[str] = []

    def answer(method: str, path: str, body: bytes, headers: Any) -> tuple[int, Any] | None:
        if "_cortex" in path:
            return 200, {"endpoint": "/a"}
        polls.append(path)
        if len(polls) == 1:
            time.sleep(1)
            return None
        return 200, {"id": "x", "status": "completed", "result": {}}

    assert scripted(answer).result("a", "x", wait=60).status == "completed"
    assert len(polls) == 2


def test_what_is_true_of_every_api_is_told_once(scripted: Any, project: ProjectMaker) -> None:
    made = project("every-one")
    config = made.directory / "cortex.yaml"
    text = config.read_text()
    config.write_text(text + text.replace("every-one", "every-two"))
    asked: list[str] = []

    def answer(method: str, path: str, body: bytes, headers: Any) -> tuple[int, Any]:
        asked.append(path)
        return 401, {"code": "unauthorized", "status": 401, "title": "t", "detail": "wants the token"}

    with pytest.raises(Unauthorized) as refused:
        scripted(answer).deploy(config)
    assert str(refused.value) == "every-one: wants the token\nNot tried: every-two."
    assert len(asked) == 1


def test_nobody_who_was_never_answered_waits_for_somebody() -> None:
    client = Client(Where("team", "http://127.0.0.1:9", "t"), Settings.read({"HOME": "/"}))
    with pytest.raises(EnvironmentDown, match="does not answer"):
        client.result("a", "x", wait=600)
    with pytest.raises(EnvironmentDown, match="does not answer"):
        client.submit("a", 1)
    with pytest.raises(BadRequest, match="number of seconds"):
        client.result("a", "x", wait=math.nan)


def test_a_store_that_is_away_ends_no_stream(scripted: Any) -> None:
    away = [{"code": "store_unavailable", "status": 503, "title": "t", "detail": "the store is away"}] * 3

    def answer(method: str, path: str, body: bytes, headers: Any) -> tuple[int, Any]:
        if not path.endswith("/events"):
            return 200, {"endpoint": "/a"}
        return (503, away.pop()) if away else (404, {"code": "workload_not_found", "status": 404, "title": "t", "detail": "gone"})

    with pytest.raises(Exception, match="gone"):
        list(scripted(answer).events("a", "x"))
    assert away == []


def test_with_a_call_token_a_request_is_followed_with_its_log(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    handler = "class Handler:\n    def handle_async(self, payload):\n        print('working')\n        return {'n': payload}"
    environment = own_environment(call_token="open-sesame")
    project("tokened", handler).deploy(environment)
    client = environment.client()
    request_id = client.submit("tokened", 5)
    told = list(client.events("tokened", request_id, logs=True))
    assert told[-1].kind == "completed"
    assert [event.data["message"] for event in told if event.kind == "log"] == ["working"]
    shown = environment.cortex("submit", "tokened", "5", "--wait", "30")
    assert "completed" in shown.stdout
    with environment.http(headers={"authorization": "Bearer wrong"}) as http:
        assert http.get(f"/tokened/{request_id}").status_code == 401


def test_an_error_while_waiting_says_under_which_id_it_was_accepted(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    project("accepted", SLOW).deploy(environment)
    said: list[Any] = []
    waiting = threading.Thread(target=lambda: said.append(environment.cortex("submit", "accepted", "60", "--wait", "100", check=False)))
    waiting.start()
    rows = wait_until(lambda: environment.client().workloads("accepted"), "it was accepted")
    environment.client().delete("accepted")
    waiting.join()
    assert said[0].returncode == 1
    assert f"accepted as {rows[0]['id']}" in said[0].stderr
    assert f"cortex result accepted {rows[0]['id']}" in said[0].stderr


@pytest.mark.parametrize("state", ["stopped", "draining"])
def test_a_version_that_never_was_live_is_not_called_live(scripted: Any, state: str) -> None:
    times: dict[str, int] = {"created": 1}
    client = scripted(lambda method, path, *_: (200, {"state": state, "times": times, "error": {}}))
    with pytest.raises(Conflict, match="version 3 of a was replaced before it was live"):
        client.wait_live("a", 3)
    times["live_at"] = 2
    client.wait_live("a", 3)


def test_after_a_deploy_that_failed_requests_go_where_the_api_is(environment: Environment, project: ProjectMaker) -> None:
    made = project("stays-there", spec="networking: {endpoint: /first-place}")
    made.deploy(environment)
    client = environment.client()
    config = made.directory / "cortex.yaml"
    config.write_text(config.read_text().replace("/first-place", "/second-place"))
    made.write("raise RuntimeError('no')\nclass Handler: ...")
    with pytest.raises(DeployFailed):
        client.deploy(config)
    assert client.result("stays-there", client.submit("stays-there", {"n": 1}), wait=60).status == "completed"


def test_of_several_apis_one_refusal_hides_no_other_outcome(environment: Environment, project: ProjectMaker) -> None:
    project("multi-taken").deploy(environment)
    made = project("multi-one")
    text = (made.directory / "cortex.yaml").read_text()
    config = made.directory / "cortex.yaml"
    config.write_text(text + text.replace("multi-one", "multi-taken") + text.replace("multi-one", "multi-three"))
    client = environment.client()
    with pytest.raises(Conflict) as caught:
        client.deploy(config)
    assert [one.api for one in caught.value.deployed] == ["multi-one", "multi-three"]
    assert caught.value.message.startswith("multi-taken: ")
    assert str(caught.value) == caught.value.message, "whoever prints the exception sees all of it"
    assert "Deployed all the same: multi-one (version 1), multi-three (version 1)." in caught.value.message
    assert client.get_api("multi-three")["status"] == "live"
    shown = environment.cortex("deploy", str(config), "--yes", "-o", "json", check=False)
    rows = json.loads(shown.stdout)
    assert [row["api"] and row["api"]["name"] for row in rows] == ["multi-one", "multi-three", None]
    config.write_text(text.replace("kind: AsyncAPI", "kind: AsyncAPY"))
    with pytest.raises(SpecError) as refused:
        client.deploy(config)
    assert refused.value.deployed == ()


def test_tokens_are_read_without_a_files_line_end_and_never_shown(tmp_path: Any, scripted: Any) -> None:
    settings = Settings.read({"HOME": "/", "JUPYTER_CORTEX_HOME": str(tmp_path), "JUPYTER_CORTEX_TOKEN": "t0ken\n"})
    assert settings.token == "t0ken"
    for bad in ("two words", "schlüssel"):
        with pytest.raises(EnvironmentProblem, match="JUPYTER_CORTEX_CALL_TOKEN is not valid: a token has") as refused:
            Settings.read({"HOME": "/", "JUPYTER_CORTEX_CALL_TOKEN": bad})
        assert bad not in str(refused.value)
        with pytest.raises(EnvironmentProblem, match="the token has characters") as refused:
            Environments(settings).add("team", "https://host:1", bad)
        assert bad not in str(refused.value)
    client = scripted(lambda *_: (200, []))
    client.environment = Where("team", client.environment.url, "SECRET\n")
    with pytest.raises(BadRequest, match="cannot be sent") as unsent:
        client.list_apis()
    assert "SECRET" not in str(unsent.value)


@pytest.mark.parametrize("url", ["http://[::1", "https://host:port", "ftp://host", "host", "http://host:0"])
def test_what_is_no_gateways_url_is_refused_where_it_is_given(tmp_path: Any, url: str) -> None:
    environments = Environments(Settings.read({"HOME": "/", "JUPYTER_CORTEX_HOME": str(tmp_path)}))
    with pytest.raises(EnvironmentProblem, match="is no gateway URL"):
        environments.add("team", url, "t")
    assert [row["name"] for row in environments.list()] == ["local"]


def test_the_setting_that_decides_the_environment_is_shown_and_wins(tmp_path: Any) -> None:
    home = {"HOME": "/", "JUPYTER_CORTEX_HOME": str(tmp_path)}
    Environments(Settings.read(home)).add("team", "https://team.example", "t")
    environments = Environments(Settings.read({**home, "JUPYTER_CORTEX_URL": "https://production.example"}))
    assert [(row["name"], row["used"]) for row in environments.list()] == [("settings", True), ("local", False), ("team", False)]
    with pytest.raises(EnvironmentProblem, match="JUPYTER_CORTEX_URL is set"):
        environments.use("team")
    assert environments.find("settings") == environments.find()
    odd = Settings.read({**home, "JUPYTER_CORTEX_URL": "http://localhost:878O"})
    with pytest.raises(EnvironmentProblem, match="JUPYTER_CORTEX_URL is no URL of a gateway"):
        Client(Environments(odd).find(), odd).list_apis()


@pytest.mark.parametrize("text", ["[1]", "{}", '{"used": "local", "environments": {"a": 1}}', '{"used": "a", "environments": []}', "{"])
def test_a_damaged_list_of_environments_is_told_with_the_way_out(tmp_path: Any, text: str) -> None:
    (tmp_path / "environments.json").write_text(text)
    environments = Environments(Settings.read({"HOME": "/", "JUPYTER_CORTEX_HOME": str(tmp_path)}))
    with pytest.raises(EnvironmentProblem, match="is damaged"):
        environments.list()


def test_the_store_s_own_word_comes_through_where_it_stays_away(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_cortex.client.wire.AWAY_S", 0.5)
    said = {"code": "store_unavailable", "status": 503, "title": "t", "detail": "the store is away"}
    client = scripted(lambda method, path, *_: (200, {"endpoint": "/a"}) if "_cortex" in path else (503, said))
    with pytest.raises(StoreUnavailable, match="the store is away"):
        client.result("a", "x", wait=60)


def test_the_names_of_cortex_s_python_client_mean_its_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_CORTEX_HOME", str(tmp_path))
    made = jupyter_cortex.new_client("team", "https://gateway.example", "t0ken")
    assert (made.environment.name, made.environment.url, made.environment.token) == ("team", "https://gateway.example", "t0ken")
    assert [row["name"] for row in jupyter_cortex.env_list()] == ["local", "team"]
    jupyter_cortex.env_delete("team")
    assert [row["name"] for row in jupyter_cortex.env_list()] == ["local"]
    with pytest.raises(EnvironmentProblem, match="there is no environment team"):
        jupyter_cortex.env_delete("team")


@pytest.mark.parametrize("away", [(503, {"code": "store_unavailable", "status": 503, "title": "t", "detail": "the store is away"}), None])
def test_a_hiccup_while_a_version_starts_fails_no_deploy(scripted: Any, away: Any) -> None:
    answers = iter([(200, {"state": "starting", "times": {}}), away, away, (200, {"state": "live", "times": {"live_at": 1}})])
    steps: list[str] = []
    scripted(lambda *_: next(answers)).wait_live("a", 3, steps.append)
    assert steps == ["starting a", "a is live"]


def test_who_stops_waiting_for_a_version_says_that_it_goes_on(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_cortex.client.wire.AWAY_S", 0.5)
    answers = iter([(200, {"state": "starting", "times": {}})])
    with pytest.raises(EnvironmentDown, match=r"Version 3 of a was accepted and starts without us; `cortex get a` says"):
        scripted(lambda *_: next(answers, None)).wait_live("a", 3)


def test_an_interrupted_requeue_says_what_it_did(scripted: Any) -> None:
    full = {"requeued": ["a", "b"], "refused": [], "next": "1.2", "remaining": 5}
    answers = iter([(200, full), (503, {"code": "store_unavailable", "status": 503, "title": "t", "detail": "the store is away"})])
    with pytest.raises(StoreUnavailable, match=r"the store is away\. 2 were requeued before that; asking again for all of them is safe") as caught:
        scripted(lambda *_: next(answers)).requeue("a", fingerprint="f")
    assert caught.value.details["requeued"] == ["a", "b"]


@pytest.mark.parametrize(("variable", "value"), [("ALL_PROXY", "socks9://127.0.0.1:1"), ("SSL_CERT_FILE", "/not/there.pem")])
def test_a_proxy_or_certificates_that_cannot_be_used_are_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(EnvironmentProblem, match=f"cannot be asked with the proxy or certificates .*{variable}"):
        Client(Where("team", "https://gateway.example", "t"), Settings.read({"HOME": "/"})).status()


def test_calls_to_the_local_environment_pass_no_proxy_at_whatever_address_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    settings = Settings.read({"HOME": "/"})
    made = {name: Client(Where(name, "http://10.0.0.5:8780", "t"), settings) for name in ("local", "team")}
    assert {name: one._connection().trust_env for name, one in made.items()} == {"local": False, "team": True}


def test_a_list_of_environments_that_cannot_be_read_is_told_with_the_way_out(tmp_path: Any) -> None:
    (tmp_path / "environments.json").mkdir()
    environments = Environments(Settings.read({"HOME": "/", "JUPYTER_CORTEX_HOME": str(tmp_path)}))
    with pytest.raises(EnvironmentProblem, match="cannot be read: Is a directory; make it yours again, or remove it"):
        environments.list()


def test_who_has_typed_tab_waits_for_nobody(scripted: Any) -> None:
    asked = threading.Event()
    client = scripted(lambda *_: asked.wait(60))
    door = SimpleNamespace(client=lambda: client)
    context = SimpleNamespace(find_root=lambda: SimpleNamespace(obj=lambda *_: door), params={})
    assert complete_api(context, SimpleNamespace(name="name"), "") == []  # type: ignore[arg-type]
    assert not asked.is_set(), "it was not answered"
    asked.set()
