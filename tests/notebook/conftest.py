"""Real parts for the notebook's tests: kernels over jupyter_client, an IPython shell, notebooks as files."""

from __future__ import annotations

import json
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from ..conftest import Environment

KERNELSPEC = Path(__file__).parents[2] / "kernels" / "cortex" / "kernel.json"
WAIT_S = 120


def write_notebook(path: Path, *cells: str, tags: dict[int, list[str]] | None = None, **metadata: Any) -> Path:
    """A notebook file of code cells; ``tags``: position -> the tags of that cell."""
    rows = [
        {
            "cell_type": "code",
            "id": f"cell-{at}",
            "metadata": {"tags": (tags or {}).get(at, [])} if (tags or {}).get(at) else {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for at, source in enumerate(cells)
    ]
    about = {"kernelspec": {"name": "cortex", "display_name": "Cortex", "language": "python"}, "language_info": {"name": "python"}, **metadata}
    path.write_text(json.dumps({"cells": rows, "metadata": about, "nbformat": 4, "nbformat_minor": 5}))
    return path


@dataclass
class Ran:
    """What one cell showed."""

    stdout: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    error_name: str = ""
    traceback: str = ""

    @property
    def text(self) -> str:
        """Everything a person reads where pages are not drawn."""
        return self.stdout + "\n".join(str(display.get("text/plain", "")) for display in self.displays)

    @property
    def html(self) -> str:
        return "\n".join(str(display.get("text/html", "")) for display in self.displays)


class Kernel:
    """A kernel as a front end sees it: cells in, outputs out, comms."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        spec = json.loads(KERNELSPEC.read_text())
        self.manager = KernelManager()
        self.manager._kernel_spec = None  # type: ignore[attr-defined]
        argv = [sys.executable if part == "python" else part for part in spec["argv"]]
        self.manager.kernel_spec.argv = argv
        self.manager.start_kernel(cwd=str(directory), env=environ)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WAIT_S)

    def run(self, code: str, *, cell_id: str = "", check: bool = True) -> Ran:
        """Run one cell; updates of a display replace what it showed before. ``cell_id`` is what JupyterLab sends along."""
        message = self.client.session.msg(
            "execute_request",
            {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False, "stop_on_error": False},
            metadata={"cellId": cell_id} if cell_id else {},
        )
        self.client.shell_channel.send(message)
        ran = self.collect(message["header"]["msg_id"])
        if check:
            assert not ran.error_name, f"{ran.error_name}: {ran.error}\n{ran.traceback}"
        return ran

    def collect(self, parent: str) -> Ran:
        ran, by_id = Ran(), {}
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"the kernel said nothing for {WAIT_S} s")
            if message["parent_header"].get("msg_id") != parent:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                ran.stdout += content["text"]
            elif kind in ("display_data", "execute_result"):
                ran.displays.append(content["data"])
                if identity := (content.get("transient") or {}).get("display_id"):
                    by_id[identity] = len(ran.displays) - 1
            elif kind == "update_display_data":
                at = by_id.get(content["transient"]["display_id"])
                if at is not None:
                    ran.displays[at] = content["data"]
            elif kind == "error":
                ran.error_name, ran.error, ran.traceback = content["ename"], content["evalue"], "\n".join(content["traceback"])
            elif kind == "status" and content["execution_state"] == "idle":
                return ran

    def value(self, expression: str) -> Any:
        """The value of an expression, as JSON brings it back."""
        return json.loads(self.run(f"import json as _json; print(_json.dumps({expression}))").stdout)

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


KernelMaker = Callable[..., Kernel]


@pytest.fixture
def kernel(environment: Environment, tmp_path: Path) -> Iterator[KernelMaker]:
    """``kernel(directory, notebook=..., **variables)`` starts the cortex kernel; all of them end with the test."""
    made: list[Kernel] = []

    def make(directory: Path = tmp_path, notebook: Path | None = None, home: Path | None = None, **variables: str) -> Kernel:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER_CORTEX_", "JPY_"))}
        environ |= {"JUPYTER_CORTEX_HOME": str(home or environment.home), "IPYTHONDIR": str(tmp_path / ".ipython"), **variables}
        if notebook:
            environ["JPY_SESSION_NAME"] = str(notebook)
        made.append(Kernel(directory, environ))
        return made[-1]

    yield make
    for one in made:
        one.stop()


class Shell:
    """IPython's shell in this process, with the extension loaded: what it displays is collected."""

    def __init__(self, shell: Any, publisher: Any) -> None:
        self.shell, self._publisher = shell, publisher

    @property
    def session(self) -> Any:
        return self.shell.cortex_session

    def run(self, cell: str, *, check: bool = True) -> Any:
        """Run a cell through the shell, magics and all; its result. The displays of the cell are in :attr:`shown`."""
        self._publisher.outputs.clear()
        result = self.shell.run_cell(cell, store_history=True)
        if check:
            result.raise_error()
        return result

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [output["data"] for output in self._publisher.outputs]

    @property
    def text(self) -> str:
        return "\n".join(str(data.get("text/plain", "")) for data in self.shown)

    @property
    def html(self) -> str:
        return "\n".join(str(data.get("text/html", "")) for data in self.shown)


@pytest.fixture
def shell(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A real IPython shell that stands in an empty project directory."""
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_CORTEX_HOME", str(environment.home))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance()
    publisher = CapturingDisplayPublisher()
    made.display_pub = publisher
    made.run_line_magic("load_ext", "jupyter_cortex")
    try:
        yield Shell(made, publisher)
    finally:
        if getattr(made, "cortex_session", None) is not None:
            made.run_line_magic("unload_ext", "jupyter_cortex")
        made.history_manager.end_session()
        InteractiveShell.clear_instance()
        from jupyter_cortex.handler import logs, masking

        masking.clear()
        for handler in [one for one in logs.logger.handlers if isinstance(one, logs.LineHandler)]:
            logs.logger.removeHandler(handler)
