"""A tensorflow handler's models that are directories of the project: their files travel as artifacts, outside the bundle and its 32 MiB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.checks import is_portable
from ..core.errors import ProjectError
from ..core.models import directories
from ..core.readers import printable

#: Files of one model directory; a link that leads to its own parent would give more.
MAX_FILES = 10_000


def with_files(documents: list[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """Entries of cortex.yaml with every file of their model directories below ``root`` among their ``artifacts``; the others as they are.

    Raises ProjectError (kind ``model``) for a directory that is no model, ``invalid_name`` for a file that cannot travel.
    """
    return [_with_files(document, root) for document in documents]


def _with_files(document: dict[str, Any], root: Path) -> dict[str, Any]:
    section, listed = document.get("handler"), document.get("artifacts") or []
    if not isinstance(section, dict) or section.get("type") != "tensorflow" or not isinstance(listed, list):
        return document
    from ..handler.tensorflow.models import ModelProblem, models_in, versions  # most projects have none

    named = {str(item.get("path") if isinstance(item, dict) else item).removeprefix("./") for item in listed}
    found: dict[str, None] = {}
    for at, place in directories(section.get("models")):
        if not (root / place).exists() and any(path.startswith(f"{place}/") for path in named):
            continue  # its files are where they are sent already
        key = ".".join(map(str, ("handler", "models", *at)))
        try:
            models_in(root / place, place) if at == ("dir",) else versions(root / place, place)
        except ModelProblem as error:
            name = printable(str(document.get("name")))
            raise ProjectError(f"cortex.yaml: {key} ({name}): {error}.", kind="model", path=printable(place)) from None
        found |= dict.fromkeys(path for path in _files(root, place) if path not in named)
    return {**document, "artifacts": [*listed, *found]} if found else document


def _files(root: Path, place: str) -> Iterator[str]:
    """Paths below the root, in order, hidden ones left out; links are followed."""
    count = 0
    for directory, inner, names in os.walk(root / place, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = (Path(directory) / name).relative_to(root).as_posix()
            count += 1
            if count > MAX_FILES:
                raise ProjectError(f"{place} has more than {MAX_FILES:,} files; name the directory of the model alone.", kind="model", path=place)
            if not is_portable(path):
                raise ProjectError(f"The path {printable(path)} cannot travel; rename it.", kind="invalid_name", path=printable(path))
            yield path
