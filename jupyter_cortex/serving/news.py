"""What running handlers have said of their progress, until it goes to the store with the replica's next round trip."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable

from ..handler.live import Progress

#: Seconds between two tellings of this replica, whatever its handlers say: what comes in between replaces what was said before.
APART_S = 0.1


class News:
    """The last word of each running request. `put` is called by threads that run handlers, the rest by the I/O thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[str, Progress] = {}  #: of those that run here: a store that lost it is told again
        self._new: dict[str, None] = {}
        #: Ids of which the partial result has not been told yet.
        self._fresh: set[str] = set()
        self._next = 0.0
        #: Whether there is something to tell, and whether anything was said at all; read without the lock, with every turn.
        self.waiting = self.some = False

    def put(self, request_id: str, progress: Progress) -> None:
        with self._lock:
            before = self._said.get(request_id)
            if before is not None and before.partial and not progress.partial:
                progress = Progress(progress.fraction, progress.text, progress.at, before.partial)
            if progress.partial and (before is None or progress.partial is not before.partial):
                self._fresh.add(request_id)
            self._said[request_id] = progress
            self._new[request_id] = None
            self.waiting = self.some = True

    def wait(self, now: float) -> float:
        """Seconds until the next telling."""
        return max(0.0, self._next - now)

    def take(self, now: float, ended: Iterable[str] = ()) -> list[str | bytes]:
        """Id, progress and partial result of each that is to be told now. Those that ``ended`` are told their last word before their end."""
        with self._lock:
            last = [request_id for request_id in ended if request_id in self._said]
            telling = list(self._new) if now >= self._next else [request_id for request_id in last if request_id in self._new]
            told: list[str | bytes] = []
            for request_id in telling:
                said = self._said[request_id]
                partial = said.partial if request_id in self._fresh else b""
                told += [request_id, json.dumps({**said.public(), **({"partial": True} if said.partial else {})}), partial]
                self._fresh.discard(request_id)
                del self._new[request_id]
            for request_id in last:
                self._said.pop(request_id)
                self._new.pop(request_id, None)
                self._fresh.discard(request_id)
            if telling and now >= self._next:
                self._next = now + APART_S
            self.waiting, self.some = bool(self._new), bool(self._said)
        return told

    def again(self) -> None:
        """The connection was lost, and perhaps what was told on it."""
        with self._lock:
            self._new = dict.fromkeys(self._said)
            self._fresh = {request_id for request_id, said in self._said.items() if said.partial}
            self.waiting = bool(self._new)
