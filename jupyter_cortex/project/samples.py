"""Samples: recorded payloads, and if wanted their expected results, as plain files in ``samples/`` of the project.

One YAML file per sample, for people to edit and git to diff::

    content_type: application/json
    body: '{"sepal_length": 5.1}'
    expected: {label: setosa}
    notebook: iris-classifier.ipynb

A body that is no text is in a file beside it, named by ``body_file``. Without ``expected`` a sample only has to succeed. ``notebook`` is the one that
it was kept from: several may share a directory, and what is a payload for one is none for another.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..core.checks import is_portable
from ..core.errors import ProjectError, SpecError
from ..core.readers import printable
from . import config_file
from .files import SAMPLES_DIRECTORY

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: Larger bodies go into a file of their own, also when they are text.
INLINE_BYTES = 16 * 1024
#: How deep an expected result may be nested, and how many values it may have: aliases make a small file a large value.
MAX_DEPTH, MAX_VALUES = 100, 1_000_000
_KEYS = ("content_type", "body", "body_file", "expected", "notebook")
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Sample:
    """``expected``: the result that the Handler must give, None when any will do. ``notebook``: the file's name, None for everybody's."""

    name: str
    content_type: str
    body: bytes
    expected: dict[str, Any] | None = None
    notebook: str | None = None


def load(root: Path) -> list[Sample]:
    """The samples of a project, by name. Raises ProjectError (kind ``sample``) naming the file and what is wrong with it."""
    found: dict[str, Path] = {}
    for path in _files(root):
        if not NAME.fullmatch(path.stem):
            raise _refused(f"{_shown(path)}: {_NAMES}; rename the file")
        if path.stem in found:
            raise _refused(
                f"{_shown(path)}: there is {found[path.stem].name}, too, and both are the sample {path.stem}; rename or remove one of them"
            )
        found[path.stem] = path
    return [_read(path) for path in found.values()]


def of_notebook(found: list[Sample], root: Path, notebook: Path | None) -> list[Sample]:
    """Those that concern this notebook in ``root``, None for a project of files: all but what another notebook keeps. One that is not there any more
    was renamed or removed; what it has kept is everybody's, rather than nobody's."""
    return found if notebook is None else [one for one in found if not _anothers(one, root, notebook.name)]


def _anothers(sample: Sample, root: Path, notebook: str | None) -> bool:
    """Whether a notebook that lies in ``root`` keeps this sample, and it is not the one of that name."""
    return sample.notebook not in (None, notebook) and (root / str(sample.notebook)).is_file()


_NAMES = "a sample's name has letters, digits, dots, dashes and underscores, a letter or digit first, and at most 100 of them"


def _files(root: Path) -> list[Path]:
    """The files of samples, by name. What is hidden is an editor's."""
    directory = root / SAMPLES_DIRECTORY
    if not directory.is_dir():
        return []
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise _refused(f"{SAMPLES_DIRECTORY}/ cannot be read: {error.strerror}; check its permissions") from None
    return [directory / name for name in names if name.endswith(_SUFFIXES) and not name.startswith(".")]


def _shown(path: Path) -> str:
    return f"{SAMPLES_DIRECTORY}/{printable(path.name)}"


def _read(path: Path) -> Sample:
    shown = _shown(path)
    try:
        document = config_file.value_of(_bytes(path, shown, config_file.MAX_CONFIG_BYTES), shown)
    except SpecError as error:
        raise _refused(error.message) from None
    if not isinstance(document, dict) or not isinstance(document.get("content_type"), str):
        raise _refused(f"{shown}: it needs content_type, and body or body_file; see README, Samples")
    if unknown := [str(key) for key in document if key not in _KEYS]:
        raise _refused(f"{shown}: {printable(unknown[0])} is no key of a sample; there are {', '.join(_KEYS)}")
    if ("body" in document) == ("body_file" in document):
        raise _refused(f"{shown}: give body (text) or body_file (the name of a file beside it), one of them")
    expected = document.get("expected")
    if expected is not None and (wrong := _wrong(expected)):
        raise _refused(f"{shown}: {wrong}")
    notebook = document.get("notebook")
    if notebook is not None and not (isinstance(notebook, str) and is_portable(notebook)):
        raise _refused(f"{shown}: notebook must be the name of a notebook in the project's directory; without it the sample is for all of them")
    return Sample(path.stem, document["content_type"], _body(path, shown, document), expected, notebook)


def _bytes(path: Path, shown: str, most: int | None = None) -> bytes:
    """The content of a file, and of nothing else: a pipe or a device would never end."""
    try:
        if path.exists() and not path.is_file():
            raise _refused(f"{shown}: it is not a file; remove it, or put a file there")
        if most is not None and path.stat().st_size > most:
            raise _refused(f"{shown}: it is larger than {most:,} bytes; put the body into a file beside it and name that in body_file")
        return path.read_bytes()
    except OSError as error:
        raise _refused(f"{shown}: it cannot be read: {error.strerror}") from None


def _wrong(expected: Any) -> str:
    """What keeps ``expected`` from being the result of anything, in words; "" when nothing does."""
    if not isinstance(expected, dict):
        return "expected must be a map, as every result is"
    waiting, seen = [(expected, 1)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH:
            return f"expected is nested deeper than {MAX_DEPTH} levels, or holds itself"
        if seen > MAX_VALUES:
            return f"expected has more than {MAX_VALUES:,} values"
        if isinstance(value, dict):
            if odd := [key for key in value if not isinstance(key, str)]:
                return f"expected has the key {printable(str(odd[0]))}, and keys must be strings; put quotes around it"
            waiting += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]
        elif isinstance(value, float) and not math.isfinite(value):
            return f"expected has {value}, and no result can: JSON has no such number"
        elif value is not None and not isinstance(value, str | int | float):
            return f"expected has a {type(value).__name__}, and no result can: a result is JSON; remove the tag that makes it one"
    return ""


def _body(path: Path, shown: str, document: dict[str, Any]) -> bytes:
    if "body" in document:
        if not isinstance(document["body"], str):
            raise _refused(f"{shown}: body must be text; put quotes around it")
        try:
            return document["body"].encode()
        except UnicodeEncodeError:
            raise _refused(f"{shown}: body has half a character (a surrogate), which no request can carry; write the character itself") from None
    name = document["body_file"]
    beside = f"{shown}: body_file must be the name of a file in {SAMPLES_DIRECTORY}/"
    if not isinstance(name, str) or not is_portable(name):
        raise _refused(beside)
    file = path.parent / name
    try:
        if file.resolve().parent != path.parent.resolve():
            raise _refused(beside)
    except (OSError, RuntimeError):  # a link to itself
        raise _refused(f"{shown}: {printable(name)} cannot be read") from None
    return _bytes(file, f"{shown}: {printable(name)}")


def save(root: Path, sample: Sample) -> Path:
    """Write a sample; one of the same name is replaced, unless another notebook keeps it. The path of its YAML file. Raises ProjectError (kind
    ``sample``)."""
    if not NAME.fullmatch(sample.name):
        raise _refused(f"{printable(sample.name)!r} cannot name a sample: {_NAMES}")
    if sample.expected is not None and (wrong := _wrong(sample.expected)):
        raise _refused(f"sample {sample.name}: {wrong}; keep it without its result")
    directory = root / SAMPLES_DIRECTORY
    there = [path for path in _files(root) if path.stem == sample.name]
    if len(there) > 1:
        raise _refused(f"{_shown(there[0])}: there is {there[1].name}, too, and both are the sample {sample.name}; remove one of them")
    before = _readable(there[0]) if there else None
    if before is not None and _anothers(before, root, sample.notebook):
        raise _refused(f"there is a sample {sample.name} of {before.notebook}; choose another name")
    path = there[0] if there else directory / f"{sample.name}.yaml"
    rest = {key: value for key, value in (("expected", sample.expected), ("notebook", sample.notebook)) if value is not None}
    text = _inline(sample, rest)
    try:
        directory.mkdir(exist_ok=True)
        if text is None:
            name = f"{sample.name}.body"
            text = _written({"content_type": sample.content_type, "body_file": name, **rest})
            if text is None:
                raise _refused(f"sample {sample.name}: its expected result cannot be written as YAML; keep it without its result")
            _replace(directory / name, sample.body)
        _replace(path, text.encode())
    except FileExistsError:
        raise _refused(f"{printable(str(directory))} is not a directory, and samples are kept there; rename it") from None
    except OSError as error:
        raise _refused(f"{printable(str(directory))} cannot be written: {error.strerror}; choose another directory") from None
    return path


def _readable(path: Path) -> Sample | None:
    """The sample there; None for a file that is none, which nobody keeps."""
    try:
        return _read(path)
    except ProjectError:
        return None


def _inline(sample: Sample, rest: dict[str, Any]) -> str | None:
    """The sample as one YAML text, None when its body wants a file of its own: it is large, or no text that people read."""
    if len(sample.body) > INLINE_BYTES:
        return None
    try:
        text = sample.body.decode()
    except UnicodeDecodeError:
        return None
    readable = all(char.isprintable() or char in "\n\t" for char in text)
    return _written({"content_type": sample.content_type, "body": text, **rest}) if readable else None


def _written(document: dict[str, Any]) -> str | None:
    """YAML that comes back as this very document: tried, because PyYAML writes some texts that it reads as others. None when there is none."""
    try:
        wanted = json.dumps(document)
        styles: tuple[dict[str, Any], ...] = ({"allow_unicode": True, "width": 100}, {"default_style": '"', "width": math.inf})
        for style in styles:
            text: str = yaml.dump(document, None, config_file.Dumper, sort_keys=False, **style)
            with contextlib.suppress(SpecError, UnicodeEncodeError):
                if json.dumps(config_file.value_of(text, "sample")) == wanted:
                    return text
    except (ValueError, yaml.YAMLError, RecursionError):  # an integer of more than 4,300 digits
        pass
    return None


def _replace(path: Path, data: bytes) -> None:
    """All of the new file or all of the old one, and never what a link points to."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def free_name(root: Path, wanted: str) -> str:
    """``wanted``, with a number behind it when a sample of that name exists."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-._")[:90].strip("-._") or "sample"
    taken = {path.stem for path in _files(root)}
    return next(name for number in range(1, len(taken) + 2) if (name := base if number == 1 else f"{base}-{number}") not in taken)


def _refused(sentence: str) -> ProjectError:
    return ProjectError(sentence, kind="sample")
