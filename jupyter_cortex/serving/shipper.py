"""Ships a worker's log lines to the store, in batches, from a thread of its own: a store that is away must never block a handler's logging."""

from __future__ import annotations

import threading
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


class Shipper:
    def __init__(self, url: str, api: str) -> None:
        self._client = connect(url, timeout=5.0)
        self._api = api
        self._lines: deque[str] = deque()
        self._bytes = 0
        self.lost = 0
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
            while self._lines and size < BATCH_BYTES:
                line = self._lines.popleft()
                size += len(line)
                batch.append(line)
            self._bytes -= size
            if not self._lines:
                self._some.clear()
        return batch

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
                logs.append(self._client, self._api, batch)
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
