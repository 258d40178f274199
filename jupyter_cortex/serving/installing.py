"""The Python that a deployment's replicas run on: the interpreter it was made with, or one of this machine's that has what it requires besides."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ..core.errors import CortexError
from ..core.workload import DeploymentState
from ..handler import masking
from ..project import environment
from ..project.installation import needs as needed
from ..project.installation.needs import LOCK
from ..project.installation.pythons import Abandoned, Python, Pythons, facts
from ..project.installation.running import GRACE_S, shown
from ..store.registry import Deployment

#: Characters of the last line that heartbeats carry.
SAYING = 160
#: Seconds to wait for the end of what is abandoned: a command has `GRACE_S` before it is killed.
ABANDONED_S = GRACE_S + 5.0


class Installing:
    """``done`` when ``program`` is what replicas are to run with. ``saying``: what its commands said last, "" when none runs."""

    def __init__(self, pythons: Pythons, deployment: Deployment, interpreter: str, log: Callable[[str], None]) -> None:
        self._pythons, self._deployment, self._interpreter, self._log = pythons, deployment, interpreter, log
        self._abandon, self._running = threading.Event(), threading.Lock()
        self.python: Python | None = None
        self.saying = ""
        self.done = False

    @property
    def program(self) -> str:
        return self.python.program if self.python else self._interpreter

    def is_due(self, project: Any) -> bool:
        """Whether there is anything to look at in the unpacked project; if not, it is done."""
        names = (*self._deployment.spec["handler"]["dependencies"].values(), LOCK)
        self.done = self.done or not any((project / name).is_file() for name in names)
        return not self.done

    def run(self, project: Any, state: str) -> None:
        """Make it, or find it. For a thread: it may take minutes. Raises CortexError."""
        with self._running:
            try:
                self._run(project, state)
            except Abandoned:
                pass
            finally:
                self.saying = ""

    def _run(self, project: Any, state: str) -> None:
        deployment = self._deployment
        if self._abandon.is_set():
            raise Abandoned
        version = environment.python_version(self._interpreter, deployment.python_version)
        needs = needed.of(project, deployment.spec["handler"]["dependencies"], self._interpreter, version)
        if needs is not None:
            self.python = self._made(needs, state)
        self.done = True

    def _made(self, needs: needed.Needs, state: str) -> Python:
        deployment = self._deployment
        env, secrets = environment.for_replica(deployment.spec, deployment.dotenv, needs.project, [deployment.api])
        masking.mask(secrets)
        user = f"{deployment.api}-v{deployment.version}"
        python = self._pythons.get(needs, {**environment.installers(), **env}, self._tell, self._abandon, user)
        if not python.fresh and state != DeploymentState.LIVE:
            for line in [f"runs on the {needs.kind} Python {needs.digest}, which was there; when it was made:", *python.log()]:
                self._say(line)
        return python

    def abandon(self) -> None:
        """End what runs, and wait until it has ended: with this process would go the thread that ends it, and it would run on."""
        self._abandon.set()
        if self._running.acquire(timeout=ABANDONED_S):
            self._running.release()

    def environ(self, env: dict[str, str]) -> dict[str, str]:
        """A replica's variables, as its Python wants them."""
        return self.python.environ(env) if self.python else env

    def recorded(self) -> dict[str, str]:
        """The versions that the deployment was made with, of what can still move: not of what lies in a Python of its own."""
        own = self.python.own() if self.python else set()
        return {name: version for name, version in self._deployment.distributions.items() if name.lower().replace("_", "-") not in own}

    def facts(self) -> dict[str, Any]:
        return facts(self.python)

    def _tell(self, line: str) -> None:
        self.saying = line[:SAYING]
        self._say(line)

    def _say(self, line: str) -> None:
        now = time.time()
        asctime = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)) + f",{int(now % 1 * 1000):03d}"
        deployment = self._deployment
        labels = {"apiName": deployment.api, "apiKind": deployment.spec["kind"], "apiID": f"{deployment.version}-{deployment.digest[:12]}"}
        record = {"asctime": asctime, "levelname": "INFO", "message": f"install: {shown(line)}", "process": os.getpid(), "labels": labels}
        self._log(json.dumps(record))


def failure(error: CortexError) -> dict[str, Any]:
    """An error as a worker reports it: the last lines beside the sentence, as those of a replica are."""
    details = dict(error.details)
    logs = details.pop("logs", None)
    return {"message": error.message, "details": details, **({"logs": logs} if logs else {})}
