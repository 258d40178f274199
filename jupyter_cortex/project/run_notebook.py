"""Running a notebook from first cell to last with papermill, in a kernel of this very interpreter."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import NotebookError
from ..core.variables import variables

#: Told after each cell: its kind ("markdown" or "code"), source, and outputs (nbformat).
Told = Callable[[str, str, list[dict[str, Any]]], None]
KERNEL = "cortex-run"


def run(notebook: Path, parameters: dict[str, Any], told: Told = lambda kind, source, outputs: None) -> None:
    """Execute a notebook in place, in its own directory. Raises NotebookError naming the cell that failed; the file then holds the error.

    The kernel is this interpreter's own, whatever kernels are installed, and is told which notebook it runs.
    """
    # See gate_process.py: 2.2 s for the formats of web addresses, which notebooks do not have.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import papermill
    from papermill.engines import NBClientEngine, papermill_engines

    class Telling(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
            complete = nb_man.cell_complete

            def cell_complete(cell: Any, *args: Any, **named: Any) -> None:
                complete(cell, *args, **named)
                told(cell.cell_type, cell.source, cell.get("outputs", []))

            nb_man.cell_complete = cell_complete
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    papermill_engines.register("cortex-telling", Telling)
    with tempfile.TemporaryDirectory(prefix="cortex-kernel-") as directory:
        _write_kernel(Path(directory))
        kernels = os.pathsep.join(filter(None, [directory, os.environ.get("JUPYTER_PATH")]))
        try:
            with variables({"JUPYTER_PATH": kernels, "JPY_SESSION_NAME": str(notebook)}):
                papermill.execute_notebook(
                    str(notebook),
                    str(notebook),
                    parameters=parameters,
                    engine_name="cortex-telling",
                    kernel_name=KERNEL,
                    cwd=str(notebook.parent),
                    progress_bar=False,
                    log_output=False,
                    stdout_file=None,
                    stderr_file=None,
                )
        except papermill.PapermillExecutionError as error:
            raise NotebookError(f"{notebook.name}: cell {error.cell_index + 1} failed: {error.ename}: {error.evalue}", kind="failed") from None
    _restore_kernel(notebook)


def _write_kernel(directory: Path) -> None:
    kernel = directory / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    argv.append("--IPKernelApp.extra_extensions=jupyter_cortex")
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Cortex", "language": "python"}))


def _restore_kernel(notebook: Path) -> None:
    """The executed file must open with a kernel that exists elsewhere, too."""
    document = json.loads(notebook.read_text("utf-8"))
    document["metadata"]["kernelspec"] = {"name": "cortex", "display_name": "Cortex (Python 3)", "language": "python"}
    notebook.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
