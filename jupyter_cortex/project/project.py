"""A project as a value: what a deploy takes, whether it was a directory or a notebook."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import artifacts, config_file, files, models
from .files import Confirm, ProjectFile


@dataclass(frozen=True)
class Project:
    """``documents`` are the entries of cortex.yaml as written, ``files`` what travels (``.env`` included), ``source`` where it comes from.

    ``meta``: relative path -> content of what travels beside the project (line map, reasons, the notebook's snapshot). ``artifacts``: path -> file
    of those artifacts that are not at their path below ``root``.
    """

    root: Path
    documents: list[dict[str, Any]]
    files: list[ProjectFile]
    source: str
    config_name: str = "cortex.yaml"
    meta: dict[str, bytes] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    artifacts: dict[str, Path] = field(default_factory=dict)

    def artifact_sources(self) -> dict[str, Path]:
        """Path -> file of every artifact that the documents name. The file may be missing."""
        return {**artifacts.sources(self.documents, self.root), **self.artifacts}


def from_config(config: Path, *, source: str = "", confirm: Confirm | None = None) -> Project:
    """The project of a config file. Raises ProjectError, SpecError."""
    path = Path(os.path.abspath(config))  # also without `..`, or one project would have two sources; links stay as they are
    documents = models.with_files(config_file.load(path), path.parent)
    warnings = config_file.doubled(path)
    shipped = files.list_files(path, confirm=confirm, warnings=warnings, apart=artifacts.paths_of(documents))
    return Project(path.parent, documents, shipped, source or str(path), path.name, warnings=warnings)


def from_directory(document: dict[str, Any], root: Path, *, source: str = "", confirm: Confirm | None = None) -> Project:
    """One API given as a dict, with the files of ``root``. The dict is not changed. Raises ProjectError."""
    root = root.absolute()
    warnings: list[str] = []
    documents = models.with_files([json.loads(json.dumps(document))], root)
    shipped = files.list_files(root / ".cortex-api.yaml", confirm=confirm, warnings=warnings, apart=artifacts.paths_of(documents))
    return Project(root, documents, shipped, source or str(root), "api_spec", warnings=warnings)
