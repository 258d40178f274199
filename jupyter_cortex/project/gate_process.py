"""The clean process of the gate: papermill runs the check notebook, cell by cell, in this very interpreter.

Started as ``python -P -m jupyter_cortex.project.gate_process <directory> <events fd> <alive fd>`` with the environment of a replica, the project as
working directory and a session of its own. Reads ``job.json``, writes ``report.ipynb``, tells each step on the events pipe. The other pipe ends when
who asked is gone.

The cells run in this process rather than in a kernel of their own: it is clean already, and a kernel would cost 0.9 s more at each deploy.
"""

from __future__ import annotations

import ast
import io
import json
import os
import select
import shutil
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

# What papermill imports brings a JSON schema package along that compiles a grammar of web addresses for 2.2 of its 2.9 s. Without it the same
# validation runs, less the format of addresses, which notebooks do not have.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

import papermill  # noqa: E402
from nbformat import v4  # noqa: E402
from papermill.engines import Engine, papermill_engines  # noqa: E402

from ..core.errors import CortexError  # noqa: E402
from ..handler import masking  # noqa: E402
from .gate_report import LEFT_OUT  # noqa: E402

#: Characters of one cell's output that the report keeps.
MAX_OUTPUT = 200_000


class _Output(io.TextIOWrapper):
    """Stands in for the standard streams while cells run: one for all of them, as a logger that was set up in one cell writes in the next."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, "utf-8", "backslashreplace", newline="\n", write_through=True)

    def fileno(self) -> int:
        """For children that get this stream: the process's own."""
        return 1

    def close(self) -> None:
        """Stays open, for the next cell."""

    def take(self) -> str:
        """What was written since the last time."""
        text = masking.masked(self._bytes.getvalue().decode("utf-8", "replace"))
        self._bytes.seek(0)
        self._bytes.truncate()
        return text if len(text) <= MAX_OUTPUT else text[:MAX_OUTPUT] + LEFT_OUT


class InProcess(Engine):
    """A papermill engine that executes the cells in this process, one namespace for all."""

    tell: Any = staticmethod(lambda **facts: None)
    failure: BaseException | None = None
    output: _Output

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> None:
        namespace: dict[str, Any] = {"__name__": "__check__"}
        for index, cell in enumerate(nb_man.nb.cells):
            if cell.cell_type != "code" or not cell.source.strip():
                continue
            cls.tell(step=cell.metadata.get("step", ""), name=cell.metadata.get("title", ""))
            nb_man.cell_start(cell, index)
            cell.execution_count = index + 1
            try:
                _run(cell, namespace, cls.output)
            except BaseException as error:
                cls.failure = error
                nb_man.cell_exception(cell, cell_index=index, exception=error)
                return
            nb_man.cell_complete(cell, cell_index=index)


def _run(cell: Any, namespace: dict[str, Any], output: _Output) -> None:
    """Run one cell; what it prints, its last value and its error become its outputs. Raises what the cell raises."""
    before = sys.stdout, sys.stderr
    cell.outputs = []
    sys.stdout = sys.stderr = output
    try:
        tree = ast.parse(cell.source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<check>", "exec"), namespace)
        if last is not None:
            eval(compile(ast.Expression(last.value), "<check>", "eval"), namespace)  # type: ignore[attr-defined]
    except BaseException as error:
        story = error.details.get("traceback") if isinstance(error, CortexError) else None
        text = f"{story}\n\n{error}" if story else str(error) if isinstance(error, CortexError) else traceback.format_exc()
        cell.outputs.append(v4.new_output("error", ename=type(error).__name__, evalue=_plain(str(error)), traceback=_plain(text).splitlines()))
        raise
    finally:
        sys.stdout, sys.stderr = before
        if shown := output.take():
            cell.outputs.insert(0, v4.new_output("stream", name="stdout", text=shown))


def _plain(text: str) -> str:
    """Masked, and without what UTF-8 cannot carry: a report is a file."""
    return masking.masked(text).encode("utf-8", "backslashreplace").decode()


def main() -> None:
    directory, events, alive = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for descriptor in (events, alive):
        os.set_inheritable(descriptor, False)
    threading.Thread(target=_end_with_parent, args=(alive, os.getppid(), directory), daemon=True).start()
    pipe = os.fdopen(events, "wb")

    def tell(**facts: Any) -> None:
        pipe.write((json.dumps(facts) + "\n").encode())
        pipe.flush()

    job = json.loads((directory / "job.json").read_text())
    masking.mask(job["secrets"])
    InProcess.tell, InProcess.output = staticmethod(tell), _Output()
    papermill_engines.register("cortex-in-process", InProcess)
    failure: BaseException | None = None
    try:
        papermill.execute_notebook(
            str(directory / "check.ipynb"),
            str(directory / "report.ipynb"),
            parameters=job["parameters"],
            engine_name="cortex-in-process",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            log_output=False,
            request_save_on_cell_execute=False,  # twice a cell the whole notebook: 200 samples would write it 400 times
        )
    except BaseException as error:
        failure = error
    # papermill takes SystemExit(0) for the end of a notebook; here it is a sample that was not run.
    failure = InProcess.failure or failure
    if failure is None:
        tell(ended="passed")
    else:
        _tell_failure(tell, failure)
    sys.stdout.flush()
    os._exit(0)  # threads that the author's libraries left behind must not keep a deploy waiting


def _tell_failure(tell: Any, error: BaseException) -> None:
    if isinstance(error, CortexError):
        message, details = error.message, error.details
    elif error is InProcess.failure:
        message, details = f"{type(error).__name__}: {error}", {}
    else:
        message, details = f"the checks themselves failed: {type(error).__name__}: {error}", {"traceback": "".join(traceback.format_exception(error))}
    try:
        tell(ended="failed", message=_plain(message), details=details)
    except (TypeError, ValueError, RecursionError):  # a result that is nested deeper than JSON's encoder goes
        tell(ended="failed", message=_plain(message), details={})


def _end_with_parent(alive: int, parent: int, directory: Path) -> None:
    """Whoever asked holds the other end of ``alive``; when nobody does, the check, what it started and its directory are of no use."""
    while not select.select([alive], [], [], 1.0)[0] and os.getppid() == parent:
        pass
    shutil.rmtree(directory, ignore_errors=True)  # the project, its samples and the values of .env
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
