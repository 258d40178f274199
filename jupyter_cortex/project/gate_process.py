"""The clean process of the gate: papermill runs the check notebook, cell by cell, in this very interpreter.

Started as ``python -P -m jupyter_cortex.project.gate_process <directory> <events fd>`` with the environment of a replica and the project as working
directory. Reads ``job.json``, writes ``report.ipynb``, tells each step on the events pipe. Its standard input ends when who asked is gone.

The cells run in this process rather than in a kernel of their own: it is clean already, and a kernel would cost 0.9 s more at each deploy.
"""

from __future__ import annotations

import ast
import json
import os
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

#: Characters of one cell's output that the report keeps.
MAX_OUTPUT = 200_000


class _Output:
    """Stands in for a standard stream while a cell runs."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.encoding, self.errors = "utf-8", "backslashreplace"

    def write(self, text: str) -> int:
        self.parts.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False

    def text(self) -> str:
        text = masking.masked("".join(self.parts))
        return text if len(text) <= MAX_OUTPUT else text[:MAX_OUTPUT] + "\n... more was left out ...\n"


class InProcess(Engine):
    """A papermill engine that executes the cells in this process, one namespace for all."""

    tell: Any = staticmethod(lambda **facts: None)
    failure: BaseException | None = None

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
                _run(cell, namespace)
            except BaseException as error:
                cls.failure = error
                nb_man.cell_exception(cell, cell_index=index, exception=error)
                return
            nb_man.cell_complete(cell, cell_index=index)


def _run(cell: Any, namespace: dict[str, Any]) -> None:
    """Run one cell; what it prints, its last value and its error become its outputs. Raises what the cell raises."""
    output, before = _Output(), (sys.stdout, sys.stderr)
    cell.outputs = []
    sys.stdout = sys.stderr = output  # type: ignore[assignment]
    try:
        tree = ast.parse(cell.source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<check>", "exec"), namespace)
        if last is not None:
            eval(compile(ast.Expression(last.value), "<check>", "eval"), namespace)  # type: ignore[attr-defined]
    except BaseException as error:
        story = error.details.get("traceback") if isinstance(error, CortexError) else None
        text = f"{story}\n\n{error}" if story else str(error) if isinstance(error, CortexError) else traceback.format_exc()
        text = masking.masked(text)
        cell.outputs.append(v4.new_output("error", ename=type(error).__name__, evalue=masking.masked(str(error)), traceback=text.splitlines()))
        raise
    finally:
        sys.stdout, sys.stderr = before
        if shown := output.text():
            cell.outputs.insert(0, v4.new_output("stream", name="stdout", text=shown))


def main() -> None:
    directory, events = Path(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(events, False)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(**facts: Any) -> None:
        os.write(events, (json.dumps(facts) + "\n").encode())

    job = json.loads((directory / "job.json").read_text())
    masking.mask(job["secrets"])
    InProcess.tell = staticmethod(tell)
    papermill_engines.register("cortex-in-process", InProcess)
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
            autosave_cell_every=0,
        )
        tell(ended="passed")
    except papermill.PapermillExecutionError:
        error = InProcess.failure
        if isinstance(error, CortexError):
            tell(ended="failed", message=masking.masked(error.message), details=error.details)
        else:
            tell(ended="failed", message=masking.masked(f"{type(error).__name__}: {error}"), details={})
    sys.stdout.flush()
    os._exit(0)  # threads that the author's libraries left behind must not keep a deploy waiting


def _end_with_parent() -> None:
    """Whoever asked holds our standard input open; when it is gone, the check is of no use."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
