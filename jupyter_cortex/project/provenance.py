"""Where a deployment comes from: the interpreter, the distributions its code imports, and whether requirements.txt is met."""

from __future__ import annotations

import ast
import importlib.metadata
import platform
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from packaging.markers import InvalidMarker
from packaging.requirements import InvalidRequirement, Requirement

from ..core.errors import RequirementsError
from .files import ProjectFile
from .project import Project

#: A project with more code than this is scanned in part; what it imports is a convenience for readers.
SCAN_BYTES = 4 * 1024 * 1024


def interpreter() -> dict[str, str]:
    """This interpreter, as a deployment records it."""
    return {"interpreter": sys.executable, "python_version": platform.python_version(), "host": platform.node()}


def imported_modules(sources: Iterable[bytes]) -> set[str]:
    """Top-level names that Python sources import; what does not parse is left out (the gate says it better)."""
    modules: set[str] = set()
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    return modules


def distributions(files: Iterable[ProjectFile]) -> dict[str, str]:
    """Distribution -> version of what the project's modules import from this environment."""
    sources, size, own = [], 0, set()
    for file in files:
        if file.path.endswith(".py"):
            own.add(file.path.partition("/")[0].removesuffix(".py"))
            if size < SCAN_BYTES:
                size += file.size
                with suppress(OSError):  # a file that vanished is named when it is packed
                    sources.append(file.read())
    modules = imported_modules(sources) - sys.stdlib_module_names - own - {"cortex_internal"}
    if not modules:
        return {}  # without reading the metadata of everything that is installed, which takes 0.1 s and more
    by_module = importlib.metadata.packages_distributions()
    names = {name for module in modules for name in by_module.get(module, ())}
    return {name: importlib.metadata.version(name) for name in sorted(names)}


def check_requirements(content: bytes, shown: str) -> None:
    """Refuse a requirements file (its bytes, and its name for people) that this interpreter does not satisfy.

    Raises RequirementsError listing what is missing or has another version. Options, URLs and nested files are not judged.
    """
    problems = []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        if not text or text.startswith("-") or "://" in text.partition("@")[0]:
            continue
        if problem := _problem(text):
            problems.append(f"line {number}: {problem}")
    if problems:
        more = f" (and {len(problems) - 10} more)" if len(problems) > 10 else ""
        raise RequirementsError(
            f"{shown} is not satisfied by {sys.executable}: {'; '.join(problems[:10])}{more}. "
            f"Install it with `{sys.executable} -m pip install -r {shown}`",
            path=shown,
            missing=problems,
        )


def _problem(text: str) -> str | None:
    try:
        requirement = Requirement(text.split(" --", 1)[0].rstrip("\\ "))
        if requirement.marker is not None and not requirement.marker.evaluate():
            return None
    except (InvalidRequirement, InvalidMarker):
        return f"{text[:60]!r} is not a requirement"
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name}{requirement.specifier} is not installed"
    if requirement.url is None and not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name}{requirement.specifier} is wanted, {version} is installed"
    return None


def check_surroundings(project: Project, spec: Any) -> list[str]:
    """Refuse an unsatisfied requirements.txt; notes on the files that are not run. Raises RequirementsError."""
    dependencies = spec.handler.dependencies
    shipped = {file.path: file for file in project.files}
    if dependencies.pip in shipped:
        check_requirements(shipped[dependencies.pip].read(), dependencies.pip)
    notes = []
    for name, what in ((dependencies.conda, "its packages"), (dependencies.shell, "what it sets up")):
        if name in shipped or (project.root / name).is_file():
            notes.append(f"{name} is not run: {what} must be in this Python's environment already")
    return notes
