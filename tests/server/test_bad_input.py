"""Authors' and callers' mistakes: each is said, none of them stops anything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from jupyter_cortex.core.errors import CortexError, DeployFailed
from tests.conftest import Environment, Project, ProjectMaker, wait_until

from .test_public_http import SPEC, ended, on_the_wire, publish, raw, refused, submit, waiting

GOOD = """
class Handler:
    def __init__(self, config):
        pass

    def handle_async(self, payload):
        return {"good": payload}
"""
#: Evaluates its payload and returns that.
EVALUATES = """
import functools
import logging
import os
import sys

from cortex_internal.lib.log import logger

def nested(depth):
    return functools.reduce(lambda inner, _: [inner], range(depth), [])

def throw(error):
    raise error

class Unprintable(Exception):
    def __str__(self):
        raise SystemExit("even this")

circle = {}
circle["again"] = circle

class Handler:
    def handle_async(self, payload):
        return eval(payload)
"""
#: A signal, an exit status or a neighbour, as the payload says.
KILLS = """
import os
import time

class Handler:
    def __init__(self, config):
        self.entries = config.get("entries")

    def handle_async(self, payload, request_id):
        if self.entries:
            with open(self.entries, "a") as file:
                file.write(request_id + "\\n")
        if payload == "signal":
            os.kill(os.getpid(), 9)
        if payload == "exit":
            os._exit(0)
        time.sleep(payload if isinstance(payload, float) else 0)
        return {"pid": os.getpid()}
"""


@dataclass
class Serving:
    """An API whose first version is good."""

    project: Project
    environment: Environment


@pytest.fixture(scope="module")
def serving(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("deploys")
    publish(environment, directory, "bad-deploys", GOOD)
    yield Serving(Project(directory, "bad-deploys"), environment)
    environment.client().delete("bad-deploys")


@pytest.fixture(scope="module")
def evaluates(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    publish(environment, tmp_path_factory.mktemp("evaluates"), "bad-results", EVALUATES)
    yield "bad-results"
    environment.client().delete("bad-results")


@pytest.fixture
def web(environment: Environment) -> Iterator[httpx.Client]:
    with environment.http() as client:
        yield client


def still_good(serving: Serving, web: httpx.Client) -> None:
    request_id = submit(web, "bad-deploys", {"n": 1})
    assert ended(web, f"/bad-deploys/{request_id}").json()["result"] == {"good": {"n": 1}}


# Handlers that do not start ------------------------------------------------------------------------------------------

BROKEN = {
    "no-class": ("x = 1\n", "Handler class is not defined"),
    "misspelt-class": ("class Handle:\n    def handle_async(self):\n        return {}\n", "Handler class is not defined"),
    "no-method": ("class Handler:\n    pass\n", "handle_async"),
    "unknown-argument": ("class Handler:\n    def handle_async(self, data):\n        return {}\n", "data"),
    "no-config": (
        "class Handler:\n    def __init__(self):\n        pass\n    def handle_async(self):\n        return {}\n",
        "config",
    ),
    "constructor-raises": (
        "class Handler:\n    def __init__(self, config):\n        raise ValueError('no model here')\n"
        "    def handle_async(self):\n        return {}\n",
        "ValueError: no model here",
    ),
    "constructor-exits": (
        "import sys\nclass Handler:\n    def __init__(self, config):\n        sys.exit('enough')\n    def handle_async(self):\n        return {}\n",
        "SystemExit: enough",
    ),
    "constructor-dies": (
        "import os\nclass Handler:\n    def __init__(self, config):\n        os._exit(3)\n    def handle_async(self):\n        return {}\n",
        "exit status 3",
    ),
    "constructor-killed": (
        "import os\nclass Handler:\n    def __init__(self, config):\n        os.kill(os.getpid(), 9)\n"
        "    def handle_async(self):\n        return {}\n",
        "SIGKILL",
    ),
    "import-error": ("import no_such_flower\n", "no_such_flower"),
    "syntax-error": ("class Handler:\n    def handle_async(self:\n", "handler.py, line 2"),
    "raises-at-import": ("raise RuntimeError('not today')\n", "RuntimeError: not today"),
    "exits-at-import": ("import sys\nsys.exit('bye')\n", "SystemExit"),
    "null-byte": ("class Handler:\0\n", "null byte"),
    "surrogate": ("raise RuntimeError('\\ud800 lone')\n", "lone"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_handler_that_does_not_start_is_said_and_the_version_before_serves(name: str, serving: Serving, web: httpx.Client) -> None:
    source, reason = BROKEN[name]
    before = serving.environment.client().get_api("bad-deploys")
    with pytest.raises(DeployFailed) as caught:
        serving.project.write(source).deploy(serving.environment)
    assert reason in caught.value.message
    after = serving.environment.client().get_api("bad-deploys")
    assert after["live"] == before["live"]
    assert reason in after["message"]
    assert after["api_versions"][0]["state"] == "failed"
    still_good(serving, web)


def test_a_replica_whose_last_words_look_like_a_record_is_a_failed_deploy(environment: Environment, project: ProjectMaker) -> None:
    source = "import os\nos.write(1, b'{\"asctime\" is no record}\\n')\nos._exit(4)\n"
    deployed = project("bad-words", source).deploy(environment, wait=False)
    client = environment.client()

    def failed() -> dict[str, Any] | None:
        newest: dict[str, Any] = client.get_api("bad-words")["api_versions"][0]
        return newest if newest["state"] == "failed" else None

    try:
        newest = wait_until(failed, "the deployment has failed", 20)
        assert (newest["version"], "exit status 4" in newest["error"]["message"]) == (deployed.version, True)
    finally:
        client.delete("bad-words")


def test_a_handler_file_that_is_missing_is_refused_before_anything_changes(serving: Serving, web: httpx.Client) -> None:
    (serving.project.directory / "handler.py").rename(serving.project.directory / "handler.bak")
    before = serving.environment.client().get_api("bad-deploys")
    with pytest.raises(CortexError, match=r"handler\.py"):
        serving.project.deploy(serving.environment)
    assert serving.environment.client().get_api("bad-deploys") == {**before, "workers": before["workers"]}
    still_good(serving, web)


def test_the_next_good_version_takes_over_after_a_bad_one(serving: Serving, web: httpx.Client) -> None:
    with pytest.raises(DeployFailed):
        serving.project.write("import no_such_flower\n").deploy(serving.environment)
    deployed = serving.project.write(GOOD + "\n# mended\n").deploy(serving.environment)
    api = serving.environment.client().get_api("bad-deploys")
    assert (api["live"], api["status"], api["message"]) == (deployed.version, "live", "")
    still_good(serving, web)


def test_an_api_that_was_never_live_answers_not_live(environment: Environment, project: ProjectMaker, web: httpx.Client) -> None:
    broken = project("bad-never", "raise RuntimeError('never')\n")
    try:
        with pytest.raises(DeployFailed, match="never"):
            broken.deploy(environment)
        answer = web.post("/bad-never", json={})
        refused(answer, 503, "not_live")
        assert int(answer.headers["retry-after"]) > 0
        api = environment.client().get_api("bad-never")
        assert (api["status"], api["live"]) == ("error", 0)
        assert waiting(environment, "bad-never")[:2] == (0, 0)
        broken.write(GOOD).deploy(environment)
        request_id = submit(web, "bad-never", 1)
        assert ended(web, f"/bad-never/{request_id}").json()["status"] == "completed"
    finally:
        environment.client().delete("bad-never")


# Results and errors --------------------------------------------------------------------------------------------------

UNUSABLE = {
    "none": ("None", "None"),
    "list": ("[1]", "list"),
    "text": ("'x'", "str"),
    "bytes": ("b'x'", "bytes"),
    "tuple": ("({}, 200)", "tuple"),
    "generator": ("(n for n in ())", "generator"),
    "nan": ("{'a': [float('nan')]}", '["a"][0] is NaN'),
    "infinity": ("{'a': float('inf')}", "Infinity"),
    "object": ("{'a': object()}", "object"),
    "bytes-inside": ("{'a': b'x'}", "base64"),
    "tuple-key": ("{(1, 2): 3}", "key"),
    "circle": ("circle", "contains itself"),
    "too-many-digits": ("{'a': 10 ** 5000}", "digits"),
    "too-deep": ("{'a': nested(100_000)}", "nested"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_result_that_is_no_json_object_fails_with_the_reason(name: str, evaluates: str, web: httpx.Client) -> None:
    expression, reason = UNUSABLE[name]
    answer = ended(web, f"/{evaluates}/{send(web, evaluates, expression)}").json()
    assert (answer["status"], answer["error"]["type"].rpartition(".")[2]) == ("failed", "ResultError")
    assert reason in answer["error"]["message"]


RAISED = {
    "exit": ("sys.exit(3)", "SystemExit", "3"),
    "interrupt": ("throw(KeyboardInterrupt())", "KeyboardInterrupt", ""),
    "generator-exit": ("throw(GeneratorExit())", "GeneratorExit", ""),
    "recursion": ("(lambda f: f(f))(lambda f: f(f))", "RecursionError", "recursion"),
    "memory": ("throw(MemoryError('out'))", "MemoryError", "out"),
    "unprintable": ("throw(Unprintable())", "Unprintable", "__str__"),
    "surrogate": ("throw(ValueError('\\ud800 lone'))", "ValueError", "lone"),
    "long": ("throw(ValueError('x' * 1_000_000))", "ValueError", "x"),
    "stop-iteration": ("next(iter(()))", "StopIteration", ""),
}


@pytest.mark.parametrize("name", RAISED)
def test_whatever_a_handler_raises_fails_that_workload_only(name: str, evaluates: str, environment: Environment, web: httpx.Client) -> None:
    expression, kind, message = RAISED[name]
    pid = replica_pid(web, evaluates)
    request_id = send(web, evaluates, expression)
    answer = ended(web, f"/{evaluates}/{request_id}").json()
    assert (answer["status"], answer["error"]["type"]) == ("failed", kind)
    assert message in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 10_000
    details = environment.client().workload(evaluates, request_id)
    assert kind in details["failure"]["traceback"]
    assert details["payload_kept"]
    assert replica_pid(web, evaluates) == pid


def send(web: httpx.Client, api: str, text: str) -> str:
    answer = web.post(f"/{api}", content=text.encode(), headers={"content-type": "text/plain"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def replica_pid(web: httpx.Client, api: str) -> int:
    return int(ended(web, f"/{api}/{send(web, api, '{chr(112): os.getpid()}')}").json()["result"]["p"])


ODD_RESULTS = {
    "lone-surrogate": "{'a': chr(0xd800), chr(0xdfff): 1}",
    "deep": "{'a': nested(400)}",
    "large-integer": "{'a': 10 ** 4000}",
    "null-character": "{'a': chr(0), chr(10): chr(0x2028)}",
    "scalar-keys": "{None: 1, True: 2, 1.5: 3, 7: 4}",
    "a-million-characters": "{'a': 'x' * 1_000_000}",
}


@pytest.mark.parametrize("name", ODD_RESULTS)
def test_an_odd_result_is_shown_by_every_door(name: str, evaluates: str, environment: Environment, web: httpx.Client) -> None:
    request_id = send(web, evaluates, ODD_RESULTS[name])
    answer = ended(web, f"/{evaluates}/{request_id}")
    assert answer.json()["status"] == "completed", answer.text[:500]
    control = {"authorization": f"Bearer {environment.token}"}
    inside = web.get(f"/_cortex/v1/apis/{evaluates}/workloads/{request_id}", headers=control)
    assert inside.status_code == 200, inside.text[:500]
    assert inside.json()["result"] == answer.json()["result"]
    assert web.get(f"/_cortex/v1/apis/{evaluates}/workloads", headers=control).status_code == 200


ODD_LINES = {
    "printed-surrogate": "print(chr(0xd800) + 'odd-1') or {}",
    "logged-surrogate": "logger.info(chr(0xdfff) + 'odd-2', extra={'a': chr(0xd800), chr(0xd801): 1}) or {}",
    "written-bytes": "os.write(1, bytes(range(128, 256)) + b' odd-3' + chr(10).encode()) and {}",
    "looks-like-a-record": "os.write(1, b'{\"asctime\" is no record odd-4}' + chr(10).encode()) and {}",
    "reserved-keys": "logger.info('odd-5', extra={'message': 1, 'process': 2, 'name': 3, 'exc_info': 4}) or {}",
    "unencodable": "logger.info('odd-6', extra={'a': circle, 'b': object(), 'c': {1, 2}, 'd': float('nan')}) or {}",
    "wrong-format": "logger.info('odd-7 %d %s', 'x') or {}",
}


@pytest.mark.parametrize("name", ODD_LINES)
def test_an_odd_log_line_fails_nobody_and_is_kept(name: str, evaluates: str, environment: Environment, web: httpx.Client) -> None:
    expression = ODD_LINES[name]
    mark = "odd-" + expression.partition("odd-")[2][0]
    request_id = send(web, evaluates, expression)
    assert ended(web, f"/{evaluates}/{request_id}").json() | {"timestamp": ""} == {
        "id": request_id,
        "status": "completed",
        "result": {},
        "timestamp": "",
    }
    client = environment.client()
    wait_until(lambda: any(mark in json.dumps(record) for record in client.logs(evaluates)), f"{mark} is in the log")


# Replicas that die ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 4])
def test_a_workload_that_kills_its_replica_fails_after_three_deliveries_and_alone(
    threads: int, environment: Environment, project: ProjectMaker, web: httpx.Client, tmp_path: Path
) -> None:
    name, entries = f"bad-kills-{threads}", tmp_path / "entries"
    project(name, KILLS, handler_spec=f"threads_per_process: {threads}\nconfig:\n  entries: {entries}").deploy(environment)
    try:
        before = [submit(web, name, 0.02) for _ in range(6)]
        killers = {submit(web, name, "signal"): "SIGKILL", submit(web, name, "exit"): "exit status 0"}
        after = [submit(web, name, 0.02) for _ in range(12)]
        for request_id in (*before, *after):
            assert ended(web, f"/{name}/{request_id}").json()["status"] == "completed"
        for request_id, reason in killers.items():
            answer = ended(web, f"/{name}/{request_id}").json()
            assert (answer["status"], answer["error"]["type"]) == ("failed", "ReplicaDied")
            assert "3 times" in answer["error"]["message"]
            assert reason in answer["error"]["message"]
            details = environment.client().workload(name, request_id)
            entered = entries.read_text().split().count(request_id)
            # Beside other threads it may be charged for a death that came between its delivery and its first line.
            assert entered == 3 if threads == 1 else 1 <= entered <= 3
            assert details["deaths"] == 3
            assert details["attempts"] <= 3
            told = wait_until(lambda ids=request_id: (said := errors_of(environment, name, ids))[2:] and said, "the log tells of each death")
            assert len(told) == 3
            # Its neighbours' deaths are told as what they were; the last one it dies alone.
            assert all((reason in one or threads > 1) and "while it ran this request" in one for one in told), told
            assert reason in told[-1]
        assert ended(web, f"/{name}/{submit(web, name, 0)}").json()["status"] == "completed"
        assert environment.client().get_api(name)["exits"]
    finally:
        environment.client().delete(name)


def errors_of(environment: Environment, api: str, request_id: str) -> list[str]:
    records = environment.client().logs(api, 500)
    return [record["message"] for record in records if (record["levelname"], record.get("request_id")) == ("ERROR", request_id)]


def test_max_deliveries_of_the_spec_counts(environment: Environment, project: ProjectMaker, web: httpx.Client) -> None:
    project("bad-once", KILLS, "max_deliveries: 1").deploy(environment)
    try:
        request_id = submit(web, "bad-once", "signal")
        answer = ended(web, f"/bad-once/{request_id}").json()
        assert (answer["status"], answer["error"]["type"]) == ("failed", "ReplicaDied")
        assert environment.client().workload("bad-once", request_id)["attempts"] == 1
    finally:
        environment.client().delete("bad-once")


# Callers -------------------------------------------------------------------------------------------------------------

BODIES: dict[str, Callable[[], bytes]] = {
    "deep-array": lambda: b"[" * 100_000 + b"]" * 100_000,
    "deep-object": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "unclosed-deep": lambda: b"[" * 1_000_000,
    "300-kB-of-nonsense": lambda: b'{"a": ' + b"x" * 300_000,
    "300-kB-almost-json": lambda: b"[" + b"1," * 150_000 + b"]",
    "bad-utf-8-at-the-end": lambda: b'"' + b"a" * 300_000 + b'\xff"',
    "huge-integer": lambda: b"9" * 1_000_000,
    "nulls": lambda: b"\0" * 300_000,
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_json_body_is_refused_at_the_door(name: str, evaluates: str, environment: Environment, web: httpx.Client) -> None:
    before = waiting(environment, evaluates)
    answer = web.post(f"/{evaluates}", content=BODIES[name](), headers={"content-type": "application/json"})
    refused(answer, 400, "invalid_payload")
    assert len(answer.content) < 2000
    assert waiting(environment, evaluates) == before


@pytest.mark.parametrize("header", ["Content-Type", "x-request-id", "Origin", "Authorization", "Host", "X-Anything", "Accept"])
@pytest.mark.parametrize("value", [b"\xff\xfe", b"\xed\xa0\x80", "é".encode("latin-1"), b"http://[", b"http://[::1", b"http://a:b:c", b"x" * 10_000])
def test_an_odd_header_is_never_a_server_error(header: str, value: bytes, evaluates: str, environment: Environment) -> None:
    usual = {b"Host": b"localhost", b"Content-Type": b"a/b", b"Content-Length": b"2", b"Connection": b"close"}
    lines = {**usual, header.encode(): value}
    head = b"".join(name + b": " + content + b"\r\n" for name, content in lines.items())
    for method, path in ((b"POST", f"/{evaluates}"), (b"GET", f"/{evaluates}/x"), (b"GET", "/_cortex/v1/apis"), (b"OPTIONS", f"/{evaluates}")):
        answer = on_the_wire(environment.url, method + b" " + path.encode() + b" HTTP/1.1\r\n" + head + b"\r\n{}")
        assert answer.startswith(b"HTTP/1.1 "), "no answer at all"
        assert int(answer.split()[1]) < 500, answer


@pytest.mark.parametrize("path", ["%ff", "%00", "%ed%a0%80", "..", "%2e%2e%2f", "a%0d%0ab", "x" * 5000, "%f0%9f%98%80", "?wait=%ff", "?%00", "{a}"])
def test_an_odd_path_is_never_a_server_error(path: str, evaluates: str, environment: Environment, web: httpx.Client) -> None:
    token = ("Authorization", f"Bearer {environment.token}")
    for below in (f"/{evaluates}/", f"//{evaluates}//", "/", "/_cortex/v1/apis/", f"/_cortex/v1/apis/{evaluates}/workloads/"):
        status, _, body = raw(environment.url, "GET", below + path, [token])
        assert status < 500, body
    assert web.get("/readyz").status_code == 200


def test_a_charset_that_is_not_ascii_is_refused(evaluates: str, environment: Environment) -> None:
    lines = [("Content-Type", "text/plain; charset=utf-\xff")]
    status, _, body = raw(environment.url, "POST", f"/{evaluates}", lines, b"{}")
    assert (status, json.loads(body)["code"]) == (400, "invalid_payload")


def test_a_content_type_with_latin_letters_reaches_the_handler(evaluates: str, environment: Environment, web: httpx.Client) -> None:
    status, _, body = raw(environment.url, "POST", f"/{evaluates}", [("Content-Type", "text/plain; name=\xe9")], b"{'a': 1}")
    assert status == 200
    assert ended(web, f"/{evaluates}/{json.loads(body)['id']}").json()["result"] == {"a": 1}


# Projects that the client refuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ["x: .nan", "x: .inf", "x: 2024-01-01", "x: !!binary aGk=", "1: 2", "x: !!set {a}"])
def test_a_config_that_json_cannot_say_is_refused_in_words_or_works(
    config: str, environment: Environment, project: ProjectMaker, web: httpx.Client
) -> None:
    made = project("bad-config", GOOD, handler_spec=f"config:\n  {config}")
    control: Any = {"authorization": f"Bearer {environment.token}"}
    try:
        made.deploy(environment)
    except CortexError as error:
        if "config" not in error.message:
            raise
    try:
        assert web.get("/_cortex/v1/apis", headers=control).status_code == 200
        answer = web.get("/_cortex/v1/apis/bad-config", headers=control)
        assert answer.status_code in (200, 404), answer.text
    finally:
        web.delete("/_cortex/v1/apis/bad-config", headers=control)
        wait_until(lambda: web.get("/_cortex/v1/apis/bad-config", headers=control).status_code == 404, "it is gone")


def test_the_spec_text_used_here_is_a_spec() -> None:
    assert SPEC.format(name="a").startswith("- name: a")
