"""cortex.lock: the exact versions that this interpreter has of what a project needs, as a file of its bundle."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import posixpath
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ...core.errors import RequirementsError
from ..files import ProjectFile
from . import requirements
from .needs import LOCK

if TYPE_CHECKING:  # a locked Python is described by this module in processes that have no use for these
    from ...core.spec import APISpec
    from ..project import Project

#: What replicas get in another way: from the interpreter that has it, so that they are always as new as their supervisor.
OURS = "jupyter-cortex"
#: Options of a requirements.txt that say where and how to look; an installer of the locked versions must look there as well.
_KEPT = ("-i", "--index-url", "--extra-index-url", "--no-index", "-f", "--find-links", "--trusted-host", "--pre", "--no-binary", "--only-binary")


def closure(asked: Iterable[Requirement]) -> dict[str, importlib.metadata.Distribution]:
    """Distributions of this interpreter that these need, themselves included: canonical name -> distribution. What is not installed is left out."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(asked)
    while waiting:
        one = waiting.pop()
        key = canonicalize_name(one.name), frozenset(one.extras)
        if key in seen or key[0] == OURS:
            continue
        seen.add(key)
        try:
            found[key[0]] = importlib.metadata.distribution(one.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for needed in map(Requirement, found[key[0]].requires or ()):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *one.extras)):
                waiting.append(needed)
    return found


def asked_by(content: bytes) -> list[Requirement]:
    """The requirements of a file's own lines that count on this machine; what cannot be read is left out."""
    found = []
    for line in requirements.lines(content):
        try:
            one = requirements.requirement(line.text)
            if one is not None and (one.marker is None or one.marker.evaluate()):
                found.append(one)
        except ValueError:
            continue
    return found


def declared(files: Iterable[bytes]) -> frozenset[str]:
    """Canonical names of what these requirements bring, as far as this interpreter knows: they, and what they need."""
    asked = [one for content in files for one in asked_by(content)]
    return frozenset({canonicalize_name(one.name) for one in asked} | set(closure(asked)) | {OURS})


def locked(project: Project, specs: Iterable[APISpec], imported: dict[str, str]) -> Project:
    """The project with a cortex.lock of its requirements and of what its modules import (``imported``: distribution -> version), as they are here.

    Raises RequirementsError for what this interpreter does not have, has in another version, or has from a directory of this machine.
    """
    asked, options = [Requirement(name) for name in imported], dict[str, None]()
    shipped = {file.path: file for file in project.files}
    for name in sorted({spec.handler.dependencies.pip for spec in specs} & set(shipped)):
        for file, content in _with_named(shipped, name):
            _refuse_unmet(content, file)
            asked += asked_by(content)
            options |= dict.fromkeys(line.text for line in requirements.lines(content) if line.text.startswith(_KEPT))
    pins = [_pin(one) for _, one in sorted(closure(asked).items())]
    head = f"# Made by `cortex deploy --lock` with Python {platform.python_version()}: what the project needs, as it was installed there."
    text = "\n".join([head, *options, *pins, ""])
    return replace(project, files=[*(file for file in project.files if file.path != LOCK), ProjectFile.made(LOCK, text.encode())])


def _with_named(shipped: dict[str, ProjectFile], name: str, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """A requirements file and those that it names with ``-r``, as they travel. Raises RequirementsError."""
    content = shipped[name].read()
    yield name, content
    for line in requirements.lines(content):
        words = requirements.words_of(line.text)
        if not line.is_option or words[0] not in ("-r", "--requirement", "-e", "--editable"):
            continue
        if words[0] in ("-e", "--editable"):
            raise RequirementsError(f"--lock cannot record {name}, line {line.number}: {line.text[:60]} is a directory of this machine", path=name)
        nested = posixpath.normpath(posixpath.join(posixpath.dirname(name), words[-1]))
        if nested not in shipped or depth >= requirements.DEEPEST:
            raise RequirementsError(f"--lock cannot read {words[-1]} ({name}, line {line.number}): no such file travels with the project", path=name)
        yield from _with_named(shipped, nested, depth + 1)


def _refuse_unmet(content: bytes, name: str) -> None:
    rows = []
    for line in requirements.lines(content):
        if not line.is_option and (why := requirements.why(line.text)):
            rows.append(f"line {line.number}: {why[0]}")
    if rows:
        raise RequirementsError(
            f"--lock records what this Python has, and it does not satisfy {name}: {'; '.join(rows[:10])}. Install it here "
            f"(`{sys.executable} -m pip install -r {name}`), or deploy without --lock",
            path=name,
            missing=rows,
        )


def _pin(one: importlib.metadata.Distribution) -> str:
    """``name==version``, or the address that it came from."""
    name = one.metadata["Name"]
    came_from = json.loads(one.read_text("direct_url.json") or "{}")
    url = came_from.get("url", "")
    if not url:
        return f"{name}=={one.version}"
    if "dir_info" in came_from or url.startswith("file:"):
        raise RequirementsError(
            f"--lock cannot record {name}: it is installed from {url}, which other machines do not have. Put the module into the project, or "
            "install a released version",
            missing=[name],
        )
    if vcs := came_from.get("vcs_info"):
        return f"{name} @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"{name} @ {url}"
