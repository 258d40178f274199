"""Requests: one, followed or ended, and many, with failures in groups."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.text import Text

from ..commands.following import Followed
from ..core.workload import REPLICA_DIED
from .common import first_line, harmless, json_value, local_time, status_text
from .logs import logs

#: Log lines of a failed request that a screen gets.
FAILURE_LINES = 100
#: Characters of a progress bar.
BAR = 24


def workload(console: Console, shown: dict[str, Any], *, name: str = "", command: str = "cortex") -> None:
    console.print(Group(Text.assemble("id: ", (shown["id"], "bold"))), highlight=False)
    if "status" in shown:
        console.print(Text.assemble("status: ", status_text(shown["status"])))
    if "progress" in shown:
        console.print(Text.assemble(f"{shown['progress']['fraction']:.0%} ", shown["progress"]["text"]))
    if "partial" in shown:
        console.print("so far:", json_value(shown["partial"]))
    if "result" in shown:
        console.print(json_value(shown["result"]))
    if "error" in shown:
        console.print(f"[red]{escape(shown['error']['type'])}:[/] {escape(shown['error']['message'])}", highlight=False)
        if told := shown.get("failure"):
            _failure(console, told)
        console.print(Text(failure_hint(shown, name, command), style="dim"), soft_wrap=True)
    if "notebook" in shown:
        console.print(f"executed notebook: {shown['notebook']}.html, {shown['notebook']}.ipynb", highlight=False, soft_wrap=True)
    if shown.get("status") in ("in_queue", "in_progress"):
        console.print(f"[dim]not finished yet: `{command} result {name} {shown['id']} --wait 30`[/]")


def _failure(console: Console, told: dict[str, Any]) -> None:
    console.print(Text(failure_facts(told), style="dim"), soft_wrap=True)
    if told["traceback"]:
        console.print(Text(told["traceback"].rstrip("\n"), style="red"), soft_wrap=True)
    if told["records"]:
        left = len(told["records"]) - FAILURE_LINES
        console.print(f"[dim]its log{f', without its first {left:,} lines' if left > 0 else ''}:[/]")
        logs(console, told["records"][-FAILURE_LINES:])


def failure_facts(told: dict[str, Any]) -> str:
    """Where, on what and when a request failed, in one line."""
    facts = [
        told["place"],
        f"version {told['version']}" if told["version"] else "",
        told["replica"],
        f"{told['attempts']} attempts" if told["attempts"] > 1 else "",
        f"run {told['run']}" if told["run"] > 1 else "",
        f"accepted {local_time(told['accepted'])}",
        f"waited {told['wait_ms']:,} ms" if told["wait_ms"] is not None else "",
        f"ran {told['run_ms']:,} ms" if told["run_ms"] is not None else "",
        f"failed {local_time(told['finished'])}" if told["finished"] else "",
    ]
    return " · ".join(filter(None, facts))


def failure_hint(shown: dict[str, Any], name: str, command: str) -> str:
    """What to do next with a request that failed, with lines to type in backquotes."""
    told = shown.get("failure")
    if shown["error"]["type"] == REPLICA_DIED:
        return (
            f"how replicas ended is in `{command} get {name}`, and what they said last in `{command} logs {name}`; "
            f"once the Handler was changed, `%cortex replay {shown['id']} --name {name} --anyway` runs it in a notebook's kernel"
        )
    where = "" if told and told["traceback"] else f"the traceback is in `{command} logs {name}`; "
    if told and not told["payload_kept"]:
        return f"{where}its payload was not kept, so that no replay can run it; `retain` in the spec says what is kept of those to come"
    return f"{where}`%cortex replay {shown['id']} --name {name}` runs it in a notebook"


def followed(seen: Followed) -> Text:
    """One line of a workload that is followed: its state, its bar, its time."""
    parts: list[Any] = [status_text(seen.status), " "]
    if seen.fraction is not None and seen.status == "in_progress":
        full = round(seen.fraction * BAR)
        parts += [("━" * full, "green"), ("━" * (BAR - full), "dim"), f" {seen.fraction:.0%} "]
    return Text.assemble(*parts, harmless(seen.words), (f" {seen.seconds:.1f} s", "dim"))


def requests(console: Console, data: dict[str, Any], *, command: str = "cortex", grouped: bool = False) -> None:
    """Groups of failures, then the newest requests; each with the line to type next."""
    if data["groups"]:
        for group in data["groups"]:
            times = f"{local_time(group['first'])} to {local_time(group['last'])}"
            versions = f"version{'s' * (len(group['versions']) != 1)} {', '.join(map(str, group['versions']))}"
            console.print(Text.assemble((f"{group['count']} × ", "bold"), (group["type"], "bold red"), f": {first_line(group['message'])}"))
            console.print(Text(f"    {group['place']}  {times}, {versions}", style="dim"), soft_wrap=True)
            console.print(f"    {escape(group['next'])}", soft_wrap=True)
        console.print()
    elif grouped:
        console.print(f"no failures of {data['api']}")
    if not data["workloads"]:
        if not grouped:
            console.print(f"no requests of {data['api']}", style="dim")
        return
    for row in data["workloads"]:
        version = f"version {row['version']}" if row["version"] else ""
        ran = f"{row['run_ms']:,} ms" if row["run_ms"] is not None else ""
        error = f"{row['error']['type']}: {first_line(row['error']['message'])}" if row["error"] else ""
        facts = "  ".join(filter(None, (version, ran)))
        # Lines rather than a table: on 80 columns a table would cut the id off, which is what one needs next.
        console.print(Text.assemble(local_time(row["accepted"]), "  ", status_text(row["status"]), f"  {facts}  ", (error, "red")), soft_wrap=True)
        console.print(Text(f"    {row['next']}", style="dim"), soft_wrap=True)
    if data["more"]:
        console.print(f"[dim]{newest(data)}[/]")


def newest(data: dict[str, Any]) -> str:
    """That a list of requests ends where it was told to, not where they begin."""
    return f"the newest {len(data['workloads'])}; there may be more: `--limit` says how many"


def requeued(console: Console, data: dict[str, Any], *, command: str = "cortex") -> None:
    done = data["requeued"]
    console.print(f"[bold]{len(done)}[/] of {data['api']} requeued, under their ids", highlight=False)
    if done:
        console.print(f"[dim]look one up: `{command} result {data['api']} {escape(done[0])} --wait 30`[/]")
    for row in data["refused"][:100]:
        console.print(f"[yellow]refused:[/] {escape(row['id'])}: {escape(row['reason'])}", highlight=False)
