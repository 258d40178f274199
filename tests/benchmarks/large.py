"""Payloads of 10 MB: what the gateway makes of them beside the floor below it, what memory it takes, and what small requests beside them notice.

One upload at a time. Nothing runs the workloads meanwhile: acceptance alone is measured. JSON is checked before it is accepted, which costs what
``json.loads`` costs, 80 to 500 ms and several times the body in memory: its rows carry no goal.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import disk
import processes
from figures import Figure, quantile
from stage import ECHO, Stage

from jupyter_cortex.serving.upload import PIECE_BYTES

NAME = "large"
SIZE = 10_000_000
OCTETS, JSON = "application/octet-stream", "application/json"
#: Uploads for the throughput, and again with small requests beside them.
UPLOADS, UPLOADS_QUICK = 25, 8
FLOOR = ("floor:app", "--no-access-log", "--lifespan", "off", "--loop", "uvloop", "--http", "httptools")


def run(stage: Stage, quick: bool) -> list[Figure]:
    uploads = UPLOADS_QUICK if quick else UPLOADS
    octets = random.Random(11).randbytes(SIZE)
    # By default accepted means on disk, and the floor's body goes nowhere: two more rows say how much of the difference is the disk.
    with Stage(stage.directory / "everysec", appendfsync="everysec") as unsynced:
        without_disk = _accepted(unsynced, OCTETS, octets, uploads)
    return [
        *_figures(stage, "octet-stream", OCTETS, octets, uploads),
        Figure(
            "10 MB octet-stream: accepted, peer the disk itself (256 kB at a time, each synced)",
            _accepted(stage, OCTETS, octets, uploads, peer=False)[0],
            "MB/s",
            disk.rate(stage.directory, octets, PIECE_BYTES, uploads),
            more_is_better=True,
        ),
        Figure(
            "10 MB octet-stream, appendfsync everysec: accepted, peer bare ASGI reading it (the floor)",
            without_disk[0],
            "MB/s",
            without_disk[1],
            more_is_better=True,
            ratio=0.5,
        ),
        *_figures(stage, "JSON", JSON, _json(), uploads),
    ]


def _figures(stage: Stage, kind: str, content_type: str, body: bytes, uploads: int) -> list[Figure]:
    path = stage.deploy(NAME, ECHO).endpoint
    stage.stop(NAME)
    gateway = processes.gateway(stage)
    # A small one first: what the first request of a kind brings in (threads, buffers) is not the payload's.
    upload(stage.url, path, JSON, b"{}", 1)
    idle = processes.resident(gateway)
    processes.forget_peak(gateway)
    ours, floor = _rates(stage, path, content_type, body, uploads)
    small = _small_beside(stage, path, content_type, body, uploads)
    peak = (processes.peak(gateway) - idle) / SIZE
    stage.delete(NAME)
    with_goal = content_type == OCTETS
    return [
        Figure(
            f"10 MB {kind}: accepted, peer bare ASGI reading it (the floor)",
            ours,
            "MB/s",
            floor,
            more_is_better=True,
            ratio=0.5 if with_goal else None,
        ),
        Figure(f"10 MB {kind}: gateway's peak memory over idle, in payloads", peak, "", most=3 if with_goal else None, worst=True),
        Figure(f"10 MB {kind}: small requests beside it, p99", quantile(small, 0.99), "ms", most=50 if with_goal else None),
    ]


def _accepted(stage: Stage, content_type: str, body: bytes, uploads: int, peer: bool = True) -> tuple[float, float]:
    path = stage.deploy(NAME, ECHO).endpoint
    stage.stop(NAME)
    upload(stage.url, path, JSON, b"{}", 1)
    rates = _rates(stage, path, content_type, body, uploads) if peer else (upload(stage.url, path, content_type, body, uploads), 0.0)
    stage.delete(NAME)
    return rates


def _rates(stage: Stage, path: str, content_type: str, body: bytes, uploads: int) -> tuple[float, float]:
    """MB/s of ours and of the floor."""
    with stage.server(*FLOOR) as floor:
        rates = [(upload(stage.url, path, content_type, body, some), upload(floor, "/", content_type, body, some)) for some in _halves(uploads)]
    ours, floors = (2 / sum(1 / rate for rate in side) for side in zip(*rates, strict=True))
    return ours, floors


def _halves(count: int) -> tuple[int, int]:
    """In turns with the floor, so that the machine's noise is everybody's."""
    return count // 2, count - count // 2


def upload(url: str, path: str, content_type: str, body: bytes, count: int) -> float:
    """MB/s of so many POSTs, one after another on one connection. The first of them is not counted."""
    connection = _connection(url)
    began = 0.0
    for number in range(count + 1):
        if number == 1:
            began = time.perf_counter()
        connection.request("POST", path, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"POST of {len(body)} bytes to {url} answered {answer.status}: {said[:200]!r}")
    took = time.perf_counter() - began
    connection.close()
    return len(body) * count / took / processes.MB


def _small_beside(stage: Stage, path: str, content_type: str, body: bytes, uploads: int) -> list[float]:
    """ms of each small request, POST and GET in turns on one connection, while uploads follow each other on another."""
    over = threading.Event()

    def large() -> None:
        try:
            upload(stage.url, path, content_type, body, uploads)
        finally:
            over.set()

    # Sending from a thread holds up nobody here: it waits in the kernel.
    sending = threading.Thread(target=large)
    connection = _connection(stage.url)
    took = []
    sending.start()
    for method, where, small in _small_requests(connection, path):
        began = time.perf_counter()
        connection.request(method, where, small, {"Content-Type": JSON} if small else {})
        answer = connection.getresponse()
        answer.read()
        took.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"{method} {where} answered {answer.status} beside a large upload")
        if over.is_set():
            break
    sending.join()
    connection.close()
    return took


def _small_requests(connection: HTTPConnection, path: str) -> Iterator[tuple[str, str, bytes | None]]:
    connection.request("POST", path, b'{"x": 1}', {"Content-Type": JSON})
    request_id = json.loads(connection.getresponse().read())["id"]
    while True:
        yield "POST", path, b'{"x": 1}'
        yield "GET", f"{path}/{request_id}", None


def _connection(url: str) -> HTTPConnection:
    address = urlsplit(url)
    return HTTPConnection(address.hostname or "", address.port, timeout=120)


def _json() -> bytes:
    """Records as services send them: names, numbers and short lists."""
    chance = random.Random(12)
    parts: list[str] = []
    size = 2
    while size < SIZE:
        row = {"id": len(parts), "name": f"item {chance.randrange(10**6)}", "score": chance.random(), "tags": [chance.choice("abcdef")] * 3}
        parts.append(json.dumps(row))
        size += len(parts[-1]) + 1
    return f"[{','.join(parts)}]".encode()
