"""Widgets driven as a front end drives them: through their comms; and what exports keep of them."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.widgets import progress

from ..conftest import Environment, ProjectMaker
from .conftest import Kernel, KernelMaker

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
HANDLER = """
import time
from cortex_internal.lib.log import logger

class Handler:
    def handle_async(self, payload):
        logger.info("first line", extra={"n": 1})
        time.sleep(payload.get("sleep", 0) if isinstance(payload, dict) else 0)
        logger.info("second line")
        if payload == "boom":
            raise ValueError("it broke")
        return {"type": type(payload).__name__, "size": len(payload)}
"""


class FrontEnd:
    """Keeps the state of every widget, as a front end does, and sends changes and clicks."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.states: dict[str, dict[str, Any]] = {}

    def run(self, code: str) -> list[dict[str, Any]]:
        return self._until_idle(self.kernel.client.execute(code))

    def send(self, model: str, data: dict[str, Any]) -> None:
        message = self.kernel.client.session.msg("comm_msg", {"comm_id": model, "data": data})
        self.kernel.client.shell_channel.send(message)
        self._until_idle(message["header"]["msg_id"])

    def change(self, model: str, **state: Any) -> None:
        self.send(model, {"method": "update", "state": state, "buffer_paths": []})

    def click(self, model: str) -> None:
        self.send(model, {"method": "custom", "content": {"event": "click"}})

    def find(self, kind: str, **state: Any) -> str:
        found = [model for model, held in self.states.items() if held.get("_model_name") == kind and all(held.get(k) == v for k, v in state.items())]
        assert len(found) == 1, (kind, state, found)
        return found[0]

    def read_until(self, holds: Callable[[], bool]) -> None:
        """What the kernel sends, until it makes something hold here."""
        self._read(None, holds)

    def _until_idle(self, parent: str) -> list[dict[str, Any]]:
        return self._read(parent, lambda: False)

    def _read(self, parent: str | None, holds: Callable[[], bool]) -> list[dict[str, Any]]:
        displays: list[dict[str, Any]] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if holds():
                return displays
            try:
                message = self.kernel.client.get_iopub_msg(timeout=30)
            except queue.Empty:
                pytest.fail("the kernel said nothing")
            kind, content = message["msg_type"], message["content"]
            if kind == "comm_open":
                self.states[content["comm_id"]] = dict(content["data"]["state"])
            elif kind == "comm_msg" and content["data"].get("method") == "update":
                state = self.states.setdefault(content["comm_id"], {})
                for key, value in content["data"]["state"].items():
                    state.setdefault(f"{key}_seen", []).append(value)
                    state[key] = value
            elif kind == "display_data":
                displays.append(content["data"])
            elif kind == "error":
                pytest.fail("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle" and message["parent_header"].get("msg_id") == parent:
                return displays
        pytest.fail("the kernel is busy for too long")


@pytest.fixture
def front(kernel: KernelMaker) -> FrontEnd:
    made = FrontEnd(kernel())
    made.run(HANDLER)
    return made


def open_workbench(front: FrontEnd, line: str = "%cortex try") -> dict[str, str]:
    front.run(line)
    pages = [model for model, state in front.states.items() if state.get("_model_name") == "HTMLModel"]
    return {
        "run": front.find("ButtonModel", description="Run"),
        "keep": front.find("ButtonModel", description="Keep as sample"),
        "body": front.find("TextareaModel", description="body"),
        "headers": front.find("TextareaModel", description="headers"),
        "type": front.find("ComboboxModel"),
        "upload": front.find("FileUploadModel"),
        "name": front.find("TextModel"),
        "expect": front.find("CheckboxModel"),
        **{f"page{at}": model for at, model in enumerate(pages)},
    }


def shown(front: FrontEnd) -> str:
    """What the pages of the workbench say now."""
    return "\n".join(state.get("value", "") for state in front.states.values() if state.get("_model_name") == "HTMLModel")


def test_the_workbench_runs_what_stands_in_its_form(front: FrontEnd) -> None:
    bench = open_workbench(front)
    front.change(bench["type"], value="text/plain")
    front.change(bench["body"], value="some text")
    front.click(bench["run"])
    assert "completed" in shown(front)
    assert "&#x27;some text&#x27;" in shown(front)
    assert "first line" in shown(front)
    front.change(bench["body"], value="boom")
    front.click(bench["run"])
    assert "ValueError" in shown(front)
    assert "In [1], line 11, in handle_async" in shown(front), "the traceback names the cell and its line"
    assert front.states[bench["run"]]["disabled"] is False


def test_what_the_gateway_would_refuse_is_refused_in_the_form(front: FrontEnd) -> None:
    bench = open_workbench(front)
    front.change(bench["body"], value="{broken")
    front.click(bench["run"])
    assert "refused with 400" in shown(front)
    assert front.states[bench["keep"]]["disabled"] is True


def test_log_records_are_drawn_while_the_handler_runs(front: FrontEnd) -> None:
    bench = open_workbench(front)
    front.change(bench["body"], value='{"sleep": 0.4}')
    front.click(bench["run"])
    drawn = [value for state in front.states.values() if state.get("_model_name") == "HTMLModel" for value in state.get("value_seen", [])]
    assert any("first line" in page and "completed" not in page for page in drawn)


def test_a_file_can_be_uploaded_and_kept_as_a_sample(front: FrontEnd, tmp_path: Path) -> None:
    bench = open_workbench(front)
    front.kernel.run(
        "get_ipython().cortex_session.workbench._uploaded({'new': ({'name': 'b.bin', 'type': '', 'content': memoryview(b'\\x00\\xff\\x01')},)})"
    )
    front.click(bench["run"])
    assert "3 bytes" in shown(front)
    front.change(bench["name"], value="three-bytes")
    front.click(bench["keep"])
    assert "kept as samples/three-bytes.yaml" in shown(front)
    assert (tmp_path / "samples" / "three-bytes.body").read_bytes() == b"\x00\xff\x01"
    front.change(bench["name"], value="../bad")
    front.click(bench["keep"])
    assert "cannot name a sample" in shown(front)


def test_the_workbench_keeps_what_it_shows_and_not_what_a_cell_has_run_since(front: FrontEnd, tmp_path: Path) -> None:
    bench = open_workbench(front, "%cortex try shown -H x-request-id:mine")
    assert front.states[bench["headers"]]["value"] == "x-request-id: mine"
    front.run("%%cortex payload -t text/plain\nanother")
    front.change(bench["name"], value="mine")
    front.click(bench["keep"])
    assert "body: shown" in (tmp_path / "samples" / "mine.yaml").read_text()
    front.run("%cortex sample last")
    assert "body: another" in (tmp_path / "samples" / "last.yaml").read_text()


def test_a_sample_is_loaded_into_the_form_and_has_run_already(front: FrontEnd, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "greeting.yaml").write_text("content_type: text/plain\nbody: hello\n")
    displays = front.run("%cortex try")
    assert any(state.get("_model_name") == "TextareaModel" and state.get("value") == "hello" for state in front.states.values())
    assert "completed" in shown(front)
    fallback = displays[-1]
    assert WIDGET_VIEW in fallback
    for kept in (fallback["text/plain"], fallback["text/html"]):
        assert "completed" in kept


def test_a_deploy_shows_steps_and_a_bar_and_leaves_them_as_text(front: FrontEnd, environment: Environment) -> None:
    displays = front.run("%cortex deploy stepped")
    bars = [state for state in front.states.values() if state.get("_model_name") == "FloatProgressModel"]
    assert len(bars) == 1
    assert bars[0]["value_seen"] == sorted(bars[0]["value_seen"])
    assert bars[0]["value"] == 1.0
    result = displays[-1]
    assert "curl -X POST" in result["text/plain"]
    assert "copy</button>" in result["text/html"]
    assert environment.client().get_api("stepped")["live"] == 1


def test_a_long_verb_without_steps_shows_what_it_does(kernel: KernelMaker, environment: Environment, tmp_path: Path) -> None:
    one = kernel(home=tmp_path / "home")
    for line, said in (("up", "starting the local environment"), ("down", "stopping")):
        ran = one.run(f"%cortex {line}")
        for text in (ran.displays[0]["text/plain"], ran.displays[0]["text/html"]):
            assert said in text
    front = FrontEnd(kernel())
    front.run(
        "import time\nclass Slow:\n    def __getstate__(self):\n        time.sleep(0.7)\n        return {'a': 1}\nmodel = Slow()\nfast = [1]",
    )
    assert "saving model" in front.run("%cortex save model")[0]["text/plain"]
    assert len(front.run("%cortex save fast")) == 1, "what is quick shows its end alone"


def test_a_terminal_shows_what_a_long_verb_does_as_a_line(
    shell: Any, project: ProjectMaker, environment: Environment, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("refreshed").deploy(environment)
    monkeypatch.setattr(progress, "SILENT_S", 0.0)  # a refresh may be over before anybody would call it long
    shell.run("%cortex refresh refreshed")
    assert capsys.readouterr().out == "refreshing refreshed …\n"


def test_exports_keep_the_steps_and_the_result_without_widgets(kernel: KernelMaker) -> None:
    one = kernel()
    one.run(HANDLER)
    ran = one.run("%cortex deploy widgetless")
    assert all(WIDGET_VIEW not in display for display in ran.displays)
    for said in ("slicing", "widgetless is live", "endpoint"):
        assert said in ran.text
    ran = one.run("%cortex submit widgetless '\"text\"' --wait 30")
    assert json.loads("{" + ran.text.split("{", 1)[1].split("}")[0] + "}") == {"type": "str", "size": 4}
