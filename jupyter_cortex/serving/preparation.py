"""Getting a deployment onto this machine, before its first replica: the artifacts' content, the bundle, the artifacts at their paths, its Python."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..core.errors import CortexError, ProjectError, StoreUnavailable
from ..core.readers import printable
from ..core.workload import DeploymentState
from ..project import bundle
from ..store.registry import Deployment, Registry
from .artifacts import Artifacts
from .installing import Installing, failure

log = logging.getLogger(__name__)
#: A version that is live already does not fail for a URL that is away: it is tried again after 1 s, doubling to 30 s.
RETRY_S = (1.0, 30.0)


class Preparation:
    """Goes on with each `step`; ``done`` when the project stands at ``target`` and its Python is there, with ``failure`` when it never will.

    Content comes in a thread, and what is installed as well: 400 MB from a bucket take a while, and a worker that is silent for 15 s counts as dead.
    """

    def __init__(
        self,
        registry: Registry,
        artifacts: Artifacts,
        deployment: Deployment,
        target: Path,
        installing: Installing,
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        self._registry, self._artifacts, self._deployment, self._target, self._wake = registry, artifacts, deployment, target, wake
        self._needed: list[dict[str, Any]] = deployment.spec.get("artifacts", [])
        self._busy, self._fetched = False, not self._needed
        self.installing = installing
        self._error: CortexError | None = None
        self._wait = RETRY_S[0]
        self.done = False
        self.failure: dict[str, Any] | None = None
        #: Why it was in vain the last time, and when it is tried again (monotonic).
        self.trouble, self.due = "", 0.0

    def step(self, now: float, state: str) -> None:
        """Go on as far as it goes without waiting. A version in the ``state`` live never fails."""
        if self.done or self.failure or now < self.due or self._busy:
            return
        try:
            if self._error:
                raise self._error
            if not self._fetched:
                self._in_thread(self._fetch, "the artifacts could not be fetched")
                return
            self._build()
            if self.installing.is_due(self._target / "project"):
                self._in_thread(lambda: self.installing.run(self._target / "project", state), "what the project requires could not be installed")
                return
        except CortexError as error:
            self._failed(error, now, state)
        else:
            self.done, self.trouble = True, ""

    def _failed(self, error: CortexError, now: float, state: str) -> None:
        self._error, self._fetched = None, not self._needed
        if error.message != self.trouble:
            log.error("%s version %d: %s", self._deployment.api, self._deployment.version, error.message)
        self.trouble = error.message
        # The store's absence is not the version's fault, and passes.
        if state == DeploymentState.LIVE or isinstance(error, StoreUnavailable):
            self.due, self._wait = now + self._wait, min(self._wait * 2, RETRY_S[1])
        else:
            self.failure = failure(error)

    def _in_thread(self, job: Callable[[], None], vain: str) -> None:
        def run() -> None:
            try:
                job()
            except CortexError as error:
                self._error = error
            except Exception as error:  # a thread that ends without a word would be a start without an end
                log.exception(vain)
                self._error = CortexError(f"{vain}: {type(error).__name__}")
            self._busy = False
            self._wake()

        self._busy = True
        threading.Thread(target=run, name="cortex-prepare", daemon=True).start()

    def _fetch(self) -> None:
        for artifact in self._needed:
            with _named(artifact):
                self._artifacts.fetch(artifact["sha256"])
        self._fetched = True

    def _build(self) -> None:
        """Unpack the bundle if nobody has, and link what is not linked yet: a worker that is started again finds both."""
        if not self._target.exists():
            try:
                bundle.unpack(self._registry.bundle(self._deployment.api, self._deployment.digest), self._target)
            except ProjectError as error:
                if error.details.get("kind") != "target_exists":  # another worker of this version on this machine was quicker
                    raise
        for artifact in self._needed:
            with _named(artifact):
                self._artifacts.place(artifact["sha256"], self._target / "project" / artifact["path"])


@contextlib.contextmanager
def _named(artifact: dict[str, Any]) -> Iterator[None]:
    """Say in errors which artifact it is about."""
    try:
        yield
    except CortexError as error:
        raise type(error)(f"{printable(artifact['path'])}: {error.message}", **error.details) from error
