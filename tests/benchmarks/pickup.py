"""Idle pick-up: from the POST's answer to the handler's first line, on a service that has nothing else to do."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from figures import Figure, quantile
from stage import Stage, until

HANDLER = """
    import time

    class Handler:
        def handle_async(self, payload):
            return {"entered": time.time()}
"""
GAPS_S = (0.3, 1.7)


@dataclass(frozen=True)
class Times:
    """Milliseconds of each request."""

    from_answer: list[float]
    from_sending: list[float]


def run(stage: Stage, quick: bool) -> list[Figure]:
    api = stage.deploy("pickup", HANDLER)
    ours = _measure(stage.url, api.endpoint, 30 if quick else 200)
    stage.delete("pickup")
    stage.peer_redis().flushall()
    with stage.server("app:app") as url, stage.dramatiq():
        peer = _measure(url, "/work", 20 if quick else 60)
    figures = []
    for share, most in ((0.5, 3.0), (0.99, 10.0)):
        name = f"p{share * 100:.0f}"
        answer, peers = quantile(ours.from_answer, share), quantile(peer.from_answer, share)
        figures.append(Figure(f"idle pick-up, POST answered → handler entered, {name}", answer, "ms", peers, most=most))
        sending, peers = quantile(ours.from_sending, share), quantile(peer.from_sending, share)
        figures.append(Figure(f"idle pick-up, POST sent → handler entered, {name}", sending, "ms", peers))
    return figures


def _measure(url: str, path: str, count: int) -> Times:
    """``count`` requests, each long after the one before has ended. The first is not counted: it finds everything cold."""
    address = urlsplit(url)
    gaps = random.Random(8)
    sent: list[tuple[float, float, str]] = []
    for _ in range(count + 1):
        connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
        connection.connect()
        began = time.time()
        connection.request("POST", path, b'{"x": 1}', {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        answered = time.time()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"POST {url}{path} answered {answer.status}: {body!r}")
        sent.append((began, answered, json.loads(body)["id"]))
        time.sleep(gaps.uniform(*GAPS_S))
    from_answer, from_sending = [], []
    for began, answered, request_id in sent[1:]:
        entered = until(_entered(url, f"{path}/{request_id}"), f"{request_id} is completed", 30)
        from_answer.append(max(0.0, entered - answered) * 1000)
        from_sending.append((entered - began) * 1000)
    return Times(from_answer, from_sending)


def _entered(url: str, path: str) -> Callable[[], Any]:
    """The handler's own time stamp, None while there is no result."""
    address = urlsplit(url)

    def look() -> float | None:
        connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
        try:
            connection.request("GET", path)
            found = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return found["result"]["entered"] if found["status"] == "completed" else None

    return look
