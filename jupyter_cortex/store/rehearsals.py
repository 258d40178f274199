"""What a rehearsal runs, and what came of it."""

from __future__ import annotations

import json
import zlib
from typing import Any

import redis

from ..core.errors import DeploymentNotFound
from ..core.workload import Status
from . import keys, listing
from .connection import store_errors

#: Workloads of one rehearsal.
MOST = 1000
#: Seconds for which a rehearsal, or its report, waits for somebody to decide.
UNDECIDED_S = 86400
#: Workloads that are looked at for each one that is wanted: those whose payload was not kept then are passed over.
LOOKED_AT = 5


def choose(client: redis.Redis, api: str, wanted: int) -> list[str]:
    """The ids of the last workloads that ended with an answer and whose payload is kept, the oldest first."""
    found: list[str] = []
    cursor, seen = "", 0
    while len(found) < wanted and seen < LOOKED_AT * wanted:
        page = listing.page(client, api, frozenset({Status.COMPLETED, Status.FAILED}), min(500, LOOKED_AT * wanted - seen), cursor)
        with store_errors():
            pipe = client.pipeline(transaction=False)
            for record in page.records:
                pipe.exists(keys.body(api, record.id))
            kept = pipe.execute() if page.records else []
        found += [record.id for record, there in zip(page.records, kept, strict=True) if there]
        seen += len(page.records)
        if page.next is None:
            break
        cursor = page.next
    return found[:wanted][::-1]


def ids(client: redis.Redis, api: str, version: int) -> list[str]:
    with store_errors():
        raw: Any = client.hget(keys.deployment(api, version), "rehearsal_ids")
    return list(json.loads(raw)) if raw else []


def put(client: redis.Redis, api: str, version: int, report: dict[str, Any], days: int) -> None:
    """It tells of results, so it goes when they do."""
    with store_errors():
        client.set(keys.rehearsal(api, version), zlib.compress(json.dumps(report).encode()), ex=days * 86400)


def get(client: redis.Redis, api: str, version: int) -> dict[str, Any] | None:
    """None while there is none."""
    with store_errors():
        data: Any = client.get(keys.rehearsal(api, version))
    return None if data is None else json.loads(zlib.decompress(data))


def get_known(client: redis.Redis, api: str, version: int) -> dict[str, Any]:
    """Raises DeploymentNotFound."""
    report = get(client, api, version)
    if report is None:
        raise DeploymentNotFound(f"{api} version {version} has no report of a rehearsal: it had none, it was dropped, or that was days ago")
    return report
