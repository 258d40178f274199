"""Real parts for every test: a private environment with its own store, gateway, operator and replicas."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
from hypothesis import settings as hypothesis_settings

from jupyter_cortex.client import Client, Deployed
from jupyter_cortex.core.errors import ApiNotFound
from jupyter_cortex.core.settings import Settings
from jupyter_cortex.environments import Environments
from jupyter_cortex.operator import local
from jupyter_cortex.operator.home import Home
from jupyter_cortex.operator.processes import Slot

from .spread import pytest_collection_modifyitems, pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler
from .suites import pytest_collect_directory

__all__ = ["pytest_collect_directory", "pytest_collection_modifyitems", "pytest_xdist_auto_num_workers", "pytest_xdist_make_scheduler"]

CI = os.environ.get("CI") == "true"
# CI tries the same inputs at each run, so that what fails there fails here; at home each run tries others. Machines are too noisy for deadlines.
hypothesis_settings.register_profile("ci", derandomize=True, database=None, deadline=None, print_blob=True)
hypothesis_settings.register_profile("home", deadline=None, print_blob=True)
hypothesis_settings.load_profile("ci" if CI else "home")
ECHO = """
class Handler:
    def handle_async(self, payload, request_id):
        return {"payload": payload, "id": request_id}
"""


def missing(reason: str) -> None:
    """Skip at home, fail in CI: a service that CI lacks must not hide a promise."""
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """Poll until the condition is truthy; its value. The time limit only bounds a broken run."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether there is such a process, other than one that has ended and waits for its parent to ask."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def children(pid: int, program: str) -> list[psutil.Process]:
    """The children of a process that run ``program``; none of those that end meanwhile, and none once the process itself has ended."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended and waits for its parent to ask counts as gone, too
                if program in " ".join(child.cmdline()):
                    found.append(child)
    return found


@dataclass
class Environment:
    """One local environment of a test's own."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return Settings.read({"JUPYTER_CORTEX_HOME": str(self.home), "HOME": os.environ.get("HOME", "/"), **self.variables})

    def up(self) -> Environment:
        local.up(self.settings)
        return self

    def down(self, grace: float = 5.0) -> None:
        local.down(self.settings, grace=grace)

    @property
    def url(self) -> str:
        found = local.find(self.settings)
        assert found is not None
        return found.url

    @property
    def token(self) -> str:
        found = local.find(self.settings)
        assert found is not None
        return found.token

    def client(self) -> Client:
        return Client(Environments(self.settings).find("local"), self.settings)

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=30, **options)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(Home(self.home).redis_url())

    def slot(self, role: str) -> Slot:
        return Slot(Home(self.home).run, role)

    def processes(self, role: str, api: str | None = None) -> list[dict[str, Any]]:
        status = self.client().status()
        return [p for p in status["processes"] if p["role"] == role and (api is None or p["api"] == api)]

    def cortex(self, *arguments: str, cwd: Path | None = None, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the CLI as a person does."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER_CORTEX_")}
        env.update(JUPYTER_CORTEX_HOME=str(self.home), **self.variables)
        done = subprocess.run(
            [sys.executable, "-m", "jupyter_cortex.cli", *arguments],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            **options,
        )
        if check:
            assert done.returncode == 0, f"cortex {' '.join(arguments)} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done


@dataclass
class Project:
    """A project directory with one API, made from source text."""

    directory: Path
    name: str

    def deploy(self, environment: Environment, **options: Any) -> Deployed:
        return environment.client().deploy(self.directory / "cortex.yaml", **options)[0]

    def write(self, handler: str) -> Project:
        (self.directory / "handler.py").write_text(textwrap.dedent(handler))
        return self


ProjectMaker = Callable[..., Project]


@pytest.fixture
def project(tmp_path: Path) -> ProjectMaker:
    """``project(name, handler source, spec text below the entry, **files)`` writes a project directory."""

    def make(name: str = "echo", handler: str = ECHO, spec: str = "", files: dict[str, str | bytes] | None = None, handler_spec: str = "") -> Project:
        directory = tmp_path / f"project-{name}"
        directory.mkdir(exist_ok=True)
        for path, content in (files or {}).items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content if isinstance(content, bytes) else textwrap.dedent(content).encode())
        head = f"- name: {name}\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: handler.py\n"
        below = textwrap.indent(textwrap.dedent(handler_spec).strip("\n"), "    ")
        rest = textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ")
        (directory / "cortex.yaml").write_text("\n".join(part for part in (head.rstrip("\n"), below, rest) if part) + "\n")
        return Project(directory, name).write(handler)

    return make


def _end(environment: Environment) -> None:
    """Stop it, and make sure that nothing of it lives on."""
    environment.down()
    home = str(environment.home)
    for process in psutil.process_iter(["environ", "cmdline", "pid"]):
        # Workers and the store have few variables: a worker's tell where its store is, the store says it in its title.
        variables, title = process.info["environ"] or {}, " ".join(process.info["cmdline"] or [])
        store = f"{variables.get('JUPYTER_CORTEX_WORKER', '')} {title if 'unixsocket:' in title else ''}"
        ours = variables.get("JUPYTER_CORTEX_HOME") == home or f"{home}/run/" in store
        if ours and process.pid != os.getpid():
            process.kill()
    shutil.rmtree(environment.home, ignore_errors=True)


#: Of this process, once a test has asked for it.
_shared: list[Environment] = []


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The environment that tests share; each uses an API name of its own in its file, and kills nobody."""
    made = Environment(tmp_path_factory.mktemp("home", numbered=True) / "cortex").up()
    _shared.append(made)
    yield made
    _shared.remove(made)
    _end(made)


@pytest.fixture(scope="module", autouse=True)
def _file_leaves_no_api() -> Iterator[None]:
    """What a file's tests deployed in the shared environment goes with them: which file comes next in this process is left to chance."""
    yield
    for environment in _shared:
        client = environment.client()
        for api in client.list_apis():
            with contextlib.suppress(ApiNotFound):
                client.delete(api["name"])


@pytest.fixture
def own_environment(tmp_path: Path) -> Iterator[Callable[..., Environment]]:
    """Makes environments for tests that kill, stop or configure: ``own_environment(**settings)``; they are ended with the test."""
    made: list[Environment] = []

    def make(**variables: str) -> Environment:
        environment = Environment(tmp_path / f"home{len(made)}", {f"JUPYTER_CORTEX_{key.upper()}": value for key, value in variables.items()})
        made.append(environment)
        return environment.up()

    yield make
    for environment in made:
        _end(environment)


@pytest.fixture(params=["embedded", "redis-server"])
def store_server(request: pytest.FixtureRequest) -> str:
    """Both servers that the embedded store may be: the wheel's Valkey ("") and Debian's redis-server."""
    if request.param == "redis-server":
        found = shutil.which("redis-server")
        if found is None:
            missing("redis-server is not on PATH: `apt-get install redis-server`")
        return str(found)
    return ""
