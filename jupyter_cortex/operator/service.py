"""The operator: keeps the store, the gateway and the workers of this machine running, and the deployments moving."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import sys
import threading
import time
from typing import Any

import redis

from .. import __version__
from ..core.errors import CortexError, EnvironmentProblem
from ..core.settings import Settings
from ..core.workload import DeploymentState
from ..project import environment
from ..project.installation.pythons import Pythons
from ..serving import remote
from ..serving.artifacts import Artifacts
from ..serving.reclaim import SECOND_LOOK_S
from ..store import keys
from ..store.connection import connect, risks
from ..store.registry import Registry
from . import machine, tidy, workers
from .embedded import EmbeddedStore
from .home import Home
from .processes import Slot, Watch
from .reconcile import Reconciler
from .rewriting import LOOK_S, Rewriting

log = logging.getLogger(__name__)

#: A store or a gateway that keeps ending (a full disk, a port that is taken) is not started again sooner than this after its last start.
APART_S = 0.5
#: Seconds between passes while something moves, and when all is quiet: deploys, workers' news and ends of processes wake us anyway.
PASS_S, QUIET_S = 1.0, 5.0


class Operator:
    def __init__(self, settings: Settings, home: Home) -> None:
        self.settings, self.home = settings, home
        self.redis_url = settings.redis_url or home.redis_url()
        self.store = None if settings.redis_url else _embedded(settings, home)
        self.gateway = Slot(home.run, "gateway")
        self.client = connect(self.redis_url, timeout=5.0)
        self.reconciler = Reconciler(self.client, home.run, self.start_worker, platform.node(), settings.replicas_per_cpu)
        self._wake = threading.Event()
        self._watch = Watch(self._wake.set)
        self._stop = False
        self._children: list[Any] = []
        self._checked = False
        self._notes: list[str] = []
        self._store_started = 0.0

    def run(self) -> int:
        """Until SIGTERM. What it started goes on without it. Returns an exit status."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        # Inherited by the workers it starts: what makes them look at once would end one that is still importing.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        threading.Thread(target=self._listen, name="cortex-wake", daemon=True).start()
        threading.Thread(target=self._keep_gateway, name="cortex-gateway", daemon=True).start()
        if self.store is not None:
            threading.Thread(target=self._keep_log_short, name="cortex-log", daemon=True).start()
        with contextlib.suppress(OSError):  # a full disk
            self.home.note_store(self.redis_url)
        trouble = ""
        while not self._stop:
            try:
                self._pass()
                trouble = ""
            except (CortexError, redis.RedisError, OSError) as error:
                if isinstance(error, EnvironmentProblem) and not self._checked:
                    log.error("%s", error.message)
                    return 1
                # What has run before may run again: when there is room on the disk, say.
                if str(error) != trouble:
                    log.warning("%s", error)
                    trouble = str(error)
                self._wake.wait(0.1)
            self._wake.wait(PASS_S if trouble or self.reconciler.moving or not self._watch.sees else QUIET_S)
            self._wake.clear()
        if not trouble:
            self._look_again()
        with contextlib.suppress(CortexError, redis.RedisError, OSError):
            self.reconciler.registry.forget_status()
        return 0

    def _look_again(self) -> None:
        """The second looks that are still due come within half a second: nothing is left behind for an operator that may never come."""
        deadline = time.monotonic() + 2 * SECOND_LOOK_S
        try:
            while self.reconciler.look_again() and time.monotonic() < deadline:
                time.sleep(0.05)
        except (CortexError, redis.RedisError, OSError) as error:
            log.warning("%s", error)

    def _on_stop(self, *_: Any) -> None:
        self._stop = True
        self._wake.set()

    def _listen(self) -> None:
        """Deploys and workers' news wake us at once."""
        client = connect(self.redis_url, timeout=None)
        while not self._stop:
            try:
                if client.blpop([keys.OPERATOR_WAKE], timeout=30):
                    self._wake.set()
            except (redis.RedisError, OSError):
                time.sleep(0.1)

    def _keep_log_short(self) -> None:
        rewriting = Rewriting(connect(self.redis_url, timeout=5.0), self.home.store)
        while not self._stop:
            with contextlib.suppress(redis.RedisError, OSError):
                if rewriting.look():
                    log.info("the store writes its log anew")
            time.sleep(LOOK_S)

    def _pass(self) -> None:
        self._collect()
        self._ensure_store()
        if not self._checked:
            Registry(self.client).check_schema()
            self._notes = risks(self.client) if self.store is None else []
            self._checked = True
            artifacts, pythons = Artifacts(self.home.artifacts, self.settings.artifacts), Pythons(self.home.pythons, self.settings.install_timeout)
            tidy.start(lambda: connect(self.redis_url, timeout=5.0), artifacts, pythons)
        self.reconciler.pass_over()
        for slot in workers.slots(self.home.run).values():
            if pid := slot.pid():
                self._watch.add(pid)
        self.reconciler.publish(self.processes(), self.facts())

    def _collect(self) -> None:
        """Ended children must be waited for, or they stay as zombies."""
        self._children = [child for child in self._children if child.poll() is None]

    def _ensure_store(self) -> None:
        if self.store is not None:
            if self.store.pid() is None:
                time.sleep(max(0.0, self._store_started + APART_S - time.monotonic()))
                self._store_started = time.monotonic()
                log.info("starting the store")
                self.store.start()
            self.store.wait()
            if pid := self.store.pid():
                self._watch.add(pid)

    def _keep_gateway(self) -> None:
        """From a thread of its own: while the store is away the main one waits for it, and callers must still be told so."""
        ended = threading.Event()
        watch = Watch(ended.set)
        argv = [sys.executable, "-P", "-m", "jupyter_cortex.gateway"]
        child, started = None, 0.0
        while not self._stop:
            try:
                if self.gateway.pid() is None:
                    time.sleep(max(0.0, started + APART_S - time.monotonic()))
                    started = time.monotonic()
                    child = self.gateway.spawn(argv, self.environ(), self.home.logs / "gateway.log", self.home.path) or child
                if pid := self.gateway.pid():
                    watch.add(pid)
            except OSError as error:
                pid = None
                log.warning("the gateway cannot be started: %s", error)
            ended.wait(QUIET_S if pid and watch.sees else PASS_S)
            ended.clear()
            if child is not None:
                child.poll()  # or it stays as a zombie

    def environ(self) -> dict[str, str]:
        return {**environment.base(), **remote.environ(self.settings.artifacts), **self.settings.environ()}

    def start_worker(self, api: str, version: int) -> None:
        environ = workers.environ(self.settings, workers.facts(self.home, self.settings, self.redis_url))
        place = workers.slot(self.home.run, api, version)
        child = place.spawn(workers.command(api, version), environ, self.home.logs / f"worker-{api}.log", self.home.path)
        if child is not None:
            self._children.append(child)

    # What `cortex status` says -----------------------------------------------------------------------------------------------------------

    def processes(self) -> list[dict[str, Any]]:
        """Every process of this environment on this machine."""
        shown: list[dict[str, Any]] = [{"role": "operator", "pid": os.getpid(), "api": None, "state": "running", "code": __version__}]
        if pid := self.gateway.pid():
            shown.append({"role": "gateway", "pid": pid, "api": None, "state": "running"})
        if self.store is not None and (pid := self.store.pid()):
            shown.append({"role": "store", "pid": pid, "api": None, "state": "running"})
        registry = Registry(self.client)
        known = set()
        for name in registry.names():
            for worker in registry.workers(name).values():
                if not self.reconciler.is_ours(worker):
                    continue
                about = {"api": name, "version": worker["version"], "code": worker["code"]}
                shown.append({"role": "worker", "pid": worker["pid"], "state": "running", **about})
                known.add((name, worker["version"]))
                shown += [{"role": "replica", "pid": r["pid"], "state": r["state"], "id": r["id"], **about} for r in worker["replicas"]]
        for (name, version), slot in workers.slots(self.home.run).items():
            if (name, version) in known or (pid := slot.pid()) is None:
                continue
            deployment = registry.find_deployment(name, version)
            if deployment is not None and deployment.state is DeploymentState.REHEARSING:
                shown.append({"role": "rehearsal", "pid": pid, "state": "running", "api": name, "version": version, "code": __version__})
        return shown

    def facts(self) -> dict[str, Any]:
        return {
            "at": int(time.time()),
            "host": platform.node(),
            "code": __version__,
            "schema": keys.SCHEMA_VERSION,
            "cpus": machine.cpus(),
            "store": {"url": "embedded" if self.store else "external", "appendfsync": self.settings.appendfsync if self.store else None},
            "notes": self._notes,
        }


def _embedded(settings: Settings, home: Home) -> EmbeddedStore:
    return EmbeddedStore(home, appendfsync=settings.appendfsync, server=settings.store_server, max_bytes=settings.store_max_bytes)


def run(settings: Settings) -> int:
    """The operator of this home, unless there is one already."""
    home = Home(settings.home)
    home.make()
    slot = Slot(home.run, "operator")
    if slot.pid() != os.getpid() and slot.take() is None:
        log.info("an operator runs here already")
        return 0
    return Operator(settings, home).run()
