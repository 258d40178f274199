"""Ships a worker's log lines to the store, in batches, from a thread of its own: a store that is away must never block a handler's logging."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque

import redis

from ..store import logs
from ..store.connection import connect

#: Seconds lines wait for company.
GATHER_S = 0.1
BATCH_BYTES = 256 * 1024
#: Lines longer than this are not stored, as in the original.
LINE_BYTES = 5_000_000
#: What is kept while the store is away; beyond it the oldest lines go, and their number is said.
BACKLOG_BYTES = 32 * 1024 * 1024


def _note(lost: int) -> str:
    said = f"{lost} log lines were left out: the store did not take them as fast as they came"
    now = time.time()
    asctime = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f",{int(now % 1 * 1000):03d}"
    return json.dumps({"asctime": asctime, "levelname": "WARNING", "message": said, "process": os.getpid()})


class Shipper:
    def __init__(self, url: str, api: str) -> None:
        self._client = connect(url, timeout=5.0)
        self._api = api
        self._lines: deque[str] = deque()
        self._bytes = 0
        self.lost = 0
        #: Bytes of the batches shipped last, as many as the store may keep.
        self._shipped: deque[int] = deque()
        self._shipped_bytes = 0
        self._flood = False
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="cortex-log-shipper", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        if len(line) > LINE_BYTES:
            self.lost += 1
            return
        with self._lock:
            self._lines.append(line)
            self._bytes += len(line)
            while self._bytes > BACKLOG_BYTES:
                self._bytes -= len(self._lines.popleft())
                self.lost += 1
        self._some.set()

    def _batch(self) -> list[str]:
        batch: list[str] = []
        size = 0
        with self._lock:
            if self.lost and self._lines:
                batch.append(_note(self.lost))
                self.lost = 0
            while self._lines and size < BATCH_BYTES:
                line = self._lines.popleft()
                size += len(line)
                batch.append(line)
            self._bytes -= size
            if not self._lines:
                self._some.clear()
        return batch

    def _kept(self, size: int) -> int:
        """How many batches the store is to keep with one more of so many bytes: in a flood, as many of the last as have `logs.BYTES`."""
        while self._shipped and self._shipped_bytes + size > logs.BYTES:
            self._shipped_bytes -= self._shipped.popleft()
            self._flood = True
        if len(self._shipped) + 1 >= logs.BATCHES:
            self._flood = False
        return len(self._shipped) + 1 if self._flood else logs.BATCHES

    def _was_shipped(self, size: int) -> None:
        self._shipped.append(size)
        self._shipped_bytes += size
        if len(self._shipped) >= logs.BATCHES:
            self._shipped_bytes -= self._shipped.popleft()

    def _run(self) -> None:
        wait = threading.Event()
        while True:
            self._some.wait(1.0 if self._stop else None)
            if not self._stop:
                wait.wait(GATHER_S)
            batch = self._batch()
            if not batch:
                if self._stop:
                    return
                continue
            try:
                size = sum(map(len, batch))
                logs.append(self._client, self._api, batch, self._kept(size))
                self._was_shipped(size)
            except (redis.RedisError, OSError):
                with self._lock:
                    self._lines.extendleft(reversed(batch))
                    self._bytes += sum(map(len, batch))
                    self._some.set()
                if self._stop:
                    return
                wait.wait(0.5)

    def close(self) -> None:
        """Ship what is left, for at most 5 s."""
        self._stop = True
        self._some.set()
        self._thread.join(5)
