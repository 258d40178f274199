"""A workload's life: its states and what may follow what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

#: The type of the error of a request that ended its replicas.
REPLICA_DIED = "ReplicaDied"
#: What a caller's own request id may look like.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Status(StrEnum):
    """The states of a workload. The first two are open, the last three are final."""

    IN_QUEUE = "in_queue"  #: stored and waiting; also while a replica holds it but has not entered the handler
    IN_PROGRESS = "in_progress"  #: a replica runs it; goes back to in_queue when that replica dies
    COMPLETED = "completed"  #: the handler returned a JSON object; kept for 7 days
    FAILED = "failed"  #: the handler raised, returned something else, or killed its replicas
    CANCELLED = "cancelled"  #: the caller took it back before it finished

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


def stays(retain: Mapping[str, Any], status: str, size: int) -> bool:
    """Whether a payload of so many bytes is kept after this end."""
    wanted = retain["payload"] == "always" or (retain["payload"] == "failed" and status == Status.FAILED)
    return bool(wanted and (retain["max_bytes"] < 0 or size <= retain["max_bytes"]))


def staying(wanted: bool, max_bytes: int) -> str:
    """Which payloads stay, as the store's scripts are told that know a workload's size themselves: "0" none, "1" all, "<=N" those of N bytes."""
    return "0" if not wanted else "1" if max_bytes < 0 else f"<={max_bytes}"


class DeploymentState(StrEnum):
    """The states of a deployment (one version of one API)."""

    PENDING = "pending"  #: recorded; the operator has not picked it up
    STARTING = "starting"  #: its replicas import and construct the Handler
    LIVE = "live"  #: it takes the API's workloads
    REHEARSING = "rehearsing"  #: it runs kept workloads in the shadow, and takes none
    REHEARSED = "rehearsed"  #: the report is there; promoted it is pending, dropped (or after a day) stopped
    DRAINING = "draining"  #: a newer one is live; it finishes what it runs
    STOPPED = "stopped"  #: nothing of it runs any more
    FAILED = "failed"  #: it never became live; says why
