"""Between the contents manager's paths and files."""

from __future__ import annotations

import os
import platform
from typing import Any

from jupyter_core.utils import ensure_async
from tornado.web import HTTPError

from ..core.errors import BadRequest, NotebookNotFound
from .link import Answer


def root_of(contents: Any) -> str | None:
    """The directory that the contents manager shows; None for one that shows no directory."""
    root = getattr(contents, "root_dir", None)
    return os.path.abspath(root) if isinstance(root, str) and root else None


async def notebook_file(contents: Any, path: Any) -> str:
    """The file of a notebook that the contents manager shows; a bare name where it shows no directory. Raises BadRequest, NotebookNotFound."""
    if not isinstance(path, str) or not path.endswith(".ipynb"):
        raise BadRequest("`path` must be the path of a notebook (.ipynb)")
    parts = [part for part in path.split("/") if part]
    root = root_of(contents)
    foreign = any(part in (".", "..") or "\0" in part or os.path.splitdrive(part)[0] or (os.sep != "/" and os.sep in part) for part in parts)
    try:
        there = not foreign and await ensure_async(contents.file_exists("/".join(parts)))
    except HTTPError:  # a name that no file can have
        there = False
    if not there:
        raise NotebookNotFound(f"this server has no notebook {path[:500]!r}; save it first")
    return os.path.join(root, *parts) if root else parts[-1]


def notebook_path(root: str | None, source: Any) -> str | None:
    """The contents manager's path of a notebook that ``source`` (``user@host:file``) names, if it is of this machine and there."""
    who, _, file = str(source).partition(":")
    if root is None or who.rpartition("@")[2] != platform.node() or not file.endswith(".ipynb"):
        return None
    for base, found in ((root, os.path.normpath(file)), (os.path.realpath(root), os.path.realpath(file))):
        if found.startswith(os.path.join(base, "")) and os.path.isfile(found):
            return os.path.relpath(found, base).replace(os.sep, "/")
    return None


def with_notebooks(answer: Answer, root: str | None) -> list[dict[str, Any]]:
    """The summaries of an answer with ``notebook``. Raises EnvironmentProblem, and what the gateway refused with."""
    rows = answer.document(list)
    if not all(isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows):
        raise answer.foreign()
    return [with_notebook(row, root) for row in rows]


def with_notebook(summary: dict[str, Any], root: str | None) -> dict[str, Any]:
    """An API's summary with ``notebook``."""
    return {**summary, "notebook": notebook_path(root, summary.get("source", ""))}


def with_version_notebooks(api: dict[str, Any], root: str | None) -> dict[str, Any]:
    """An API with ``notebook``, and with that of each of its versions: another one may have taken the name over."""
    versions = [with_notebook(one, root) if isinstance(one, dict) else one for one in api.get("api_versions") or []]
    return {**with_notebook(api, root), **({"api_versions": versions} if "api_versions" in api else {})}
