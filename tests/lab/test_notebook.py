"""The buttons: a notebook is looked at, checked and published by its own kernel."""

from __future__ import annotations

from ..conftest import Environment
from .conftest import KernelMaker, Lab

HANDLER = "class Handler:\n    def handle_async(self, payload):\n        return {'said': WORD, 'got': payload}"


def test_what_ran_is_shown_checked_and_published(lab: Lab, kernel: KernelMaker, environment: Environment) -> None:
    cells = ("WORD = 'hello'", HANDLER)
    notebook = lab.notebook("greeting.ipynb", *cells)
    one = kernel()
    one.run_all(*cells)
    shown = lab.ask("show", one, "greeting.ipynb", notebook).worked()
    assert (shown["name"], shown["executed"], shown["recorded"], shown["live"]) == ("greeting", True, True, None)
    assert "WORD = 'hello'" in shown["source"]
    assert shown["cells"] == {"cell 1": "cell-0", "cell 2": "cell-1"}
    checked = lab.ask("check", one, "greeting.ipynb", notebook).worked()
    assert checked["ok"], checked
    told = lab.ask("deploy", one, "greeting.ipynb", notebook)
    assert told.worked()["deployed"][0]["outcome"] == "created"
    assert told.said[0] == "slicing"
    assert told.said[-1] == "greeting is live"
    assert lab.post("run/greeting", json=[1], params={"wait": 1}).status_code == 200
