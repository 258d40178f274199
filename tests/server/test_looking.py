"""Looking at what was published: summaries, pages of workloads, payloads, own log lines, history."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from jupyter_cortex.core.errors import PayloadGone, WorkloadNotFound
from jupyter_cortex.store import keys, logs
from tests.conftest import Environment, ProjectMaker, wait_until

from .stage import REPLICA, Staged, staged
from .test_public_http import ended, refused, running, submit

V1 = "/_cortex/v1"
Stage = Callable[..., Staged]

TALKS = """
import pathlib
import time

from cortex_internal.lib.log import logger

class Handler:
    def handle_async(self, payload, request_id):
        logger.info("begun", extra={"n": payload["n"]})
        print("printed")
        while "gate" in payload and not pathlib.Path(payload["gate"]).exists():
            time.sleep(0.005)
        if payload.get("raise"):
            raise ValueError("asked for")
        return {}
"""


@pytest.fixture
def control(environment: Environment) -> Iterator[httpx.Client]:
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as client:
        yield client


@pytest.fixture
def stage(environment: Environment) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield lambda name, **spec: stack.enter_context(staged(environment, name, **spec))


def pages(control: httpx.Client, name: str, **params: Any) -> Iterator[dict[str, Any]]:
    """All pages, one after another."""
    cursor = None
    while True:
        answer = control.get(f"{V1}/apis/{name}/workloads", params={**params, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        yield (page := answer.json())
        cursor = page["next"]
        if cursor is None:
            return


def ids_of(control: httpx.Client, name: str, **params: Any) -> list[str]:
    return [one["id"] for page in pages(control, name, **params) for one in page["workloads"]]


# Summaries -----------------------------------------------------------------------------------------------------------


def test_a_summary_says_what_the_last_hour_and_the_last_minutes_were(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-summary")
    done, broken, old, taken = (api.submit() for _ in range(4))
    api.complete(done)
    api.fail(broken, old)
    api.cancel(taken)
    api.store.zadd(keys.index(api.name, "failed"), {old: (time.time() - 3700) * 1000})
    past = int(time.time()) // 60 - 5
    for key in (keys.minute(api.name, past), keys.ten_minutes(api.name, past // 10)):
        api.store.hset(key, mapping={"accepted": 7, "failed": 2})
    listed = next(one for one in control.get(f"{V1}/apis", params={"recent": 10}).json() if one["name"] == api.name)
    assert listed["workloads"] == {"in_queue": 3, "in_progress": 0, "completed": 1, "failed": 2, "cancelled": 1}
    assert (listed["failed_hour"], listed["digest"]) == (1, "")
    assert listed["recent"][0] == {"minute": past * 60, "accepted": 7, "completed": 0, "failed": 2, "cancelled": 0}
    assert listed["recent"][-1] == listed["minute"]
    assert listed["minute"]["minute"] % 60 == 0
    # The minute may have passed since they ended.
    now = [sum(row[name] for row in listed["recent"][1:]) for name in ("accepted", "completed", "failed", "cancelled")]
    assert now == [4, 1, 2, 1]
    plain = next(one for one in control.get(f"{V1}/apis").json() if one["name"] == api.name)
    assert set(listed) - set(plain) == {"recent"}
    assert [row["minute"] for row in control.get(f"{V1}/apis", params={"recent": 2}).json()[0]["recent"]][-1] == plain["minute"]["minute"]


def test_a_summary_has_the_digest_of_what_is_live(environment: Environment, project: ProjectMaker, control: httpx.Client) -> None:
    project("looking-digest").deploy(environment)
    try:
        detail = control.get(f"{V1}/apis/looking-digest").json()
        assert detail["digest"] == detail["api_versions"][0]["digest"] != ""
    finally:
        environment.client().delete("looking-digest")


# Pages ---------------------------------------------------------------------------------------------------------------


def test_workloads_come_newest_first_and_by_status(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-pages")
    ids = [api.submit() for _ in range(6)]
    api.commit(take=2)
    api.commit(start=ids[:2])
    for one in (ids[0], ids[1]):
        # Within one ms, ids decide.
        time.sleep(0.002)
        api.complete(one)
    time.sleep(0.002)
    api.fail(ids[2])
    api.cancel(ids[3])
    everything = ids_of(control, api.name)
    assert everything[:4] == [ids[3], ids[2], ids[1], ids[0]]
    assert everything[4:] == [ids[5], ids[4]]
    assert ids_of(control, api.name, limit=1) == everything
    wanted = {"completed": ids[1::-1], "failed": [ids[2]], "cancelled": [ids[3]], "in_queue": ids[:3:-1], "in_progress": []}
    for status, expected in wanted.items():
        assert ids_of(control, api.name, status=status) == expected, status
    assert ids_of(control, api.name, status="failed,cancelled") == ids_of(control, api.name, status=["failed", "cancelled"]) == [ids[3], ids[2]]
    assert ids_of(control, api.name, status="") == everything


def test_what_cannot_be_listed_is_refused_in_words(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-refused")
    api.submit()
    path = f"{V1}/apis/{api.name}/workloads"
    said = refused(control.get(path, params={"status": "faild"}), 400, "bad_request")
    assert "in_queue, in_progress, completed, failed, cancelled" in said["detail"]
    refused(control.get(path, params={"status": "failed,,\U0001f92f"}), 400, "bad_request")
    place = f"{int(time.time() * 1000)}-x"
    damaged = ["x", "=", "%", "\u0661", "A" * 301, "MS14", base64.b64encode(b"1-").decode(), base64.b64encode(f"{place}\n".encode()).decode()]
    for cursor in damaged:
        answer = control.get(path, params={"cursor": cursor})
        if cursor == "MS14":  # what 1-x is in base64: nobody gave it, but it is whole
            assert answer.json()["workloads"] == []
            continue
        refused(answer, 400, "bad_request")
    assert "newest" in refused(control.get(path, params={"cursor": "x"}), 400, "bad_request")["detail"]


def test_a_search_finds_text_in_ids_errors_replicas_and_content_types_in_any_case(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-search")
    named = api.submit("Order-4711")
    typed = api.submit(content_type="application/x-Parquet")
    broken, other, ran = api.submit(), api.submit(), api.submit()
    api.fail(broken, error={"type": "ZeroDivisionError", "message": 'Stra\u00dfe "quoted" \u00c4rger'})
    api.fail(other, error={"type": "ValueError", "message": "type"})
    api.commit(take=10)
    api.commit(start=[ran])
    for q, expected in {
        "oRDER-47": [named],
        "PARQUET": [typed],
        "zerodiv": [broken],
        'strasse "Quoted" \u00e4rger': [broken],
        REPLICA.upper(): [ran],
        "message": [],
        "nowhere": [],
    }.items():
        found = list(pages(control, api.name, q=q))
        assert [one["id"] for page in found for one in page["workloads"]] == expected, q
        assert sum(page["scanned"] for page in found) == 5
    assert ids_of(control, api.name, q="type", status="failed") == [other]


# Payloads ------------------------------------------------------------------------------------------------------------


def test_a_payload_is_given_back_byte_for_byte_and_as_nothing_that_a_browser_would_run(
    environment: Environment, control: httpx.Client, stage: Stage
) -> None:
    api = stage("looking-payload")
    body = bytes(range(256)) * 5000
    for content_type in ("text/html", "", "text/plain; charset=utf-8", 'multipart/form-data; boundary="a b"', "x/\u00e9", "%41"):
        request_id = api.submit(body=body, content_type=content_type.encode("latin-1"))  # type: ignore[arg-type]
        answer = control.get(f"{V1}/apis/{api.name}/workloads/{request_id}/payload")
        assert (answer.status_code, answer.content) == (200, body)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"] == "attachment"
        assert answer.headers["x-payload-content-type"] == quote(content_type, safe="/;=")
        assert environment.client().payload(api.name, request_id) == (content_type, body)
        assert control.get(f"{V1}/apis/{api.name}/workloads/{request_id}").json()["content_type"] == content_type


def test_a_payload_that_is_gone_says_why(environment: Environment, control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-gone", retain={"max_bytes": 10})
    done, broken, large = api.submit(), api.submit(), api.submit(body=b"x" * 11)
    api.complete(done)
    api.fail(broken, large)
    path = f"{V1}/apis/{api.name}/workloads"
    said = refused(control.get(f"{path}/{done}/payload"), 404, "payload_gone")["detail"]
    assert "completed" in said
    assert "retain: {payload: always}" in said
    assert "max_bytes: 10" in refused(control.get(f"{path}/{large}/payload"), 404, "payload_gone")["detail"]
    assert "max_bytes: 10" in control.get(f"{path}/{large}").json()["payload_gone"]
    assert control.get(f"{path}/{broken}/payload").content == b"{}"
    refused(control.get(f"{path}/never/payload"), 404, "workload_not_found")
    with pytest.raises(PayloadGone, match="always"):
        environment.client().payload(api.name, done)
    with pytest.raises(WorkloadNotFound):
        environment.client().payload(api.name, "never")


# Log lines -----------------------------------------------------------------------------------------------------------


def test_workloads_show_their_own_lines_whatever_became_of_them(
    environment: Environment, project: ProjectMaker, control: httpx.Client, tmp_path: Any
) -> None:
    project("looking-lines", TALKS, handler_spec="threads_per_process: 4").deploy(environment)
    gate = tmp_path / "gate"
    path = f"{V1}/apis/looking-lines/workloads"

    def lines(request_id: str) -> list[dict[str, Any]]:
        found = control.get(f"{path}/{request_id}/logs").json()["records"]
        assert {record["request_id"] for record in found} <= {request_id}
        return list(found)

    try:
        with environment.http() as web:
            runs = running(web, "looking-lines", {"n": 1, "gate": str(gate)})
            good = submit(web, "looking-lines", {"n": 2})
            bad = submit(web, "looking-lines", {"n": 3, "raise": True})
            for request_id in (good, bad):
                ended(web, f"/looking-lines/{request_id}")
            for request_id, n in ((runs, 1), (good, 2)):
                found = wait_until(lambda: len(one := lines(request_id)) == 2 and one, "its lines are shipped")  # noqa: B023
                assert [(record["message"], record.get("n")) for record in found] == [("begun", n), ("printed", None)]
            kept = lines(bad)
            assert [record["message"] for record in kept] == ["begun", "printed", "failed to process workload"]
            assert "ValueError: asked for" in kept[2]["exc_info"]
            gate.touch()
            ended(web, f"/looking-lines/{runs}")
            assert len(lines(runs)) == 2
        # A failed one keeps its lines when the log has lost them.
        with environment.redis() as store:
            store.delete(keys.logs("looking-lines"))
        assert (lines(bad), lines(good)) == (kept, [])
        refused(control.get(f"{path}/never/logs"), 404, "workload_not_found")
    finally:
        gate.touch()
        environment.client().delete("looking-lines")


def test_lines_of_others_that_name_a_workload_are_not_its_own(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-others")
    request_id = api.submit("a")
    others = (
        '{"message": "a", "request_id": "b"}',
        '"a"',
        "a",
        '{"request_id": ["a"]}',
        '{"message": "nested", "of": {"request_id": "a"}}',
        '{"message": "quoted \\"request_id\\": \\"a\\"}", "request_id": "b", "replica": "r"}',
    )
    own = [
        {"message": "own", "request_id": "a"},
        {"request_id": "a", "message": "not last"},
        {"message": "again", "request_id": "a", "run": 2, "replica": "r-v1-0"},
    ]
    for line in (*others, *map(json.dumps, own)):
        logs.append(api.store, api.name, [line])
    found = control.get(f"{V1}/apis/{api.name}/workloads/{request_id}/logs").json()["records"]
    assert found == own
    page = control.get(f"{V1}/apis/{api.name}/workloads/{request_id}/logs", params={"limit": 2}).json()
    assert {key: page[key] for key in ("records", "first", "total")} == {"records": own[1:], "first": 1, "total": 3}


def test_a_long_log_comes_page_by_page_and_a_search_looks_through_all_of_it(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-pages")
    request_id = api.submit("long")
    about = {"levelname": "INFO", "labels": {"apiName": "looking-pages"}, "request_id": "long", "replica": "r-v1-0"}
    extras = {0: {"message": 'Grüße\n"Ada"'}, 4000: {"step": 7, "by": "Ada"}}
    lines = [json.dumps({"message": f"line {at}", **extras.get(at, {}), **about}) for at in range(5000)]
    for at in range(0, 5000, 500):
        logs.append(api.store, api.name, lines[at : at + 500])

    def page(**params: Any) -> tuple[int, int, list[str]]:
        answer = control.get(f"{V1}/apis/{api.name}/workloads/{request_id}/logs", params=params)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        return said["first"], said["total"], [one["message"] for one in said["records"]]

    assert page(limit=3) == (4997, 5000, ["line 4997", "line 4998", "line 4999"])
    assert page(limit=2, first=100) == (100, 5000, ["line 100", "line 101"])
    assert page(limit=2, first=4999) == (4999, 5000, ["line 4999"])
    assert page(limit=2, first=9999) == (5000, 5000, [])
    assert page(limit=1, q="LINE 49") == (110, 111, ["line 4999"])
    assert page(limit=1, q="LINE 49", first=0) == (0, 111, ["line 49"])
    for shown in ("grüße", '"ada"', "GRÜSSE".replace("SS", "ß")):
        assert page(limit=2, q=shown) == (0, 1, ['Grüße\n"Ada"']), shown
    assert page(limit=2, q="step=7") == page(limit=2, q="by=Ada") == (0, 1, ["line 4000"])
    for unseen in ("looking-pages", "labels", "r-v1-0", "nowhere"):
        assert page(limit=2, q=unseen) == (0, 0, []), "what a reader does not see is not found"
    for wrong in ({"limit": 0}, {"limit": 2001}, {"limit": 1, "first": -1}, {"limit": 1, "q": "x" * 201}):
        refused(control.get(f"{V1}/apis/{api.name}/workloads/{request_id}/logs", params=wrong), 400, "bad_request")


def test_a_workload_shows_at_most_a_megabyte_of_its_lines(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-chatty")
    request_id = api.submit("chatty")
    line = json.dumps({"message": "x" * 10_000, "request_id": "chatty"})
    for _ in range(50):
        logs.append(api.store, api.name, [line] * 10)
    assert len(control.get(f"{V1}/apis/{api.name}/workloads/{request_id}/logs").json()["records"]) == 1_000_000 // len(line) + 1


def test_the_tail_of_a_log_is_its_newest_lines_and_the_position_behind_them(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-tail")
    path = f"{V1}/apis/{api.name}/logs/tail"
    assert control.get(path).json() == {"records": [], "times": [], "position": "0-0"}
    for at in range(0, 300, 3):
        logs.append(api.store, api.name, [json.dumps({"n": at + more}) for more in range(3)])
    last: Any = api.store.xrevrange(keys.logs(api.name), count=1)
    for wanted in (0, 1, 2, 100, 299, 300, 10000):
        said = control.get(path, params={"lines": wanted}).json()
        assert [record["n"] for record in said["records"]] == list(range(max(0, 300 - wanted), 300))
        assert said["position"] == last[0][0].decode()
    assert control.get(f"{V1}/apis/{api.name}/logs", params={"lines": 2}).text == '{"n": 298}\n{"n": 299}\n'


def test_a_log_is_looked_through_as_far_back_as_it_goes(control: httpx.Client, stage: Stage, environment: Environment) -> None:
    api = stage("looking-far")
    for at in range(0, 12_000, 200):
        batch = [{"message": f"line {at + more}", "levelname": "INFO", "request_id": f"id-{at + more}", "replica": "r-v1-0"} for more in range(200)]
        logs.append(api.store, api.name, [json.dumps(line) for line in batch])
    odd = [
        {"message": 'Größe\n"m"', "levelname": "WARNING", "user": "Ada", "labels": {"apiName": api.name}},
        {"message": "debugging", "levelname": "DEBUG", "exc_info": "Traceback: KeyError"},
        {"message": "says ERROR and is none", "levelname": "INFO"},
        {"message": "of a level of its own", "levelname": "NOTICE"},
        {"message": "bad", "levelname": "ERROR"},
        {"message": "\x1b[1mEpoch\x1b[0m 3", "lr": 1.5e-05, "shape": [3, 224], "acc": 1.0, "id": {"of": "1d3e-07b2"}, "levelname": "DEBUG"},
    ]
    logs.append(api.store, api.name, [*map(json.dumps, odd), '{"foreign": "no logger"}', "no JSON at all"])

    def found(**params: Any) -> list[str]:
        tail = control.get(f"{V1}/apis/{api.name}/logs/tail", params=params).json()
        lines = control.get(f"{V1}/apis/{api.name}/logs", params=params).text.splitlines()
        assert tail["records"] == [logs.record(line) for line in lines]
        assert len(tail["times"]) == len(lines)
        assert tail["position"] == control.get(f"{V1}/apis/{api.name}/logs/tail").json()["position"]
        assert tail["records"] == environment.client().logs(api.name, params.get("lines", 200), params.get("q", ""), params.get("level", "DEBUG"))
        return [record.get("message", "") for record in tail["records"]]

    assert found(q="LINE 7", lines=3) == ["line 7997", "line 7998", "line 7999"]
    assert found(q="id-17", lines=1000)[:3] == ["line 17", "line 170", "line 171"]
    assert found(q="größe") == found(q='"m"') == found(q="user=ada") == ['Größe\n"m"']
    assert found(q="keyerror") == ["debugging"]
    assert found(q="looking-far") == [], "what no reader sees"
    assert found(q="no logger") == [""]
    assert found(q="JSON at") == ["no JSON at all"]
    for shown in ("epoch 3", "lr=0.000015", "0.000015", "1.5e-05", "shape=[3,224]", "[3, 224]", "acc=1.0", "acc=1", "1d3e-07b2"):
        assert found(q=shown) == ["\x1b[1mEpoch\x1b[0m 3"], shown
    assert found(level="ERROR") == ["bad"]
    assert found(level="WARNING") == ['Größe\n"m"', "bad"]
    assert found(level="INFO", lines=6) == ['Größe\n"m"', "says ERROR and is none", "of a level of its own", "bad", "", "no JSON at all"]
    assert found(q="nowhere", level="CRITICAL") == []
    for wrong in ({"q": "x" * 201}, {"level": "LOUD"}):
        refused(control.get(f"{V1}/apis/{api.name}/logs/tail", params=wrong), 400, "bad_request")


def test_lines_say_when_they_were_written_wherever_their_worker_was(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-times")
    request_id = api.submit("timed")
    begun = int(time.time() * 1000)
    offsets = [hours * 3600 for hours in (0, -8, 5.75, 14)]
    lines = []
    for at, offset in enumerate(offsets):
        local = datetime.fromtimestamp(begun / 1000 - 60 + at + offset, UTC)
        lines.append({"asctime": f"{local:%Y-%m-%d %H:%M:%S},{begun % 1000:03}", "message": str(at), "request_id": "timed"})
    logs.append(api.store, api.name, [json.dumps(line) for line in lines] + ['{"message": "without", "request_id": "timed"}'])
    tail = control.get(f"{V1}/apis/{api.name}/logs/tail").json()
    asked = {"events": {}, "logs": {api.name: "0-0"}, "wait": 0}
    changes = control.post(f"{V1}/changes", json=asked).json()["logs"][api.name]
    own = control.get(f"{V1}/apis/{api.name}/workloads/{request_id}/logs", params={"limit": 10}).json()
    for said in (tail, changes, own):
        assert said["times"][:4] == [begun - 60_000 + at * 1000 for at in range(4)]
        assert abs(said["times"][4] - begun) < 60_000
        assert said["records"][:4] == lines, "the lines themselves are as they were written"


def test_lines_that_a_failed_workload_keeps_say_when_they_were_written(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-kept-times")
    request_id = api.submit()
    failed = int(time.time())
    # It ran for half an hour, five hours west of here.
    said = [f"{datetime.fromtimestamp(failed - ago - 5 * 3600, UTC):%Y-%m-%d %H:%M:%S},000" for ago in (1800, 0)]
    api.fail(request_id, lines=[json.dumps({"asctime": one, "message": "x"}) for one in said])
    page = control.get(f"{V1}/apis/{api.name}/workloads/{request_id}/logs", params={"limit": 10}).json()
    assert page["times"] == [(failed - 1800) * 1000, failed * 1000]


# History -------------------------------------------------------------------------------------------------------------


def test_history_in_steps_leaves_no_row_out_and_ends_now(control: httpx.Client, stage: Stage) -> None:
    api = stage("looking-history")
    path = f"{V1}/apis/{api.name}/history"
    done, broken, _ = (api.submit() for _ in range(3))
    api.complete(done, run_ms=100)
    api.fail(broken)
    for minutes, step, count in ((60, 1, 60), (60, 5, 12), (61, 5, 13), (1, 60, 1), (10080, 60, 168), (10080, 1440, 7), (1440, 7, 206)):
        said = control.get(path, params={"minutes": minutes, "step": step}).json()
        starts = [row["minute"] for row in said["rows"]]
        assert (said["step"], len(starts)) == (step, count)
        assert starts == list(range(starts[0], starts[0] + 60 * step * count, 60 * step))
        assert all(start % (60 * step) == 0 for start in starts)
        assert starts[-1] * 1000 <= said["now"] < (starts[-1] + 60 * step) * 1000
        assert said["rows"][-1]["open"] == 1
        assert [sum(row[name] for row in said["rows"][-2:]) for name in ("accepted", "completed", "failed", "cancelled")] == [3, 1, 1, 0]
        quiet = {"wait_p50_ms", "wait_p95_ms", "run_p50_ms", "run_p95_ms"}
        assert all(row[name] is None for row in said["rows"][:-2] for name in quiet)
        assert all(row["open"] == 0 for row in said["rows"][:-2])
    for params in ({"step": 0}, {"step": 1441}, {"minutes": 10081, "step": 1}, {"step": "x"}):
        refused(control.get(path, params=params), 400, "bad_request")


# Modules -------------------------------------------------------------------------------------------------------------


def test_a_module_names_its_notebook_and_the_ids_of_its_cells(
    environment: Environment, project: ProjectMaker, control: httpx.Client, tmp_path: Any
) -> None:
    source = "class Handler:\n    def handle_async(self, payload):\n        return {'n': N}\n"
    cells = [
        {"cell_type": "markdown", "id": "words", "metadata": {}, "source": "# Words"},
        *(
            {"cell_type": "code", "id": cell_id, "metadata": {}, "source": text, "outputs": [], "execution_count": None}
            for cell_id, text in (("first", "N = 1"), ("second", source))
        ),
    ]
    (tmp_path / "own.ipynb").write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    environment.cortex("deploy", "own.ipynb", "--name", "looking-module", cwd=tmp_path)
    project("looking-plain").deploy(environment)
    try:
        module = control.get(f"{V1}/apis/looking-module/deployments/1/module").json()
        assert (module["notebook"], module["cells"]) == ("own.ipynb", {"cell 1": "first", "cell 2": "second"})
        assert {row["cell"] for row in module["reasons"]} == set(module["cells"])
        plain = control.get(f"{V1}/apis/looking-plain/deployments/1/module").json()
        assert (plain["notebook"], plain["cells"], plain["reasons"]) == ("", {}, [])
    finally:
        for name in ("looking-module", "looking-plain"):
            environment.client().delete(name)


def test_what_is_not_there_is_a_404(control: httpx.Client) -> None:
    for path in ("workloads/x/payload", "workloads/x/logs", "logs/tail", "history?step=5", "workloads?q=x"):
        refused(control.get(f"{V1}/apis/looking-none/{path}"), 404, "api_not_found")
