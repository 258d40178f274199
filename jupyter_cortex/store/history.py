"""What happened to an API's workloads over time, from its counters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import redis

from . import keys
from .connection import store_errors

#: Upper bound of histogram bucket ``b`` in ms; the inverse of ``bucket`` in lua/prelude.lua.
BUCKET_BASE = 2**0.5
COUNTERS = ("accepted", "completed", "failed", "cancelled")
#: Spans that have counters of their own: minutes, and the key; the longest first.
SPANS = ((60, keys.hour), (10, keys.ten_minutes), (1, keys.minute))

#: Counters and histograms as the store has them: field -> number.
Raw = dict[bytes, bytes]


class Tally:
    """Counters and histograms of a span, summed; quantiles come from the sums, because averages of quantiles mean nothing."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTERS, 0)
        self._histograms: dict[str, dict[int, int]] = {"wait": {}, "run": {}}

    def add(self, raw: Raw) -> None:
        for field, number in raw.items():
            name, _, bucket = field.decode().partition(":")
            if bucket:
                histogram = self._histograms[name]
                histogram[int(bucket)] = histogram.get(int(bucket), 0) + int(number)
            elif name in self.counts:
                self.counts[name] += int(number)

    def row(self, minute: int) -> dict[str, Any]:
        """``minute``: the span's first, in minutes since the epoch."""
        row: dict[str, Any] = {"minute": minute * 60, **self.counts}
        for name, histogram in self._histograms.items():
            row[f"{name}_p50_ms"], row[f"{name}_p95_ms"] = quantile(histogram, 0.5), quantile(histogram, 0.95)
        return row


def history(client: redis.Redis, api: str, minutes: int) -> list[dict[str, Any]]:
    """One row per minute with traffic, oldest first: counters and p50/p95 of wait and run in ms."""
    with store_errors():
        last = int(client.time()[0]) // 60  # type: ignore[index]
        span = range(last - minutes + 1, last + 1)
        pipe = client.pipeline(transaction=False)
        for number in span:
            pipe.hgetall(keys.minute(api, number))
        rows = pipe.execute()
    return [_row(number, [raw]) for number, raw in zip(span, rows, strict=True) if raw]


def dense(client: redis.Redis, api: str, minutes: int, step: int) -> dict[str, Any]:
    """``{"step", "now", "rows"}``: one row per ``step`` minutes, aligned to the epoch, up to the current one; oldest first, none left out.

    Each row has the counters, the quantiles (None without traffic) and ``open``: how many workloads were in the queue or running at its end.
    """
    now, opened, current = _present(client, api)
    last = now // 60_000
    end = (last // step + 1) * step
    begin = end - -(-minutes // step) * step
    spans = {start: list(_cover(api, start, start + step, last)) for start in range(begin, end, step)}
    names = [name for span in spans.values() for name in span if name not in current]
    with store_errors():
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(name)
        raws = {**current, **dict(zip(names, pipe.execute(), strict=True))}
    rows = [_row(start, [raws[name] for name in span]) for start, span in spans.items()]
    for row in reversed(rows):
        row["open"] = max(0, opened)
        # Nothing becomes open but by being accepted, and nothing stops being it but by its end.
        opened -= row["accepted"] - row["completed"] - row["failed"] - row["cancelled"]
    return {"step": step, "now": now, "rows": rows}


def _present(client: redis.Redis, api: str) -> tuple[int, int, dict[str, Raw]]:
    """(ms now, workloads open, the counters that may still change by key), all of one moment."""
    minute = int(time.time()) // 60
    while True:
        names = [key(api, minute // length) for length, key in SPANS]
        with store_errors():
            pipe = client.pipeline(transaction=True)
            pipe.time()
            pipe.zcard(keys.index(api, "open"))
            for name in names:
                pipe.hgetall(name)
            (seconds, micros), opened, *raws = pipe.execute()
        if seconds // 60 == minute:
            return seconds * 1000 + micros // 1000, opened, dict(zip(names, raws, strict=True))
        minute = seconds // 60  # the store's clock counts, and it has gone on


def _cover(api: str, begin: int, end: int, last: int) -> Iterator[str]:
    """The keys whose sums are those of the minutes from ``begin`` up to ``end``, without those after ``last``: as few as there are."""
    at = begin
    while at < end and at <= last:
        length, key = next((length, key) for length, key in SPANS if at % length == 0 and at + length <= end)
        yield key(api, at // length)
        at += length


def _row(minute: int, raws: list[Raw]) -> dict[str, Any]:
    tally = Tally()
    for raw in raws:
        tally.add(raw)
    return tally.row(minute)


def quantile(buckets: dict[int, int], q: float) -> float | None:
    """The upper bound of the bucket that holds the quantile, in ms."""
    total = sum(buckets.values())
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= q * total:
            return round(BUCKET_BASE ** (bucket + 1) - 1, 3)
    return None
