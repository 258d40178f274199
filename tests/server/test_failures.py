"""What failed alike is one group, which goes back into the queue under its old ids. Ends are the test's own, through the engine's scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from jupyter_cortex.client import Client
from jupyter_cortex.core.errors import ApiNotFound, BadRequest
from jupyter_cortex.handler.execution import details
from jupyter_cortex.store import failures, keys
from jupyter_cortex.store.records import Records
from tests.conftest import Environment, wait_until

from .stage import Staged, staged

MARKS = {"a": "aaaaaaaaaaaa", "b": "bbbbbbbbbbbb"}
FRAME = {"file": "handler.py", "line": 3, "function": "handle_async", "text": "return payload['x']", "place": "cell 2, line 3", "user": True}
ABOUT = {"who": "a test", "source": "fix.ipynb"}


@pytest.fixture
def api(environment: Environment, request: pytest.FixtureRequest) -> Iterator[Staged]:
    name = f"failures-{abs(hash(request.node.name)) % 10**9}"
    with staged(environment, name) as made:
        yield made


@pytest.fixture
def client(environment: Environment) -> Iterator[Client]:
    with environment.client() as made:
        yield made


def fail(api: Staged, group: str, *ids: str, message: str = "m", frames: list[dict[str, Any]] | None = None) -> list[str]:
    """Submit and fail: workloads of these ids, in a group; in another ms than those before, which is what they are ordered by."""
    begun = _ms(api)
    wait_until(lambda: _ms(api) > begun, "the store's clock goes on")
    names = [api.submit(one) for one in ids]
    told = details(MARKS[group], [FRAME] if frames is None else frames, "Traceback …", ["{}"])
    api.commit(take=len(names))
    api.commit(finish=[(one, "failed", "", json.dumps({"type": "KeyError", "message": message}), told) for one in names], began=1)
    return names


def _ms(api: Staged) -> int:
    seconds, micros = api.store.time()  # type: ignore[misc]
    return int(seconds * 1000 + micros // 1000)


def test_failures_of_one_fingerprint_are_one_group_the_newest_first(api: Staged, client: Client) -> None:
    fail(api, "a", "a1", "a2", message="first")
    fail(api, "b", "b1", frames=[])
    fail(api, "a", "a3", message="newest")
    api.complete(api.submit("done"))
    groups = client.failures(api.name)
    assert [(group["fingerprint"], group["count"]) for group in groups] == [(MARKS["a"], 3), (MARKS["b"], 1)]
    first = groups[0]
    assert (first["type"], first["message"], first["place"], first["frames"]) == ("KeyError", "newest", "cell 2, line 3", [FRAME])
    assert (first["newest"], first["versions"]) == ("a3", [1])
    assert first["first"] <= first["last"] == client.workload(api.name, "a3")["finished"]
    assert (groups[1]["frames"], groups[1]["place"]) == ([], "")
    assert client.failures(api.name, since=first["last"] - 60_000) == groups
    wait_until(lambda: not client.failures(api.name, since=first["last"] + 1500), "a second has passed since the last failure")


def test_a_group_s_workloads_are_listed_by_pages(api: Staged, client: Client, environment: Environment) -> None:
    fail(api, "a", *(f"a{number}" for number in range(7)))
    fail(api, "b", "b1")
    assert {row["id"] for row in client.workloads(api.name, fingerprint=MARKS["a"])} == {f"a{number}" for number in range(7)}
    assert client.workloads(api.name, fingerprint="c" * 12) == []
    path, token = f"/_cortex/v1/apis/{api.name}/workloads", {"authorization": f"Bearer {environment.token}"}
    seen, cursor = [], ""
    with environment.http(headers=token) as http:
        while cursor is not None:
            page = http.get(path, params={"fingerprint": MARKS["a"], "limit": 3, "cursor": cursor}).json()
            seen += [row["id"] for row in page["workloads"]]
            cursor = page["next"]
        assert sorted(seen) == [f"a{number}" for number in range(7)]
        assert http.get(path, params={"fingerprint": "not one"}).status_code == 400
        assert http.get(path, params={"fingerprint": MARKS["a"], "status": "completed"}).json()["workloads"] == []


def test_a_workload_explains_its_failure(api: Staged, client: Client) -> None:
    fail(api, "a", "a1")
    shown = client.workload(api.name, "a1")
    assert (shown["fingerprint"], shown["frames"], shown["run"], shown["requeues"]) == (MARKS["a"], [FRAME], 1, [])
    assert shown["failure"]["traceback"] == "Traceback …"
    assert set(client.result(api.name, "a1").error or {}) == {"type", "message"}, "callers see no more"


def test_what_an_earlier_release_recorded_is_read_all_the_same(api: Staged, client: Client) -> None:
    api.fail(api.submit("old"))
    shown = client.workload(api.name, "old")
    assert (shown["fingerprint"], shown["frames"], shown["requeues"]) == ("", [], [])
    assert client.failures(api.name) == []
    assert client.requeue(api.name, ["old"]) == {"requeued": ["old"], "refused": []}


def test_a_requeued_workload_is_queued_as_if_it_had_just_come(api: Staged, client: Client) -> None:
    fail(api, "a", "a1", "a2")
    before = client.workload(api.name, "a1")
    steps: list[str] = []
    assert client.requeue(api.name, ["a1"], source="fix.ipynb", progress=steps.append) == {"requeued": ["a1"], "refused": []}
    assert steps == ["1 requeued, 1 of 1 looked at"]
    shown = client.workload(api.name, "a1")
    assert (shown["status"], shown["run"], shown["attempts"], shown["deaths"]) == ("in_queue", 2, 0, 0)
    assert [shown[key] for key in ("error", "failure", "result", "finished", "started", "version")] == [None] * 6
    assert (shown["fingerprint"], shown["frames"]) == ("", [])
    (told,) = shown["requeues"]
    assert (told["run"], told["version"], told["fingerprint"], told["error"]) == (1, 1, MARKS["a"], {"type": "KeyError", "message": "m"})
    assert (told["source"], told["accepted"], told["finished"]) == ("fix.ipynb", before["accepted"], before["finished"])
    assert "@" in told["who"]
    assert client.result(api.name, "a1").status == "in_queue", "its caller waits again"
    assert [group["count"] for group in client.failures(api.name)] == [1], "it has left its group"
    assert {row["id"] for row in client.workloads(api.name, status="in_queue")} == {"a1"}
    for key in (keys.record(api.name, "a1"), keys.body(api.name, "a1")):
        assert api.store.ttl(key) == -1, "it must not expire while it waits"
    assert not api.store.exists(keys.failure(api.name, "a1"))
    assert api.store.llen(keys.wake(api.name)) > 0, "somebody is woken"


def test_its_next_run_ends_it_as_any(api: Staged, client: Client) -> None:
    fail(api, "a", "a1")
    client.requeue(api.name, ["a1"])
    fetched = api.commit(take=1)
    assert (fetched[2], fetched[5]) == (b"a1", b"0 2 0"), "its replica is told which run it is"
    late = api.commit(finish=[("a1", "failed", "", "{}", "")])
    assert late[0] == b"a1", "an end of the first run, said again, is too late"
    assert client.result(api.name, "a1").status == "in_queue"
    api.commit(finish=[("a1", "completed", '{"fixed": 1}', "", "")], run=2, began=1)
    assert client.result(api.name, "a1").result == {"fixed": 1}
    shown = client.workload(api.name, "a1")
    assert (shown["run"], shown["attempts"], len(shown["requeues"])) == (2, 1, 1)
    assert 0 < api.store.ttl(keys.record(api.name, "a1")) <= 7 * 86400
    hour = client._control("GET", f"/apis/{api.name}/history", params={"minutes": 60, "step": 60})["rows"][-1]
    assert (hour["accepted"], hour["failed"], hour["completed"], hour["open"]) == (2, 1, 1, 0), "what came in is what ended"


def test_a_reply_that_was_lost_with_a_requeue_in_between_gives_the_new_run_back(api: Staged, client: Client) -> None:
    """The replica believes to hold the first run, the store gave it the second: it goes back, and is not taken for the first."""
    fail(api, "a", "a1")
    client.requeue(api.name, ["a1"])
    api.commit(take=1)
    assert api.resync("a1") == 1
    assert api.store.lrange(keys.queue(api.name), 0, -1) == [b"a1"]
    api.commit(take=1)
    assert api.resync("a1 2") == 0


def test_what_cannot_run_again_is_refused_each_with_its_reason(api: Staged, client: Client) -> None:
    fail(api, "a", "a1", "gone", "hidden")
    api.complete(api.submit("done"))
    api.submit("waits")
    api.store.delete(keys.body(api.name, "gone"))
    api.store.hset(keys.record(api.name, "hidden"), "redacted", 1)
    before = {name: api.store.hgetall(keys.record(api.name, name)) for name in ("gone", "hidden", "done", "waits")}
    said = client.requeue(api.name, ["a1", "gone", "hidden", "done", "waits", "nobody", "a1"])
    assert said["requeued"] == ["a1"]
    reasons = {one["id"]: one["reason"] for one in said["refused"]}
    assert set(reasons) == {"gone", "hidden", "done", "waits", "nobody"}
    assert "not kept" in reasons["gone"]
    assert "redacted" in reasons["hidden"]
    assert reasons["done"] == "it is completed, not failed"
    assert reasons["waits"] == "it is in_queue, not failed"
    assert api.name in reasons["nobody"]
    assert before == {name: api.store.hgetall(keys.record(api.name, name)) for name in before}, "nothing is half done"
    again = client.requeue(api.name, ["a1"])
    assert again == {"requeued": [], "refused": [{"id": "a1", "reason": "it is in_queue, not failed"}]}, "safe to repeat"


def test_a_full_queue_takes_no_more(api: Staged) -> None:
    fail(api, "a", "a1", "a2", "a3")
    api.submit("waits")
    done = failures.requeue(api.store, api.name, ["a1", "a2", "a3"], ABOUT, 3)
    assert (done.requeued, [one["id"] for one in done.refused]) == (["a1", "a2"], ["a3"])
    assert "full" in done.refused[0]["reason"]


def test_a_group_goes_back_in_batches_the_oldest_first_and_only_what_had_failed_when_it_began(api: Staged) -> None:
    for number in range(5):
        fail(api, "a", f"a{number}")
    fail(api, "b", "b1")
    api.store.delete(keys.body(api.name, "a1"))
    first = failures.requeue_group(api.store, api.name, MARKS["a"], 86400, ABOUT, 100, 2)
    assert (first.requeued, [one["id"] for one in first.refused], first.remaining) == (["a0"], ["a1"], 3)
    # In the same ms it would be taken for one of those before.
    began = api.store.zscore(keys.alike(api.name, MARKS["a"]), "a4")
    wait_until(lambda: api.store.time()[0] * 1000 + api.store.time()[1] // 1000 > began + 1, "a ms has passed")
    api.commit(take=1)
    api.commit(finish=[("a0", "failed", "", "{}", details(MARKS["a"], [], "", []))], run=2)
    rest = failures.requeue_group(api.store, api.name, MARKS["a"], 86400, ABOUT, 100, 100, first.next or "")
    assert (rest.requeued, rest.refused, rest.next, rest.remaining) == (["a2", "a3", "a4"], [], None, 0)
    assert Records(api.store).get(api.name, "a0").status == "failed", "what fails again is not requeued without end"
    with pytest.raises(BadRequest, match="next"):
        failures.requeue_group(api.store, api.name, MARKS["a"], 86400, ABOUT, 100, 100, "torn")


def test_the_client_requeues_a_large_group_to_its_end_and_says_how_far_it_is(api: Staged, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"a{number:04}" for number in range(2300)]
    for at in range(0, len(ids), 100):
        fail(api, "a", *ids[at : at + 100])
    steps: list[str] = []
    done = client.requeue(api.name, fingerprint=MARKS["a"], progress=steps.append)
    assert sorted(done["requeued"]) == ids
    assert len(steps) == 3
    assert steps[-1] == "2,300 requeued, 2,300 of 2,300 looked at"
    assert client.failures(api.name) == []
    assert len(set(api.store.lrange(keys.queue(api.name), 0, -1))) == api.store.llen(keys.queue(api.name)) == 2300
    (entry,) = client.audit(api.name)
    assert sorted(entry["ids"]) == ids, "one call is one entry, so that it does not push the others out"


def test_an_entry_of_the_audit_does_not_grow_without_end(api: Staged, client: Client) -> None:
    ids = [f"{number:0128}" for number in range(500)]
    for at in range(0, len(ids), 100):
        fail(api, "a", *ids[at : at + 100])
    client.requeue(api.name, fingerprint=MARKS["a"])
    entries = client.audit(api.name)
    assert [len(entry["ids"]) for entry in entries] == [100, 200, 200], "32 kB are about 240 of the longest ids, and they come by the hundred"
    assert sorted(one for entry in entries for one in entry["ids"]) == ids
    assert entries[0]["at"] >= entries[-1]["at"]


def test_every_requeue_can_be_looked_up(api: Staged, client: Client) -> None:
    fail(api, "a", "a1", "a2")
    assert client.audit(api.name) == []
    client.requeue(api.name, ["a1"], source='a "quoted" näme.ipynb\n')
    client.requeue(api.name, ["a1"])
    (entry,) = client.audit(api.name)
    assert (entry["what"], entry["ids"], entry["source"]) == ("requeue", ["a1"], 'a "quoted" näme.ipynb')
    client.requeue(api.name, ["a2"], source="another.ipynb")
    assert [(entry["source"], entry["ids"]) for entry in client.audit(api.name)] == [("another.ipynb", ["a2"]), ('a "quoted" näme.ipynb', ["a1"])]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": ["a"], "fingerprint": "a" * 12},
        {"ids": ["with space"]},
        {"ids": ["a"] * 1001},
        {"fingerprint": "zz"},
        {"fingerprint": "a" * 12, "since": 0},
        {"fingerprint": "a" * 12, "next": "x.y"},
        {"ids": ["a"], "who": "\ud800"},
    ],
)
def test_a_body_that_says_something_else_is_refused(api: Staged, environment: Environment, body: dict[str, Any]) -> None:
    with environment.http(headers={"authorization": f"Bearer {environment.token}", "content-type": "application/json"}) as http:
        answer = http.post(f"/_cortex/v1/apis/{api.name}/requeue", content=json.dumps(body))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(("method", "path"), [("GET", "failures"), ("GET", "audit"), ("POST", "requeue")])
def test_the_routes_want_the_token_and_an_api(api: Staged, environment: Environment, method: str, path: str) -> None:
    with environment.http() as http:
        assert http.request(method, f"/_cortex/v1/apis/{api.name}/{path}", json={"ids": []}).status_code == 401
        token = {"authorization": f"Bearer {environment.token}"}
        answer: httpx.Response = http.request(method, f"/_cortex/v1/apis/nobody/{path}", json={"ids": []}, headers=token)
    assert answer.json()["code"] == ApiNotFound.code


def test_groups_stay_few_and_leave_with_their_workloads(api: Staged) -> None:
    told = [details(f"{number:012x}", [], "", []) for number in range(1005)]
    for at in range(0, 1005, 201):
        ids = [api.submit() for _ in range(201)]
        api.commit(finish=[(one, "failed", "", "{}", told[at + place]) for place, one in enumerate(ids)])
    assert api.store.zcard(keys.groups(api.name)) == 1000
    indexes = list(api.store.scan_iter(f"{keys.prefix(api.name)}:f:*", count=5000))
    assert len(indexes) == 1000, "an index without its group would be kept for nobody"
    assert all(0 < api.store.ttl(key) <= 7 * 86400 for key in [*indexes[:20], keys.groups(api.name)])


def test_a_completed_workload_leaves_no_trace_of_all_this(api: Staged) -> None:
    api.complete(api.submit("done"))
    assert not api.store.exists(keys.groups(api.name))
    assert not {b"fingerprint", b"redacted", b"moved"} & set(api.store.hkeys(keys.record(api.name, "done")))


def test_an_http_answer_has_these_members(api: Staged, environment: Environment) -> None:
    fail(api, "a", "a1")
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as http:
        groups = http.get(f"/_cortex/v1/apis/{api.name}/failures", params={"since": 3600}).json()["groups"]
        said = http.post(f"/_cortex/v1/apis/{api.name}/requeue", json={"fingerprint": MARKS["a"], "who": "me", "source": "a.ipynb"}).json()
    assert list(groups[0]) == ["fingerprint", "type", "message", "place", "frames", "count", "first", "last", "versions", "newest"]
    assert said == {"requeued": ["a1"], "refused": [], "next": None, "remaining": 0}
