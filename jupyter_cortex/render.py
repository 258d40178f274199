"""What the shell shows: tables, logs, errors. Data in, characters out."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.json import JSON
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from . import __version__
from .commands import curl_line
from .commands.following import Followed
from .core.errors import CortexError
from .core.workload import REPLICA_DIED

STATUS_STYLE = {"live": "green", "updating": "yellow", "error": "red", "stopped": "dim", "completed": "green", "failed": "red", "cancelled": "dim"}
#: What every log record has; the rest is what the author added.
STANDARD_KEYS = {"asctime", "levelname", "message", "process", "exc_info", "stack_info", "labels", "request_id", "replica", "stream"}
#: How much of a JSON value a screen gets.
JSON_CHARACTERS, JSON_LINES = 20_000, 400
#: Columns of text that is shown beside a page.
TEXT_WIDTH = 120
#: Columns that a reason needs beside the code; on a narrower screen it stands above.
NOTE_COLUMNS = 60
#: How many lines of a difference a screen gets.
DIFF_LINES = 200
#: Log lines of a failed request that a screen gets.
FAILURE_LINES = 100
LEVEL_STYLE = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow", "DEBUG": "dim"}


@contextmanager
def as_text(width: int = TEXT_WIDTH, *, colours: bool = False) -> Iterator[tuple[Console, Callable[[], str]]]:
    """A console that only collects, and what gives its text. In a kernel rich would display by itself; here it must not."""
    buffer = io.StringIO()
    system: Any = "standard" if colours else None
    # A cell's red box wraps by itself.
    console = Console(file=buffer, width=width, highlight=False, force_terminal=colours, color_system=system, force_jupyter=False, soft_wrap=colours)
    yield console, lambda: buffer.getvalue().rstrip("\n")


def json_value(value: Any) -> RenderableType:
    """JSON in colours, cut where a screen has seen enough: a result of 100,000 numbers took 10 s to draw."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return Text(f"{type(value).__name__}, nested too deeply to show")
    if len(text) > JSON_CHARACTERS or text.count("\n") > JSON_LINES:
        lines = text[:JSON_CHARACTERS].split("\n")[:JSON_LINES]
        return Text("\n".join([*lines, f"… {len(text):,} characters in all"]))
    return JSON(text, ensure_ascii=False)


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


def local_time(ms: int | None) -> str:
    """``2026-11-26 14:03:07 +01:00``: this machine's time, with its offset; "" for None."""
    if ms is None:
        return ""
    shown = datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    return f"{shown[:-2]}:{shown[-2:]}"


#: Characters of a progress bar.
BAR = 24


def status_text(status: str) -> Text:
    return Text(status, style=STATUS_STYLE.get(status, ""))


def table(*columns: str) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        shown.add_column(column, no_wrap=True)
    return shown


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
        console.print(f"endpoint: [bold]{row['api']['url']}[/]", highlight=False)
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


MACHINE_COLUMNS = ("machine", "worker", "version", "ready", "starting", "draining")


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
    console.print(f"\nendpoint: [bold]{url}{api['endpoint']}[/]\n  {escape(line)}\n", highlight=False, soft_wrap=True)
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
    return Text.assemble(*parts, seen.words, (f" {seen.seconds:.1f} s", "dim"))


def logs(console: Console, records: list[dict[str, Any]], *, raw: bool = False) -> None:
    for record in records:
        if raw:
            console.print(json.dumps(record), highlight=False, markup=False, soft_wrap=True)
        else:
            log_record(console, record)


def log_view(console: Console, records: list[dict[str, Any]], *, raw: bool = False) -> None:
    if not records:
        console.print("no log lines yet", style="dim")
    logs(console, records, raw=raw)


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


def explain(console: Console, error: CortexError) -> None:
    """A refusal: one sentence, then the author's own frames or the last log lines."""
    console.print(f"[bold red]error:[/] [bold]{escape(error.message)}[/]")
    for more in list(error.details.get("all") or [])[1:]:
        console.print(f"  {escape(str(more))}")
    if traceback := error.details.get("traceback"):
        console.print(escape(str(traceback)), style="red")
    elif lines := error.details.get("logs"):
        console.print("[dim]its last log lines:[/]")
        for line in list(lines)[-10:]:
            console.print(f"  {escape(str(line))}")


def environments(console: Console, rows: list[dict[str, Any]]) -> None:
    shown = table("", "environment", "url")
    for row in rows:
        shown.add_row("*" if row["used"] else "", row["name"], row["url"] or "[dim]not started yet[/]")
    console.print(shown)


def said(console: Console, data: dict[str, Any], *, text: str = "") -> None:
    console.print(escape(text or str(data.get("message", ""))), highlight=False, soft_wrap=True)


def init(console: Console, data: dict[str, Any]) -> None:
    console.print(f"wrote [bold]{escape(data['file'])}[/] for the API [bold]{data['name']}[/]; a Handler to start from:\n")
    console.print(Syntax(data["handler"], "python", background_color="default"))


def module(console: Console, data: dict[str, Any]) -> None:
    """The module with the reason beside each statement, what travels, what surprises, and the difference to what is live."""
    origin = "as executed in this kernel" if data["executed"] else "as saved"
    console.print(f"[bold]{data['module']}[/] of [bold]{data['name']}[/], from {escape(data['notebook'] or 'this notebook')} ({origin})\n")
    notes = {row["module_line"]: f"{row['cell']}: {row['reasons'][0]}" for row in data["reasons"]}
    width = min(90, max((len(line) for line in data["source"].split("\n")), default=0))
    highlighted = Syntax("", "python", background_color="default").highlight(data["source"].rstrip("\n")).split("\n")
    beside = console.width >= width + NOTE_COLUMNS
    for number, line in enumerate(highlighted, 1):
        shown = Text(f"{number:4} ", style="dim") + line
        note = notes.get(number)
        if note and not beside:
            console.print(Text(f"     # {note}", style="dim italic"), soft_wrap=True)
        elif note:
            shown.append(" " * max(2, width - len(line) + 2))
            shown.append(f"# {note}", style="dim italic")
        console.print(shown, soft_wrap=True)
    console.print()
    if data["reasons"]:
        travels(console, data["travels"])
    surprises(console, data["surprises"])
    _difference(console, data)


def travels(console: Console, rows: list[dict[str, Any]]) -> None:
    shown = table("travels", "bytes", "why")
    for row in rows[:20]:
        shown.add_row(Text(row["path"]), f"{row['bytes']:,}", Text(row["why"], style="dim"))
    if len(rows) > 20:
        shown.add_row(f"and {len(rows) - 20} more", f"{sum(row['bytes'] for row in rows[20:]):,}", "")
    console.print(shown)


def surprises(console: Console, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        word = "[bold red]stops a deploy:[/]" if row["blocks"] else "[bold yellow]asks:[/]" if row["asks"] else "[yellow]note:[/]"
        place = f"{row['place']}: " if row["place"] else ""
        console.print(f"{word} {escape(place + row['message'])}\n      [dim]{escape(row['remedy'])}[/]", highlight=False)


def _difference(console: Console, data: dict[str, Any]) -> None:
    live = data.get("live")
    if live is None:
        return
    if not live["diff"]:
        console.print(f"\n[green]the same as version {live['version']}, which is live[/]")
        return
    console.print("\n[bold]different from what is live:[/]")
    for line in live["diff"][:DIFF_LINES]:
        console.print(Text(line, style="green" if line.startswith("+") else "red" if line.startswith("-") else "dim"), soft_wrap=True)


def checked(console: Console, data: dict[str, Any]) -> None:
    surprises(console, data["surprises"])
    if data["error"]:
        console.print(f"[bold red]failed:[/] {escape(data['error']['message'])}", highlight=False)
        if traceback := data["error"]["details"].get("traceback"):
            console.print(escape(str(traceback)), style="red")
        for line in data["error"]["details"].get("logs") or ():
            console.print(f"  {escape(str(line))}")
    elif data["ok"]:
        names, count = ", ".join(data["samples"]), len(data["samples"])
        samples = f", and {count} sample{'s' * (count != 1)}: {names}" if names else "; there are no samples"
        console.print(f"[green]ok:[/] {data['name']} imports, Handler(config) constructs{escape(samples)}", highlight=False, soft_wrap=True)


def tried(console: Console, data: dict[str, Any]) -> None:
    """One payload through a notebook's Handler: what arrives, what comes out, what was logged."""
    if data["refusal"]:
        console.print(f"[bold red]refused with 400:[/] {escape(data['refusal'])}\n[dim]nothing is queued; the Handler does not see it[/]")
        return
    if note := ignored(data):
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    arrived = data["payload"]
    console.print(f"arrives: [bold]{arrived['type']}[/] [dim]{arrived['size']}[/]  {escape(arrived['repr'])}")
    logs(console, data["records"])
    console.print(Text.assemble(status_text(data["status"]), (f"  {data['run_ms']:.1f} ms", "dim")))
    if data["status"] == "completed":
        console.print(json_value(data["result"]))
    else:
        console.print(f"[red]{escape(data['error']['type'])}:[/] {escape(data['error']['message'])}")
        console.print(Text(data["traceback"], style="red"), soft_wrap=True)


def ignored(data: dict[str, Any]) -> str:
    """Which headers of a try have no effect, in words; "" for none."""
    names = ", ".join(data["ignored"])
    return f"without effect here: {names}; of the headers, a Handler's call depends on Content-Type and X-Request-ID alone" if names else ""


def samples(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        console.print("no samples yet; try a payload, then `%cortex sample NAME` keeps it with its result")
        return
    shown = table("sample", "content type", "bytes", "expected", "notebook")
    for row in rows:
        expected = json.dumps(row["expected"]) if row["expected"] is not None else "any result"
        shown.add_row(*map(Text, (row["name"], row["content_type"], f"{row['bytes']:,}", expected, row["notebook"] or "all")))
    console.print(shown)


def saved(console: Console, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        where = "an artifact: outside the bundle" if row["artifact"] else "a file of the project"
        console.print(f"[green]saved[/] [bold]{row['file']}[/] [dim]({row['bytes']:,} bytes, {where})[/]\n  {escape(row['line'])}", soft_wrap=True)
        if row["warning"]:
            console.print(f"  [yellow]note:[/] {escape(row['warning'])}")


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


def first_line(text: str, most: int = 160) -> str:
    line = text.split("\n", 1)[0]
    return line if len(line) <= most else f"{line[:most]}…"


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


def requeued(console: Console, data: dict[str, Any], *, command: str = "cortex") -> None:
    done = data["requeued"]
    console.print(f"[bold]{len(done)}[/] of {data['api']} requeued, under their ids", highlight=False)
    if done:
        console.print(f"[dim]look one up: `{command} result {data['api']} {escape(done[0])} --wait 30`[/]")
    for row in data["refused"][:100]:
        console.print(f"[yellow]refused:[/] {escape(row['id'])}: {escape(row['reason'])}", highlight=False)


#: What a door can show, by name: (console, data, facts) -> characters.
VIEWS: dict[str, Callable[..., None]] = {
    "apis": api_list,
    "api": api_detail,
    "checked": checked,
    "deployed": deployed,
    "environments": environments,
    "init": init,
    "logs": log_view,
    "module": module,
    "processes": processes,
    "replayed": replayed,
    "replays": replays,
    "requests": requests,
    "requeued": requeued,
    "rehearsed": rehearsed,
    "said": said,
    "samples": samples,
    "saved": saved,
    "tried": tried,
    "workload": workload,
    "written": said,
}
