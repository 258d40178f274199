"""What a notebook makes of its Handler: the module, its checks, one payload tried, samples, saved objects."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.text import Text

from .common import json_value, status_text, table
from .logs import logs

#: Columns that a reason needs beside the code; on a narrower screen it stands above.
NOTE_COLUMNS = 60
#: How many lines of a difference a screen gets.
DIFF_LINES = 200


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
