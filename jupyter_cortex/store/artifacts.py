"""Which artifacts are still of use: the store's memory of them, beside which their content lies elsewhere.

Each has the time at which somebody last had a use for it: an upload, a client that asked before it deploys, a deploy. A day later it is looked at:
what a kept version needs counts as used now, anything else goes.
"""

from __future__ import annotations

from collections.abc import Iterable

import redis

from . import keys
from .connection import store_errors, text
from .registry import Registry

#: How long an artifact stays that no version needs (ms): from an upload to its deploy, and from one deploy to the next, it need not travel again.
KEEP_MS = 86_400_000


def note(client: redis.Redis, digests: Iterable[str], now_ms: int) -> None:
    """These are of use now. Raises StoreUnavailable."""
    if times := dict.fromkeys(digests, now_ms):
        with store_errors():
            client.zadd(keys.ARTIFACTS, times, gt=True)


def due(client: redis.Redis, now_ms: int) -> list[str]:
    """Those that nobody had a use for in KEEP_MS."""
    with store_errors():
        return [text(digest) for digest in client.zrangebyscore(keys.ARTIFACTS, "-inf", now_ms - KEEP_MS)]  # type: ignore[union-attr]


def is_due(client: redis.Redis, digest: str, now_ms: int) -> bool:
    with store_errors():
        used = client.zscore(keys.ARTIFACTS, digest)
    return used is not None and float(used) <= now_ms - KEEP_MS  # type: ignore[arg-type]


def forget(client: redis.Redis, digest: str) -> None:
    with store_errors():
        client.zrem(keys.ARTIFACTS, digest)


def needed(registry: Registry) -> set[str]:
    """The artifacts of every version whose bundle is kept: an API's newest and its running ones."""
    found = set()
    for name in registry.names():
        versions = registry.deployments(name)
        versions += [one for version in registry.active(name) if (one := registry.find_deployment(name, version))]
        found |= {artifact["sha256"] for version in versions for artifact in version.spec.get("artifacts", ())}
    return found
