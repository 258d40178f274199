"""What a version that is rehearsed answers to requests of production."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from .common import table

#: The verdicts of a rehearsal, in words and how they look; those that want a look first.
OUTCOMES = {
    "fails_here": ("new errors", "red"),
    "another_failure": ("other errors", "red"),
    "changed": ("changed results", "yellow"),
    "fixed": ("fixed errors", "green"),
    "same_result": ("same results", ""),
    "same_failure": ("same errors", ""),
    "gone": ("not run: payload gone", "dim"),
}
#: Rows of a rehearsal that are listed.
REHEARSED_ROWS = 50


def rehearsal_rows(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(id, verdict, what) of the rows that are not as before, those that want a look first."""
    order = list(OUTCOMES)
    differing = [row for row in report["rows"] if row["verdict"] not in ("same_result", "same_failure")]
    return [(row["id"], row["verdict"], _rehearsed_what(row)) for row in sorted(differing, key=lambda row: order.index(row["verdict"]))]


def _rehearsed_what(row: dict[str, Any]) -> str:
    if row["verdict"] == "changed":
        found = row["difference"]["rows"]
        told = [f"{one['path']}: {one['then'] or 'nothing'} → {one['now'] or 'nothing'}" for one in found if one["kind"] != "close"]
        more = len(told) - 3 + row["difference"]["more"]
        return "; ".join(told[:3]) + (f"; {more} more" if more > 0 else "")
    if row["verdict"] == "gone":
        return str(row["text"])
    side = row["production"] if row["verdict"] == "fixed" else row["here"]
    error = side["error"] or {"type": side["status"], "message": ""}
    place = f" ({side['place']})" if side["place"] else ""
    return f"{error['type']}: {error['message']}{place} {side['fingerprint']}"


def rehearsal_head(report: dict[str, Any]) -> str:
    """The sentence above a report."""
    ran = sum(count for verdict, count in report["counts"].items() if verdict != "gone")
    redacted = f"; {report['redacted']} with a redacted payload" if report["redacted"] else ""
    return f"version {report['version']} of {report['api']} ran {ran} requests of production, beside version {report['live']}{redacted}"


def rehearsal_speed(report: dict[str, Any]) -> list[list[str]]:
    """Rows of (whose, median, p95) in ms; none where nothing was timed."""
    sides = {"production": "production", "here": f"version {report['version']}"}
    speed = report["speed"] or {}
    return [[name, f"{speed[side]['median']:,.1f}", f"{speed[side]['p95']:,.1f}"] for side, name in sides.items() if side in speed]


def rehearsal_end(report: dict[str, Any], command: str) -> str:
    if report.get("promoted"):
        return ""
    what = f"{report['api']} {report['version']}"
    return f"`{command} promote {what}` makes it live, `{command} drop {what}` ends it; undecided, it is dropped after a day"


def rehearsed(console: Console, report: dict[str, Any], *, command: str = "cortex") -> None:
    console.print(rehearsal_head(report), highlight=False)
    for verdict, (words, style) in OUTCOMES.items():
        if count := report["counts"].get(verdict):
            console.print(Text(f"  {count:>5,} {words}", style=style))
    rows = rehearsal_rows(report)
    if rows:
        shown = table("id", "verdict", "what")
        for request_id, verdict, what in rows[:REHEARSED_ROWS]:
            shown.add_row(request_id, Text(verdict, style=OUTCOMES[verdict][1]), Text(what))
        console.print(shown, soft_wrap=True)
    if len(rows) > REHEARSED_ROWS:
        console.print(f"[dim]and {len(rows) - REHEARSED_ROWS} more; `-o json` has all[/]")
    if speed := rehearsal_speed(report):
        times = table("run_ms", "median", "p95")
        for row in speed:
            times.add_row(*row)
        console.print(times)
    for warning in report.get("warnings", []):
        console.print(f"  [yellow]note:[/] {escape(warning)}", highlight=False)
    if end := rehearsal_end(report, command):
        console.print(Text(end, style="dim"), soft_wrap=True)
