"""What requests of production do in a notebook's kernel."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from .common import first_line, json_value, status_text, table
from .logs import logs


def replayed(console: Console, data: dict[str, Any]) -> None:
    """One request of production beside its replay."""
    production, here, verdict = data["production"], data["here"], data["verdict"]
    good = verdict["kind"] in ("fixed", "same_result")
    console.print(Text.assemble(("request ", "dim"), data["id"], (" of ", "dim"), data["api"], ": ", (verdict["text"], "green" if good else "red")))
    if data["redacted"]:
        console.print(f"[yellow]the payload is not as it came:[/] {escape(data['redacted'])}")
    if here["payload"]:
        console.print(f"arrives: [bold]{here['payload']['type']}[/] [dim]{here['payload']['size']}[/]  {escape(here['payload']['repr'])}")
    version = f"version {production['version']}" if production["version"] else ""
    for name, row in ((f"production, {version}", production), (f"here, {data['ran']}", here)):
        took = f"{row['run_ms']:,.1f} ms" if row["run_ms"] is not None else ""
        console.print(Text.assemble(("\n" + name.rstrip(", "), "bold"), "  ", status_text(row["status"]), (f"  {took}", "dim")))
        logs(console, row["records"])
        _answer(console, row)
    if data["difference"] and data["difference"]["rows"]:
        _differing(console, data["difference"])
    _drift(console, data["drift"])
    console.print(Text(f"\n{next_words(data, failed=here['status'] == 'failed')}", style="dim"), soft_wrap=True)


def next_words(data: dict[str, Any], *, failed: bool) -> str:
    """What to do after a replay, with lines to type in backquotes."""
    if failed:
        return "next: `%debug` is in the failing frame · change the cell, run it, replay again"
    return f"next: keep it as a sample · `%cortex deploy`{' · `%cortex requeue`' if data['requeues'] else ''}"


def group_redaction(data: dict[str, Any]) -> str:
    """That what ran is not what came, in words; "" when it is."""
    if not data["redacted"]:
        return ""
    which = next(row["redacted"] for row in data["rows"] if row["redacted"])
    refused = ", and a requeue refuses those" if any(row["redacted"] and not row["requeues"] for row in data["rows"]) else ""
    whose = f"{data['redacted']} of {len(data['rows'])} payloads are not as they came ({which})"
    return f"{whose}: what these do here does not say what their callers' would do{refused}"


def _answer(console: Console, row: dict[str, Any]) -> None:
    if row.get("refusal"):
        console.print(escape(row["refusal"]))
    elif row["error"]:
        console.print(f"[red]{escape(row['error']['type'])}:[/] {escape(row['error']['message'])}")
        console.print(Text(row["traceback"], style="red"), soft_wrap=True)
    elif row["status"] == "completed":
        console.print(json_value(row["result"]))


def _differing(console: Console, compared: dict[str, Any]) -> None:
    shown = table("", "where", "production", "here")
    for row in compared["rows"]:
        shown.add_row(row["kind"], *(Text(row[key] or "") for key in ("path", "then", "now")))
    console.print()
    console.print(shown)
    if compared["more"]:
        console.print(f"[dim]and {compared['more']:,} more[/]")
    if any(row["kind"] == "close" for row in compared["rows"]):
        console.print(f"[dim]close: within {compared['tolerance']:g} of each other[/]")


def _drift(console: Console, sentences: list[str]) -> None:
    for sentence in sentences[:20]:
        console.print(f"[yellow]not as in production:[/] {escape(sentence)}")
    if len(sentences) > 20:
        console.print(f"[dim]and {len(sentences) - 20} more[/]")


def replays(console: Console, data: dict[str, Any]) -> None:
    """The requests of a group of failures, each replayed."""
    group, rows = data["group"], data["rows"]
    console.print(Text.assemble((f"{group['count']} × ", "bold"), (group["type"], "bold red"), f": {first_line(group['message'])}"))
    style = "green" if data["fixed"] else "red"
    console.print(Text.assemble((f"{data['succeeded']} of {len(rows)} succeed here", style), (f" ({data['ran']})", "dim")))
    if note := group_redaction(data):
        console.print(Text(note, style="yellow"), soft_wrap=True)
    _drift(console, data["drift"])
    shown = table("request", "here", "beside production", "ran", "error")
    for row in rows:
        ran = f"{row['run_ms']:,.1f} ms" if row["run_ms"] is not None else ""
        error = f"{row['error']['type']}: {first_line(row['error']['message'])}" if row["error"] else ""
        shown.add_row(row["id"], status_text(row["status"]), Text(row["verdict"]), ran, Text(error, style="red"))
    console.print(shown, soft_wrap=True)
    console.print(Text(next_words(data, failed=not data["fixed"]), style="dim"), soft_wrap=True)
