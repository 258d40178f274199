"""Giving back what a dead replica held."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from ..core.workload import REPLICA_DIED, Status, staying, stays
from ..handler import fingerprint
from ..handler.execution import details
from ..handler.redaction import Redaction
from ..store import keys
from ..store.records import Records
from ..store.scripts import RECLAIM

#: A reclaim is repeated after this long: commands that the dead had already sent may still have run.
SECOND_LOOK_S = 0.5


def reclaim(
    client: redis.Redis, api: str, replica: str, spec: dict[str, Any], *, reason: str = "", lines: list[str] | None = None, ran: Iterable[str] = ()
) -> tuple[int, int, list[str]]:
    """Return the unfinished workloads of ``replica`` to the queue at once.

    ``ran``: ids that were inside the handler when it died; they are charged with the death, and fail when it was their last delivery
    (``max_deliveries`` of the spec); ``lines`` is what they keep of the log then. Returns (requeued, put aside to run alone, failed ids). Safe to
    repeat.
    """
    retain, ran = spec["retain"], list(ran)
    keep = staying(retain["payload"] != "never" and not retain["redact"], retain["max_bytes"])
    told = details(fingerprint.of_reason(REPLICA_DIED, reason), [], "", lines or [])
    replaced = [part for one in _redacted(client, api, retain, ran) for part in one] if retain["redact"] else []
    reply = RECLAIM.run(client, api, replica, spec["max_deliveries"], retain["days"] * 86400, keep, reason, told, *ran, "", *replaced)
    return int(reply[0]), int(reply[1]), [failed.decode() for failed in reply[2:]]


def _redacted(client: redis.Redis, api: str, retain: dict[str, Any], ran: list[str]) -> list[tuple[str, bytes]]:
    """The payloads that may stay of those that ran, as they may: the replica that would have seen to it is dead."""
    redaction = Redaction(retain["redact"])
    found = []
    rows = Records(client).read({api: ran}, ("status", "type"))[api] if ran else {}
    for request_id, (_, content_type) in rows.items():
        body: Any = client.get(keys.body(api, request_id))
        if body is None or not stays(retain, Status.FAILED, len(body)):
            continue
        kept = redaction.applied(body, (content_type or b"").decode("latin-1"))
        if kept is not None:
            found.append((request_id, b"" if kept is body else kept))
    return found
