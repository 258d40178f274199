"""Starting and stopping the local environment, for `cortex up`, `down` and whoever needs one to run."""

from __future__ import annotations

import os
import platform
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..core.errors import EnvironmentProblem
from ..core.settings import Settings
from ..project import environment
from ..serving import remote
from ..serving.artifacts import Artifacts
from ..serving.signals import HURRY
from ..store import connection
from . import machine, workers
from .embedded import EmbeddedStore
from .home import Home
from .processes import Slot

#: Seconds until a started environment must answer: an append-only file of gigabytes takes a while to read.
UP_S = 130.0


@dataclass(frozen=True)
class Local:
    """A running local environment, as a client needs it. ``notes``: what its store may lose by its own settings."""

    url: str
    token: str
    home: Path
    notes: tuple[str, ...] = ()


def find(settings: Settings) -> Local | None:
    """The local environment if it was ever started here; it may be down."""
    address = settings.local_address()
    return Local(*address, settings.home) if address else None


def stopping(home: Home) -> bool:
    return (home.run / "stopping").exists()


def start_operator(settings: Settings, home: Home) -> None:
    """In a session of its own, with closed descriptors: it outlives the shell, the kernel and the Jupyter server. Does nothing when one runs."""
    argv = [sys.executable, "-P", "-m", "jupyter_cortex.operator"]
    env = {**environment.base(), **environment.installers(), **remote.environ(settings.artifacts), **settings.environ()}
    Slot(home.run, "operator").spawn(argv, env, home.logs / "operator.log", home.path)


def ready(local: Local) -> bool:
    """Whether this very environment takes requests. Raises EnvironmentProblem when another one answers at its port."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in ("/_cortex/v1/status", "/readyz"):
        request = urllib.request.Request(local.url + path, headers={"Authorization": f"Bearer {local.token}"})
        try:
            with opener.open(request, timeout=2):
                pass
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise EnvironmentProblem(
                    f"another environment's gateway answers at {local.url}; set JUPYTER_CORTEX_PORT to a free port, or stop the other one"
                ) from None
            return False
        except (OSError, ValueError):
            return False
    return True


def up(settings: Settings, progress: Callable[[str], None] = lambda step: None) -> Local:
    """Start what does not run and wait until it takes requests. Raises EnvironmentProblem with the failing process's last words."""
    if platform.system() == "Windows":
        raise EnvironmentProblem("the local environment does not run on Windows; set JUPYTER_CORTEX_URL and JUPYTER_CORTEX_TOKEN to use another one")
    home = Home(settings.home)
    home.make()
    shared = "the loopback of a JupyterHub is shared with other users and" if "JUPYTERHUB_API_TOKEN" in os.environ else ""
    if (shared or not settings.loopback) and not settings.call_token and not settings.insecure:
        raise EnvironmentProblem(
            f"{shared or f'listening on {settings.host}'} lets others call your APIs: set JUPYTER_CORTEX_CALL_TOKEN, or "
            "JUPYTER_CORTEX_INSECURE=true if you mean it"
        )
    Artifacts(home.artifacts, settings.artifacts).check()
    home.config(host=settings.host, port=settings.port)
    found = find(settings)
    assert found is not None
    if Slot(home.run, "gateway").pid() is None:
        _check_port(found)
    (home.run / "stopping").unlink(missing_ok=True)
    slot = Slot(home.run, "operator")
    starts = slot.pid() is None
    if starts:
        if settings.redis_url:
            found = replace(found, notes=tuple(connection.check(settings.redis_url)))
        progress("starting the environment")
        start_operator(settings, home)
    elif settings.redis_url and not home.is_on(settings.redis_url):
        raise EnvironmentProblem(
            "the environment runs on another store than JUPYTER_CORTEX_REDIS_URL names; `cortex down`, then `cortex up` begin on the named one "
            "(what the other one holds stays there), or unset it"
        )
    deadline = time.monotonic() + UP_S
    while not ready(found):
        if slot.pid() is None and not ready(found):
            time.sleep(0.3)  # a first look may come before the lock
            if slot.pid() is None and starts:
                raise EnvironmentProblem(f"the environment did not start: {_last_words(home)}")
            if slot.pid() is None:  # the one that was there has ended under our eyes: who is killed holds its lock until it is gone
                starts = True
                start_operator(settings, home)
        if time.monotonic() > deadline:
            raise EnvironmentProblem(f"the environment has not answered for {UP_S:.0f} s: {_last_words(home)}")
        time.sleep(0.02)
    return found


def _check_port(local: Local) -> None:
    """Refuse a port at which somebody else answers. Raises EnvironmentProblem."""
    parts = urlsplit(local.url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
    except OSError:
        return
    raise EnvironmentProblem(f"another program listens at {local.url}; set JUPYTER_CORTEX_PORT to a free port, or stop the other one")


def _last_words(home: Home) -> str:
    words = []
    for name in ("operator", "gateway"):
        path = home.logs / f"{name}.log"
        if path.exists() and (lines := path.read_text(errors="replace").strip().splitlines()):
            words.append(f"{name}: {lines[-1]}")
    return "; ".join(words) or f"no log in {home.logs}"


def down(settings: Settings, progress: Callable[[str], None] = lambda step: None, *, grace: float = 30.0) -> dict[str, Any]:
    """Stop everything: no more is taken, running handlers get ``grace`` seconds, what they did not finish waits in the store for the next `up`.

    Returns how many processes of each role were stopped.
    """
    home = Home(settings.home)
    if not home.run.exists():
        return {}
    (home.run / "stopping").touch()
    stopped: dict[str, Any] = {}

    def stop(role: str, slot: Slot, seconds: float) -> None:
        if slot.signal(signal.SIGTERM):
            stopped[role] = stopped.get(role, 0) + 1
            if not slot.wait_empty(seconds):
                slot.signal(signal.SIGKILL)
                slot.wait_empty(5)

    stop("operator", Slot(home.run, "operator"), 10)
    running = [slot for slot in workers.slots(home.run).values() if slot.signal(signal.SIGTERM)]
    if running:
        progress(f"draining {len(running)} worker(s)")
    deadline = time.monotonic() + grace
    late = [slot for slot in running if not slot.wait_empty(max(0.0, deadline - time.monotonic()))]
    for slot in late:
        slot.signal(HURRY)  # all of them at once: end the replicas now and give their work back
    deadline = time.monotonic() + 10
    for slot in late:
        if not slot.wait_empty(max(0.0, deadline - time.monotonic())):
            slot.signal(signal.SIGKILL)
    if running:
        stopped["worker"] = len(running)
    stop("gateway", Slot(home.run, "gateway"), 10)
    store = EmbeddedStore(home)
    if not settings.redis_url or store.pid() is not None:  # it was started before that was set, perhaps
        if store.pid() is not None:
            progress("stopping the store")
            stopped["store"] = 1
        store.stop()
    home.forget_store()
    machine.end_left_by_handlers(home.projects)
    (home.run / "stopping").unlink(missing_ok=True)
    return stopped
