"""``cortex worker``: serving one API on a machine without an operator. Keeps a worker of the live version; needs the store's URL and nothing else.

Its workers live in slots as the operator's do and outlive it: killed and started again, it goes on with those that it finds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import redis

from .. import __version__
from ..core.checks import NAME
from ..core.errors import CortexError, DeploymentNotFound, EnvironmentProblem
from ..core.settings import PREFIX, Settings
from ..project import environment
from ..project.installation.pythons import Pythons
from ..serving import remote
from ..serving.artifacts import Artifacts
from ..serving.reclaim import SECOND_LOOK_S
from ..serving.signals import HURRY
from ..store.connection import check, connect
from ..store.registry import Registry
from . import tidy, workers
from .burial import Burial
from .home import Home
from .processes import Slot, Watch

log = logging.getLogger(__name__)
LOOK_S = 1.0
RESTART_MAX_S = 30.0
#: Between two starts of the gateway; also the longest that the first worker waits for its address.
NAMES_S = 5.0


class Follower:
    """``names``: whether this machine has a gateway of its own, for the chaining names of its replicas; one for all its workers."""

    def __init__(self, home: Home, name: str, redis_url: str, replicas: int, settings: Settings, *, names: bool) -> None:
        self._home, self._name, self._redis_url, self._settings, self._names = home, name, redis_url, settings, names
        self._pythons = Pythons(home.pythons, settings.install_timeout)
        client = connect(redis_url, timeout=5.0)
        self._registry = Registry(client)
        self._burial = Burial(client, self._registry, home.run, platform.node())
        self._gateway = Slot(home.run, "gateway")
        self._children: list[subprocess.Popen[bytes]] = []
        self._kept: set[int] = set()
        #: Version -> (not to be started again before, how long to wait after that). Gone when its worker came to serve.
        self._restarts: dict[int, tuple[float, float]] = {}
        self._names_not_before = 0.0
        self._tidied_for = 0
        self._stop = 0
        self._wake = threading.Event()
        self._watch = Watch(self._wake.set)
        self._facts = workers.facts(home, settings, redis_url, replicas)
        #: A worker that was started with something else is not gone on with. A digest, as the store's URL may hold a password.
        self._mark = hashlib.sha256(json.dumps([self._facts, __version__, sys.executable]).encode()).hexdigest()

    def run(self) -> int:
        """Until a signal; a second one does not wait for running handlers. Raises CortexError when the API is not there at the start."""
        self._registry.check_schema()
        self._registry.get(self._name)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        trouble = ""
        while not self._stop:
            try:
                self._look()
                trouble = ""
            except (CortexError, redis.RedisError, OSError) as error:
                if str(error) != trouble:
                    log.warning("%s", error)
                    trouble = str(error)
            self._wake.wait(LOOK_S)
            self._wake.clear()
        return self._end()

    def _on_stop(self, *_: Any) -> None:
        self._stop += 1
        self._wake.set()

    def _slots(self) -> dict[int, Slot]:
        """The slots of this API's workers here, by version."""
        return {version: slot for (api, version), slot in workers.slots(self._home.run).items() if api == self._name}

    def _look(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]
        if self._names:
            self._keep_names()
        api = self._registry.find(self._name)
        live = api.live if api is not None else 0
        for version, slot in self._slots().items():
            pid = slot.pid()
            if pid is not None:
                self._keep(version, slot, pid)
                continue
            if version in self._kept:
                log.info("the worker of version %d has ended", version)
                self._kept.discard(version)
            self._burial.bury(self._name, version)
            if version != live:
                slot.path.unlink(missing_ok=True)
                self._marker(version).unlink(missing_ok=True)
        self._burial.look_again()
        if live != self._tidied_for:
            self._tidy(live)
            self._tidied_for = live
        if not live:
            return
        pid = workers.slot(self._home.run, self._name, live).pid()
        not_before, wait = self._restarts.get(live, (0.0, 0.2))
        if pid is None and time.monotonic() >= not_before:
            self._restarts[live] = (time.monotonic() + wait, min(wait * 2, RESTART_MAX_S))
            self._start(live)
        elif pid is not None and live in self._restarts and self._serves(live, pid):
            del self._restarts[live]

    def _tidy(self, live: int) -> None:
        """What is left of versions that were replaced while nobody kept them here."""
        directories = (re.fullmatch(rf"{re.escape(self._name)}-v(\d+)-[0-9a-f]+", path.name) for path in self._home.projects.iterdir())
        for version in {int(found[1]) for found in directories if found} - {live}:
            self._burial.bury(self._name, version)

    def _keep(self, version: int, slot: Slot, pid: int) -> None:
        """A worker runs. One that an earlier `cortex worker` left goes on, if it is what this one would start; else it makes room."""
        self._watch.add(pid)
        if version in self._kept:
            return
        self._kept.add(version)
        try:
            same = self._marker(version).read_text() == self._mark
        except FileNotFoundError:
            same = False
        if same:
            log.info("going on with the worker of version %d that runs here", version)
        else:
            log.info(
                "the worker of version %d that runs here was started with other settings; another one takes its place when it has drained", version
            )
            slot.signal(signal.SIGTERM)

    def _serves(self, version: int, pid: int) -> bool:
        said = [worker for worker in self._registry.workers(self._name).values() if self._burial.is_ours(worker)]
        return any(worker["version"] == version and worker["pid"] == pid and worker["ready"] for worker in said)

    def _marker(self, version: int) -> Path:
        return self._home.run / f"worker-{self._name}-{version}.started"

    def _start(self, version: int) -> None:
        Artifacts(self._home.artifacts).tidy(unused=True)
        # Those of other `cortex worker` share this home's Pythons, and may follow another store.
        running = [f"{api}-v{version}" for (api, version), slot in workers.slots(self._home.run).items() if slot.pid() is not None]
        tidy.prune_pythons(self._registry, self._pythons, running=running)
        log.info("serving version %d of %s", version, self._name)
        self._marker(version).write_text(self._mark)
        environ = workers.environ(self._settings, self._facts)
        child = workers.slot(self._home.run, self._name, version).spawn(workers.command(self._name, version), environ, None, self._home.path)
        if child is not None:
            self._children.append(child)
            self._kept.add(version)
            self._watch.add(child.pid)

    def _keep_names(self) -> None:
        """See that there is a gateway, and wait until it has said where it listens: replicas are told as they start."""
        if self._gateway.pid() is not None or time.monotonic() < self._names_not_before:
            return
        self._names_not_before = time.monotonic() + NAMES_S
        own = {f"{PREFIX}HOME": str(self._home.path), f"{PREFIX}REDIS_URL": self._redis_url, f"{PREFIX}HOST": "127.0.0.1"}
        env = {**environment.base(), **remote.environ(self._settings.artifacts), **self._settings.environ(), **own}
        env.pop(f"{PREFIX}PORT", None)  # that is for `cortex up`, perhaps on this machine
        argv = [sys.executable, "-P", "-m", "jupyter_cortex.gateway", "--alone"]
        child = self._gateway.spawn(argv, env, self._home.logs / "gateway.log", self._home.path)
        if child is None:
            return
        self._children.append(child)
        deadline = time.monotonic() + NAMES_S
        while not (self._home.run / "chain.json").exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def _end(self) -> int:
        """Pass the signals on: one drains, two end it."""
        passed = 0
        while running := [slot for slot in self._slots().values() if slot.pid() is not None]:
            while passed < min(self._stop, 2):
                passed += 1
                for slot in running:
                    slot.signal(signal.SIGTERM if passed == 1 else HURRY)
            time.sleep(0.05)
        deadline = time.monotonic() + 2 * SECOND_LOOK_S
        try:
            for version, slot in self._slots().items():
                self._burial.bury(self._name, version)
                slot.path.unlink(missing_ok=True)
                self._marker(version).unlink(missing_ok=True)
            while self._burial.look_again() and time.monotonic() < deadline:
                time.sleep(0.05)
        except (CortexError, redis.RedisError, OSError) as error:
            log.warning("%s", error)
        return 0


def end_names(home: Home) -> None:
    """The last one on this machine takes the gateway along: to be called without one's own lock, so that of two who end at once one is the last."""
    followers = [Slot(home.run, path.stem) for path in home.run.glob("follower-*.lock")]
    if all(slot.pid() is None for slot in (*followers, *workers.slots(home.run).values())):
        Slot(home.run, "gateway").signal(signal.SIGTERM)


def run(settings: Settings, name: str, redis_url: str, replicas: int, *, serve_names: bool = True) -> int:
    """Serve ``name`` with ``replicas`` on this machine. Raises StoreUnavailable, ApiNotFound or EnvironmentProblem."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if not NAME.fullmatch(name):
        raise EnvironmentProblem(f"{name[:100]!r} is no API's name (small letters, digits, dashes): `cortex worker iris`, not its endpoint")
    home = Home(Path(settings.home) / "elsewhere")
    home.make()
    check(redis_url)
    Artifacts(home.artifacts, settings.artifacts).check()
    slot = Slot(home.run, f"follower-{name}")
    lock = slot.take()
    if lock is None:
        raise EnvironmentProblem(
            f"`cortex worker {name}` runs here already (process {slot.pid()}). For more replicas on this machine end it (Ctrl-C, or SIGTERM) and "
            "start it again with a higher --replicas; for a second one beside it set JUPYTER_CORTEX_HOME to another directory"
        )
    try:
        return Follower(home, name, redis_url, replicas, settings, names=serve_names).run()
    except DeploymentNotFound as error:
        log.error("%s", error.message)
        return 1
    finally:
        os.close(lock)
        end_names(home)
