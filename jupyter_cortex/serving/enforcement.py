"""What must end in a worker's replicas, seen from outside of them: cancels are passed on, and a replica in which one does not end is replaced.

On the normal path it costs nothing: cancels come on a channel that is silent otherwise, deadlines stand on the replicas' boards, and both are
looked at with a heartbeat.
"""

from __future__ import annotations

import contextlib
import json
import logging
import selectors
import time
from collections.abc import Callable
from typing import Any

import hiredis
import redis

from ..core.workload import Status, stays
from ..handler import fingerprint
from ..handler.execution import details
from ..store import keys
from ..store.scripts import OVERRUN
from .interrupting import patience, too_long
from .link import Link
from .process import ReplicaProcess, is_of
from .sweeping import sweep

log = logging.getLogger(__name__)


class Enforcement:
    """``changed``: asks for a heartbeat now. ``spec`` is the deployment's, which may be older than these keys."""

    def __init__(self, url: str, api: str, spec: dict[str, Any], selector: selectors.BaseSelector, changed: Callable[[], None]) -> None:
        self._url, self._api, self._spec, self._selector, self._changed = url, api, spec, selector, changed
        self._kills = spec.get("cancel") == "kill"
        self._patience = patience(spec.get("cancel_grace", 1.0))
        self._link: Link | None = None
        #: Since when (monotonic) which replica was told to end what.
        self._told: dict[tuple[str, str], float] = {}

    # Hearing of cancels ------------------------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Have a subscription. Without one a cancel is seen with the next heartbeat."""
        if self._link is not None:
            return
        try:
            self._link = Link(self._url)
            self._link.send(("SUBSCRIBE", keys.ends_channel(self._api)))
            self._selector.register(self._link, selectors.EVENT_READ, self._hear)
        except (redis.RedisError, OSError):
            self.deafen()

    def deafen(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(link)
            link.close()

    def _hear(self) -> None:
        assert self._link is not None
        try:
            if any(isinstance(said, list) and said[0] == b"message" for said in self._link.receive()):
                self._changed()
        except (OSError, redis.RedisError, hiredis.HiredisError, EOFError):
            self.deafen()

    # With each heartbeat -----------------------------------------------------------------------------------------------------------------

    def look(self, client: redis.Redis, replicas: list[ReplicaProcess], late: list[Any]) -> None:
        """``late``: as beat.lua says it. Raises RedisError or OSError when the store is away: the next beat says the same."""
        self.listen()
        if late[0]:
            self._sweep(client)
        ending = {(replica.decode(), request_id.decode()) for request_id, replica in zip(late[1::2], late[2::2], strict=True)}
        now = time.monotonic()
        self._told = {told: since for told, since in self._told.items() if told in ending}
        for replica in replicas:
            for key in [key for key in ending if key[0] == replica.id and key not in self._told]:
                self._told[key] = now
                replica.tell(f"cancel {key[1]}")
            stuck = self._stuck(replica, now)
            replica.stuck = stuck
            if stuck and self._kills:
                replica.replace(f"{stuck[0]} did not end when it was cancelled")
            self._end_overdue(client, replica, now)

    def _stuck(self, replica: ReplicaProcess, now: float) -> list[str]:
        """What was cancelled long ago and is still inside of a handler."""
        old = [request_id for (held_by, request_id), since in self._told.items() if held_by == replica.id and now - since > self._patience]
        return [request_id for request_id in replica.board.read() if request_id in old] if old else []

    def _end_overdue(self, client: redis.Redis, replica: ReplicaProcess, now: float) -> None:
        """A deadline is a promise: the workload fails, then its replica is replaced."""
        for request_id in replica.board.overdue(now):
            retain = self._spec["retain"]
            timeout = _timeout_of(client, self._api, request_id, self._spec.get("timeout"))
            said = f"{too_long(*timeout)}; it could not be interrupted, so its replica was replaced"
            error = json.dumps({"type": "DeadlineExceeded", "message": said})
            lines = [line for line in replica.tail if is_of(line, request_id)]
            told = details(fingerprint.of_reason("DeadlineExceeded", said), [], "", lines)
            # Its replica cannot redact any more: then its payload goes.
            size: Any = client.hget(keys.record(self._api, request_id), "size")
            keep = stays(retain, Status.FAILED, int(size or 0)) and not retain["redact"]
            OVERRUN.run(client, self._api, request_id, replica.id, retain["days"] * 86400, int(keep), error, told)
            # It may have ended in this very moment; then nobody needs to die.
            if request_id in replica.board.overdue(now):
                replica.replace(f"{request_id} did not end when its time was over")

    def _sweep(self, client: redis.Redis) -> None:
        _, more = sweep(client, self._api, self._spec["retain"])
        if more:
            self._changed()


def _timeout_of(client: redis.Redis, api: str, request_id: str, of_api: float | None) -> tuple[float, str]:
    """Which limit it was: seconds, and whose."""
    raw: Any = client.hget(keys.record(api, request_id), "timeout")
    asked = int(raw) / 1000 if raw else 0.0
    if asked and (not of_api or asked < of_api):
        return asked, "Cortex-Timeout"
    return of_api or 0.0, "the API's timeout"
