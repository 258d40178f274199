"""POST/s and GET/s of one gateway against one uvicorn worker with a hand-written app, and against the floor below both."""

from __future__ import annotations

import json
import urllib.request

from figures import Figure
from load import rate
from stage import ECHO, Stage, until

BODY = '{"x": 1}'
NAME = "throughput"
QUIET = "--no-access-log"


def run(stage: Stage, quick: bool) -> list[Figure]:
    """Nothing runs the workloads meanwhile, neither ours nor the peer's: acceptance alone is measured."""
    seconds = 2 if quick else 5
    endpoint = stage.url + stage.deploy(NAME, ECHO).endpoint
    done = stage.client.submit(NAME, {"x": 1})
    until(lambda: stage.client.result(NAME, done).status == "completed", "a workload is completed")
    stage.stop(NAME)
    peers = stage.peer_redis()
    peers.flushall()
    with stage.server("app:app") as logging, stage.server("app:app", QUIET) as quiet:
        looked_up = _complete(stage, logging)
        post = [rate(url, seconds, BODY) for url in (endpoint, f"{logging}/work", f"{quiet}/work")]
        get = [rate(url, seconds) for url in (f"{endpoint}/{done}", f"{logging}/{looked_up}", f"{quiet}/{looked_up}")]
    with stage.server("floor:app", QUIET, "--lifespan", "off", "--loop", "uvloop", "--http", "httptools") as floor:
        floors = rate(f"{floor}/", seconds, BODY), rate(f"{floor}/", seconds)
    peers.flushall()
    stage.delete(NAME)
    figures = []
    for verb, (ours, peer, silent), floor_rate, ratio, share in (("POST", post, floors[0], 5, 0.45), ("GET", get, floors[1], 3, 0.6)):
        figures += [
            Figure(f"{verb}/s, peer FastAPI + actor.send()", ours, "/s", peer, more_is_better=True, ratio=ratio),
            Figure(f"{verb}/s, the same peer without its access log", ours, "/s", silent, more_is_better=True),
            Figure(f"{verb}/s, peer bare ASGI (the floor)", ours, "/s", floor_rate, more_is_better=True, ratio=share),
        ]
    return figures


def _complete(stage: Stage, url: str) -> str:
    """The path of a workload that the peer's worker has completed; the worker is gone again afterwards."""
    request = urllib.request.Request(f"{url}/work", BODY.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        path = f"work/{json.load(answer)['id']}"

    def completed() -> bool:
        with urllib.request.urlopen(f"{url}/{path}") as answer:
            return json.load(answer)["status"] == "completed"

    with stage.dramatiq():
        until(completed, "the peer has completed a workload", 60)
    return path
