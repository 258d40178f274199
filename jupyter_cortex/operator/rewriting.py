"""When the embedded store writes its log anew: once reading it would take long, and not because a few large payloads have come."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import redis

#: Bytes of log behind which the store does so by itself, when it has doubled: 512 MB of large payloads are read in less than a second. While it does,
#: it takes one core and half of the disk, and 10 MB more take half as long again.
BYTES_BY_ITSELF = 512 << 20
#: It is told to sooner where these are of many small changes: 40,000 requests of a few bytes are 1,100,000 changes in 50 MB, which take 1 s to read.
BYTES, CHANGES = 64 << 20, 1_000_000
#: Bytes of a small change: what was written before anybody looked counts as such.
CHANGE_BYTES = 46
#: Seconds between two looks; and from one that failed to the next, twice as many each time.
LOOK_S, PAUSE_S, PAUSES_S = 1.0, 60.0, 3600.0


class Rewriting:
    """``directory``: where the log lies. A look costs the store nothing as long as the log is short."""

    def __init__(self, client: redis.Redis, directory: Path) -> None:
        self._client, self._directory = client, directory
        self._size = -1
        #: What a log is known by, its changes when it was begun, and those at the last look.
        self._log: tuple[Any, ...] = ()
        self._begun, self._changes = 0, 0
        self._asked, self._pause, self._refused = -PAUSES_S, PAUSE_S, False

    def look(self) -> bool:
        """Whether the store was told to. Raises redis.RedisError, OSError."""
        size, before = self._behind_the_base(), self._size
        if 0 <= before <= size < BYTES:
            self._size = size
            return False
        facts: Any = self._client.info("persistence")
        base = int(facts.get("aof_base_size", 0))
        grown, changes = int(facts.get("aof_current_size", 0)) - base, int(facts["rdb_changes_since_last_save"])
        log = (base, facts.get("aof_rewrites"))
        if log != self._log or changes < self._changes:  # another one, or another run of the store
            self._log, self._begun = log, changes - grown // CHANGE_BYTES
        self._size, self._changes = size, changes
        if facts.get("aof_rewrite_in_progress") or grown < max(BYTES, base) or changes - self._begun < CHANGES:
            return False
        return self._may_ask(facts, base + grown) and self._ask()

    def _may_ask(self, facts: Any, size: int) -> bool:
        """Not at once again where it failed: each attempt leaves another file, and a full disk behind."""
        if shutil.disk_usage(self._directory).free <= size:
            return False
        now = time.monotonic()
        if facts.get("aof_last_bgrewrite_status", "ok") == "ok" and not self._refused:
            self._pause = PAUSE_S
        elif now - self._asked < self._pause:
            return False
        else:
            self._pause = min(2 * self._pause, PAUSES_S)
        return True

    def _ask(self) -> bool:
        self._asked = time.monotonic()
        try:
            self._client.bgrewriteaof()
        except redis.ResponseError:  # it has begun to by itself, or could not begin
            self._refused = True
        else:
            self._refused = False
        return not self._refused

    def _behind_the_base(self) -> int:
        """Bytes of log behind what it was last written anew; of servers before 7, which have one file, of all of it."""
        lists = [*self._directory.glob("appendonlydir/*.incr.aof"), *self._directory.glob("appendonly.aof")]
        return sum(file.stat().st_size for file in lists)
