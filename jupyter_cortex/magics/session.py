"""What one kernel knows: what ran, where its project is, its Handler, and the last payload that was tried. One object per shell, no globals."""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import CortexError
from ..handler import chaining, log_lines, logs, origin, shim
from .recorder import Recorder
from .surroundings import Surroundings, standing_in
from .tensorflow_client import KernelClient

if TYPE_CHECKING:
    from ..handler.execution import Outcome
    from ..handler.instance import Instance
    from ..project.notebook.cells import Notebook


#: The one header, beside the Content-Type, that a Handler gets to see.
ID_HEADER = "x-request-id"


@dataclass
class Tried:
    """One payload that ran in this kernel. ``refusal``: the sentence with which the gateway would refuse it; then nothing ran."""

    body: bytes
    content_type: str
    headers: dict[str, str]
    payload: Any = None
    refusal: str = ""
    outcome: Outcome | None = None
    #: Records of the Handler's own threads, which belong to no request.
    others: list[dict[str, Any]] = field(default_factory=list)

    def records(self) -> list[dict[str, Any]]:
        """The log of this try, by time."""
        own = [json.loads(line) for line in self.outcome.lines] if self.outcome else []
        return sorted([*own, *self.others], key=lambda record: str(record.get("asctime", "")))


class LogStream:
    """Where the notebook's log lines go: to the cell that runs, unless what shows them is watching."""

    def __init__(self) -> None:
        self._quiet = False

    def write(self, text: str) -> int:
        if not self._quiet:
            sys.stdout.write(text)
        return len(text)

    @contextmanager
    def quiet(self, watcher: logging.Handler | None) -> Iterator[list[dict[str, Any]]]:
        """Log records go to ``watcher`` alone; those of no request are collected."""
        others = _Others()
        watching = [others, *([watcher] if watcher is not None else [])]
        for handler in watching:
            logs.logger.addHandler(handler)
        self._quiet = True
        try:
            yield others.records
        finally:
            self._quiet = False
            for handler in watching:
                logs.logger.removeHandler(handler)


class _Others(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if logs.current_request_id() is None:
            self.records.append(json.loads(logs.masked_line(log_lines.encode(log_lines.fields(record)))))


class Session:
    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.recorder = Recorder(shell)
        #: What `%cortex sample` keeps. Replays are not among it: they may be another version's.
        self.last: Tried | None = None
        self.workbench: Any = None
        #: The table of `%cortex requests` that refreshes itself, and the display of the last replay.
        self.refreshing: Any = None
        self.replayed: Any = None
        #: (environment, API, version) -> what of it was fetched for replays: the deployment, and its files unpacked.
        self.versions: dict[tuple[str, str, int], Any] = {}
        #: (file, variable) -> the line that loads what `%cortex save` wrote in this kernel.
        self.saved: dict[tuple[str, str], str] = {}
        self.stream = LogStream()
        self.surroundings = Surroundings(self.stream)
        self._instance: tuple[type, str, Instance] | None = None
        self.models = KernelClient()
        #: The API of cortex.yaml that this notebook is, once a verb has said it.
        self.api: str | None = None
        self._labels: tuple[Any, dict[int, str]] = (None, {})

    def start(self) -> None:
        self.recorder.start()
        shim.install()
        logs.setup_notebook(self.stream)  # type: ignore[arg-type]
        origin.use(self._place, instead=True)
        chaining.install_lookup(_chaining_door)
        try:
            self.surroundings.apply(self.root, None)
        except CortexError as error:
            print(f"the project's variables: {error}")  # and again with each payload, until it is mended

    def stop(self) -> None:
        self.recorder.stop()
        origin.use(None)
        chaining.install_lookup(None)
        self.surroundings.restore()
        if self._instance:
            self._instance[2].close()
        if self.refreshing is not None:
            self.refreshing.stop()
        for version in self.versions.values():
            version.close()

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
        from ..project.notebook.cells import read_document
        from . import timeline

        path = self.path
        document = read_document(path) if path else None
        if document is not None and not timeline.belongs(document, self.recorder.runs):
            path = document = None
        return self.executed(path, document, path.stat().st_mtime if path else 0.0, self.root)

    def executed(self, path: Path | None, document: dict[str, Any] | None, as_of: float, root: Path) -> Notebook:
        """The cells as executed in this kernel, beside the notebook ``document`` as it was at ``as_of`` (seconds since the epoch)."""
        from ..project import objects
        from . import timeline

        hidden = self.shell.user_ns_hidden
        alive = frozenset(name for name in self.shell.user_ns if name not in hidden and not name.startswith("_"))
        found = objects.loading_from(root)

        def loading(name: str, target: str) -> str:
            return (self.saved.get((name, target)) or found(name, target)) if found(name, target) else ""

        notebook = timeline.executed_notebook(self.recorder.runs, path, document, as_of, alive, loading)
        return replace(notebook, kept_as=lambda name: objects.own_file(name, self.shell.user_ns.get(name)))

    def _place(self, file: str, line: int) -> str:
        count = self.recorder.count_of(file)
        if count is None:
            return ""
        run = self.recorder.run_of(count)
        return f"{self.label(count)}, line {line + (run.blank_lines if run else 0)}"

    def label(self, count: int) -> str:
        """``cell 3`` for the run with this execution count, ``In [5]`` where the notebook is not known."""
        known = (len(self.recorder.runs), self.path)
        if self._labels[0] != known:  # a traceback asks for each of its frames
            try:
                labels = {cell.count: cell.label for cell in self.notebook().cells if cell.count}
            except Exception:  # an error is being described: its place must not raise another
                labels = {}
            self._labels = (known, labels)
        return self._labels[1].get(count, f"In [{count}]")

    # The Handler -------------------------------------------------------------------------------------------------------------------------

    def instance(self, config: dict[str, Any]) -> Instance:
        """This notebook's Handler, constructed once per class and config. Raises NotebookError, HandlerError."""
        from ..core.errors import HandlerError, NotebookError
        from ..handler import metrics
        from ..handler.instance import Instance
        from ..handler.signature import check_class

        if (report := self._report_of(config)) is not None:
            return report
        section = self.models.section(self.root, self.api, self.surroundings.generation)
        cls = self.shell.user_ns.get("Handler")
        if not isinstance(cls, type):
            raise NotebookError("this kernel has no class Handler yet; run the cell that defines it (`%cortex init` shows one)", kind="no_handler")
        key = json.dumps([config, self.surroundings.generation, self.models.key(section, self.root)], sort_keys=True, default=str)
        if self._instance and self._instance[0] is cls and self._instance[1] == key:
            return self._instance[2]
        if self._instance:
            self._instance[2].close()
            self._instance = None
        try:
            with logs.capture_prints():
                check_class(cls, handler_type=section["type"], path="this notebook")  # before models are loaded
                made = Instance(
                    cls,
                    config=config,
                    metrics_client=metrics.MetricsClient(metrics.Registry()),
                    handler_type=section["type"],
                    tensorflow_client=self.models.client(section, self.root),
                    path="this notebook",
                )
        except HandlerError as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise error.__cause__ from None  # the kernel's interrupt, not the author's
            raise
        self._instance = (cls, key, made)
        return made

    def _report_of(self, config: dict[str, Any]) -> Any:
        """The notebook that the API's spec names, where it is a notebook handler; its kernels are started anew when it was saved since."""
        from ..project import from_notebook

        section = from_notebook.entry_of(self.root, self.api).get("handler")
        if not isinstance(section, dict) or section.get("type") != "notebook":
            return None
        from ..core.errors import ProjectError
        from ..handler.notebook.report import Report

        path = str(section.get("path"))
        try:
            saved = (self.root / path).stat().st_mtime_ns
        except OSError as error:
            raise ProjectError(f"cortex.yaml: handler.path: {path} cannot be read: {error.strerror}", kind="notebook", path=path) from None
        key = json.dumps([path, saved, config, self.surroundings.generation], sort_keys=True, default=str)
        if self._instance and self._instance[1] == key:
            return self._instance[2]
        if self._instance:
            self._instance[2].close()
            self._instance = None
        level = section.get("log_level")
        made = Report(
            self.root,
            path,
            config=config,
            python_path=section.get("python_path"),
            log_level=level if isinstance(level, str) else "info",
        )
        self._instance = (Report, key, made)  # type: ignore[assignment]
        return made

    def config(self, given: dict[str, Any], api: str | None = None) -> dict[str, Any]:
        """``handler.config`` of the API that this notebook is, with ``given`` laid over it. Raises SpecError, NotebookError."""
        from ..core.errors import SpecError
        from ..project import from_notebook

        name = api or self.api
        section = from_notebook.entry_of(self.root, name).get("handler") or {}
        self.api = name  # not before: a name that is refused must not be meant from then on
        config = (section.get("config") or {}) if isinstance(section, dict) else section
        if not isinstance(config, dict):
            raise SpecError("cortex.yaml: handler and handler.config must be maps; write their keys below them", path="handler.config", kind="type")
        return {**config, **given}

    def run(
        self, body: bytes, content_type: str, config: dict[str, Any], headers: dict[str, str] | None = None, watcher: logging.Handler | None = None
    ) -> Tried:
        """One payload through parse → handle → JSON, as a replica runs it; ``watcher`` gets the log records as they come. See :meth:`try_`.

        Raises NotebookError and HandlerError, not what the Handler raises.
        """
        root = self.root
        self.surroundings.apply(root, self.api)
        tried = self.arriving(body, content_type, headers or {})
        if tried.refusal:
            return tried
        with standing_in(root):
            self.execute(self.instance(config), tried, root, watcher)
        return tried

    def try_(
        self, body: bytes, content_type: str, config: dict[str, Any], headers: dict[str, str] | None = None, watcher: logging.Handler | None = None
    ) -> Tried:
        """:meth:`run` of what the author tries: it is the last one from now on."""
        self.last = None  # what does not get to run leaves nothing to keep, and not the one before it either
        self.last = self.run(body, content_type, config, headers, watcher)
        return self.last

    def arriving(self, body: bytes, content_type: str, headers: dict[str, str]) -> Tried:
        """A payload at the door: parsed, or with the refusal that its caller would get."""
        from ..core.errors import PayloadError
        from ..core.workload import REQUEST_ID
        from ..handler import payload

        tried = Tried(body, content_type, headers)
        if not REQUEST_ID.fullmatch(headers.get(ID_HEADER, "none")):
            tried.refusal = "x-request-id must be 1 to 128 letters, digits, dots, dashes or underscores; leave it out to get one"
            return tried
        try:
            tried.payload = payload.parse(body, content_type)
        except PayloadError as error:
            tried.refusal = error.message
        return tried

    def execute(self, instance: Instance, tried: Tried, root: Path, watcher: logging.Handler | None = None) -> None:
        """Run what has arrived; its outcome is in ``tried``. ``root``: the project's directory, in which the process stands already."""
        from ..handler import execution
        from ..handler.live import Stage

        with logs.capture_prints(), self.stream.quiet(watcher) as tried.others:
            request_id = tried.headers.get(ID_HEADER) or str(uuid.uuid4())
            # `progress` in the Handler is drawn by what draws its log lines.
            stage = Stage(getattr(watcher, "tell", lambda *said: None))
            tried.outcome = execution.execute(instance, tried.body, tried.content_type, request_id, str(root), stage=stage)
        if isinstance(tried.outcome.exception, KeyboardInterrupt):
            raise tried.outcome.exception from None
        self._remember_failure(tried.outcome.exception, root)

    def _remember_failure(self, error: BaseException | None, root: Path) -> None:
        """What `%debug` looks at: the author's frames, of cells or of another version's files in ``root``, without ours in front."""
        if error is None:
            return
        step = error.__traceback__
        while step is not None and not self._is_author_s(step.tb_frame.f_code.co_filename, root):
            step = step.tb_next
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, step or error.__traceback__
        if sys.version_info >= (3, 12):
            sys.last_exc = error  # what IPython's debugger asks for there
        self.shell.InteractiveTB.tb = sys.last_traceback

    def _is_author_s(self, file: str, root: Path) -> bool:
        # Below the notebook's own directory there may be an environment with libraries, and us.
        return self.recorder.count_of(file) is not None or (root != self.root and file.startswith(f"{root}{os.sep}"))


def _chaining_door() -> tuple[str, int] | None:
    """Where `api-<name>` leads: the chaining door of the local environment, if it runs."""
    from ..core.settings import Settings
    from ..environments import chaining_door

    return chaining_door(Settings.read())
