"""What one kernel knows: what ran, where its project is, its Handler, and the last payload that was tried. One object per shell, no globals."""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..handler import chaining, logs, masking, origin, shim
from .recorder import Recorder

if TYPE_CHECKING:
    from ..handler.execution import Outcome
    from ..handler.instance import Instance
    from ..project.notebook.cells import Notebook


@dataclass
class Tried:
    """One payload that ran in this kernel. ``refusal``: the sentence with which the gateway would refuse it; then nothing ran."""

    body: bytes
    content_type: str
    headers: dict[str, str]
    payload: Any = None
    refusal: str = ""
    outcome: Outcome | None = None

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.outcome.lines] if self.outcome else []


class LogStream:
    """Where the notebook's log lines go: to the cell that runs, unless what shows them is watching."""

    def __init__(self) -> None:
        self._quiet = False

    def write(self, text: str) -> int:
        if not self._quiet:
            sys.stdout.write(text)
        return len(text)

    @contextmanager
    def quiet(self, watcher: logging.Handler | None) -> Iterator[None]:
        """Log records go to ``watcher`` alone."""
        if watcher is not None:
            logs.logger.addHandler(watcher)
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
            if watcher is not None:
                logs.logger.removeHandler(watcher)


class Session:
    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.recorder = Recorder(shell)
        self.last: Tried | None = None
        self.workbench: Any = None
        #: (file, variable) -> the line that loads what `%cortex save` wrote in this kernel.
        self.saved: dict[tuple[str, str], str] = {}
        self.stream = LogStream()
        self._instance: tuple[type, str, Instance] | None = None
        self._applied: dict[str, str | None] = {}
        self._env_stamp: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        self.recorder.start()
        shim.install()
        logs.setup_notebook(self.stream)  # type: ignore[arg-type]
        origin.use(self._place, instead=True)
        chaining.install_lookup(_chaining_door)
        self.apply_env()

    def stop(self) -> None:
        self.recorder.stop()
        origin.use(None)
        chaining.install_lookup(None)
        self._restore_env()
        if self._instance:
            self._instance[2].close()

    # Where we are ------------------------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """The notebook's file, where the front end says it and the file is there."""
        space = self.shell.user_ns
        for given in (space.get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME"), space.get("__session__")):
            if isinstance(given, str) and given.endswith(".ipynb") and (path := Path(given).absolute()).is_file():
                return path
        return None

    @property
    def root(self) -> Path:
        """The project's directory: the notebook's own, else the kernel's working directory."""
        path = self.path
        return path.parent if path else Path.cwd()

    def notebook(self) -> Notebook:
        """The cells as executed in this kernel, beside the notebook as saved. Raises ProjectError for a file that is no notebook."""
        from ..project import objects
        from ..project.notebook.cells import read_document
        from . import timeline

        path = self.path
        document = read_document(path) if path else None
        if document is not None and not timeline.belongs(document, self.recorder.runs):
            path = document = None
        hidden = self.shell.user_ns_hidden
        alive = frozenset(name for name in self.shell.user_ns if name not in hidden and not name.startswith("_"))
        saved_at = path.stat().st_mtime if path else 0.0
        found = objects.loading_from(self.root)

        def loading(name: str, target: str) -> str:
            return (self.saved.get((name, target)) or found(name, target)) if found(name, target) else ""

        return timeline.executed_notebook(self.recorder.runs, path, document, saved_at, alive, loading)

    def _place(self, file: str, line: int) -> str:
        count = self.recorder.count_of(file)
        if count is None:
            return ""
        return f"{self.label(count)}, line {line}"

    def label(self, count: int) -> str:
        """``cell 3`` for the run with this execution count, ``In [5]`` where the notebook is not known."""
        try:
            found = next((cell for cell in self.notebook().cells if cell.count == count), None)
        except Exception:  # an error is being described: its place must not raise another
            found = None
        return found.label if found else f"In [{count}]"

    # The project's variables -------------------------------------------------------------------------------------------------------------

    def apply_env(self) -> None:
        """Put the spec's env and ``.env`` into this kernel's environment, as a replica gets them; what they set before is taken back.

        A file that cannot be used is warned about: the kernel must start all the same.
        """
        root = self.root
        stamp = (_stamp(root / "cortex.yaml"), _stamp(root / ".env"))
        if stamp == self._env_stamp:
            return
        self._env_stamp = stamp
        self._restore_env()
        try:
            values, secrets = _project_env(root)
        except Exception as error:
            print(f"the project's variables were not set: {error}")
            return
        masking.mask(secrets)
        for name, value in values.items():
            self._applied[name] = os.environ.get(name)
            os.environ[name] = value

    def _restore_env(self) -> None:
        for name, before in self._applied.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
        self._applied.clear()

    # The Handler -------------------------------------------------------------------------------------------------------------------------

    def instance(self, config: dict[str, Any]) -> Instance:
        """This notebook's Handler, constructed once per class and config. Raises NotebookError, HandlerError."""
        from ..core.errors import NotebookError
        from ..handler import metrics
        from ..handler.instance import Instance

        cls = self.shell.user_ns.get("Handler")
        if not isinstance(cls, type):
            raise NotebookError("this kernel has no class Handler yet; run the cell that defines it (`%cortex init` shows one)", kind="no_handler")
        key = json.dumps(config, sort_keys=True, default=str)
        if self._instance and self._instance[0] is cls and self._instance[1] == key:
            return self._instance[2]
        if self._instance:
            self._instance[2].close()
            self._instance = None
        with logs.capture_prints():
            made = Instance(cls, config=config, metrics_client=metrics.MetricsClient(metrics.Registry()), path="this notebook")
        self._instance = (cls, key, made)
        return made

    def config(self, given: dict[str, Any]) -> dict[str, Any]:
        """``handler.config`` of the project's cortex.yaml with ``given`` laid over it. Raises SpecError, NotebookError."""
        from ..project import config_file, from_notebook

        path = self.root / from_notebook.CONFIG
        if not path.is_file():
            return given
        documents = config_file.load(path)
        section = documents[0].get("handler") if len(documents) == 1 else {}
        return {**((section or {}).get("config") or {}), **given}

    def run(
        self, body: bytes, content_type: str, config: dict[str, Any], headers: dict[str, str] | None = None, watcher: logging.Handler | None = None
    ) -> Tried:
        """One payload through parse → handle → JSON, as a replica runs it; ``watcher`` gets the log records as they come.

        Raises NotebookError and HandlerError, not what the Handler raises.
        """
        from ..core.errors import PayloadError
        from ..handler import execution, payload

        self.apply_env()
        tried = Tried(body, content_type, headers or {})
        self.last = tried
        try:
            tried.payload = payload.parse(body, content_type)
        except PayloadError as error:
            tried.refusal = error.message
            return tried
        instance = self.instance(config)
        with logs.capture_prints(), self.stream.quiet(watcher):
            tried.outcome = execution.execute(instance, body, content_type, tried.headers.get("x-request-id") or str(uuid.uuid4()), str(self.root))
        self._remember_failure(tried.outcome.exception)
        return tried

    def _remember_failure(self, error: BaseException | None) -> None:
        """What `%debug` looks at: the author's frames, without ours in front."""
        if error is None:
            return
        step = error.__traceback__
        while step is not None and self.recorder.count_of(step.tb_frame.f_code.co_filename) is None:
            step = step.tb_next
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, step or error.__traceback__
        self.shell.InteractiveTB.tb = sys.last_traceback


def _stamp(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _project_env(root: Path) -> tuple[dict[str, str], list[str]]:
    """The spec's env under ``.env``, and the values that no line may show. Raises EnvFileError, SpecError."""
    from ..project import dotenv

    values: dict[str, str] = {}
    if (root / "cortex.yaml").is_file():
        from ..project import config_file

        documents = config_file.load(root / "cortex.yaml")
        section = (documents[0].get("handler") or {}) if len(documents) == 1 else {}
        values = {str(name): str(value) for name, value in (section.get("env") or {}).items()}
    secrets: dict[str, str] = {}
    if (root / ".env").is_file():
        secrets = dotenv.parse((root / ".env").read_bytes(), {**os.environ, **values})
    return {**values, **secrets}, list(secrets.values())


def _chaining_door() -> tuple[str, int] | None:
    """Where `api-<name>` leads: the chaining door of the local environment, if it runs."""
    from ..core.settings import Settings
    from ..environments import chaining_door

    return chaining_door(Settings.read())
