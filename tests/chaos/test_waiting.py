"""Long polls while the store goes away and comes back: each is told the end, none hangs, none is an error of ours."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from ..conftest import Environment, ProjectMaker, wait_until

NAPPER = """
import time

class Handler:
    def handle_async(self, payload, request_id):
        time.sleep(payload["nap"])
        return {"id": request_id}
"""
POLLS = 16


def wait_for_end(environment: Environment, request_id: str, seen: list[int]) -> dict[str, object]:
    """Long polls until the end, as a careful caller does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with environment.http() as http:
            try:
                answer = http.get(f"/napper/{request_id}?wait=20")
            except httpx.TransportError:
                continue
        seen.append(answer.status_code)
        if answer.status_code == 200 and answer.json()["status"] == "completed":
            return dict(answer.json())
    raise AssertionError(f"no long poll was told the end of {request_id}")


def test_long_polls_outlast_cut_connections_and_a_killed_store(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    project("napper", NAPPER, handler_spec=f"threads_per_process: {POLLS}").deploy(environment)
    store = environment.redis()
    seen: list[int] = []
    with ThreadPoolExecutor(POLLS) as pool:
        for fault in ("cut", "killed"):
            ids = [environment.client().submit("napper", {"nap": 4 + number / POLLS}) for number in range(POLLS)]
            asked = [pool.submit(wait_for_end, environment, request_id, seen) for request_id in ids]
            wait_until(lambda: len(store.pubsub_channels()) > POLLS // 2, "most of them wait")
            if fault == "cut":
                for _ in range(20):
                    store.client_kill_filter(_type="pubsub", skipme=True)
                    time.sleep(0.05)
            else:
                killed = environment.slot("store").pid()
                assert killed
                os.kill(killed, signal.SIGKILL)
                wait_until(lambda killed=killed: environment.slot("store").pid() not in (None, killed), "another store runs")
            assert [one.result()["result"] for one in asked] == [{"id": request_id} for request_id in ids]
            # Who waits now hears of it as soon as it ends, not when his time is over.
            assert wait_for_end(environment, environment.client().submit("napper", {"nap": 0.5}), seen)["status"] == "completed"
    assert set(seen) <= {200, 503}, (environment.home / "logs" / "gateway.log").read_text()[-5000:]


def test_a_long_poll_that_began_while_the_store_was_away_does_not_spoil_the_next(
    own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    environment = own_environment(store_wait="0.3")
    project("napper", NAPPER).deploy(environment)
    request_id = environment.client().submit("napper", {"nap": 0})
    operator, store = environment.slot("operator").pid(), environment.slot("store").pid()
    assert operator
    assert store
    # Nobody starts the store again for as long as the operator sleeps.
    os.kill(operator, signal.SIGSTOP)
    try:
        os.kill(store, signal.SIGKILL)
        with environment.http() as http:
            answer = http.get(f"/napper/{request_id}?wait=1")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    finally:
        os.kill(operator, signal.SIGCONT)
    seen: list[int] = []
    assert wait_for_end(environment, request_id, seen)["status"] == "completed"
    assert wait_for_end(environment, environment.client().submit("napper", {"nap": 1}), seen)["status"] == "completed"


def test_pub_sub_is_only_used_while_somebody_waits(environment: Environment, project: ProjectMaker) -> None:
    project("napper", NAPPER).deploy(environment)
    with environment.redis() as store, environment.http() as http:
        request_id = environment.client().submit("napper", {"nap": 0})
        assert http.get(f"/napper/{request_id}?wait=20").json()["status"] == "completed"
        quiet: Callable[[], bool] = lambda: not [name for name in store.pubsub_channels() if request_id.encode() in name]  # noqa: E731
        wait_until(quiet, "nobody listens for it any more")
    environment.client().delete("napper")
