"""Idle pick-up, on services that have nothing else to do: how long until a request is in the handler.

Two ways in. Through HTTP, as a client sees it, beside the hand-written FastAPI app on stock Dramatiq. And without HTTP, which is what the task queues
offer: from before the call that enqueues to the task's first line; ours by a call of the script with which the gateway submits.

All are up side by side and get one request each per gap, in an order that changes, so that the machine's noise is everybody's. So does the disk
alone, with one synced write: ours is picked up after one.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from disk import Disk, disk_of
from figures import Figure, quantile
from peer import OURS, Peer, all_peers
from stage import Stage, until

NAME = "pickup"
HANDLER = """
    import os, struct, time

    class Handler:
        def __init__(self, config):
            self.notes = os.open(config["notes"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

        def handle_async(self, payload):
            entered = time.time()
            os.write(self.notes, struct.pack("qd", payload["number"], entered))
            return {"entered": entered}
"""
GAPS_S = (0.3, 1.7)
#: Between two requests of one gap: longer than any but a sleeping peer takes.
APART_S = 0.02
#: p50 and p99: how many times less than stock Dramatiq, at most so many times huey, at most so many ms.
SHARES = (0.5, 0.99)
DRAMATIQ_RATIO, HUEY_WITHIN, MOST_P99_MS = 100.0, 1.0, 3.0


@dataclass
class Post:
    """Requests to one HTTP service."""

    url: str
    path: str
    #: When it was sent, when it was answered, and its id.
    sent: list[tuple[float, float, str]] = field(default_factory=list)

    def send(self, number: int) -> None:
        connection = _connection(self.url)
        connection.connect()
        began = time.time()
        connection.request("POST", self.path, json.dumps({"number": number}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        answered = time.time()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"POST {self.url}{self.path} answered {answer.status}: {body!r}")
        self.sent.append((began, answered, json.loads(body)["id"]))

    def waits(self) -> tuple[list[float], list[float]]:
        """ms from the answer, and from sending. The first is not counted: it found everything cold."""
        from_answer, from_sending = [], []
        for began, answered, request_id in self.sent[1:]:
            entered = until(_entered(self.url, f"{self.path}/{request_id}"), f"{request_id} is completed", 30)
            from_answer.append(max(0.0, entered - answered) * 1000)
            from_sending.append((entered - began) * 1000)
        return from_answer, from_sending


def run(stage: Stage, quick: bool) -> list[Figure]:
    # Those that keep records of their own enqueue with one more write, and are else the same.
    peers = [peer for peer in all_peers(stage.environments) if not peer.name.endswith("_full")]
    ours = Peer(OURS, stage.environments)
    for one in (ours, *peers):
        one.forget(stage)
    api = stage.deploy(NAME, HANDLER, {"notes": str(ours.notes(stage))})
    stage.peer_redis().flushall()
    with ExitStack() as running:
        app = running.enter_context(stage.server("app:app"))
        running.enter_context(stage.dramatiq())
        for peer in peers:
            running.enter_context(peer.worker(stage))
        queues = {peer.name: running.enter_context(peer.enqueuer(stage)) for peer in peers}
        queues[OURS] = running.enter_context(ours.enqueuer(stage, PEER_REDIS=stage.home.redis_url(), PEER_API=NAME))
        posts = {"ours": Post(stage.url, api.endpoint), "app": Post(app, "/work")}
        disk = running.enter_context(disk_of(stage.directory))
        began, synced = _send(posts, {name: queue.enqueue for name, queue in queues.items()}, disk, 25 if quick else 100)
        waits = {one.name: _waits(stage, one, began[one.name]) for one in (ours, *peers)}
        posted = {name: post.waits() for name, post in posts.items()}
    stage.delete(NAME)
    return [
        figure
        for share in SHARES
        for figure in (*_through_http(posted, share), *_without_http(ours, peers, waits, share), _beside_disk(waits[ours.name], synced, share))
    ]


def _send(
    posts: dict[str, Post], queues: dict[str, Callable[[int], tuple[float, float]]], disk: Disk, count: int
) -> tuple[dict[str, dict[int, float]], list[float]]:
    """``count`` gaps with one request to each; when each task was enqueued, and ms of each write to the disk.

    The first is not counted: it finds everything cold, or still starting.
    """
    synced: list[float] = []
    chance = random.Random(8)
    began: dict[str, dict[int, float]] = {name: {} for name in queues}
    turns = [*posts, *queues, "disk"]
    for number in range(count + 1):
        chance.shuffle(turns)
        for name in turns:
            if name in posts:
                posts[name].send(-1 - number)  # their entries must not be taken for those of the numbers below
            elif name == "disk":
                synced.append(disk.write())
            else:
                began[name][number] = queues[name](number)[0]
            time.sleep(APART_S)
        time.sleep(3.0 if number == 0 else chance.uniform(*GAPS_S))
    for times in began.values():
        del times[0]
    return began, synced[1:]


def _waits(stage: Stage, peer: Peer, began: dict[int, float]) -> list[float]:
    # saq was seen to mislay a job until its sweeper found it, 45 s later.
    until(lambda: began.keys() <= peer.entered(stage).keys(), f"every task of {peer.label} is entered", 150)
    entered = peer.entered(stage)
    return [(entered[number] - at) * 1000 for number, at in began.items()]


def _through_http(posted: dict[str, tuple[list[float], list[float]]], share: float) -> list[Figure]:
    (answered, sent), (app_answered, app_sent) = posted["ours"], posted["app"]
    name, peer = f"idle pick-up p{share * 100:.0f}", "peer FastAPI + actor.send()"
    most = {0.99: MOST_P99_MS}.get(share)
    return [
        Figure(f"{name}, POST answered → handler entered, {peer}", quantile(answered, share), "ms", quantile(app_answered, share), most=most),
        Figure(f"{name}, POST sent → handler entered, {peer}", quantile(sent, share), "ms", quantile(app_sent, share)),
    ]


def _without_http(ours: Peer, peers: list[Peer], waits: dict[str, list[float]], share: float) -> list[Figure]:
    figures = []
    for peer in sorted(peers, key=lambda peer: peer.name not in ("huey", "dramatiq")):
        median = share == 0.5
        figures.append(
            Figure(
                f"idle pick-up p{share * 100:.0f}, enqueue → entered, peer {peer.label}",
                quantile(waits[ours.name], share),
                "ms",
                quantile(waits[peer.name], share),
                ratio=DRAMATIQ_RATIO if median and peer.name == "dramatiq" else None,
                within=HUEY_WITHIN if median and peer.name == "huey" else None,
                most=MOST_P99_MS if not median and peer.name == "huey" else None,
            )
        )
    return figures


def _beside_disk(waits: list[float], synced: list[float], share: float) -> Figure:
    name = f"idle pick-up p{share * 100:.0f}, enqueue → entered, peer the disk alone, one synced write"
    return Figure(name, quantile(waits, share), "ms", quantile(synced, share))


def _connection(url: str) -> HTTPConnection:
    address = urlsplit(url)
    return HTTPConnection(address.hostname or "", address.port, timeout=30)


def _entered(url: str, path: str) -> Callable[[], Any]:
    """The handler's own time stamp, None while there is no result."""

    def look() -> float | None:
        connection = _connection(url)
        try:
            connection.request("GET", path)
            found = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return found["result"]["entered"] if found["status"] == "completed" else None

    return look
