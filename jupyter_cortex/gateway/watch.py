"""Waiting for something to move, for any number of callers with one thread and one connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import redis

from ..store import keys, streams
from ..store.connection import connect

log = logging.getLogger(__name__)

#: How long one look blocks, in ms. A caller that brings a stream nobody waited for joins with the next look, and each looks at the registry once.
LOOK_MS = 200
#: Seconds between two looks while things move: a thousand moves a second must not be a thousand looks.
BUSY_S = 0.02
#: Seconds between two looks while the store is away.
RETRY_S = 0.2
#: Seconds for which a stream stays watched after its last caller: who comes again with the same streams is then heard at once.
LINGER_S = 30.0


class _Waiter:
    def __init__(self, positions: Mapping[str, str], registry: int) -> None:
        self.positions = {name: streams.order(position) for name, position in positions.items()}
        self.registry = registry
        self.since = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()

    def tell(self) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the gateway ends
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Watch:
    """Looks only while somebody waits, and a little after."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._lock = threading.Lock()
        self._waiters: set[_Waiter] = set()
        #: The position of each watched stream behind which nothing is known, and when somebody last waited for it.
        self._seen: dict[str, tuple[int, int]] = {}
        self._used: dict[str, float] = {}
        self._running = False
        self._closed = False

    def close(self) -> None:
        """Nobody waits any more, from within 0.2 s on. May be called by a signal handler, so it takes no lock."""
        self._closed = True

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiters)

    async def news(self, positions: Mapping[str, str], registry: int, gone: asyncio.Future[Any], seconds: float) -> bool:
        """Until an entry stands behind one of ``positions`` (by key), the registry's version is not ``registry``, ``gone`` is done, or time is over.

        What happened since the caller's own look at the store counts, too. Whether something may have moved.
        """
        if self._closed:
            return False
        waiter = _Waiter(positions, registry)
        self._enter(waiter)
        try:
            await asyncio.wait({waiter.done, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with self._lock:
                self._waiters.discard(waiter)
        return waiter.done.done()

    def _enter(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.add(waiter)
            for name, position in waiter.positions.items():
                # The smaller one: what this caller has not seen must be found, whatever others have.
                self._seen[name] = min(position, self._seen.get(name, position))
            self._note_use()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="cortex-changes", daemon=True).start()

    def _note_use(self) -> None:
        now = time.monotonic()
        self._used.update((name, now) for waiter in self._waiters for name in waiter.positions)

    # The thread --------------------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (positions := self._wanted()) is not None:
            begun = time.monotonic()
            try:
                registry, ends = self._look(positions)
            except Exception as error:
                if not isinstance(error, (redis.RedisError, OSError)):
                    log.exception("waiting for changes failed")
                self._tell_all()  # whoever asks the store himself says best what is wrong with it
                time.sleep(RETRY_S)
                continue
            self._tell(registry, ends, begun)
            if self._closed:
                self._tell_all()
            time.sleep(BUSY_S if ends else 0 if positions else LOOK_MS / 1000)

    def _wanted(self) -> dict[str, str] | None:
        """What to watch; None when nobody has waited for a while, and then this thread is none any more."""
        with self._lock:
            self._note_use()
            oldest = time.monotonic() - LINGER_S
            for name in [name for name, used in self._used.items() if used < oldest]:
                del self._used[name]
                del self._seen[name]
            if not self._seen and not self._waiters:
                self._running = False
                return None
            return {name: f"{ms}-{number}" for name, (ms, number) in self._seen.items()}

    def _look(self, positions: dict[str, str]) -> tuple[int, dict[str, str]]:
        """The registry's version, and the ends of the streams that have moved; blocks for one of them to do so."""
        pipe = self._client.pipeline(transaction=False)
        pipe.get(keys.REGISTRY_VERSION)
        if positions:
            streams.add_news(pipe, positions, count=1, block=LOOK_MS)
        registry, *reply = pipe.execute()
        moved = streams.parse_news(reply[0]) if reply else {}
        ends = streams.ends(self._client, moved)
        # A stream that was deleted in between has no end, but had an entry.
        return int(registry or 0), {name: max(ends[name], entries[0][0], key=streams.order) for name, entries in moved.items()}

    def _tell(self, registry: int, ends: dict[str, str], begun: float) -> None:
        news = {name: streams.order(end) for name, end in ends.items()}
        with self._lock:
            self._seen.update(news)
            for waiter in self._waiters:
                # Who came while the look was blocking may know a newer registry than the look does.
                changed = waiter.registry != registry and waiter.since <= begun
                if changed or any(name in news and position < news[name] for name, position in waiter.positions.items()):
                    waiter.tell()

    def _tell_all(self) -> None:
        with self._lock:
            for waiter in self._waiters:
                waiter.tell()
