"""POST, then GET with ``?wait=``, on one connection that is kept: from sending the POST until the completed workload is there, on an idle service.

In the gaps the disk alone is measured: it is written to twice on the way, before the request is accepted and before its result is told.
"""

from __future__ import annotations

import json
import random
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

from disk import disk_of
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
    took, synced = [], []
    with disk_of(stage.directory) as disk:
        for _ in range(31 if quick else 101):
            took.append(_round(connection, path))
            gap = gaps.uniform(*GAPS_S)
            time.sleep(gap / 2)
            synced.append(disk.write() + disk.write())
            time.sleep(gap / 2)
    connection.close()
    stage.delete(NAME)
    # The first finds everything cold.
    return [
        Figure(
            f"POST sent → completed seen by long poll, idle, {name}; peer: the disk alone, two synced writes",
            quantile(took[1:], share),
            "ms",
            quantile(synced[1:], share),
            most=most,
        )
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
