"""``GET <endpoint>/<id>/events``: what happens to a workload, in order, once, and again from where it was cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from jupyter_cortex.core.errors import StoreUnavailable
from jupyter_cortex.gateway.events import Follower
from jupyter_cortex.serving.ends import Pulse
from jupyter_cortex.serving.intake import Found, Sight
from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import COMMIT, PROGRESS, RECLAIM

from ..conftest import Environment, ProjectMaker, wait_until
from .living import Event, events
from .stage import REPLICA, Staged, staged
from .test_cancel import Living

FINAL = ("completed", "failed", "cancelled")


@pytest.fixture(scope="module")
def living(environment: Environment, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    made: list[Living] = []

    def get(project: ProjectMaker) -> Living:
        if not made:
            made.append(Living(environment, project, tmp_path_factory.mktemp("events"), "events-of"))
        return made[0]

    return get


@pytest.fixture
def quiet(environment: Environment) -> Any:
    """An API that nobody serves."""
    with staged(environment, "quiet") as made:
        yield made


def kinds(told: list[Event]) -> list[str]:
    return [event.kind for event in told]


def test_a_stream_tells_the_way_through_and_ends_with_what_get_answers(environment: Environment, project: ProjectMaker, living: Any) -> None:
    it = living(project)
    with environment.http() as http:
        request_id = it.submit("steps", steps=4, partial=True)
        path = f"/{it.name}/{request_id}"
        told = list(events(http, f"{path}/events"))
        answer = http.get(path).json()
    assert [kind for at, kind in enumerate(kinds(told)) if kinds(told)[at - 1 : at] != [kind]] in (
        ["in_queue", "in_progress", "progress", "completed"],
        ["in_progress", "progress", "completed"],
    )
    said = [event.data for event in told if event.kind == "progress"]
    assert [one["text"] for one in said][-1] == "done"
    assert [one["fraction"] for one in said] == sorted(one["fraction"] for one in said)
    assert said[-1]["partial"] == {"done": 3}
    assert told[-1].data == answer
    assert len({event.id for event in told}) == len(told)


def test_get_says_how_far_it_is_while_it_runs_and_only_then(environment: Environment, project: ProjectMaker, living: Any) -> None:
    it = living(project)
    request_id = it.submit("steps", steps=8, partial=True)
    with environment.http() as http:
        look = lambda: http.get(f"/{it.name}/{request_id}").json()  # noqa: E731
        seen = wait_until(lambda: (said := look()).get("partial") and said, "a partial result is told")
        assert set(seen) == {"id", "status", "progress", "partial"}
        assert set(seen["progress"]) == {"fraction", "text", "at"}
        it.ends(request_id)
        assert set(look()) == {"id", "status", "result", "timestamp"}
    assert it.client.workload(it.name, request_id)["progress"]["text"] == "done"


def test_a_request_that_floods_its_progress_is_told_ten_times_a_second_and_its_last_word(
    environment: Environment, project: ProjectMaker, living: Any
) -> None:
    it = living(project)
    request_id = it.submit("steps", steps=3000, pause=0.0002)
    with environment.http() as http:
        began = time.monotonic()
        said = [event.data for event in events(http, f"/{it.name}/{request_id}/events") if event.kind == "progress"]
        seconds = time.monotonic() - began
    assert said[-1]["text"] == "done"
    assert len(said) <= 10 * seconds + 3


def test_a_cut_stream_goes_on_without_a_gap_and_tells_nothing_twice(environment: Environment, project: ProjectMaker, living: Any) -> None:
    """The connection is cut at random places, also within an event; what was read whole counts, as in a browser."""
    it = living(project)
    dice = random.Random(7)
    for _ in range(4):
        request_id = it.submit("steps", steps=6, pause=0.11)
        told: list[Event] = []
        cuts = 0
        while not told or told[-1].kind not in FINAL:
            told += _cut(environment, f"/{it.name}/{request_id}/events?logs=true", told[-1].id if told else "", dice.randint(1, 900))
            cuts += 1
        assert cuts > 1
        assert len({event.id for event in told}) == len(told)
        assert [json.loads(json.dumps(event.data))["message"] for event in told if event.kind == "log"] == [f"step {n}" for n in range(6)]
        said = [event.data["fraction"] for event in told if event.kind == "progress"]
        assert said == sorted(set(said))
        assert said[-1] == 1
        assert kinds(told).count("in_progress") == kinds(told).count("completed") == 1


def _cut(environment: Environment, path: str, last: str, most: int) -> list[Event]:
    """The events that came whole in the first ``most`` bytes of an answer."""
    address = urlsplit(environment.url)
    head = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {environment.token}\r\n"
    head += f"Last-Event-ID: {last}\r\n" if last else ""
    raw = b""
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
        connection.sendall((head + "Connection: close\r\n\r\n").encode())
        while len(raw) < most + 200 and (data := connection.recv(most + 200 - len(raw))):
            raw += data
    body = raw.partition(b"\r\n\r\n")[2]
    text = re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", body).decode("utf-8", "ignore")
    whole = text.rpartition("\n\n")[0].split("\n\n")
    found = [dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")) for block in whole if "event: " in block]
    return [Event(one["id"], one["event"], json.loads(one["data"])) for one in found if "data" in one]


def test_who_comes_after_the_end_is_told_it_and_who_has_had_it_is_told_to_stay_away(environment: Environment, quiet: Staged) -> None:
    request_id = quiet.submit("done-already")
    quiet.complete(request_id)
    with environment.http() as http:
        path = f"/{quiet.name}/{request_id}/events"
        (only,) = events(http, path)
        assert (only.kind, only.data["result"]) == ("completed", {})
        again = http.get(path, headers={"last-event-id": only.id})
        assert (again.status_code, again.content) == (204, b"")
        assert http.get(f"/{quiet.name}/nobody/events").status_code == 404
        assert http.post(path).status_code == 405


def test_the_place_in_the_queue_is_told_as_it_gets_nearer(environment: Environment, quiet: Staged) -> None:
    ids = [quiet.submit() for _ in range(4)]
    with environment.http() as http:
        told: list[Event] = []
        for event in events(http, f"/{quiet.name}/{ids[-1]}/events"):
            told.append(event)
            if event.kind == "in_queue":
                COMMIT.run(quiet.store, quiet.name, REPLICA, 1, 3600, "failed", -1, "queue", 1, 1, 0, 0, 0)
                taken = ids[len(told) - 1]
                if taken != ids[-1]:
                    quiet.complete(taken)
            elif event.kind == "in_progress":
                quiet.complete(ids[-1])
    assert [event.data.get("position") for event in told] == [3, 2, 1, 0, None, None]
    assert kinds(told) == ["in_queue"] * 4 + ["in_progress", "completed"]


def test_one_that_waits_again_because_its_replica_died_is_told_as_another_attempt(environment: Environment, quiet: Staged) -> None:
    request_id = quiet.submit("dies")
    take = (quiet.name, REPLICA, 1, 3600, "failed", -1, "queue", 1, 1, 0, 0, 0)
    with environment.http() as http:
        told: list[Event] = []
        for event in events(http, f"/{quiet.name}/{request_id}/events"):
            told.append(event)
            if event.kind == "in_queue":
                COMMIT.run(quiet.store, *take)
            elif event.kind == "in_progress" and event.data["attempt"] == 1:
                PROGRESS.run(quiet.store, quiet.name, REPLICA, 1, request_id, json.dumps({"fraction": 0.5, "text": "", "at": 1}), "")
            elif event.kind == "progress" and event.data["fraction"] == 0.5:
                RECLAIM.run(quiet.store, quiet.name, REPLICA, 3, 3600, 1, "SIGKILL", "{}")
            elif event.kind == "in_progress":
                quiet.complete(request_id)
    assert kinds(told) == ["in_queue", "in_progress", "progress", "in_queue", "in_progress", "progress", "completed"]
    assert [event.data["attempt"] for event in told if event.kind == "in_progress"] == [1, 2]


def test_log_lines_want_the_token_and_come_as_they_are_written(environment: Environment, project: ProjectMaker, living: Any) -> None:
    it = living(project)
    request_id = it.submit("steps", steps=5, pause=0.2)
    path = f"/{it.name}/{request_id}/events?logs=true"
    with environment.http() as http:
        assert http.get(path).status_code == 401
        assert http.get(path.replace("true", "maybe")).status_code == 400
        told = list(events(http, path, authorization=f"Bearer {environment.token}"))
    lines = [event.data for event in told if event.kind == "log"]
    assert [line["message"] for line in lines] == [f"step {number}" for number in range(5)]
    assert {line["request_id"] for line in lines} == {request_id}
    assert kinds(told).index("log") < kinds(told).index("completed") == len(told) - 1


def test_without_the_token_no_line_of_the_log_is_told(environment: Environment, project: ProjectMaker, living: Any) -> None:
    it = living(project)
    with environment.http() as http:
        assert "log" not in kinds(list(events(http, f"/{it.name}/{it.submit('steps', steps=2)}/events")))


def test_pages_of_other_sites_may_follow_only_where_the_spec_says_so(environment: Environment) -> None:
    with staged(environment, "open-door", networking={"allow_origins": ["https://ours.example"]}) as made, environment.http() as http:
        request_id = made.submit()
        made.complete(request_id)
        path = f"/{made.name}/{request_id}/events"
        allowed = http.get(path, headers={"origin": "https://ours.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://ours.example"
        assert http.get(path, headers={"origin": "https://theirs.example"}).status_code == 403
        preflight = http.options(path, headers={"origin": "https://ours.example"}).headers["access-control-allow-headers"]
        assert {"last-event-id", "cortex-timeout", "cortex-queue-timeout"} <= set(preflight.split(", "))


def test_followers_count_among_those_who_wait_and_one_too_many_is_told_how_it_stands(own_environment: Any) -> None:
    environment = own_environment(max_polls="1")
    with staged(environment, "crowd") as made, environment.http() as first, environment.http() as second:
        request_id = made.submit()
        path = f"/{made.name}/{request_id}/events"
        stream = events(first, path)
        assert next(stream).kind == "in_queue"
        refused = second.get(path)
        assert refused.text.startswith("retry: 1000\n\n")
        assert "event: in_queue" in refused.text
        made.complete(request_id)
        assert kinds(list(stream))[-1] == "completed"
        # The place is free again.
        assert second.get(path, headers={"last-event-id": "1.1.0.10001"}).text.count("event: completed") == 1


def test_a_gateway_that_stops_tells_followers_to_come_again_and_the_next_one_goes_on(own_environment: Any) -> None:
    environment = own_environment()
    with staged(environment, "moves") as made:
        request_id = made.submit()
        with environment.http() as http, http.stream("GET", f"/{made.name}/{request_id}/events") as answer:
            lines = answer.iter_lines()
            first = next(line for line in lines if line.startswith("id: "))
            pid = environment.slot("gateway").pid()
            os.kill(pid, signal.SIGTERM)
            assert "retry: 1000" in list(lines)
        wait_until(lambda: environment.slot("gateway").pid() not in (None, pid), "another gateway is there")
        made.complete(request_id)

        def told() -> list[str]:
            with environment.http() as http:
                return kinds(list(events(http, f"/{made.name}/{request_id}/events", first.removeprefix("id: "))))

        assert wait_until(lambda: _quietly(told), "the next gateway answers")[-1] == "completed"


def _quietly(told: Any) -> list[str]:
    try:
        return list(told())
    except httpx.TransportError:
        return []


def test_a_stream_outlives_the_stores_absence(own_environment: Any) -> None:
    environment = own_environment()
    with staged(environment, "stays") as made, environment.http() as http:
        request_id = made.submit()
        stream = events(http, f"/{made.name}/{request_id}/events")
        assert next(stream).kind == "in_queue"
        store = environment.slot("store").pid()
        os.kill(store, signal.SIGKILL)
        wait_until(lambda: environment.slot("store").pid() not in (None, store), "the store is back")
        wait_until(lambda: _completed(made, request_id), "it takes writes")
        assert kinds(list(stream))[-1] == "completed"


def test_an_end_whose_result_cannot_be_read_just_then_is_told_once_it_can() -> None:
    """The stream ended cleanly without it: a reader took that for the end."""
    sight = Sight("completed", None, 2, 3, 1, 1, None, 1, 0)

    class Away:
        looked = 0

        async def see(self, *_: str) -> Sight:
            return sight

        async def get(self, *_: str) -> Found:
            self.looked += 1
            if self.looked == 1:
                raise StoreUnavailable("the store is away")
            return Found("completed", None, b'{"n": 1}', 3)

        @contextlib.asynccontextmanager
        async def hear(self, *_: str) -> Any:
            yield Pulse()

    async def told() -> list[bytes]:
        follower = Follower(Away(), "a", "x", None, "")  # type: ignore[arg-type]
        return [piece async for piece in follower.told()]

    pieces = asyncio.run(told())
    assert [b"event: completed" in piece and b'"n": 1' in piece for piece in pieces if piece] == [True]


def test_following_an_api_s_log_outlives_the_stores_absence(own_environment: Any, project: ProjectMaker) -> None:
    environment = own_environment()
    project("logged", "class Handler:\n    def handle_async(self, payload):\n        print('line', payload)\n        return {}").deploy(environment)
    client = environment.client()
    lines = client.stream_api_logs("logged", 0)
    client.submit("logged", 1)
    assert next(line["message"] for line in lines if "line" in str(line["message"])) == "line 1"
    store = environment.slot("store").pid()
    os.kill(store, signal.SIGKILL)
    wait_until(lambda: environment.slot("store").pid() not in (None, store), "the store is back")
    with environment.http() as web:
        wait_until(lambda: web.get("/readyz").status_code == 200, "it is ready again")
    other = environment.client()
    other.result("logged", other.submit("logged", 2), wait=60)
    assert next(line["message"] for line in lines if "line" in str(line["message"])) == "line 2"
    assert "Traceback" not in (environment.home / "logs" / "gateway.log").read_text()


def _completed(made: Staged, request_id: str) -> bool:
    try:
        made.complete(request_id)
    except (redis.RedisError, OSError):
        return False
    return bool(made.store.hget(keys.record(made.name, request_id), "status") == b"completed")


def test_a_follower_hears_each_end_once(environment: Environment, quiet: Staged) -> None:
    """How soon is printed, not judged."""
    took, heard = [], []
    with environment.http() as http:
        for number in range(30):
            request_id = quiet.submit(f"quick{number}")
            for event in events(http, f"/{quiet.name}/{request_id}/events"):
                heard.append(event.kind)
                if event.kind == "in_queue":
                    began = time.perf_counter()
                    quiet.complete(request_id)
            took.append((time.perf_counter() - began) * 1000)
    print(f"\nfrom the commit to the follower: p50 {statistics.median(took):.2f} ms, max {max(took):.2f} ms")
    assert (heard.count("in_queue"), heard.count("completed")) == (30, 30)
