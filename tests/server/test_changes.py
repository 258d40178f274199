"""What a page that is open hears: every move once, soon, in few answers, and whether it has missed some."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from jupyter_cortex.gateway.watch import Watch
from jupyter_cortex.operator.home import Home
from jupyter_cortex.store import keys, logs
from jupyter_cortex.store.streams import EVENTS
from tests.conftest import Environment, ProjectMaker, wait_until

from .stage import Staged, staged
from .test_public_http import refused

V1 = "/_cortex/v1"
Stage = Callable[..., Staged]


@pytest.fixture
def control(environment: Environment) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}, limits=limits) as client:
        yield client


@pytest.fixture
def stage(environment: Environment) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield lambda name, **spec: stack.enter_context(staged(environment, name, **spec))


def changes(control: httpx.Client, events: dict[str, str] | None = None, logs: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    answer = control.post(f"{V1}/changes", json={"events": events or {}, "logs": logs or {}, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def now(control: httpx.Client, name: str) -> tuple[str, int]:
    """(sequence number, registry) of this moment."""
    said = changes(control, {name: "$"})
    return said["changes"][name]["seq"], said["registry"]


class Waiting:
    """A caller in a thread."""

    def __init__(self, control: httpx.Client, events: dict[str, str], **more: Any) -> None:
        self.said: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, args=(control, events, more), daemon=True)
        self._thread.start()

    def _run(self, control: httpx.Client, events: dict[str, str], more: dict[str, Any]) -> None:
        self.said = changes(control, events, **{"wait": 20, **more})

    @property
    def answered(self) -> bool:
        return bool(self.said)

    def answer(self) -> dict[str, Any]:
        wait_until(lambda: self.answered, "the caller is answered")
        return self.said


# What is told --------------------------------------------------------------------------------------------------------


def test_each_workload_that_moved_is_told_once_in_its_newest_state(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-moved")
    seq, registry = now(control, api.name)
    first, second, third = (api.submit() for _ in range(3))
    api.commit(take=2)
    api.commit(start=[first, second])
    api.complete(first)
    api.fail(second)
    said = changes(control, {api.name: seq}, registry=registry)
    change = said["changes"][api.name]
    assert change["moves"] == {"in_queue": 3, "in_progress": 2, "completed": 1, "failed": 1}
    assert [(one["id"], one["status"]) for one in change["workloads"]] == [(second, "failed"), (first, "completed"), (third, "in_queue")]
    assert change["workloads"][0] == control.get(f"{V1}/apis/{api.name}/workloads", params={"status": "failed"}).json()["workloads"][0]
    assert (change["more"], change["gap"], said["complete"]) == (0, False, False)
    assert [one["name"] for one in said["summaries"]] == [api.name]
    assert said["summaries"][0]["workloads"] == {"in_queue": 1, "in_progress": 0, "completed": 1, "failed": 1, "cancelled": 0}
    again = changes(control, {api.name: change["seq"]}, registry=said["registry"])
    assert (again["changes"], again["summaries"]) == ({}, [])


def test_from_now_on_tells_the_position_and_nothing_of_the_past(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-now")
    api.submit()
    for asked in ("$", ""):
        change = changes(control, {api.name: asked})["changes"][api.name]
        assert (change["moves"], change["workloads"], change["gap"]) == ({}, [], False)
        request_id = api.submit()
        after = changes(control, {api.name: change["seq"]})["changes"][api.name]
        assert [one["id"] for one in after["workloads"]] == [request_id]


def test_an_api_without_events_is_followed_from_the_beginning(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-first")
    seq, _ = now(control, api.name)
    assert seq == "0-0"
    request_id = api.submit()
    change = changes(control, {api.name: seq})["changes"][api.name]
    assert ([one["id"] for one in change["workloads"]], change["gap"]) == ([request_id], False)


def test_beyond_the_limit_the_newest_are_told_and_the_rest_counted(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-limit")
    seq, _ = now(control, api.name)
    ids = [api.submit() for _ in range(9)]
    change = changes(control, {api.name: seq}, limit=4)["changes"][api.name]
    assert [one["id"] for one in change["workloads"]] == ids[:-5:-1]
    assert (change["more"], change["moves"]) == (5, {"in_queue": 9})


def test_thousands_of_moves_of_one_script_are_one_answer(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-thousands")
    ids = [api.submit() for _ in range(3000)]
    seq, _ = now(control, api.name)
    api.complete(*ids)
    change = changes(control, {api.name: seq}, limit=1000)["changes"][api.name]
    assert (change["moves"], len(change["workloads"]), change["more"]) == ({"completed": 3000}, 1000, 2000)


def test_a_move_of_a_deployment_is_no_workload_even_beside_one_of_that_id(control: httpx.Client, environment: Environment, stage: Stage) -> None:
    api = stage("changes-deployment")
    seq, _ = now(control, api.name)
    api.store.xadd(keys.events(api.name), {"m": "deployment\n1 live"})
    said = changes(control, {api.name: seq})
    assert (said["changes"][api.name]["moves"], said["changes"][api.name]["workloads"]) == ({}, [])
    assert [one["name"] for one in said["summaries"]] == [api.name]
    api.submit("deployment")
    change = changes(control, {api.name: said["changes"][api.name]["seq"]})["changes"][api.name]
    assert (change["moves"], [one["id"] for one in change["workloads"]]) == ({"in_queue": 1}, ["deployment"])


def test_records_that_have_expired_are_left_out(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-expired")
    seq, _ = now(control, api.name)
    gone, there = api.submit(), api.submit()
    api.store.delete(keys.record(api.name, gone))
    change = changes(control, {api.name: seq})["changes"][api.name]
    assert ([one["id"] for one in change["workloads"]], change["moves"], change["more"]) == ([there], {"in_queue": 2}, 0)


def test_log_lines_come_with_their_position(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-logs")
    logs.append(api.store, api.name, ['{"message": "old"}'])
    tail = control.get(f"{V1}/apis/{api.name}/logs/tail").json()
    assert [record["message"] for record in tail["records"]] == ["old"]
    assert changes(control, logs={api.name: tail["position"]})["logs"] == {}
    waiting = Waiting(control, {}, logs={api.name: tail["position"]})
    logs.append(api.store, api.name, ['{"message": "new"}', "no json"])
    said = waiting.answer()["logs"][api.name]
    assert (said["records"], said["gap"]) == ([{"message": "new"}, {"message": "no json"}], False)
    assert changes(control, logs={api.name: said["position"]})["logs"] == {}
    assert changes(control, logs={api.name: "$"})["logs"][api.name] == {"position": said["position"], "records": [], "times": [], "gap": False}


# Waiting -------------------------------------------------------------------------------------------------------------


def test_a_caller_waits_until_something_moves_and_no_longer(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-wait")
    seq, registry = now(control, api.name)
    waiting = Waiting(control, {api.name: seq}, registry=registry)
    time.sleep(0.3)
    assert not waiting.answered
    request_id = api.submit()
    assert [one["id"] for one in waiting.answer()["changes"][api.name]["workloads"]] == [request_id]


def test_nothing_is_lost_between_two_calls(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-between")
    seq, registry = now(control, api.name)
    wanted: list[str] = []
    done = threading.Event()

    def submit() -> None:
        for at in range(200):
            wanted.append(api.submit())
            time.sleep(0.002 * (at % 7))
        done.set()

    threading.Thread(target=submit, daemon=True).start()
    heard: list[str] = []
    answers = 0
    while not done.is_set() or len(heard) < len(wanted):
        said = changes(control, {api.name: seq}, registry=registry, wait=20)
        registry = said["registry"]
        if change := said["changes"].get(api.name):
            seq = change["seq"]
            heard += [one["id"] for one in reversed(change["workloads"])]
            answers += 1
    assert heard == wanted
    assert answers > 3


def test_a_burst_of_500_submits_is_a_few_answers(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-burst")
    seq, registry = now(control, api.name)

    def burst() -> None:
        for _ in range(500):
            api.submit()

    sending = threading.Thread(target=burst)
    sending.start()
    heard: set[str] = set()
    answers = 0
    while len(heard) < 500:
        said = changes(control, {api.name: seq}, registry=registry, wait=20)
        registry = said["registry"]
        change = said["changes"][api.name]
        seq = change["seq"]
        heard |= {one["id"] for one in change["workloads"]}
        answers += 1
    sending.join()
    # Each gathers for 50 ms, whatever time the burst takes here; one by one they would be 500.
    assert answers < 250


def test_fifty_waiting_callers_starve_nobody(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-fifty")
    seq, registry = now(control, api.name)
    callers = [Waiting(control, {api.name: seq}, registry=registry) for _ in range(50)]
    time.sleep(0.5)
    assert not any(caller.answered for caller in callers)
    for _ in range(20):
        assert control.get(f"{V1}/apis/{api.name}").status_code == 200
    assert not any(caller.answered for caller in callers), "a plain look has to wait behind those who wait"
    request_id = api.submit()
    for caller in callers:
        assert [one["id"] for one in caller.answer()["changes"][api.name]["workloads"]] == [request_id]


def test_a_caller_that_joins_others_with_an_older_position_is_answered_at_once(control: httpx.Client, stage: Stage) -> None:
    api, other = stage("changes-older"), stage("changes-other")
    seq, registry = now(control, api.name)
    api.submit()
    newer = changes(control, {api.name: seq})["changes"][api.name]["seq"]
    waits = Waiting(control, {api.name: newer, other.name: "$"}, registry=registry)
    time.sleep(0.2)
    late = changes(control, {api.name: seq}, registry=registry, wait=20)
    assert late["changes"][api.name]["moves"] == {"in_queue": 1}
    assert not waits.answered
    other.submit()
    assert set(waits.answer()["changes"]) == {other.name}


def test_the_time_of_a_wait_ends_it_with_nothing(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-over")
    seq, registry = now(control, api.name)
    longer = Waiting(control, {api.name: seq}, registry=registry)
    said = changes(control, {api.name: seq}, registry=registry, wait=0.4)
    assert (said["changes"], said["summaries"], said["complete"]) == ({}, [], False)
    assert not longer.answered, "it is its own time that ends a wait"
    api.submit()
    assert api.name in longer.answer()["changes"]


def test_a_caller_that_goes_away_is_forgotten_at_once(environment: Environment, stage: Stage) -> None:
    api = stage("changes-gone")
    watch = Watch(Home(environment.home).redis_url())

    async def wait_and_go() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[None] = loop.create_future()
        loop.call_later(0.2, gone.set_result, None)
        async with asyncio.timeout(60):
            # An hour: only its going can end it.
            moved = await watch.news({keys.events(api.name): "0-0"}, int(api.store.get(keys.REGISTRY_VERSION) or 0), gone, 3600)
        return moved, gone.done()

    assert asyncio.run(wait_and_go()) == (False, True)
    assert watch.waiting == 0
    watch.close()


def test_a_move_between_a_callers_own_look_and_its_wait_counts(environment: Environment, stage: Stage) -> None:
    api = stage("changes-race")
    watch = Watch(Home(environment.home).redis_url())
    name = keys.events(api.name)
    registry = int(api.store.get(keys.REGISTRY_VERSION) or 0)  # type: ignore[arg-type]

    async def news(position: str, seconds: float) -> bool:
        return await watch.news({name: position}, registry, asyncio.get_running_loop().create_future(), seconds)

    async def two_callers() -> tuple[bool, bool]:
        api.submit()
        end: Any = api.store.xrevrange(name, count=1)
        newer = asyncio.ensure_future(news(end[0][0].decode(), 2))
        await asyncio.sleep(0.3)
        return await news("0-0", 10), await newer

    assert asyncio.run(two_callers()) == (True, False)
    watch.close()


def test_an_environment_goes_down_without_waiting_for_those_who_wait(own_environment: Callable[..., Environment]) -> None:
    environment = own_environment()
    gateway = environment.slot("gateway")
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as control:
        waiting = Waiting(control, {})
        time.sleep(0.3)
        pid = gateway.pid()
        assert pid is not None
        os.kill(environment.slot("operator").pid() or 0, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: gateway.pid() != pid, "the gateway has ended")
        # One who is not released gets no answer: his connection is cut when the gateway's 5 s are over.
        assert waiting.answer()["changes"] == {}


def test_a_store_that_goes_away_ends_the_wait_and_positions_hold_when_it_is_back(own_environment: Callable[..., Environment]) -> None:
    environment = own_environment()
    with environment.redis() as store:
        api = Staged(store, "changes-store")
        with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as control:
            first = api.submit()
            seq, registry = now(control, api.name)
            answers: list[httpx.Response] = []

            def wait() -> None:
                answers.append(control.post(f"{V1}/changes", json={"events": {api.name: seq}, "registry": registry, "wait": 20}))

            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(0.3)
            os.kill(environment.processes("store")[0]["pid"], signal.SIGKILL)
            waiting.join(15)
            assert not waiting.is_alive(), "it would wait for a store that has forgotten it"
            # 503, or the answer of the store that was started again in the meantime.
            assert answers[0].status_code in (200, 503)
            wait_until(lambda: control.get("/readyz").status_code == 200, "the store is back")
            assert changes(control, {api.name: seq}, registry=registry)["changes"] == {}
            second = api.submit()
            later = changes(control, {api.name: seq}, registry=registry, wait=20)["changes"][api.name]
            assert [one["id"] for one in later["workloads"]] == [second]
            assert {one["id"] for one in changes(control, {api.name: "0-0"})["changes"][api.name]["workloads"]} == {first, second}


# The registry --------------------------------------------------------------------------------------------------------


def test_a_change_of_the_registry_is_a_complete_answer(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-registry")
    seq, registry = now(control, api.name)
    waiting = Waiting(control, {api.name: seq}, registry=registry)
    later = stage("changes-later")
    said = waiting.answer()
    assert said["complete"]
    assert {api.name, later.name} <= {one["name"] for one in said["summaries"]}
    assert said["registry"] > registry


def test_a_change_of_the_registry_between_two_calls_is_told_to_who_says_what_he_knows(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-missed")
    seq, registry = now(control, api.name)
    assert control.post(f"{V1}/apis/{api.name}/stop").status_code == 200
    said = changes(control, {api.name: seq}, registry=registry, wait=20)
    assert said["complete"]
    assert next(one["status"] for one in said["summaries"] if one["name"] == api.name) == "stopped"


def test_an_api_that_is_deleted_while_somebody_waits_is_not_listed_any_more(control: httpx.Client, stage: Stage) -> None:
    api, other = stage("changes-deleted"), stage("changes-stays")
    seq, registry = now(control, api.name)
    waiting = Waiting(control, {api.name: seq, other.name: "$"}, registry=registry)
    assert control.delete(f"{V1}/apis/{api.name}").status_code == 200
    said = waiting.answer()
    names = {one["name"] for one in said["summaries"]}
    assert (said["complete"], api.name in names, other.name in names) == (True, False, True)


def test_an_unknown_api_makes_the_answer_complete_and_is_no_error(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-known")
    for hostile in ("changes-never", "", "x}:y{", "a b", "\u00fc\u0000", "x" * 5000, "../..", "deployment"):
        said = changes(control, {hostile: "0-0", api.name: "$"}, logs={hostile: "$"}, wait=20)
        assert said["complete"]
        assert api.name in {one["name"] for one in said["summaries"]}
        assert (set(said["changes"]), said["logs"]) == ({api.name}, {})


def test_complete_lists_every_api(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-complete")
    said = changes(control, complete=True)
    assert said["complete"]
    listed = {one["name"]: one for one in control.get(f"{V1}/apis").json()}
    assert {one["name"] for one in said["summaries"]} == set(listed)
    assert next(one for one in said["summaries"] if one["name"] == api.name).keys() == listed[api.name].keys()


def test_a_replica_that_becomes_ready_or_dies_is_told(environment: Environment, project: ProjectMaker, control: httpx.Client) -> None:
    project("changes-replicas").deploy(environment)
    try:

        def ready(said: dict[str, Any]) -> list[int]:
            return [one["ready"] for one in said["summaries"] if one["name"] == "changes-replicas"]

        wait_until(lambda: ready(changes(control, complete=True)) == [1], "it serves")
        seq, registry = now(control, "changes-replicas")
        heard: list[int] = []

        def pids() -> set[int]:
            workers = environment.client().get_api("changes-replicas")["workers"].values()
            return {r["pid"] for w in workers for r in w["replicas"]}

        killed = pids()
        os.kill(next(iter(killed)), signal.SIGKILL)
        deadline = time.monotonic() + 60
        # Between two answers it may have gone and come: then one says so.
        while (not heard or heard[-1] != 1 or pids() & killed) and time.monotonic() < deadline:
            said = changes(control, {"changes-replicas": seq}, registry=registry, wait=20)
            seq, registry = said["changes"].get("changes-replicas", {}).get("seq", seq), said["registry"]
            heard += ready(said)
        assert heard
        assert heard[-1] == 1
        assert not pids() & killed
    finally:
        environment.client().delete("changes-replicas")


# Gaps ----------------------------------------------------------------------------------------------------------------


def test_a_position_that_the_stream_no_longer_holds_is_a_gap(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-gap")
    seq, _ = now(control, api.name)
    api.submit()
    old = changes(control, {api.name: seq})["changes"][api.name]["seq"]
    pipe = api.store.pipeline(transaction=False)
    for _ in range(EVENTS + 300):
        pipe.xadd(keys.events(api.name), {"m": "deployment\n1 staged"}, maxlen=EVENTS, approximate=True)
    pipe.execute()
    last: Any = api.store.xrevrange(keys.events(api.name), count=1)
    end = last[0][0].decode()
    for position in (old, "0-0", "5-0"):
        change = changes(control, {api.name: position}, wait=20)["changes"][api.name]
        assert (change["gap"], change["seq"]) == (True, end), position
    request_id = api.submit()
    after = changes(control, {api.name: end})["changes"][api.name]
    assert (after["gap"], [one["id"] for one in after["workloads"]]) == (False, [request_id])


def test_who_is_behind_but_has_lost_nothing_gets_all_in_turn(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-behind")
    seq, _ = now(control, api.name)
    pipe = api.store.pipeline(transaction=False)
    for at in range(2500):
        pipe.xadd(keys.events(api.name), {"m": f"id{at}\nin_queue"}, maxlen=EVENTS, approximate=True)
    pipe.execute()
    total = 0
    for _ in range(3):
        change = changes(control, {api.name: seq}, wait=20)["changes"][api.name]
        assert not change["gap"]
        seq, total = change["seq"], total + change["moves"]["in_queue"]
    assert total == 2500
    assert changes(control, {api.name: seq})["changes"] == {}


def test_a_position_of_another_store_is_a_gap_and_waits_for_nothing(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-future")
    api.submit()
    end, _ = now(control, api.name)
    for position in (f"{int(time.time() * 1000) + 10**8}-0", "9999999999999999999-9999999999999999999"):
        change = changes(control, {api.name: position}, {api.name: position}, wait=20)["changes"][api.name]
        assert (change["gap"], change["seq"]) == (True, end)


def test_lines_that_were_left_out_are_a_gap(control: httpx.Client, stage: Stage) -> None:
    api = stage("changes-loggap")
    logs.append(api.store, api.name, ["first"])
    old = control.get(f"{V1}/apis/{api.name}/logs/tail").json()["position"]
    for _ in range(logs.BATCHES + 300):
        logs.append(api.store, api.name, ["x"])
    said = changes(control, logs={api.name: old})["logs"][api.name]
    assert (said["gap"], said["records"]) == (True, [])
    assert said["position"] == control.get(f"{V1}/apis/{api.name}/logs/tail").json()["position"]


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"events": []}',
        b'{"events": {"x": 1}}',
        b'{"events": {"x": "nonsense"}}',
        b'{"events": {"x": "1-"}}',
        b'{"events": {"x": "1-1\\n"}}',
        b'{"events": {"x": "\xc2\xb2-1"}}',
        b'{"events": {"x": "99999999999999999999-1"}}',
        b'{"events": {"\\ud800": "nonsense"}}',
        b'{"events": {"x": "\xd9\xa1-1"}}',
        b'{"logs": {"x": "\\ud800"}}',
        b'{"wait": 21}',
        b'{"wait": -1}',
        b'{"wait": NaN}',
        b'{"wait": "long"}',
        b'{"limit": 0}',
        b'{"limit": 1001}',
        b'{"registry": "x"}',
        b'{"registry": 1e400}',
        b"[" * 100_000,
        b'{"events": {' + b", ".join(b'"a%d": "1-1"' % at for at in range(2001)) + b"}}",
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(body: bytes, control: httpx.Client) -> None:
    answer = control.post(f"{V1}/changes", content=body, headers={"content-type": "application/json"})
    assert refused(answer, 400, "bad_request")["detail"]


def test_a_wrong_position_is_refused_with_the_remedy(control: httpx.Client) -> None:
    answer = control.post(f"{V1}/changes", json={"events": {"x": "12"}})
    assert "earlier answer" in refused(answer, 400, "bad_request")["detail"]
