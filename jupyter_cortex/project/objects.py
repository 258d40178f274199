"""`%cortex save`: an object of the kernel as a file that the Handler can load, and the line that loads it."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ProjectError
from ..core.readers import printable
from .files import megabytes
from .formats import FORMATS, choose, framework_format, loading_line, tied
from .notebook.lines import Loading


@dataclass(frozen=True)
class Saved:
    """``line`` is what loads the object; ``warning``: what the file is tied to."""

    name: str
    path: Path
    size: int
    line: str
    warning: str = ""


def save(root: Path, name: str, value: Any, target: str, *, force: bool = False, notebook: str | None = None) -> Saved:
    """Write ``value`` to ``<name>.<suffix>`` in ``root``, a file or (a SavedModel) a directory. A file that an earlier save wrote is replaced in
    one step, anybody else's only with ``force``; so is what another notebook of this directory has saved, for its Handler loads it.

    ``notebook``: the file's name of the one that saves, None where it is not known.

    Raises ProjectError (kind ``unsavable``, ``unwritable`` or ``exists``).
    """
    chosen = choose(value)
    form = FORMATS[chosen]
    path = root / f"{name}{form.suffix}"
    ours = _Ours(root)
    if path.exists() and not force and not ours.wrote(path):
        raise ProjectError(
            f"{printable(path.name)} is there already and was not written by `%cortex save`; choose another name, or replace it with --force",
            kind="exists",
            path=path.name,
        )
    if not force and (other := ours.another(name, notebook)):
        file, owner = other
        raise ProjectError(
            f"{printable(file)} is what {printable(owner)} has saved as {name}, and its Handler may load it; "
            "choose another name (`%cortex save NAME=OBJECT`), or replace it with --force",
            kind="exists",
            path=file,
        )
    temporary = root / f".{os.getpid()}.{name}{form.suffix}"  # some know the format by the name's end
    try:
        form.write(value, temporary)
        if temporary.is_dir() and path.exists():
            _remove(path)
        os.replace(temporary, path)
    except OSError as error:
        raise ProjectError(f"{printable(path.name)} cannot be written: {error.strerror}; choose another directory", kind="unwritable") from None
    except Exception as error:
        raise ProjectError(
            f"{printable(name)} cannot be saved ({type(error).__name__}: {error}); save what can be written, and make the rest in the Handler",
            kind="unsavable",
        ) from None
    finally:
        _remove(temporary)
    ours.settle(name, path, notebook)
    return Saved(name, path, _stamp(path)[0], loading_line(chosen, value, target or name, path.name), tied(chosen, value))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Ours:
    """Which files `%cortex save` wrote, and for which notebook, in a hidden file beside them: nobody else's may be replaced or removed."""

    def __init__(self, root: Path) -> None:
        self._root, self._path = root, root / ".cortex-saved.json"
        #: By the file's name: its stamp and, where it is known, the notebook.
        self._known = self._read()

    def _read(self) -> dict[str, list[Any]]:
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return {name: about for name, about in known.items() if isinstance(about, list)} if isinstance(known, dict) else {}

    def wrote(self, path: Path) -> bool:
        """Whether the file is as a save left it."""
        try:
            return self._known.get(path.name, [])[:2] == _stamp(path)
        except OSError:
            return False

    def another(self, name: str, notebook: str | None) -> tuple[str, str] | None:
        """A file of this object, in whatever format, and the other notebook, still there, for which it was written."""
        for form in FORMATS.values():
            path = self._root / f"{name}{form.suffix}"
            owner = (self._known.get(path.name) or [])[2:]
            if notebook and owner and owner != [notebook] and path.exists() and (self._root / str(owner[0])).is_file():
                return path.name, str(owner[0])
        return None

    def settle(self, name: str, kept: Path, notebook: str | None) -> None:
        """Note what was written, and remove what an earlier save of the same object wrote in another format: it would be found instead."""
        # Read anew: writing an object may take minutes, and other notebooks save theirs meanwhile.
        self._known = self._read()
        for form in FORMATS.values():
            other = self._root / f"{name}{form.suffix}"
            if other != kept and other.exists() and self.wrote(other):
                _remove(other)
                del self._known[other.name]
        owner = [notebook] if notebook else (self._known.get(kept.name) or [])[2:]
        self._known[kept.name] = [*_stamp(kept), *owner]
        temporary = self._path.with_name(f".{os.getpid()}{self._path.name}")
        try:
            temporary.write_text(json.dumps(self._known))
            os.replace(temporary, self._path)
        except OSError:  # then the next save asks for --force
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _stamp(path: Path) -> list[int]:
    """Bytes, and when (ns) it was last written; of a directory, of all that is in it. Raises OSError."""
    files = [file.stat() for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path.stat()]
    return [sum(status.st_size for status in files), max((status.st_mtime_ns for status in files), default=0)]


def loading_from(root: Path) -> Loading:
    """Finds the file of a saved object in ``root``, the newest when there are several, and the line that loads it."""

    def line(name: str, target: str) -> str:
        found = [(root / f"{name}{form.suffix}", form) for form in FORMATS.values() if (root / f"{name}{form.suffix}").exists()]
        if not found:
            return ""
        path, form = max(found, key=lambda pair: pair[0].stat().st_mtime)
        return form.line.format(target=target, path=path.name)

    return line


def add_artifact(config: Path, name: str, path: str) -> bool:
    """Name a large file under ``artifacts`` of the API ``name`` in a cortex.yaml, leaving everything else as the author wrote it.

    False when the text is not of a shape that can be edited safely; then the author has to do it. Raises nothing for that.
    """
    import yaml

    text = config.read_bytes().decode("utf-8")
    before = yaml.safe_load(text)
    node = yaml.compose(text)
    if not isinstance(node, yaml.SequenceNode) or not isinstance(before, list):
        return False
    at = next((index for index, entry in enumerate(before) if isinstance(entry, dict) and entry.get("name") == name), None)
    entry = node.value[at] if at is not None else None
    if at is None or not isinstance(entry, yaml.MappingNode) or entry.flow_style:
        return False
    known = before[at].get("artifacts") or []
    if path in known or any(isinstance(one, dict) and one.get("path") == path for one in known):
        return True
    end = "\r" if "\r\n" in text else ""
    lines = (text if text.endswith("\n") else f"{text}{end}\n").split("\n")
    found = next((pair for pair in entry.value if pair[0].value == "artifacts"), None)
    indent = " " * entry.start_mark.column
    if found is None:
        new, where = [f"{indent}artifacts:", f"{indent}  - {path}"], _end_of(entry, lines)
    elif isinstance(found[1], yaml.SequenceNode) and found[1].value and not found[1].flow_style:
        new, where = [f"{' ' * found[1].start_mark.column}- {path}"], _end_of(found[1], lines)
    else:
        return False
    changed = "\n".join([*lines[:where], *(line + end for line in new), *lines[where:]])
    wanted = json.loads(json.dumps(before, default=str))
    wanted[at].setdefault("artifacts", []).append(path)
    try:
        if json.loads(json.dumps(yaml.safe_load(changed), default=str)) != wanted:
            return False
    except yaml.YAMLError:
        return False
    _replace(config.resolve(), changed.encode())
    return True


def _replace(file: Path, data: bytes) -> None:
    """Write a file of the author's so that an interrupt leaves the old or the new one, not a half."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        shutil.copymode(file, beside)
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _end_of(node: Any, lines: list[str]) -> int:
    """The line behind a node, without the blank lines and comments that YAML counts to it."""
    end = node.end_mark.line + (1 if node.end_mark.column else 0)
    while end > 0 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return end


def files_above(saved: Saved, size: int) -> list[str]:
    """The files of what was saved, one or a directory of them, that have more bytes than ``size``; relative to the project."""
    files = sorted(saved.path.rglob("*")) if saved.path.is_dir() else [saved.path]
    return [file.relative_to(saved.path.parent).as_posix() for file in files if file.is_file() and file.stat().st_size > size]


def own_file(name: str, value: Any) -> str:
    """The file that an object of a framework with a format of its own would become, "" for every other."""
    own = framework_format(value)
    return f"{name}{FORMATS[own].suffix}" if own else ""


def describe(saved: Saved) -> str:
    return f"{saved.path.name}, {megabytes(saved.size)}"
