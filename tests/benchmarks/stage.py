"""What the benchmarks run on: a private environment of ours, and beside it a store and processes for the peers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis
import yaml

from jupyter_cortex.client import Client, Deployed
from jupyter_cortex.core.settings import Settings
from jupyter_cortex.environments import Environments
from jupyter_cortex.operator import local
from jupyter_cortex.operator.embedded import EmbeddedStore
from jupyter_cortex.operator.home import Home
from jupyter_cortex.store import keys

PEERS = Path(__file__).parent / "peers"
ECHO = """
    class Handler:
        def handle_async(self, payload):
            return {"ok": 1}
"""


def until(condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    """Poll until the condition is truthy; its value. The time limit only bounds a broken run."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.01)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stage:
    """One run's ground. ``with Stage(directory) as stage:`` starts our environment; the peers' store starts when a peer is first asked for."""

    def __init__(self, directory: Path, environments: Path | None = None, **settings: str) -> None:
        """``environments``: where the peers' environments are kept. ``settings``: ours, where they are not the defaults."""
        self.directory, self.environments = directory, environments or directory / "environments"
        self.home = Home(directory / "cortex")
        said = {f"JUPYTER_CORTEX_{name.upper()}": value for name, value in settings.items()}
        self.settings = Settings.read({"JUPYTER_CORTEX_HOME": str(self.home.path), "HOME": os.environ.get("HOME", "/"), **said})
        self._peer_home = Home(directory / "peers")
        self._peer_store: EmbeddedStore | None = None

    def __enter__(self) -> Stage:
        try:
            self.url = local.up(self.settings).url
        except BaseException:
            self.__exit__()
            raise
        self.client = self.new_client()
        self.redis = redis.Redis.from_url(self.home.redis_url())
        return self

    def __exit__(self, *_: object) -> None:
        local.down(self.settings, grace=5.0)
        if self._peer_store is not None:
            self._peer_store.stop()
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("JUPYTER_CORTEX_HOME") == str(self.home.path):
                process.kill()

    # Ours --------------------------------------------------------------------------------------------------------------

    def new_client(self) -> Client:
        return Client(Environments(self.settings).find("local"), self.settings)

    def write(self, name: str, handler: str, config: dict[str, Any] | None = None, **spec: Any) -> Path:
        """A project directory with one API; the path of its cortex.yaml."""
        directory = self.directory / f"project-{name}"
        directory.mkdir(exist_ok=True)
        section = {"type": "python", "path": "handler.py", **({"config": config} if config else {})}
        (directory / "cortex.yaml").write_text(yaml.safe_dump([{"name": name, "kind": "AsyncAPI", "handler": section, **spec}]))
        (directory / "handler.py").write_text(textwrap.dedent(handler))
        return directory / "cortex.yaml"

    def deploy(self, name: str, handler: str, config: dict[str, Any] | None = None, **spec: Any) -> Deployed:
        return self.client.deploy(self.write(name, handler, config, **spec))[0]

    def delete(self, name: str) -> None:
        """Delete an API and wait until all of it is gone, so that the next figure is measured on a quiet store."""
        self.client.delete(name)
        until(lambda: not any(self.redis.scan_iter(f"{keys.prefix(name)}:*", count=10_000)), f"nothing of {name} is left")

    def stop(self, name: str) -> None:
        """Stop an API's replicas: requests are accepted, none is run."""
        self.client.stop(name)
        until(lambda: not any(w["replicas"] for w in self.client.get_api(name)["workers"].values()), f"{name} has no replica")

    def cortex(self, *arguments: str) -> None:
        """The command line, as a person starts it."""
        script = Path(sys.executable).with_name("cortex")
        argv = [str(script)] if script.exists() else [sys.executable, "-m", "jupyter_cortex.cli"]
        env = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_CORTEX_")}
        done = subprocess.run([*argv, *arguments], env={**env, **self.settings.environ()}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"cortex {' '.join(arguments)} exited {done.returncode}: {done.stdout}{done.stderr}")

    # The peers ---------------------------------------------------------------------------------------------------------

    def peer_redis(self) -> redis.Redis:
        """The peers' own store: the same server with the same settings as ours."""
        if self._peer_store is None:
            self._peer_home.make()
            self._peer_store = EmbeddedStore(self._peer_home)
            self._peer_store.start()
            self._peer_store.wait()
        return redis.Redis.from_url(self.peer_url)

    @property
    def peer_url(self) -> str:
        return self._peer_home.redis_url()

    @contextmanager
    def process(self, *argv: str, python: str = sys.executable, **variables: str) -> Iterator[None]:
        """A peer's process, started as ``python ...`` and ended with the block. What it prints goes to a file, as in production."""
        self.peer_redis()
        env = {**os.environ, "PEER_REDIS": self.peer_url, "PYTHONPATH": str(PEERS), **variables}
        with open(self.directory / "peers.log", "ab") as out:
            started = subprocess.Popen([python, *argv], env=env, cwd=self.directory, stdout=out, stderr=out)
            try:
                yield
                if started.poll() is not None:
                    raise RuntimeError(f"{' '.join(argv)} ended by itself; see {self.directory / 'peers.log'}")
            finally:
                started.terminate()
                try:
                    started.wait(20)
                except subprocess.TimeoutExpired:
                    for child in psutil.Process(started.pid).children(recursive=True):
                        child.kill()
                    started.kill()
                    started.wait()

    @contextmanager
    def server(self, app: str, *options: str) -> Iterator[str]:
        """One uvicorn worker with a peer's app; its URL."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with self.process("-m", "uvicorn", app, "--port", str(port), *options):
            until(lambda: _answers(url), f"{app} answers", 30)
            yield url

    def dramatiq(self) -> Any:
        """The worker behind the hand-written app: Dramatiq's own, one process, its default of 8 threads."""
        return self.process("-m", "dramatiq", "on_dramatiq_full", "--processes", "1", "--threads", "8")


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/openapi.json", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
