"""Which files of a project travel: everything beside the config file, less what is hidden, bytecode, ignored or a sample."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.checks import is_portable
from ..core.errors import ProjectError
from ..core.readers import printable
from .ignore import IgnoreRules

#: The largest project, and so the largest file, in bytes of content; inclusive.
MAX_BYTES = 32 * 1024 * 1024
#: A file above this, a bundle of this size or this many files is asked about first.
ASK_FILE_BYTES = 10 * 1024 * 1024
ASK_BUNDLE_BYTES = 10 * 1024 * 1024
ASK_FILE_COUNT = 1000
#: More files than this do not travel at all; a reader needs some end to what it unpacks.
MAX_FILES = 100_000

IGNORE_FILE = ".cortexignore"
ENV_FILE = ".env"
#: Recorded payloads, for the checks before a deploy; replicas never see them.
SAMPLES_DIRECTORY = "samples"

_BYTECODE = (".pyc", ".pyo", ".pyd")
_DEBUG_PREFIX = "cortex-debug-"

Confirm = Callable[[str], bool]


@dataclass(frozen=True)
class ProjectFile:
    """One file that travels: its posix path below the project's root, its size, and where it is now.

    ``content``: its bytes, for a file that was made (a notebook's module) and is at no ``source``.
    """

    path: str
    size: int
    source: Path
    content: bytes | None = None

    @classmethod
    def made(cls, path: str, content: bytes) -> ProjectFile:
        return cls(path, len(content), Path(path), content)

    def read(self) -> bytes:
        """Raises OSError when it is not there any more."""
        return self.source.read_bytes() if self.content is None else self.content

    @property
    def is_env(self) -> bool:
        """The one hidden file that travels; never inside the bundle."""
        return self.path == ENV_FILE


def list_files(
    config_path: Path, *, confirm: Confirm | None = None, warnings: list[str] | None = None, apart: Collection[str] = ()
) -> list[ProjectFile]:
    """The files that travel with ``config_path``, in lexical order of the walk, ``.env`` last.

    ``apart``: paths that are left out, because they travel by another way (artifacts, a notebook that becomes a module).

    ``confirm`` is asked about large files and many files: no leaves that file out, or raises ProjectError (kind
    ``declined``). Without it nothing is asked and the sentences are appended to ``warnings``.

    Raises ProjectError with ``kind`` deploy_from_top_level_dir, no_such_directory, unreadable, invalid_name,
    symlink_to_directory, broken_symlink, too_large or too_many_files, and ``path``.
    """
    config = Path(os.path.abspath(config_path))
    root = config.parent
    _check_root(root)
    notes = warnings if warnings is not None else []
    files = list(_Walk(root, config, _read_rules(root), confirm, notes, frozenset(apart)).files())
    _check_sizes(files)
    files += env_file(root)
    if needs_count_prompt(len(files)):
        sentence = f"The project has {len(files):,} files."
        _ask(f"{sentence} Deploy all of them?", sentence, confirm, notes)
    return files


def env_file(root: Path) -> list[ProjectFile]:
    """The project's ``.env``, if there is one; whatever .cortexignore says, and apart from the bundle."""
    env = root / ENV_FILE
    try:
        return [ProjectFile(ENV_FILE, env.stat().st_size, env)] if env.is_file() else []
    except OSError as error:
        raise _unreadable(ENV_FILE, error) from None


def confirm_bundle(bundle_bytes: int, file_count: int, *, confirm: Confirm | None = None, warnings: list[str] | None = None) -> None:
    """Ask about a large bundle as :func:`list_files` asks about many files; not if those were asked about already."""
    if needs_bundle_prompt(bundle_bytes, file_count):
        sentence = f"The project's bundle has {megabytes(bundle_bytes)}."
        _ask(f"{sentence} Deploy it?", sentence, confirm, warnings if warnings is not None else [])


def needs_file_prompt(size: int) -> bool:
    return size > ASK_FILE_BYTES


def needs_count_prompt(file_count: int) -> bool:
    """``file_count`` includes ``.env``."""
    return file_count >= ASK_FILE_COUNT


def needs_bundle_prompt(bundle_bytes: int, file_count: int) -> bool:
    return bundle_bytes >= ASK_BUNDLE_BYTES and not needs_count_prompt(file_count)


def megabytes(size: int) -> str:
    """``1.5 MiB``, ``312 bytes``"""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 / 10 else f"{size:,} bytes"


def _ask(question: str, warning: str, confirm: Confirm | None, warnings: list[str]) -> None:
    if confirm is None:
        warnings.append(warning)
    elif not confirm(question):
        raise ProjectError("Nothing was deployed: you answered no.", kind="declined")


def _check_root(root: Path) -> None:
    """Refuse to ship a home directory or a whole disk by mistake, and a root that is not there."""
    real = os.path.realpath(root)
    home = os.path.realpath(os.path.expanduser("~"))
    if real in (home, Path(real).anchor):
        raise ProjectError(
            f"Everything beside the config file travels, and that would be all of {printable(str(root))}: "
            "move the project into a directory of its own.",
            kind="deploy_from_top_level_dir",
            path=printable(str(root)),
        )
    if not root.is_dir():
        shown = printable(str(root))
        raise ProjectError(f"{shown} is not a directory; check the path.", kind="no_such_directory", path=shown)


def _read_rules(root: Path) -> IgnoreRules:
    path = root / IGNORE_FILE
    try:
        return IgnoreRules(path.read_bytes() if path.is_file() else b"")
    except OSError as error:
        raise _unreadable(IGNORE_FILE, error) from None


def _unreadable(path: str, error: OSError) -> ProjectError:
    shown = printable(path)
    reason = error.strerror or type(error).__name__
    return ProjectError(f"{shown or 'The project'} cannot be read: {reason}.", kind="unreadable", path=shown)


@dataclass
class _Walk:
    """One pass over a project, top-down; an excluded directory is not entered."""

    root: Path
    config: Path
    rules: IgnoreRules
    confirm: Confirm | None
    warnings: list[str]
    apart: frozenset[str]

    def files(self) -> Iterator[ProjectFile]:
        pending = self._entries(str(self.root), "")  # a stack of our own: a tree may be deeper than Python's
        while pending:
            path, entry = pending.pop()
            if entry.is_dir(follow_symlinks=False):
                if not self._excludes_directory(path, entry.name):
                    pending += self._entries(entry.path, path + "/")
            elif not self._excludes_file(path, entry.name):
                file = self._file(path, entry)
                if file is not None:
                    yield file

    def _entries(self, directory: str, prefix: str) -> list[tuple[str, os.DirEntry[str]]]:
        """The content of a directory, last name first, as the stack wants it."""
        try:
            with os.scandir(directory) as entries:
                return sorted(((prefix + entry.name, entry) for entry in entries), key=lambda pair: pair[0], reverse=True)
        except OSError as error:
            raise _unreadable(prefix, error) from None

    def _excludes_directory(self, path: str, name: str) -> bool:
        built_in = name.startswith((_DEBUG_PREFIX, ".")) or name == "__pycache__" or path == SAMPLES_DIRECTORY
        return built_in or self.rules.excludes(path, is_directory=True)

    def _excludes_file(self, path: str, name: str) -> bool:
        built_in = path == self.config.name or path in self.apart or name.startswith((_DEBUG_PREFIX, ".")) or name.endswith(_BYTECODE)
        return built_in or self.rules.excludes(path, is_directory=False)

    def _file(self, path: str, entry: os.DirEntry[str]) -> ProjectFile | None:
        """The file behind ``entry``, a link's target included; None when it does not travel."""
        shown = printable(path)
        if not is_portable(path):
            sentence = f"The path {shown} cannot travel; rename it, or add it to .cortexignore."
            raise ProjectError(sentence, kind="invalid_name", path=shown)
        try:
            status = entry.stat()
        except OSError as error:
            if entry.is_symlink():
                sentence = f"The link {shown} leads nowhere; mend it, or add it to .cortexignore."
                raise ProjectError(sentence, kind="broken_symlink", path=shown) from None
            raise _unreadable(path, error) from None
        if stat.S_ISDIR(status.st_mode):
            sentence = f"The link {shown} leads to a directory and is not followed; copy it, or add it to .cortexignore."
            raise ProjectError(sentence, kind="symlink_to_directory", path=shown)
        if not stat.S_ISREG(status.st_mode):
            self.warnings.append(f"{shown} is left out: it is not a regular file.")
            return None
        if needs_file_prompt(status.st_size):
            sentence = f"{shown} has {megabytes(status.st_size)}."
            if self.confirm is None:
                self.warnings.append(sentence)
            elif not self.confirm(f"{sentence} Deploy it with the project?"):
                return None
        return ProjectFile(path, status.st_size, Path(entry.path))


def _check_sizes(files: list[ProjectFile]) -> None:
    """Refuse too much, naming the file at which it is too much and the five largest."""
    if len(files) > MAX_FILES:
        sentence = f"The project has {len(files):,} files; the limit is {MAX_FILES:,}. Add some to .cortexignore."
        raise ProjectError(sentence, kind="too_many_files")
    limit, total = megabytes(MAX_BYTES), 0
    for file in files:
        total += file.size
        if total <= MAX_BYTES:
            continue
        shown = printable(file.path)
        largest = sorted(files, key=lambda other: (-other.size, other.path))[:5]
        listed = ", ".join(f"{printable(other.path)} ({megabytes(other.size)})" for other in largest)
        subject = (
            f"{shown} has {file.size:,} bytes; the limit of a file"
            if file.size > MAX_BYTES
            else f"The project has {megabytes(sum(other.size for other in files))}; its limit"
        )
        remedy = "List large files under artifacts in the spec, and add what is not needed to .cortexignore"
        sentence = f"{subject} is {limit} ({MAX_BYTES:,} bytes). {remedy}; largest: {listed}."
        raise ProjectError(sentence, kind="too_large", path=shown)
