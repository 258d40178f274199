"""kill -9 of a replica in the middle of a request: how long until the same request runs on the other one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from figures import Figure, quantile
from stage import Stage, until

#: Notes each entry as "time id pid"; the first one is held in the handler so that it can be killed there.
HANDLER = """
    import os, time

    class Handler:
        def __init__(self, config):
            self.file = config["file"]

        def handle_async(self, payload, request_id):
            entered = time.time()
            with open(self.file, "a+") as file:
                file.seek(0)
                again = request_id in file.read()
                file.write(f"{entered} {request_id} {os.getpid()}\\n")
            if not again:
                time.sleep(1.5)
            return {"again": again}
"""
NAME = "kill"
#: Kills of one worker's replicas in a row; then a fresh worker, since its growing waits between restarts are meant for crash loops.
KILLS_OF_A_WORKER = 3


def run(stage: Stage, quick: bool) -> list[Figure]:
    notes = stage.directory / "entries.txt"
    notes.write_text("")
    stage.deploy(NAME, HANDLER, {"file": str(notes)}, autoscaling={"min_replicas": 2})
    waits = []
    for number in range(5 if quick else 20):
        if number and number % KILLS_OF_A_WORKER == 0:
            stage.client.refresh(NAME)
        waits.append(_kill(stage, notes))
    stage.delete(NAME)
    figures = [
        Figure(f"kill -9 in mid-request → running on another replica, {name}", quantile(waits, share) * 1000, "ms", most=most)
        for name, share, most in (("p50", 0.5, None), ("p99", 0.99, 50.0))
    ]
    worst = Figure("kill -9 in mid-request → running on another replica, max", max(waits) * 1000, "ms", most=1000, worst=True)
    return [*figures, worst]


def _kill(stage: Stage, notes: Path) -> float:
    """Seconds from the kill to the second entry."""
    until(lambda: stage.client.get_api(NAME)["ready"] == 2 and _serving(stage) == 2, "two replicas serve")
    request_id = stage.client.submit(NAME, {"x": 1})
    first = until(lambda: _entries(notes, request_id), f"{request_id} runs", 30)[0]
    killed = time.time()
    os.kill(first[1], signal.SIGKILL)
    second = until(lambda: _entries(notes, request_id)[1:], f"{request_id} runs again", 60)[0]
    if second[1] == first[1]:
        raise RuntimeError(f"{request_id} ran again in the process that was killed")
    workload = stage.client.result(NAME, request_id, wait=30)
    if workload.status != "completed":
        raise RuntimeError(f"{request_id} ended {workload.status} after the kill: {workload.error}")
    return second[0] - killed


def _serving(stage: Stage) -> int:
    workers = stage.client.get_api(NAME)["workers"].values()
    return sum(replica["state"] == "serving" for worker in workers for replica in worker["replicas"])


def _entries(notes: Path, request_id: str) -> list[tuple[float, int]]:
    lines = [line.split() for line in notes.read_text().splitlines()]
    return [(float(line[0]), int(line[2])) for line in lines if len(line) == 3 and line[1] == request_id]
