"""Failed workloads that have the same fingerprint, as one group: how many, since when, in which versions; and their way back into the queue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from ..core.errors import BadRequest
from . import keys
from .connection import store_errors, text
from .listing import Place, make_cursor, read_cursor
from .scripts import REQUEUE

#: Of a failure's details, so much is read to find its frames; they stand at the beginning.
HEAD_BYTES = 64 * 1024
#: Ids that one script moves: about 3 ms of the store's time.
IDS_AT_ONCE = 100
#: Why an id stays where it is. Other words are the status that it has.
REASONS = {
    "unknown": "{} never had it, or its days are over",
    "gone": "its payload was not kept when it ended; `retain` in the spec says which stay (payload, max_bytes, redact)",
    "redacted": "its payload was redacted when it ended, and is not what its caller sent any more",
    "full": "the queue is full; requeue it when it is shorter",
}


def groups(client: redis.Redis, api: str, since: int, limit: int) -> list[dict[str, Any]]:
    """The groups with failures of the last ``since`` seconds, the one that failed last first; at most ``limit``."""
    with store_errors():
        seconds, micros = client.time()  # type: ignore[misc]
        begin = seconds * 1000 + micros // 1000 - since * 1000
        seen: Any = client.zrevrangebyscore(keys.groups(api), "+inf", begin)
    versions: dict[str, set[int]] = {}
    for member in seen:
        mark, _, version = text(member).partition(" ")
        versions.setdefault(mark, set()).add(int(version))
    found = _counted(client, api, list(versions), begin)[:limit]
    for group, details in zip(found, _newest(client, api, found), strict=True):
        group.update(details, versions=sorted(versions[group["fingerprint"]] - {0}))
    return [{name: group[name] for name in _ORDER} for group in found]


_ORDER = ("fingerprint", "type", "message", "place", "frames", "count", "first", "last", "versions", "newest")


def _counted(client: redis.Redis, api: str, marks: list[str], begin: int) -> list[dict[str, Any]]:
    with store_errors():
        pipe = client.pipeline(transaction=False)
        for mark in marks:
            index = keys.alike(api, mark)
            pipe.zcount(index, begin, "+inf")
            pipe.zrangebyscore(index, begin, "+inf", start=0, num=1, withscores=True)
            pipe.zrevrangebyscore(index, "+inf", begin, start=0, num=1, withscores=True)
        replies = pipe.execute() if marks else []
    found = []
    for at, mark in enumerate(marks):
        count, first, last = replies[3 * at : 3 * at + 3]
        # Those of a group may all have been requeued.
        if first and last:
            found.append({"fingerprint": mark, "count": count, "first": int(first[0][1]), "last": int(last[0][1]), "newest": text(last[0][0])})
    return sorted(found, key=lambda group: (group["last"], group["newest"]), reverse=True)


def _newest(client: redis.Redis, api: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the newest failure of each group says of itself."""
    with store_errors():
        pipe = client.pipeline(transaction=False)
        for group in found:
            pipe.hget(keys.record(api, group["newest"]), "error")
            pipe.getrange(keys.failure(api, group["newest"]), 0, HEAD_BYTES - 1)
        replies = pipe.execute() if found else []
    told = []
    for error, head in zip(replies[::2], replies[1::2], strict=True):
        said, frames = json.loads(error) if error else {}, frames_in(text(head))
        told.append({"type": said.get("type", ""), "message": said.get("message", ""), "frames": frames, "place": place_of(frames)})
    return told


def frames_in(head: str) -> list[dict[str, Any]]:
    """The frames in the beginning of a failure's details."""
    _, found, rest = head.partition('"frames": ')
    try:
        return list(json.JSONDecoder().raw_decode(rest)[0]) if found else []
    except ValueError:
        return []


def place_of(frames: Sequence[dict[str, Any]]) -> str:
    """Where it happened, in words: the author's last line."""
    mine = [frame for frame in frames if frame["user"]] or list(frames)
    if not mine:
        return ""
    return str(mine[-1]["place"] or f"{mine[-1]['file']}, line {mine[-1]['line']}")


# The way back ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Requeued:
    """``refused``: ``{"id", "reason"}`` each. ``next``: the cursor of what a group still has, None at its end; ``remaining``: how many those are."""

    requeued: list[str]
    refused: list[dict[str, str]]
    next: str | None = None
    remaining: int = 0


def requeue(client: redis.Redis, api: str, ids: Sequence[str], about: dict[str, str], most: int) -> Requeued:
    """Put failed workloads back into the queue under their old ids. ``about``: what is noted beside time and ids; ``most``: what the queue may hold.

    Each id is moved whole or stays as it is. Those of one script that the store refuses (its memory is out) raise StoreUnavailable; asking again for
    all of them is safe.
    """
    ids = list(dict.fromkeys(ids))
    note = "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in about.items())
    done, refused = [], []
    for at in range(0, len(ids), IDS_AT_ONCE):
        some = ids[at : at + IDS_AT_ONCE]
        with store_errors():
            words = REQUEUE.run(client, api, most, note, *some)
        for request_id, word in zip(some, map(text, words), strict=True):
            if word == "ok":
                done.append(request_id)
            else:
                refused.append({"id": request_id, "reason": REASONS.get(word, f"it is {word}, not failed").format(api)})
    return Requeued(done, refused)


def requeue_group(client: redis.Redis, api: str, mark: str, since: int, about: dict[str, str], most: int, limit: int, cursor: str = "") -> Requeued:
    """The same with the next ``limit`` of a group, the oldest first, up to those that had failed when it was first asked.

    What fails again meanwhile is not requeued again: ``next`` remembers the moment. Raises BadRequest for a damaged cursor.
    """
    index = keys.alike(api, mark)
    with store_errors():
        seconds, micros = client.time()  # type: ignore[misc]
        now = seconds * 1000 + micros // 1000
        until, place = _read_next(cursor) if cursor else (now, (now - since * 1000 - 1, ""))
        rows: Any = client.zrangebyscore(index, max(place[0], 0), until, start=0, num=limit + _AT_ONE_PLACE, withscores=True)
    places = [(int(score), text(member)) for member, score in rows]
    some = [one for one in places if one > place][:limit]
    found = requeue(client, api, [request_id for _, request_id in some], {**about, "fingerprint": mark}, most)
    full = any(one["reason"] == REASONS["full"] for one in found.refused)
    if len(some) < limit or full:
        return found
    with store_errors():
        left = int(client.zcount(index, f"({some[-1][0]}", until))  # type: ignore[arg-type]
        left += sum(1 for one in places if one[0] == some[-1][0] and one > some[-1])
    return Requeued(found.requeued, found.refused, _make_next(until, some[-1]) if left else None, left)


#: One commit ends at most so many workloads in one ms, and they may stand before a cursor's place.
_AT_ONE_PLACE = 2000


def _make_next(until: int, place: Place) -> str:
    return f"{until}.{make_cursor(place)}"


def _read_next(cursor: str) -> tuple[int, Place]:
    until, dot, place = cursor.partition(".")
    if not dot or not until.isdecimal() or len(until) > 15:
        raise BadRequest("next: it is not one that an earlier answer gave; leave it out to begin with the oldest", path="next")
    return int(until), read_cursor(place)


def audit(client: redis.Redis, api: str) -> list[dict[str, Any]]:
    """Who requeued, rolled back or promoted what, the last time first."""
    with store_errors():
        return [json.loads(raw) for raw in client.lrange(keys.audit(api), 0, -1)]  # type: ignore[union-attr]
