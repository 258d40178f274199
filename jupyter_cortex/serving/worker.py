"""A worker: the supervisor of the replicas of one deployment on one machine. No code of the author runs in it.

It gets the project ready, starts replicas so that they die with it, heartbeats for them (a handler may hold the GIL), notices each end at once, gives
the unfinished workloads back at once, starts a replacement with back-off, and ships the log lines. It needs the store and nothing else: it outlives
the operator, and on another machine it is all there is.

Everything happens on one thread around one selector, except shipping logs, fetching artifacts and installing what the project requires.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import redis

from .. import __version__
from ..core.errors import CortexError, EnvironmentProblem, StoreUnavailable
from ..core.workload import DeploymentState
from ..handler import masking
from ..project import environment
from ..project.installation.pythons import Pythons
from ..store import keys
from ..store.connection import connect
from ..store.registry import WAKE, Deployment, Registry
from ..store.scripts import BEAT
from . import metrics_store
from .artifacts import Artifacts
from .enforcement import Enforcement
from .gpus import Gpus
from .installing import Installing
from .memory import Kills
from .preparation import Preparation
from .process import Phase, Pipe, ReplicaProcess, is_of
from .reclaim import SECOND_LOOK_S, reclaim
from .shipper import Shipper
from .signals import HURRY

Answer = TypeVar("Answer")
#: Seconds between heartbeats. A replica whose beats are older than the lease (its machine is gone) loses what it holds.
BEAT_S = 1.0
LEASE_MS = 15_000
#: Beats in a row before this worker may judge others: after an outage of the store everybody's beats are old.
BEATS_BEFORE_SWEEP = 3
#: Nobody is judged on the store's clock alone, which may be set: who lives beats again within a second, so silence must last on our own clock, too.
SILENCE_S = 5.0
#: Restarts: at once, then 0.1 s, doubling to 30 s; a replica that lived for 30 s starts the count anew. One that had been ready was killed by its
#: work, not by its start: then the others' work should not wait for longer than 1 s.
BACKOFF_S = (0.1, 30.0)
READY_BACKOFF_S = 1.0
LIVED_S = 30.0
#: A deployment that is not live yet gives up after this many silent deaths (a refused Handler gives up at once).
START_DEATHS = 3
#: A worker that starts while the store is away waits for it: to end and be started again would take longer, and longer each time.
STORE_S = 60.0
#: Workloads put aside to run alone want a fresh replica; without one for this long a healthy one is replaced.
RECYCLE_S = 10.0
#: An interpreter that has not said its version by then is none.
INTERPRETER_S = 30.0
#: So long a version that starts waits for GPUs that others have.
GPUS_S = 10.0
#: When the API was deleted, running handlers get this long.
SHORT_DRAIN_S = 5.0
#: Told to hurry, with all replicas gone: so long it tries to give back what they held. Then that is left to who buries it, which their boards tell.
HURRY_S = 1.0


@dataclass(frozen=True)
class Machine:
    """What a worker is told of where it runs."""

    redis_url: str
    run_dir: Path
    projects_dir: Path
    artifacts: Artifacts
    limits: dict[str, int]  #: `Settings.replica_limits`
    pythons: Pythons

    def chain(self) -> dict[str, Any]:
        """Address, port and token of the chaining door as the gateway wrote them; {} while there is none."""
        try:
            return dict(json.loads((self.run_dir / "chain.json").read_text()))
        except (OSError, ValueError):
            return {}


class Supervisor:
    def __init__(self, machine: Machine, api: str, version: int, fixed_replicas: int | None = None) -> None:
        self.machine, self.api, self.version, self._fixed = machine, api, version, fixed_replicas
        self.client = connect(machine.redis_url, timeout=3.0)
        self.registry = Registry(self.client)
        self.deployment: Deployment = self.registry.deployment(api, version)
        self.id = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.replicas: list[ReplicaProcess] = []
        self.state = str(self.deployment.state)
        self.wanted = fixed_replicas or self.deployment.replicas
        self.interpreter = choose_interpreter(self.deployment, at_home=fixed_replicas is None)
        self._unpacked = machine.projects_dir / f"{api}-v{version}-{self.deployment.digest[:12]}"
        self.project_dir = self._unpacked / "project"
        self._began = time.monotonic()
        self._gpus = Gpus(machine.run_dir, api, version, self.deployment.spec["compute"].get("gpu", 0))
        self._shipper = Shipper(machine.redis_url, api)
        self._selector = selectors.DefaultSelector()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._restart_at = 0.0
        self._deaths = 0
        self._beats = 0
        #: Since when (monotonic) the store calls others silent.
        self._silent: dict[str, float] = {}
        self._kills = Kills()
        self._failure: dict[str, Any] | None = None
        #: Why the last replica ended, until one is ready again.
        self._trouble = ""
        self._drift: dict[str, list[str]] = {}
        self._told_to_stop = False
        #: Since when (monotonic) it does not wait for handlers any more.
        self._hurries: float | None = None
        self._drain_timeout, self._drain_timeout_seen = float(self.deployment.spec["drain_timeout"]), False
        self._last_recycle = time.monotonic()
        self._told = ""
        self._next_beat = 0.0
        self._enforcement = Enforcement(machine.redis_url, api, self.deployment.spec, self._selector, self._changed)

    # Life --------------------------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until told to stop and drained, or the deployment is gone. Returns an exit status."""
        read, write = os.pipe()
        for fd in (read, write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(HURRY, self._on_hurry)
        for number in (signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, self._on_poke)
        self._selector.register(read, selectors.EVENT_READ, "signal")
        self._installing = Installing(self.machine.pythons, self.deployment, self.interpreter, self._shipper.put)
        parts = (self.registry, self.machine.artifacts, self.deployment, self._unpacked, self._installing)
        self._preparation = Preparation(*parts, lambda: os.write(write, b"\0"))
        self._prepare()
        while not self._finished():
            self._turn()
        self._installing.abandon()
        self._shipper.close()
        self._leave()
        return 0

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._next_beat:
            self._beat()
        self._prepare()
        self._adjust(now)
        due = min([self._next_beat, *(at for at, _ in self._later), *([self._restart_at] if self._missing() else [])])
        for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
            if key.data == "signal":
                try:
                    os.read(key.fd, 4096)
                except BlockingIOError:
                    pass
            else:
                key.data()
        self._reap()
        now = time.monotonic()
        for job in [job for job in self._later if job[0] <= now]:
            self._later.remove(job)
            job[1]()

    def _finished(self) -> bool:
        late = self._hurries is not None and time.monotonic() - self._hurries > HURRY_S
        return self._stopping() and not self.replicas and (not self._later or late)

    def _stopping(self) -> bool:
        return self._told_to_stop or self.state not in (DeploymentState.PENDING, DeploymentState.STARTING, DeploymentState.LIVE)

    def _on_stop(self, *_: Any) -> None:
        self._told_to_stop = True

    def _on_hurry(self, *_: Any) -> None:
        self._told_to_stop, self._hurries = True, self._hurries or time.monotonic()

    def _on_poke(self, *_: Any) -> None:
        self._next_beat = 0.0

    def _prepare(self) -> None:
        before, preparation = self._trouble, self._preparation
        if self._stopping():
            return
        preparation.step(time.monotonic(), self.state)
        if preparation.failure and self._failure is None:
            self._failure = preparation.failure
            self._changed()
        elif preparation.trouble != before and not preparation.done:
            self._trouble = preparation.trouble
            self._changed()

    def _leave(self) -> None:
        try:
            self.registry.forget_worker(self.api, self.id)
            if self.state not in (DeploymentState.PENDING, DeploymentState.STARTING, DeploymentState.LIVE):
                shutil.rmtree(self._unpacked, ignore_errors=True)
            self.registry.wake_operator()
        except CortexError:
            pass  # the lease will say it

    # The heartbeat -----------------------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        phases = [replica.phase for replica in self.replicas]
        ready = [replica for replica in self.replicas if replica.phase in (Phase.READY, Phase.SERVING)]
        return {
            "pid": os.getpid(),
            "host": platform.node(),
            # Another environment's worker on this host is not for this one's operator to list or to bury.
            "run_dir": os.path.realpath(self.machine.run_dir),
            "version": self.version,
            "code": __version__,
            "schema": keys.SCHEMA_VERSION,
            "interpreter": self.interpreter,
            "python": self._installing.facts(),
            "installing": self._installing.saying,
            "ready": len(ready),
            "starting": phases.count(Phase.STARTING),
            "draining": phases.count(Phase.DRAINING),
            "failure": self._failure,
            "trouble": self._trouble,
            "drift": self._drift,
            "replicas": [_row(replica) for replica in self.replicas],
        }

    def _beat(self) -> None:
        self._next_beat = time.monotonic() + BEAT_S
        for replica in self.replicas:
            replica.tell_dropped()
        status = json.dumps(self.status())
        sweep = self._beats >= BEATS_BEFORE_SWEEP
        about = (self.id, self.version, self.deployment.times["created"])
        try:
            reply = BEAT.run(self.client, self.api, *about, status, LEASE_MS, int(sweep), *(replica.id for replica in self.replicas))
            self._enforcement.look(self.client, self.replicas, reply[3])
        except (redis.RedisError, OSError):
            self._enforcement.deafen()
            self._beats = 0
            self._silent = {}
            return
        self._kills.look()
        self._beats += 1
        self.state = reply[0].decode()
        wanted = int(reply[1])
        self.wanted = self._fixed if self._fixed is not None and wanted else wanted
        if self.state == DeploymentState.LIVE:
            for replica in self.replicas:
                if not replica.asked_to_go:
                    replica.go()
        if int(reply[2]) and self._beats > 1:
            self._recycle()
        now = time.monotonic()
        self._silent = {stale: self._silent.get(stale, now) for stale in map(bytes.decode, reply[4:])}
        for stale in [stale for stale, since in self._silent.items() if now - since >= SILENCE_S]:
            self._sweep(stale)
        if status != self._told:
            self._told = status
            self._tell_operator()

    def _tell_operator(self) -> None:
        try:
            self.client.eval(WAKE, 1, keys.OPERATOR_WAKE)
        except (redis.RedisError, OSError):
            pass  # it looks by itself every few seconds

    def _changed(self) -> None:
        """Something the operator waits for happened: say it now rather than with the next beat."""
        self._next_beat = 0.0

    def _sweep(self, stale: str) -> None:
        """Another machine's worker or replica has not been heard of for a lease."""
        if stale.startswith("worker:"):
            with contextlib.suppress(CortexError):  # then with one of the next beats
                self.registry.forget_worker(self.api, stale.removeprefix("worker:"))
        elif all(stale != replica.id for replica in self.replicas):
            self._reclaim(stale)

    def _recycle(self) -> None:
        """Workloads wait to run alone on a fresh replica, and none is starting: replace one. It must have served for a while, since a fresh one is
        just running such a workload; and not more may be about to end than are wanted at all, as they hold their memory until then."""
        now = time.monotonic()
        if self.state != DeploymentState.LIVE or now - self._last_recycle < RECYCLE_S:
            return
        phases = [replica.phase for replica in self.replicas]
        serving = [replica for replica in self.replicas if replica.phase is Phase.SERVING and now - replica.serving_since >= RECYCLE_S]
        if serving and Phase.STARTING not in phases and phases.count(Phase.DRAINING) < self.wanted:
            self._last_recycle = now
            min(serving, key=lambda replica: replica.serving_since).drain()

    # Replicas ----------------------------------------------------------------------------------------------------------------------------

    def _serving(self) -> list[ReplicaProcess]:
        return [replica for replica in self.replicas if replica.phase is not Phase.DRAINING]

    def _missing(self) -> bool:
        return not self._stopping() and self._preparation.done and self._failure is None and len(self._serving()) < self.wanted

    def _adjust(self, now: float) -> None:
        """Bring the number of replicas to what is wanted; end drains that take too long."""
        if self._missing() and now >= self._restart_at:
            for _ in range(self.wanted - len(self._serving())):
                self._spawn()
        surplus = self._serving() if self._stopping() else self._serving()[max(self.wanted, 0) :]
        for replica in surplus:
            if replica.phase in (Phase.STARTING, Phase.READY):
                replica.kill()  # it holds no work, and a constructor may take for ever
            replica.drain()
        there = not self._missing() and all(replica.phase in (Phase.READY, Phase.SERVING) for replica in self._serving())
        if self._trouble and self._preparation.done and there:
            self._trouble = ""  # the one that ended has no successor: fewer are wanted now
            self._changed()
        for replica in self.replicas:
            if replica.drain_since is not None and now - replica.drain_since > self._drain_limit():
                replica.kill()

    def _drain_limit(self) -> float:
        if self._hurries is not None:
            return 0.0
        if self.state == "":
            return SHORT_DRAIN_S
        if self._stopping() and not self._drain_timeout_seen:
            # It may have been changed in place since this worker started.
            self._drain_timeout_seen = True
            with contextlib.suppress(CortexError):
                if (found := self.registry.find_deployment(self.api, self.version)) is not None:
                    self._drain_timeout = float(found.spec["drain_timeout"])
        return self._drain_timeout

    def _spawn(self) -> None:
        deployment = self.deployment
        try:
            names = self.registry.names()
        except CortexError:
            names = [self.api]
        env, secret = environment.for_replica(deployment.spec, deployment.dotenv, self.project_dir, names)
        masking.mask(secret)
        program = self._installing.program
        config = {
            "api": self.api,
            "version": self.version,
            "redis_url": self.machine.redis_url,
            "spec": deployment.spec,
            "project_dir": str(self.project_dir),
            "secrets": secret,
            "distributions": self._installing.recorded(),
            "chain": self.machine.chain(),
            "limits": self.machine.limits,
            "labels": {"apiName": self.api, "apiKind": deployment.spec["kind"], "apiID": f"{self.version}-{deployment.digest[:12]}"},
        }
        argv = [program, "-P", "-m", "jupyter_cortex.serving.replica"]
        locks: list[int] = []
        try:
            devices, locks = self._gpus.take()
            environ = self._installing.environ({**env, **devices})
            replica = ReplicaProcess(argv, environ, self.project_dir, self.machine.run_dir, config, self._shipper.put, locks)
        except (OSError, EnvironmentProblem) as error:
            self._cannot_spawn(error)
            return
        finally:
            for fd in locks:
                os.close(fd)
        self.replicas.append(replica)
        self._selector.register(replica.out, selectors.EVENT_READ, partial(self._read, replica.out, replica.read_output))
        self._selector.register(replica.records, selectors.EVENT_READ, partial(self._read, replica.records, replica.read_records))
        self._selector.register(replica.status, selectors.EVENT_READ, partial(self._heard, replica))
        # Its beat must stand before it may hold anything.
        self._changed()

    def _cannot_spawn(self, error: OSError | EnvironmentProblem) -> None:
        """A version that is live tries again: processes, memory, room on the disk or a GPU may be there later."""
        why = error.message if isinstance(error, EnvironmentProblem) else f"cannot start {self._installing.program}: {error.strerror}"
        # What another API has just let go of is free when its replicas have ended.
        waits = isinstance(error, EnvironmentProblem) and error.details.get("kind") == "gpus_taken" and time.monotonic() < self._began + GPUS_S
        self._trouble = why
        if self.state != DeploymentState.LIVE and not waits:
            self._failure = {"message": why, "details": {}}
        self._restart_at = time.monotonic() + READY_BACKOFF_S
        self._changed()

    def _read(self, pipe: Pipe, read: Callable[[], bool]) -> None:
        if not read():
            self._selector.unregister(pipe)

    def _heard(self, replica: ReplicaProcess) -> None:
        lines = replica.status.lines()
        if lines is None:
            self._selector.unregister(replica.status)
            return
        for line in lines:
            event = json.loads(line)
            kind = event.pop("event")
            if kind == "ready" and replica.phase is Phase.STARTING:
                replica.phase = Phase.READY
                self._trouble = ""
                # Only a beat asks it to go: what it takes must be found, should this worker die in the next moment.
                if replica.asked_to_go:
                    replica.go()
                self._changed()
            elif kind == "failed":
                replica.failure = event
            elif kind == "drift":
                self._drift = event["moved"]
                self._changed()
            elif kind == "drained":
                replica.drained = True
            elif kind == "metrics":
                self._safely(partial(metrics_store.add, self.client, self.api, event["delta"]))

    def _reap(self) -> None:
        for replica in [replica for replica in self.replicas if replica.process.poll() is not None]:
            self._heard_last(replica)
            self.replicas.remove(replica)
            self._ended(replica)
            replica.close()
            self._changed()

    def _heard_last(self, replica: ReplicaProcess) -> None:
        for pipe in (replica.status, replica.out, replica.records):
            try:
                self._selector.unregister(pipe)
            except KeyError:
                pass
        self._selector.register(replica.status, selectors.EVENT_READ)
        try:
            self._heard(replica)
        finally:
            try:
                self._selector.unregister(replica.status)
            except KeyError:
                pass
        replica.read_records()
        replica.read_output(last=True)
        replica.tell_dropped()

    def _ended(self, replica: ReplicaProcess) -> None:
        """A replica's process is over: give back its work, remember why, plan the replacement."""
        # One that drains and dies all the same has died of what it ran.
        planned = replica.drained or replica.killed or bool(replica.replaced)
        replica.end_group()
        ran = [] if planned else replica.board.read()
        why = replica.why(self._kills.lately())
        self._reclaim(replica.id, ran, why, list(replica.tail), replica.board.remove)
        if replica.replaced:
            self._note_exit(replica, f"replaced: {replica.replaced}")
        if planned:
            return
        failed = str((replica.failure or {}).get("message") or "")
        trouble = failed or f"a replica ended: {why}"
        if ran or not failed:  # of a failure to start, the replica has told itself
            replica.tell_end(failed or why, ran)
        self._note_exit(replica, failed or why)
        if replica.drain_since is not None:
            return  # another one has taken its place, or none is wanted
        self._trouble = trouble
        lived = time.monotonic() - replica.started
        self._deaths = 1 if lived > LIVED_S else self._deaths + 1
        longest = READY_BACKOFF_S if replica.asked_to_go else BACKOFF_S[1]
        wait = 0.0 if self._deaths == 1 else min(BACKOFF_S[0] * 2 ** min(self._deaths - 2, 20), longest)
        self._restart_at = time.monotonic() + wait
        if self.state != DeploymentState.LIVE:
            lines = [json.loads(line).get("message", "") for line in list(replica.tail)[-20:]]
            if replica.failure is not None:
                self._failure = {**replica.failure, "logs": lines}
            elif any("No module named 'jupyter_cortex" in str(line) for line in lines):
                remedy = f"{self.interpreter} -m pip install jupyter-cortex"
                self._failure = {"message": f"{self.interpreter}, with which it was deployed, lacks jupyter-cortex: {remedy}", "logs": lines}
            elif self._deaths >= START_DEATHS:
                self._failure = {"message": f"the replica died {self._deaths} times before it was ready (last: {why})", "logs": lines}

    def _note_exit(self, replica: ReplicaProcess, reason: str) -> None:
        note = {"replica": replica.id, "version": self.version, "at": int(time.time() * 1000), "reason": reason}

        def write() -> None:
            self.client.lpush(keys.exits(self.api), json.dumps(note))
            self.client.ltrim(keys.exits(self.api), 0, 49)

        self._safely(write)

    def _safely(self, job: Callable[[], Any]) -> None:
        """Do it now; with the store away, leave it: for what may be lost."""
        try:
            job()
        except (redis.RedisError, OSError):
            pass

    def _reclaim(
        self,
        replica: str,
        ran: list[str] | None = None,
        reason: str = "",
        tail: list[str] | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Give back what a dead replica held, now or as soon as the store is there; look a second time for what it sent while dying, then ``done``.

        A board stays until then: should this worker die, too, it tells the operator which replicas there were.
        """
        lines = [line for line in tail or () if any(is_of(line, request_id) for request_id in ran or ())]

        def first() -> None:
            try:
                reclaim(self.client, self.api, replica, self.deployment.spec, reason=reason, lines=lines, ran=ran or ())
            except (redis.RedisError, OSError, StoreUnavailable):
                self._later.append((time.monotonic() + 0.2, first))
            else:
                self._later.append((time.monotonic() + SECOND_LOOK_S, second))

        def second() -> None:
            try:
                reclaim(self.client, self.api, replica, self.deployment.spec)
            except (redis.RedisError, OSError, StoreUnavailable):
                self._later.append((time.monotonic() + 0.2, second))
            else:
                done()

        first()


def choose_interpreter(deployment: Deployment, *, at_home: bool = False) -> str:
    """The deployment's own interpreter where it was made; elsewhere ours, if it is the same Python. Raises EnvironmentProblem.

    ``at_home``: for the environment's own operator. A container has another host name each time it starts, and the same Pythons.
    """
    recorded = deployment.interpreter
    if Path(recorded).exists() and (deployment.host == platform.node() or (at_home and _serves(recorded, deployment.python_version))):
        return recorded
    ours = platform.python_version()
    if ours.split(".")[:2] != deployment.python_version.split(".")[:2]:
        raise EnvironmentProblem(
            f"{deployment.api} version {deployment.version} was made with Python {deployment.python_version} ({deployment.interpreter} on "
            f"{deployment.host}), which is not here; this is Python {ours} ({sys.executable}). Start the worker with a matching Python"
        )
    return sys.executable


def _serves(interpreter: str, version: str) -> bool:
    """Whether it is of this version and has this package."""
    try:
        said = subprocess.run(
            [interpreter, "-P", "-c", "import jupyter_cortex, platform; print(platform.python_version())"],
            capture_output=True,
            text=True,
            check=False,
            timeout=INTERPRETER_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.returncode == 0 and said.stdout.strip() == version


def _row(replica: ReplicaProcess) -> dict[str, Any]:
    """A replica in its worker's status; ``stuck`` is there only when something in it does not end."""
    row: dict[str, Any] = {"id": replica.id, "pid": replica.process.pid, "state": str(replica.phase)}
    return {**row, "stuck": replica.stuck} if replica.stuck else row


def run(machine: Machine, api: str, version: int, replicas: int | None = None) -> int:
    """Serve one deployment until it drains. Raises DeploymentNotFound, EnvironmentProblem or StoreUnavailable before anything is started."""
    for directory in (machine.run_dir, machine.projects_dir):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return patiently(lambda: Supervisor(machine, api, version, replicas)).run()


def patiently(ask: Callable[[], Answer]) -> Answer:
    """What it answers; while the store is away, as soon as that is there. Raises StoreUnavailable when it stays away."""
    deadline = time.monotonic() + STORE_S
    while True:
        try:
            return ask()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
