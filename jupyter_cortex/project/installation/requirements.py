"""What a requirements.txt asks for, and whether an interpreter has it.

``python -P -m jupyter_cortex.project.installation.requirements FILE`` answers with the unmet lines as JSON, for another interpreter than this one.
"""

from __future__ import annotations

import importlib.metadata
import json
import posixpath
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.markers import InvalidMarker
from packaging.requirements import InvalidRequirement, Requirement

from ...core.errors import RequirementsError

#: What names a file or an address rather than a distribution.
_ELSEWHERE = re.compile(r"^(?:[a-z+]+:|\.{1,2}$|\.{0,2}/)|^[^\s@\[;]*(?:/|\.(?:whl|zip|tar\.gz)$)", re.IGNORECASE)
#: Options that bring further lines. How deep files may name each other.
_NESTED, DEEPEST = ("-r", "--requirement", "-c", "--constraint"), 8
#: Seconds that another interpreter gets to read its metadata.
ASK_S = 60.0


@dataclass(frozen=True)
class Line:
    """One logical line: where it begins, and its text without comments and continuations."""

    number: int
    text: str

    @property
    def is_option(self) -> bool:
        return self.text.startswith("-")


@dataclass(frozen=True)
class Unmet:
    """``wrong``: it is no requirement at all, so no installer can help."""

    line: str
    why: str
    wrong: bool = False

    def __str__(self) -> str:
        return f"{self.line}: {self.why}"


def lines(content: bytes) -> Iterator[Line]:
    """The lines that say something."""
    begun, parts = 0, list[str]()
    for number, raw in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        text = re.sub(r"(^|\s)#.*$", "", raw).strip()
        begun = begun if parts else number
        parts.append(text.removesuffix("\\").strip())
        if text.endswith("\\"):
            continue
        if joined := " ".join(filter(None, parts)):
            yield Line(begun, joined)
        parts = []
    if joined := " ".join(filter(None, parts)):
        yield Line(begun, joined)


def requirement(text: str) -> Requirement | None:
    """A line as a requirement, less the options behind it; None for an option, a file or an address. Raises InvalidRequirement."""
    if text.startswith("-") or (_ELSEWHERE.search(text) and not re.match(r"^[\w.-]+\s*(?:\[[^\]]*\])?\s*@", text)):
        return None
    return Requirement(re.split(r"\s--?[a-z]", text, maxsplit=1)[0].strip())


def unmet(file: Path, shown: str = "", depth: int = 0) -> list[Unmet]:
    """What this interpreter does not have of a file's lines and of those that it names. Raises OSError."""
    found = []
    for line in lines(file.read_bytes()):
        where = f"{f'{shown}, ' if shown else ''}line {line.number}"
        words = words_of(line.text)
        if line.is_option:
            if words[0] in _NESTED and len(words) == 2 and depth < DEEPEST:
                found += _nested(file, words, where, depth)
            elif words[0] in ("-e", "--editable"):
                found.append(Unmet(where, f"{line.text[:60]} is to be installed"))
            continue
        if said := why(line.text):
            found.append(Unmet(where, *said))
    return found


def files_below(root: Path, name: str, *, constraints: bool = True) -> list[str]:
    """The requirements file of a directory and those below it that it names with ``-r`` or ``-c``, by their paths there; [] where there is none.

    Without ``constraints`` only those that bring something.
    """
    options = _NESTED if constraints else _NESTED[:2]
    found: dict[str, None] = {}

    def look(path: str, depth: int) -> None:
        inside = path not in found and not path.startswith(("../", "/"))
        if not inside or depth > DEEPEST or not (root / path).is_file():
            return
        found[path] = None
        for line in lines((root / path).read_bytes()):
            words = words_of(line.text) if line.is_option else []
            if len(words) == 2 and words[0] in options:
                look(posixpath.normpath(posixpath.join(posixpath.dirname(path), words[1])), depth + 1)

    look(posixpath.normpath(name), 0)
    return list(found)


def words_of(text: str) -> list[str]:
    try:
        words = shlex.split(text.replace("=", " ", 1) if text.startswith("--") else text)
    except ValueError:
        words = text.split()
    if words and re.match(r"-[rce].", words[0]):
        words = [words[0][:2], words[0][2:], *words[1:]]
    return words or [""]


def _nested(file: Path, words: list[str], where: str, depth: int) -> list[Unmet]:
    try:
        rows = unmet(file.parent / words[1], words[1], depth + 1)
    except OSError as error:
        return [Unmet(where, f"{words[1]} cannot be read: {error.strerror}", "://" not in words[1])]
    return [row for row in rows if row.wrong or words[0] not in ("-c", "--constraint") or "is installed" in row.why]


def why(text: str) -> tuple[str, bool] | None:
    """Why this interpreter does not meet a line, and whether nobody could; None where it does."""
    try:
        asked = requirement(text)
        if asked is None:
            return f"{_without_secrets(text)[:80]} is to be installed", False
        if asked.marker is not None and not asked.marker.evaluate():
            return None
    except (InvalidRequirement, InvalidMarker):
        return f"{text[:60]!r} is not a requirement", True
    return _missing(asked)


def _missing(asked: Requirement, extra_of: str = "") -> tuple[str, bool] | None:
    about = f" (of {extra_of})" if extra_of else ""
    try:
        found = importlib.metadata.distribution(asked.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{asked.name}{asked.specifier} is not installed{about}", False
    if asked.url is not None:
        came_from = json.loads(found.read_text("direct_url.json") or "{}")
        return None if _is_from(asked.url, came_from) else (f"{asked.name} is to be installed from its address", False)
    if not asked.specifier.contains(found.version, prereleases=True):
        return f"{asked.name}{asked.specifier} is wanted, {found.version} is installed{about}", False
    for extra in asked.extras if not extra_of else ():
        for needed in map(Requirement, found.requires or ()):
            counts = needed.marker and "extra" in str(needed.marker) and needed.marker.evaluate({"extra": extra})
            if counts and (said := _missing(needed, f"{asked.name}[{extra}]")):
                return said
    return None


def _is_from(asked: str, came_from: dict[str, Any]) -> bool:
    """Whether what was installed came from this address, of a repository also at this revision (``direct_url.json``: PEP 610)."""
    address = asked.partition("#")[0]
    system, plus, rest = address.partition("+")
    revision = ""
    if plus and "/" not in system:
        head, slash, last = rest.rpartition("/")
        last, _, revision = last.partition("@")
        address = head + slash + last
    vcs = came_from.get("vcs_info") or {}
    if bool(plus and "/" not in system) != bool(vcs) or _bare(address) != _bare(str(came_from.get("url", ""))):
        return False
    return not revision or revision == vcs.get("requested_revision") or str(vcs.get("commit_id", "")).startswith(revision)


def _bare(address: str) -> str:
    """An address as it is compared: who asked for it does not count."""
    return unquote(re.sub(r"(?<=://)[^/@]+@", "", address).removeprefix("file://").rstrip("/"))


def _without_secrets(text: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def ask(interpreter: str, file: Path) -> list[Unmet]:
    """What an interpreter does not have of a requirements file; one that cannot be asked has all (its replicas say better what is wrong with it)."""
    if interpreter == sys.executable:
        return unmet(file)
    argv = [interpreter, "-P", "-m", __name__, str(file)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=ASK_S, stdin=subprocess.DEVNULL)
        return [Unmet(**row) for row in json.loads(done.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def check(rows: list[Unmet], shown: str) -> None:
    """Raises RequirementsError for lines that no installer could read."""
    if wrong := [str(row) for row in rows if row.wrong]:
        raise RequirementsError(f"{shown} cannot be installed: {'; '.join(wrong[:10])}. Correct it", path=shown, missing=wrong)


def main() -> None:
    rows = unmet(Path(sys.argv[1]))
    print(json.dumps([{"line": row.line, "why": row.why, "wrong": row.wrong} for row in rows]))


if __name__ == "__main__":
    main()
