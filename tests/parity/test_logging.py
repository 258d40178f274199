"""The logger: the shape of a line, requests, prints, masks, and that it never fails a handler."""

from __future__ import annotations

import asyncio
import datetime
import functools
import html
import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jupyter_cortex.core.errors import CortexError
from jupyter_cortex.handler import execution, live, log_context, log_rate, logs, masking
from jupyter_cortex.handler.logs import logger
from jupyter_cortex.widgets import workbench

from ..conftest import wait_until

LABELS = {"apiName": "iris", "apiKind": "AsyncAPI", "apiID": "1"}


class Lines(list[str]):
    def last(self) -> dict[str, Any]:
        return json.loads(self[-1])


@pytest.fixture
def lines() -> Lines:
    kept = Lines()
    logs.setup_worker(kept.append, labels=LABELS, level="debug")
    return kept


def capturing(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test with captured prints. No fixture: pytest puts its own streams back between set-up and test."""

    @functools.wraps(test)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with logs.capture_prints():
            test(*args, **kwargs)

    return wrapped


def test_a_line_has_its_keys_in_order(lines: Lines) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        with logs.request("abc"):
            logger.error("failed %d", 1, exc_info=True, extra={"b": 1, "a": {"c": [2]}})
    record = lines.last()
    assert list(record) == [
        "asctime", "levelname", "message", "process", "exc_info", "b", "a", "labels", "request_id",
    ]  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", record["asctime"])
    assert (record["levelname"], record["message"], record["process"]) == ("ERROR", "failed 1", os.getpid())
    assert (record["a"], record["labels"], record["request_id"]) == ({"c": [2]}, LABELS, "abc")
    assert record["exc_info"].startswith("Traceback")
    assert record["exc_info"].endswith("ValueError: no")


@pytest.mark.parametrize(
    "key",
    ["message", "asctime", "levelname", "process", "labels", "name", "msg", "args", "exc_info", "module", "taskName"],
)
def test_a_reserved_extra_is_left_out_and_noted_once(lines: Lines, key: str) -> None:
    logger.info("x", extra={key: "mine", "kept": 1})
    logger.info("y", extra={key: "mine", "kept": 2})
    first, second = map(json.loads, lines)
    assert first["dropped_extra_keys"] == [key]
    assert "dropped_extra_keys" not in second
    assert (second["message"], second["kept"]) == ("y", 2)
    assert "mine" not in lines[1]


def test_the_bound_request_id_wins_over_an_extra(lines: Lines) -> None:
    with logs.request("bound"):
        logger.info("x", extra={"request_id": "other"})
    logger.info("y", extra={"request_id": "other"})
    assert [json.loads(line)["request_id"] for line in lines] == ["bound", "other"]


class Hopeless:
    def __str__(self) -> str:
        raise RuntimeError


def test_values_are_encoded_by_the_rules(lines: Lines) -> None:
    logger.info(
        "é",
        extra={
            "date": datetime.date(2021, 2, 3), "bytes": b"x", "set": {1}, "error": ValueError("bad"),
            "none": Hopeless(), "nan": float("nan"), "_private": 1, "deep": {"d": datetime.datetime(2021, 2, 3, 4)},
        },
    )  # fmt: skip
    record = lines.last()
    assert (record["date"], record["bytes"], record["set"]) == ("2021-02-03", "b'x'", "{1}")
    assert (record["error"], record["none"], record["deep"]) == ("bad", None, {"d": "2021-02-03T04:00:00"})
    assert "NaN" in lines[0]
    assert "\\u00e9" in lines[0]
    assert "_private" not in record


def test_a_dict_message_is_merged_and_its_message_wins(lines: Lines) -> None:
    logger.info({"message": "hello", "a": 1, "process": "mine", "_b": 2})
    record = lines.last()
    assert (record["message"], record["a"], record["process"]) == ("hello", 1, os.getpid())
    assert "_b" not in record
    logger.info({"a": 1})
    assert lines.last()["message"] is None


CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("message", "args", "extra"),
    [
        ("%d", ("x",), None),
        ("%s %s", ("x",), None),
        (Hopeless(), (), None),
        (None, (), None),
        ("x", (), {"circle": CIRCLE}),
        ("x", (), {"deep": DEEP}),
        ("x", (), {"keys": {(1, 2): 3}}),
        ("x", (), {1: 2, None: 3, Hopeless(): 4}),
        ("x", (), ["not", "a", "dict"]),
        ("x", (), "text"),
        ("x", (), {"big": 10**5000}),
        ("\ud800", (), {"\ud800": "\ud800"}),
        ({"message": Hopeless(), 1: CIRCLE}, (), None),
    ],
)
def test_nothing_that_is_logged_raises_or_loses_its_line(lines: Lines, message: Any, args: Any, extra: Any) -> None:
    logger.info(message, *args, extra=extra)
    assert lines.last()["levelname"] == "INFO"
    assert logs.failed_writes == 0


def test_a_failing_output_never_reaches_the_handler() -> None:
    def broken(line: str) -> None:
        print("about to fail", file=sys.stderr)
        logger.error("from within")
        raise OSError("disk full")

    with logs.capture_prints():
        logs.setup_worker(broken, labels={})
        logger.info("x")
        print("y")
    assert logs.failed_writes == 4


def test_a_line_over_the_limit_is_cut_and_says_so(lines: Lines) -> None:
    with logs.request("abc") as request:
        logger.info("x" * 5_000_000, extra={"n": 1})
        logger.info("é" * 1_000_000)  # 6 bytes each once encoded
        logger.info("😀", extra={f"key{n}": "y" * 100_000 for n in range(100)})
        logger.info("short")
    assert logs.cut_lines == 3
    first, second, third, short = (json.loads(line) for line in lines)
    assert all(len(line) <= logs.CUT_LINE_BYTES + 1000 for line in lines)
    assert first["message"].rstrip("…") == "x" * (len(first["message"]) - 1)
    assert re.fullmatch(r"the line had 5000\d{3} bytes, and at most 5000000 are kept whole", first["cut"])
    assert (first["n"], first["labels"], first["request_id"]) == (1, LABELS, "abc")
    assert set(second["message"]) == {"é", "…"}
    assert (third["message"], third["request_id"]) == ("😀", "abc")
    assert "cut" not in short
    assert request.lines == lines


def test_a_line_that_is_cut_does_not_show_half_a_secret(lines: Lines) -> None:
    logs.mask(["open-sesame-and-more"])
    logger.info("open-sesame-and-more " * 10_000 + "x" * 6_000_000)
    assert "cut" in lines.last()
    assert "open" not in lines[-1]


def test_lines_beyond_the_rate_are_dropped_and_their_number_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(log_rate, "monotonic", lambda: now)
    lines = Lines()
    logs.setup_worker(lines.append, labels=LABELS, rate=10)
    for n in range(250):
        logger.info("line %d", n)
    assert [json.loads(line)["message"] for line in lines] == [f"line {n}" for n in range(100)], "ten seconds' lines may come at once"
    logs.tell_dropped()
    assert lines.last()["message"] == "150 log lines were left out: a replica may write 10 a second for long (JUPYTER_CORTEX_LOG_RATE)"
    assert lines.last()["levelname"] == "WARNING"
    logs.tell_dropped()
    assert len(lines) == 101, "it is said once"
    now += 2
    for n in range(30):
        logger.info("later %d", n)
    assert len(lines) == 121
    now += 10
    logger.info("x" * 99_000)
    logger.info("after a line that counts as a hundred")
    assert "x" * 99_000 in lines[-1]


def test_a_request_keeps_its_own_lines_when_they_are_beyond_the_rate() -> None:
    lines = Lines()
    logs.setup_worker(lines.append, labels=LABELS, rate=1)
    with logs.request("abc") as request:
        for n in range(1000):
            logger.info("line %d", n)
    assert len(lines) < 1000
    assert [json.loads(line)["message"] for line in request.lines] == [f"line {n}" for n in range(1000)]


def test_the_level_is_set_by_name_and_an_unknown_one_refused(lines: Lines) -> None:
    logs.setup_worker(lines.append, labels={}, level="WARNING")
    logger.info("no")
    logger.warning("yes")
    assert len(lines) == 1
    with pytest.raises(CortexError, match="debug, info, warning, error"):
        logs.setup_worker(lines.append, labels={}, level="loud")


def test_setting_up_again_does_not_double_the_lines(lines: Lines) -> None:
    logs.setup_worker(lines.append, labels={})
    logger.info("once")
    assert len(lines) == 1


def test_the_notebook_shows_readable_lines_with_the_traceback_below() -> None:
    stream = io.StringIO()
    logs.setup_notebook(stream)
    logger.info("message", extra={"key": "value", "key2": {"a": 1}, "text": "two words"})
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("failed")
    first, second, *below = stream.getvalue().splitlines()
    assert re.fullmatch(r'\d\d:\d\d:\d\d INFO  message  key=value key2=\{"a":1\} text="two words"', first)
    assert second.endswith(" ERROR failed")
    assert (below[0], below[-1]) == ("Traceback (most recent call last):", "ValueError: no")
    assert "\x1b" not in stream.getvalue()


def test_the_notebook_shows_odd_values_without_losing_the_line() -> None:
    raw = io.BytesIO()
    logs.setup_notebook(io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
    logger.info("\ud800", extra={"a": Hopeless(), "b": float("nan"), "c": {(1, 2): 3}, "d": "\udfff"})
    assert logs.failed_writes == 0
    assert b"\\ud800  a=null b=NaN" in raw.getvalue()


def test_the_notebook_collects_the_same_lines_as_a_worker() -> None:
    logs.setup_notebook(io.StringIO())
    with logs.request("abc") as request:
        logger.info("x", extra={"a": 1})
    assert json.loads(request.lines[0])["a"] == 1


def test_requests_nest_and_return_to_the_outer_one(lines: Lines) -> None:
    with logs.request("outer") as outer:
        logger.info("1")
        with logs.request("inner") as inner:
            logger.info("2")
        logger.info("3")
    assert logs.current_request_id() is None
    assert [json.loads(line)["message"] for line in outer.lines] == ["1", "3"]
    assert [json.loads(line)["message"] for line in inner.lines] == ["2"]


def in_threads(work: Callable[[int], None], count: int = 8) -> None:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


@capturing
def test_threads_keep_their_requests_apart(lines: Lines) -> None:
    kept: dict[int, list[str]] = {}

    def work(number: int) -> None:
        with logs.request(str(number)) as request:
            for _ in range(100):
                logger.info(str(number))
                print(number, end="")
                print("", number)
        kept[number] = request.lines

    in_threads(work)
    for number, own in kept.items():
        records = [json.loads(line) for line in own]
        assert {r["request_id"] for r in records} == {str(number)}
        assert {r["message"] for r in records} == {str(number), f"{number} {number}"}
        assert len(records) == 200


def test_a_request_keeps_its_oldest_megabyte_and_then_a_note(lines: Lines) -> None:
    with logs.request("abc") as request:
        for number in range(1200):
            logger.info("x" * 1000, extra={"n": number})
        logger.info("tiny")
    assert sum(map(len, request.lines[:-1])) <= log_context.MAX_KEPT_BYTES
    assert json.loads(request.lines[0])["n"] == 0
    assert "1000000" in json.loads(request.lines[-1])["message"]
    assert len(lines) == 1201


def test_tasks_and_coroutines_keep_the_request(lines: Lines) -> None:
    async def work(number: int) -> None:
        with logs.request(str(number)):
            await asyncio.sleep(0)
            await asyncio.create_task(speak(str(number)))

    async def speak(text: str) -> None:
        await asyncio.sleep(0)
        await asyncio.to_thread(logger.info, text)

    async def main() -> None:
        await asyncio.gather(*(work(n) for n in range(10)))

    asyncio.run(main())
    assert len(lines) == 10
    assert all(json.loads(line)["message"] == json.loads(line)["request_id"] for line in lines)


@capturing
def test_prints_become_lines_of_their_request(lines: Lines) -> None:
    with logs.request("abc"):
        print("one", "two\nthree")
        print("oops", file=sys.stderr)
    records = [json.loads(line) for line in lines]
    assert [(r["message"], r["levelname"], r["stream"], r["request_id"]) for r in records] == [
        ("one two", "INFO", "stdout", "abc"), ("three", "INFO", "stdout", "abc"), ("oops", "WARNING", "stderr", "abc"),
    ]  # fmt: skip


@capturing
def test_a_partial_line_is_sent_when_its_request_ends(lines: Lines) -> None:
    with logs.request("abc"):
        print("half", end="", flush=True)
        assert lines == []
    assert (lines.last()["message"], lines.last()["request_id"]) == ("half", "abc")


@capturing
def test_a_partial_line_of_another_thread_is_sent_with_its_request(lines: Lines) -> None:
    async def handler() -> None:
        await asyncio.to_thread(print, "half", end="")

    with logs.request("abc"):
        asyncio.run(handler())
    assert lines.last()["request_id"] == "abc"


@capturing
def test_a_rewritten_line_counts_once(lines: Lines) -> None:
    for percent in range(0, 101, 10):
        print(f"\r{percent}%", end="")
    print()
    assert [json.loads(line)["message"] for line in lines] == ["100%"]


@capturing
def test_a_line_that_never_ends_is_sent_in_pieces(lines: Lines) -> None:
    for _ in range(200):
        print("x" * 1000, end="")
    assert len(lines) >= 3


def test_prints_come_out_whatever_the_level(lines: Lines) -> None:
    logs.setup_worker(lines.append, labels={}, level="error")
    with logs.capture_prints():
        print("still here")
    assert lines.last()["message"] == "still here"


def test_a_captured_stream_still_looks_like_a_file() -> None:
    before, real = sys.stdout, sys.__stdout__
    with logs.capture_prints():
        assert sys.stdout is not before
        assert sys.__stdout__ is real
        assert sys.stdout.isatty() is False
        assert sys.stdout.writable()
        assert sys.stdout.encoding == "utf-8"
        sys.stdout.flush()
        sys.stdout.close()
        with pytest.raises(TypeError):
            sys.stdout.write(b"bytes")  # type: ignore[arg-type]
        with logs.capture_prints():  # the inner one finds the work done
            pass
        assert sys.stdout is not before
    assert sys.stdout is before


def test_fileno_is_the_originals(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with logs.capture_prints():
            assert sys.stdout.fileno() == stream.fileno()


@capturing
def test_bytes_written_to_the_buffer_are_lines_too(lines: Lines) -> None:
    sys.stdout.buffer.write(b"caf\xc3\xa9 \xff\n")
    assert lines.last()["message"] == "café \\xff"


def test_capture_without_a_set_up_logger_prints_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    with logs.capture_prints():
        print("plain")
    assert capsys.readouterr().out == "plain\n"


@capturing
def test_a_foreign_handler_on_captured_stderr_does_not_recurse(lines: Lines) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    try:
        print("x")
        logger.info("y")
    finally:
        logger.removeHandler(handler)
    assert "x" in [json.loads(line)["message"] for line in lines]


SECRET = 'p"ss\\wörd=1'


@capturing
def test_secrets_are_masked_in_message_extras_traceback_and_prints(lines: Lines) -> None:
    logs.mask([SECRET, "hunter2x", "abc"])
    try:
        raise ValueError(f"cannot log in with {SECRET}")
    except ValueError:
        logger.exception("using %s", SECRET, extra={"url": f"x:{SECRET}@", "nested": [{SECRET: SECRET}], "r": {"v": {SECRET}}})
    print("hunter2x abc")
    for line in lines:
        json.loads(line)
        assert "hunter2x" not in line
        assert "rd=1" not in line
    assert lines.last()["message"] == "*** abc"
    first = json.loads(lines[0])
    assert (first["message"], first["url"], first["nested"]) == ("using ***", "x:***@", [{"***": "***"}])


def test_a_masked_line_stays_json_and_keeps_its_metadata(lines: Lines) -> None:
    logs.mask(["INFO", "message", "8080", "iris"])
    logger.info("INFO on iris", extra={"port": 8080, "ratio": 0.5})
    record = lines.last()
    assert (record["levelname"], record["labels"], record["process"]) == ("INFO", LABELS, os.getpid())
    assert (record["message"], record["port"], record["ratio"]) == ("*** on ***", "***", 0.5)


def test_secrets_are_masked_in_the_notebook_and_in_kept_lines() -> None:
    stream = io.StringIO()
    logs.setup_notebook(stream)
    logs.mask([SECRET])
    with logs.request("abc") as request:
        logger.info("using %s", SECRET)
    assert "***" in stream.getvalue()
    assert "***" in request.lines[0]
    assert SECRET not in stream.getvalue()


def test_of_two_overlapping_secrets_nothing_is_left(lines: Lines) -> None:
    logs.mask(["abcd"])
    logs.mask(["abcdef"])
    logger.info("abcdef")
    assert lines.last()["message"] == "***"


@pytest.fixture
def masked_value() -> Iterator[str]:
    value = "p&ss<word"
    masking.mask([value])
    yield value
    masking.clear()


def test_a_value_that_is_hidden_is_hidden_as_html_shows_it_too(masked_value: str) -> None:
    assert masking.masked(f"<td>{html.escape(masked_value)}</td> <b>{html.escape(masked_value, quote=False)}</b>") == "<td>***</td> <b>***</b>"


def test_the_words_of_a_progress_are_hidden_before_they_are_cut(masked_value: str) -> None:
    told: list[live.Progress] = []
    stage = live.Stage(lambda request_id, progress: told.append(progress), lambda ident: None)
    with log_context.Request("r1", stage=stage):
        live.progress(0.5, "x" * (live.TEXT - 5) + masked_value)
    assert told[0].text == "x" * (live.TEXT - 5) + "***"


def test_lines_that_are_drawn_while_a_handler_runs_are_hidden_as_those_that_are_kept(masked_value: str) -> None:
    drawn: list[str] = []
    drawing = workbench.Drawing(drawn.append)
    drawing.emit(logging.makeLogRecord({"msg": f"it is {masked_value}"}))
    drawing.tell("r1", live.Progress(0.5, "half", 0, ""))
    wait_until(lambda: any("it is ***" in page for page in drawn), "the line is drawn")
    assert not any(html.escape(masked_value) in page for page in drawn)


def test_at_debug_each_workload_says_when_it_is_begun_and_when_it_is_over(lines: Lines) -> None:
    class Ends:
        def call(self, arrived: Any, request_id: str) -> Any:
            return {"n": arrived}

    assert execution.execute(Ends(), b"1", "application/json", "r1", "/nowhere").status == "completed"  # type: ignore[arg-type]
    said = [(row["levelname"], row["message"], row["request_id"]) for row in map(json.loads, lines)]
    assert said == [("DEBUG", "processing workload...", "r1"), ("DEBUG", "workload processing complete", "r1")]
