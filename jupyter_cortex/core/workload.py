"""A workload's life: its states and what may follow what."""

from __future__ import annotations

from enum import StrEnum


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


class DeploymentState(StrEnum):
    """The states of a deployment (one version of one API)."""

    PENDING = "pending"  #: recorded; the operator has not picked it up
    STARTING = "starting"  #: its replicas import and construct the Handler
    LIVE = "live"  #: it takes the API's workloads
    DRAINING = "draining"  #: a newer one is live; it finishes what it runs
    STOPPED = "stopped"  #: nothing of it runs any more
    FAILED = "failed"  #: it never became live; says why
