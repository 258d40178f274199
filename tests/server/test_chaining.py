"""A handler reaches any API at http://api-<name>:8888/, with the HTTP clients that people use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..conftest import Environment, ProjectMaker

TARGET = """
class Handler:
    def handle_async(self, payload, request_id):
        return {"doubled": 2 * payload["n"]}
"""
HEAD = """
import json, time
"""
CALLERS = {
    "requests": """
import requests
def call(url, body):
    return requests.post(url, json=body).json() if body is not None else requests.get(url).json()
""",
    "httpx": """
import httpx
def call(url, body):
    return httpx.post(url, json=body).json() if body is not None else httpx.get(url).json()
""",
    "httpx-async": """
import asyncio, httpx
async def acall(url, body):
    async with httpx.AsyncClient() as client:
        answer = await (client.post(url, json=body) if body is not None else client.get(url))
        return answer.json()
def call(url, body):
    return asyncio.run(acall(url, body))
""",
    "urllib": """
import urllib.request
def call(url, body):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)
""",
    "aiohttp": """
import asyncio, aiohttp
async def acall(url, body):
    async with aiohttp.ClientSession() as session:
        async with (session.post(url, json=body) if body is not None else session.get(url)) as answer:
            return await answer.json()
def call(url, body):
    return asyncio.run(acall(url, body))
""",
}
CHAINED = """

class Handler:
    def handle_async(self, payload, request_id):
        root = "http://api-chain-target:8888/"
        submitted = call(root, {"n": payload["n"]})["id"]
        while True:
            answer = call(root + submitted, None)
            if answer["status"] not in ("in_queue", "in_progress"):
                return answer
            time.sleep(0.01)
"""


@pytest.fixture
def target(environment: Environment, project: ProjectMaker) -> None:
    project("chain-target", TARGET).deploy(environment, take_over=True)


@pytest.mark.parametrize("library", list(CALLERS))
@pytest.mark.usefixtures("target")
def test_a_handler_calls_another_api_by_name(library: str, environment: Environment, project: ProjectMaker) -> None:
    name = f"chain-{library}"
    project(name, HEAD + CALLERS[library] + CHAINED).deploy(environment)
    client = environment.client()
    workload = client.result(name, client.submit(name, {"n": 21}), wait=60)
    assert (workload.status, workload.result["result"] if workload.result else workload.error) == ("completed", {"doubled": 42})
    client.delete(name)


def test_chaining_needs_no_token_where_callers_from_outside_do(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment(call_token="open-sesame")
    project("chain-target", TARGET).deploy(environment)
    project("chain-guarded", HEAD + CALLERS["urllib"] + CHAINED).deploy(environment)
    with environment.http() as stranger:
        assert stranger.post("/chain-guarded", json={"n": 21}).status_code == 401
    client = environment.client()
    workload = client.result("chain-guarded", client.submit("chain-guarded", {"n": 21}), wait=60)
    assert workload.result["result"] == {"doubled": 42}


def test_an_unknown_api_is_named_in_a_404(environment: Environment, project: ProjectMaker) -> None:
    handler = HEAD + "import requests\nclass Handler:\n    def handle_async(self):\n"
    handler += (
        "        answer = requests.post('http://api-nobody:8888/', json={})\n        return {'status': answer.status_code, 'said': answer.json()}\n"
    )
    project("chain-lost", handler).deploy(environment)
    client = environment.client()
    workload = client.result("chain-lost", client.submit("chain-lost", {}), wait=60)
    assert workload.result["status"] == 404
    assert workload.result["said"]["code"] == "api_not_found"
    assert "nobody" in workload.result["said"]["detail"]
