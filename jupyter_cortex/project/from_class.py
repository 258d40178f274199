"""From a class to a project that can be published: one of a notebook through its slice, one of an importable file with the whole file."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import ProjectError, SpecError
from . import from_notebook, models
from .files import ProjectFile
from .project import Project

MODULE = "handler.py"


def build(api_spec: Any, cls: Any, requirements: Sequence[str] | None, conda_packages: Sequence[str] | None) -> Project:
    """The project of ``cls`` under the spec ``api_spec``, which is not changed.

    Raises ProjectError (kind ``handler``) when the class is nobody's to publish, SpecError, and NotebookError when its notebook cannot be sliced.
    """
    document = _document(api_spec)
    if not inspect.isclass(cls):
        raise ProjectError(f"handler must be a class, not {type(cls).__name__}", kind="handler")
    if cls.__qualname__ != cls.__name__:
        raise ProjectError(f"{cls.__qualname__} is defined inside another class or function; move it to the module's top level", kind="handler")
    extra = [
        ProjectFile.made(name, "".join(f"{line}\n" for line in _lines(name, lines)).encode())
        for name, lines in (("requirements.txt", requirements), ("conda-packages.txt", conda_packages))
        if lines
    ]
    session = _notebook_session()
    if cls.__module__ == "__main__" and session is not None:
        if session.shell.user_ns.get(cls.__name__) is not cls:
            raise ProjectError(f"this notebook calls another class {cls.__name__} by now; pass the one that its cell defines", kind="handler")
        built = from_notebook.build(session.notebook(), session.root, document=document, target=cls.__name__)
        built.refuse(yes=True)
        given = {file.path for file in extra}  # instead of what lies beside the notebook
        return replace(built.project, files=[*(file for file in built.project.files if file.path not in given), *extra])
    file, source = _source(cls)
    alias = "" if cls.__name__ == "Handler" else f"\n\nHandler = {cls.__name__}\n"
    module = ProjectFile.made(MODULE, (source + alias).encode("utf-8", "surrogatepass"))
    return Project(file.parent, models.with_files([document], file.parent), [module, *extra], f"{file}:{cls.__name__}", "api_spec")


def _document(api_spec: Any) -> dict[str, Any]:
    if not isinstance(api_spec, dict) or not api_spec.get("name"):
        raise SpecError("api_spec: name is missing", path="name", kind="required")
    try:
        document = json.loads(json.dumps(api_spec))
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"api_spec: it must hold what JSON can hold: {error}", path="", kind="type") from None
    section = document.get("handler", {})
    if not isinstance(section, dict):
        raise SpecError("api_spec: handler must be a map, with config and env if needed", path="handler", kind="type")
    return {"kind": "AsyncAPI", **document, "handler": {"type": "python", **section, "path": MODULE}}


def _lines(name: str, lines: Any) -> list[str]:
    if isinstance(lines, str) or not all(isinstance(line, str) for line in lines):
        raise ProjectError(f"{name}: give a list of lines, as in ['numpy>=2']", kind="handler")
    return list(lines)


def _source(cls: type) -> tuple[Path, str]:
    try:
        file = Path(inspect.getsourcefile(cls) or "")
        return file, file.read_text("utf-8")
    except (TypeError, OSError):
        raise ProjectError(
            f"{cls.__name__} has no source file (was it defined in a notebook? `%load_ext jupyter_cortex` there first); write it to a module",
            kind="handler",
        ) from None


def _notebook_session() -> Any:
    """The session that `%load_ext jupyter_cortex` made in this kernel, None elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "cortex_session", None)
