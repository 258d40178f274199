"""The first promise: every payload of the contract gives the same value, or the same refusal, in the notebook and through the published API."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ..conftest import Environment
from .conftest import Kernel, write_notebook

CASES = yaml.safe_load((Path(__file__).parents[1] / "contract" / "payload.yaml").read_text())["cases"]
HANDLER = """
class Handler:
    def handle_async(self, payload):
        return {"type": type(payload).__name__, "repr": repr(payload)[:20000], "size": len(repr(payload))}
"""

FAILING = """
def measured(payload):
    size = len(repr(payload))
    if size % 3 == 0:
        raise ValueError(f"{size} is a multiple of three")
    return size


class Handler:
    def handle_async(self, payload):
        return {"type": type(payload).__name__, "repr": repr(payload)[:20000], "size": measured(payload)}
"""
KEEPING = "- name: replays\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py}\n  retain: {payload: always}\n"


def body_of(case: dict[str, Any]) -> bytes:
    if "body_gen" in case:
        part = case["body_gen"]
        return base64.b64decode(part["open_b64"]) * part["count"] + base64.b64decode(part["close_b64"]) * part["count"]
    return base64.b64decode(case["body_b64"])


@pytest.fixture(scope="module")
def published(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A kernel, and the API that was published from its notebook."""
    import os

    directory = tmp_path_factory.mktemp("parity")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER_CORTEX_", "JPY_"))}
    environ |= {"JUPYTER_CORTEX_HOME": str(environment.home), "JPY_SESSION_NAME": str(write_notebook(directory / "parity.ipynb", HANDLER))}
    kernel = Kernel(directory, environ)
    kernel.run(HANDLER)
    kernel.run("%cortex deploy parity")
    with httpx.Client(base_url=environment.url, trust_env=False, timeout=60) as http:
        yield kernel, http, directory
    kernel.stop()


@pytest.fixture(scope="module")
def replayed(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same of a Handler that fails for some payloads, and whose payloads are all kept."""
    import os

    directory = tmp_path_factory.mktemp("replays")
    (directory / "cortex.yaml").write_text(KEEPING)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER_CORTEX_", "JPY_"))}
    kernel = Kernel(directory, {**environ, "JUPYTER_CORTEX_HOME": str(environment.home)})
    kernel.run(FAILING)
    kernel.run("%cortex deploy replays")
    with httpx.Client(base_url=environment.url, trust_env=False, timeout=60) as http:
        yield kernel, http, directory
    kernel.stop()


def in_the_notebook(kernel: Kernel, directory: Path, body: bytes, content_type: str) -> dict[str, Any]:
    (directory / "body").write_bytes(body)
    ran = kernel.run(f"_type = {content_type!r}\n%cortex payload --file body --content-type $_type -o json")
    row = json.loads(ran.stdout.strip().splitlines()[-1])
    return {"refusal": row["refusal"]} if row["refusal"] else {"status": row["status"], "result": row["result"]}


def over_http(http: httpx.Client, body: bytes, content_type: str) -> dict[str, Any]:
    answer = http.post("/parity", content=body, headers=[(b"content-type", content_type.encode("latin-1"))])
    if answer.status_code == 400:
        assert answer.json()["code"] == "invalid_payload"
        return {"refusal": answer.json()["detail"]}
    assert answer.status_code == 200, answer.text
    found = http.get(f"/parity/{answer.json()['id']}?wait=50").json()
    return {"status": found["status"], "result": found.get("result")}


SENT = [case for case in CASES if case["content_type"] is not None and not isinstance(case.get("headers"), list)]


@pytest.mark.parametrize("case", SENT, ids=[case["id"] for case in SENT])
def test_a_payload_is_the_same_in_the_notebook_and_in_production(published: Any, case: dict[str, Any]) -> None:
    kernel, http, directory = published
    body, content_type = body_of(case), case["content_type"]
    here, there = in_the_notebook(kernel, directory, body, content_type), over_http(http, body, content_type)
    assert here == there
    assert ("error" in case["expect"]) == ("refusal" in there)


@pytest.mark.parametrize("case", SENT, ids=[case["id"] for case in SENT])
def test_a_replay_answers_what_production_answered(replayed: Any, case: dict[str, Any]) -> None:
    """The same result, or the same failure: this Handler fails on every third payload, by its size."""
    kernel, http, _ = replayed
    answer = http.post("/replays", content=body_of(case), headers=[(b"content-type", case["content_type"].encode("latin-1"))])
    if answer.status_code == 400:
        assert "error" in case["expect"]
        return  # refused at the door: there is nothing to replay
    request_id = answer.json()["id"]
    there = http.get(f"/replays/{request_id}?wait=50").json()
    row = json.loads(kernel.run(f"%cortex replay {request_id} --name replays -o json").stdout.strip().splitlines()[-1])
    assert row["verdict"]["kind"] == {"completed": "same_result", "failed": "same_failure"}[there["status"]], row
    assert row["here"]["result"] == there.get("result")
    assert row["here"]["error"] == there.get("error")


def test_almost_every_case_of_the_contract_is_sent() -> None:
    assert len(SENT) >= len(CASES) - 4
