"""A real Jupyter server of a test's own, as a person starts it: JupyterLab and Notebook 7, token and XSRF check on."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from labextension import bundle

from ..conftest import CI, Environment, wait_until

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "examples" / "notebooks"
INSTALLED = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / "jupyter-cortex"
#: No toast about news may lie over what a test clicks, and nothing asks the network.
SETTINGS = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": False}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def labextension_path(directory: Path) -> dict[str, str]:
    """Serve the extension of these sources: the installed one if it is that, else one that is built now and laid over it."""
    if bundle.built_from(INSTALLED) == bundle.digest():
        return {}
    if CI:
        pytest.fail(f"the extension in {INSTALLED} is not made of labextension/: pip install '.[test]' first")
    try:
        bundle.ensure()
    except bundle.BuildFailed as failed:
        pytest.fail(str(failed), pytrace=False)
    over = directory / "share" / "labextensions" / "jupyter-cortex"
    over.parent.mkdir(parents=True, exist_ok=True)
    over.unlink(missing_ok=True)
    over.symlink_to(bundle.BUNDLE, target_is_directory=True)
    return {"JUPYTER_PATH": str(directory / "share")}


@dataclass
class Jupyter:
    """``start`` and ``stop`` may alternate: port, token, files and settings stay."""

    directory: Path
    environment: Environment
    settings: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def root(self) -> Path:
        """What the file browser shows."""
        return self.directory / "root"

    @property
    def log(self) -> str:
        return (self.directory / "jupyter.log").read_text(errors="replace")

    def prepare(self) -> Jupyter:
        if not self.root.exists():
            shutil.copytree(NOTEBOOKS, self.root, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"))
        for name, values in {**SETTINGS, **self.settings}.items():
            path = self.directory / "settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        return self

    def start(self) -> Jupyter:
        self.prepare()
        env = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "JPY_", "CORTEX_", "PYTEST_"))}
        for name in ("config", "data", "runtime"):
            env[f"JUPYTER_{name.upper()}_DIR"] = str(self.directory / name)
        env |= {
            "JUPYTERLAB_SETTINGS_DIR": str(self.directory / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.directory / "workspaces"),
            "IPYTHONDIR": str(self.directory / "ipython"),
            "JUPYTER_CORTEX_HOME": str(self.environment.home),
            **self.environment.variables,
            **labextension_path(self.directory),
        }
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.root,
            "IdentityProvider.token": self.token,
            "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
            "LabApp.expose_app_in_browser": True,
            "JupyterNotebookApp.expose_app_in_browser": True,
        }
        argv = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *(f"--{name}={value}" for name, value in options.items())]
        with open(self.directory / "jupyter.log", "ab") as log:
            self.process = subprocess.Popen(argv, cwd=self.root, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, "the Jupyter server answers")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the Jupyter server ended with {self.process.returncode}:\n{self.log[-5000:]}")
        try:
            return self.http().get("/api/status").status_code == 200
        except httpx.TransportError:
            return False

    def http(self) -> httpx.Client:
        """As a program with the token asks."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"token {self.token}"}, trust_env=False, timeout=30)

    def end_kernels(self) -> None:
        """Those that notebooks of closed tabs left behind."""
        if self.process is not None:
            with self.http() as http:
                for session in http.get("/api/sessions").json():
                    http.delete(f"/api/sessions/{session['id']}")

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM: its kernels end with it. SIGKILL: a crash; the kernels are then the caller's to look after."""
        if self.process is None:
            return
        self.process.send_signal(sig)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
