"""Inside a notebook handler's kernel: what a replica has around its Handler, and what the cells' own words cannot say by themselves.

Log records, progress and the story of a failure go to the replica as messages beside the outputs, so that they are there before the cell has ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_cortex.core.errors import CortexError

from .. import chaining, errors_text, fingerprint, loading, log_context, log_lines, logs, memory, origin, result, shim
from ..live import Progress, Stage

#: The type of our messages, and the part of a request's metadata that says which cell it is.
MESSAGE = KEY = "cortex"
#: Seconds between two looks at what the cells' libraries have reserved; one takes 0.05 ms.
LOOK_S = 0.25


def run(file: str, facts: dict[str, Any], ready: Callable[[], Any]) -> None:
    """Be the kernel of this connection file; ``ready`` is called once it can be talked to."""
    from ipykernel.kernelapp import IPKernelApp

    signal.signal(signal.SIGINT, signal.default_int_handler)
    loading.set_import_path(Path(facts["project_dir"]), facts["python_path"])
    shim.install()
    if facts["chain"]:
        chaining.install(*facts["chain"])
    result.limit(facts["max_result"])
    app = IPKernelApp.instance()
    app.log_connection_info = lambda: None  # type: ignore[method-assign]  # nobody else connects
    app.initialize(["-f", file, "--HistoryManager.enabled=False", "--Application.log_level=40"])
    Teller(app.kernel, facts)
    if facts["mem"]:
        memory.begin(*facts["mem"])
        memory.settle(memory.IN_CELLS)
        threading.Thread(target=_keep_limit, name="cortex-memory", daemon=True).start()
    ready()
    app.start()


def _keep_limit() -> None:
    while True:
        time.sleep(LOOK_S)
        with contextlib.suppress(OSError, MemoryError):  # a cell has too many files open, or is at the limit: the next look may be
            memory.settle(memory.IN_CELLS)


class Teller(logging.Handler):
    """Tells the replica what happens in the cells; one for a kernel, which lives for one run."""

    def __init__(self, kernel: Any, facts: dict[str, Any]) -> None:
        super().__init__()
        self._kernel, self._project_dir = kernel, facts["project_dir"]
        self._parent: dict[str, Any] = {}
        self._cell = ""
        self._places: dict[str, tuple[str, int]] = {}
        self._request: log_context.Request | None = None
        shell = kernel.shell
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)
        named = shell.compile.get_code_name

        def get_code_name(raw: str, code: str, number: int) -> str:
            file = str(named(raw, code, number))
            # IPython leaves out the empty lines at the beginning.
            self._places[file] = self._cell, next((at for at, line in enumerate(raw.split("\n")) if line.strip()), 0)
            return file

        shell.compile.get_code_name = get_code_name
        origin.use(self._place, instead=True)
        logs.logger.setLevel(facts["log_level"].upper())
        logs.logger.addHandler(self)

    def _place(self, file: str, line: int) -> str:
        cell, blank = self._places.get(file, ("", 0))
        return f"{cell}, line {line + blank}" if cell else ""

    def _tell(self, **said: Any) -> None:
        # Encoded here: no encoder on its way changes half a character.
        content = {"said": json.dumps(said)}
        self._kernel.session.send(self._kernel.iopub_socket, MESSAGE, content, parent=self._parent, ident=MESSAGE.encode())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._tell(record=log_lines.encode(log_lines.fields(record)))
        except Exception:  # the cell goes on
            self.handleError(record)

    def _progress(self, request_id: str, progress: Progress) -> None:
        self._tell(progress=[progress.fraction, progress.text, progress.partial.decode("ascii")])

    def _begin(self, info: Any) -> None:
        self._parent = self._kernel.get_parent()
        about = (self._parent.get("metadata") or {}).get(KEY) or {}
        self._cell = str(about.get("cell", ""))
        if self._request is None:
            self._request = log_context.Request(str(about.get("request", "")), stage=Stage(self._progress))
        # Where the cell's code will run: `progress` and the logger know their request by context.
        log_context._current.set(self._request)

    def _end(self, done: Any) -> None:
        error = done.error_before_exec or done.error_in_exec
        if error is not None:
            self._tell(story=self._story(error))

    def _story(self, error: BaseException) -> dict[str, Any]:
        """The failure as a replica describes a Handler's, cell and line included."""
        step = error.__traceback__
        while step is not None and step.tb_frame.f_code.co_filename not in self._places:
            step = step.tb_next
        error = error.with_traceback(step)  # without IPython's own frames
        described = errors_text.describe(error, self._project_dir)
        kind = type(error).__name__ if isinstance(error, CortexError) else described["type"]
        mark, frames = fingerprint.explain(error, kind, described["message"], self._project_dir)
        place = origin.deepest(error)
        if isinstance(error, SyntaxError) and error.filename in self._places:
            place = self._place(error.filename, error.lineno or 1)
        return {**described, "type": kind, "fingerprint": mark, "frames": frames, "place": place or self._cell}
