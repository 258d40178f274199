"""A page sees everything once, then what changes, over lost connections and restarts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import websocket

from ..conftest import ECHO, Environment, ProjectMaker, wait_until
from .conftest import Lab, LabMaker
from .test_routes import Noting, noting

__all__ = ["noting"]


def submit(environment: Environment, api: str, count: int) -> None:
    with environment.http() as http:
        for _ in range(count):
            assert http.post(f"/{api}", json={"a": 1}).status_code == 200


def done(environment: Environment, api: str, count: int) -> None:
    client = environment.client()
    wait_until(lambda: client.get_api(api)["workloads"]["completed"] >= count, f"{count} are completed")


def test_a_page_sees_what_moves_after_its_snapshot(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    project("streamed").deploy(environment)
    said = lab.get("snapshot").json()
    assert said["environment"]["up"]
    listed = {row["name"]: row for row in said["apis"]}
    assert sum(row["accepted"] for row in listed["streamed"]["recent"]) == 0
    assert listed.keys() == said["seq"].keys()
    environment.client().submit("streamed", {"a": 1}, request_id="streamed-1")
    page = lab.page(said["seq"])
    page.until(lambda frame: page.moves("streamed").get("completed"), "the workload is done")
    last = page.frames[-1]
    assert [(one["id"], one["status"]) for one in last["changes"]["streamed"]["workloads"]] == [("streamed-1", "completed")]
    assert {row["name"]: row["workloads"]["completed"] for row in last["apis"]}["streamed"] == 1
    assert page.frames[0]["environment"]["up"]
    assert lab.get("snapshot").json()["apis"][0].keys() == {*last["apis"][0].keys(), "recent"}
    page.close()


def test_a_thousand_moves_are_a_few_frames_and_every_one_is_counted(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    project("thousand").deploy(environment)
    seq = lab.get("snapshot").json()["seq"]
    pages = [lab.page(seq), lab.page(seq)]
    begun = time.monotonic()
    sending = threading.Thread(target=submit, args=(environment, "thousand", 350))
    sending.start()
    for page in pages:
        page.until(lambda frame, page=page: page.moves("thousand").get("completed") == 350, "all are done")
    sending.join()
    assert pages[0].moves("thousand") == pages[1].moves("thousand")
    assert sum(pages[0].moves("thousand").values()) == 1050
    for page in pages:
        told = [frame for frame in page.frames if "thousand" in frame.get("changes", {})]
        assert len(told) <= 10 * (time.monotonic() - begun) + 1, "at most ten frames a second"
        page.close()


def test_two_servers_and_a_restart_tell_the_same(lab: Lab, own_lab: LabMaker, environment: Environment, project: ProjectMaker) -> None:
    project("restarted").deploy(environment)
    page = lab.page({"restarted": "$"})
    at = page.until(lambda frame: "restarted" in frame.get("changes", {}), "where it is")["changes"]["restarted"]["seq"]
    page.close()
    submit(environment, "restarted", 5)
    done(environment, "restarted", 5)
    other = own_lab(environment.home)
    for server in (lab, other):
        page = server.page({"restarted": at})
        page.until(lambda frame, page=page: page.moves("restarted").get("completed") == 5, "what it missed")
        assert page.moves("restarted") == {"in_queue": 5, "in_progress": 5, "completed": 5}
        page.close()


def test_an_environment_that_goes_and_comes_back_is_told_and_nothing_is_missed(
    own_lab: LabMaker, own_environment: Any, project: ProjectMaker
) -> None:
    own = own_environment()
    made = project("comes-back", ECHO)
    made.deploy(own)
    lab = own_lab(own.home)
    page = lab.page(lab.get("snapshot").json()["seq"])
    submit(own, "comes-back", 1)
    page.until(lambda frame: page.moves("comes-back").get("completed") == 1, "it is followed")
    own.down()
    page.until(lambda frame: frame.get("environment", {}).get("up") is False, "it is down")
    told = len(page.frames)
    assert page.frame(2) is None, "that it is down is said once"
    own.up()
    page.until(lambda frame: frame.get("environment", {}).get("up") is True, "it is up again")
    assert len(page.frames) == told + 1
    submit(own, "comes-back", 2)
    page.until(lambda frame: page.moves("comes-back").get("completed") == 3, "and followed as before")
    assert page.moves("comes-back")["in_queue"] == 3
    page.close()


def test_an_api_that_comes_and_one_that_goes_are_told(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    project("goes").deploy(environment)
    page = lab.page(lab.get("snapshot").json()["seq"])
    page.until(lambda frame: "apis" in frame, "it listens")
    os.kill(lab.process.pid, signal.SIGSTOP)
    try:
        project("comes").deploy(environment)
        submit(environment, "comes", 2)
        done(environment, "comes", 2)
    finally:
        os.kill(lab.process.pid, signal.SIGCONT)
    page.until(lambda frame: page.moves("comes").get("completed") == 2, "its first moves")
    assert page.moves("comes")["in_queue"] == 2
    environment.client().delete("goes")
    page.until(lambda frame: "goes" in frame.get("gone", ()), "it is gone")
    page.close()


def test_log_lines_come_while_they_are_followed(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    handler = "class Handler:\n    def handle_async(self, payload):\n        print('line', payload)\n        return {}"
    for name in ("logs-a", "logs-b"):
        project(name, handler).deploy(environment)
    position = lab.get("api/apis/logs-a/logs/tail?lines=5").json()["position"]
    page = lab.page(lab.get("snapshot").json()["seq"], {"logs-a": position})

    def lines(api: str) -> list[str]:
        return [record["message"] for frame in page.frames for record in frame.get("logs", {}).get(api, {}).get("records", ())]

    def say(word: str) -> None:
        for name in ("logs-a", "logs-b"):
            environment.client().submit(name, word)

    say("one")
    page.until(lambda frame: "line one" in lines("logs-a"), "the line of what is followed")
    assert lines("logs-b") == []
    page.follow(logs={"logs-b": "0-0"})
    page.until(lambda frame: "line one" in lines("logs-b"), "the lines of the other, from its beginning")
    say("two")
    page.until(lambda frame: "line two" in lines("logs-b"), "the lines of the other")
    page.follow(logs={})
    say("three")
    page.until(lambda frame: page.moves("logs-b").get("completed") == 3, "it is done")
    assert page.frame(1) is None or "logs" not in page.frames[-1]
    assert lines("logs-a") == ["line one"]
    assert lines("logs-b") == ["line one", "line two"]
    page.close()


def test_following_another_log_tells_no_line_of_the_first_twice(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    handler = "class Handler:\n    def handle_async(self, payload):\n        print('line', payload)\n        return {}"
    for name in ("once-a", "once-b"):
        project(name, handler).deploy(environment)
    page = lab.page(lab.get("snapshot").json()["seq"], {"once-a": "0-0"})

    def lines(api: str) -> list[str]:
        said = [record["message"] for frame in page.frames for record in frame.get("logs", {}).get(api, {}).get("records", ())]
        return [line for line in said if line.startswith("line")]

    environment.client().submit("once-a", "one")
    page.until(lambda frame: lines("once-a") == ["line one"], "the line of the first")
    # Two messages that the server may take as one: the place where the first stands is the server's.
    page.follow(logs={"once-a": None}, turn=2)
    page.follow(logs={"once-a": None, "once-b": "0-0"}, turn=3)
    for name in ("once-a", "once-b"):
        environment.client().submit(name, "two")
    frame = page.until(lambda frame: "line two" in lines("once-a") and "line two" in lines("once-b"), "the lines of both")
    assert lines("once-a") == ["line one", "line two"]
    assert frame["turn"] == 3, "made after the last message"
    # A position that has not been taken yet is not forgotten over a message that goes on with it.
    page.follow(logs={"once-a": "0-0", "once-b": None}, turn=4)
    page.follow(logs={"once-a": None}, turn=5)
    page.until(lambda frame: lines("once-a") == ["line one", "line two", "line one", "line two"], "from its beginning")
    page.close()


def test_a_position_of_another_store_is_a_gap(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    project("gap").deploy(environment)
    page = lab.page({"gap": "9999999999999-0"})
    frame = page.until(lambda frame: "gap" in frame.get("changes", {}), "it is told to load anew")
    assert frame["changes"]["gap"]["gap"] is True
    page.close()


def test_another_environment_in_use_is_followed_from_then_on(own_lab: LabMaker, own_environment: Any, project: ProjectMaker) -> None:
    first, second = own_environment(), own_environment()
    for own, name in ((first, "only-first"), (second, "only-second")):
        project("in-both").deploy(own)
        project(name).deploy(own)
    lab = own_lab(first.home)
    page = lab.page(lab.get("snapshot").json()["seq"])
    page.until(lambda frame: "apis" in frame, "it listens")
    first.cortex("env", "add", "other", second.url, "--token", second.token)
    second.down()
    first.cortex("env", "use", "other")
    frame = page.until(lambda frame: "environment" in frame, "where it points now")
    assert (frame["environment"]["name"], frame["environment"]["url"], frame["environment"]["up"]) == ("other", second.url, False)
    second.up()
    frame = page.until(lambda frame: "environment" in frame, "it is up")
    assert frame["gone"] == ["only-first"]
    assert {row["name"] for row in frame["apis"]} == {"in-both", "only-second"}
    assert frame["changes"]["in-both"]["gap"] is True, "what is shown of it is another environment's"
    submit(second, "in-both", 1)
    page.until(lambda frame: page.moves("in-both").get("completed") == 1, "it is followed there")
    page.close()


def test_nothing_runs_while_no_page_is_open(noting: Noting, own_lab: LabMaker, tmp_path: Path) -> None:
    quiet = {"summaries": [], "complete": False, "registry": 1, "changes": {}, "logs": {}}
    before, noting.answer = noting.answer, (200, "application/json", json.dumps(quiet).encode())
    try:
        lab = own_lab(tmp_path / "home", JUPYTER_CORTEX_URL=noting.url)
        noting.calls.clear()
        time.sleep(1)
        assert noting.calls == [], "before the first page"
        page = lab.page()
        wait_until(lambda: len(noting.calls) > 5, "a page that is open asks")
        page.close()
        wait_until(lambda: _settled(noting), "a page that is closed asks nothing")
        time.sleep(1.5)
        assert _settled(noting)
        assert "[E " not in lab.log.read_text()
    finally:
        noting.answer = before


def test_however_quick_the_answers_are_frames_keep_their_distance(noting: Noting, own_lab: LabMaker, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text("import jupyter_cortex.extension.stream as stream\nstream.FRAME_S = 3600.0\n")
    quiet = {"summaries": [], "complete": False, "registry": 1, "changes": {}, "logs": {}}
    before, noting.answer = noting.answer, (200, "application/json", json.dumps(quiet).encode())
    try:
        lab = own_lab(tmp_path / "home", f"--config={config}", JUPYTER_CORTEX_URL=noting.url)
        noting.calls.clear()
        page = lab.page()
        wait_until(lambda: any(path.endswith("/changes") for _, path, _, _ in noting.calls), "it asks")
        wait_until(lambda: _settled(noting), "it asks no more")
        assert sum(path.endswith("/changes") for _, path, _, _ in noting.calls) == 1
        page.close()
    finally:
        noting.answer = before


def _settled(noting: Noting) -> bool:
    count = len(noting.calls)
    time.sleep(0.5)
    return len(noting.calls) == count


def test_a_page_that_does_not_read_is_let_go(own_lab: LabMaker, environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text("import jupyter_cortex.extension.stream as stream\nstream.SEND_S = 1.0\n")
    lab = own_lab(environment.home, f"--config={config}")
    chatty = "class Handler:\n    def handle_async(self, payload):\n        for _ in range(60):\n            print('x' * 100_000)\n        return {}"
    project("chatty", chatty).deploy(environment)
    address = f"{lab.url.replace('http', 'ws')}/cortex/stream?token={lab.token}"
    deaf = websocket.create_connection(address, sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),), timeout=5)
    deaf.send(json.dumps({"events": {}, "logs": {"chatty": "$"}}))
    time.sleep(0.5)
    for _ in range(4):
        environment.client().submit("chatty", 1)
    wait_until(lambda: "did not take its frames" in lab.log.read_text(), "it was let go")
    with contextlib.closing(deaf), contextlib.suppress(websocket.WebSocketException, OSError):
        while deaf.recv():  # what was on its way; then the end
            pass
    assert lab.page().frame(), "others are served"
