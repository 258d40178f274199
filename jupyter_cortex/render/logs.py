"""Log records, one to a line."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.text import Text

from .common import harmless

#: What every log record has; the rest is what the author added.
STANDARD_KEYS = {"asctime", "levelname", "message", "process", "exc_info", "stack_info", "labels", "request_id", "replica", "stream"}
LEVEL_STYLE = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow", "DEBUG": "dim"}


def logs(console: Console, records: list[dict[str, Any]], *, raw: bool = False) -> None:
    for record in records:
        if raw:
            console.print(json.dumps(record), highlight=False, markup=False, soft_wrap=True)
        else:
            log_record(console, record)


def nothing(sought: bool) -> str:
    return "no line that is kept has this text and level" if sought else "no log lines yet"


def log_view(console: Console, records: list[dict[str, Any]], *, raw: bool = False, sought: bool = False) -> None:
    if not records:
        console.print(nothing(sought), style="dim")
    logs(console, records, raw=raw)


def log_record(console: Console, record: dict[str, Any]) -> None:
    """One line: time, level, message, extras, the start of the request id; then the exception. A record of foreign shape as it is."""
    record = harmless(record)
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
