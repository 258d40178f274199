"""Artifacts at an fsspec URL (``s3://bucket/path``, ``file:///shared/path``, …): the one place that knows fsspec.

The URL may hold a password, and so may the errors of whoever speaks its protocol: our sentences say the protocol and the kind of the error only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ArtifactsUnavailable, EnvironmentProblem

#: Bytes of one part of an upload: 5 MiB is S3's least, and 10,000 parts its most.
PART = 16 << 20
#: Keys and settings of fsspec and of the clouds that it reaches.
ENVIRON = ("FSSPEC_", "AWS_", "GOOGLE_", "AZURE_")
#: What to install for a protocol when fsspec itself is not there to say so.
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "sftp": "paramiko"}


def environ(url: str, source: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that open the place, {} without a URL: for our own processes, never for replicas."""
    variables = os.environ if source is None else source
    return {key: value for key, value in variables.items() if url and key.startswith(ENVIRON)}


class Remote:
    """Contents below one URL, laid out as in the directory. Methods raise ArtifactsUnavailable; `check` says what kind of URL it must be."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._protocol = url.partition("://")[0][:20]
        self._opened: tuple[Any, str] | None = None

    def check(self) -> None:
        """Raises EnvironmentProblem when it is no URL, or its package is not installed; that nobody answers there now is none."""
        with contextlib.suppress(ArtifactsUnavailable):
            self._open()

    def size(self, sha256: str) -> int | None:
        fs, path = self._place(sha256)
        with self._errors():
            fs.invalidate_cache()
            try:
                return int(fs.info(path)["size"])
            except FileNotFoundError:
                return None

    def read(self, sha256: str, write: Callable[[bytes], None], chunk: int) -> None:
        """Hand the content over piece by piece. Raises EnvironmentProblem when it is not there."""
        fs, path = self._place(sha256)
        with self._errors():
            try:
                file = fs.open(path, "rb", block_size=PART)
            except FileNotFoundError:
                raise EnvironmentProblem(f"its content ({sha256[:12]}…) is not at the URL of JUPYTER_CORTEX_ARTIFACTS; deploy again") from None
        with file:
            while True:
                with self._errors():
                    data = file.read(chunk)
                if not data:
                    return
                write(data)

    def write(self, sha256: str, source: Path, chunk: int) -> None:
        """Copy a file there, under another name first: not every protocol shows a file only when it is whole."""
        fs, path = self._place(sha256)
        staging = f"{path}.{secrets.token_hex(4)}.part"
        with self._errors():
            self._make_directories(fs, path)
            try:
                with source.open("rb") as file, fs.open(staging, "wb", block_size=PART) as target:
                    while data := file.read(chunk):
                        target.write(data)
                fs.mv(staging, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    fs.rm(staging)
                raise

    def _make_directories(self, fs: Any, path: str) -> None:
        """The URL's own and the one below it, but none above: no bucket of a mistyped name, nothing where a share is not mounted."""
        below = path.rpartition("/")[0]
        for directory in (below.rpartition("/")[0], below):
            if "/" in directory.strip("/"):
                with contextlib.suppress(OSError, NotImplementedError):  # it is there, or there is no such thing as a directory
                    fs.mkdir(directory, create_parents=False)

    def remove(self, sha256: str) -> None:
        fs, path = self._place(sha256)
        with self._errors(), contextlib.suppress(FileNotFoundError):
            fs.rm(path)

    def _place(self, sha256: str) -> tuple[Any, str]:
        fs, root = self._open()
        return fs, f"{root.rstrip('/')}/{sha256[:2]}/{sha256}"

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            self._opened = self._connect()
        return self._opened

    def _connect(self) -> tuple[Any, str]:
        if "://" not in self._url:
            raise EnvironmentProblem("JUPYTER_CORTEX_ARTIFACTS must be a URL, such as s3://bucket/path or file:///shared/path")
        try:
            import fsspec
        except ImportError:
            raise self._missing(PACKAGES.get(self._protocol, "")) from None
        try:
            fs, root = fsspec.core.url_to_fs(self._url)
        except ImportError as error:
            raise self._missing(getattr(error.__cause__, "name", "") or PACKAGES.get(self._protocol, self._protocol)) from None
        except ValueError:
            raise EnvironmentProblem(f"JUPYTER_CORTEX_ARTIFACTS: fsspec knows no protocol {self._protocol}://") from None
        except Exception as error:
            raise self._trouble(error) from None
        return fs, str(root)

    def _missing(self, package: str) -> EnvironmentProblem:
        line = " ".join(["pip install 'jupyter-cortex[artifacts]'", *([package] if package else [])])
        return EnvironmentProblem(f"JUPYTER_CORTEX_ARTIFACTS is a URL of {self._protocol}://, which this Python cannot use: `{line}`")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (ArtifactsUnavailable, EnvironmentProblem):
            raise
        except Exception as error:  # each protocol has errors of its own
            raise self._trouble(error) from None

    def _trouble(self, error: Exception) -> ArtifactsUnavailable:
        # The system's word for a number; the words that came with it may hold the URL.
        reason = os.strerror(error.errno) if isinstance(error, OSError) and isinstance(error.errno, int) else type(error).__name__
        return ArtifactsUnavailable(f"the URL of JUPYTER_CORTEX_ARTIFACTS ({self._protocol}://…) cannot be used now: {reason}")
