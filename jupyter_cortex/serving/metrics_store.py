"""The metrics client's numbers of all replicas of an API, merged in the store."""

from __future__ import annotations

import json
from typing import Any

import redis

from ..handler import metrics
from ..store import keys


def add(client: redis.Redis, api: str, delta: dict[str, Any]) -> None:
    """Merge one replica's delta into the API's totals; optimistic locking, since several workers may write."""
    key = keys.metrics(api)

    def merge(pipe: Any) -> None:
        raw = pipe.get(key)
        total = metrics.merge(json.loads(raw) if raw else {}, delta)
        pipe.multi()
        pipe.set(key, json.dumps(total))

    client.transaction(merge, key)


def totals(client: redis.Redis, api: str) -> dict[str, Any]:
    raw = client.get(keys.metrics(api))
    return json.loads(raw) if raw else {}  # type: ignore[arg-type]
