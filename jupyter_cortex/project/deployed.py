"""A deployed version on the author's machine: its bundle unpacked, what differs from the project as it is, and its module, imported beside it."""

from __future__ import annotations

import filecmp
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import ProjectError
from ..handler import loading, origin
from . import artifacts, bundle
from .files import megabytes

#: An artifact above this is compared by its size alone.
COMPARED_BYTES = 256 * 1024 * 1024


class Deployed:
    """One version: ``project`` is its root, as a replica has it. The directory goes with this object.

    ``spec``: the deployment's. Raises ProjectError for a bundle that cannot be unpacked.
    """

    def __init__(self, data: bytes, spec: dict[str, Any]) -> None:
        self.spec = spec
        self._directory = tempfile.TemporaryDirectory(prefix="cortex-version-")
        unpacked = Path(self._directory.name).resolve() / "version"
        self.names = bundle.unpack(data, unpacked)
        self.project = unpacked / "project"

    @property
    def module(self) -> str:
        """The handler module's path below the project."""
        return str(self.spec["handler"]["path"])

    def close(self) -> None:
        self._directory.cleanup()

    # What differs ------------------------------------------------------------------------------------------------------------------------

    def differing(self, root: Path) -> list[str]:
        """Sentences on files of the version that ``root`` has otherwise or not at all. A module that was made from a notebook is no file."""
        told = []
        from_notebook = (self.project.parent / "meta" / origin.LINE_MAP).is_file()
        for name in self.names:
            if from_notebook and name == self.module:
                continue
            if not (root / name).is_file():
                told.append(f"{name} of that version is not here")
            elif not _same(self.project / name, root / name):
                told.append(f"{name} differs")
        for item in self.spec.get("artifacts") or ():
            if sentence := _artifact(item, root):
                told.append(sentence)
        return told

    def link_artifacts(self, root: Path) -> None:
        """Put the author's files in the places of the version's artifacts, whose contents stay where replicas run. Raises ProjectError."""
        for item in self.spec.get("artifacts") or ():
            path = str(item["path"])
            if os.path.lexists(self.project / path):
                continue
            if not (root / path).is_file():
                sentence = f"the artifact {path} ({megabytes(item.get('bytes') or 0)}) does not travel with the bundle, and {root} has no such file"
                raise ProjectError(f"{sentence}; put it there", kind="artifact_missing", path=path)
            artifacts.link_into({path: root / path}, self.project)

    # Its module --------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def imported(self) -> Iterator[type]:
        """The version's class, with its import path, environment and line map for as long as it is used; then all of it is taken back.

        Modules that the project brings are its own while it runs and the kernel's afterwards. Raises HandlerError as `load_class` does.
        """
        section = self.spec["handler"]
        own = {name.partition("/")[0].removesuffix(".py") for name in self.names if name.endswith(".py")} | {loading.MODULE}
        path, env, put_aside = list(sys.path), dict(os.environ), _take(own)
        before = origin.used()
        origin.use_map(self.project, self.module)
        os.environ.update(section.get("env") or {})
        try:
            yield loading.load_class(self.project, self.module, section.get("python_path"))
        finally:
            origin.use(*before)
            _take(own)
            sys.modules.update(put_aside)
            sys.path[:] = path
            for name in set(os.environ) - set(env):
                del os.environ[name]
            os.environ.update(env)


def _take(names: set[str]) -> dict[str, Any]:
    """Take the modules of these top-level names out of `sys.modules`."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names}


def _same(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _artifact(item: dict[str, Any], root: Path) -> str:
    """What differs of one artifact, in words; "" when nothing does."""
    path = str(item["path"])
    if not (root / path).is_file():
        return f"the artifact {path} of that version is not here"
    size = (root / path).stat().st_size
    if item.get("bytes") not in (None, size):
        return f"the artifact {path} differs"
    if size > COMPARED_BYTES or not item.get("sha256"):
        return ""
    content = artifacts.read([{"artifacts": [path]}], {path: root / path})[path]
    return "" if content.sha256 == item["sha256"] else f"the artifact {path} differs"
