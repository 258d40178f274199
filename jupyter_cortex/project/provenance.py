"""Where a deployment comes from: the interpreter, the distributions its code imports, and what of them it requires."""

from __future__ import annotations

import ast
import importlib.metadata
import platform
import sys
from collections.abc import Iterable
from contextlib import suppress

from packaging.utils import canonicalize_name

from ..core.spec import APISpec
from .files import ProjectFile
from .installation import requirements
from .installation.lock import declared
from .installation.needs import LOCK
from .installation.steps import check_conda
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


def check_surroundings(project: Project, spec: APISpec, *, here: bool) -> None:
    """Refuse early what cannot be installed. Raises RequirementsError.

    ``here``: whether replicas are to run on this machine, so that conda must be here.
    """
    dependencies = spec.handler.dependencies
    shipped = {file.path: file for file in project.files}
    if here and dependencies.conda in shipped and shipped[dependencies.conda].size:
        check_conda(dependencies.conda)
    if dependencies.pip in shipped:
        check_lines(shipped[dependencies.pip].read(), dependencies.pip)


def check_lines(content: bytes, shown: str) -> None:
    """Refuse a requirements file (its bytes, and its name for people) with lines that are no requirements. Raises RequirementsError."""
    rows = [(line.number, requirements.why(line.text)) for line in requirements.lines(content) if not line.is_option]
    requirements.check([requirements.Unmet(f"line {number}", *why) for number, why in rows if why], shown)


def unlimited(spec: APISpec, *, here: bool, system: str = sys.platform) -> list[str]:
    """What of ``compute`` this machine cannot hold replicas to: a sentence each. ``here``: they run on this machine."""
    if not (here and spec.compute.mem and system != "linux"):
        return []
    return [f"compute.mem is ignored: only Linux bounds what a process may hold; its replicas may take more than {spec.compute.mem}"]


def undeclared(project: Project, spec: APISpec, imported: dict[str, str]) -> list[str]:
    """What a project's modules import and its requirements.txt does not bring: a sentence each. ``imported``: distribution -> version.

    Nothing of a notebook's, whose surprises name the cells, and nothing where cortex.lock has it all.
    """
    shipped = {file.path: file for file in project.files}
    file = spec.handler.dependencies.pip
    if file not in shipped or LOCK in shipped or project.meta or not imported:
        return []
    known = declared([shipped[name].read() for name in shipped if name == file or name.endswith(".txt")])
    return [
        f"`{name}` is imported but not in {file}; this Python has {version} — add it?"
        for name, version in imported.items()
        if canonicalize_name(name) not in known
    ]
