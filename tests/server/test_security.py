"""Who is kept out, and what is never told."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import pytest

from jupyter_cortex.client import Client
from jupyter_cortex.core.errors import CortexError, DeployFailed, Unauthorized
from jupyter_cortex.core.settings import Settings
from jupyter_cortex.environments import Environments
from tests.conftest import Environment, Project, ProjectMaker, wait_until

from .test_public_http import ended, refused, submit, waiting

PASSWORD = "tiger-tiger-burning-bright"
QUOTED = 'say "é" \\ twice'
NUMBER = "8675309"
ENV_FILE = f"THE_PASSWORD={PASSWORD}\nTHE_PIN={NUMBER}\nTHE_QUOTE='{QUOTED}'\n"
TELLS = """
import os
import subprocess
import sys
from cortex_internal.lib.log import logger

class Handler:
    def handle_async(self, payload):
        secrets = [os.environ[name] for name in ("THE_PASSWORD", "THE_PIN", "THE_QUOTE")]
        if payload == "print":
            print("told", *secrets)
            print("told", *secrets, file=sys.stderr)
        elif payload == "log":
            logger.info("told %s", secrets, extra={"env": dict(enumerate(secrets)), "pin": int(secrets[1]), secrets[0]: 1})
        elif payload == "raise":
            raise ValueError("told " + " ".join(secrets))
        elif payload == "chain":
            try:
                raise KeyError(secrets[0])
            except KeyError as error:
                raise RuntimeError("told " + secrets[2]) from error
        elif payload == "file descriptor":
            os.write(1, ("told " + " ".join(secrets) + chr(10)).encode())
        elif payload == "child":
            subprocess.run([sys.executable, "-c", "import os; print('told', os.environ['THE_PASSWORD'], os.environ['THE_PIN'])"])
        elif payload == "die":
            os.write(2, ("told " + " ".join(secrets) + chr(10)).encode())
            os._exit(1)
        return {"lengths": [len(secret) for secret in secrets]}
"""


@dataclass
class Telling:
    """An API whose handler tells its secrets."""

    environment: Environment
    name: str
    directory: Path


@pytest.fixture(scope="module")
def telling(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Telling]:
    directory = tmp_path_factory.mktemp("telling")
    text = "- name: safe-tells\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: handler.py\n  max_deliveries: 1\n"
    (directory / "cortex.yaml").write_text(text)
    (directory / ".env").write_text(ENV_FILE)
    Project(directory, "safe-tells").write(TELLS).deploy(environment)
    yield Telling(environment, "safe-tells", directory)
    environment.client().delete("safe-tells")


@pytest.fixture
def web(environment: Environment) -> Iterator[httpx.Client]:
    with environment.http() as client:
        yield client


@pytest.fixture(scope="module")
def echo(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("origins")
    text = (
        "- name: safe-echo\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: handler.py\n"
        "  networking:\n    allow_origins: ['https://friend.example']\n"
    )
    (directory / "cortex.yaml").write_text(text)
    Project(directory, "safe-echo").write("class Handler:\n    def handle_async(self):\n        return {}\n").deploy(environment)
    yield "safe-echo"
    environment.client().delete("safe-echo")


def secrets_in(text: str) -> list[str]:
    """The secrets that a text tells, also in the forms that JSON and repr give them."""
    forms = {form for secret in (PASSWORD, NUMBER, QUOTED) for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1])}
    return [form for form in forms if form in text]


# Web pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "api-.evil", "", "[::2]", "evil.example:80"]
)
def test_a_foreign_host_is_refused_everywhere(host: str, echo: str, environment: Environment, web: httpx.Client) -> None:
    before = waiting(environment, echo)
    headers = {"host": host, "authorization": f"Bearer {environment.token}"}
    for method, path in (("POST", f"/{echo}"), ("GET", f"/{echo}/x"), ("GET", "/_cortex/v1/apis"), ("GET", "/metrics"), ("GET", "/nothing")):
        refused(web.request(method, path, headers={**headers, "content-type": "text/plain"}), 403, "forbidden")
    assert waiting(environment, echo) == before


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "localhost:1"])
def test_a_name_of_this_machine_is_its_own_host(host: str, echo: str, web: httpx.Client) -> None:
    assert web.post(f"/{echo}", json={}, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://friend.example",
        "https://friend.example:8443",
        "https://friend.example.evil",
        "http://localhost:1",
        "*",
        "file://",
    ],
)
def test_a_page_of_another_site_is_refused_before_anything_is_queued(origin: str, echo: str, environment: Environment, web: httpx.Client) -> None:
    before = waiting(environment, echo)
    headers = {"origin": origin, "content-type": "text/plain"}
    for method, path in (("POST", f"/{echo}"), ("GET", f"/{echo}/x"), ("DELETE", f"/{echo}/x"), ("OPTIONS", f"/{echo}")):
        answer = web.request(method, path, headers=headers)
        refused(answer, 403, "forbidden")
        assert "access-control-allow-origin" not in answer.headers
    assert waiting(environment, echo) == before


def test_a_page_of_an_allowed_origin_gets_its_headers_on_every_answer(echo: str, web: httpx.Client) -> None:
    origin = {"origin": "https://friend.example"}
    asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = web.options(f"/{echo}", headers=asked)
    assert preflight.status_code == 200
    assert {"GET", "POST", "DELETE"} <= set(preflight.headers["access-control-allow-methods"].split(", "))
    assert "content-type" in preflight.headers["access-control-allow-headers"]
    good = web.post(f"/{echo}", json={}, headers=origin)
    bad = web.post(f"/{echo}", content=b"{", headers={**origin, "content-type": "application/json"})
    unknown = web.get(f"/{echo}/x", headers=origin)
    assert [answer.status_code for answer in (good, bad, unknown)] == [200, 400, 404]
    for answer in (preflight, good, bad, unknown):
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert "origin" in answer.headers["vary"].lower()
        assert "access-control-allow-credentials" not in answer.headers


def test_the_gateways_own_pages_may_call(echo: str, environment: Environment, web: httpx.Client) -> None:
    assert web.post(f"/{echo}", json={}, headers={"origin": environment.url}).status_code == 200


def test_an_origin_that_is_no_url_is_refused(echo: str, web: httpx.Client) -> None:
    for origin in ("http://[", "http://[x]", "//", ":", "http://[::1"):
        refused(web.post(f"/{echo}", json={}, headers={"origin": origin}), 403, "forbidden")


# The call token ------------------------------------------------------------------------------------------------------


def test_public_routes_want_the_call_token_when_there_is_one(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment(call_token="let-me-call")
    project("guarded", spec="networking:\n  allow_origins: ['*']").deploy(environment)
    before = waiting(environment, "guarded")
    with environment.http() as web:
        for given in (None, "Bearer wrong", "Basic let-me-call", "let-me-call", "Bearer let-me-cal", "Bearer \xff"):
            headers = {"authorization": given.encode("latin-1")} if given else {}
            for method, path in (("POST", "/guarded"), ("GET", "/guarded/x"), ("DELETE", "/guarded/x")):
                answer = web.request(method, path, headers=headers)
                refused(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
            refused(web.get("/metrics", headers=headers), 401, "unauthorized")
        assert waiting(environment, "guarded") == before
        right = {"authorization": "Bearer let-me-call"}
        answer = web.post("/guarded", json={}, headers=right)
        assert answer.status_code == 200
        assert web.get(f"/guarded/{answer.json()['id']}", headers=right).status_code == 200
        assert web.get("/metrics", headers=right).status_code == 200
        assert web.get("/healthz").status_code == 200
        refused(web.get("/_cortex/v1/apis", headers=right), 401, "unauthorized")
        page = {"origin": "https://any.example"}
        assert web.options("/guarded", headers={**page, "access-control-request-method": "POST"}).status_code == 200
        denied = web.post("/guarded", json={}, headers=page)
        assert denied.status_code == 401
        assert denied.headers["access-control-allow-origin"] == "https://any.example", "the page must be able to read why"
        refused(web.get("/nothing-here"), 401, "unauthorized")
    client = environment.client()
    assert client.result("guarded", client.submit("guarded", {"n": 1}), wait=20).status == "completed"
    curl = '-H "Authorization: Bearer $JUPYTER_CORTEX_CALL_TOKEN"'
    assert curl in environment.cortex("get", "guarded").stdout
    # A gateway takes the environment's own token for calls; another one's call token is not shown to it.
    from_elsewhere = Environments(Settings.read({"JUPYTER_CORTEX_HOME": str(tmp_path / "elsewhere"), "JUPYTER_CORTEX_CALL_TOKEN": "of-another"}))
    from_elsewhere.add("team", environment.url, environment.token)
    there = from_elsewhere.find("team")
    assert (there.caller, there.call_token) == (environment.token, "")
    elsewhere = Client(there)
    assert elsewhere.result("guarded", elsewhere.submit("guarded", {"n": 2}), wait=20).status == "completed"
    assert elsewhere.cancel("guarded", elsewhere.submit("guarded", {})).id
    with pytest.raises(Unauthorized, match="wants a call token"):
        Client(replace(there, call_token="wrong")).submit("guarded", {})


# What is never told --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["print", "log", "raise", "chain", "file descriptor", "child", "die"])
def test_a_value_of_the_env_file_is_told_to_nobody(way: str, telling: Telling, web: httpx.Client) -> None:
    client = telling.environment.client()
    told_before = sum("told" in json.dumps(record) for record in client.logs(telling.name, 10000))
    answer = web.post(f"/{telling.name}", content=way.encode(), headers={"content-type": "text/plain"})
    request_id = answer.json()["id"]
    shown = ended(web, f"/{telling.name}/{request_id}")
    assert not secrets_in(shown.text)

    def told() -> bool:
        return sum("told" in json.dumps(record) for record in client.logs(telling.name, 10000)) > told_before

    wait_until(told, "the line is in the log")
    lines = [json.dumps(record) for record in client.logs(telling.name, 10000)]
    assert not secrets_in("\n".join(lines[-50:]))
    assert "***" in "\n".join(lines)
    details = json.dumps(client.workload(telling.name, request_id))
    assert not secrets_in(details)


def test_the_handler_itself_gets_the_whole_values(telling: Telling, web: httpx.Client) -> None:
    request_id = web.post(f"/{telling.name}", content=b"nothing", headers={"content-type": "text/plain"}).json()["id"]
    assert ended(web, f"/{telling.name}/{request_id}").json()["result"] == {"lengths": [len(PASSWORD), len(NUMBER), len(QUOTED)]}


@pytest.mark.parametrize(
    "source",
    [
        "import os\nraise RuntimeError('told ' + os.environ['THE_PASSWORD'])\n",
        "import os, sys\nsys.exit('told ' + os.environ['THE_PASSWORD'])\n",
        "import os\nclass Handler:\n    def __init__(self, config):\n        print('told', os.environ['THE_PASSWORD'])\n"
        "        raise ValueError('told ' + os.environ['THE_PASSWORD'])\n    def handle_async(self):\n        return {}\n",
        "import os\nos.write(2, ('told ' + os.environ['THE_PASSWORD']).encode())\nos._exit(1)\n",
    ],
    ids=["import", "exit", "constructor", "last-words"],
)
def test_a_handler_that_does_not_start_tells_no_secret(source: str, environment: Environment, project: ProjectMaker) -> None:
    broken = project("safe-broken", source, files={".env": ENV_FILE})
    client = environment.client()
    try:
        with pytest.raises(DeployFailed) as caught:
            broken.deploy(environment)
        assert not secrets_in(caught.value.message + json.dumps(caught.value.details))
        assert not secrets_in(json.dumps(client.get_api("safe-broken")))
        assert not secrets_in(json.dumps(client.logs("safe-broken")))
    finally:
        client.delete("safe-broken")
        wait_until(lambda: not _known(environment, "safe-broken"), "it is gone")


def _known(environment: Environment, name: str) -> bool:
    with environment.redis() as store:
        return bool(next(iter(store.scan_iter(f"cx:{{{name}}}*")), None))


def test_an_env_file_that_is_wrong_is_refused_without_its_value(environment: Environment, project: ProjectMaker) -> None:
    for text in (f"THE_PASSWORD = {PASSWORD}\n", f"THE_PASSWORD='{PASSWORD}\n", f"{PASSWORD}\n", f"CORTEX_X={PASSWORD}\n", f"A=$({PASSWORD})\n"):
        with pytest.raises(CortexError) as caught:
            project("safe-env", files={".env": text}).deploy(environment)
        assert PASSWORD not in caught.value.message + json.dumps(caught.value.details)


def test_secrets_are_in_no_answer_no_listing_and_no_argument_list(telling: Telling, web: httpx.Client) -> None:
    environment = telling.environment
    config = json.loads((environment.home / "config.json").read_text())
    tokens = [config["token"], config["internal"]]
    client = environment.client()
    control = {"authorization": f"Bearer {environment.token}"}
    texts = {
        "detail": environment.cortex("get", telling.name, "-v", "-o", "json").stdout,
        "table": environment.cortex("get", telling.name, "-v").stdout,
        "status": environment.cortex("status", "-o", "json").stdout,
        "environments": environment.cortex("env", "list", "-o", "json").stdout,
        "logs": environment.cortex("logs", telling.name, "--raw").stdout,
        "apis": json.dumps(client.list_apis()),
        "version": web.get(f"/_cortex/v1/apis/{telling.name}/deployments/1", headers=control).text,
        "events": web.get(f"/_cortex/v1/apis/{telling.name}/events", headers=control).text,
        "metrics": web.get("/metrics").text,
        "openapi": web.get("/_cortex/openapi.json", headers={"authorization": f"Bearer {environment.token}"}).text,
    }
    for path in (environment.home / "logs").iterdir():
        texts[path.name] = path.read_text("utf-8", "replace")
    for process in psutil.process_iter(["pid", "cmdline"]):
        texts[f"arguments of {process.info['pid']}"] = " ".join(process.info["cmdline"] or [])
    for where, text in texts.items():
        assert not secrets_in(text), where
        assert not [token for token in tokens if token in text], where


def test_a_replica_does_not_inherit_the_environments_tokens(environment: Environment, project: ProjectMaker, web: httpx.Client) -> None:
    source = "import os\nclass Handler:\n    def handle_async(self):\n        return dict(os.environ)\n"
    project("safe-inherits", source).deploy(environment)
    try:
        found = ended(web, f"/safe-inherits/{submit(web, 'safe-inherits', {})}").json()["result"]
        assert not [name for name in found if name.startswith("JUPYTER_CORTEX_")]
        assert environment.token not in json.dumps(found)
    finally:
        environment.client().delete("safe-inherits")


def test_the_home_is_private_to_its_user(environment: Environment) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(environment.home) == 0o700
    assert mode(environment.home / "config.json") == 0o600
    assert mode(environment.home / "run" / "chain.json") == 0o600
    for directory in ("store", "run", "projects", "logs"):
        assert mode(environment.home / directory) == 0o700
    assert environment.home.stat().st_uid == os.getuid()


def test_a_home_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    from jupyter_cortex.operator.home import Home

    path = tmp_path / "open"
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    Home(path).make()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
