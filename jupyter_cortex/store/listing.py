"""Pages of workloads, newest first: open ones by when they were accepted, ended ones by when they ended."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import redis

from ..core.errors import BadRequest
from ..core.workload import FINAL, REQUEST_ID, Status
from . import keys
from .connection import store_errors, text
from .records import Record, Records, record_of

#: What one page looks at to find what was asked for: about 0.2 s. The next page goes on behind it.
SCAN_MAX = 20_000
#: Index entries of one round: at first what a page needs, then more and more, so that a page is at most ten rounds.
ROUND_MAX = 5000
_PLACE = re.compile(r"([0-9]{1,15})-([A-Za-z0-9._-]{1,128})")
#: What is searched, beside the id.
_SEARCHED = ("status", "type", "replica", "error")

#: Where a workload stands: time in ms, and its id where several share one.
Place = tuple[int, str]
#: Before the newest one that can be.
TOP: Place = (10**15 - 1, "-")


@dataclass(frozen=True)
class Page:
    """``next`` is the cursor of the page behind it, None at the end; ``scanned`` says how many workloads were looked at."""

    records: list[Record]
    next: str | None
    scanned: int


def page(client: redis.Redis, api: str, statuses: frozenset[Status], limit: int, cursor: str = "", q: str = "", fingerprint: str = "") -> Page:
    """The newest ``limit`` workloads behind ``cursor`` that have one of ``statuses`` (empty = any) and hold ``q``, in any case, in their id, error,
    replica or content type; with ``fingerprint``, of the failures that have it. Raises BadRequest for a damaged cursor.

    A workload that moves while somebody pages goes to the top, as its new event says; what does not move is shown exactly once.
    One whose id is ``q`` comes at once, as the first page: who knows the id need not wait until all newer ones were looked at.
    """
    if not cursor and REQUEST_ID.fullmatch(q):
        named = [record_of(q, raw) for raw in _read(client, api, [q], "").values()]
        if named and _is_wanted(named[0], statuses, fingerprint):
            return Page(named, make_cursor(TOP), 0)
    place = read_cursor(cursor) if cursor else None
    below = _Sources(client, api, statuses, fingerprint).below
    needle = q.casefold()
    found: list[Record] = []
    scanned, size = 0, max(limit + 1, 500) if needle else limit + 1
    while True:
        asked = min(size, SCAN_MAX - scanned)
        rows = below(place, asked)
        raws = _read(client, api, [request_id for _, request_id in rows], needle)
        for at, row in enumerate(rows):
            raw = raws.get(row[1])
            if raw is None or row[1] == q:  # that one was the first page
                continue
            record = record_of(row[1], raw)
            if not _is_wanted(record, statuses, fingerprint):
                continue
            found.append(record)
            if len(found) == limit:
                more = at + 1 < len(rows) or len(rows) == asked
                return Page(found, make_cursor(row) if more else None, scanned + at + 1)
        scanned += len(rows)
        if len(rows) < asked:
            return Page(found, None, scanned)
        place = rows[-1]
        if scanned >= SCAN_MAX:
            return Page(found, make_cursor(place), scanned)
        size = min(4 * size, ROUND_MAX)


def _is_wanted(record: Record, statuses: frozenset[Status], fingerprint: str) -> bool:
    return (not statuses or record.status in statuses) and (not fingerprint or record.fingerprint == fingerprint)


def make_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place[0]}-{place[1]}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Place:
    """Raises BadRequest."""
    try:
        known = _PLACE.fullmatch(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode("ascii"))
    except (binascii.Error, ValueError):
        known = None
    if known is None:
        raise BadRequest("cursor: it is not one that this list gave as `next`; leave it out to begin with the newest", path="cursor")
    return int(known[1]), known[2]


class _Sources:
    """Where workloads of the wanted states are listed, merged."""

    def __init__(self, client: redis.Redis, api: str, statuses: frozenset[Status], fingerprint: str) -> None:
        self._client, self._api = client, api
        self._held: list[Place] = []
        if fingerprint:
            self._indexes = [keys.alike(api, fingerprint)]
            return
        wanted = statuses or frozenset(Status)
        self._indexes = [keys.index(api, str(status)) for status in sorted(wanted & FINAL)]
        if Status.IN_QUEUE in wanted:
            self._indexes.append(keys.index(api, "open"))
        elif Status.IN_PROGRESS in wanted:
            # What runs is held by a replica; in the index of open ones it may stand behind a queue of any length.
            self._held = self._read_held()

    def _read_held(self) -> list[Place]:
        with store_errors():
            names = [text(name) for name in self._client.zrange(keys.beats(self._api), 0, -1)]  # type: ignore[union-attr]
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                if not name.startswith("worker:"):
                    pipe.smembers(keys.held(self._api, name))
            ids = sorted({text(request_id) for held in pipe.execute() for request_id in held})
        rows = Records(self._client).read({self._api: ids}, ("status", "accepted"))[self._api]
        return sorted(((int(accepted or 0), request_id) for request_id, (_, accepted) in rows.items()), reverse=True)

    def below(self, place: Place | None, size: int) -> list[Place]:
        """The newest ``size`` places behind ``place``."""
        found = [held for held in self._held if place is None or held < place]
        with store_errors():
            pipe = self._client.pipeline(transaction=False)
            for index in self._indexes:
                if place is not None:
                    # Scripts end hundreds of workloads in one ms; the store orders those by id, as we do.
                    pipe.zrevrangebyscore(index, place[0], place[0], withscores=True)
                pipe.zrevrangebyscore(index, "+inf" if place is None else f"({place[0]}", "-inf", start=0, num=size, withscores=True)
            replies = pipe.execute() if self._indexes else []
        for reply in replies:
            here = [(int(score), text(member)) for member, score in reply]
            found += [one for one in here if place is None or one < place]
        return sorted(found, reverse=True)[:size]


def _read(client: redis.Redis, api: str, ids: list[str], needle: str) -> dict[str, Sequence[bytes | None]]:
    """The records of these ids that are there and hold ``needle``, as FIELDS."""
    records = Records(client)
    if needle:
        searched = records.read({api: ids}, _SEARCHED)[api]
        ids = [request_id for request_id, raw in searched.items() if _holds(needle, request_id, raw)]
    return records.read({api: ids})[api]


def _holds(needle: str, request_id: str, raw: Sequence[bytes | None]) -> bool:
    _, content_type, replica, error = raw
    # One text for all three: a page looks at 20,000 of them.
    if needle in b"\n".join((content_type or b"", replica or b"", request_id.encode())).decode("latin-1").casefold():
        return True
    if not error:
        return False
    said = json.loads(error)
    return any(needle in str(said.get(key, "")).casefold() for key in ("type", "message"))
