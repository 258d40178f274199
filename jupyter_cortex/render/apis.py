"""APIs, their versions and machines, environments and their processes."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from .. import __version__
from ..commands import curl_line
from .common import age, json_value, status_text, table

MACHINE_COLUMNS = ("machine", "worker", "version", "ready", "starting", "draining")


def deployed(console: Console, rows: list[dict[str, Any]], *, live: bool = True, command: str = "cortex") -> None:
    for row in rows:
        console.print(row["message"], highlight=False)
        if live and row["outcome"] != "up_to_date":
            console.print(f"{row['api']['name']} is [green]live[/] (version {row['api']['version']})", highlight=False)
        for warning in row["warnings"]:
            console.print(f"  [yellow]note:[/] {escape(warning)}", highlight=False)
        if row.get("travels"):
            files = ", ".join(f"{file['path']} ({file['bytes']:,} bytes)" for file in row["travels"][:8])
            console.print(Text(f"  travelled: {files}", style="dim"), soft_wrap=True)
    names = [row["api"]["name"] for row in rows]
    console.print()
    for row in rows:
        console.print(f"endpoint: [bold]{escape(row['api']['url'])}[/]", highlight=False)
        console.print(f"  {escape(curl_line(row['api']['url'], row.get('sample'), guarded=row['api']['guarded']))}", highlight=False, soft_wrap=True)
    name = names[0] if len(names) == 1 else "<api_name>"
    console.print()
    hints = table()
    hints.add_column()
    hints.add_column(style="dim")
    for verb, what in (("get", "all APIs"), (f"get {name}", "one API"), (f"logs {name}", "its log")):
        hints.add_row(f"{command} {verb}", what)
    hints.show_header = False
    console.print(hints)


def api_list(console: Console, apis: list[dict[str, Any]], *, env: str = "local", command: str = "cortex") -> None:
    if not apis:
        console.print(f"no apis are deployed\n[dim]publish one with `{command} deploy`, or see `cortex demo`[/]")
        return
    stale = any(api["stale"] for api in apis)
    shown = table(
        "env", "async api", "status", "up-to-date", *(["stale"] if stale else []), "requested", "in queue", "in progress", "failed", "last update"
    )
    for api in sorted(apis, key=lambda api: api["name"]):
        counts = api["workloads"]
        row = [env, api["name"], status_text(api["status"]), str(api["up_to_date"])]
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


def rolled_back(version: dict[str, Any]) -> str:
    return f", a rollback to {version['rollback']['to']}" if version.get("rollback") else ""


def by_machine(api: dict[str, Any]) -> list[list[str]]:
    """A row per worker, where they are on more than one machine; else none."""
    workers = api["workers"].values()
    if len({(worker["host"], worker["run_dir"]) for worker in workers}) < 2:
        return []
    ordered = sorted(workers, key=lambda worker: (worker["host"], worker["version"], worker["pid"]))
    return [[str(worker[key]) for key in ("host", "pid", "version", "ready", "starting", "draining")] for worker in ordered]


def own_pythons(api: dict[str, Any]) -> list[str]:
    """The versions that run on a Python of their own, each in a sentence."""
    found = {(worker["version"], worker["python"]["kind"], worker["python"]["digest"]) for worker in api["workers"].values() if worker.get("python")}
    return [f"version {number} runs on a Python of its own ({kind}, {digest})" for number, kind, digest in sorted(found)]


def api_detail(console: Console, apis: list[dict[str, Any]], *, url: str = "", verbose: bool = False) -> None:
    api = apis[0]
    counts = api["workloads"]
    stale = [("stale", api["stale"])] if api["stale"] else []
    shown = table("status", "up-to-date", *(name for name, _ in stale), "requested", "in queue", "in progress", "completed", "failed", "last update")
    replicas = (api["up_to_date"], *(count for _, count in stale), api["requested"])
    numbers = (*replicas, counts["in_queue"], counts["in_progress"], counts["completed"], counts["failed"])
    shown.add_row(status_text(api["status"]), *map(str, numbers), age(api["updated"]))
    console.print(shown)
    _notes(console, api)
    line = curl_line(url + api["endpoint"], guarded=api.get("guarded", False))
    console.print(f"\nendpoint: [bold]{escape(url + api['endpoint'])}[/]\n  {escape(line)}\n", highlight=False, soft_wrap=True)
    versions = table("version", "state", "digest", "python", "deployed")
    for version in api["api_versions"]:
        versions.add_row(
            str(version["version"]),
            status_text(version["state"]),
            version["digest"][:12],
            version["python_version"],
            age(version["times"]["created"]) + rolled_back(version),
        )
    console.print(versions)
    if machines := by_machine(api):
        shown = table(*MACHINE_COLUMNS)
        for row in machines:
            shown.add_row(*map(Text, row))
        console.print(shown)
    for line in own_pythons(api):
        console.print(line, highlight=False)
    for ended in api["exits"][:3]:
        console.print(f"[dim]{age(ended['at'])} ago:[/] {ended['replica']} ended: {escape(ended['reason'])}", highlight=False)
    if verbose:
        console.print(json_value(api["spec"]))


def environments(console: Console, rows: list[dict[str, Any]]) -> None:
    shown = table("", "environment", "url")
    for row in rows:
        shown.add_row("*" if row["used"] else "", row["name"], escape(row["url"]) or "[dim]not started yet[/]")
    console.print(shown)


def processes(console: Console, status: dict[str, Any], *, command: str = "cortex", local: bool = True) -> None:
    shown = table("role", "pid", "api", "version", "state", "code")
    for process in status["processes"]:
        shown.add_row(*(str(process.get(key) or "") for key in ("role", "pid", "api", "version", "state", "code")))
    console.print(f"gateway: [bold]{status['gateway']}[/]   store: {status['redis']}", highlight=False)
    console.print(shown)
    for note in status.get("notes", []):
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)
    if note := outdated(status, command=command, local=local):
        console.print(Text(note, style="yellow"), soft_wrap=True)


def outdated(status: dict[str, Any], *, command: str, local: bool) -> str:
    """Which processes run another version than this program, as after an upgrade, and how they are started anew; "" for none.

    The operator's own version stands for all that it would say of itself. A process that does not say its version is left out.
    """
    operator = {"role": "operator", "code": status.get("code")}
    known = [*status["processes"], *([operator] if not any(one["role"] == "operator" and one.get("code") for one in status["processes"]) else [])]
    old = [process for process in known if process.get("code") and process["code"] != __version__]
    if not old:
        return ""
    roles = ", ".join(sorted({process["role"] for process in old}))
    head = f"of version {', '.join(sorted({process['code'] for process in old}))}, while this is {__version__}: {roles}"
    apis = sorted({process["api"] for process in old if process.get("api")})
    if all(process.get("api") for process in old):
        remedy = f"{', '.join(f'`{command} refresh {api}`' for api in apis)} starts them anew"
    elif local:
        remedy = f"`{command} down`, then `{command} up` starts them all anew; what was accepted waits meanwhile"
    else:
        remedy = f"start the environment anew on {status.get('host') or 'its machine'}, with this version installed there"
    return f"{head}; {remedy}"
