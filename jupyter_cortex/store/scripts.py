"""The atomic moves, each a Lua file with a shared prelude; Redis 6.2 and Valkey 9 both run them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from typing import Any

import redis
from redis.exceptions import NoScriptError

from . import keys


class Script:
    """One Lua script. Its only key is an API's prefix. ``bare``: it only reads, and does without the prelude, which costs more than it would."""

    def __init__(self, name: str, *, bare: bool = False) -> None:
        self.name = name
        self._parts = [f"{name}.lua"] if bare else ["prelude.lua", f"{name}.lua"]

    @cached_property
    def source(self) -> bytes:
        folder = resources.files(__package__) / "lua"
        return b"".join((folder / part).read_bytes() for part in self._parts)

    @cached_property
    def sha(self) -> str:
        return hashlib.sha1(self.source, usedforsecurity=False).hexdigest()

    def run(self, client: redis.Redis, api: str, *args: Any) -> Any:
        """Run on the keys of ``api``. A store that forgot the script (restart, flush) is told it again: NOSCRIPT means nothing ran."""
        try:
            return client.execute_command("EVALSHA", self.sha, 1, keys.prefix(api), *args)
        except NoScriptError:
            client.execute_command("SCRIPT LOAD", self.source)
            return client.execute_command("EVALSHA", self.sha, 1, keys.prefix(api), *args)

    def many(self, client: redis.Redis, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies of several calls ``(api, *args)``, which travel together. For scripts that only read: after NOSCRIPT all are sent again."""
        pipe = client.pipeline(transaction=False)
        for api, *args in calls:
            pipe.execute_command("EVALSHA", self.sha, 1, keys.prefix(api), *args)
        commands = list(pipe.command_stack)
        try:
            return list(pipe.execute())
        except NoScriptError:
            client.execute_command("SCRIPT LOAD", self.source)
            pipe.command_stack.extend(commands)
            return list(pipe.execute())


SUBMIT = Script("submit")
PIECE = Script("piece")
COMMIT = Script("commit")
RECLAIM = Script("reclaim")
RESYNC = Script("resync")
BEAT = Script("beat")
REPLICAS = Script("replicas")
CANCEL = Script("cancel")
REQUEUE = Script("requeue")
PROGRESS = Script("progress")
NOTEBOOK = Script("notebook")
OVERRUN = Script("overrun")
SWEEP = Script("sweep")
DEPLOY = Script("deploy")
REHEARSE = Script("rehearse")
CHOOSE = Script("choose")
PROMOTE = Script("promote")
MOVE = Script("move")
STOP = Script("stop")
DELETE = Script("delete")
PURGE = Script("purge")
GLANCE = Script("glance", bare=True)
FOLLOW = Script("follow", bare=True)
READ = Script("read", bare=True)
