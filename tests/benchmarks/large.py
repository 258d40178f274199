"""Payloads of 10 MB: what the gateway makes of them beside the floor below it, what memory it takes, and what small requests beside them notice.

One upload at a time. Nothing runs the workloads meanwhile: acceptance alone is measured. JSON is checked before it is accepted, which costs what
``json.loads`` costs, 100 ms and more, and several times the body in the memory of a checker: its rows carry no goal.

The floor throws the body away. What the least of programs makes of it that keeps it (``peers/keeps.py``) says how much of the difference is the
disk's and the digest's.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import disk
import processes
import redis
from figures import Figure, quantile
from stage import ECHO, Stage, until

from jupyter_cortex.serving.upload import MOST_BYTES

NAME = "large"
SIZE = 10_000_000
OCTETS, JSON = "application/octet-stream", "application/json"
#: Uploads for the throughput, and again with small requests beside them.
UPLOADS, UPLOADS_QUICK = 25, 8
#: Bytes that the store's log grows by in a row, and then some.
ALLOCATED = 600_000_000
BARE = ("--no-access-log", "--lifespan", "off", "--loop", "uvloop", "--http", "httptools")
FLOOR, KEEPS = ("floor:app", *BARE), ("keeps:app", *BARE)


def run(stage: Stage, quick: bool) -> list[Figure]:
    uploads = UPLOADS_QUICK if quick else UPLOADS
    octets = random.Random(11).randbytes(SIZE)
    # By default accepted means on disk, and the floor's body goes nowhere: further rows say how much of the difference is the disk.
    figures = _figures(stage, "octet-stream", OCTETS, octets, uploads)
    with TemporaryDirectory(dir=stage.directory) as directory, Stage(Path(directory), appendfsync="everysec") as unsynced:
        without_disk = _accepted(unsynced, OCTETS, octets, uploads, FLOOR)
    return [
        *figures,
        Figure(
            "10 MB octet-stream: accepted, peer the disk itself (1 MB at a time, each synced)",
            _accepted(stage, OCTETS, octets, uploads)[0],
            "MB/s",
            disk.rate(stage.directory, octets, MOST_BYTES, uploads),
            more_is_better=True,
        ),
        Figure(
            "10 MB octet-stream: accepted, peer bare ASGI that keeps it (BLAKE3, one file, synced once)",
            *_both(_accepted(stage, OCTETS, octets, uploads, KEEPS)),
            more_is_better=True,
        ),
        Figure(
            "10 MB octet-stream: bare ASGI that keeps it, peer the one that only reads it (the floor)",
            *_both(_least(stage, octets, uploads)),
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
    with_goal = content_type == OCTETS
    path = stage.deploy(NAME, ECHO).endpoint
    stage.stop(NAME)
    gateway = processes.gateway(stage)
    # A small one first: what the first request of a kind brings in (threads, buffers) is not the payload's.
    upload(stage.url, path, JSON, b"{}", 1)
    idle = processes.resident(gateway)
    processes.forget_peak(gateway)
    ours, floor = _rates(stage, path, content_type, body, uploads, FLOOR)
    small = _small_beside(stage, path, content_type, body, uploads)
    peak = (processes.peak(gateway) - idle) / SIZE
    checker = 0.0 if with_goal else max(processes.peak(child) for child in processes.children(gateway)) / SIZE
    stage.delete(NAME)
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
        *([] if with_goal else [Figure(f"10 MB {kind}: peak memory of the process that checks it, in payloads", checker, "")]),
        Figure(f"10 MB {kind}: small requests beside it, p99", quantile(small, 0.99), "ms", most=50 if with_goal else None),
    ]


def _both(rates: tuple[float, float]) -> tuple[float, str, float]:
    ours, peer = rates
    return ours, "MB/s", peer


def _accepted(stage: Stage, content_type: str, body: bytes, uploads: int, peer: Sequence[str] = ()) -> tuple[float, float]:
    """MB/s of ours and, in turns with it, of the peer; 0 for no peer."""
    path = stage.deploy(NAME, ECHO).endpoint
    stage.stop(NAME)
    upload(stage.url, path, JSON, b"{}", 1)
    rates = _rates(stage, path, content_type, body, uploads, peer) if peer else (upload(stage.url, path, content_type, body, uploads), 0.0)
    stage.delete(NAME)
    return rates


def _rates(stage: Stage, path: str, content_type: str, body: bytes, uploads: int, peer: Sequence[str]) -> tuple[float, float]:
    _settle(stage)
    with stage.server(*peer) as url:
        return _in_turns((stage.url, path), (url, "/"), content_type, body, uploads)


def _settle(stage: Stage) -> None:
    """What earlier rows have left in the store's log, and for the disk to write, is theirs: 512 MB of small requests would be written anew here."""
    written = lambda: not stage.redis.info("persistence")["aof_rewrite_in_progress"]  # type: ignore[index]  # noqa: E731
    # The store may have begun by itself with what the row before has left, and refuses to be told so then.
    until(written, "the log is written anew")
    with suppress(redis.ResponseError):
        stage.redis.bgrewriteaof()
    until(written, "the log is written anew")
    os.sync()
    disk.allocate(stage.home.store / "appendonlydir", ALLOCATED)


def _least(stage: Stage, body: bytes, uploads: int) -> tuple[float, float]:
    """MB/s of the least that keeps a body, and of the floor."""
    with stage.server(*KEEPS) as keeps, stage.server(*FLOOR) as floor:
        return _in_turns((keeps, "/"), (floor, "/"), OCTETS, body, uploads)


def _in_turns(one: tuple[str, str], other: tuple[str, str], content_type: str, body: bytes, uploads: int) -> tuple[float, float]:
    """MB/s of both, the machine's noise being everybody's."""
    rates = [[upload(*where, content_type, body, some) for where in (one, other)] for some in _halves(uploads)]
    first, second = (2 / sum(1 / rate for rate in side) for side in zip(*rates, strict=True))
    return first, second


def _halves(count: int) -> tuple[int, int]:
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
