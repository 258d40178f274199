"""What lists show of APIs, each as of one moment, and all of them in one round trip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from ..core.workload import DeploymentState
from .connection import store_errors, text
from .history import COUNTERS
from .scripts import GLANCE


@dataclass(frozen=True)
class Glimpse:
    """What matters of a deployment from afar. ``replicas``: as many as there should be just now; ``least``: min_replicas."""

    version: int
    state: DeploymentState
    replicas: int
    least: int
    capped: str
    digest: str
    error: dict[str, Any]


@dataclass(frozen=True)
class Rehearsed:
    """The version that was rehearsed last, whatever became of it. ``progress``: see `Deployment.rehearsal`; ``failed_at``: ms, 0 where it did not."""

    version: int
    state: DeploymentState
    progress: dict[str, Any]
    error: dict[str, Any]
    failed_at: int


@dataclass(frozen=True)
class Glance:
    """One API. ``live`` and ``wanted``: None where there is no such version. ``minutes``: counters of each with traffic and of the current one."""

    name: str
    endpoint: str
    source: str
    live_version: int
    wanted_version: int
    live: Glimpse | None
    wanted: Glimpse | None
    stopped: bool
    created: int
    updated: int
    workers: list[dict[str, Any]]
    counts: dict[str, int]
    failed_hour: int
    minutes: list[dict[str, int]]
    rehearsed: Rehearsed | None = None


def glances(client: redis.Redis, names: Sequence[str], minutes: int = 1) -> list[Glance]:
    """The APIs of these names that exist, with ``minutes`` of counters up to the current one."""
    with store_errors():
        replies = GLANCE.many(client, [(name, minutes - 1) for name in names]) if names else []
    return [_glance(name, reply) for name, reply in zip(names, replies, strict=True) if reply]


def _glance(name: str, reply: list[Any]) -> Glance:
    _, fields, live, wanted, rehearsed, workers, numbers, minutes = reply
    endpoint, source, live_version, wanted_version, stopped, created, updated, rehearsed_version = (text(field) or "" for field in fields)
    queued, opened, completed, failed, cancelled, failed_hour = numbers
    counts = {"in_queue": queued, "in_progress": max(0, opened - queued), "completed": completed, "failed": failed, "cancelled": cancelled}
    return Glance(
        name=name,
        endpoint=endpoint,
        source=source,
        live_version=int(live_version or 0),
        wanted_version=int(wanted_version or 0),
        live=_glimpse(live_version, live),
        wanted=_glimpse(wanted_version, wanted),
        stopped=stopped == "1",
        created=int(created or 0),
        updated=int(updated or 0),
        workers=[json.loads(worker) for worker in workers],
        counts=counts,
        failed_hour=failed_hour,
        minutes=[{"minute": number * 60, **dict(zip(COUNTERS, map(int, counted), strict=True))} for number, *counted in minutes],
        rehearsed=_rehearsed(rehearsed_version, rehearsed),
    )


def _glimpse(version: str, fields: list[Any]) -> Glimpse | None:
    state, replicas, capped, digest, error, least = map(text, fields or [None] * 6)
    if not state:
        return None
    numbers = int(replicas or 1), int(least or 1)
    return Glimpse(int(version), DeploymentState(state), *numbers, capped or "", digest or "", json.loads(error) if error else {})


def _rehearsed(version: str, fields: list[Any]) -> Rehearsed | None:
    state, progress, error, failed_at = map(text, fields or [None] * 4)
    if not state:
        return None
    told, failure = (json.loads(raw) if raw else {} for raw in (progress, error))
    return Rehearsed(int(version), DeploymentState(state), told, failure, int(failed_at or 0))
