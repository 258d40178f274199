"""Settings that change how an environment runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from jupyter_cortex.core.errors import EnvironmentProblem
from jupyter_cortex.core.settings import Settings
from jupyter_cortex.operator.home import Home, free_port
from jupyter_cortex.store import connection

from ..conftest import Environment, ProjectMaker, missing, wait_until


@pytest.fixture
def outside_redis(tmp_path: Path) -> Iterator[str]:
    """A Redis server of somebody else's, over TCP, with a password."""
    port = free_port("127.0.0.1", tmp_path)
    yield from _served(tmp_path, f"redis://:open-sesame@127.0.0.1:{port}/0", "--port", str(port))


@pytest.fixture
def outside_redis_with_tls(tmp_path: Path) -> Iterator[str]:
    """The same, which speaks TLS only, with a certificate of its own."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1"]
    if shutil.which("openssl") is None:
        missing("openssl is not on PATH: `apt-get install openssl`")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    port = free_port("127.0.0.1", tmp_path)
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"]
    url = f"rediss://:open-sesame@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    yield from _served(tmp_path, url, "--port", "0", "--tls-port", str(port), *files)


def _served(directory: Path, url: str, *options: str) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        missing("redis-server is not on PATH: `apt-get install redis-server`")
    command = [str(program), *options, "--bind", "127.0.0.1", "--requirepass", "open-sesame", "--dir", str(directory), "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return bool(redis.Redis.from_url(url).ping())
        except redis.ConnectionError:
            return False

    wait_until(answers, "the server answers")
    yield url
    server.terminate()
    server.wait()


def test_an_outside_redis_with_a_password_serves_as_store_and_its_password_is_told_to_nobody(
    outside_redis: str, own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    environment = own_environment(redis_url=outside_redis)
    project("outside").deploy(environment)
    client = environment.client()
    assert client.result("outside", client.submit("outside", {"n": 1}), wait=60).result["payload"] == {"n": 1}
    assert environment.slot("store").pid() is None
    said = environment.cortex("status", "-o", "json").stdout + environment.cortex("get", "outside", "-o", "json").stdout
    assert "open-sesame" not in said
    for process in json.loads(environment.cortex("status", "-o", "json").stdout)["processes"]:
        assert b"open-sesame" not in Path(f"/proc/{process['pid']}/cmdline").read_bytes()


def test_a_store_behind_tls_serves_as_any_other(
    outside_redis_with_tls: str, own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    environment = own_environment(redis_url=outside_redis_with_tls)
    made = project("encrypted")
    made.deploy(environment)
    client = environment.client()
    ids = [client.submit("encrypted", {"n": number}) for number in range(200)]
    assert [client.result("encrypted", one, wait=60).result["payload"] for one in ids] == [{"n": number} for number in range(200)]
    # Several records to a reply, and a body that comes to the store in pieces.
    for size in (300_000, 5_000_000):
        text = "ä" * (size // 2)
        assert client.result("encrypted", client.submit("encrypted", text), wait=60).result["payload"] == text
    os.kill(environment.processes("replica", "encrypted")[0]["pid"], signal.SIGKILL)
    with redis.Redis.from_url(outside_redis_with_tls) as store:
        store.client_kill_filter(_type="normal", skipme=True)
    assert client.result("encrypted", client.submit("encrypted", {"n": 1}), wait=60).result["payload"] == {"n": 1}


def test_a_default_environment_has_every_accepted_request_on_disk_before_it_answers(own_environment: Callable[..., Environment]) -> None:
    with own_environment().redis() as store:
        assert {name: store.config_get(name)[name] for name in ("appendonly", "appendfsync")} == {"appendonly": "yes", "appendfsync": "always"}


def test_nothing_in_an_outside_store_says_that_something_runs_after_down(
    outside_redis: str, own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    environment = own_environment(redis_url=outside_redis)
    project("resting", spec="autoscaling: {min_replicas: 2}").deploy(environment)
    client = environment.client()
    done = client.submit("resting", {"n": 1})
    assert client.result("resting", done, wait=60).status == "completed"
    environment.down()
    with redis.Redis.from_url(outside_redis) as store:
        left = lambda: {key.decode() for key in store.scan_iter("*")}  # noqa: E731
        wait_until(lambda: "cx:ready" not in left(), "the gateway's last look whether the store takes a write is over")
        # What was deployed, asked and answered, its tallies and what has happened: `cortex up` serves it again. A token wakes the next operator.
        lasting = re.compile(rf"cx:\{{resting\}}:(api|dep:1|active|bundles|bundle:\w+|events|metrics|logs|completed|[wr]:{done}|[mth]:\d+)")
        assert {key for key in left() if not lasting.fullmatch(key)} - {"cx:operator:wake"} == {"cx:apis", "cx:registry", "cx:schema"}
    environment.up()
    assert client.result("resting", done, wait=60).status == "completed"


def test_a_store_of_ones_own_that_may_lose_what_was_accepted_is_told(outside_redis: str, own_environment: Callable[..., Environment]) -> None:
    said = own_environment(redis_url=outside_redis)
    said.down()
    shown = said.cortex("up").stdout
    assert "note: the store keeps no log of its writes (appendonly no): what was accepted is lost when it ends" in shown
    wait_until(lambda: "appendonly no" in said.cortex("status").stdout, "the status says it, too")
    assert json.loads(said.cortex("status", "-o", "json").stdout)["notes"]
    server = redis.Redis.from_url(outside_redis)
    server.config_set("appendonly", "yes")
    assert ["appendfsync everysec" in note for note in connection.check(outside_redis)] == [True]
    server.config_set("appendfsync", "always")
    assert connection.check(outside_redis) == []
    server.config_set("maxmemory-policy", "allkeys-lru")
    assert connection.check(outside_redis) == [], "without a bound on its memory nothing is forgotten"
    server.config_set("maxmemory", "500mb")
    with pytest.raises(EnvironmentProblem, match=r"maxmemory-policy allkeys-lru\); set it to noeviction"):
        connection.check(outside_redis)
    server.acl_setuser("limited", enabled=True, passwords=["+open"], keys=["*"], categories=["+@all"], commands=["-config", "-info"])
    limited = outside_redis.replace("//:open-sesame@", "//limited:open@")
    assert ["allows no INFO" in note for note in connection.check(limited)] == [True]


def test_a_running_environment_is_not_taken_for_one_on_another_store(outside_redis: str, own_environment: Callable[..., Environment]) -> None:
    environment = own_environment()
    environment.cortex("up")
    moved = Environment(environment.home, {"JUPYTER_CORTEX_REDIS_URL": outside_redis})
    refused = moved.cortex("up", check=False)
    assert refused.returncode == 1
    assert "runs on another store than JUPYTER_CORTEX_REDIS_URL names" in refused.stderr
    assert "open-sesame" not in refused.stderr
    moved.cortex("down")
    assert environment.slot("store").pid() is None, "the store that it did run on is stopped, too"
    moved.cortex("up")
    moved.cortex("up")
    assert environment.slot("store").pid() is None
    moved.cortex("down")
    assert not (environment.home / "run" / "operator.store").exists()


def test_the_access_log_has_a_json_line_per_request_when_asked_for(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment(access_log="true")
    project("logged").deploy(environment)
    with environment.http() as http:
        http.post("/logged?x=1", json={})
    log = Home(environment.home).logs / "gateway.log"

    def found() -> dict | None:
        for line in log.read_text().splitlines():
            if line.startswith("{") and (record := json.loads(line))["path"] == "/logged":
                return dict(record)
        return None

    record = wait_until(found, "the request is logged")
    assert (record["method"], record["status_code"]) == ("POST", "200 OK")
    assert record["message"].endswith('- "POST /logged?x=1 HTTP/1.1" 200')


def test_listening_beyond_loopback_wants_a_call_token(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "open", {"JUPYTER_CORTEX_HOST": "0.0.0.0"})
    done = environment.cortex("up", check=False)
    assert done.returncode == 1
    assert "JUPYTER_CORTEX_CALL_TOKEN" in done.stderr


def test_the_shared_loopback_of_a_hub_wants_a_call_token_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    done = Environment(tmp_path / "hub").cortex("up", check=False)
    assert done.returncode == 1
    assert "JupyterHub" in done.stderr
    assert "JUPYTER_CORTEX_CALL_TOKEN" in done.stderr


def test_a_port_that_somebody_else_has_is_named_with_the_way_out(own_environment: Callable[..., Environment], tmp_path: Path) -> None:
    taken = own_environment()
    port = taken.url.rpartition(":")[2]
    done = Environment(tmp_path / "second", {"JUPYTER_CORTEX_PORT": port}).cortex("up", check=False)
    assert done.returncode == 1
    assert f"{port}" in done.stderr
    Environment(tmp_path / "second").down()


def test_two_homes_are_two_environments(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    first, second = own_environment(), own_environment()
    assert first.url != second.url
    project("only-here").deploy(first)
    assert [api["name"] for api in first.client().list_apis()] == ["only-here"]
    assert second.client().list_apis() == []


@pytest.mark.parametrize(("name", "value"), [("port", "many"), ("appendfsync", "sometimes"), ("insecure", "perhaps"), ("max_body_bytes", "-1")])
def test_a_setting_that_makes_no_sense_is_named_without_its_value(name: str, value: str) -> None:
    with pytest.raises(EnvironmentProblem, match=f"JUPYTER_CORTEX_{name.upper()} is not valid") as refused:
        Settings.read({f"JUPYTER_CORTEX_{name.upper()}": value})
    assert refused.value.details == {"variable": f"JUPYTER_CORTEX_{name.upper()}"}
