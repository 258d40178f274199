"""Removing artifacts, and Pythons, that no version needs any more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

import redis

from ..core.errors import CortexError
from ..project.installation.pythons import Pythons
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


def prune_pythons(registry: Registry, pythons: Pythons, now: float | None = None, *, running: Iterable[str] = ()) -> list[str]:
    """Remove the Pythons that no version keeps, a day after their last use; their digests. Raises StoreUnavailable.

    Those that run keep theirs, and the one that a rollback without a number brings back; for another one it is made again. ``running``: versions
    (``iris-v3``) that run here whatever the store knows of them: of another store, say.
    """
    if not any(pythons.users().values()):  # nothing that a version has ever used: the store need not be asked
        return pythons.prune((), time.time() if now is None else now)
    needed = set(running)
    for api in registry.all():
        versions = {*registry.active(api.name), api.live, api.wanted} - {0}
        if api.live and (before := registry.live_before(api.name, api.live)):
            versions.add(before)
        needed |= {f"{api.name}-v{version}" for version in versions}
    return pythons.prune(needed, time.time() if now is None else now)


def start(connect: Callable[[], redis.Redis], artifacts: Artifacts, pythons: Pythons) -> None:
    """Look again and again from a thread of its own: a URL that does not answer must not hold up the operator."""

    def run() -> None:
        client = connect()
        while True:
            try:
                artifacts.tidy(unused=False)
                if removed := prune(client, artifacts, int(time.time() * 1000)):
                    log.info("removed %d artifacts that no version needs", len(removed))
                if removed := prune_pythons(Registry(client), pythons):
                    log.info("removed %d Pythons that no version needs", len(removed))
                wait = LOOK_S
            except (CortexError, redis.RedisError, OSError) as error:
                log.warning("artifacts are not tidied away: %s", error)
                wait = LOOK_S / 10
            time.sleep(wait)

    threading.Thread(target=run, name="cortex-tidy", daemon=True).start()
