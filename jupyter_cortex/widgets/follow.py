"""One workload, live: its place in the queue, its progress, its log lines, its end; and a button to cancel it."""

from __future__ import annotations

import time
from typing import Any

from IPython.display import display

from .. import commands, render
from ..client import Client
from ..commands.following import Followed
from ..commands.following import follow as follow_to_the_end
from ..commands.verbs import as_in_a_cell
from ..core.errors import CortexError
from ..core.workload import FINAL
from . import pages
from .style import badge, box, esc, page
from .views import show_widget

#: How long log lines are waited for; a workload that logged nothing costs this once.
SHIPPED_S = 0.6
#: Log lines that are drawn while it runs.
LINES = 200


def follow(client: Client, name: str, request_id: str, seconds: float, *, live: bool) -> dict[str, Any]:
    """Until the workload ends or ``seconds`` are over; what it is then. An interrupt stops following, not the workload: that is the button's."""
    view, seen = None, Followed(request_id)
    try:
        view = _View(client, name, request_id) if live else None
        data, seen = follow_to_the_end(client, name, request_id, seconds, view.draw if view else lambda seen: None)
    except KeyboardInterrupt:
        data = commands.result(client, name, request_id)
        if live and view is None:  # it came while the widgets were imported
            view = _View(client, name, request_id)
    if "failure" in data:
        records = []  # they are among what it says of itself
    else:
        records = seen.records or (_records(client, name, request_id) if data["status"] in FINAL else [])
    shown = _bundle(name, data, records)
    if view is None:
        display(shown, raw=True)
    else:
        view.end(data, shown)
    return data


class _View:
    """The widget that is drawn while the cell runs. A kernel hears a button only between cells, so it appears when following has stopped."""

    def __init__(self, client: Client, name: str, request_id: str) -> None:
        import ipywidgets

        self._client, self._name, self._id = client, name, request_id
        self._line = ipywidgets.HTML(_line(Followed(request_id)))
        self._bar = ipywidgets.FloatProgress(value=0.0, min=0.0, max=1.0, layout={"width": "420px", "display": "none"})
        self._partial, self._drawn = ipywidgets.HTML(), None
        self._log = ipywidgets.HTML()
        self._button = ipywidgets.Button(description="Cancel", icon="stop", tooltip="take this workload back", layout={"display": "none"})
        self._button.on_click(lambda _: self.cancel())
        self._box = ipywidgets.VBox([self._line, self._bar, self._partial, self._log, self._button])
        self._handle = show_widget(self._box, {"text/plain": f"id: {request_id}"})

    def draw(self, seen: Followed) -> None:
        self._line.value = _line(seen)
        if seen.fraction is not None:
            self._bar.value, self._bar.layout.display = seen.fraction, ""
        if seen.partial is not self._drawn:
            self._partial.value, self._drawn = page(pages.so_far(seen.partial)), seen.partial
        if seen.records:
            self._log.value = page(pages.log_table(seen.records[-LINES:]))

    def end(self, data: dict[str, Any], shown: dict[str, str]) -> None:
        if data["status"] in ("in_queue", "in_progress"):
            self._line.value, self._button.layout.display = shown["text/html"], ""
            return
        self._handle.update(shown, raw=True)
        for part in (*self._box.children, self._box):
            part.close()

    def cancel(self) -> None:
        try:
            workload = self._client.cancel(self._name, self._id)
        except CortexError as error:
            self._line.value = page(box("bad", f"<p>{esc(as_in_a_cell(error.message))}</p>"))
            return
        self._button.layout.display = "none"
        self._line.value = pages.workload({"id": workload.id, "status": workload.status}, name=self._name)


def _records(client: Client, name: str, request_id: str) -> list[dict[str, Any]]:
    """The log lines of the workload's last run; workers ship lines in batches, so they may be a moment behind the result."""
    if not client.environment.token:  # who may only call is not shown logs
        return []
    deadline = time.monotonic() + SHIPPED_S
    while True:
        records = client.workload_log(name, request_id)
        if records or time.monotonic() > deadline:
            return records
        time.sleep(0.05)


def _line(seen: Followed) -> str:
    words = f" {esc(seen.words)}" if seen.words else ""
    return page(f"<p><span class=mono>{esc(seen.id)}</span> {badge(seen.status)}{words} <span class=dim>{seen.seconds:.1f} s</span></p>")


def _bundle(name: str, data: dict[str, Any], records: list[dict[str, Any]]) -> dict[str, str]:
    html = pages.workload(data, name=name) + (page(f"<h4>Log</h4>{pages.log_table(records)}") if records else "")
    with render.as_text() as (console, text_of):
        render.workload(console, render.harmless(data), name=name, command="%cortex")
        render.logs(console, records)
        return {"text/plain": text_of(), "text/html": html}
