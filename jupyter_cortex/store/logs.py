"""An API's log: batches of JSON lines in one capped stream."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

import redis

from ..core.levels import LEVELS, Level, rank
from . import keys
from .connection import store_errors, text
from .records import Record
from .streams import BEGINNING, CUT

#: Batches kept per API. A batch is what a worker gathered in 0.1 s, at most 256 kB (or one longer line): usually one to a few hundred lines.
BATCHES = 2000
#: ... or fewer, when a worker's last ones have more bytes than this: a log must not fill the store.
BYTES = 64 << 20
#: Batches of one look: 5 MB at most.
LOOK = 20
#: Lines are shipped 0.1 s after they were written; a worker that is cut off from the store, or very busy, takes longer.
SHIPPED_WITHIN_MS = 30_000
#: What is shown of one workload's own lines, as much as a failed one keeps.
OWN_BYTES = 1_000_000
#: Every offset from UTC is a multiple of this.
QUARTER_MS = 15 * 60_000
#: What every record has; everything else is the author's.
USUAL = frozenset({"asctime", "levelname", "message", "process", "exc_info", "labels", "replica", "run", "request_id"})


@dataclass(frozen=True)
class Sought:
    """What a reader looks for: lines that show ``text``, in whatever case, of ``level`` and above; ``ids``: also those of this request or replica."""

    text: str = ""
    level: Level = LEVELS[0]
    ids: bool = True

    def __bool__(self) -> bool:
        return bool(self.text) or self.level != LEVELS[0]

    def among(self, lines: Sequence[str]) -> list[str]:
        if not self:
            return list(lines)
        return [line for line in lines if self.finds(line)] if self._may_be_in("\n".join(lines)) else []

    def finds(self, line: str) -> bool:
        if not self._may_be_in(line):
            return False
        shown = record(line)
        ids = [str(shown.get(key, "")) for key in ("request_id", "replica")] if self.ids else []
        return rank(shown.get("levelname")) >= rank(self.level) and self.text.lower() in "\n".join([_seen(shown), *ids]).lower()

    def _may_be_in(self, lines: str) -> bool:
        """Cheaply: letters and digits stand in a line as they are, the rest may be escaped. What has none of them need not be parsed."""
        levels = LEVELS[rank(self.level) :] if rank(self.level) > rank("INFO") else ()
        lower = lines.lower()
        return any(word in lower for word in self._words) and (not levels or any(level in lines for level in levels))

    @cached_property
    def _words(self) -> set[str]:
        """Of these one stands in each line that shows the text: its longest run of letters and digits, else a letter of it as JSON may write it."""
        if plain := max(re.findall("[a-z0-9]+", self.text.lower()), key=len, default=""):
            # A number may stand there with an exponent.
            return {plain, *(("e-", "e+") if plain.isdigit() else ())}
        letter = next((one for one in self.text if one.isalpha()), "")
        return {
            json.dumps(form, ensure_ascii=escaped)[1:-1].lower() for form in (letter, letter.lower(), letter.upper()) for escaped in (False, True)
        }


EVERYTHING = Sought()
#: What colours a terminal.
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def append(client: redis.Redis, api: str, lines: Sequence[str], batches: int = BATCHES) -> None:
    """Add a batch, and keep so many in all."""
    fields: dict[Any, Any] = {"l": "\n".join(lines)}
    if batches < BATCHES:
        fields[CUT] = "1"
    client.xadd(keys.logs(api), fields, maxlen=batches, approximate=True)


def lines_of(fields: Any) -> list[str]:
    return str(text(fields[b"l"])).split("\n")


def record(line: str) -> dict[str, Any]:
    """A line as an object; one that is none is its message."""
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {"message": line}


def written(shown: dict[str, Any], shipped: int, offset: int | None = None) -> int:
    """When a record was written, in ms since the epoch: it has its worker's local time and no offset, which the ms says at which the store got it."""
    local = _local(shown)
    return shipped if local is None else local - (_offset(local, shipped) if offset is None else offset)


def _local(shown: dict[str, Any]) -> int | None:
    try:
        return round(datetime.fromisoformat(str(shown.get("asctime"))).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        return None


def _offset(local: int, shipped: int) -> int:
    return round((local - shipped) / QUARTER_MS) * QUARTER_MS


def shipped_at(position: str) -> int:
    """An entry's id begins with the ms of the store's clock."""
    return int(position.partition("-")[0])


def tail(client: redis.Redis, api: str, limit: int, sought: Sought = EVERYTHING) -> tuple[list[str], str]:
    """The last ``limit`` lines of those that are sought, oldest first, and the position after the last of all."""
    lines, position = newest(client, api, limit, sought)
    return [line for line, _ in lines], position


def newest(client: redis.Redis, api: str, limit: int, sought: Sought = EVERYTHING) -> tuple[list[tuple[str, int]], str]:
    """As `tail`, each line with the ms at which it was shipped."""
    batches: list[list[tuple[str, int]]] = []
    position, before, size = "", "+", 0
    while size < limit or not position:
        with store_errors():
            entries: Any = client.xrevrange(keys.logs(api), max=before, count=LOOK)
        for entry_id, fields in entries:
            position = position or text(entry_id)
            batches.append([(line, shipped_at(text(entry_id))) for line in sought.among(lines_of(fields))])
            size += len(batches[-1])
        if len(entries) < LOOK:
            break
        before = f"({text(entries[-1][0])}"
    lines = [line for batch in reversed(batches) for line in batch]
    return lines[len(lines) - limit :] if limit < len(lines) else lines, position or BEGINNING


def after(client: redis.Redis, api: str, position: str, count: int = 200) -> tuple[list[str], str]:
    """Up to ``count`` batches behind ``position``, and the new position."""
    with store_errors():
        entries: Any = client.xrange(keys.logs(api), min=f"({position}", count=count)
    lines = [line for _, fields in entries for line in lines_of(fields)]
    return lines, text(entries[-1][0]) if entries else position


def batches(client: redis.Redis, api: str, position: str, *, inclusive: bool) -> list[tuple[str, list[str]]]:
    """Up to LOOK batches from a position on, each with its own."""
    with store_errors():
        entries: Any = client.xrange(keys.logs(api), min=position if inclusive else f"({position}", count=LOOK)
    return [(text(entry_id), lines_of(fields)) for entry_id, fields in entries]


def of_workload(client: redis.Redis, api: str, workload: Record) -> list[dict[str, Any]]:
    """A workload's own log records, oldest first, the first 1 MB of them: those kept with a failed one, else what the API's log still holds."""
    return [record(line) for line, _ in own_lines(client, api, workload)[0]]


@dataclass(frozen=True)
class Page:
    """Some of a workload's own records, which is one after the other: the first of them is number ``first`` of ``total``, counted from 0.

    ``times``: when each was written, in ms since the epoch.
    """

    records: list[dict[str, Any]]
    times: list[int]
    first: int
    total: int


def page_of_workload(client: redis.Redis, api: str, workload: Record, limit: int, first: int | None = None, wanted: str = "") -> Page:
    """``limit`` records from number ``first`` on, by default the last ones; with ``wanted`` of those that show this text, in whatever case.

    Only these are parsed: of 10,000 lines a reader sees a hundred.
    """
    lines, offset = own_lines(client, api, workload)
    if sought := Sought(wanted, ids=False):
        lines = [one for one in lines if sought.finds(one[0])]
    begin = max(0, len(lines) - limit) if first is None else min(first, len(lines))
    records = [record(line) for line, _ in lines[begin : begin + limit]]
    times = [written(shown, shipped, offset) for shown, (_, shipped) in zip(records, lines[begin : begin + limit], strict=True)]
    return Page(records, times, begin, len(lines))


def _seen(shown: dict[str, Any]) -> str:
    """What readers see of a record, without colours: a value as a shell shows it, and as a browser does."""
    if "message" not in shown:  # nobody's logger wrote it
        return f"{json.dumps(shown, ensure_ascii=False)}\n{_javascript(shown)}"
    seen = [str(shown.get(key, "")) for key in ("asctime", "levelname", "message", "exc_info")]
    for key, value in shown.items():
        if key not in USUAL:
            forms = (value,) if isinstance(value, str) else dict.fromkeys((json.dumps(value, ensure_ascii=False), _javascript(value)))
            seen += [f"{key}={form}" for form in forms]
    return _ANSI.sub("", "\n".join(seen))


def _javascript(value: Any) -> str:
    """As JavaScript's JSON.stringify writes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(key), ensure_ascii=False)}:{_javascript(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_javascript, value)) + "]"
    if not isinstance(value, float) or not math.isfinite(value):
        return json.dumps(value, ensure_ascii=False)
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:  # never an exponent, and no `.0`
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    digits, _, exponent = repr(value).partition("e")
    return f"{digits}e{exponent[0]}{exponent[1:].lstrip('0')}"


def own_lines(client: redis.Redis, api: str, workload: Record) -> tuple[list[tuple[str, int]], int | None]:
    """The lines of :func:`of_workload`, as they were written, each with the ms at which it was shipped; and the offset of their times where that
    does not say it: lines that are kept with a failure have lost their batch, and the last of them was written when it failed."""
    with store_errors():
        kept: Any = client.get(keys.failure(api, workload.id))
    if kept is not None and (lines := json.loads(kept).get("logs")):
        finished = workload.finished or workload.accepted
        last = _local(record(lines[-1]))
        return [(line, finished) for line in lines], None if last is None else _offset(last, finished)
    found: list[tuple[str, int]] = []
    size = 0
    # A replica's logger writes the id last, and its supervisor the replica behind it: such a line need not be parsed to know whose it is.
    mine = re.compile(rf'"request_id": "{re.escape(workload.id)}"(, "run": \d+)?(, "replica": "[^"]*")?\}}$')
    for line, shipped in _between(client, api, workload.accepted, workload.finished):
        if workload.id in line and (mine.search(line) or record(line).get("request_id") == workload.id):
            found.append((line, shipped))
            size += len(line)
            if size > OWN_BYTES:
                break
    return found, None


def _between(client: redis.Redis, api: str, begin: int, end: int | None) -> Iterable[tuple[str, int]]:
    """The lines shipped from ``begin`` on until a little after ``end``; entry ids are ms of the store's clock, as the workload's times are."""
    start, stop = str(begin), "+" if end is None else str(end + SHIPPED_WITHIN_MS)
    while True:
        with store_errors():
            entries: Any = client.xrange(keys.logs(api), min=start, max=stop, count=LOOK)
        for entry_id, fields in entries:
            yield from ((line, shipped_at(text(entry_id))) for line in lines_of(fields))
        if len(entries) < LOOK:
            return
        start = f"({text(entries[-1][0])}"
