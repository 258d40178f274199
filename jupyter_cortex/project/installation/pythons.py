"""The Pythons of one machine that were made for projects: each made once, shared by all versions with the same needs, and removed when none has them.

::

    <directory>/<digest>.lock             held by who makes it, and by the processes that he started for it
    <directory>/<digest>/python/          the virtual environment, or conda's prefix
    <directory>/<digest>/complete.json    written last: without it there is nothing
    <directory>/<digest>/build.log        what the commands said
    <directory>/<digest>/users/<api>-v<version>

It is made in its place rather than beside it and renamed: scripts begin with the path of their Python, and conda writes its prefix into binaries.
What a kill leaves half made has no `complete.json`, and the next who needs it begins anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from ...core.errors import ArtifactsUnavailable, InstallationFailed
from .needs import Needs
from .running import Abandoned, Means, activated, shown

__all__ = ["Abandoned", "Python", "Pythons"]

Tell = Callable[[str], None]
#: What no version needs goes when it has not been used for so long: between checks and deploy, and between two tries, it is nobody's.
DAY_S = 86_400.0
#: Seconds between two looks whether another process is done with making it.
LOOK_S = 0.1
#: Lines of a log that whoever shares what was made before is shown.
SHOWN_LINES = 200
#: What is kept of what an installation prints; it may print as fast as a disk writes.
LOG_BYTES = 16 << 20


@dataclass(frozen=True)
class Python:
    """One that is complete. ``program``: what runs replicas; ``kind``: layered, locked or conda; ``interpreter``: what it is layered on; ``fresh``:
    who got it has made it."""

    digest: str
    prefix: Path
    kind: str
    interpreter: str
    fresh: bool = False

    @property
    def program(self) -> str:
        return str(self.prefix / "bin" / "python")

    def environ(self, env: Mapping[str, str]) -> dict[str, str]:
        """Variables for what runs on it: its programs come first, and Jupyter's data (kernels, templates) is found where the interpreter has it."""
        data = [str(Path(self.interpreter).parent.parent / "share" / "jupyter"), *filter(None, [env.get("JUPYTER_PATH")])]
        return {**env, "PATH": activated(env, self.prefix)["PATH"], "JUPYTER_PATH": os.pathsep.join(data)}

    def own(self) -> set[str]:
        """Canonical names of the distributions that lie in it, rather than in the interpreter below."""
        names = (path.name.partition("-")[0] for path in self.prefix.glob("lib/python*/site-packages/*.dist-info"))
        return {name.lower().replace("_", "-").replace(".", "-") for name in names}

    def log(self) -> list[str]:
        with contextlib.suppress(OSError):
            return (self.prefix.parent / "build.log").read_text("utf-8", "replace").splitlines()[-SHOWN_LINES:]
        return []


class Pythons:
    def __init__(self, directory: Path, seconds: float) -> None:
        self.directory, self.seconds = directory, seconds

    def find(self, needs: Needs) -> Python | None:
        """The one with these needs, if it is complete."""
        prefix = self.directory / needs.digest / "python"
        if not self._mark(needs.digest).is_file() or not (prefix / "bin" / "python").exists():
            return None
        with contextlib.suppress(OSError):
            os.utime(self._mark(needs.digest))
        return Python(needs.digest, prefix, needs.kind, needs.interpreter)

    def get(self, needs: Needs, env: Mapping[str, str], tell: Tell, abandon: Event | None = None, user: str = "") -> Python:
        """The one with these needs, made if it is not there; each line that is said meanwhile goes to ``tell``.

        ``env``: variables for its commands. ``user``: the version that keeps it (see `users`). Raises InstallationFailed, RequirementsError,
        EnvironmentProblem for what cannot be made, ArtifactsUnavailable where there is no room, Abandoned.
        """
        try:
            return self._get(needs, env, tell, abandon or Event(), user)
        except OSError as error:
            raise ArtifactsUnavailable(f"{self.directory} cannot hold what the project needs: {error.strerror}") from error

    def _get(self, needs: Needs, env: Mapping[str, str], tell: Tell, abandon: Event, user: str) -> Python:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = self.find(needs)  # without the lock: what dependencies.sh has left running may hold that for ever
        if found is None:
            with self._locked(needs.digest, abandon, time.monotonic() + self.seconds, tell) as lock:
                found = self.find(needs) or self._make(needs, Means(env, tell, time.monotonic() + self.seconds, self.seconds, abandon, lock))
        if user:
            users = self.directory / needs.digest / "users"
            users.mkdir(exist_ok=True)
            (users / user).touch()
        return found

    @contextlib.contextmanager
    def _locked(self, digest: str, abandon: Event, deadline: float, tell: Tell) -> Iterator[int]:
        import fcntl  # the client's side runs on Windows, too, which has none

        fd = os.open(self.directory / f"{digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            waited = False
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waited:
                        tell("somebody else installs the same already; waiting for that")
                    waited = True
                if abandon.is_set():
                    raise Abandoned
                if time.monotonic() > deadline:
                    raise InstallationFailed(f"somebody else has been installing the same for more than {self.seconds:.0f} s")
                time.sleep(LOOK_S)
            yield fd
        finally:
            os.close(fd)

    def _make(self, needs: Needs, means: Means) -> Python:
        from . import steps  # its libraries take 30 ms, and most workers have nothing to make

        place = self.directory / needs.digest
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        began = time.monotonic()
        told = means.tell
        try:
            with (place / "build.log").open("w", encoding="utf-8", errors="replace") as log:

                def tell(line: str) -> None:
                    if log.tell() < LOG_BYTES:
                        log.write(line[:LOG_BYTES] + "\n")
                    told(line)

                means.tell = tell
                steps.make(needs, place / "python", means)
                tell(f"installed in {time.monotonic() - began:.1f} s ({needs.kind}, {needs.digest})")
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        facts = {"digest": needs.digest, "kind": needs.kind, "interpreter": needs.interpreter, "made": int(time.time())}
        mark = self._mark(needs.digest).with_suffix(".part")
        mark.write_text(json.dumps(facts))
        mark.replace(self._mark(needs.digest))
        return Python(needs.digest, place / "python", needs.kind, needs.interpreter, fresh=True)

    def _mark(self, digest: str) -> Path:
        return self.directory / digest / "complete.json"

    # Pruning -----------------------------------------------------------------------------------------------------------------------------

    def users(self) -> dict[str, set[str]]:
        """Digest -> the versions (``<api>-v<version>``) that run on it, or did; a half-made one has none."""
        return {path.name: _names(path / "users") for path in self._places()}

    def _places(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from (path for path in self.directory.iterdir() if path.is_dir())

    def prune(self, needed: Iterable[str] | None, now: float) -> list[str]:
        """Remove what no version in ``needed`` keeps and nobody has used for a day at ``now`` (s since the epoch); the digests removed.

        ``needed``: None where it is not known which versions there are; then only what never had one goes.
        """
        kept = None if needed is None else set(needed)
        removed = []
        for digest, users in self.users().items():
            if users if kept is None else users & kept:
                continue
            mark, place = self._mark(digest), self.directory / digest
            with contextlib.suppress(OSError, Abandoned, InstallationFailed), self._locked(digest, _now(), 0.0, lambda line: None):
                last = (mark if mark.exists() else place).stat().st_mtime
                if now - last > DAY_S:
                    mark.unlink(missing_ok=True)  # first of all: what is half gone is not there
                    shutil.rmtree(place, ignore_errors=True)
                    removed.append(digest)
        return removed


def _names(directory: Path) -> set[str]:
    with contextlib.suppress(OSError):
        return {path.name for path in directory.iterdir()}
    return set()


def _now() -> Event:
    """For who does not wait for a lock."""
    abandoned = Event()
    abandoned.set()
    return abandoned


def facts(python: Python | None) -> dict[str, Any]:
    """What a worker says of the Python that its replicas run on; {} for the interpreter itself."""
    return {"digest": python.digest, "kind": python.kind} if python else {}


def masked_progress(progress: Tell) -> Tell:
    """``progress`` with each line as a step of a deploy."""
    return lambda line: progress(f"installing: {shown(line)[:160]}")
