"""One workload, followed to its end: what a shell's line and a cell's widget draw from."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import commands
from ..client import Client, Event
from ..core.errors import CortexError, RouteNotFound
from ..core.workload import FINAL

#: Seconds between two drawings when nothing happens, so that the elapsed time moves; and at least between any two: 10,000 log lines that are
#: drawn one by one take a kernel 9 s, and a browser 490 MB.
TICK_S, DRAW_S = 0.5, 0.1


@dataclass
class Followed:
    """How it stands. ``position``: how many wait in front of it; ``fraction``, ``text`` and ``partial`` (what there is of the result) as its Handler
    said last; ``records``: its log so far."""

    id: str
    status: str = "in_queue"
    position: int | str | None = None
    fraction: float | None = None
    text: str = ""
    partial: Any = None
    records: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def take(self, event: Event) -> None:
        if event.kind == "log":
            self.records.append(event.data)
        elif event.kind == "progress":
            self.fraction, self.text = float(event.data["fraction"]), str(event.data["text"])
            self.partial = event.data.get("partial", self.partial)
        else:
            self.status, self.position = event.kind, event.data.get("position")

    @property
    def words(self) -> str:
        """Where it stands, in a few words."""
        if self.status == "in_queue":
            return "next in the queue" if self.position in (None, 0) else f"{self.position} in front of it"
        return self.text if self.status == "in_progress" else ""


def follow(client: Client, name: str, request_id: str, seconds: float, draw: Callable[[Followed], None]) -> tuple[dict[str, Any], Followed]:
    """Until the workload ends or ``seconds`` are over; as `commands.result` says it then, and what was seen. ``draw`` is called with the news,
    at most ten times a second.

    Raises what the client raises, and KeyboardInterrupt as it comes.
    """
    seen, began = Followed(request_id), time.monotonic()
    if seconds <= 0:
        return commands.result(client, name, request_id), seen
    over = threading.Event()
    news: queue.SimpleQueue[Event | Exception | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(client, name, request_id, over, news), name="cortex-events", daemon=True).start()
    drawn, fresh = 0.0, False
    try:
        while seen.status not in FINAL and (left := seconds - (time.monotonic() - began)) > 0:
            pause = max(0.0, DRAW_S - (time.monotonic() - drawn)) if fresh else TICK_S
            arrived = _waiting(news, min(pause, left))
            for said in arrived:
                if isinstance(said, RouteNotFound):  # a gateway that has no events yet
                    return commands.result(client, name, request_id, left), seen
                if isinstance(said, Exception):
                    raise said
                if said is not None:
                    seen.take(said)
            fresh = fresh or bool(arrived)
            now = time.monotonic()
            if now - drawn >= DRAW_S or seen.status in FINAL:
                seen.seconds, drawn, fresh = now - began, now, False
                draw(seen)
    finally:
        over.set()
    return commands.result(client, name, request_id), seen


def _waiting(news: queue.SimpleQueue[Event | Exception | None], seconds: float) -> list[Event | Exception | None]:
    """What has come, after at most so many seconds."""
    found = []
    with contextlib.suppress(queue.Empty):
        found.append(news.get(timeout=seconds))
        while len(found) < 10_000:  # a handler that logs without end must not keep us from drawing
            found.append(news.get_nowait())
    return found


def _read(client: Client, name: str, request_id: str, over: threading.Event, news: Any) -> None:
    try:
        for event in client.events(name, request_id, logs=bool(client.environment.token), stop=over.is_set):
            news.put(event)
    except CortexError as error:
        news.put(error)
    except Exception as error:  # the other thread must not wait for one that is gone
        news.put(CortexError(f"following {request_id} failed: {error}"))
