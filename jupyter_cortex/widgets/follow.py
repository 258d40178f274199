"""One workload, live: waiting, running, its log lines, its end."""

from __future__ import annotations

import time
from typing import Any

from IPython.display import display

from .. import commands, render
from ..client import Client
from . import pages
from .style import badge, esc, page
from .views import show_widget

#: One long poll; short enough that the elapsed time moves.
LOOK_S = 0.5
#: How long log lines are waited for; a workload that logged nothing costs this once.
SHIPPED_S = 0.6
FINAL = ("completed", "failed", "cancelled")


def follow(client: Client, name: str, request_id: str, seconds: float, *, live: bool) -> dict[str, Any]:
    """Until the workload ends or ``seconds`` are over; what it is then. An interrupt stops following, not the workload."""
    began = time.monotonic()
    widget = handle = None
    if live:
        import ipywidgets

        widget = ipywidgets.HTML(_line(request_id, "in_queue", 0.0))
        handle = show_widget(widget, {"text/plain": f"id: {request_id}"})
    try:
        while True:
            left = seconds - (time.monotonic() - began)
            data = commands.result(client, name, request_id, max(0.0, min(LOOK_S, left)))
            if widget is not None:
                widget.value = _line(request_id, data["status"], time.monotonic() - began)
            if data["status"] in FINAL or left <= 0:
                break
    except KeyboardInterrupt:
        data = commands.result(client, name, request_id)
    _finish(client, name, data, widget, handle)
    return data


def _records(client: Client, name: str, request_id: str) -> list[dict[str, Any]]:
    """The workload's own log lines; workers ship lines in batches, so they may be a moment behind the result."""
    deadline = time.monotonic() + SHIPPED_S
    while True:
        records = [record for record in client.logs(name, 500) if record.get("request_id") == request_id]
        if records or time.monotonic() > deadline:
            return records
        time.sleep(0.05)


def _line(request_id: str, status: str, seconds: float) -> str:
    return page(f"<p><span class=mono>{esc(request_id)}</span> {badge(status)} <span class=dim>{seconds:.1f} s</span></p>")


def _finish(client: Client, name: str, data: dict[str, Any], widget: Any, handle: Any) -> None:
    records = _records(client, name, data["id"])
    html = pages.workload(data, name=name) + (page(f"<h4>Log</h4>{pages.log_table(records)}") if records else "")
    with render.as_text() as (console, text_of):
        render.workload(console, data, name=name, command="%cortex")
        render.logs(console, records)
        bundle = {"text/plain": text_of(), "text/html": html}
    if handle is None:
        display(bundle, raw=True)
    else:
        handle.update(bundle, raw=True)
        widget.close()
