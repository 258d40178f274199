"""What one project needs beyond its interpreter: four files, and a digest that is equal for equal needs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import ProjectError

#: The exact versions that `--lock` records, as a file of the bundle: it goes wherever the bundle goes, and counts in its digest.
LOCK = "cortex.lock"
#: Counts in each digest: raised when what is made of the same files changes.
FORMAT = 2
#: Hexadecimal digits of a digest that name a directory: scripts in it begin with their path, and the kernel reads 127 bytes of that.
DIGITS = 16
#: Files of the project that one of the four names count with their content, up to so many bytes in all.
NAMED_BYTES = 64 * 1024 * 1024
#: What an installer or a handler writes into a directory that is installed from.
_MADE = re.compile(r"(^|/)(?:__pycache__|build|dist|[^/]+\.egg-info|\.[^/]*)(/|$)")


@dataclass(frozen=True)
class Needs:
    """``pip``, ``conda``, ``shell``, ``lock``: paths below the ``project``, "" where there is nothing to be done with it.

    ``interpreter``: whose packages it is layered on, and whose version it has.
    """

    project: Path
    interpreter: str
    python_version: str
    pip: str
    conda: str
    shell: str
    lock: str
    digest: str

    @property
    def kind(self) -> str:
        """What people are told that it is."""
        return "locked" if self.lock else "conda" if self.conda else "layered"


def of(project: Path, dependencies: Mapping[str, str], interpreter: str, python_version: str) -> Needs | None:
    """The needs of an unpacked project, None where its interpreter has everything. ``dependencies``: the spec's.

    Raises RequirementsError for a requirements.txt that nobody could install, ProjectError for a file that cannot be read.
    """
    paths = {name: dependencies[name] for name in ("pip", "conda", "shell")} | {"lock": LOCK}
    # Most projects have none of them: that is all it costs.
    there = {name: path for name, path in paths.items() if (project / path).is_file()}
    if not there:
        return None
    try:
        contents = {name: (project / path).read_bytes() for name, path in there.items()}
        there = {name: path for name, path in there.items() if contents[name].strip()}
        if "lock" in there and "conda" in there:
            raise ProjectError(f"{LOCK} holds no conda packages: pin their versions in {there['conda']} and deploy without --lock", kind="lock")
        if "pip" in there and "lock" not in there and not _to_install(project / there["pip"], there["pip"], interpreter):
            there = {} if set(there) == {"pip"} else there
        if not there:
            return None
        # `python` and `python3` of one directory are one interpreter.
        whose = [os.path.dirname(interpreter), os.path.realpath(interpreter), python_version]
        facts: list[Any] = [FORMAT, whose, *sorted((name, *_text(contents[name])) for name in there)]
        facts += _named(project, [contents[name] for name in there])
    except OSError as error:
        raise ProjectError(f"what is to be installed cannot be read: {error.strerror}", kind="unreadable") from None
    if "lock" in there:
        facts.append(_runtime())
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:DIGITS]
    return Needs(project, interpreter, python_version, digest=digest, **{name: there.get(name, "") for name in paths})


def _to_install(file: Path, shown: str, interpreter: str) -> bool:
    from . import requirements  # its libraries are of use to nobody else

    rows = requirements.ask(interpreter, file)
    requirements.check(rows, shown)
    return bool(rows)


def _text(content: bytes) -> list[str]:
    """Lines without blanks at their ends, which no installer sees."""
    return [line.rstrip() for line in content.decode("utf-8-sig", "replace").splitlines() if line.strip()]


def _runtime() -> str:
    """A locked one knows what this package imports; another version may import more."""
    from ... import __version__

    return __version__


def _named(project: Path, contents: list[bytes]) -> list[Any]:
    """Files of the project that the four name (`-r more.txt`, `./wheels/x.whl`, `pip install .`, `bash setup/gpu.sh`), with their digests."""
    words: set[str] = set()
    found: dict[str, str] = {}
    size = 0
    waiting = list(contents)
    while waiting:
        words |= set(_words(waiting.pop()))
        for path in _files(project):
            if path in found or not ("." in words or any(part in words for part in _places(path))):
                continue
            content = (project / path).read_bytes() if (size := size + (project / path).stat().st_size) <= NAMED_BYTES else b""
            found[path] = hashlib.sha256(content).hexdigest()
            if path.endswith((".txt", ".in", ".sh")):
                waiting.append(content)
    return sorted(found.items())


def _words(content: bytes) -> Iterator[str]:
    for word in re.split(r"[\s\"'=;,()]+", content.decode("utf-8", "replace")):
        word = re.sub(r"^-[rce](?=[^-\s])", "", word).removeprefix("file:")
        word = re.sub(r"\[[^\]]*\]$", "", word)
        if word == "." or word == "./":
            yield "."
        elif word:
            yield word.removeprefix("./").rstrip("/")


def _files(project: Path) -> Iterator[str]:
    for path in sorted(project.rglob("*")):
        name = path.relative_to(project).as_posix()
        if not _MADE.search(name) and path.is_file():
            yield name


def _places(path: str) -> Iterator[str]:
    """A file's path and the directories that it lies in, as somebody would write them, from the root or from one of them."""
    yield path
    parts = path.split("/")
    for end in range(1, len(parts)):
        yield "/".join(parts[:end])
    if len(parts) > 1:
        yield parts[-1]
