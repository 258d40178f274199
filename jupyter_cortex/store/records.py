"""Reading workloads, their events and their history."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import redis

from ..core.errors import WorkloadNotFound
from ..core.workload import FINAL, Status
from . import keys
from .connection import pairs, store_errors, text
from .scripts import CANCEL

#: Upper bound of histogram bucket ``b`` in ms; the inverse of ``bucket`` in lua/prelude.lua.
BUCKET_BASE = 2**0.5


@dataclass(frozen=True)
class Record:
    """One workload as the store knows it. Times are ms since the epoch, None when not reached."""

    id: str
    status: Status
    content_type: str
    digest: str
    size: int
    accepted: int
    started: int | None
    finished: int | None
    attempts: int
    deaths: int
    run: int
    replica: str
    version: int | None
    error: dict[str, str] | None

    def public(self) -> dict[str, Any]:
        shown = asdict(self)
        shown["wait_ms"] = self.started - self.accepted if self.started else None
        shown["run_ms"] = self.finished - self.started if self.started and self.finished else None
        return shown


def _record(request_id: str, raw: dict[str, str]) -> Record:
    def number(name: str) -> int | None:
        return int(raw[name]) if name in raw else None

    return Record(
        id=request_id,
        status=Status(raw["status"]),
        content_type=raw.get("type", ""),
        digest=raw.get("digest", ""),
        size=int(raw.get("size", 0)),
        accepted=int(raw.get("accepted", 0)),
        started=number("started"),
        finished=number("finished"),
        attempts=int(raw.get("attempts", 0)),
        deaths=int(raw.get("deaths", 0)),
        run=int(raw.get("run", 1)),
        replica=raw.get("replica", ""),
        version=number("version"),
        error=json.loads(raw["error"]) if "error" in raw else None,
    )


class Records:
    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def get(self, api: str, request_id: str) -> Record:
        with store_errors():
            raw = pairs(self.client.hgetall(keys.record(api, request_id)))
        if not raw:
            raise WorkloadNotFound(f"id {request_id} not found: {api} never had it, or it finished more than 7 days ago")
        return _record(request_id, raw)

    def details(self, api: str, request_id: str) -> dict[str, Any]:
        """The record with result, failure details and whether the payload is still there."""
        record = self.get(api, request_id)
        with store_errors():
            pipe = self.client.pipeline(transaction=False)
            pipe.get(keys.result(api, request_id))
            pipe.get(keys.failure(api, request_id))
            pipe.exists(keys.body(api, request_id))
            result, failure, kept = pipe.execute()
        shown = record.public()
        shown["result"] = json.loads(result) if result is not None else None
        shown["failure"] = json.loads(failure) if failure is not None else None
        shown["payload_kept"] = bool(kept)
        return shown

    def payload(self, api: str, request_id: str) -> tuple[str, bytes] | None:
        """(content type, body) while it is kept."""
        with store_errors():
            ctype, body = self.client.hget(keys.record(api, request_id), "type"), self.client.get(keys.body(api, request_id))
        return None if body is None else (text(ctype) or "", body)  # type: ignore[return-value]

    def newest(self, api: str, status: str | None = None, limit: int = 50, before: int | None = None) -> list[Record]:
        """Newest first, by acceptance (open ones) or finish time; ``before`` is a time in ms for the next page."""
        wanted = [status] if status in {str(final) for final in FINAL} else (["open"] if status else ["open", *map(str, FINAL)])
        top = "+inf" if before is None else f"({before}"
        found: list[tuple[float, str]] = []
        with store_errors():
            for name in wanted:
                reply = self.client.zrevrangebyscore(keys.index(api, name), top, "-inf", start=0, num=limit, withscores=True)
                found += [(float(score), text(member)) for member, score in reply]  # type: ignore
            found.sort(reverse=True)
            pipe = self.client.pipeline(transaction=False)
            for _, request_id in found[:limit]:
                pipe.hgetall(keys.record(api, request_id))
            rows = pipe.execute() if found else []
        records = [_record(found[at][1], pairs(raw)) for at, raw in enumerate(rows) if raw]
        return [record for record in records if status is None or record.status == status]

    def counts(self, api: str) -> dict[str, int]:
        """Workloads now: in_queue, in_progress, and the kept final ones."""
        with store_errors():
            pipe = self.client.pipeline(transaction=False)
            pipe.llen(keys.queue(api))
            pipe.llen(f"{keys.prefix(api)}:suspects")
            for name in ("open", *map(str, sorted(FINAL))):
                pipe.zcard(keys.index(api, name))
            waiting, suspects, opened, cancelled, completed, failed = pipe.execute()
        queued = waiting + suspects
        return {
            "in_queue": queued,
            "in_progress": max(0, opened - queued),
            "completed": completed,
            "failed": failed,
            "cancelled": cancelled,
        }

    def cancel(self, api: str, request_id: str, spec: dict[str, Any]) -> str:
        """Take it back. Returns "cancelled" or the final status it already had; raises WorkloadNotFound."""
        retain = spec["retain"]
        with store_errors():
            outcome = text(CANCEL.run(self.client, api, request_id, retain["days"] * 86400, int(retain["payload"] == "always")))
        if outcome == "unknown":
            raise WorkloadNotFound(f"id {request_id} not found: {api} never had it, or it finished more than 7 days ago")
        return outcome

    def history(self, api: str, minutes: int) -> list[dict[str, Any]]:
        """One row per minute with traffic, oldest first: counters and p50/p95 of wait and run in ms."""
        with store_errors():
            seconds = self.client.time()[0]  # type: ignore
            last = int(seconds) // 60
            pipe = self.client.pipeline(transaction=False)
            span = range(last - minutes + 1, last + 1)
            for number in span:
                pipe.hgetall(keys.minute(api, number))
            rows = pipe.execute()
        return [_minute(number, pairs(raw)) for number, raw in zip(span, rows, strict=True) if raw]

    def events(self, api: str, after: str, limit: int = 1000) -> list[dict[str, str]]:
        """Moves behind a sequence number ("0-0" for all that is kept), oldest first."""
        with store_errors():
            entries = self.client.xrange(keys.events(api), min=f"({after}", count=limit)
        return [move for seq, fields in entries for move in _moves(text(seq), fields)]  # type: ignore


def _moves(seq: str, fields: Any) -> list[dict[str, str]]:
    """One entry holds the moves of one script, ids and states in turn."""
    parts = text(fields[b"m"]).split("\n")
    return [{"seq": seq, "id": parts[at], "state": parts[at + 1]} for at in range(0, len(parts), 2)]


def _minute(number: int, raw: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"minute": number * 60}
    for name in ("accepted", "completed", "failed", "cancelled"):
        row[name] = int(raw.get(name, 0))
    for name in ("wait", "run"):
        buckets = {int(field.split(":")[1]): int(n) for field, n in raw.items() if field.startswith(f"{name}:")}
        row[f"{name}_p50_ms"], row[f"{name}_p95_ms"] = quantile(buckets, 0.5), quantile(buckets, 0.95)
    return row


def quantile(buckets: dict[int, int], q: float) -> float | None:
    """The upper bound of the bucket that holds the quantile, in ms."""
    total = sum(buckets.values())
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= q * total:
            return round(BUCKET_BASE ** (bucket + 1) - 1, 3)
    return None
