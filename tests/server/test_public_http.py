"""The public door as callers see it: payloads in, ids, statuses and results out."""

from __future__ import annotations

import ast
import asyncio
import base64
import http.client
import json
import random
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import Environment, Project, ProjectMaker, wait_until

CASES = yaml.safe_load((Path(__file__).parents[1] / "contract" / "payload.yaml").read_text())["cases"]
SPEC = "- name: {name}\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: handler.py\n"

WHAT_ARRIVES = """
import base64

class Handler:
    def handle_async(self, payload):
        told = {"type": type(payload).__name__}
        if isinstance(payload, bytes):
            told["b64"] = base64.b64encode(payload).decode()
        else:
            told["repr"] = ascii(payload)
        return told
"""
#: Does what the payload says: note the id in a file, wait for a gate, fail, answer.
CALLS = """
import pathlib
import time

class Handler:
    def handle_async(self, payload, request_id):
        if "ran" in payload:
            with open(payload["ran"], "a") as file:
                file.write(request_id + "\\n")
        while "gate" in payload and not pathlib.Path(payload["gate"]).exists():
            time.sleep(0.005)
        if "raise" in payload:
            raise ValueError(payload["raise"])
        return payload.get("return", {})
"""
ENDED = ("completed", "failed", "cancelled")
#: Below the API's prefix: records, payloads, pieces of payloads, results, failures.
OF_WORKLOADS = ("w", "b", "u", "r", "e")


def publish(environment: Environment, directory: Path, name: str, handler: str) -> None:
    (directory / "cortex.yaml").write_text(SPEC.format(name=name))
    Project(directory, name).write(handler).deploy(environment)


@pytest.fixture(scope="module")
def vectors(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    publish(environment, tmp_path_factory.mktemp("vectors"), "http-vectors", WHAT_ARRIVES)
    yield "http-vectors"
    environment.client().delete("http-vectors")


@pytest.fixture(scope="module")
def calls(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    publish(environment, tmp_path_factory.mktemp("calls"), "http-calls", CALLS)
    yield "http-calls"
    environment.client().delete("http-calls")


@pytest.fixture
def web(environment: Environment) -> Iterator[httpx.Client]:
    with environment.http() as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that lets a waiting handler go on; opened in any case."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def raw(url: str, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request with exactly these header lines (and Host and Content-Length)."""
    at = httpx.URL(url)
    connection = http.client.HTTPConnection(at.host, at.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def on_the_wire(url: str, data: bytes) -> bytes:
    """Whatever comes back for these bytes (which ask for ``Connection: close``), until the gateway closes."""
    at = httpx.URL(url)
    with socket.create_connection((at.host, at.port), timeout=30) as sock:
        sock.sendall(data)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def kept(environment: Environment, api: str) -> dict[str, int]:
    """Every key that workloads of an API have now, with its remaining seconds (-1: for ever)."""
    with environment.redis() as store:
        found = [key for part in OF_WORKLOADS for key in store.scan_iter(f"cx:{{{api}}}:{part}:*", count=1000)]
        return {key.decode(): store.ttl(key) for key in found}


def waiting(environment: Environment, api: str) -> tuple[Any, ...]:
    """What accepting a workload changes, as counts. Replicas and deployments move in the same stream and do not count."""
    with environment.redis() as store:
        prefix = f"cx:{{{api}}}"
        ids = [entry[b"m"].split(b"\n")[::2] for _, entry in store.xrange(f"{prefix}:events")]
        moves = sum(one != b"deployment" for some in ids for one in some)
        return store.llen(f"{prefix}:queue"), store.zcard(f"{prefix}:open"), moves, len(kept(environment, api))


def ended(web: httpx.Client, path: str) -> httpx.Response:
    """The answer of GET once the workload has ended."""

    def look() -> httpx.Response | None:
        answer = web.get(path, params={"wait": 20})
        assert answer.status_code == 200, answer.text
        return answer if answer.json()["status"] in ENDED else None

    found = wait_until(look, f"{path} has ended")
    assert isinstance(found, httpx.Response)
    return found


def submit(web: httpx.Client, api: str, payload: Any, **headers: str) -> str:
    answer = web.post(f"/{api}", json=payload, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def running(web: httpx.Client, api: str, payload: Any) -> str:
    """Submit, and be back when it runs."""
    request_id = submit(web, api, payload)
    wait_until(lambda: web.get(f"/{api}/{request_id}").json()["status"] == "in_progress", "it runs")
    return request_id


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem document with this status and code."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    document: dict[str, Any] = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"]
    assert document["title"]
    assert document["detail"]
    return document


# What arrives --------------------------------------------------------------------------------------------------------


def body_of(case: dict[str, Any]) -> bytes:
    if "body_gen" in case:
        gen = case["body_gen"]
        return base64.b64decode(gen["open_b64"]) * gen["count"] + base64.b64decode(gen["close_b64"]) * gen["count"]
    return base64.b64decode(case["body_b64"])


def header_lines(case: dict[str, Any]) -> list[tuple[str, str]]:
    headers = case.get("headers") or {}
    if isinstance(headers, list):
        return [(name, value) for name, value in headers]
    own = [] if case["content_type"] is None else [("Content-Type", case["content_type"])]
    return [*own, *headers.items()]


def value_of(expect: dict[str, Any], case: dict[str, Any]) -> dict[str, str]:
    """What the handler must have told of a payload."""
    told = {"type": expect["type"]}
    if "depth" in expect:
        told["repr"] = body_of(case).decode()
    elif "value_b64" in expect:
        told["b64"] = expect["value_b64"]
    else:
        told["repr"] = ascii(ast.literal_eval(expect["value_repr"]) if "value_repr" in expect else expect["value"])
    return told


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_payload_reaches_the_handler_as_the_contract_says(case: dict[str, Any], vectors: str, environment: Environment, web: httpx.Client) -> None:
    expect = case["expect"]
    before = waiting(environment, vectors)
    status, headers, body = raw(environment.url, "POST", f"/{vectors}", header_lines(case), body_of(case))
    answer = json.loads(body)
    if "error" in expect:
        assert (status, headers["content-type"]) == (expect["http_status"], "application/problem+json")
        assert (answer["code"], answer["kind"]) == ("invalid_payload", expect["error"])
        assert waiting(environment, vectors) == before, "a refused body left something behind"
        return
    assert status == 200, answer
    found = ended(web, f"/{vectors}/{answer['id']}").json()
    assert found["status"] == "completed", found
    assert found["result"] == value_of(expect, case)


# Shapes --------------------------------------------------------------------------------------------------------------


def test_a_post_answers_with_an_id_and_nothing_else(calls: str, web: httpx.Client) -> None:
    answer = web.post(f"/{calls}", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert list(answer.json()) == ["id"]
    assert uuid.UUID(answer.json()["id"]).version == 4
    ended(web, f"/{calls}/{answer.json()['id']}")


def test_a_get_right_after_the_post_finds_the_workload(calls: str, web: httpx.Client) -> None:
    for _ in range(20):
        assert web.get(f"/{calls}/{submit(web, calls, {})}").status_code == 200


def test_a_workload_that_has_not_ended_shows_id_and_status_only(calls: str, web: httpx.Client, gate: Path) -> None:
    first = running(web, calls, {"gate": str(gate)})
    second = submit(web, calls, {})
    assert web.get(f"/{calls}/{first}").json() == {"id": first, "status": "in_progress"}
    assert web.get(f"/{calls}/{second}").json() == {"id": second, "status": "in_queue"}
    gate.touch()
    ended(web, f"/{calls}/{second}")


def test_a_completed_workload_shows_its_result_with_order_and_numbers_exact(calls: str, web: httpx.Client) -> None:
    result = '{"z": 1, "a": {"y": 1.0, "b": [9007199254740993, 123456789012345678901234567890, -0.0, 1e-07]}, "0": "<\\u00e9&>"}'
    answer = ended(web, f"/{calls}/{submit(web, calls, {'return': json.loads(result)})}")
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["id", "status", "result", "timestamp"]

    def exact(text: str) -> Any:
        return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=list)

    assert dict(exact(answer.text))["result"] == exact(result)


def test_the_timestamp_is_utc_in_whole_seconds_as_documented(calls: str, web: httpx.Client) -> None:
    from datetime import UTC, datetime, timedelta

    before = datetime.now(UTC)
    text = ended(web, f"/{calls}/{submit(web, calls, {})}").json()["timestamp"]
    assert len(text) == len("2020-01-01T00:00:00+00:00")
    assert text.endswith("+00:00")
    assert before - timedelta(seconds=2) < datetime.fromisoformat(text) <= datetime.now(UTC)


def test_an_empty_result_is_there(calls: str, web: httpx.Client) -> None:
    assert ended(web, f"/{calls}/{submit(web, calls, {'return': {}})}").json()["result"] == {}


def test_a_failed_workload_says_why(calls: str, web: httpx.Client) -> None:
    request_id = submit(web, calls, {"raise": "no such flower"})
    answer = ended(web, f"/{calls}/{request_id}").json()
    assert answer == {"id": request_id, "status": "failed", "error": {"type": "ValueError", "message": "no such flower"}}


# Paths and methods ---------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_a_404_with_a_code(calls: str, web: httpx.Client) -> None:
    refused(web.get(f"/{calls}/no-such-id"), 404, "workload_not_found")
    refused(web.get(f"/{calls}/no-such-id?wait=1"), 404, "workload_not_found")
    refused(web.delete(f"/{calls}/no-such-id"), 404, "workload_not_found")
    refused(web.post("/no-such-api", json={}), 404, "route_not_found")
    refused(web.get("/"), 404, "route_not_found")
    refused(web.post(f"/{calls}x", json={}), 404, "route_not_found")


def test_a_trailing_slash_is_the_endpoint_and_what_lies_deeper_is_nothing(calls: str, web: httpx.Client) -> None:
    answer = web.post(f"/{calls}/", json={})
    assert answer.status_code == 200
    request_id = answer.json()["id"]
    ended(web, f"/{calls}/{request_id}")
    refused(web.get(f"/{calls}/{request_id}/"), 404, "route_not_found")
    refused(web.get(f"/{calls}/{request_id}/more"), 404, "route_not_found")
    refused(web.post(f"/{calls}/{request_id}/more", json={}), 404, "route_not_found")


@pytest.mark.parametrize(
    ("method", "below", "allowed"),
    [
        ("GET", "", {"POST"}),
        ("GET", "/", {"POST"}),
        ("HEAD", "", {"POST"}),
        ("PUT", "", {"POST"}),
        ("DELETE", "", {"POST"}),
        ("PATCH", "/x", {"GET", "DELETE"}),
        ("POST", "/x", {"GET", "DELETE"}),
        ("HEAD", "/x", {"GET", "DELETE"}),
    ],
)
def test_another_method_is_a_405_that_names_the_allowed_ones(method: str, below: str, allowed: set[str], calls: str, web: httpx.Client) -> None:
    answer = web.request(method, f"/{calls}{below}", content=b"{}", headers={"content-type": "application/json"})
    assert answer.status_code == 405
    if method != "HEAD":
        refused(answer, 405, "method_not_allowed")
    assert {part.strip() for part in answer.headers.get("allow", "").split(",")} == allowed


@pytest.mark.parametrize("path", ["//{}", "/{}//", "/{}//some-id", "///{}///some-id"])
def test_double_slashes_redirect_to_the_clean_path(path: str, calls: str, environment: Environment) -> None:
    status, headers, _ = raw(environment.url, "GET", path.format(calls), [])
    assert (status, headers["location"]) == (301, re.sub("/+", "/", path.format(calls)))


def test_a_redirect_keeps_the_query(calls: str, environment: Environment) -> None:
    status, headers, _ = raw(environment.url, "GET", f"//{calls}/some-id?wait=5", [])
    assert (status, headers["location"]) == (301, f"/{calls}/some-id?wait=5")


def test_a_redirect_cannot_be_made_to_carry_header_lines(calls: str, environment: Environment) -> None:
    status, headers, _ = raw(environment.url, "GET", f"//{calls}/x%0d%0aSet-Cookie:%20stolen=1%0d%0aY:%20z", [])
    assert headers["set-cookie"] is None
    assert status in (301, 400, 404)


def test_the_longest_endpoint_wins(environment: Environment, project: ProjectMaker, web: httpx.Client) -> None:
    for name, endpoint in (("http-short", "/http-tree"), ("http-long", "/http-tree/branch")):
        handler = f"class Handler:\n    def handle_async(self):\n        return {{'api': '{name}'}}\n"
        project(name, handler, f"networking:\n  endpoint: {endpoint}").deploy(environment)
    try:
        for path, name in (("/http-tree", "http-short"), ("/http-tree/branch", "http-long")):
            request_id = web.post(path, json={}).json()["id"]
            assert ended(web, f"{path}/{request_id}").json()["result"] == {"api": name}
        refused(web.post("/http-short", json={}), 404, "route_not_found")
        refused(web.get("/http-tree/branch"), 405, "method_not_allowed")
        refused(web.get("/http-tree/leaf"), 404, "workload_not_found")
    finally:
        for name in ("http-short", "http-long"):
            environment.client().delete(name)


# Waiting and cancelling ----------------------------------------------------------------------------------------------


def test_a_long_poll_returns_when_the_workload_ends(calls: str, environment: Environment, web: httpx.Client, gate: Path) -> None:
    request_id = running(web, calls, {"gate": str(gate)})
    answers: list[httpx.Response] = []

    def poll() -> None:
        with environment.http() as other:
            answers.append(other.get(f"/{calls}/{request_id}", params={"wait": 29}))

    poller = threading.Thread(target=poll)
    poller.start()
    with environment.redis() as store:
        wait_until(lambda: store.pubsub_numsub(f"cx:{{{calls}}}:d:{request_id}")[0][1] == 1, "somebody waits")
    assert not answers
    gate.touch()
    poller.join(60)
    assert answers[0].json()["status"] == "completed"


def test_a_long_poll_that_is_over_tells_how_it_stands(calls: str, web: httpx.Client, gate: Path) -> None:
    request_id = running(web, calls, {"gate": str(gate)})
    assert web.get(f"/{calls}/{request_id}?wait=0.05").json() == {"id": request_id, "status": "in_progress"}
    gate.touch()
    ended(web, f"/{calls}/{request_id}")


@pytest.mark.parametrize("value", ["", "x", "-1", "nan", "inf", "-inf", "1e999", "5s", "1,5", "None"])
def test_a_wait_that_is_no_number_of_seconds_is_refused(value: str, calls: str, web: httpx.Client) -> None:
    request_id = submit(web, calls, {})
    refused(web.get(f"/{calls}/{request_id}", params={"wait": value}), 400, "bad_request")


def test_a_cancelled_workload_that_waited_never_runs(calls: str, environment: Environment, web: httpx.Client, gate: Path) -> None:
    ran = gate.with_name("ran")
    first = running(web, calls, {"gate": str(gate), "ran": str(ran)})
    second, third = (submit(web, calls, {"ran": str(ran)}) for _ in range(2))
    answer = web.delete(f"/{calls}/{second}")
    assert (answer.status_code, answer.json()) == (200, {"id": second, "status": "cancelled"})
    assert web.get(f"/{calls}/{second}").json() == {"id": second, "status": "cancelled"}
    gate.touch()
    ended(web, f"/{calls}/{third}")
    assert ran.read_text().split() == [first, third]
    assert web.delete(f"/{calls}/{second}").json() == {"id": second, "status": "cancelled"}
    assert all(seconds > 0 for key, seconds in kept(environment, calls).items() if second in key)


def test_the_result_of_a_cancelled_workload_that_ran_is_dropped(calls: str, environment: Environment, web: httpx.Client, gate: Path) -> None:
    request_id = running(web, calls, {"gate": str(gate), "return": {"too": "late"}})
    assert web.delete(f"/{calls}/{request_id}").json() == {"id": request_id, "status": "cancelled"}
    gate.touch()
    ended(web, f"/{calls}/{submit(web, calls, {})}")
    assert web.get(f"/{calls}/{request_id}").json() == {"id": request_id, "status": "cancelled"}
    assert f"cx:{{{calls}}}:r:{request_id}" not in kept(environment, calls)


def test_cancelling_what_has_ended_changes_nothing(calls: str, web: httpx.Client) -> None:
    for payload, status in (({}, "completed"), ({"raise": "x"}, "failed")):
        request_id = submit(web, calls, payload)
        before = ended(web, f"/{calls}/{request_id}").text
        assert web.delete(f"/{calls}/{request_id}").json() == {"id": request_id, "status": status}
        assert web.get(f"/{calls}/{request_id}").text == before


def test_a_long_poll_sees_a_cancel(calls: str, environment: Environment, web: httpx.Client, gate: Path) -> None:
    request_id = running(web, calls, {"gate": str(gate)})
    answers: list[str] = []

    def poll() -> None:
        with environment.http() as other:
            answers.append(other.get(f"/{calls}/{request_id}", params={"wait": 29}).json()["status"])

    poller = threading.Thread(target=poll)
    poller.start()
    with environment.redis() as store:
        wait_until(lambda: store.pubsub_numsub(f"cx:{{{calls}}}:d:{request_id}")[0][1] == 1, "somebody waits")
    web.delete(f"/{calls}/{request_id}")
    poller.join(60)
    assert answers == ["cancelled"]
    gate.touch()


# Ids -----------------------------------------------------------------------------------------------------------------


def test_an_id_of_the_callers_own_is_accepted_once(calls: str, environment: Environment, web: httpx.Client, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    request_id = f"own.id_{uuid.uuid4()}"
    for _ in range(3):
        assert submit(web, calls, {"ran": str(ran)}, **{"x-request-id": request_id}) == request_id
    ended(web, f"/{calls}/{request_id}")
    assert submit(web, calls, {"ran": str(ran)}, **{"x-request-id": request_id}) == request_id
    ended(web, f"/{calls}/{submit(web, calls, {})}")
    assert ran.read_text().split() == [request_id]


def test_more_callers_at_once_than_a_connection_pool_holds_are_all_answered(calls: str, environment: Environment) -> None:
    async def ask() -> list[int]:
        # Idle ones are not used again: on a slow machine they come near the moment at which the gateway closes them.
        limits = httpx.Limits(max_connections=300, keepalive_expiry=5)
        async with httpx.AsyncClient(base_url=environment.url, trust_env=False, timeout=60, limits=limits) as web:
            posted = await asyncio.gather(*(web.post(f"/{calls}", json={}) for _ in range(300)))
            looked = await asyncio.gather(*(web.get(f"/{calls}/{answer.json()['id']}?wait=20") for answer in posted))
        assert {answer.json()["status"] for answer in looked} == {"completed"}
        return [answer.status_code for answer in (*posted, *looked)]

    assert asyncio.run(ask()) == [200] * 600


def test_one_id_sent_at_the_same_time_by_many_runs_once(calls: str, environment: Environment, web: httpx.Client, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    request_id = str(uuid.uuid4())
    seen: list[str] = []

    def send() -> None:
        with environment.http() as other:
            seen.append(submit(other, calls, {"ran": str(ran)}, **{"x-request-id": request_id}))

    senders = [threading.Thread(target=send) for _ in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    ended(web, f"/{calls}/{request_id}")
    ended(web, f"/{calls}/{submit(web, calls, {})}")
    assert seen == [request_id] * 8
    assert ran.read_text().split() == [request_id]


def test_an_id_that_belongs_to_another_request_is_a_conflict(calls: str, environment: Environment, web: httpx.Client) -> None:
    request_id = submit(web, calls, {"return": {"n": 1}})
    before = ended(web, f"/{calls}/{request_id}").text
    counted = waiting(environment, calls)
    headers = {"x-request-id": request_id}
    refused(web.post(f"/{calls}", json={"return": {"n": 2}}, headers=headers), 409, "request_id_conflict")
    same_body = json.dumps({"return": {"n": 1}}, separators=(",", ":")).encode()
    other_type = {**headers, "content-type": "application/json; charset=utf-8"}
    refused(web.post(f"/{calls}", content=same_body, headers=other_type), 409, "request_id_conflict")
    assert web.get(f"/{calls}/{request_id}").text == before
    assert waiting(environment, calls) == counted


@pytest.mark.parametrize("request_id", ["a b", "a/b", "é", "", " ", "x" * 129, "a,b", "{a}", "healthz", "a\tb", "%41"])
def test_an_id_with_other_characters_is_refused(request_id: str, calls: str, environment: Environment) -> None:
    before = waiting(environment, calls)
    lines = [("Content-Type", "application/json"), ("x-request-id", request_id)]
    status, headers, body = raw(environment.url, "POST", f"/{calls}", lines, b"{}")
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert json.loads(body)["code"] == "invalid_request_id"
    assert waiting(environment, calls) == before


def test_an_id_of_128_characters_is_accepted(calls: str, web: httpx.Client) -> None:
    request_id = uuid.uuid4().hex * 4
    assert submit(web, calls, {}, **{"x-request-id": request_id}) == request_id
    assert ended(web, f"/{calls}/{request_id}").json()["status"] == "completed"


# Bodies --------------------------------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_and_leaves_nothing(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment(max_body_bytes="1000")
    project("small").deploy(environment)
    before = waiting(environment, "small")
    with environment.http() as web:
        kind = {"content-type": "application/octet-stream"}
        document = refused(web.post("/small", content=b"x" * 1001, headers=kind), 413, "body_too_large")
        assert "1000" in document["detail"]
        chunked = (b"x" * 100 for _ in range(11))
        refused(web.post("/small", content=chunked, headers=kind), 413, "body_too_large")
        head = b"POST /small HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: a/b\r\nContent-Length: 99999999999\r\n\r\n"
        huge = on_the_wire(environment.url, head)
        assert huge.startswith(b"HTTP/1.1 413 ")
        assert waiting(environment, "small") == before
        fits = (b"x" * 100 for _ in range(10))
        for body in (b"x" * 1000, fits):
            assert web.post("/small", content=body, headers=kind).status_code == 200
        assert web.get("/healthz").text == "ok"


@pytest.mark.parametrize(
    "begun",
    [b"Content-Length: 1000\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"],
    ids=["content-length", "chunked"],
)
def test_a_caller_that_hangs_up_in_mid_body_leaves_nothing(begun: bytes, calls: str, environment: Environment, web: httpx.Client) -> None:
    before = waiting(environment, calls)
    at = httpx.URL(environment.url)
    with socket.create_connection((at.host, at.port), timeout=30) as sock:
        sock.sendall(f"POST /{calls} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode() + begun)
    # The same connection handling has served these after the hang-up was seen or before; nothing of it may show in either case.
    for _ in range(3):
        assert web.get("/readyz").status_code == 200
    assert waiting(environment, calls) == before


def test_a_caller_that_hangs_up_behind_a_whole_body_is_accepted_all_the_same(calls: str, environment: Environment, web: httpx.Client) -> None:
    """Nobody can tell what was accepted from what was not but by asking: the same id, or the same request again, is safe."""
    at = httpx.URL(environment.url)
    ids = [f"hung-up-{number}" for number in range(50)]
    for request_id in ids:
        head = (
            f"POST /{calls} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nx-request-id: {request_id}\r\nContent-Length: 2\r\n\r\n"
        )
        with socket.create_connection((at.host, at.port), timeout=30) as sock:
            sock.sendall(head.encode() + b"{}")
    for request_id in ids:
        wait_until(lambda request_id=request_id: web.get(f"/{calls}/{request_id}").status_code == 200, "it was accepted")
        assert ended(web, f"/{calls}/{request_id}").json()["status"] == "completed"


def test_a_body_in_chunks_arrives_whole(vectors: str, web: httpx.Client) -> None:
    pieces = [b"ab" * 1000, b"", b"c" * 70000]
    answer = web.post(f"/{vectors}", content=iter(pieces), headers={"content-type": "application/octet-stream"})
    told = ended(web, f"/{vectors}/{answer.json()['id']}").json()["result"]
    assert base64.b64decode(told["b64"]) == b"".join(pieces)


def test_a_body_of_megabytes_arrives_whole(vectors: str, web: httpx.Client) -> None:
    body = random.Random(1).randbytes(2_000_000)
    answer = web.post(f"/{vectors}", content=body, headers={"content-type": "image/png"})
    told = ended(web, f"/{vectors}/{answer.json()['id']}").json()["result"]
    assert base64.b64decode(told["b64"]) == body


def test_the_same_large_body_sent_twice_at_once_is_one_workload(vectors: str, web: httpx.Client, environment: Environment) -> None:
    body = random.Random(2).randbytes(3_000_000)
    headers = {"content-type": "image/png", "x-request-id": "twice-at-once"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: web.post(f"/{vectors}", content=body, headers=headers), range(4)))
    assert [answer.json() for answer in answers] == [{"id": "twice-at-once"}] * 4
    assert base64.b64decode(ended(web, f"/{vectors}/twice-at-once").json()["result"]["b64"]) == body
    assert not [key for key in kept(environment, vectors) if key.startswith(f"cx:{{{vectors}}}:u:")]


# What stays ----------------------------------------------------------------------------------------------------------


def test_whatever_ended_leaves_only_keys_with_an_expiry(calls: str, environment: Environment, web: httpx.Client, gate: Path) -> None:
    done = submit(web, calls, {"return": {"a": 1}})
    broken = submit(web, calls, {"raise": "x"})
    for request_id in (done, broken):
        ended(web, f"/{calls}/{request_id}")
    ran = running(web, calls, {"gate": str(gate)})
    queued = submit(web, calls, {})
    for request_id in (ran, queued):
        assert web.delete(f"/{calls}/{request_id}").json()["status"] == "cancelled"
    gate.touch()
    ended(web, f"/{calls}/{submit(web, calls, {})}")
    wait_until(lambda: waiting(environment, calls)[:2] == (0, 0), "nothing is open")
    left = kept(environment, calls)
    for_ever = [key for key, seconds in left.items() if seconds < 0]
    assert not for_ever
    week = 7 * 86400
    assert all(0 < seconds <= week for seconds in left.values())
    prefix = f"cx:{{{calls}}}"
    assert {f"{prefix}:w:{done}", f"{prefix}:r:{done}"} <= set(left)
    assert f"{prefix}:b:{done}" not in left, "the payload of a completed workload is deleted"
    assert {f"{prefix}:w:{broken}", f"{prefix}:b:{broken}", f"{prefix}:e:{broken}"} <= set(left)


@pytest.mark.parametrize(("rule", "after_success", "after_failure"), [("never", False, False), ("always", True, True)])
def test_payloads_are_kept_as_the_spec_says(
    rule: str, after_success: bool, after_failure: bool, environment: Environment, project: ProjectMaker, web: httpx.Client
) -> None:
    name = f"http-keep-{rule}"
    project(name, CALLS, f"retain:\n  payload: {rule}\n  days: 2").deploy(environment)
    try:
        for payload, stays in (({}, after_success), ({"raise": "x"}, after_failure)):
            request_id = submit(web, name, payload)
            ended(web, f"/{name}/{request_id}")
            left = kept(environment, name)
            assert (f"cx:{{{name}}}:b:{request_id}" in left) is stays
            assert all(0 < seconds <= 2 * 86400 for seconds in left.values())
    finally:
        environment.client().delete(name)
