"""A store that reads its data for long answers "LOADING" to whatever it is asked: it counts as away, and nothing of what ends meanwhile is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis

from jupyter_cortex.operator.embedded import server_binary

from ..conftest import Environment, ProjectMaker, wait_until

TOUCHER = """
import pathlib, time

class Handler:
    def handle_async(self, payload, request_id):
        if payload.get("until"):
            while not pathlib.Path(payload["until"]).exists():
                time.sleep(0.01)
            pathlib.Path(payload["until"]).with_suffix(".ended").touch()
        return {"id": request_id}
"""
#: Reading them takes 4 s with so many µs between two of them.
KEYS, DELAY_US = 4000, 1000


@pytest.fixture
def slow_server(tmp_path: Path) -> Path:
    """The store's server, which takes its time to read once the file "slow" lies beside it."""
    program = tmp_path / "slow" / "valkey-server"
    program.parent.mkdir()
    slowly = f"--key-load-delay {DELAY_US} --loading-process-events-interval-bytes 1024"
    program.write_text(f'#!/bin/sh\nif [ -e "{program.parent}/slow" ]; then set -- "$@" {slowly}; fi\nexec "{server_binary()}" "$@"\n')
    program.chmod(0o755)
    return program


def loads(store: redis.Redis) -> bool:
    try:
        return bool(store.info("persistence")["loading"])
    except (redis.RedisError, OSError):
        return False


def test_a_store_that_reads_its_data_for_long_counts_as_away_and_gets_what_ended_meanwhile(
    own_environment: Callable[..., Environment], project: ProjectMaker, slow_server: Path, tmp_path: Path
) -> None:
    environment = own_environment(store_server=str(slow_server), store_wait="0.3")
    project("toucher", TOUCHER).deploy(environment)
    client, store = environment.client(), environment.redis()
    before = client.submit("toucher", {})
    wait_until(lambda: client.result("toucher", before).status == "completed", "one has ended")
    store.mset({f"filling:{number}": "x" * 64 for number in range(KEYS)})
    store.bgrewriteaof()
    wait_until(lambda: not store.info("persistence")["aof_rewrite_in_progress"], "its file is written anew")
    go_on = tmp_path / "go on"
    running = client.submit("toucher", {"until": str(go_on)})
    wait_until(lambda: client.result("toucher", running).status == "in_progress", "one runs")
    replica = environment.processes("replica", "toucher")[0]["pid"]

    (slow_server.parent / "slow").touch()
    killed = environment.slot("store").pid()
    assert killed
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: loads(store), "another store reads its data")
    go_on.touch()
    seen: list[tuple[str, httpx.Response]] = []
    with environment.http() as http:
        wait_until(go_on.with_suffix(".ended").exists, "the handler has ended")
        while loads(store):
            for answer in (http.post("/toucher", json={}), http.get(f"/toucher/{before}"), http.get(f"/toucher/{running}?wait=1")):
                if loads(store):
                    seen.append((str(answer.request.url), answer))
            time.sleep(0.05)
        assert seen, "it read its data too quickly for a look"
        for url, answer in seen:
            assert answer.status_code == 503, f"{url}: {answer.status_code} {answer.text}"
            assert int(answer.headers["retry-after"]) > 0
            assert "reading its data from disk" in answer.text
        wait_until(lambda: http.get(f"/toucher/{running}").status_code == 200, "it serves again")
        assert client.result("toucher", running, wait=30).result == {"id": running}
        assert client.result("toucher", before).status == "completed"
    assert client.workload("toucher", running)["attempts"] == 1, "its end was kept, and it did not run again"
    assert environment.processes("replica", "toucher")[0]["pid"] == replica
