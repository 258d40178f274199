"""What a page or a terminal is given: little enough to be drawn, often enough to be live, and nothing that a terminal would obey."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_cortex import render
from jupyter_cortex.client import Event
from jupyter_cortex.commands import following
from jupyter_cortex.commands.failures import keep_workload
from jupyter_cortex.core.errors import BadRequest
from jupyter_cortex.magics import door as doors
from jupyter_cortex.magics.words import as_text
from jupyter_cortex.widgets.style import tree

LINES = 5000


def record(number: int) -> dict[str, Any]:
    return {"asctime": "2026-11-28 00:00:00", "levelname": "INFO", "message": f"line {number}"}


def test_a_followed_log_of_thousands_of_lines_is_drawn_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        environment = SimpleNamespace(token="t")

        def events(self, *_: Any, **__: Any) -> Iterator[Event]:
            yield Event("1", "in_progress", {})
            yield from (Event("", "log", record(number)) for number in range(LINES))
            yield Event("2", "completed", {})

    monkeypatch.setattr(following.commands, "result", lambda *_: {"status": "completed"})
    drawn: list[int] = []
    _, seen = following.follow(Told(), "a", "x", 60, lambda seen: drawn.append(len(seen.records)))  # type: ignore[arg-type]
    assert len(seen.records) == LINES
    assert drawn[-1] == LINES, "the last word is drawn"
    assert len(drawn) < LINES / 50, "and not each of them"


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a cell's display was updated with."""
    shown: list[dict[str, str]] = []
    monkeypatch.setattr(doors, "display", lambda *_, **__: SimpleNamespace(update=lambda data, raw: shown.append(data)))
    return shown


def cell(output: str = "") -> doors.CellDoor:
    return doors.CellDoor(SimpleNamespace(shell=SimpleNamespace(kernel=None)), output, None)


def test_a_log_that_comes_fast_is_drawn_a_few_times_and_stays_to_its_end(updates: list[dict[str, str]]) -> None:
    cell().stream((record(number) for number in range(LINES)), raw=False)
    assert len(updates) < LINES / 50
    assert f"line {LINES - 1}" in updates[-1]["text/plain"]
    assert f"line {LINES - 1}" in updates[-1]["text/html"]
    assert f"line {LINES - 1001}" not in updates[-1]["text/plain"], "a thousand of them stay"
    assert f"line {LINES - 1000}" in updates[-1]["text/plain"]


def test_what_came_last_is_drawn_though_nothing_comes_behind_it(updates: list[dict[str, str]]) -> None:
    drawn, over = threading.Event(), threading.Event()

    def slow() -> Iterator[dict[str, Any]]:
        yield from map(record, range(3))
        while not any("line 2" in update["text/plain"] for update in updates):
            if over.wait(0.01):
                return
        drawn.set()

    end = threading.Timer(60, over.set)
    end.start()
    cell().stream(slow(), raw=False)
    end.cancel()
    assert drawn.is_set(), "before the stream ended"


def test_a_log_asked_for_as_json_is_a_record_a_line(updates: list[dict[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    cell("json").stream(map(record, range(3)), raw=False)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [record(number) for number in range(3)]
    assert updates == []


@pytest.mark.parametrize("shape", [(512, 512), (3, 224, 224), (16, 3, 22, 22), (100_000,)])
def test_a_result_of_any_size_is_a_page_that_a_browser_bears(shape: tuple[int, ...]) -> None:
    value: Any = 0.123456789
    for size in reversed(shape):
        value = [value] * size
    page = tree(value, "result")
    assert len(page) < 400_000
    assert f"{shape[0]:}" in page
    assert " more</div>" in page


def test_a_small_result_is_shown_whole() -> None:
    value = {"rows": [{"a": at, "b": [at, at]} for at in range(150)]}
    page = tree(value, "result")
    assert " more</div>" not in page
    assert page.count("<details") == 2 + 2 * 150


@pytest.mark.parametrize("value", [b"\x89PNG", bytearray(b"x"), object(), {1, 2}], ids=["bytes", "bytearray", "object", "set"])
def test_a_value_that_is_neither_text_nor_json_is_refused_and_not_sent_as_python_prints_it(value: Any) -> None:
    with pytest.raises(BadRequest, match=f"a value of type {type(value).__name__} is neither text nor JSON.*--file"):
        as_text(value)


def test_paths_and_what_json_holds_are_filled_in() -> None:
    assert [as_text(value) for value in (Path("/a/b"), {"a": [1]}, "text", None, 1.5)] == ["/a/b", '{"a": [1]}', "text", "null", "1.5"]


ESCAPE = "\x1b]52;c;ZXZpbA==\x1b\\ \x9b31m\x07\r\x00 end"
SHOWN = "\\x1b]52;c;ZXZpbA==\\x1b\\ \\x9b31m\\x07\\x0d\\x00 end"


def texts() -> Iterator[tuple[str, str]]:
    failed = {"id": "x", "status": "failed", "error": {"type": "KeyError", "message": ESCAPE}}
    failed["failure"] = {"traceback": ESCAPE, "place": ESCAPE, "attempts": 1, "records": [{**record(1), "message": ESCAPE}]}
    for view, data, facts in (
        ("logs", [{**record(1), "message": ESCAPE, "more": ESCAPE, "exc_info": ESCAPE}], {}),
        ("workload", {"id": "x", "status": "completed", "result": {ESCAPE: ESCAPE}}, {"name": "a"}),
        ("workload", {"id": "x", "status": "failed", "error": {"type": "KeyError", "message": ESCAPE}}, {"name": "a"}),
        ("said", {"message": ESCAPE}, {}),
    ):
        with render.as_text(400) as (console, text_of):
            render.VIEWS[view](console, data, **facts)
            yield view, text_of()
    with render.as_text(400) as (console, text_of):
        render.explain(console, BadRequest(ESCAPE, traceback=ESCAPE, logs=[ESCAPE]))
        yield "explain", text_of()


def test_what_callers_send_moves_no_terminal() -> None:
    for view, text in texts():
        assert not {letter for letter in text if ord(letter) < 32 or 127 <= ord(letter) < 160} - {"\n", "\t"}, view
        assert "52;c;ZXZpbA==" in text, view


def test_raw_log_lines_are_the_json_that_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    with render.as_text(400) as (console, text_of):
        render.VIEWS["logs"](console, [{"message": ESCAPE}], raw=True)
    assert json.loads(text_of()) == {"message": ESCAPE}


def test_an_address_in_brackets_is_shown_whole() -> None:
    with render.as_text() as (console, text_of):
        render.VIEWS["environments"](console, [{"used": True, "name": "six", "url": "http://[fd00::5]:8780"}])
    assert "http://[fd00::5]:8780" in text_of()


@pytest.mark.parametrize("status", ["in_queue", "in_progress"])
def test_a_request_that_has_not_ended_is_no_sample_yet(tmp_path: Path, status: str) -> None:
    client: Any = SimpleNamespace(workload=lambda *_: {"status": status, "version": 1}, payload=lambda *_: ("text/plain", b"x"))
    with pytest.raises(BadRequest, match=rf"x has not ended yet \({status}\)"):
        keep_workload(client, "a", "x", tmp_path)
    assert not list(itertools.chain(tmp_path.rglob("*.yaml")))
