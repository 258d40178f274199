"""The payload workbench of `%cortex try`: a request is put together, run in this kernel, looked at, and kept as a sample."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

import ipywidgets

from ..commands.verbs import as_in_a_cell
from ..core.errors import CortexError
from ..handler import log_lines, logs
from ..handler.live import Progress
from . import pages
from .calm import Calm
from .style import box, esc, page

CONTENT_TYPES = (
    "application/json",
    "text/plain",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "image/png",
    "image/jpeg",
    "text/csv",
)
#: (body, content type, headers, watcher of its log records) -> the data of the page ``tried``. Raises CortexError.
Run = Callable[[bytes, str, dict[str, str], logging.Handler], dict[str, Any]]
#: (name, with its result) -> the path of the sample. Raises CortexError.
Keep = Callable[[str, bool], str]


class Workbench:
    """``samples``: name -> (content type, body) to start from. ``view`` is the widget to display."""

    def __init__(self, run: Run, keep: Keep, samples: dict[str, tuple[str, bytes]]) -> None:
        self._run, self._keep, self._samples = run, keep, samples
        self._body: bytes | None = None  #: of an uploaded file or a sample that is no text
        wide = {"width": "auto", "max_width": "1000px"}
        self.sample = ipywidgets.Dropdown(options=[("— a new payload —", ""), *((name, name) for name in samples)], description="sample")
        self.content_type = ipywidgets.Combobox(
            value="application/json", options=CONTENT_TYPES, description="type", ensure_option=False, layout={"width": "380px"}
        )
        self.body = ipywidgets.Textarea(value="{}", placeholder="the request's body", rows=6, description="body", layout=wide)
        self.upload = ipywidgets.FileUpload(description="file", multiple=False, tooltip="send a file's bytes instead of the text")
        self.headers = ipywidgets.Textarea(value="", placeholder="x-request-id: my-id", rows=2, description="headers", layout=wide)
        self.button = ipywidgets.Button(description="Run", button_style="primary", icon="play", tooltip="parse → handle_async → JSON, in this kernel")
        self.name = ipywidgets.Text(placeholder="name of the sample", layout={"width": "200px"})
        self.expect = ipywidgets.Checkbox(value=True, description="expect this result", indent=False, layout={"width": "170px"})
        self.keep = ipywidgets.Button(description="Keep as sample", icon="save", disabled=True)
        self.said = ipywidgets.HTML()
        self.log, self.result = ipywidgets.HTML(), ipywidgets.HTML()
        row = {"align_items": "center"}
        self.view = ipywidgets.VBox(
            [
                ipywidgets.HBox([self.content_type, self.upload, self.sample], layout={**row, "flex_flow": "row wrap"}),
                self.body,
                self.headers,
                ipywidgets.HBox([self.button, self.name, self.expect, self.keep, self.said], layout={**row, "flex_flow": "row wrap"}),
                self.log,
                self.result,
            ]
        )
        self.button.on_click(lambda _: self.run())
        self.keep.on_click(lambda _: self.keep_sample())
        self.sample.observe(self._choose, "value")
        self.upload.observe(self._uploaded, "value")
        self.body.observe(self._typed, "value")

    # What is sent ------------------------------------------------------------------------------------------------------------------------

    def load(self, content_type: str, body: bytes) -> None:
        self.content_type.value = content_type
        try:
            text = body.decode()
        except UnicodeDecodeError:
            self.body.value, self._body = f"({len(body):,} bytes that are no text)", body
            return
        self.body.value, self._body = text, None

    def _choose(self, change: dict[str, Any]) -> None:
        if change["new"]:
            self.load(*self._samples[change["new"]])
            self.name.value = change["new"]

    def _uploaded(self, change: dict[str, Any]) -> None:
        if not change["new"]:
            return
        file = change["new"][0]
        self.load(file.get("type") or "application/octet-stream", bytes(file["content"]))
        if self._body is None:
            self._body = bytes(file["content"])  # newlines as in the file, not as a text area has them
        self.said.value = page(f'<span class="dim">{esc(file["name"])}, {len(self._body):,} bytes</span>')

    def _typed(self, change: dict[str, Any]) -> None:
        if self._body is not None and not str(change["new"]).startswith("("):
            self._body = None

    def request(self) -> tuple[bytes, str, dict[str, str]]:
        """(body, content type, headers) as they stand in the form."""
        headers = {}
        for line in self.headers.value.splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip():
                headers[name.strip().lower()] = value.strip()
        body = self._body if self._body is not None else self.body.value.encode()
        return body, headers.pop("content-type", self.content_type.value), headers

    # What happens ------------------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run what stands in the form; the log is drawn as its lines come."""
        body, content_type, headers = self.request()
        self.button.disabled, self.said.value, self.result.value = True, "", ""
        try:
            with contextlib.closing(Drawing(self._draw_log)) as drawing:
                data = self._run(body, content_type, headers, drawing)
        except CortexError as error:
            self.result.value = page(box("bad", f"<p><b>{esc(error.title())}</b>: {esc(as_in_a_cell(error.message))}</p>"))
            return
        finally:
            self.button.disabled = False
        self.log.value = ""
        self.result.value = pages.tried(data)
        self.keep.disabled = bool(data["refusal"])
        self.expect.disabled = data["status"] != "completed"

    def _draw_log(self, html: str) -> None:
        self.log.value = html

    def keep_sample(self) -> None:
        try:
            where = self._keep(self.name.value, self.expect.value and not self.expect.disabled)
        except CortexError as error:
            self.said.value = page(f'<span class="bad">{esc(as_in_a_cell(error.message))}</span>')
            return
        self.said.value = page(f'<span class="good">kept as {esc(where)}</span>')


class Drawing(logging.Handler):
    """Draws the progress, what there is of the result and the log table while the handler runs.

    ``draw`` gets the page, at most ten times a second and not in the first tenth."""

    def __init__(self, draw: Callable[[str], None]) -> None:
        super().__init__()
        self._draw = draw
        self._records: list[dict[str, Any]] = []
        self._bar, self._partial = "", b""
        self._calm = Calm(self._draw_now)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._records.append(json.loads(logs.masked_line(log_lines.encode(log_lines.fields(record)))))
            self._calm.touch()
        except Exception:  # a log line must never fail the handler that wrote it
            pass

    def tell(self, request_id: str, progress: Progress) -> None:
        """The handler says how far it is."""
        self._bar, self._partial = pages.progress_bar(progress.fraction, progress.text), progress.partial or self._partial
        try:
            self._calm.touch()
        except Exception:  # nor must a bar
            pass

    def _draw_now(self) -> None:
        partial = pages.so_far(json.loads(self._partial)) if self._partial else ""
        self._draw(page(self._bar, partial, pages.log_table(self._records) if self._records else ""))

    def close(self) -> None:
        """Nothing is drawn any more: the whole is shown."""
        self._calm.close()
        super().close()
