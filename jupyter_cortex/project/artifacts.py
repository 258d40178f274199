"""The artifacts of a project on the author's machine: which paths they are, where their bytes lie, and what those are.

A document names artifacts by path; what is sent says ``{"path", "sha256", "bytes"}`` of each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.artifacts import SHA256
from ..core.errors import ProjectError
from ..core.readers import printable

#: Bytes of a file that are in memory while it is sent.
CHUNK = 1 << 20
#: A file that changed less than this ago may change once more within the same tick of its clock, unseen (git's rule for its index, too).
SETTLED_NS = 2_000_000_000
#: Files whose digest is remembered; the newest ones.
REMEMBERED = 200


@dataclass(frozen=True)
class Content:
    """What an artifact's file is: 64 hex digits of sha256, its size in bytes, where it lies, and the state in which it was read."""

    sha256: str
    size: int
    source: Path
    state: tuple[int, ...]

    def pieces(self) -> Iterator[bytes]:
        """The file, piece by piece. Raises ProjectError (kind changed) at the end when it is not what was read before."""
        with _reading(self.source.name, self.source), self.source.open("rb") as file:
            left = self.size
            while left and (piece := file.read(min(CHUNK, left))):
                left -= len(piece)
                yield piece
            if left or _state(os.fstat(file.fileno())) != self.state:
                raise _changed(self.source.name)


def paths_of(documents: Iterable[Any]) -> set[str]:
    """The artifacts' paths in entries of cortex.yaml as written; they are left out of the bundle. What is no artifact is refused later."""
    return {path for document in documents for path in _paths(document)}


def sources(documents: Iterable[Any], root: Path) -> dict[str, Path]:
    """Path -> where its file lies when the project's root is ``root``; nothing is looked at."""
    return {path: root / path for path in paths_of(documents)}


def link_into(places: Mapping[str, Path], directory: Path) -> None:
    """Make the artifacts appear below ``directory`` (a check's copy of the project) as symbolic links. Raises ProjectError for a missing one."""
    for path, source in sorted(places.items()):
        _look(path, source)
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.absolute())


def read(documents: Iterable[dict[str, Any]], places: Mapping[str, Path], memory: Path | None = None) -> dict[str, Content]:
    """What each artifact of the documents (which were checked) is, by path. ``memory``: a JSON file that remembers digests of unchanged files.

    A file that is not there but whose sha256 is written needs not be: its content may be where it is sent already. Raises ProjectError with ``kind``
    artifact_missing, not_a_file, unreadable, changed (while it was read) or artifact_differs (from what is written), and ``path``.
    """
    known = _Memory(memory)
    found: dict[str, Content] = {}
    for document in documents:
        for item in document.get("artifacts", ()):
            path, written = _path(item), item if isinstance(item, dict) else {}
            if path not in found:
                if written.get("sha256") and not places[path].exists():
                    continue
                found[path] = known.read(path, places[path])
            _compare(path, written, found[path])
    known.save()
    return found


def sent(document: dict[str, Any], contents: Mapping[str, Content]) -> dict[str, Any]:
    """A copy of the document that says what its artifacts are; the document itself, when it has none."""
    if not document.get("artifacts"):
        return document
    items = []
    for item in document["artifacts"]:
        path = _path(item)
        content = contents.get(path)
        items.append({"path": path, "sha256": content.sha256, "bytes": content.size} if content else item)
    return {**document, "artifacts": items}


def _paths(document: Any) -> Iterator[str]:
    items = document.get("artifacts") if isinstance(document, dict) else None
    for item in items if isinstance(items, list) else ():
        if isinstance(path := item.get("path") if isinstance(item, dict) else item, str):
            yield path.removeprefix("./")


def _path(item: Any) -> str:
    return str(item["path"] if isinstance(item, dict) else item).removeprefix("./")


def _compare(path: str, written: Mapping[str, Any], content: Content) -> None:
    for key, value in (("sha256", content.sha256), ("bytes", content.size)):
        if written.get(key) not in (None, value):
            shown = printable(path)
            sentence = f"{shown} is not the file that the spec names: its {key} is {value}, not {written[key]}. Get that file, or remove the key."
            raise ProjectError(sentence, kind="artifact_differs", path=shown)


def _look(path: str, source: Path) -> os.stat_result:
    """Raises ProjectError when there is no such file."""
    shown = printable(path)
    try:
        status = source.stat()
    except FileNotFoundError:
        where = printable(str(source), 300)
        sentence = f"The artifact {shown} is not there ({where}); write the file, or remove it from artifacts."
        raise ProjectError(sentence, kind="artifact_missing", path=shown) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise ProjectError(f"The artifact {shown} is not a file; list the files one by one, or pack them into one.", kind="not_a_file", path=shown)
    return status


def _state(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file does: a copy that keeps size and time (`cp -p`) still has another inode or ctime."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _changed(path: str) -> ProjectError:
    shown = printable(path)
    return ProjectError(f"{shown} changed while it was read; deploy again when it is written.", kind="changed", path=shown)


def _unreadable(path: str, error: OSError) -> ProjectError:
    shown = printable(path)
    return ProjectError(f"The artifact {shown} cannot be read: {error.strerror or type(error).__name__}.", kind="unreadable", path=shown)


@contextlib.contextmanager
def _reading(path: str, source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from None


class _Memory:
    """Digests of files that have not changed since: 400 MB take 0.3 s to read and hash, 10 GB take 8 s, at each deploy."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._new = path, False
        #: Absolute path -> the state in which it was read, a space, its digest.
        self._known: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, TypeError):
            self._known = dict(json.loads(path.read_text())) if path else {}

    def read(self, path: str, source: Path) -> Content:
        status = _look(path, source)
        key, state = str(source.absolute()), _state(status)
        as_text = "-".join(map(str, state))
        known, _, digest = str(self._known.get(key, "")).partition(" ")
        if known == as_text and SHA256.fullmatch(digest):
            return Content(digest, status.st_size, source, state)
        with _reading(path, source), source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if _state(os.fstat(file.fileno())) != state:
                raise _changed(path)
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS:
            self._known.pop(key, None)
            self._known[key], self._new = f"{as_text} {digest}", True
        return Content(digest, status.st_size, source, state)

    def save(self) -> None:
        """Without it the next deploy is slower, so that it cannot be written is no error."""
        if self._path and self._new:
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                temporary = self._path.with_suffix(f".{os.getpid()}")
                temporary.write_text(json.dumps(dict(list(self._known.items())[-REMEMBERED:])))
                temporary.replace(self._path)
