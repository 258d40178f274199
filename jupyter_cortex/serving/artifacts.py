"""Where the content of artifacts lies: by its sha256, in a directory of this machine and, where a URL says so, at a place that all machines reach.

::

    <directory>/<first two digits>/<sha256>     0444, its time set to STAMP
    <directory>/incoming-….part                 what is still on its way

A project gets its artifacts as **hard links** to these files. A hard link is an ordinary file at its path (nothing resolves to outside of the
project), keeps its content when the store forgets it, and costs no disk; a symbolic link would dangle, a copy would double 400 MB. Where the file
system has no hard links it is a copy. The mode 0444 refuses a handler that writes, but not one that runs as root; so the time of a content is a
constant, a write changes it, and what was touched is checked against its digest before anybody gets it again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..core.errors import ArtifactsUnavailable, EnvironmentProblem, Refused
from .remote import Remote

#: Bytes that are held in memory at a time; smaller pieces spend more on calls than on the disk (64 KiB: 0.9 GB/s, 1 MiB: 1.3 GB/s with sha256).
CHUNK = 1 << 20
#: The time of modification of every content, 1980 as in a bundle.
STAMP = 315_532_800
#: What lies about unused, or half, for longer than this is removed.
DAY_S = 86_400.0


class Artifacts:
    """The contents of one machine. ``url``: where all machines find them ("" = in ``directory`` only). Methods may raise ArtifactsUnavailable."""

    def __init__(self, directory: Path, url: str = "") -> None:
        self.directory = directory
        self.remote = Remote(url) if url else None

    def check(self) -> None:
        """Raises EnvironmentProblem when the URL is none that this Python can use, with the line that helps."""
        if self.remote is not None:
            self.remote.check()

    def held(self, sha256: str) -> int | None:
        """Bytes of a content that every machine can get, None when it is not there."""
        if self.remote is not None:
            return self.remote.size(sha256)
        path = self._local(sha256)
        return path.stat().st_size if path else None

    def receive(self) -> Incoming:
        """A new content, to be written piece by piece and then kept; it is gone when it is not."""
        return Incoming(self)

    def fetch(self, sha256: str) -> Path:
        """The file with this content, fetched if it is not on this machine yet. Raises EnvironmentProblem when it cannot come here."""
        path = self._local(sha256)
        if path is not None:
            return path
        if self.remote is None:
            raise EnvironmentProblem(
                f"its content ({sha256[:12]}…) is not in {self.directory}. On the gateway's machine: deploy again, which uploads it. On another "
                "machine: set JUPYTER_CORTEX_ARTIFACTS on both to a URL that both reach (s3://bucket/path, file:///shared/path), and deploy again"
            )
        self._make(self.directory)
        with _locked(self.directory / "lock"):  # two workers that want the same 400 MB: one fetches, the other waits
            path = self._local(sha256)
            if path is not None:
                return path
            with self.receive() as incoming:
                self.remote.read(sha256, incoming.write, CHUNK)
                return incoming.keep(sha256, upload=False)

    def place(self, sha256: str, target: Path) -> None:
        """Make the content appear at ``target``; does nothing when it is there. Raises EnvironmentProblem."""
        content = self.fetch(sha256)
        try:
            if target.exists() and target.samefile(content):
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = target.with_name(f".{sha256[:12]}-{os.getpid()}.part")
            staging.unlink(missing_ok=True)
            try:
                os.link(content, staging)
            except OSError:  # no hard links here, or too many of this one
                shutil.copyfile(content, staging)
                staging.chmod(0o444)
            staging.replace(target)
        except OSError as error:
            raise ArtifactsUnavailable(f"it cannot be put into {target.parent}: {error.strerror}") from error

    def remove(self, sha256: str) -> None:
        """Forget a content. Projects that have it as a hard link keep it."""
        if self.remote is not None:
            self.remote.remove(sha256)
        self.path(sha256).unlink(missing_ok=True)

    def tidy(self, *, unused: bool) -> None:
        """Remove what a process that died left half; with ``unused``, also each content that no project here has and had for a day.

        Only for a directory that is a cache: making and ending a link sets a file's ctime, so that it says when the last one did.
        """
        now = time.time()
        with contextlib.suppress(OSError):
            for path in self.directory.glob("incoming-*.part"):
                if now - path.stat().st_mtime > DAY_S:
                    path.unlink(missing_ok=True)
            for path in self.directory.glob("??/*") if unused else ():
                status = path.stat()
                if status.st_nlink == 1 and now - status.st_ctime > DAY_S:
                    path.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        return self.directory / sha256[:2] / sha256

    def _local(self, sha256: str) -> Path | None:
        """The file in our directory, if it is there and still what it was."""
        path = self.path(sha256)
        try:
            if int(path.stat().st_mtime) == STAMP:
                return path
            with path.open("rb") as file:
                unchanged = hashlib.file_digest(file, "sha256").hexdigest() == sha256
            if unchanged:
                _seal(path)
                return path
            path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ArtifactsUnavailable(f"{path} cannot be read: {error.strerror}") from error
        return None

    def _make(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ArtifactsUnavailable(f"{directory} cannot be made: {error.strerror}") from error


class Incoming:
    """One content on its way: a temporary file that is hashed while it is written."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._hash = hashlib.sha256()
        artifacts._make(artifacts.directory)
        try:
            fd, name = tempfile.mkstemp(prefix="incoming-", suffix=".part", dir=artifacts.directory)
        except OSError as error:
            raise self._full(error) from error
        self._file: BinaryIO = os.fdopen(fd, "wb", buffering=0)
        self._path = Path(name)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Raises ArtifactsUnavailable when the disk does not take it."""
        view = memoryview(data)
        self._hash.update(view)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._full(error) from error

    def keep(self, sha256: str, *, upload: bool = True) -> Path:
        """Move it to its place, and to the URL. Raises Refused when it is not what was said."""
        found = self._hash.hexdigest()
        if found != sha256:
            raise Refused(f"the content's sha256 is {found[:12]}…, not {sha256[:12]}… as said; it was damaged or changed on the way, send it again")
        place = self._artifacts.path(sha256)
        try:
            os.fsync(self._file.fileno())
            _seal(self._path)
            if upload and self._artifacts.remote is not None:
                self._artifacts.remote.write(sha256, self._path, CHUNK)
            self._artifacts._make(place.parent)
            self._path.replace(place)
            _sync_directory(place.parent)
        except OSError as error:
            raise self._full(error) from error
        return place

    def _full(self, error: OSError) -> ArtifactsUnavailable:
        """No address, no number of a file descriptor: where it is, and what the system says."""
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        return ArtifactsUnavailable(f"{self._artifacts.directory} does not take the artifact: {reason}; make room there, nothing was changed")


def _seal(path: Path) -> None:
    path.chmod(0o444)
    os.utime(path, (STAMP, STAMP))


def _sync_directory(directory: Path) -> None:
    """A rename is on the disk only when its directory is."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ArtifactsUnavailable(f"{path} cannot be locked: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
