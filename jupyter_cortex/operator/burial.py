"""What is to be done when a worker has died, and its replicas with it: giving back what they held, ending what they left."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import redis

from ..core.workload import DeploymentState as State
from ..serving.reclaim import SECOND_LOOK_S, reclaim
from ..store.registry import Registry
from . import machine, workers

#: Who buries waits no longer for what cannot end at once (it hangs in the kernel, or gives back much memory): others wait to be started.
PATIENCE_S = 1.0
#: The id of a replica: API, version and a random part.
REPLICA = re.compile(r"(.+)-v(\d+)-[0-9a-f]{8}")


class Burial:
    """Of the workers that live in ``run_dir``. Safe to repeat; may raise StoreUnavailable or RedisError, and is then to be repeated."""

    def __init__(self, client: redis.Redis, registry: Registry, run_dir: Path, host: str) -> None:
        self._client, self._registry, self._run_dir, self._host = client, registry, run_dir, host

    def is_ours(self, worker: dict[str, Any]) -> bool:
        """Whether a worker belongs to this environment and machine, by what it says of itself; `cortex worker` may serve the same API from another
        home on the same host. Workers of an older code do not say where they live."""
        here = os.path.realpath(self._run_dir)
        return bool(worker["host"] == self._host and worker.get("run_dir", here) == here)

    def bury(self, api: str, version: int) -> None:
        """No worker of this version runs here. Its boards say which replicas there were, also those of whom it could not tell the store any more.

        Nothing is charged: a worker's end is nobody's fault.
        """
        if workers.slot(self._run_dir, api, version).pid() is not None:
            return
        projects = self._run_dir.parent / "projects"
        machine.end_left_by_handlers(projects, api, version, patience=PATIENCE_S)
        left = {worker: said for worker, said in self._registry.workers(api).items() if said["version"] == version and self.is_ours(said)}
        boards = [path for path in self._run_dir.glob("*.board") if _of(path) == (api, version)]
        deployment = self._registry.find_deployment(api, version)
        if deployment is not None:
            for replica in {replica["id"] for said in left.values() for replica in said["replicas"]} | {path.stem for path in boards}:
                reclaim(self._client, api, replica, deployment.spec)
        for path in boards:
            # For the second look, which must come even if this operator does not live that long.
            path.touch()
            path.replace(path.with_suffix(".buried"))
        for worker in left:
            self._registry.forget_worker(api, worker)
        if deployment is None or deployment.state not in (State.PENDING, State.STARTING, State.LIVE):
            for path in projects.glob(f"{api}-v{version}-*"):
                shutil.rmtree(path, ignore_errors=True)

    def look_again(self) -> bool:
        """A fetch that a replica had sent before its death may have run after its work was given back. Whether one is still to be looked for."""
        waiting = False
        for path in self._run_dir.glob("*.buried"):
            try:
                age = abs(time.time() - path.stat().st_mtime)
            except FileNotFoundError:  # workers of several APIs may be kept from one home
                continue
            if age < SECOND_LOOK_S:
                waiting = True
                continue
            api, version = _of(path)
            deployment = self._registry.find_deployment(api, version)
            if deployment is not None:
                reclaim(self._client, api, path.stem, deployment.spec)
            path.unlink(missing_ok=True)
        return waiting


def _of(path: Path) -> tuple[str, int]:
    """API and version of a board."""
    found = REPLICA.fullmatch(path.stem)
    return (found[1], int(found[2])) if found else ("", 0)
