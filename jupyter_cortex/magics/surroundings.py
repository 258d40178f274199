"""What a replica has around its Handler, in this kernel: the spec's env and ``.env``, the import path, the log level, the working directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import CortexError, EnvFileError, NotebookError
from ..handler import loading, logs, masking

CONFIG, ENV_FILE = "cortex.yaml", ".env"


class Surroundings:
    """Applied to the process and taken back. ``stream``: where readable log lines go."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._before: dict[str, str | None] = {}
        self._stamp: Any = None
        self._path: list[str] = []
        self._problem: CortexError | None = None
        #: Counts up whenever something was applied anew: a Handler that was constructed before is out of date.
        self.generation = 0

    def apply(self, root: Path, api: str | None) -> None:
        """Apply the project's files as they are now; nothing is done when they have not changed.

        Raises EnvFileError, SpecError, NotebookError (several APIs and none chosen) at every call until it is mended.
        """
        stamp = (root, api, _stamp(root / CONFIG), _stamp(root / ENV_FILE))
        if stamp != self._stamp:
            self._stamp = stamp
            self._problem = None
            self.restore()
            self.generation += 1
            try:
                self._apply(root, api)
            except CortexError as error:
                self._problem = error
        if self._problem is not None:
            raise self._problem

    def _apply(self, root: Path, api: str | None) -> None:
        section, undecided = _section(root, api)
        env = _env(section)
        secrets = _secrets(root, env)
        masking.mask(secrets.values())
        for name, value in {**env, **secrets}.items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value
        python_path = section.get("python_path")
        if isinstance(python_path, str):
            before = list(sys.path)
            # As in a replica: the root first, so that a name which is in both directories means the same file there and here.
            loading.set_import_path(root.resolve(), python_path)
            self._path = [entry for entry in sys.path if entry not in before]
        level = section.get("log_level")
        logs.setup_notebook(self._stream, level if isinstance(level, str) else "info")
        if undecided is not None:
            raise undecided

    def restore(self) -> None:
        for name, before in self._before.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
        self._before.clear()
        sys.path[:] = [entry for entry in sys.path if entry not in self._path]
        self._path = []


def _section(root: Path, api: str | None) -> tuple[dict[str, Any], NotebookError | None]:
    """``handler`` of the API that the notebook is; {} and the reason where several are there and none is chosen."""
    if not (root / CONFIG).is_file():
        return {}, None
    from ..core.errors import SpecError
    from ..project import from_notebook

    try:
        section = from_notebook.entry_of(root, api).get("handler") or {}
    except NotebookError as error:
        return {}, error
    if not isinstance(section, dict):
        raise SpecError(f"{CONFIG}: handler must be a map; write its keys below it", path="handler", kind="type")
    return section, None


def _env(section: dict[str, Any]) -> dict[str, str]:
    from ..core.checks import check_env
    from ..core.errors import SpecError
    from ..core.readers import FieldError

    try:
        return dict(check_env(section.get("env") or {}))
    except FieldError as error:
        place = ".".join(part for part in ("handler.env", error.path) if part)
        raise SpecError(f"{CONFIG}: {place}: {error.sentence}", path=place, kind=error.kind) from None


def _secrets(root: Path, env: dict[str, str]) -> dict[str, str]:
    if not (root / ENV_FILE).is_file():
        return {}
    from ..project import dotenv

    try:
        content = (root / ENV_FILE).read_bytes()
    except OSError as error:
        raise EnvFileError(f"{root / ENV_FILE} cannot be read: {error.strerror}; make it readable for you, or move it away") from None
    return dotenv.parse(content, {**os.environ, **env})


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_mtime_ns, status.st_size


@contextmanager
def standing_in(root: Path) -> Iterator[None]:
    """A replica's working directory is the project's root, wherever `%cd` went."""
    before = os.getcwd()
    os.chdir(root)
    try:
        yield
    finally:
        os.chdir(before)
