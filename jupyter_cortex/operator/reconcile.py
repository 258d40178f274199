"""Making what runs match what is wanted.

The operator keeps no state of its own that matters: the registry says which deployments there should be, locks and heartbeats say which workers
there are.
Kill it and start it again, and the same APIs run; the workers have not noticed.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from ..core.errors import CortexError
from ..core.scalars import parse_quantity
from ..core.spec import APISpec
from ..core.workload import DeploymentState as State
from ..project.environment import cpu_share
from ..serving.sweeping import sweep_all
from ..store import keys
from ..store.registry import Api, Deployment, Registry
from ..store.rehearsals import UNDECIDED_S
from . import machine, workers
from .autoscaler import Autoscaler, Policy, average, cap
from .burial import Burial
from .processes import Slot

log = logging.getLogger(__name__)

#: A worker that keeps ending is started again after 0.2 s, doubling up to this.
RESTART_MAX_S = 30.0
#: A deployment whose worker ends again and again while it starts (0.2 + 0.4 + 0.8 + 1.6 s apart) has failed.
START_WAIT_MAX_S = 2.0
#: Workers of a deleted API have their replicas end within 5 s, and then leave.
LAST_WORDS_S = 15.0
#: The autoscaler's tick and the distance of its samples, as in the original.
TICK_S = 10.0


@dataclass
class Scaling:
    """The autoscaler of one live deployment and its samples (time, queue length)."""

    spec_hash: str
    scaler: Autoscaler
    samples: list[tuple[float, int]] = field(default_factory=list)


class Reconciler:
    """One pass after another over the registry. ``start_worker(api, version)`` starts a worker process in its slot."""

    def __init__(self, client: redis.Redis, run_dir: Path, start_worker: Any, host: str, replicas_per_cpu: int) -> None:
        self.client, self.registry, self._run_dir, self._host = client, Registry(client), run_dir, host
        self._start_worker = start_worker
        self._burial = Burial(client, self.registry, run_dir, host)
        self._per_cpu = replicas_per_cpu
        self._scaling: dict[tuple[str, int], Scaling] = {}
        self._restarts: dict[str, tuple[float, float]] = {}
        self._purge_at: dict[str, float] = {}
        self._next_tick = 0.0
        #: Whether something is on its way, so that the next pass should come soon.
        self.moving = True

    def slot(self, api: str, version: int) -> Slot:
        return workers.slot(self._run_dir, api, version)

    def pass_over(self) -> None:
        """One pass. Raises StoreUnavailable when the store goes away in the middle; the next pass begins anew."""
        wanted: set[tuple[str, int]] = set()
        retains = {}
        self.moving = False
        for name in self.registry.names():
            api = self.registry.find(name)
            if api is None:
                self.moving = True
                if self.registry.being_deleted(name):
                    self._remove(name)
                continue
            if "retain" in api.spec:
                retains[name] = api.spec["retain"]
            for version in self.registry.active(name):
                deployment = self.registry.find_deployment(name, version)
                if deployment is not None and self._keep(api, deployment):
                    wanted.add((name, version))
        self._stop_others(wanted)
        sweep_all(self.client, retains)
        self.moving = self.look_again() or self.moving
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + TICK_S
            self._autoscale()

    def look_again(self) -> bool:
        """See `Burial.look_again`."""
        return self._burial.look_again()

    # One deployment ----------------------------------------------------------------------------------------------------------------------

    def _keep(self, api: Api, deployment: Deployment) -> bool:
        """Bring one deployment a step further. Whether its worker should run."""
        name, version, state = api.name, deployment.version, deployment.state
        if state in (State.REHEARSING, State.REHEARSED):
            return self._keep_rehearsal(deployment)
        self.moving = self.moving or state is not State.LIVE
        slot = self.slot(name, version)
        running = slot.pid() is not None
        if state is State.PENDING:
            self._cap_replicas(api, deployment)
            self.registry.move(name, version, (State.PENDING,), State.STARTING)
            self._start(name, version)
            return True
        if state is State.STARTING:
            self._look_at_start(api, deployment, running)
            return True
        if state is State.LIVE:
            self._cap_replicas(api, deployment)
            if not running:
                self.moving = True
                self._burial.bury(name, version)
                self._start(name, version)
            elif (role := f"{name}-{version}") in self._restarts and (status := self._worker_status(name, version)) and status["ready"]:
                # It came to serve, so it was killed rather than unable to start: the next one may start at once.
                del self._restarts[role]
            return True
        if state is State.DRAINING and running:
            return True
        if not running:
            self._burial.bury(name, version)
            if state is State.DRAINING:
                self.registry.move(name, version, (State.DRAINING,), State.STOPPED)
            self.registry.forget_active(name, version)
            slot.path.unlink(missing_ok=True)
        return False

    def _keep_rehearsal(self, deployment: Deployment) -> bool:
        """Whether its process should run: until there is a report. One that nobody decides on is dropped."""
        name, version, times = deployment.api, deployment.version, deployment.times
        if time.time() - max(times["created"], times.get("rehearsed_at", 0)) / 1000 > UNDECIDED_S:
            self.registry.drop(name, version)
            return False
        if deployment.state is State.REHEARSED:
            self._restarts.pop(f"{name}-{version}", None)  # to be promoted is another start
            return False
        if self.slot(name, version).pid() is None:
            self.moving = True
            if self._restarts.get(f"{name}-{version}", (0.0, 0.0))[1] > START_WAIT_MAX_S:
                sentence = f"its rehearsal keeps ending; what it said last is in logs/worker-{name}.log below the environment's home"
                self.registry.move(name, version, (State.REHEARSING,), State.FAILED, error={"message": sentence})
                return False
            self._start(name, version)
        return True

    def _worker_status(self, name: str, version: int) -> dict[str, Any] | None:
        pid = self.slot(name, version).pid()
        for status in self.registry.workers(name).values():
            if status["version"] == version and status["host"] == self._host and status["pid"] == pid:
                return status
        return None

    def is_ours(self, worker: dict[str, Any]) -> bool:
        return self._burial.is_ours(worker)

    def _look_at_start(self, api: Api, deployment: Deployment, running: bool) -> None:
        name, version = api.name, deployment.version
        status = self._worker_status(name, version)
        if status and status["failure"]:
            failure = status["failure"]
            if self.registry.move(name, version, (State.STARTING,), State.FAILED, error=failure):
                log.warning("%s version %d did not start: %s", name, version, failure.get("message"))
            return
        # Stopped or started since it was pending: a version must not take over before it has the replicas that are wanted now.
        needed = self._cap_replicas(api, deployment)
        if status and status["ready"] >= needed:
            endpoint = deployment.spec["networking"]["endpoint"]
            if owner := self.registry.owner_of(endpoint, name):
                # Both were deployed in the same moment, and each found the place free.
                sentence = f"networking.endpoint: {endpoint} belongs to the API {owner} by now; choose another one for {name}"
                self.registry.move(name, version, (State.STARTING,), State.FAILED, error={"message": sentence})
                return
            before = self.registry.promote(name, version, endpoint)
            if before >= 0:
                log.info("%s version %d is live", name, version)
                self.slot(name, version).signal(signal.SIGUSR1)
                if before:
                    self.slot(name, before).signal(signal.SIGUSR1)
                self.registry.prune(name)
                self.registry.wake_operator()
        elif not running:
            self._burial.bury(name, version)
            if self._restarts.get(f"{name}-{version}", (0.0, 0.0))[1] > START_WAIT_MAX_S:
                sentence = f"its worker keeps ending; what it said last is in logs/worker-{name}.log below the environment's home"
                self.registry.move(name, version, (State.STARTING,), State.FAILED, error={"message": sentence})
                return
            self._start(name, version)

    def _start(self, name: str, version: int) -> None:
        """Start a worker, with growing distance when it keeps ending."""
        role = f"{name}-{version}"
        not_before, wait = self._restarts.get(role, (0.0, 0.1))
        now = time.monotonic()
        if now < not_before:
            return
        if now - not_before > 60:
            wait = 0.1
        self._restarts[role] = (now + wait, min(wait * 2, RESTART_MAX_S))
        self._start_worker(name, version)

    def _stop_others(self, wanted: set[tuple[str, int]]) -> None:
        """Workers whose deployment is failed, stopped or gone. They see it with their next beat; the signal makes it now."""
        for (name, version), slot in workers.slots(self._run_dir).items():
            if (name, version) in wanted:
                continue
            self.moving = True
            if slot.pid() is not None:
                slot.signal(signal.SIGUSR1)
            else:
                self._burial.bury(name, version)
                slot.path.unlink(missing_ok=True)

    def _remove(self, name: str) -> None:
        """The last of a deleted API: when its workers are gone, its keys go."""
        for (api, version), slot in workers.slots(self._run_dir).items():
            if api != name:
                continue
            if slot.pid() is not None:
                slot.signal(signal.SIGUSR1)
                return
            self._burial.bury(name, version)  # one that was killed has left what its handlers and installations had started
            slot.path.unlink(missing_ok=True)
        # Those on other machines write their last words first; one that has died there says nothing any more.
        others = [worker for worker in self.registry.workers(name).values() if not self.is_ours(worker)]
        if others and time.monotonic() < self._purge_at.setdefault(name, time.monotonic() + LAST_WORDS_S):
            return
        self._purge_at.pop(name, None)
        self.registry.purge(name)

    # Replicas ----------------------------------------------------------------------------------------------------------------------------

    def _cap_replicas(self, api: Api, deployment: Deployment) -> int:
        """What the spec and the autoscaler want, as far as this machine goes: so many replicas, which are set if they were others."""
        wanted = 0 if api.stopped else max(1, deployment.wanted_replicas)
        limits = deployment.spec["autoscaling"]
        if not api.stopped:
            wanted = min(max(wanted, limits["min_replicas"]), limits["max_replicas"])
            replicas, capped = self._capped(api.name, deployment, wanted)
        else:
            replicas, capped = 0, ""
        if replicas != deployment.replicas or _kind(capped) != _kind(deployment.capped):
            self.registry.set_replicas(api.name, deployment.version, replicas, wanted or deployment.wanted_replicas, capped)
            self.slot(api.name, deployment.version).signal(signal.SIGUSR1)
        return replicas

    def _capped(self, name: str, deployment: Deployment, wanted: int) -> tuple[int, str]:
        status = self._worker_status(name, deployment.version)
        pids = [replica["pid"] for replica in status["replicas"]] if status else []
        compute = deployment.spec["compute"]
        size = machine.replica_memory(pids)
        # Memory that the running replicas hold is theirs already, and somebody else's hunger must not take them away: only more replicas need more.
        available = machine.memory_available() + (size or 0) * len(pids)
        if compute.get("mem"):
            size = int(parse_quantity(compute["mem"]))
        if wanted <= len(pids):
            size = None
        replicas, why = cap(
            wanted,
            cpus=machine.cpus(),
            memory_available=available,
            replica_memory=size,
            per_cpu=self._per_cpu,
            replica_cpus=cpu_share(compute),
            gpus=machine.gpus() if compute.get("gpu") else 0,
            replica_gpus=compute.get("gpu", 0),
        )
        return replicas, why or ""

    def _autoscale(self) -> None:
        now = time.monotonic()
        seen = set()
        for name in self.registry.names():
            api = self.registry.find(name)
            deployment = self.registry.find_deployment(name, api.live) if api and api.live and not api.stopped else None
            if deployment is None or deployment.state is not State.LIVE:
                continue
            key = (name, deployment.version)
            seen.add(key)
            limits = APISpec.from_resolved(deployment.spec).autoscaling
            scaling = self._scaling.get(key)
            if scaling is None or scaling.spec_hash != deployment.spec_hash:
                scaling = self._scaling[key] = Scaling(deployment.spec_hash, Autoscaler(Policy.from_spec(limits), max(1, deployment.replicas)))
            scaling.samples.append((now, int(self.client.zcard(keys.index(name, "open")))))  # type: ignore[arg-type]
            scaling.samples = [sample for sample in scaling.samples if now - sample[0] < limits.window]
            wanted = scaling.scaler.tick(now, average([length for _, length in scaling.samples]))
            replicas, capped = self._capped(name, deployment, wanted)
            if (replicas, wanted, _kind(capped)) != (deployment.replicas, deployment.wanted_replicas, _kind(deployment.capped)):
                log.info("%s: %d replicas, wanted %d %s", name, replicas, wanted, capped)
                self.registry.set_replicas(name, deployment.version, replicas, wanted, capped)
        for key in set(self._scaling) - seen:
            del self._scaling[key]

    def publish(self, processes: list[dict[str, Any]], facts: dict[str, Any]) -> None:
        """Say what runs, for `cortex status`."""
        document = json.dumps({"processes": processes, **facts})
        try:
            self.registry.say_status(document)
        except redis.RedisError as error:
            raise CortexError(str(error)) from error


def _kind(capped: str) -> str:
    """Why there are fewer replicas than wanted, without how much memory is free just now: that changes all the time, and nobody need hear of it."""
    return re.sub(r"[\d.]+ [GM]B", "", capped)
