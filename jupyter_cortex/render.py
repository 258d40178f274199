"""What the shell shows: tables, logs, errors. Data in, characters out."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console, Group
from rich.json import JSON
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .commands import curl_line

STATUS_STYLE = {"live": "green", "updating": "yellow", "error": "red", "stopped": "dim", "completed": "green", "failed": "red", "cancelled": "dim"}
#: What every log record has; the rest is what the author added.
STANDARD_KEYS = {"asctime", "levelname", "message", "process", "exc_info", "stack_info", "labels", "request_id", "replica", "stream"}
LEVEL_STYLE = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow", "DEBUG": "dim"}


def age(ms: int) -> str:
    """``45s``, ``3m7s``, ``5h2m`` below 48 hours, ``3d4h``."""
    seconds = max(0, int(time.time() - ms / 1000))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60}s"
    if seconds < 48 * 3600:
        return f"{seconds // 3600}h{seconds // 60 % 60}m"
    return f"{seconds // 86400}d{seconds // 3600 % 24}h"


def status_text(status: str) -> Text:
    return Text(status, style=STATUS_STYLE.get(status, ""))


def table(*columns: str) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        shown.add_column(column, no_wrap=True)
    return shown


def deployed(console: Console, rows: list[dict[str, Any]], *, live: bool) -> None:
    for row in rows:
        console.print(row["message"], highlight=False)
        if live and row["outcome"] != "up_to_date":
            console.print(f"{row['api']['name']} is [green]live[/] (version {row['api']['version']})", highlight=False)
        for warning in row["warnings"]:
            console.print(f"  [yellow]note:[/] {escape(warning)}", highlight=False)
    names = [row["api"]["name"] for row in rows]
    console.print()
    for row in rows:
        console.print(f"endpoint: [bold]{row['api']['url']}[/]", highlight=False)
        console.print(f"  {escape(curl_line(row['api']['url']))}", highlight=False, soft_wrap=True)
    name = names[0] if len(names) == 1 else "<api_name>"
    console.print()
    hints = table()
    hints.add_column()
    hints.add_column(style="dim")
    for command, what in (("cortex get", "all APIs"), (f"cortex get {name}", "one API"), (f"cortex logs {name}", "its log")):
        hints.add_row(command, what)
    hints.show_header = False
    console.print(hints)


def api_list(console: Console, apis: list[dict[str, Any]], env: str) -> None:
    if not apis:
        console.print("no apis are deployed\n[dim]publish one with `cortex deploy`, or see `cortex demo`[/]")
        return
    stale = any(api["stale"] for api in apis)
    shown = table(
        "env", "async api", "status", "up-to-date", *(["stale"] if stale else []), "requested", "in queue", "in progress", "failed", "last update"
    )
    for api in sorted(apis, key=lambda api: api["name"]):
        counts = api["workloads"]
        row = [env, api["name"], status_text(api["status"]), str(api["ready"])]
        row += [str(api["stale"])] if stale else []
        row += [str(api["requested"]), str(counts["in_queue"]), str(counts["in_progress"]), str(counts["failed"]), age(api["updated"])]
        shown.add_row(*row)
    console.print(shown)
    for api in apis:
        _notes(console, api)


def _notes(console: Console, api: dict[str, Any]) -> None:
    for note in (api["message"], api["capped"]):
        if note:
            console.print(f"[yellow]{api['name']}:[/] {escape(note)}", highlight=False)
    for package, (then, now) in api["drift"].items():
        console.print(f"[yellow]{api['name']}:[/] {package} was {then} when it was deployed and is {now} now", highlight=False)


def api_detail(console: Console, api: dict[str, Any], url: str, *, verbose: bool = False) -> None:
    counts = api["workloads"]
    shown = table("status", "up-to-date", "requested", "in queue", "in progress", "completed", "failed", "last update")
    numbers = (api["ready"], api["requested"], counts["in_queue"], counts["in_progress"], counts["completed"], counts["failed"])
    shown.add_row(status_text(api["status"]), *map(str, numbers), age(api["updated"]))
    console.print(shown)
    _notes(console, api)
    console.print(f"\nendpoint: [bold]{url}{api['endpoint']}[/]\n  {escape(curl_line(url + api['endpoint']))}\n", highlight=False, soft_wrap=True)
    versions = table("version", "state", "digest", "python", "deployed")
    for version in api["api_versions"]:
        versions.add_row(
            str(version["version"]),
            status_text(version["state"]),
            version["digest"][:12],
            version["python_version"],
            age(version["times"]["created"]),
        )
    console.print(versions)
    for ended in api["exits"][:3]:
        console.print(f"[dim]{age(ended['at'])} ago:[/] {ended['replica']} ended: {escape(ended['reason'])}", highlight=False)
    if verbose:
        console.print(JSON.from_data(api["spec"]))


def workload(console: Console, shown: dict[str, Any], name: str) -> None:
    console.print(Group(Text.assemble("id: ", (shown["id"], "bold"))), highlight=False)
    if "status" in shown:
        console.print(Text.assemble("status: ", status_text(shown["status"])))
    if "result" in shown:
        console.print(JSON.from_data(shown["result"]))
    if "error" in shown:
        console.print(f"[red]{escape(shown['error']['type'])}:[/] {escape(shown['error']['message'])}", highlight=False)
        console.print(f"[dim]the traceback is in `cortex logs {name}`[/]")
    if shown.get("status") in ("in_queue", "in_progress"):
        console.print(f"[dim]not finished yet: `cortex result {name} {shown['id']} --wait 30`[/]")


def log_record(console: Console, record: dict[str, Any]) -> None:
    """One line: time, level, message, extras, the start of the request id; then the exception. A record of foreign shape as it is."""
    if "message" not in record:
        console.print(json.dumps(record), highlight=False, markup=False, soft_wrap=True)
        return
    level = str(record.get("levelname", ""))
    line = Text()
    if when := str(record.get("asctime", "")):
        line.append(f"{when[11:19]} ", style="dim")
    if level and level != "INFO":
        line.append(f"{level.lower()} ", style=LEVEL_STYLE.get(level, ""))
    line.append(str(record["message"]))
    for key, value in record.items():
        if key not in STANDARD_KEYS:
            line.append(f"  {key}={value if isinstance(value, str) else json.dumps(value)}", style="dim")
    if request_id := record.get("request_id"):
        line.append(f"  {str(request_id)[:8]}", style="dim")
    console.print(line, highlight=False, soft_wrap=True)
    if exc_info := record.get("exc_info"):
        console.print(Text(str(exc_info), style="red"), highlight=False, soft_wrap=True)


def processes(console: Console, status: dict[str, Any]) -> None:
    shown = table("role", "pid", "api", "version", "state", "code")
    for process in status["processes"]:
        shown.add_row(*(str(process.get(key) or "") for key in ("role", "pid", "api", "version", "state", "code")))
    console.print(f"gateway: [bold]{status['gateway']}[/]   store: {status['redis']}", highlight=False)
    console.print(shown)
    old = {process["code"] for process in status["processes"] if process.get("code") and process["code"] != status.get("code")}
    if old:
        console.print(f"[yellow]some processes still run version {', '.join(sorted(old))}; `cortex down && cortex up` restarts them[/]")


def environments(console: Console, rows: list[dict[str, Any]]) -> None:
    shown = table("", "environment", "url")
    for row in rows:
        shown.add_row("*" if row["used"] else "", row["name"], row["url"] or "[dim]not started yet[/]")
    console.print(shown)
