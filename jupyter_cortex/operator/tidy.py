"""Removing artifacts that no version needs any more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import redis

from ..core.errors import CortexError
from ..serving.artifacts import Artifacts
from ..store import artifacts as ledger
from ..store.registry import Registry

log = logging.getLogger(__name__)
#: Seconds between two looks; what is due has been due for a day.
LOOK_S = 600.0


def prune(client: redis.Redis, artifacts: Artifacts, now_ms: int) -> list[str]:
    """Remove what is due at ``now_ms`` (ms since the epoch) and of no use; the digests removed. Raises StoreUnavailable."""
    due = ledger.due(client, now_ms)
    if not due:
        return []
    needed = ledger.needed(Registry(client))
    ledger.note(client, needed.intersection(due), now_ms)
    removed = []
    for digest in due:
        if digest in needed or not ledger.is_due(client, digest, now_ms):  # a client has just asked for it
            continue
        artifacts.remove(digest)
        ledger.forget(client, digest)
        removed.append(digest)
    return removed


def start(connect: Callable[[], redis.Redis], artifacts: Artifacts) -> None:
    """Look again and again from a thread of its own: a URL that does not answer must not hold up the operator."""

    def run() -> None:
        client = connect()
        while True:
            try:
                artifacts.tidy(unused=False)
                if removed := prune(client, artifacts, int(time.time() * 1000)):
                    log.info("removed %d artifacts that no version needs", len(removed))
                wait = LOOK_S
            except (CortexError, redis.RedisError, OSError) as error:
                log.warning("artifacts are not tidied away: %s", error)
                wait = LOOK_S / 10
            time.sleep(wait)

    threading.Thread(target=run, name="cortex-tidy", daemon=True).start()
