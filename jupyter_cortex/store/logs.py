"""An API's log: batches of JSON lines in one capped stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from . import keys
from .connection import store_errors

#: Batches kept per API. A batch is what a worker gathered in 0.1 s, at most 256 kB: usually one to a few hundred lines.
BATCHES = 2000


def append(client: redis.Redis, api: str, lines: Sequence[str]) -> None:
    client.xadd(keys.logs(api), {"l": "\n".join(lines)}, maxlen=BATCHES, approximate=True)


def _split(entries: Any) -> tuple[list[str], str]:
    lines: list[str] = []
    last = ""
    for entry_id, fields in entries:
        last = entry_id.decode()
        lines += fields[b"l"].decode("utf-8", "replace").split("\n")
    return lines, last


def tail(client: redis.Redis, api: str, limit: int) -> tuple[list[str], str]:
    """The last ``limit`` lines, oldest first, and the position after them."""
    with store_errors():
        entries = client.xrevrange(keys.logs(api), count=min(BATCHES, max(1, limit)))
    lines, last = _split(reversed(entries))  # type: ignore[arg-type]
    return lines[-limit:], last or "0-0"


def after(client: redis.Redis, api: str, position: str, count: int = 200) -> tuple[list[str], str]:
    """Up to ``count`` batches behind ``position``, and the new position."""
    with store_errors():
        entries = client.xrange(keys.logs(api), min=f"({position}", count=count)
    lines, last = _split(entries)
    return lines, last or position
