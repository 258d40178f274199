"""What every view is made of: consoles, tables, values, times."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.json import JSON
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..core.errors import CortexError

STATUS_STYLE = {"live": "green", "updating": "yellow", "error": "red", "stopped": "dim", "completed": "green", "failed": "red", "cancelled": "dim"}
#: How much of a JSON value a screen gets.
JSON_CHARACTERS, JSON_LINES = 20_000, 400
#: What moves a terminal instead of being shown: C0 but tab and line end, DEL, C1.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PLAIN = (int, float, bool, type(None))
#: Columns of text that is shown beside a page.
TEXT_WIDTH = 120


@contextmanager
def as_text(width: int = TEXT_WIDTH, *, colours: bool = False) -> Iterator[tuple[Console, Callable[[], str]]]:
    """A console that only collects, and what gives its text. In a kernel rich would display by itself; here it must not."""
    buffer = io.StringIO()
    system: Any = "standard" if colours else None
    # A cell's red box wraps by itself.
    console = Console(file=buffer, width=width, highlight=False, force_terminal=colours, color_system=system, force_jupyter=False, soft_wrap=colours)
    yield console, lambda: buffer.getvalue().rstrip("\n")


def harmless(value: Any) -> Any:
    """Data whose texts a terminal only shows. Line ends and tabs stay.

    What callers send comes into logs, errors and results, and an escape in it would be obeyed: it could set the clipboard, or hide lines.
    """
    if isinstance(value, str):
        return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value) if _CONTROL.search(value) else value
    if isinstance(value, dict):
        return {harmless(key): item if type(item) in _PLAIN else harmless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item if type(item) in _PLAIN else harmless(item) for item in value]
    return value


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


def status_text(status: str) -> Text:
    return Text(status, style=STATUS_STYLE.get(status, ""))


def table(*columns: str) -> Table:
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        shown.add_column(column, no_wrap=True)
    return shown


def first_line(text: str, most: int = 160) -> str:
    line = text.split("\n", 1)[0]
    return line if len(line) <= most else f"{line[:most]}…"


def said(console: Console, data: dict[str, Any], *, text: str = "") -> None:
    console.print(escape(text or str(data.get("message", ""))), highlight=False, soft_wrap=True)


def explain(console: Console, error: CortexError) -> None:
    """A refusal: one sentence, then the author's own frames or the last log lines."""
    console.print(f"[bold red]error:[/] [bold]{escape(harmless(error.message))}[/]")
    for more in list(error.details.get("all") or [])[1:]:
        console.print(f"  {escape(harmless(str(more)))}")
    if traceback := error.details.get("traceback"):
        console.print(escape(harmless(str(traceback))), style="red")
    elif lines := error.details.get("logs"):
        console.print("[dim]its last log lines:[/]")
        for line in list(lines)[-10:]:
            console.print(f"  {escape(harmless(str(line)))}")
