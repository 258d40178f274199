"""APIs outlive Jupyter: the kernel that published one is restarted, the server is stopped, and the API answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from jupyter_client.blocking import BlockingKernelClient

from ..conftest import Environment, ProjectMaker, wait_until


@pytest.fixture
def jupyter(tmp_path: Path, own_environment: Callable[..., Environment]) -> Iterator[tuple[Environment, httpx.Client, Path, subprocess.Popen[bytes]]]:
    environment = own_environment()
    environment.down()
    runtime = tmp_path / "runtime"
    env = {
        **os.environ,
        "JUPYTER_CORTEX_HOME": str(environment.home),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
    }
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"]
    command += ["--IdentityProvider.token=secret", f"--ServerApp.root_dir={tmp_path}"]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    info = wait_until(lambda: next(runtime.glob("jpserver-*.json"), None), "the Jupyter server runs")
    url = wait_until(lambda: _url(info), "it says where")
    with httpx.Client(base_url=url, headers={"authorization": "token secret"}, trust_env=False, timeout=60) as http:
        yield environment, http, runtime, server
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _url(info: Path) -> str | None:
    import json

    try:
        return str(json.loads(info.read_text())["url"])
    except ValueError:
        return None


def run(runtime: Path, kernel: str, code: str) -> str:
    """Run code in the kernel; what it printed."""
    client = BlockingKernelClient(connection_file=str(runtime / f"kernel-{kernel}.json"))
    client.load_connection_file()
    client.start_channels()
    printed: list[str] = []

    def output(message: dict) -> None:
        content = message["content"]
        printed.append(content.get("text", "") or "\n".join(content.get("traceback", [])))

    try:
        client.wait_for_ready(timeout=60)
        reply = client.execute_interactive(code, timeout=120, output_hook=output)
        assert reply["content"]["status"] == "ok", "".join(printed)
    finally:
        client.stop_channels()
    return "".join(printed)


def test_an_api_outlives_the_kernel_and_the_jupyter_server_that_started_it(
    jupyter: tuple[Environment, httpx.Client, Path, subprocess.Popen[bytes]], project: ProjectMaker
) -> None:
    environment, http, runtime, server = jupyter
    made = project("survivor")
    kernel = http.post("/api/kernels", json={"name": "python3"}).raise_for_status().json()["id"]
    code = f"import jupyter_cortex as cortex\ncx = cortex.client()\ncx.ensure_up()\nprint(cx.deploy({str(made.directory / 'cortex.yaml')!r})[0].url)"
    assert run(runtime, kernel, code).strip() == f"{environment.url}/survivor"

    def answers(n: int) -> bool:
        client = environment.client()
        return bool(client.result("survivor", client.submit("survivor", {"n": n}), wait=60).result["payload"] == {"n": n})

    replica = environment.client().get_api("survivor")["workers"]
    assert answers(1)
    http.post(f"/api/kernels/{kernel}/restart").raise_for_status()
    assert answers(2)
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(timeout=60)
    assert answers(3)
    assert environment.client().get_api("survivor")["workers"].keys() == replica.keys()
