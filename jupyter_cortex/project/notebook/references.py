"""What a module needs beside itself: the local modules that it imports and the files that it names."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Entries of one directory that travels because it is named; more are data, and want a cortex.yaml that says what travels.
MAX_ENTRIES = 2000
_PATH_MAKERS = frozenset({"Path", "PurePath", "join", "abspath", "expanduser", "str", "fspath", "PosixPath"})


@dataclass
class References:
    """``files``: path below the root -> why it travels. ``outside``: (path, line) of named files that are elsewhere on this machine."""

    files: dict[str, str] = field(default_factory=dict)
    outside: list[tuple[str, int]] = field(default_factory=list)


def references(source: str, root: Path, *, skip: frozenset[str] = frozenset()) -> References:
    """What the module ``source`` imports and names below ``root``, transitively through local modules. ``skip``: paths that never travel."""
    found = References()
    waiting, seen = [(source, "handler.py")], set(skip)
    while waiting:
        text, path = waiting.pop()
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for name in _imported(tree, path):
            for module in _module_files(root, name):
                if module not in seen:
                    seen.add(module)
                    found.files[module] = f"imported by {path}"
                    if module.endswith(".py"):
                        waiting.append(((root / module).read_text("utf-8", "replace"), module))
        for value, line in _named(tree):
            _note(found, root, value, line, path, seen)
    return found


def _imported(tree: ast.AST, path: str) -> Iterator[str]:
    """Absolute dotted names; relative ones are resolved against ``path``."""
    package = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module:
                yield module
            yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names)


def _module_files(root: Path, name: str) -> list[str]:
    """The files below the root that importing ``name`` runs or may look for: a module, or all of its top package."""
    top = name.partition(".")[0]
    if (root / f"{top}.py").is_file():
        return [f"{top}.py"]
    if top and (root / top).is_dir() and (any((root / top).glob("*.py")) or (root / top / "__init__.py").exists()):
        return _below(root, top)
    return []


def _below(root: Path, directory: str) -> list[str]:
    found = []
    for base, directories, names in os.walk(root / directory):
        directories[:] = sorted(name for name in directories if not name.startswith(".") and name != "__pycache__")
        found += [
            (Path(base) / name).relative_to(root).as_posix() for name in sorted(names) if not name.startswith(".") and not name.endswith(".pyc")
        ]
        if len(found) > MAX_ENTRIES:
            break
    return found[:MAX_ENTRIES]


def _named(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(text, line) of every string that may be a path: passed to a call, assigned, or a default. Keys, comparisons and docstrings are none."""
    constants: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and (text := _text(node.value, constants)) is not None:
            constants.update({target.id: text for target in node.targets if isinstance(target, ast.Name)})
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call):
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            if isinstance(node.func, ast.Attribute):
                values.append(node.func.value)  # Path("values.json").read_text()
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.Return)) and node.value is not None:
            values = [node.value]
        elif isinstance(node, ast.arguments):
            values = [*node.defaults, *filter(None, node.kw_defaults)]
        for value in values:
            if (text := _text(value, constants)) is not None:
                yield text, value.lineno


def _text(node: ast.expr, constants: dict[str, str]) -> str | None:
    """The text of a path expression that constants alone make."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Div)):
        left, right = _text(node.left, constants), _text(node.right, constants)
        if left is None or right is None:
            return None
        return left + right if isinstance(node.op, ast.Add) else f"{left.rstrip('/')}/{right}"
    if isinstance(node, ast.JoinedStr):
        parts = [_text(part.value if isinstance(part, ast.FormattedValue) else part, constants) for part in node.values]
        return None if None in parts else "".join(part for part in parts if part is not None)
    if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _PATH_MAKERS and node.args:
        parts = [_text(argument, constants) for argument in node.args]
        return None if None in parts else "/".join(part.rstrip("/") for part in parts if part is not None)
    return None


def _note(found: References, root: Path, value: str, line: int, path: str, seen: set[str]) -> None:
    if not value or len(value) > 500 or "\n" in value or "\0" in value or "://" in value or value in (".", "..", "/"):
        return
    try:
        target = Path(os.path.normpath(root / os.path.expanduser(value)))
        exists = target.exists()
    except (OSError, ValueError, RuntimeError):
        return
    if not exists or target == root:
        return
    if root not in target.parents:
        if ("/" in value or "." in value) and not any(row[0] == value for row in found.outside) and not value.startswith(("/dev/", "/proc/", "/tmp")):
            found.outside.append((value, line))
        return
    relative = target.relative_to(root).as_posix()
    if any(part.startswith(".") for part in relative.split("/")):
        return
    for name in [relative] if target.is_file() else _below(root, relative):
        if name not in seen:
            seen.add(name)
            found.files[name] = f"named in {path}, line {line}"
