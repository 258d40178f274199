"""The environment of a run: three APIs of the same Handler, what the faults need of it, and its end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from jupyter_cortex.operator.home import Home
from jupyter_cortex.serving.board import Board
from jupyter_cortex.store import keys
from tests.conftest import Environment

from .means import Clock, Disk, processes_of

HANDLER = Path(__file__).with_name("handler.py")
#: The callers' APIs: one workload at a time in each of two replicas; and four at a time, so that poison has neighbours.
APIS = {"one": {"threads": 1, "replicas": 2}, "many": {"threads": 4, "replicas": 2}}
#: The API that only the faults call, to measure when service is back.
PULSE = "pulse"
#: Only bounds a broken run.
BACK_S = 90.0


class Broken(Exception):
    """Something did not come back."""


def until(condition: Callable[[], Any], what: str, seconds: float = BACK_S, pause: float = 0.01) -> Any:
    """Poll until the condition is truthy; its value. Raises Broken."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Broken(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(pause)
    return value


def free_port() -> int:
    """Not among those that other environments of this machine choose from: ours is free for a moment whenever the gateway was killed."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port := random.randrange(20_000, 32_000)))
            return port


class Stage:
    """``with Stage(directory) as stage:`` starts it; whatever happens, nothing of it is left in the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = Environment(directory / "home", {"JUPYTER_CORTEX_PORT": str(free_port())})
        self.home = Home(self.environment.home)
        self.clock = Clock(directory)
        self.heard: Callable[[str, int, Any, bytes], None] = lambda *answer: None
        #: After the end: what was still there, and what our own processes' logs say of errors that nobody caught.
        self.left: list[str] = []
        self.uncaught: list[str] = []
        #: Processes that the faults have killed.
        self.killed: set[int] = set()
        self._numbers = iter(range(1 << 30))

    def __enter__(self) -> Stage:
        self.disk = Disk(self.home.store)
        try:
            if self.clock.library:
                self.environment.variables["JUPYTER_CORTEX_STORE_SERVER"] = self.clock.store_program()
            self.environment.up()
            self.redis = self.environment.redis()
            for name, shape in {**APIS, PULSE: {"threads": 1, "replicas": 2}}.items():
                self.deploy(name, **shape)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for process in processes_of(self.environment.home):
                with suppress(psutil.NoSuchProcess):
                    if process.status() == psutil.STATUS_STOPPED:
                        process.send_signal(signal.SIGCONT)
            self.environment.down(grace=0)
            self._look_around()
        finally:
            for process in processes_of(self.environment.home):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.disk.close()
            shutil.rmtree(self.environment.home, ignore_errors=True)

    def _look_around(self) -> None:
        home = self.environment.home
        self.left = [f"{process.pid} {' '.join(process.info['cmdline'] or [])[:200]}" for process in processes_of(home)]
        self.left += [str(path) for path in self.home.run.iterdir() if path.suffix != ".lock" and path.name != "chain.json"]
        for log in self.home.logs.iterdir():
            # The store's own words, and those of handlers, are not ours.
            text = log.read_text(errors="replace") if not log.name.startswith("store") else ""
            self.uncaught += [f"{log.name}: {part[:1500]}" for part in text.split("Traceback (most recent call last)")[1:]]

    def deploy(self, name: str, *, threads: int = 1, replicas: int = 2, source: str = "", wait: bool = True) -> None:
        directory = self.directory / f"project-{name}"
        directory.mkdir(exist_ok=True)
        spec = {
            "name": name,
            "kind": "AsyncAPI",
            "handler": {"type": "python", "path": "handler.py", "threads_per_process": threads},
            "autoscaling": {"min_replicas": replicas, "max_replicas": replicas, "init_replicas": replicas},
        }
        (directory / "cortex.yaml").write_text(yaml.safe_dump([spec]))
        (directory / "handler.py").write_text(source or HANDLER.read_text())
        with self.environment.client() as client:
            client.deploy(directory / "cortex.yaml", wait=wait)

    def kill(self, pid: int) -> None:
        self.killed.add(pid)
        os.kill(pid, signal.SIGKILL)

    # Looking -----------------------------------------------------------------------------------------------------------------------------

    def deaths(self, api: str) -> list[dict[str, Any]]:
        """What the API's log says of replicas that ended unasked: a record for each request that one had in hand, or one without."""
        with self.environment.client() as client:
            return client.logs(api, lines=10_000, search="the replica ended", level="ERROR")

    def pid(self, role: str) -> int:
        """The process in a slot, 0 while there is none."""
        return self.environment.slot(role).pid() or 0

    def worker(self, api: str) -> int:
        live = int(self.redis.hget(keys.api(api), "live") or 0)  # type: ignore[arg-type]
        return self.pid(f"worker-{api}-{live}")

    def replicas(self, api: str, *states: str) -> list[dict[str, Any]]:
        """As their workers last said."""
        from jupyter_cortex.store.registry import Registry

        workers = Registry(self.redis).workers(api).values()
        return [replica for worker in workers for replica in worker["replicas"] if not states or replica["state"] in states]

    def inside(self, api: str) -> dict[str, list[str]]:
        """Which workloads are inside a handler now, by replica: their boards say it, whatever the store does."""
        found = {}
        for path in self.home.run.glob(f"{api}-v*.board"):
            try:
                board = Board(path)
            except OSError:
                continue
            found[path.stem] = board.read()
            board.close()
        return found

    # Service -----------------------------------------------------------------------------------------------------------------------------

    def post(self, payload: Any, timeout: float = 10.0) -> str:
        """The id of a workload of the pulse API, once it was accepted."""
        request_id = f"pulse-{os.getpid()}-{next(self._numbers)}"

        def accepted() -> bool:
            answer = self.ask("POST", f"/{PULSE}", timeout, json=payload, headers={"x-request-id": request_id})
            return answer is not None and answer.status_code == 200

        until(accepted, "a POST is accepted", pause=0.005)
        return request_id

    def serves(self) -> None:
        """Wait until a workload goes all the way. Raises Broken."""
        request_id = self.post({"n": 0})

        def ended() -> bool:
            answer = self.ask("GET", f"/{PULSE}/{request_id}?wait=2", 10)
            return answer is not None and answer.status_code == 200 and answer.json()["status"] == "completed"

        until(ended, "a workload has gone all the way", pause=0.005)

    def ask(self, method: str, path: str, timeout: float, **options: Any) -> httpx.Response | None:
        """One request on a connection of its own; None when nobody answered. ``heard`` gets every answer."""
        with httpx.Client(base_url=self.environment.url, trust_env=False, timeout=timeout) as http:
            try:
                answer = http.request(method, path, **options)
            except httpx.TransportError:
                return None
        self.heard(f"{method} {path}", answer.status_code, answer.headers, answer.content)
        return answer

    def store_answers(self) -> bool:
        try:
            return bool(self.redis.ping())
        except Exception:
            return False
