"""Imports of a notebook that its requirements.txt does not bring."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Iterator

from packaging.utils import canonicalize_name

from ..installation.lock import declared
from .slicing import Slice


def undeclared(found: Slice, requirements: str | None) -> Iterator[tuple[str, str, str]]:
    """(place, module as people know it, version in this kernel) of each, once; none without a requirements.txt, and none of the standard library."""
    if requirements is None:
        return
    imported: dict[str, str] = {}
    for step in found.order:
        for module in _modules(step.node):
            if module not in sys.stdlib_module_names:
                imported.setdefault(module, step.place)
    if not imported:
        return
    by_module, known, told = importlib.metadata.packages_distributions(), declared([requirements.encode()]), set[str]()
    for module, place in imported.items():
        names = dict.fromkeys(by_module.get(module, ()))
        if not names or told.intersection(names) or any(canonicalize_name(name) in known for name in names):
            continue  # a module of the project's, or one of several that a distribution brings
        told.update(names)
        name = next(iter(names))
        yield place, name if name == module else f"{module} ({name})", importlib.metadata.version(name)


def _modules(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in part.names)
        elif isinstance(part, ast.ImportFrom) and part.module and not part.level:
            yield part.module.partition(".")[0]
