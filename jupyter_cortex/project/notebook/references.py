"""What a module needs beside itself: the local modules that it imports and the files that it names."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Entries of one directory that travels because it is named; more are data, and want a cortex.yaml that says what travels.
MAX_ENTRIES = 2000
_IMPORTERS = frozenset({"import_module", "__import__"})
_PATH_MAKERS = frozenset({"Path", "PurePath", "join", "abspath", "expanduser", "str", "fspath", "PosixPath"})


@dataclass
class References:
    """``files``: path below the root -> why it travels. ``outside``: (path, line) of named files that are elsewhere on this machine. ``cut``:
    directories that hold more than travels."""

    files: dict[str, str] = field(default_factory=dict)
    outside: list[tuple[str, int]] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)


def references(source: str, root: Path, *, skip: frozenset[str] = frozenset()) -> References:
    """What the module ``source`` imports and names below ``root``, transitively through local modules. ``skip``: paths that never travel."""
    root = Path(os.path.abspath(root))
    found = References()
    waiting, seen = [(source, "handler.py")], set(skip)
    while waiting:
        text, path = waiting.pop()
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for name in _imported(tree, path):
            for module in _module_files(found, root, name):
                if module not in seen:
                    seen.add(module)
                    found.files[module] = f"imported by {path}"
                    if module.endswith(".py"):
                        waiting.append((_read(root / module), module))
        for value, line, certain in _named(tree, path):
            _note(found, root, value, line, path, seen, certain)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def absolute(node: ast.ImportFrom, package: list[str]) -> str:
    """The module that is meant within a package: each dot beyond the first goes one up."""
    base = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def _imported(tree: ast.AST, path: str) -> Iterator[str]:
    """Absolute dotted names; relative ones are resolved against ``path``."""
    package = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node, package)
            if module:
                yield module
            yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and getattr(node.func, "attr", getattr(node.func, "id", "")) in _IMPORTERS:
            yield from (name for name in [_text(node.args[0], {})] if name and not name.startswith("."))


def _module_files(found: References, root: Path, name: str) -> list[str]:
    """The files below the root that importing ``name`` runs or may look for: a module, or all of its top package."""
    top = name.partition(".")[0]
    if top and (root / top).is_dir() and (root / top / "__init__.py").is_file():
        return _below(found, root, top)
    if (root / f"{top}.py").is_file():
        return [f"{top}.py"]
    module = root / name.replace(".", "/")  # without __init__.py a directory is a package all the same
    if top and (root / top).is_dir() and any(place.is_file() or any(place.glob("*.py")) for place in (module.with_suffix(".py"), module, root / top)):
        return _below(found, root, top)
    return []


def _below(references: References, root: Path, directory: str) -> list[str]:
    """The files of a directory, hidden ones left out; neither files nor directories beyond the limit are looked at."""
    found: list[str] = []
    for looked, (base, directories, names) in enumerate(os.walk(root / directory)):
        directories[:] = sorted(name for name in directories if not name.startswith(".") and name != "__pycache__")
        visible = (Path(base) / name for name in sorted(names)[: MAX_ENTRIES + 1] if not name.startswith(".") and not name.endswith(".pyc"))
        found += [path.relative_to(root).as_posix() for path in visible if path.is_file()]
        if len(found) > MAX_ENTRIES or looked > MAX_ENTRIES:
            references.cut.add(directory)
            break
    return found[:MAX_ENTRIES]


def _named(tree: ast.Module, path: str) -> Iterator[tuple[str, int, bool]]:
    """(text, line, certain) of every string that may be a path: passed to a call, assigned, or a default; not ``certain``: an item of a list or dict.

    Keys, comparisons and docstrings are none.
    """
    constants: dict[str, str] = {"__file__": path}
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and (text := _text(node.value, constants)) is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            constants.update({target.id: text for target in targets if isinstance(target, ast.Name)})
    for part in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(part, ast.Call):
            values = [*part.args, *(keyword.value for keyword in part.keywords)]
            if isinstance(part.func, ast.Attribute):
                values.append(part.func.value)  # Path("values.json").read_text()
        elif isinstance(part, (ast.Assign, ast.AnnAssign, ast.Return)) and part.value is not None:
            values = [part.value]
        elif isinstance(part, ast.arguments):
            values = [*part.defaults, *filter(None, part.kw_defaults)]
        elif isinstance(part, ast.withitem):
            values = [part.context_expr]
        for value in values:
            if (text := _text(value, constants)) is not None:
                yield text, value.lineno, True
        items = part.values if isinstance(part, ast.Dict) else part.elts if isinstance(part, (ast.List, ast.Tuple, ast.Set)) else []
        for item in items:
            if (text := _text(item, constants)) is not None:
                yield text, item.lineno, False


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
    if isinstance(node, ast.Attribute) and node.attr == "parent":
        return _parent(_text(node.value, constants))
    called = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and called in ("resolve", "absolute", "joinpath"):
        parts = [_text(part, constants) for part in [node.func.value, *node.args]]
        return None if None in parts else "/".join(part for part in parts if part)
    if isinstance(node, ast.Call) and called == "dirname" and len(node.args) == 1:
        return _parent(_text(node.args[0], constants))
    if isinstance(node, ast.Call) and called in _PATH_MAKERS and node.args:
        parts = [_text(argument, constants) for argument in node.args]
        return None if None in parts else "/".join(part.rstrip("/") for part in parts if part is not None)
    return None


def _parent(text: str | None) -> str | None:
    return None if text is None else os.path.dirname(text) or "."


def _note(found: References, root: Path, value: str, line: int, path: str, seen: set[str], certain: bool) -> None:
    if not value or len(value) > 500 or "\n" in value or "\0" in value or "://" in value or value in (".", "..", "/"):
        return
    try:
        target = Path(os.path.normpath(root / os.path.expanduser(value)))
        exists = target.is_file() or (certain and target.is_dir())
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
    for name in [relative] if target.is_file() else _below(found, root, relative):
        if name not in seen:
            seen.add(name)
            found.files[name] = f"named in {path}, line {line}"
