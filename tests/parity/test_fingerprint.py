"""Failures that are one mistake have one fingerprint, wherever and in whichever version they happen; others have another."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.handler import execution, fingerprint, loading, masking, origin
from jupyter_cortex.handler.instance import Instance
from jupyter_cortex.handler.redaction import Redaction

HANDLER = """
    import json

    def area(payload):
        return payload["width"] * payload["height"]

    class Handler:
        def handle_async(self, payload):
            if payload.get("deep"):
                return {"deep": self.down(payload["deep"])}
            if payload.get("caused"):
                return {"caused": self.caused(payload)}
            return {"area": area(payload)}

        def down(self, left):
            if left:
                return self.down(left - 1)
            return json.loads("{")

        def caused(self, payload):
            try:
                return area(payload)
            except KeyError as error:
                raise RuntimeError("no area") from error
"""
Run = Callable[..., execution.Outcome]
Again = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a payload through the Handler of this source text, in a directory of its own, as a replica does."""
    made: list[Instance] = []

    def run(payload: Any, source: str = HANDLER, *, content_type: str = "application/json") -> execution.Outcome:
        directory = tmp_path / f"project{len(made)}"
        directory.mkdir()
        (directory / "handler.py").write_text(textwrap.dedent(source))
        for name in [name for name in sys.modules if name.startswith("cortex_async_handler")]:
            del sys.modules[name]
        cls = loading.load_class(directory, "handler.py")
        made.append(Instance(cls, config={}, metrics_client=None, path="handler.py"))
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return execution.execute(made[-1], body, content_type, "r1", str(directory))

    yield run
    for handler in made:
        handler.close()


@pytest.fixture
def again(tmp_path: Path) -> Iterator[Again]:
    """Runs payloads through one and the same Handler; the text of the line that raised."""
    made: list[Instance] = []

    def again(payload: Any, source: str, redaction: Redaction | None = None) -> str:
        if not made:
            (tmp_path / "handler.py").write_text(textwrap.dedent(source))
            made.append(Instance(loading.load_class(tmp_path, "handler.py"), config={}, metrics_client=None, path="handler.py"))
        outcome = execution.execute(made[0], json.dumps(payload).encode(), "application/json", "r1", str(tmp_path), redaction=redaction)
        assert outcome.frames == json.loads(outcome.details)["frames"]
        return str(outcome.frames[-1]["text"])

    yield again
    for handler in made:
        handler.close()


def test_shifted_lines_and_another_directory_leave_a_fingerprint_as_it_is(run: Run) -> None:
    shifted = HANDLER.replace("import json", "import json\n    import os\n\n    LIMIT = 3\n").replace(
        "class Handler:", "class Handler:\n        LIMIT = 4\n"
    )
    first, second = run({"width": 1}), run({"width": 2}, shifted)
    assert first.frames[-1]["line"] != second.frames[-1]["line"]
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 12
    assert int(first.fingerprint, 16) >= 0


def test_what_the_message_quotes_does_not_tell_failures_apart_but_their_line_and_type_do(run: Run) -> None:
    missing = run({"width": 1}).fingerprint
    assert run({"height": 1}).fingerprint == missing, "another key of the same line"
    assert run({"width": {}, "height": {}}).fingerprint != missing, "a TypeError in the same line"
    assert run({"deep": 2}).fingerprint != missing


def test_a_recursion_s_depth_is_the_payload_s_affair(run: Run) -> None:
    assert run({"deep": 2}).fingerprint == run({"deep": 60}).fingerprint
    endless = [run({"deep": 10**6}).fingerprint for _ in range(2)]
    assert endless[0] == endless[1] != run({"deep": 2}).fingerprint


def test_a_cause_counts(run: Run) -> None:
    other = HANDLER.replace("return area(payload)\n            except", "return area(dict(payload))\n            except")
    assert run({"caused": 1}).fingerprint == run({"caused": 1, "width": 3}).fingerprint
    assert run({"caused": 1}, other).fingerprint != run({"caused": 1}).fingerprint


def test_a_kernel_and_the_module_made_from_it_agree(run: Run, request: pytest.FixtureRequest) -> None:
    """Cells are files of other names, with other lines, of which the kernel knows the place."""
    produced = run({"width": 1})
    before, instead = origin._lookup, origin._instead
    request.addfinalizer(lambda: origin.use(before, instead=instead))
    origin.use(lambda file, line: f"cell 2, line {line}" if file.endswith("handler.py") else "", instead=True)
    here = run({"width": 1}, "\n\n\n" + HANDLER)
    assert here.fingerprint == produced.fingerprint
    assert (here.frames[-1]["place"], here.frames[-1]["file"]) == (f"cell 2, line {here.frames[-1]['line']}", "")


def test_frames_say_where_and_what_the_author_s_first(run: Run) -> None:
    frames = run({"deep": 1}).frames
    mine = [frame for frame in frames if frame["user"]]
    assert [frame["function"] for frame in mine] == ["handle_async", "down", "down"]
    assert frames[: len(mine)] == mine
    assert {frame["user"] for frame in frames[len(mine) :]} == {False}
    assert mine[-1] == {"file": "handler.py", "line": 18, "function": "down", "text": 'return json.loads("{")', "place": "", "user": True}
    assert frames[-1]["file"].endswith("json/decoder.py"), "where it was raised"
    assert len(run({"deep": 900}).frames) <= fingerprint.FIRST_FRAMES + fingerprint.LAST_FRAMES + 10


NAMES_A_VALUE = """
    class Handler:
        def handle_async(self, payload):
            return {"key": payload["open-sesame"]}
"""


def test_what_the_environment_hides_is_hidden_in_frames_that_were_told_before(again: Again, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(masking.clear)
    texts = [again({}, NAMES_A_VALUE)]
    for values in (["open-sesame"], ["something else"]):
        masking.mask(values)
        texts.append(again({}, NAMES_A_VALUE))
    assert texts == ['return {"key": payload["open-sesame"]}'] + ['return {"key": payload["***"]}'] * 2


def test_what_one_request_hides_is_hidden_in_its_frames_alone(again: Again) -> None:
    plain, hidden = 'return {"key": payload["open-sesame"]}', 'return {"key": payload["***"]}'
    redaction = Redaction(["$.word"])
    words = ["else", "open-sesame", "else", "open-sesame", "else"]
    # "else" first: the path is known by then, with nothing hidden.
    told = [again({"word": word}, NAMES_A_VALUE, redaction=redaction if word != "else" else None) for word in words]
    assert told == [plain, hidden, plain, hidden, plain]


def test_two_lines_of_one_function_are_two_paths_however_often_each_was_told(again: Again) -> None:
    source = """
        class Handler:
            def handle_async(self, payload):
                if payload["first"]:
                    return {"a": payload["missing"]}
                return {"b": payload["missing"]}
    """
    told = [again({"first": first}, source) for first in (True, False) * 3]
    assert told == ['return {"a": payload["missing"]}', 'return {"b": payload["missing"]}'] * 3


def test_no_more_failures_are_known_by_heart_than_a_bound(again: Again) -> None:
    raises = "\n".join(f"        if payload == {number}: raise ValueError({number})" for number in range(3 * fingerprint.KNOWN))
    source = f"class Handler:\n    def handle_async(self, payload):\n{raises}\n"
    told = {again(number, source) for number in range(3 * fingerprint.KNOWN)}
    assert len(told) == 3 * fingerprint.KNOWN
    assert len(fingerprint._known) <= fingerprint.KNOWN


def test_details_begin_with_the_fingerprint_where_the_store_reads_it(run: Run) -> None:
    outcome = run({"width": 1})
    assert outcome.details.startswith(f'{{"fingerprint": "{outcome.fingerprint}", "frames": [')
    assert set(json.loads(outcome.details)) == {"fingerprint", "frames", "traceback", "logs"}
    assert set(json.loads(outcome.error)) == {"type", "message"}, "callers see no more"


def test_a_payload_that_nobody_can_parse_is_a_failure_of_its_own(run: Run) -> None:
    torn = run(b'{"a": 1, "b"')
    assert torn.fingerprint == run(b"[1, 2").fingerprint, "whatever it says"
    assert torn.fingerprint != run(b"\xff", content_type="text/plain").fingerprint
    assert torn.fingerprint != run({"width": 1}).fingerprint


def test_without_an_exception_the_reason_counts_but_not_its_numbers() -> None:
    died = fingerprint.of_reason("ReplicaDied", "the replica died 3 times (last: killed by SIGSEGV)")
    assert died == fingerprint.of_reason("ReplicaDied", "the replica died 12 times (last: killed by SIGSEGV)")
    assert died != fingerprint.of_reason("ReplicaDied", "the replica died 3 times (last: killed by SIGKILL: out of memory)")
    assert died != fingerprint.of_reason("DeadlinePassed", "the replica died 3 times (last: killed by SIGSEGV)")


def test_an_exception_that_surprises_is_recorded_all_the_same(run: Run) -> None:
    source = """
        class Strange(Exception):
            exceptions = 5

        class Handler:
            def handle_async(self, payload):
                raise Strange()
    """
    outcome = run({}, source)
    assert outcome.status == "failed"
    assert len(outcome.fingerprint) == 12


def test_results_that_are_wrong_in_another_place_or_way_are_other_failures(run: Run) -> None:
    source = """
        import datetime, numpy

        VALUES = {"number": numpy.float32(1), "day": datetime.date(2026, 1, 2), "list": [1], "nan": float("nan")}

        class Handler:
            def handle_async(self, payload):
                value = VALUES[payload["value"]]
                return value if payload.get("bare") else {payload["key"]: [{"by": {payload["user"]: value}}] * payload.get("times", 1)}
    """
    wrong = {"value": "number", "key": "score", "user": "alice"}

    def of(**changed: Any) -> str:
        outcome = run({**wrong, **changed}, source)
        assert outcome.status == "failed"
        return str(outcome.fingerprint)

    assert of() == of(user="bob") == of(times=3), "keys that are data and places in lists are the payload's affair"
    assert of() != of(key="mean"), "another key"
    assert len({of(), of(value="day"), of(value="nan"), of(value="list", bare=True), of(bare=True)}) == 5, "another mistake"
