"""A real Jupyter server with the extension, real kernels in it, and a notebook's model as a browser sends it."""

from __future__ import annotations

import http.client
import json
import os
import queue
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket
from jupyter_client.blocking.client import BlockingKernelClient

from ..conftest import Environment, wait_until

WAIT_S = 120
#: What the package installs for Jupyter servers.
SERVER_CONFIG = Path(__file__).parents[2] / "labextension" / "server_config.json"
#: Kernelspec -> (language, what its interpreter is started with). `cortex` is the kernel that the package installs.
KERNELS = {
    "cortex": ("python", ["--IPKernelApp.extra_extensions=jupyter_cortex"]),
    "plain": ("python", []),
    "other": ("R", []),
}


def model(*cells: str, **metadata: Any) -> dict[str, Any]:
    """A notebook of code cells as JupyterLab has it: ids ``cell-0``, ``cell-1``… and no outputs."""
    rows = [
        {"cell_type": "code", "id": f"cell-{at}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for at, source in enumerate(cells)
    ]
    about = {"kernelspec": {"name": "cortex", "display_name": "Cortex", "language": "python"}, "language_info": {"name": "python"}, **metadata}
    return {"cells": rows, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


@dataclass
class Kernel:
    """A kernel of the server, used as a notebook uses it."""

    id: str
    client: BlockingKernelClient

    def send(self, code: str, cell_id: str = "", **content: Any) -> str:
        """Ask for a cell to be run; the id of the request."""
        message = self.client.session.msg(
            "execute_request",
            {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True, **content},
            metadata={"cellId": cell_id} if cell_id else {},
        )
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def collect(self, request: str) -> tuple[str, str]:
        """(what it printed, the name of its error)."""
        printed, error, deadline = "", "", time.monotonic() + WAIT_S
        while True:
            try:
                said = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"the kernel said nothing for {WAIT_S} s")
            if said["parent_header"].get("msg_id") != request:
                continue
            if said["msg_type"] == "stream":
                printed += said["content"]["text"]
            elif said["msg_type"] == "error":
                error = said["content"]["ename"]
            elif said["msg_type"] == "status" and said["content"]["execution_state"] == "idle":
                return printed, error

    def run(self, code: str, cell_id: str = "") -> str:
        printed, error = self.collect(self.send(code, cell_id))
        assert not error, f"{error}: {printed}"
        return printed

    def run_all(self, *cells: str) -> None:
        """Run the cells under the ids that :func:`model` gives them."""
        for at, source in enumerate(cells):
            self.run(source, f"cell-{at}")

    def value(self, expression: str) -> Any:
        return json.loads(self.run(f"print(__import__('json').dumps({expression}))"))


@dataclass
class Lab:
    """One Jupyter server. ``root``: what its contents manager shows."""

    root: Path
    url: str
    token: str
    process: subprocess.Popen[bytes]
    log: Path
    runtime: Path
    kernels: list[Kernel] = field(default_factory=list)

    def http(self, *, token: bool = True, **options: Any) -> httpx.Client:
        headers = {"authorization": f"token {self.token}"} if token else {}
        return httpx.Client(base_url=self.url, trust_env=False, timeout=WAIT_S, headers=headers, **options)

    def browser(self) -> tuple[httpx.Client, dict[str, str]]:
        """A client that has signed in and holds a cookie, and the header with its XSRF token."""
        client = self.http(token=False)
        client.get("/login")
        client.get("/login", params={"token": self.token})
        return client, {"x-xsrftoken": client.cookies["_xsrf"], "referer": f"{self.url}/lab"}

    def raw(self, method: str, path: str) -> tuple[int, str]:
        """A request whose path is sent exactly as it is written: status and body."""
        connection = http.client.HTTPConnection(*self.url.removeprefix("http://").split(":"), timeout=WAIT_S)  # type: ignore[arg-type]
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            connection.putheader("Authorization", f"token {self.token}")
            connection.putheader("Content-Length", "0")
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> httpx.Response:
        with self.http() as client:
            return client.get(f"/cortex/{path}", **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        with self.http() as client:
            return client.post(f"/cortex/{path}", **options)

    def kernel(self, name: str = "cortex", directory: str = "") -> Kernel:
        with self.http() as client:
            made = client.post("/api/kernels", json={"name": name, "path": directory})
        assert made.status_code == 201, made.text
        client_of = BlockingKernelClient(connection_file=str(self.runtime / f"kernel-{made.json()['id']}.json"))
        client_of.load_connection_file()
        client_of.start_channels(hb=False)
        # By the server, too: what it has not heard it does not know, such as that a cell is running.
        wait_until(lambda: _hears(client_of) and self._state(made.json()["id"]) != "starting", "the kernel answers and is heard", WAIT_S)
        self.kernels.append(Kernel(made.json()["id"], client_of))
        return self.kernels[-1]

    def _state(self, kernel_id: str) -> str:
        with self.http() as client:
            return str(client.get(f"/api/kernels/{kernel_id}").json()["execution_state"])

    def page(self, events: dict[str, str] | None = None, logs: dict[str, str] | None = None) -> Page:
        """An open page: its websocket, with what it follows."""
        made = Page(websocket.create_connection(f"{self.url.replace('http', 'ws')}/cortex/stream?token={self.token}", timeout=WAIT_S))
        made.follow(events=events or {}, logs=logs or {})
        return made

    def end(self, kernel: Kernel) -> None:
        kernel.client.stop_channels()
        self.kernels.remove(kernel)
        with self.http() as client:
            client.delete(f"/api/kernels/{kernel.id}")

    def notebook(self, path: str, *cells: str) -> dict[str, Any]:
        """Save a notebook below the root; its model."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(json.dumps(model(*cells)))
        return model(*cells)

    def ask(self, verb: str, kernel: Kernel | None, path: str, notebook: dict[str, Any], **options: Any) -> Told:
        """One of the buttons: everything it told."""
        body = json.dumps({"path": path, "kernel_id": kernel.id if kernel else None, "model": notebook, **options})
        told = Told()
        with self.http() as client, client.stream("POST", f"/cortex/notebook/{verb}", content=body) as answer:
            told.status = answer.status_code
            if answer.status_code != 200:
                told.problem = json.loads(answer.read())
                return told
            assert answer.headers["content-type"] == "application/x-ndjson"
            for line in answer.iter_lines():
                told.lines.append(line)
                said = json.loads(line)
                told.steps += [said] if "step" in said else []
                told.result = said.get("result", told.result)
                told.problem = said.get("problem", told.problem)
        return told


def _hears(client: BlockingKernelClient) -> bool:
    """Whether the kernel answers, and this client hears what it says to everybody (which a new one does only after a while)."""
    client.kernel_info()
    try:
        client.get_iopub_msg(timeout=0.5)
    except queue.Empty:
        return False
    return True


@dataclass
class Page:
    """A page's websocket, and everything that it was told."""

    socket: websocket.WebSocket
    frames: list[dict[str, Any]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    def follow(self, **positions: dict[str, str] | dict[str, str | None] | int) -> None:
        self.socket.send(json.dumps(positions))

    def frame(self, seconds: float = WAIT_S) -> dict[str, Any] | None:
        """The next frame, None when there is none in time."""
        self.socket.settimeout(seconds)
        try:
            said = self.socket.recv()
        except websocket.WebSocketTimeoutException:
            return None
        if not said:
            raise websocket.WebSocketConnectionClosedException("the server has closed it")
        self.frames.append(json.loads(said))
        self.at.append(time.monotonic())
        return self.frames[-1]

    def until(self, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """The first frame that the condition is true of."""
        deadline = time.monotonic() + WAIT_S
        while True:
            frame = self.frame(max(0.1, deadline - time.monotonic()))
            assert frame is not None, f"waited in vain until {what}: {self.frames}"
            assert time.monotonic() < deadline, f"waited in vain until {what}: {self.frames}"
            if condition(frame):
                return frame

    def moves(self, api: str) -> dict[str, int]:
        """How often it was told of each move."""
        told: dict[str, int] = {}
        for frame in self.frames:
            for state, count in frame.get("changes", {}).get(api, {}).get("moves", {}).items():
                told[state] = told.get(state, 0) + count
        return told

    def close(self) -> None:
        self.socket.close()


@dataclass
class Told:
    status: int = 0
    lines: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    problem: dict[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> list[str]:
        return [step["step"] for step in self.steps]

    def worked(self) -> dict[str, Any]:
        assert not self.problem, self.problem
        assert self.result, self.lines
        return self.result


def start(directory: Path, home: Path, *arguments: str, interpreters: dict[str, str] | None = None, **variables: str) -> Lab:
    """A Jupyter server with its files below ``directory``, pointing to the environment of ``home``."""
    root, runtime, log = directory / "root", directory / "runtime", directory / "server.log"
    for made in (root, runtime):
        made.mkdir(parents=True, exist_ok=True)
    specs = {**dict.fromkeys(KERNELS, sys.executable), **(interpreters or {})}
    for name, interpreter in specs.items():
        language, extra = KERNELS.get(name, ("python", []))
        spec = directory / "data" / "kernels" / name
        spec.mkdir(parents=True, exist_ok=True)
        argv = [interpreter, "-m", "ipykernel_launcher", "-f", "{connection_file}", *extra]
        (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": name, "language": language}))
    enabled = directory / "config" / "jupyter_server_config.d" / "jupyter_cortex.json"
    enabled.parent.mkdir(parents=True, exist_ok=True)
    enabled.write_text(SERVER_CONFIG.read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER_", "JPY_"))}
    environ |= {
        "JUPYTER_CORTEX_HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(directory / "config"),
        "JUPYTER_DATA_DIR": str(directory / "data"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "IPYTHONDIR": str(directory / "ipython"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **variables,
    }
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}"]
    command += arguments
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT, cwd=directory)
    lab = Lab(root, f"http://127.0.0.1:{port}", token, process, log, runtime)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with lab.http() as client:
                return client.get("/api/status").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, "the Jupyter server answers")
    return lab


def stop(lab: Lab) -> None:
    for kernel in list(lab.kernels):
        kernel.client.stop_channels()
    lab.process.terminate()
    try:
        lab.process.wait(30)
    except subprocess.TimeoutExpired:
        lab.process.kill()
        lab.process.wait()


@pytest.fixture(scope="session")
def lab(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The server that tests share; each uses notebooks and names of its own."""
    made = start(tmp_path_factory.mktemp("lab", numbered=True), environment.home)
    yield made
    stop(made)


LabMaker = Callable[..., Lab]


@pytest.fixture
def own_lab(tmp_path: Path) -> Iterator[LabMaker]:
    """Makes servers for tests that configure, stop or kill: ``own_lab(home, *arguments, **variables)``."""
    made: list[Lab] = []

    def make(home: Path, *arguments: str, **options: Any) -> Lab:
        made.append(start(tmp_path / f"lab{len(made)}", home, *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        stop(one)


KernelMaker = Callable[..., Kernel]


@pytest.fixture
def kernel(lab: Lab) -> Iterator[KernelMaker]:
    """``kernel(name, directory)`` starts a kernel of the shared server; it ends with the test."""
    made: list[Kernel] = []

    def make(name: str = "cortex", directory: str = "") -> Kernel:
        made.append(lab.kernel(name, directory))
        return made[-1]

    yield make
    for one in made:
        lab.end(one)
