"""A notebook as a value: its code cells in the order in which they take effect, as executed or as saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from ...core.errors import ProjectError
from ...core.readers import printable
from .lines import Loading

#: A notebook file above this is refused: outputs of this size are data, and data belong into files of their own.
MAX_NOTEBOOK_BYTES = 512 * 1024 * 1024
#: Cell tags that overrule the slice.
ALWAYS, NEVER = "cortex", "cortex-ignore"


class State(StrEnum):
    """How a run of a cell relates to the notebook as it is saved."""

    CURRENT = "current"  #: the text that ran is the text of the notebook
    EDITED = "edited"  #: the cell was edited after this, its last run
    SUPERSEDED = "superseded"  #: the cell ran again later with another text
    DELETED = "deleted"  #: the cell is not in the notebook any more


@dataclass(frozen=True)
class Cell:
    """One run of a code cell, or the cell as saved where no kernel says what ran.

    ``number`` counts code cells from 1, so that after "Run All" it is the [n] beside the cell; 0 when the cell is in no saved notebook, and then
    ``count`` (the execution count) names it. ``failed_line``: the line of the cell at which its run ended with an error.
    """

    source: str
    number: int = 0
    count: int | None = None
    id: str = ""
    tags: frozenset[str] = frozenset()
    seconds: float | None = None
    state: State = State.CURRENT
    failed_line: int | None = None

    @property
    def label(self) -> str:
        return f"cell {self.number}" if self.number else f"In [{self.count}]" if self.count else "a cell"


@dataclass(frozen=True)
class Notebook:
    """``cells`` in the order in which they took effect: of execution with a kernel, of the document without one.

    ``executed``: whether the cells are what a kernel ran. ``alive``: the names that exist in that kernel. ``loading`` gives the
    line that loads an object of `%cortex save`, ``kept_as`` the file of its framework's own format that one in the kernel would become ("": none).
    ``edited``: cells whose text changed since they ran; ``waiting``: cells that did not run yet.
    """

    cells: list[Cell]
    path: Path | None = None
    executed: bool = False
    alive: frozenset[str] = frozenset()
    loading: Loading | None = None
    edited: list[Cell] = field(default_factory=list)
    waiting: list[Cell] = field(default_factory=list)
    kept_as: Callable[[str], str] = lambda name: ""
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name if self.path else "this notebook"


def read(path: Path) -> Notebook:
    """A notebook file, its cells in the order of the document. Raises ProjectError (kind ``notebook``) naming the file and the remedy."""
    return from_document(read_document(path), path)


def read_document(path: Path) -> dict[str, Any]:
    """The notebook's JSON. Raises ProjectError (kind ``notebook``)."""
    shown = printable(path.name)
    try:
        if path.stat().st_size > MAX_NOTEBOOK_BYTES:
            raise _refused(shown, f"it has more than {MAX_NOTEBOOK_BYTES // 2**20} MiB; clear its outputs and save it")
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _refused(shown, "there is no such file; save the notebook, or check the path") from None
    except OSError as error:
        raise _refused(shown, f"it cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise _refused(shown, "it is not a notebook (no JSON); save it again from Jupyter") from None
    return check_document(document, shown)


def check_document(document: Any, shown: str) -> dict[str, Any]:
    """A notebook model as Jupyter's front ends send it. Raises ProjectError (kind ``notebook``)."""
    if not isinstance(document, dict) or not isinstance(document.get("cells"), list):
        old = isinstance(document, dict) and "worksheets" in document
        raise _refused(shown, "its format is too old; open it in Jupyter and save it" if old else "it has no cells; is it a notebook?")
    metadata = _section(document, "metadata")
    language = _section(metadata, "language_info").get("name") or _section(metadata, "kernelspec").get("language") or "python"
    if str(language).lower() not in ("python", "ipython"):
        raise _refused(shown, f"it is a notebook of {printable(str(language))}; a Handler is written in Python")
    return document


def from_document(document: dict[str, Any], path: Path | None = None) -> Notebook:
    return Notebook(code_cells(document), path, document=document)


def code_cells(document: dict[str, Any]) -> list[Cell]:
    """The code cells of a notebook's JSON, numbered from 1 in the order of the document."""
    cells: list[Cell] = []
    for raw in document["cells"]:
        if not isinstance(raw, dict) or raw.get("cell_type") != "code":
            continue
        metadata = _section(raw, "metadata")
        count, tags = raw.get("execution_count"), metadata.get("tags")
        cells.append(
            Cell(
                text_of(raw.get("source") or ""),
                number=len(cells) + 1,
                count=count if isinstance(count, int) else None,
                id=str(raw.get("id") or ""),
                tags=frozenset(map(str, tags)) if isinstance(tags, list) else frozenset(),
                seconds=_seconds(metadata),
            )
        )
    return cells


def text_of(source: Any) -> str:
    """nbformat allows a string or a list of lines."""
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def snapshot(notebook: Notebook) -> bytes:
    """The notebook without its outputs, as it travels with the bundle: what a traceback's cell and line point into."""
    document = {key: value for key, value in notebook.document.items() if key != "cells"} or {"nbformat": 4, "nbformat_minor": 5, "metadata": {}}
    raw = [cell for cell in notebook.document.get("cells") or () if isinstance(cell, dict)] or [
        {"cell_type": "code", "id": cell.id or f"c{position}", "metadata": {}, "source": cell.source} for position, cell in enumerate(notebook.cells)
    ]
    cells = []
    for cell in raw:
        kept = {key: value for key, value in cell.items() if key not in ("outputs", "execution_count", "attachments")}
        if cell.get("cell_type") == "code":
            kept |= {"outputs": [], "execution_count": None}
        cells.append(kept)
    metadata = {key: value for key, value in _section(document, "metadata").items() if key in ("kernelspec", "language_info")}
    return json.dumps({**document, "metadata": metadata, "cells": cells}, indent=1, ensure_ascii=True).encode()


def _seconds(metadata: Mapping[str, Any]) -> float | None:
    """How long the saved run took, where papermill or JupyterLab's "record timing" wrote it down."""
    duration = _section(metadata, "papermill").get("duration")
    if isinstance(duration, int | float):
        return float(duration)
    timing = _section(metadata, "execution")
    try:
        begun, ended = (datetime.fromisoformat(str(timing[key])) for key in ("iopub.execute_input", "shell.execute_reply"))
        return (ended - begun).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


def _section(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object of the notebook's JSON; empty where a damaged file has something else."""
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def _refused(shown: str, sentence: str) -> ProjectError:
    return ProjectError(f"{shown}: {sentence}", kind="notebook", path=shown)
