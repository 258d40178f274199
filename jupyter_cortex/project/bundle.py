"""A project as one deterministic archive, and back: ``project/`` has the files, ``meta/`` what else is kept.

The archive is a zip of plain files with a fixed time and no permissions. The digest is over the files below
``project/`` alone, not over the zip's bytes: another zlib may compress differently.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.checks import is_portable
from ..core.errors import ProjectError
from ..core.readers import printable
from .files import ENV_FILE, MAX_BYTES, MAX_FILES, ProjectFile, megabytes

PROJECT = "project/"
META = "meta/"
#: What an archive may unpack to: a full project, and as much again beside it.
MAX_UNPACKED = 2 * MAX_BYTES

_EPOCH = (1980, 1, 1, 0, 0, 0)  #: the earliest time that a zip can say
_CHUNK = 256 * 1024
_ENCRYPTED = 0x1
_ENTRY = b"PK\x01\x02"  #: what each entry of a zip's directory begins with


@dataclass(frozen=True)
class Bundle:
    """An archive, the digest of its project, and the project's paths (sorted, without ``project/``)."""

    data: bytes
    digest: str
    names: list[str]


def pack(files: Iterable[ProjectFile], *, meta: Mapping[str, bytes] | None = None) -> Bundle:
    """Pack ``files``, except ``.env``, and ``meta`` (relative path → content). The same content gives the same bytes.

    Raises ProjectError with ``kind`` vanished, changed or unreadable when a file is not what was listed, and with
    those of :func:`digest_of` for names and sizes.
    """
    contents: dict[str, bytes] = {}
    for file in files:
        if not file.is_env:
            _add(contents, PROJECT + file.path, _read(file))
    for name, content in (meta or {}).items():
        _add(contents, META + name, content)
    _check_tree(contents)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents, key=str.encode):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            # A plain file of DOS: no permission bits. Without any attribute zipfile would put in those of Unix.
            member.create_system, member.external_attr = 0, 0x20
            archive.writestr(member, contents[name])
    return Bundle(buffer.getvalue(), _digest(contents), _names(contents))


def digest_of(data: bytes) -> str:
    """The digest (sha256, 64 hex digits) of the project in an archive, made from its contents.

    Raises ProjectError with ``kind`` invalid_archive, invalid_name, duplicate, too_many_files or too_large.
    """
    return _digest(_contents(data))


def names(data: bytes) -> list[str]:
    """The project's paths in an archive that :func:`digest_of` has accepted before; nothing is unpacked."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return _names(archive.namelist())


def read(data: bytes, path: str) -> bytes:
    """One of the project's files out of an archive that :func:`digest_of` has accepted before. Raises KeyError where there is no such file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(PROJECT + path)


def unpack(data: bytes, target: Path) -> list[str]:
    """Unpack an archive into ``target``, which must not exist; the project's paths, as in :attr:`Bundle.names`.

    The files are at ``target/project/…`` and ``target/meta/…``. The directory appears complete or not at all. Raises
    ProjectError as :func:`digest_of` does, and with ``kind`` target_exists or unwritable.
    """
    contents = _contents(data)
    target = Path(os.path.abspath(target))
    shown = printable(target.name)
    staging: str | None = None
    try:
        if os.path.lexists(target):
            raise ProjectError(f"{shown} exists already; unpack into a new directory.", kind="target_exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = tempfile.mkdtemp(prefix=".unpack-", dir=target.parent)
        _write(contents, Path(staging))
        os.rename(staging, target)
        staging = None
    except (OSError, ValueError) as error:
        if os.path.lexists(target):  # another process was quicker
            raise ProjectError(f"{shown} exists already; unpack into a new directory.", kind="target_exists") from None
        reason = getattr(error, "strerror", None) or "its path cannot be used"
        raise ProjectError(f"The project cannot be unpacked to {shown}: {reason}.", kind="unwritable") from None
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return _names(contents)


def _write(contents: Mapping[str, bytes], root: Path) -> None:
    directories = {PROJECT.rstrip("/")}
    for name in contents:
        parts = name.split("/")
        directories.update("/".join(parts[:count]) for count in range(1, len(parts)))
    for directory in sorted(directories):  # a directory sorts before what is in it
        (root / directory).mkdir(exist_ok=True)  # a file system that folds case has it already
    for name, content in contents.items():
        with (root / name).open("xb") as file:  # x: the same file system must not merge two files
            file.write(content)


def _read(file: ProjectFile) -> bytes:
    if file.content is not None:
        return file.content
    shown = printable(file.path)
    try:
        with file.source.open("rb") as source:
            before = os.fstat(source.fileno())
            content = source.read(MAX_BYTES + 1)
            after = os.fstat(source.fileno())
    except FileNotFoundError:
        raise ProjectError(f"{shown} vanished while it was packed; deploy again.", kind="vanished", path=shown) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ProjectError(f"{shown} cannot be read: {reason}.", kind="unreadable", path=shown) from None
    if len(content) != file.size or before.st_mtime_ns != after.st_mtime_ns:
        raise ProjectError(f"{shown} changed while it was packed; deploy again.", kind="changed", path=shown)
    return content


def _contents(data: bytes) -> dict[str, bytes]:
    """Every file of an archive: checked name → content. Counts the bytes that come out, whatever the archive claims."""
    contents: dict[str, bytes] = {}
    # zipfile makes an object of each entry before anybody can ask how many there are: a directory of 42 MB took 340 MB and 10 s. Compressed content
    # hardly has the mark, so what is counted are entries.
    if data.count(_ENTRY) > MAX_FILES:
        raise ProjectError(f"The archive has more than {MAX_FILES:,} files.", kind="too_many_files")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            left = MAX_UNPACKED
            for member in members:
                content = _unzip(archive, member, left)
                left -= len(content)
                _add(contents, member.orig_filename, content)
    except ProjectError:
        raise
    except Exception as error:  # zipfile lets a dozen kinds of error out of a damaged archive
        sentence = f"The archive is damaged ({type(error).__name__}); pack and upload it again."
        raise ProjectError(sentence, kind="invalid_archive") from None
    _check_tree(contents)
    return contents


def _unzip(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    shown = printable(member.orig_filename)
    mode = member.external_attr >> 16
    if member.is_dir() or (mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
        raise ProjectError(f"The archive's {shown} is not a plain file.", kind="invalid_archive", path=shown)
    if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        sentence = f"The archive's {shown} is encrypted or compressed in an unknown way."
        raise ProjectError(sentence, kind="invalid_archive", path=shown)
    pieces: list[bytes] = []
    size = 0
    with archive.open(member) as file:
        while piece := file.read(_CHUNK):
            size += len(piece)
            if size > limit:
                sentence = f"The archive unpacks to more than {megabytes(MAX_UNPACKED)}."
                raise ProjectError(sentence, kind="too_large", path=shown)
            pieces.append(piece)
    return b"".join(pieces)


def _add(contents: dict[str, bytes], name: str, content: bytes) -> None:
    shown = printable(name)
    if not name.startswith((PROJECT, META)) or not all(map(is_portable, (name, name.partition("/")[2]))):
        sentence = f"The name {shown} is not a plain path below project/ or meta/."
        raise ProjectError(sentence, kind="invalid_name", path=shown)
    if name == PROJECT + ENV_FILE:
        raise ProjectError(".env is not part of a bundle; it travels apart.", kind="invalid_name", path=shown)
    if name in contents:
        raise ProjectError(f"The name {shown} occurs twice.", kind="duplicate", path=shown)
    contents[name] = content


def _check_tree(contents: Mapping[str, bytes]) -> None:
    """No file may be where another one needs a directory, and a project has its limits in any archive."""
    for name in contents:
        directory = name
        while directory := directory.rpartition("/")[0]:
            if directory in contents:
                shown = printable(directory)
                raise ProjectError(f"{shown} is a file and a directory at once.", kind="duplicate", path=shown)
    if len(contents) > MAX_FILES:
        raise ProjectError(f"The archive has more than {MAX_FILES:,} files.", kind="too_many_files")
    if sum(len(content) for name, content in contents.items() if name.startswith(PROJECT)) > MAX_BYTES:
        raise ProjectError(f"The project has more than {megabytes(MAX_BYTES)}.", kind="too_large")


def _names(contents: Iterable[str]) -> list[str]:
    return sorted((name.removeprefix(PROJECT) for name in contents if name.startswith(PROJECT)), key=str.encode)


def _digest(contents: Mapping[str, bytes]) -> str:
    """sha256 over path and content of each file in order of paths, each with its length in front, so that no two differ
    only in where one ends and the next begins."""
    digest = hashlib.sha256()
    for name in _names(contents):
        for part in (name.encode(), contents[PROJECT + name]):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()
