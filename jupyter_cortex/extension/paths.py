"""Between the contents manager's paths and files."""

from __future__ import annotations

import os
import platform
from typing import Any

from jupyter_core.utils import ensure_async
from tornado.web import HTTPError

from ..core.errors import BadRequest, CortexError, NotebookNotFound
from .link import Answer, Link


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


def notebook_path(root: str | None, source: Any, spec: Any = None) -> str | None:
    """The contents manager's path of a notebook that ``source`` (``user@host:file``) names, if it is of this machine and there.

    ``spec``: with it also of a notebook handler, which lies in the project that was deployed.
    """
    file = _local(source)
    handler = spec.get("handler") if isinstance(spec, dict) else None
    if isinstance(handler, dict) and handler.get("type") == "notebook" and not file.endswith(".ipynb"):
        file = os.path.join(file if os.path.isdir(file) else os.path.dirname(file), str(handler.get("path")))
    if root is None or not os.path.isabs(file) or not file.endswith(".ipynb"):
        return None
    for base, found in ((root, os.path.normpath(file)), (os.path.realpath(root), os.path.realpath(file))):
        if found.startswith(os.path.join(base, "")) and os.path.isfile(found):
            return os.path.relpath(found, base).replace(os.sep, "/")
    return None


def _local(source: Any) -> str:
    """The file or directory of this machine that it names, else ""."""
    who, _, file = str(source).partition(":")
    return file if who.rpartition("@")[2] == platform.node() else ""


def summaries_of(answer: Answer) -> list[dict[str, Any]]:
    """Raises EnvironmentProblem, and what the gateway refused with."""
    rows: list[dict[str, Any]] = answer.document(list)
    if not all(isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows):
        raise answer.foreign()
    return rows


async def with_notebooks(link: Link, summaries: list[dict[str, Any]], root: str | None) -> list[dict[str, Any]]:
    """Summaries with ``notebook``. A notebook handler's is named by the spec, which is asked for where the project lies on this machine."""
    specs = [await _spec_of(link, row) if root and _is_project(row) else None for row in summaries]
    return [{**row, "notebook": notebook_path(root, row.get("source", ""), spec)} for row, spec in zip(summaries, specs, strict=True)]


def _is_project(summary: dict[str, Any]) -> bool:
    file = _local(summary.get("source"))
    return os.path.isabs(file) and not file.endswith(".ipynb") and os.path.exists(file)


async def _spec_of(link: Link, summary: dict[str, Any]) -> Any:
    """Asked for once after each deploy; None while nobody says it."""
    key, deploy = (link.environment().url, summary["name"]), (summary.get("updated"), summary.get("wanted"))
    if key not in link.specs or link.specs[key][0] != deploy:
        try:
            link.specs[key] = deploy, (await link.control("GET", f"/apis/{summary['name']}")).document(dict).get("spec")
        except CortexError:
            return None
    return link.specs[key][1]


def with_notebook(told: dict[str, Any], root: str | None) -> dict[str, Any]:
    """An API or a version, which have ``source`` and ``spec``, with ``notebook``."""
    return {**told, "notebook": notebook_path(root, told.get("source", ""), told.get("spec"))}


def with_version_notebooks(api: dict[str, Any], root: str | None) -> dict[str, Any]:
    """An API with ``notebook``, and with that of each of its versions: another one may have taken the name over."""
    versions = [with_notebook(one, root) if isinstance(one, dict) else one for one in api.get("api_versions") or []]
    return {**with_notebook(api, root), **({"api_versions": versions} if "api_versions" in api else {})}
