"""The other task queues: an environment for each, made on demand and kept; a worker; a process that enqueues.

``peers/common.py`` says what a peer is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from stage import PEERS, Stage

sys.path.append(str(PEERS))
from common import ENTRY, dependencies

#: Kept between runs: making all of them takes a minute or two. Removed, they are made anew with what is newest then.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jupyter-cortex" / "benchmarks"
OURS = "cortex"
INSTALL_S = 600


class Peer:
    """One file ``peers/on_<name>.py``. ``<name>_full`` keeps a record with status and result of each request; the others keep nothing."""

    def __init__(self, name: str, environments: Path) -> None:
        self.name, self._environments = name, environments
        self.path = PEERS / f"on_{name}.py"
        self.label = name.replace("_full", " with records and results")

    @cached_property
    def python(self) -> str:
        """The interpreter of its environment. Raises RuntimeError saying what could not be installed."""
        wanted = dependencies(self.path)
        if self.name == OURS:
            return sys.executable
        digest = hashlib.sha256(json.dumps([wanted, sys.version]).encode()).hexdigest()[:12]
        directory = self._environments / f"{self.name.removesuffix('_full')}-{digest}"
        python, complete = directory / "bin" / "python", directory / "complete"
        if not complete.exists():
            print(f"making an environment for {self.label}", file=sys.stderr, flush=True)
            shutil.rmtree(directory, ignore_errors=True)
            _run("make an environment", sys.executable, "-m", "venv", str(directory))
            _run(f"install {' '.join(wanted)}", str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)
            complete.touch()
        return str(python)

    def versions(self) -> str:
        """What was measured: ``huey 3.5.4, redis 8.1.0``."""
        said = subprocess.run([self.python, self.path, "versions"], env=_environment(), capture_output=True, text=True, check=True).stdout
        return ", ".join(f"{name} {version}" for name, version in json.loads(said).items())

    @contextmanager
    def worker(self, stage: Stage) -> Iterator[None]:
        with stage.process(str(self.path), "worker", python=self.python, PEER_NOTES=str(self.notes(stage))):
            yield

    @contextmanager
    def enqueuer(self, stage: Stage, **variables: str) -> Iterator[Enqueuer]:
        stage.peer_redis()
        env = _environment(**{"PEER_REDIS": stage.peer_url, "PEER_NOTES": str(self.notes(stage)), **variables})
        with open(stage.directory / "peers.log", "ab") as log:
            process = subprocess.Popen([self.python, self.path, "enqueue"], env=env, cwd=stage.directory, text=True, stdin=-1, stdout=-1, stderr=log)
        try:
            yield Enqueuer(self.label, process)
        finally:
            process.kill()
            process.communicate()

    def notes(self, stage: Stage) -> Path:
        return stage.directory / f"notes-{self.name}"

    def entered(self, stage: Stage) -> dict[int, float]:
        """When each task was entered, by its number."""
        path = self.notes(stage)
        raw = path.read_bytes() if path.exists() else b""
        return dict(ENTRY.iter_unpack(raw[: len(raw) // ENTRY.size * ENTRY.size]))

    def count_entered(self, stage: Stage) -> int:
        path = self.notes(stage)
        return path.stat().st_size // ENTRY.size if path.exists() else 0

    def forget(self, stage: Stage) -> None:
        self.notes(stage).unlink(missing_ok=True)


class Enqueuer:
    """The process that enqueues, ready and waiting."""

    def __init__(self, label: str, process: subprocess.Popen[str]) -> None:
        self._label, self._process = label, process

    def enqueue(self, first: int, count: int = 1) -> tuple[float, float]:
        """Enqueue tasks numbered from ``first``; the times before and after."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{first} {count}\n")
            self._process.stdin.flush()
            began, ended = self._process.stdout.readline().split()
        except (OSError, ValueError) as error:
            raise RuntimeError(f"{self._label} cannot enqueue; what it said is at the end of peers.log") from error
        return float(began), float(ended)


def all_peers(environments: Path) -> list[Peer]:
    names = sorted(path.stem.removeprefix("on_") for path in PEERS.glob("on_*.py"))
    return [Peer(name, environments) for name in names if name != OURS]


def versions(environments: Path) -> list[str]:
    """What all of them are, one text for each environment; makes those that are missing. Raises RuntimeError when one cannot be made."""
    return [peer.versions() for peer in all_peers(environments) if not peer.name.endswith("_full")]


def _environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PEERS), "PEER_REDIS": "redis://nowhere", **variables}


def _run(what: str, *argv: str) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"could not {what} within {INSTALL_S} s; is there a package index that pip reaches?") from None
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")] or done.stderr.strip().splitlines() or ["nothing"]
        raise RuntimeError(f"could not {what}: pip said {said[-1]!r}. The peers need a package index that pip reaches")
