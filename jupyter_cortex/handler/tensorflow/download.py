"""Models at an fsspec URL (``s3://bucket/iris``): copied to this machine once, and again when they change there.

::

    <cache>/<of the URL>/<of the listing>/content/…     the files
    <cache>/<of the URL>/<of the listing>/whole.json    their sha256, size and time when all had come; what differs from it is fetched again

Credentials come from the environment (``AWS_…`` in ``.env``), never from the URL, and no error of a cloud's library is shown: it may hold them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_cortex.core.checks import is_portable

from .. import logs
from .models import ModelProblem

#: What to install for a protocol.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "sftp": "paramiko"}
#: Copies that nobody has used for so long are removed (s).
UNUSED_S = 7 * 86_400.0
#: A model that changes while it is fetched is fetched again, so often.
TRIES = 3


def cache_directory() -> Path:
    """Below ``XDG_CACHE_HOME``, by default ``~/.cache``: one per user and machine, for kernels and replicas alike."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jupyter-cortex" / "models"


def local_copy(url: str, cache: Path | None = None) -> Path:
    """The directory of this machine with what is at ``url`` now. Raises ModelProblem.

    When nobody answers there, the newest copy that is here is used, and a warning logged.
    """
    place = (cache or cache_directory()) / hashlib.sha256(url.encode()).hexdigest()[:16]
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(place / "lock"):  # replicas start together: one fetches, the others wait
            return _current(url, place)
    except OSError as error:
        raise ModelProblem(f"{place} cannot hold a copy of {url}: {error.strerror}; make room there, or set XDG_CACHE_HOME") from error


def _current(url: str, place: Path) -> Path:
    try:
        fs, root = _connect(url)
        for _ in range(TRIES):
            listing = _listing(fs, root, url)
            copy = place / hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()[:16]
            if _whole(copy):
                break
            _fetch(fs, root, url, listing, copy)
            if _listing(fs, root, url) == listing:
                break
            shutil.rmtree(copy)
        else:
            raise ModelProblem(f"{url} changes while it is copied; deploy again when it is written")
    except _Away as away:
        copies = sorted(place.glob("*/whole.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        found = next((path.parent for path in copies if _whole(path.parent)), None)
        if found is None:
            raise ModelProblem(str(away)) from None
        copy = found
        logs.logger.warning("%s; the copy of it that is on this machine is used", away)
    _forget(place, copy)
    return copy / "content"


class _Away(Exception):
    """Nobody answers, in a sentence."""


def _connect(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0]
    try:
        import fsspec
    except ImportError:
        raise _lacking(url, " ".join(dict.fromkeys(["fsspec", PACKAGES.get(protocol, "fsspec")]))) from None
    try:
        # A new one each time: kernels live long, and credentials and listings change.
        fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    except ImportError:
        raise _lacking(url, PACKAGES.get(protocol, f"what fsspec needs for {protocol}://")) from None
    except ValueError:
        raise ModelProblem(f"{url}: fsspec knows no protocol {protocol}://; use s3://…, another of its protocols, or a directory") from None
    except Exception as error:
        raise _Away(f"{url} cannot be reached: {_reason(error)}") from None
    return fs, str(root).rstrip("/")


def _lacking(url: str, packages: str) -> ModelProblem:
    return ModelProblem(f"{url} needs {packages}: add it to requirements.txt, or `{sys.executable} -m pip install {packages}`")


@contextlib.contextmanager
def _asking(url: str) -> Iterator[None]:
    try:
        yield
    except (ModelProblem, _Away):
        raise
    except FileNotFoundError:
        raise ModelProblem(f"there is nothing at {url}; upload the model, or correct handler.models") from None
    except Exception as error:  # each protocol has errors of its own
        if isinstance(error, PermissionError) or "credential" in type(error).__name__.lower():
            raise ModelProblem(f"{url}: access is denied; put the credentials into .env (for s3 AWS_ACCESS_KEY_ID and so on)") from None
        raise _Away(f"{url} cannot be read now: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """The system's word for a number, else the kind of the error; the words that came with it may hold secrets."""
    return os.strerror(error.errno) if isinstance(error, OSError) and isinstance(error.errno, int) else type(error).__name__


def _listing(fs: Any, root: str, url: str) -> dict[str, list[Any]]:
    """Path below the root -> size and what changes when its content does. Raises ModelProblem when there is nothing."""
    with _asking(url):
        fs.invalidate_cache()
        found = fs.find(root, detail=True)
    listing: dict[str, list[Any]] = {}
    for name, info in found.items():
        path = str(name).removeprefix(root).lstrip("/")
        if info.get("type") != "file" or not path or path.endswith("/"):
            continue  # a bucket's stand-in for a directory
        if not is_portable(path):
            raise ModelProblem(f"{url} holds a file that cannot be copied: {path[:100]!r}; rename it")
        marks = (info.get(key) for key in ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime", "last_modified"))
        listing[path] = [int(info.get("size") or 0), str(next((mark for mark in marks if mark), ""))]
    if not listing:
        raise ModelProblem(f"there is nothing at {url}; upload the model, or correct handler.models")
    return listing


def _fetch(fs: Any, root: str, url: str, listing: dict[str, list[Any]], copy: Path) -> None:
    """All files into a directory of another name first: what stands at ``copy`` is whole."""
    staging = copy.with_name(f"incoming-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    logs.logger.info("copying %s (%d files, %d bytes) to this machine", url, len(listing), sum(size for size, _ in listing.values()))
    try:
        for path, (size, _) in listing.items():
            target = staging / "content" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with _asking(url):
                fs.get_file(f"{root}/{path}", str(target))
            if target.stat().st_size != size:
                raise _Away(f"{url}/{path} came with {target.stat().st_size} of {size} bytes")
        manifest = {path: [_sha256(staging / "content" / path), *_state(staging / "content" / path)] for path in listing}
        (staging / "whole.json").write_text(json.dumps(manifest))
        shutil.rmtree(copy, ignore_errors=True)
        staging.replace(copy)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _whole(copy: Path) -> bool:
    """Whether every file is as it came; one that was touched since is read to see."""
    try:
        manifest = json.loads((copy / "whole.json").read_bytes())
        os.utime(copy / "whole.json")  # when it was last of use
        return all(
            _state(copy / "content" / path) == state or _sha256(copy / "content" / path) == digest for path, (digest, *state) in manifest.items()
        )
    except (OSError, ValueError):
        return False


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _forget(place: Path, used: Path) -> None:
    """Remove copies of what was at the URL before, once no replica has started with them for a while."""
    with contextlib.suppress(OSError):
        for other in place.iterdir():
            mark = other / "whole.json"
            if other.is_dir() and other != used and time.time() - (mark if mark.exists() else other).stat().st_mtime > UNUSED_S:
                shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # POSIX, where replicas run

    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
