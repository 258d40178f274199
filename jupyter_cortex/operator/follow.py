"""``cortex worker``: serving one API on a machine without an operator. Keeps a worker of the live version; needs the store's URL and nothing else."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ..core.errors import CortexError, DeploymentNotFound
from ..core.settings import PREFIX, Settings
from ..project import environment
from ..project.installation.pythons import Pythons
from ..serving import remote
from ..serving.artifacts import Artifacts
from ..store.connection import connect
from ..store.registry import Registry
from . import tidy
from .home import Home
from .processes import Slot

log = logging.getLogger(__name__)
LOOK_S = 1.0
RESTART_MAX_S = 30.0


class Follower:
    def __init__(self, home: Home, name: str, redis_url: str, replicas: int, settings: Settings) -> None:
        self._home, self._name, self._redis_url, self._replicas = home, name, redis_url, replicas
        self._artifacts_url, self._limits = settings.artifacts, settings.replica_limits()
        self._pythons = Pythons(home.pythons, settings.install_timeout)
        self._registry = Registry(connect(redis_url, timeout=5.0))
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._not_before, self._wait = 0.0, 0.2
        self._stop = 0

    def run(self) -> int:
        """Until a signal; a second one does not wait for running handlers. Raises CortexError when the API is not there at the start."""
        self._registry.check_schema()
        self._registry.get(self._name)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        while not self._stop:
            try:
                self._look()
            except CortexError as error:
                log.warning("%s", error.message)
            time.sleep(LOOK_S)
        return self._end()

    def _on_stop(self, *_: Any) -> None:
        self._stop += 1

    def _look(self) -> None:
        for version, process in list(self._workers.items()):
            if process.poll() is not None:
                log.info("the worker of version %d ended (%d)", version, process.returncode)
                del self._workers[version]
        api = self._registry.find(self._name)
        if api is None or not api.live or api.live in self._workers or time.monotonic() < self._not_before:
            return
        if time.monotonic() - self._not_before > 60:
            self._wait = 0.2
        self._not_before = time.monotonic() + self._wait
        self._wait = min(self._wait * 2, RESTART_MAX_S)
        self._workers[api.live] = self._start(api.live)

    def _start(self, version: int) -> subprocess.Popen[bytes]:
        Artifacts(self._home.artifacts).tidy(unused=True)
        tidy.prune_pythons(self._registry, self._pythons)
        facts = {
            "redis_url": self._redis_url,
            "run_dir": str(self._home.run),
            "projects_dir": str(self._home.projects),
            "artifacts_dir": str(self._home.artifacts),
            "artifacts_url": self._artifacts_url,
            "limits": self._limits,
            "pythons_dir": str(self._home.pythons),
            "install_timeout": self._pythons.seconds,
            "replicas": self._replicas,
        }
        env = {**environment.base(), **environment.installers(), **remote.environ(self._artifacts_url), "JUPYTER_CORTEX_WORKER": json.dumps(facts)}
        log.info("serving version %d of %s", version, self._name)
        argv = [sys.executable, "-P", "-m", "jupyter_cortex.serving", self._name, str(version)]
        return subprocess.Popen(argv, env=env, cwd=self._home.path, stdin=subprocess.DEVNULL, start_new_session=True)

    def _end(self) -> int:
        """Pass the signals on: one drains, two end it."""
        passed = 0
        while any(process.poll() is None for process in self._workers.values()):
            while passed < min(self._stop, 2):
                passed += 1
                for process in self._workers.values():
                    if process.poll() is None:
                        process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        return 0


def start_names(settings: Settings, home: Home, redis_url: str) -> None:
    """A gateway of this machine's own, for the chaining names of its replicas; one for all its workers."""
    slot = Slot(home.run, "gateway")
    if slot.pid() is not None:
        return
    own = {f"{PREFIX}HOME": str(home.path), f"{PREFIX}REDIS_URL": redis_url, f"{PREFIX}HOST": "127.0.0.1"}
    env = {**environment.base(), **remote.environ(settings.artifacts), **settings.environ(), **own}
    slot.spawn([sys.executable, "-P", "-m", "jupyter_cortex.gateway", "--alone"], env, home.logs / "gateway.log", home.path)
    deadline = time.monotonic() + 10
    while not (home.run / "chain.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def run(settings: Settings, name: str, redis_url: str, replicas: int, *, serve_names: bool = True) -> int:
    """Serve ``name`` with ``replicas`` on this machine. Raises StoreUnavailable, ApiNotFound or EnvironmentProblem."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    home = Home(Path(settings.home) / "elsewhere")
    home.make()
    Artifacts(home.artifacts, settings.artifacts).check()
    follower = Follower(home, name, redis_url, replicas, settings)
    if serve_names:
        start_names(settings, home, redis_url)
    try:
        return follower.run()
    except DeploymentNotFound as error:
        log.error("%s", error.message)
        return 1
