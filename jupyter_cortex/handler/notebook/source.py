"""The notebook of a notebook handler as it was published: read once, checked, its cells named."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from jupyter_cortex.core.errors import HandlerError

PYTHON = ("python", "ipython")
INJECTED = "injected-parameters"
#: Characters of a cell's title.
TITLE = 60
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)


def read(project_dir: Path, path: str) -> dict[str, Any]:
    """The notebook's JSON (format 4). Raises :class:`HandlerError` of stage ``load`` and kind ``notebook`` naming the file and the remedy."""
    try:
        raw = (project_dir / path).read_bytes()
    except OSError as error:
        raise _refused(path, f"it cannot be read: {error.strerror}; check handler.path") from None
    if problem := problem_of(raw):
        raise _refused(path, problem)
    document: dict[str, Any] = json.loads(raw)
    return document


def problem_of(raw: bytes) -> str:
    """What keeps these bytes from being a notebook that can be run here, with the remedy; "" when nothing does."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return "it is not a notebook (no JSON); save it again from Jupyter"
    if not isinstance(document, dict) or not isinstance(document.get("cells"), list) or not all(map(_is_cell, document["cells"])):
        old = isinstance(document, dict) and "worksheets" in document
        return "its format is too old; open it in Jupyter and save it" if old else "it has no cells; is it a notebook?"
    if document.get("nbformat") != 4:
        return f"it has the notebook format {str(document.get('nbformat'))[:20]}, and 4 can be run; open it in Jupyter and save it"
    if (language := _language(document.get("metadata"))) and language.lower() not in PYTHON:
        return f"its kernel is for {language[:40]}, and a notebook handler runs in the deployment's Python; choose a Python kernel and save it"
    if not any(cell["cell_type"] == "code" and source_of(cell).strip() for cell in document["cells"]):
        return "it has no code to run; write a cell and save it"
    return ""


def _language(metadata: Any) -> str:
    """What its front end noted; "" where that is nothing."""
    for section, key in (("language_info", "name"), ("kernelspec", "language")):
        noted = metadata.get(section) if isinstance(metadata, dict) else None
        if isinstance(noted, dict) and noted.get(key):
            return str(noted[key])
    return ""


def _is_cell(cell: Any) -> bool:
    return isinstance(cell, dict) and cell.get("cell_type") in ("code", "markdown", "raw") and isinstance(cell.get("source"), (str, list))


def _refused(path: str, problem: str) -> HandlerError:
    return HandlerError(f"error in {path}: {problem}", stage="load", kind="notebook", path=path)


def source_of(cell: Any) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(map(str, source))


def _tags(cell: Any) -> list[str]:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tags if isinstance(tags, list) else []


def is_injected(cell: Any) -> bool:
    return INJECTED in _tags(cell)


def declared(document: dict[str, Any]) -> set[str] | None:
    """The names that the cell tagged ``parameters`` gives values to; None where there is no such cell."""
    cell = next((cell for cell in document["cells"] if "parameters" in _tags(cell)), None)
    if cell is None:
        return None
    try:
        tree = ast.parse(source_of(cell))
    except (SyntaxError, ValueError):
        return set()  # the run will say what is wrong with it
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def labels(cells: list[Any]) -> list[tuple[str, str]]:
    """For each cell: what it is called, and its title. Code cells count from 1 ("cell 3"), without the one that papermill has put in."""
    found, number, heading = [], 0, ""
    for cell in cells:
        if cell["cell_type"] != "code":
            if cell["cell_type"] == "markdown" and (match := _HEADING.search(source_of(cell))):
                heading = match[1]
            found.append(("", ""))
        elif is_injected(cell):
            found.append(("the injected parameters", ""))
        else:
            number += 1
            first = next((line.strip() for line in source_of(cell).splitlines() if line.strip()), "")
            found.append((f"cell {number}", (heading or first.lstrip("# "))[:TITLE]))
            heading = ""
    return found
