"""`%cortex deploy --rehearse`, `promote`, `drop` and `rollback` in a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import CortexError
from jupyter_cortex.magics.completion import complete

from ..conftest import Environment
from .conftest import Shell

YAML = """
- name: cell-rehearsal
  kind: AsyncAPI
  handler: {type: python, path: handler.py}
  retain: {payload: always}
  rehearse: true
"""


def handler(value: str) -> str:
    return f"class Handler:\n    def handle_async(self, payload, request_id):\n        return {{'text': {value}}}"


def test_a_cell_rehearses_shows_what_changes_and_decides(shell: Shell, environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "cortex.yaml").write_text(YAML)
    shell.run(handler("payload['text']"))
    shell.run("%cortex deploy")
    with environment.client() as client:
        sent = client.submit("cell-rehearsal", {"text": "<b>quiet</b>"})
        client.result("cell-rehearsal", sent, wait=30)
        shell.run(handler("payload['text'].upper()"))
        shell.run("%cortex deploy --rehearse 5 --yes")
        assert "version 2 of cell-rehearsal ran 1 requests of production, beside version 1" in shell.text
        assert 'result.text: "<b>quiet</b>" → "<B>QUIET</B>"' in shell.text
        for text in (shell.text, shell.html):
            assert "%cortex promote cell-rehearsal 2" in text
        assert "changed results" in shell.html
        assert "<B>QUIET" not in shell.html, "payloads are a stranger's"
        assert client.get_api("cell-rehearsal")["live"] == 1
        shell.run("%cortex get cell-rehearsal --rehearsal 2")
        assert "changed results" in shell.html
        assert "%cortex promote cell-rehearsal 2" in shell.text
        for verb in ("promote", "drop"):
            assert complete(shell.session, f"%cortex {verb} cell-rehearsal ") == ["2"]
        shell.run("%cortex promote cell-rehearsal")
        assert client.get_api("cell-rehearsal")["live"] == 2
        shell.run("%cortex rollback cell-rehearsal")
        assert client.get_api("cell-rehearsal")["live"] == 3
        assert client.result("cell-rehearsal", client.submit("cell-rehearsal", {"text": "a"}), wait=30).result == {"text": "a"}
        shell.run("%cortex get cell-rehearsal")
        assert ", a rollback to 1" in shell.html
        with pytest.raises(CortexError, match="no version of cell-rehearsal is rehearsed"):
            shell.run("%cortex drop cell-rehearsal")
        client.delete("cell-rehearsal")


def test_versions_to_go_back_to_complete_with_tab(shell: Shell, environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "cortex.yaml").write_text(YAML.replace("cell-rehearsal", "cell-tab"))
    for number in (1, 2):
        shell.run(handler(str(number)))
        shell.run("%cortex deploy")
    found: Any = complete(shell.session, "%cortex rollback cell-tab ")
    assert found == ["1"]
    assert {"rollback", "promote", "drop"} <= set(complete(shell.session, "%cortex "))
    environment.client().delete("cell-tab")
