"""`cortex worker` on another machine: it needs the store's URL and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from jupyter_cortex.operator.home import Home

from ..conftest import Environment, ProjectMaker, wait_until

WHERE = """
import os, sys

class Handler:
    def __init__(self, config):
        self.config = config

    def handle_async(self):
        return {"project": os.environ["CORTEX_PROJECT_DIR"], "config": self.config, "python": sys.executable}
"""


def test_a_worker_elsewhere_serves_without_operator_and_gateway_and_follows_new_versions(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    project("far", WHERE, handler_spec="config: {v: 1}").deploy(environment)
    client = environment.client()
    client.stop("far")
    wait_until(lambda: not environment.processes("replica", "far"), "the local replica is gone")
    elsewhere = tmp_path / "elsewhere"
    env = {**os.environ, "JUPYTER_CORTEX_HOME": str(elsewhere)}
    command = [sys.executable, "-m", "jupyter_cortex.cli", "worker", "far", "--redis", Home(environment.home).redis_url(), "--no-gateway"]
    worker = subprocess.Popen(command, env=env)
    try:
        first = client.result("far", client.submit("far", {}), wait=60)
        assert first.result["config"] == {"v": 1}
        assert first.result["project"].startswith(str(elsewhere))
        client.start("far")
        # What it requires is installed on each machine.
        project("far", WHERE, handler_spec="config: {v: 2}", files={"dependencies.sh": "echo set up\n"}).deploy(environment)
        client.stop("far")
        wait_until(lambda: not environment.processes("replica", "far"), "only the far replica is left")

        def newest() -> bool:
            result = client.result("far", client.submit("far", {}), wait=60).result
            return bool(result["config"] == {"v": 2} and all(result[place].startswith(str(elsewhere)) for place in ("project", "python")))

        wait_until(newest, "the worker elsewhere has followed")
        # It lives on this host, but in no slot of this environment's.
        wait_until(lambda: len(environment.processes("worker", "far")) == 1, "the old version's worker has left")
        assert sum(worker["ready"] for worker in client.get_api("far")["workers"].values()) == 1
        assert environment.processes("replica", "far") == []
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
