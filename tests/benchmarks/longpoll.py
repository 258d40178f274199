"""POST, then GET with ``?wait=``, on one connection that is kept: from sending the POST until the completed workload is there, on an idle service."""

from __future__ import annotations

import json
import random
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

from figures import Figure, quantile
from stage import ECHO, Stage

NAME = "longpoll"
GAPS_S = (0.2, 0.6)
WAIT_S = 10


def run(stage: Stage, quick: bool) -> list[Figure]:
    path = stage.deploy(NAME, ECHO).endpoint
    address = urlsplit(stage.url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
    gaps = random.Random(9)
    took = []
    for _ in range(31 if quick else 101):
        took.append(_round(connection, path))
        time.sleep(gaps.uniform(*GAPS_S))
    connection.close()
    stage.delete(NAME)
    # The first finds everything cold.
    return [
        Figure(f"POST sent → completed seen by long poll, idle, {name}", quantile(took[1:], share), "ms", most=most)
        for name, share, most in (("p50", 0.5, 4.0), ("p99", 0.99, 15.0))
    ]


def _round(connection: HTTPConnection, path: str) -> float:
    began = time.perf_counter()
    connection.request("POST", path, b'{"x": 1}', {"Content-Type": "application/json"})
    request_id = json.loads(connection.getresponse().read())["id"]
    connection.request("GET", f"{path}/{request_id}?wait={WAIT_S}")
    workload = json.loads(connection.getresponse().read())
    took = (time.perf_counter() - began) * 1000
    if workload["status"] != "completed":
        raise RuntimeError(f"the long poll answered {workload}")
    return took
