"""Giving back what a dead replica held."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from ..store.scripts import RECLAIM

#: A reclaim is repeated after this long: commands that the dead had already sent may still have run.
SECOND_LOOK_S = 0.5


def reclaim(
    client: redis.Redis, api: str, replica: str, spec: dict[str, Any], *, reason: str = "", details: str = "", ran: Iterable[str] = ()
) -> tuple[int, int, list[str]]:
    """Return the unfinished workloads of ``replica`` to the queue at once.

    ``ran``: ids that were inside the handler when it died; they are charged with the death, and fail when it was their last delivery
    (``max_deliveries`` of the spec). Returns (requeued, put aside to run alone, failed ids). Safe to repeat.
    """
    retain = spec["retain"]
    keep = 0 if retain["payload"] == "never" else 1
    reply = RECLAIM.run(client, api, replica, spec["max_deliveries"], retain["days"] * 86400, keep, reason, details, *ran)
    return int(reply[0]), int(reply[1]), [failed.decode() for failed in reply[2:]]
