"""The kernel's side of JupyterLab's buttons: a notebook is looked at, checked or published by its own kernel.

The Jupyter server asks with an ``execute_request`` that executes nothing: its one user expression calls :func:`answer`. What to do stands beside
the code, in the request's content, and is taken out of it here, so that neither the notebook's namespace nor its history ever holds the
environment's token. Steps go out as messages of that request; the end is the value of the expression, which only the one who asked gets.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import BadRequest, CortexError, Interrupted

if TYPE_CHECKING:
    from ..client import Client
    from ..project.from_notebook import NotebookProject

#: The key of the request's content, and the type of the messages that tell steps.
REQUEST = MESSAGE = "cortex"
#: The form of the end: a text of JSON, in ASCII.
MIME = "application/vnd.jupyter-cortex.answer"


class Answer:
    """``{"result": …}`` or ``{"problem": …}``, as the value of an expression."""

    def __init__(self, document: dict[str, Any]) -> None:
        try:
            self._text = json.dumps(document, allow_nan=False)
        except ValueError:
            # cortex.yaml may say `.nan`, which a browser cannot read; the checks refuse it in their own words
            self._text = json.dumps(_finite(document))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {MIME: self._text}

    def __repr__(self) -> str:
        return "an answer to JupyterLab"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def answer() -> Answer:
    """Do what the request that is being answered asks for. Raises nothing: problems are answers, too."""
    try:
        from IPython.core.getipython import get_ipython

        shell: Any = get_ipython()
        kernel = shell.kernel
        request = kernel.get_parent("shell")
        wish = request["content"].pop(REQUEST, None)
        if not isinstance(wish, str):
            raise BadRequest("this kernel does not show its requests to what runs in it; publish with `%cortex deploy` in a cell")
        return Answer({"result": Job(shell, json.loads(wish), Reporter(kernel, request)).run()})
    except KeyboardInterrupt:
        return Answer({"problem": Interrupted("the kernel was interrupted; a version that was starting by then goes on by itself").problem()})
    except CortexError as error:
        return Answer({"problem": {key: value for key, value in error.problem().items() if key != "report"}})
    except Exception as error:  # what is wrong here is ours; it must not land in the notebook
        return Answer({"problem": CortexError(f"{type(error).__name__}: {error}; this should not happen, please report it").problem()})


class Reporter:
    """Tells each step as it begins, in a message of the request."""

    def __init__(self, kernel: Any, request: dict[str, Any]) -> None:
        self._kernel, self._parent = kernel, {"header": request["header"]}
        self._sample = ""

    def step(self, step: str) -> None:
        from ..commands.door import fraction

        self.passed()
        facts: dict[str, Any] = {"step": step, "done": fraction(step)}
        if step.startswith("checking: sample "):
            self._sample = step.removeprefix("checking: sample ")
            facts |= {"sample": self._sample, "state": "running"}
        self._tell(facts)

    def passed(self) -> None:
        """The sample that ran until now gave what it should: otherwise nothing would come after it."""
        if self._sample:
            self._tell({"step": f"checking: sample {self._sample}", "sample": self._sample, "state": "passed"})
            self._sample = ""

    def _tell(self, facts: dict[str, Any]) -> None:
        self._kernel.session.send(self._kernel.iopub_socket, MESSAGE, {"line": json.dumps(facts)}, parent=self._parent)


class Job:
    """One wish, from JSON: ``{"verb", "path", "model", "environment"?, "name"?, "config"?, "replicas"?, "yes"?, "take_over"?, "force"?,
    "rehearse"?}``.

    ``path``: of the notebook's file, where the Jupyter server sees it. ``model``: the notebook as it is in the browser, saved or not.
    """

    def __init__(self, shell: Any, wish: dict[str, Any], reporter: Reporter) -> None:
        from . import ATTRIBUTE

        self._shell, self._session = shell, getattr(shell, ATTRIBUTE, None)
        self._wish, self._reporter = wish, reporter
        path = Path(wish["path"])
        #: A kernel on another machine has the notebook's directory as its own, if at all.
        self._path = path if path.parent.is_dir() else Path.cwd() / path.name

    def run(self) -> dict[str, Any]:
        """Raises CortexError."""
        verbs = {"show": self._show, "check": self._check, "deploy": self._deploy, "prepare": self._prepare}
        return verbs[self._wish["verb"]]()

    def _built(self) -> NotebookProject:
        from ..project import from_notebook, objects
        from ..project.notebook import cells

        self._reporter.step("slicing")
        root = self._path.parent
        document = cells.check_document(self._wish["model"], self._path.name)
        if self._session is not None:
            # As it is now: whatever differs from what ran was edited since, saved or not.
            notebook = self._session.executed(self._path, document, math.inf, root)
        else:
            notebook = cells.Notebook(cells.code_cells(document), self._path, loading=objects.loading_from(root), document=document)
        wish = self._wish
        return from_notebook.build(notebook, root, name=wish.get("name"), only_config=wish.get("config"), replicas=wish.get("replicas"))

    def _client(self) -> Client:
        """Of the environment that the Jupyter server points to, which has started it where it can: this kernel may have another home."""
        from ..client import Client
        from ..core.settings import Settings
        from ..environments import Environment

        class Given(Client):
            def ensure_up(self, progress: Any = None) -> None:
                """It is up, or it is not ours to start."""

        return Given(Environment(**self._wish["environment"]), Settings.read())

    def _prepare(self) -> dict[str, Any]:
        """`%cortex` works in the notebook's cells from now on. ``handler``: whether its Handler has run in this kernel."""
        if self._session is None:
            self._shell.extension_manager.load_extension("jupyter_cortex")
        return {"handler": isinstance(self._shell.user_ns.get("Handler"), type)}

    def _show(self) -> dict[str, Any]:
        from ..commands import publishing
        from ..project.from_notebook import replicas_of
        from ..project.notebook.cells import code_cells

        built = self._built()
        with self._client() as client:
            shown = publishing.shown(built, client)
        return {
            **shown,
            "document": built.document,
            "config": built.document["handler"].get("config") or {},
            "replicas": replicas_of(built.document),
            "recorded": self._session is not None,
            "python": sys.executable,
            "cells": {cell.label: cell.id for cell in code_cells(self._wish["model"])},
        }

    def _check(self) -> dict[str, Any]:
        from ..commands import publishing

        checked = publishing.check_built(self._built(), self._reporter.step)
        if checked["ok"]:
            self._reporter.passed()
        return checked

    def _deploy(self) -> dict[str, Any]:
        from ..commands import curl_line, publishing

        built = self._built()
        wish = self._wish
        if self._session is not None:
            self._session.api = built.name
        with self._client() as client:
            deployed, sample = publishing.publish_built(
                client,
                built,
                yes=bool(wish.get("yes")),
                check=True,
                progress=self._reporter.step,
                force=bool(wish.get("force")),
                take_over=bool(wish.get("take_over")),
                # The API's page tells how far a rehearsal is: the kernel is the author's again meanwhile.
                rehearse=wish.get("rehearse"),
                wait=not wish.get("rehearse"),
            )
        warnings = [warning for one in deployed for warning in one.warnings] + [str(row) for row in built.surprises]
        return {
            "deployed": [asdict(one) for one in deployed],
            "curl": curl_line(deployed[0].url, sample, guarded=deployed[0].guarded),
            "warnings": warnings,
        }
