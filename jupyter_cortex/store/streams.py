"""Reading streams from a position on: an API's events and its log.

A position is the id of the last entry somebody has seen ("0-0": none yet). Ids begin with the store's time in ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from ..core.workload import Status
from . import keys
from .connection import store_errors, text

#: Entries that lua/prelude.lua keeps of an API's events; a stream that holds fewer was never cut.
EVENTS = 10_000
#: A field of an entry that was added when older ones had gone, though the stream holds fewer than its cap: they were too large.
CUT = "c"
POSITION = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
BEGINNING = "0-0"

#: Of a stream: ids and fields, oldest first.
Entries = list[tuple[str, dict[bytes, bytes]]]


def order(position: str) -> tuple[int, int]:
    """Positions in the order of time."""
    ms, _, number = position.partition("-")
    return int(ms), int(number)


def add_news(pipe: Any, positions: Mapping[str, str], count: int, block: int | None = None) -> None:
    """Ask for up to ``count`` entries behind each position, by key; ``block``: ms to wait for a first one. `parse_news` reads the reply.

    One command over several keys: in a Redis Cluster the keys of two APIs lie in two slots, and it would be refused; there, each slot must be asked.
    """
    pipe.xread(dict(positions), count=count, block=block)


def parse_news(reply: Any) -> dict[str, Entries]:
    return {text(key): [(text(entry_id), fields) for entry_id, fields in entries] for key, entries in reply or ()}


def ends(client: redis.Redis, names: Iterable[str]) -> dict[str, str]:
    """The position behind the last entry of each stream."""
    names = list(names)
    with store_errors():
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.xrevrange(name, count=1)
        replies = pipe.execute() if names else []
    return {name: text(reply[0][0]) if reply else BEGINNING for name, reply in zip(names, replies, strict=True)}


def cut(client: redis.Redis, positions: Mapping[str, str], caps: Mapping[str, int]) -> set[str]:
    """The streams that may have lost entries behind these positions. Never says no when some are lost; ``caps``: entries kept, by key."""
    with store_errors():
        pipe = client.pipeline(transaction=False)
        for name in positions:
            pipe.xrange(name, count=1)
            pipe.xlen(name)
            pipe.xrevrange(name, count=1)
        replies = pipe.execute() if positions else []
    found = set()
    for at, (name, position) in enumerate(positions.items()):
        first, length, last = replies[3 * at : 3 * at + 3]
        if position == BEGINNING:
            lost = length >= caps[name] or (bool(last) and CUT.encode() in last[0][1])
        else:
            # The entry at the position itself is gone: those after it may be, too. A stream that is not there any more was another one.
            lost = not first or order(text(first[0][0])) > order(position)
        if lost:
            found.add(name)
    return found


def events(client: redis.Redis, api: str, after: str, limit: int = 1000) -> list[dict[str, str]]:
    """Moves behind a sequence number ("0-0" for all that is kept), oldest first."""
    with store_errors():
        entries: Any = client.xrange(keys.events(api), min=f"({after}", count=limit)
    return [{"seq": text(seq), "id": moved, "state": state} for seq, fields in entries for moved, state in moves(fields)]


def moves(fields: Mapping[bytes, bytes]) -> list[tuple[str, str]]:
    """One entry holds the moves of one script: (id, state), or ("deployment", "<version> <state>"), or ("deployment", "<version> replicas")."""
    parts = text(fields[b"m"]).split("\n")
    return list(zip(parts[::2], parts[1::2], strict=True))


def is_of_workload(state: str) -> bool:
    """By the state, because a workload may have the id "deployment"."""
    return state in _STATES


#: What an entry says of a workload: its new state, or that its handler has told how far it is.
_STATES = frozenset((*map(str, Status), "progress"))
