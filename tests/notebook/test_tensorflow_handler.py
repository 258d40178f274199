"""A tensorflow Handler in a notebook: tried, published and replayed with the same client, here of a TensorFlow Serving."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..conftest import Environment
from ..server.test_tensorflow import HANDLER
from ..tensorflow_serving import irises, serving
from .conftest import Shell

SPEC = """
- name: tf-notebook
  kind: AsyncAPI
  handler:
    type: tensorflow
    path: handler.py
    models: {{path: models/iris, serving: "{address}"}}
  retain: {{payload: always}}
"""
FLOWER = '{"flowers": [[5, 3, 1, 0]]}'


def test_a_notebook_s_handler_is_tried_published_and_replayed_with_one_client(
    shell: Shell, environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving({"iris": {"1": irises(1), "2": irises(2)}}) as server:
        (tmp_path / "cortex.yaml").write_text(SPEC.format(address=server.address))
        shell.run(HANDLER)
        shell.run(f"%%cortex payload --content-type application/json\n{FLOWER}")
        assert shell.session.last.outcome.result == b'{"class_ids":[8]}', shell.session.last
        shell.run("%cortex sample flower")
        client = environment.client()
        try:
            shell.run("%cortex deploy")
            request_id = client.submit("tf-notebook", json.loads(FLOWER))
            assert client.result("tf-notebook", request_id, wait=60).result == {"class_ids": [8]}
            server.models["iris"]["3"] = irises(3)
            for line in (f"%cortex replay {request_id}", f"%cortex replay {request_id} --in 1"):
                capsys.readouterr()
                shell.run(f"{line} -o json")
                assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["here"]["result"] == {"class_ids": [12]}, line
        finally:
            client.delete("tf-notebook")


def test_a_handler_without_the_client_is_refused_before_any_model_is_loaded(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cortex.yaml").write_text(SPEC.format(address="http://127.0.0.1:1"))
    shell.run("class Handler:\n    def __init__(self, config):\n        pass\n\n    def handle_async(self, payload):\n        return {}\n")
    result = shell.run("%%cortex payload --content-type text/plain\nx", check=False)
    assert '"tensorflow_client" is a required argument' in str(result.error_in_exec)
    shell.run(HANDLER)
    result = shell.run("%%cortex payload --content-type text/plain\nx", check=False)
    assert "cannot be used" in str(result.error_in_exec)
