"""What ran in this kernel: each run of a cell with its text, its cell's id, how long it took and where it failed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any


@dataclass
class Run:
    """One run of a cell. ``seconds`` is None for a run before the extension was loaded. ``failed_line``: of the cell; 0 for "none of it ran"."""

    source: str
    count: int
    cell_id: str = ""
    started: float = 0.0
    seconds: float | None = None
    failed_line: int | None = None
    running: bool = False

    @property
    def blank_lines(self) -> int:
        """Empty lines at the beginning, which IPython leaves out of what it compiles: its line numbers begin after them."""
        return _blank_lines(self.source)

    @property
    def lines_before_body(self) -> int:
        """The line of a cell magic, and the empty ones behind it, which are left out as well."""
        return 1 + _blank_lines(self.source.lstrip().partition("\n")[2])


def _blank_lines(text: str) -> int:
    return next((at for at, line in enumerate(text.split("\n")) if line.strip()), 0)


class Recorder:
    """Listens to a shell's events from :meth:`start` on; earlier cells come from its input history."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.runs: list[Run] = []

    def start(self) -> None:
        history = list(getattr(self._shell.history_manager, "input_hist_raw", []) or [])
        self.runs = [Run(source, count, started=0.0) for count, source in enumerate(history) if count and source.strip()]
        self._shell.events.register("pre_run_cell", self._begin)
        self._shell.events.register("post_run_cell", self._end)

    def stop(self) -> None:
        self._shell.events.unregister("pre_run_cell", self._begin)
        self._shell.events.unregister("post_run_cell", self._end)

    def run_of(self, count: int) -> Run | None:
        return next((run for run in reversed(self.runs) if run.count == count), None)

    def _begin(self, info: Any) -> None:
        if not info.store_history or info.silent:
            return
        # The shell's own counter is raised before or after this event, depending on IPython's version; its history is not.
        count = len(self._shell.history_manager.input_hist_raw)
        self.runs.append(Run(info.raw_cell, count, str(getattr(info, "cell_id", None) or ""), time.time(), running=True))

    def _end(self, result: Any) -> None:
        info = result.info
        if info is not None and not info.store_history:
            self._end_inside(result)
        if info is None or not info.store_history or info.silent:
            return
        run = next((run for run in reversed(self.runs) if run.running and run.source == info.raw_cell), None)
        if run is None:
            return
        run.count = int(result.execution_count or run.count)
        run.running, run.seconds = False, time.time() - run.started
        if result.error_before_exec is not None:
            run.failed_line = 0
        elif result.error_in_exec is not None:
            line = self._line_of(result.error_in_exec, run.count, run)
            run.failed_line = None if line is None else line + run.blank_lines

    def _end_inside(self, result: Any) -> None:
        """``%%capture`` runs its body as a cell of its own, tells of its error and then goes on as if there had been none."""
        run = next((run for run in reversed(self.runs) if run.running), None)
        if run is None or result.error_in_exec is None or not run.source.lstrip().startswith("%%capture"):
            return
        if result.info.raw_cell.strip() != run.source.lstrip().partition("\n")[2].strip():
            return
        line = self._line_of(result.error_in_exec, None, run)
        run.failed_line = None if line is None else line + run.lines_before_body + run.blank_lines

    def _line_of(self, error: BaseException, count: int | None, run: Run) -> int | None:
        """The line of the cell at which its run ended; None when the traceback does not tell. ``count``: None for any run."""
        step, found = error.__traceback__, None
        while step is not None:
            code = step.tb_frame.f_code
            if code.co_name == "<module>" and found is None and (known := self.count_of(code.co_filename)) is not None and count in (None, known):
                found = step.tb_lineno
            elif code.co_filename == "<timed exec>" and found == 1 and run.source.lstrip().startswith("%%time"):
                return step.tb_lineno + run.lines_before_body
            step = step.tb_next
        return found

    def count_of(self, file: str) -> int | None:
        """The execution count of the cell that a traceback's file name stands for."""
        names = getattr(self._shell.compile, "_filename_map", {})
        return names.get(file)
