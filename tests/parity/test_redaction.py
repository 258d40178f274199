"""What a spec redacts: which paths it may name, what is left of a payload, and what a request's own texts show."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_cortex.core import json_paths
from jupyter_cortex.core.errors import SpecError
from jupyter_cortex.core.readers import FieldError
from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.handler import execution, log_context, logs
from jupyter_cortex.handler.instance import Instance
from jupyter_cortex.handler.redaction import Redaction

PAYLOAD = {"card": {"number": "4111 1111", "pin": 1234}, "items": [{"pin": "abcd", "n": 1}, {"pin": "efgh"}, 7], "a key": 'äöü\n"x"', "pin": "root"}


@pytest.mark.parametrize(
    ("path", "gone"),
    [
        ("$.card.number", ["4111 1111"]),
        ("card.number", ["4111 1111"]),
        ("$.card", ["4111 1111", 1234]),
        ("$.card.*", ["4111 1111", 1234]),
        ("$.items[*].pin", ["abcd", "efgh"]),
        ("$.items[1].pin", ["efgh"]),
        ("$..pin", ["abcd", "efgh", 1234, "root"]),
        ("$['a key']", ['äöü\n"x"']),
        ('$["a key"]', ['äöü\n"x"']),
        ("$.nothing.there", []),
        ("$.items[9]", []),
    ],
)
def test_a_path_redacts_what_it_names_and_nothing_else(path: str, gone: list[Any]) -> None:
    body = json.dumps(PAYLOAD).encode()
    kept = Redaction([path]).applied(body, "application/json; charset=utf-8")
    assert kept is not None
    assert (kept is body) == (not gone)
    left = json_paths.leaves(json.loads(kept))
    assert not [value for value in gone if value in left]
    assert len(left) == len(json_paths.leaves(PAYLOAD)) - (1 if path == "$.card" else 0)
    assert left.count("***") == (1 if path == "$.card" else len(gone))


@pytest.mark.parametrize("path", ["$", "$.", "$.a[?(@.b)]", "$.a[1:2]", "$.a[-1]", "a b", "$.a[", "$.a['b", "$...a", "$.a.length()", "x" * 501])
def test_other_paths_are_refused_with_their_place_and_a_remedy(path: str) -> None:
    document = {"name": "a", "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}, "retain": {"redact": ["$.ok", path]}}
    with pytest.raises(SpecError) as refused:
        check_specs([document], ["handler.py"])
    assert refused.value.details["path"] == "retain.redact[1]"
    assert any(word in str(refused.value) for word in ("write $.a.b", "payload: never", "the limit is"))


@given(path=st.text(max_size=30) | st.text(alphabet="$.a[]*'\"0 ", max_size=12))
def test_any_text_is_a_path_or_is_refused(path: str) -> None:
    try:
        steps = json_paths.parse(path)
    except FieldError:
        return
    document = {"a": [{"a": {"0": 1}}], "0": {"a": 2}}
    json_paths.replace(document, steps, lambda value: value)
    assert document == {"a": [{"a": {"0": 1}}], "0": {"a": 2}}


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "application/json; charset", None])
def test_what_is_no_json_does_not_stay(content_type: str | None) -> None:
    json_like = content_type is not None and content_type.startswith("application/json")
    assert (Redaction(["$.pin"]).applied(b'{"pin": "abcd"}', content_type) is not None) == json_like
    assert Redaction(["$.pin"]).applied(b'{"pin": "abcd', "application/json") is None


def test_a_path_of_an_earlier_release_that_cannot_be_read_lets_nothing_stay() -> None:
    assert Redaction(["$.pin", "$.a[?(@.b)]"]).applied(b"{}", "application/json") is None


class Leaky:
    """Shows what it got in every way."""

    def __init__(self, config: Any) -> None:
        pass

    def handle_async(self, payload: Any) -> dict[str, Any]:
        logs.logger.info("got %s", payload, extra={"extra": payload, "secret": payload["pin"], "short": payload["short"]})
        print("printed", payload["pin"], json.dumps(payload), end="\n")
        print(payload["pin"][:2], end="")
        print(payload["pin"][2:])
        thread = threading.Thread(target=lambda: print("of no request:", payload["pin"]))
        thread.start()
        thread.join()
        raise ValueError(f"cannot use {payload['pin']!r} of {payload} {payload['number']:d}")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    written: list[str] = []
    logs.setup_worker(written.append, labels={"apiName": "a"})
    yield written
    logs.setup_notebook()
    log_context._recent.clear()


def run(body: bytes, redaction: Redaction | None = None, **options: Any) -> execution.Outcome:
    with logs.capture_prints(), Instance(Leaky, config={}, metrics_client=None, path="handler.py") as handler:
        return execution.execute(handler, body, "application/json", "r1", "/nowhere", redaction=redaction, **options)


@pytest.mark.parametrize("pin", ["hunter22", 'quote"and\\slash', "two\nlines-of-it", "ünïcödé", "x7q"])
def test_no_line_and_no_error_of_a_request_shows_a_redacted_value(lines: list[str], pin: str) -> None:
    body = json.dumps({"pin": pin, "number": 987654321, "short": "M", "open": "visible"}).encode()
    redaction = Redaction(["$.pin", "$.number", "$.short"])
    outcome = run(body, redaction)
    assert outcome.status == "failed"
    for shown in (outcome.error, outcome.details, *lines):
        for form in (*pin.splitlines(), repr(pin)[1:-1], json.dumps(pin)[1:-1], json.dumps(json.dumps(pin)[1:-1])[1:-1], "987654321"):
            assert form not in shown.replace("asctime", ""), shown
    text = "\n".join(lines)
    assert "***" in text
    assert "visible" in text
    assert "of no request: ***" in text
    assert all(json.loads(line)["levelname"] for line in lines), "lines are whole"
    assert "cannot use" in json.loads(outcome.error)["message"]


def test_another_request_is_not_masked(lines: list[str]) -> None:
    redaction = Redaction(["$.pin"])
    run(b'{"pin": "visible", "number": 1, "short": ""}', redaction)
    lines.clear()
    run(b'{"pin": "other", "number": 1, "short": "visible"}', redaction)
    assert any('"visible"' in line for line in lines)
    assert not any("other" in line for line in lines)


def test_a_refusal_of_a_torn_payload_does_not_quote_it(lines: list[str]) -> None:
    outcome = run(b'{"pin": hunter22}', Redaction(["$.pin"]))
    assert "hunter22" not in outcome.error + outcome.details
    assert "not valid JSON" in outcome.error


def test_a_requeued_run_says_its_number_in_each_line(lines: list[str]) -> None:
    run(b'{"pin": "hunter22", "number": 1, "short": ""}', run=2)
    own = [json.loads(line) for line in lines if "request_id" in json.loads(line)]
    assert own
    assert {line["run"] for line in own} == {2}
