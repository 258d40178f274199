"""What the shell shows: tables, logs, errors. Data in, characters out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console

from .apis import api_detail, api_list, deployed, environments, processes
from .common import as_text, explain, harmless, said
from .logs import log_record, log_view, logs
from .notebooks import checked, init, module, samples, saved, tried
from .rehearsals import rehearsed
from .replays import replayed, replays
from .requests import followed, requests, requeued, workload


def _of_harmless(view: Callable[..., None]) -> Callable[..., None]:
    def draw(console: Console, data: Any, **facts: Any) -> None:
        view(console, harmless(data), **harmless(facts))

    return draw


_VIEWS: dict[str, Callable[..., None]] = {
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
#: What a door can show, by name: (console, data, facts) -> characters.
VIEWS = {name: _of_harmless(view) for name, view in _VIEWS.items()}
# Each record by itself, and not where the lines are wanted as they are: JSON has no escapes.
VIEWS["logs"] = log_view

__all__ = ["VIEWS", "as_text", "explain", "followed", "harmless", "log_record", "logs", "workload"]
