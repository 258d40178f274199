"""Failing what has waited for longer than its queue timeout, whether or not anybody looks at it.

A worker does it with its heartbeat, the operator now and then for APIs that have none, a gateway for the workload that it is asked for.
"""

from __future__ import annotations

from typing import Any

import redis

from ..store import keys
from ..store.scripts import SWEEP

#: The type of such a failure, as lua/prelude.lua writes it.
QUEUE_TIMEOUT = "QueueTimeout"
#: Workloads that one sweep looks at: 5 ms of the store's time. When more have waited for too long, the next one follows at once.
SWEPT_AT_ONCE = 500


def sweep(client: redis.Redis, api: str, retain: dict[str, Any]) -> tuple[int, int]:
    """Fail what has waited for longer than its queue timeout; (how many, how many more). Raises RedisError or OSError."""
    # Nobody has redacted what never came to a replica: then its payload goes.
    keep = "never" if retain["redact"] else retain["payload"]
    failed, more = SWEEP.run(client, api, retain["days"] * 86400, keep, retain["max_bytes"], SWEPT_AT_ONCE)
    return int(failed), int(more)


def sweep_all(client: redis.Redis, retains: dict[str, dict[str, Any]]) -> None:
    """The same for all these APIs (name -> its ``retain``): one that has no worker must not keep its callers waiting for one."""
    names = list(retains)
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.exists(keys.due(name))
    for name, there in zip(names, pipe.execute() if names else [], strict=True):
        if there:
            sweep(client, name, retains[name])
