"""Samples: recorded payloads, and if wanted their expected results, as plain files in ``samples/`` of the project.

One YAML file per sample, for people to edit and git to diff::

    content_type: application/json
    body: '{"sepal_length": 5.1}'
    expected: {label: setosa}

A body that is no text is in a file beside it, named by ``body_file``. Without ``expected`` a sample only has to succeed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import ProjectError, SpecError
from ..core.readers import printable
from . import config_file
from .files import SAMPLES_DIRECTORY

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: Larger bodies go into a file of their own, also when they are text.
INLINE_BYTES = 16 * 1024
_KEYS = ("content_type", "body", "body_file", "expected")


@dataclass(frozen=True)
class Sample:
    """``expected``: the result that the Handler must give, None when any will do."""

    name: str
    content_type: str
    body: bytes
    expected: dict[str, Any] | None = None


def load(root: Path) -> list[Sample]:
    """The samples of a project, by name. Raises ProjectError (kind ``sample``) naming the file and what is wrong with it."""
    directory = root / SAMPLES_DIRECTORY
    if not directory.is_dir():
        return []
    return [_read(path) for path in sorted(directory.glob("*.y*ml"))]


def _read(path: Path) -> Sample:
    shown = f"{SAMPLES_DIRECTORY}/{printable(path.name)}"
    try:
        document = config_file.value_of(path.read_bytes(), shown)
    except OSError as error:
        raise _refused(f"{shown}: it cannot be read: {error.strerror}") from None
    except SpecError as error:
        raise _refused(error.message) from None
    if not isinstance(document, dict) or not isinstance(document.get("content_type"), str):
        raise _refused(f"{shown}: it needs content_type, and body or body_file; see README, Samples")
    if unknown := [str(key) for key in document if key not in _KEYS]:
        raise _refused(f"{shown}: {printable(unknown[0])} is no key of a sample; there are {', '.join(_KEYS)}")
    if ("body" in document) == ("body_file" in document):
        raise _refused(f"{shown}: give body (text) or body_file (the name of a file beside it), one of them")
    expected = document.get("expected")
    if expected is not None and not isinstance(expected, dict):
        raise _refused(f"{shown}: expected must be a map, as every result is")
    return Sample(path.stem, document["content_type"], _body(path, shown, document), expected)


def _body(path: Path, shown: str, document: dict[str, Any]) -> bytes:
    if "body" in document:
        if not isinstance(document["body"], str):
            raise _refused(f"{shown}: body must be text; put quotes around it")
        return document["body"].encode()
    name = document["body_file"]
    file = path.parent / str(name)
    if not isinstance(name, str) or file.resolve().parent != path.parent.resolve():
        raise _refused(f"{shown}: body_file must be the name of a file in {SAMPLES_DIRECTORY}/")
    try:
        return file.read_bytes()
    except OSError as error:
        raise _refused(f"{shown}: {printable(name)} cannot be read: {error.strerror}") from None


def save(root: Path, sample: Sample) -> Path:
    """Write a sample; one of the same name is replaced. The path of its YAML file. Raises ProjectError (kind ``sample``)."""
    if not NAME.fullmatch(sample.name):
        raise _refused(f"{printable(sample.name)!r} cannot name a sample: use letters, digits, dots, dashes and underscores")
    directory = root / SAMPLES_DIRECTORY
    path = directory / f"{sample.name}.yaml"
    document: dict[str, Any] = {"content_type": sample.content_type}
    try:
        directory.mkdir(exist_ok=True)
        text = _as_text(sample.body)
        if text is not None:
            document["body"] = text
        else:
            document["body_file"] = f"{sample.name}.body"
            (directory / document["body_file"]).write_bytes(sample.body)
        if sample.expected is not None:
            document["expected"] = sample.expected
        path.write_text(yaml.dump(document, sort_keys=False, allow_unicode=True, width=100), "utf-8")
    except OSError as error:
        raise _refused(f"{printable(str(directory))} cannot be written: {error.strerror}; choose another directory") from None
    return path


def _as_text(body: bytes) -> str | None:
    """The body as text that YAML brings back byte for byte, else None."""
    if len(body) > INLINE_BYTES:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return (
        text if all(char.isprintable() or char in "\n\t" for char in text) and yaml.safe_load(yaml.dump(text, allow_unicode=True)) == text else None
    )


def free_name(root: Path, wanted: str) -> str:
    """``wanted``, with a number behind it when a sample of that name exists."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-.") or "sample"
    taken = {path.stem for path in (root / SAMPLES_DIRECTORY).glob("*.y*ml")}
    return next(name for number in range(1, len(taken) + 2) if (name := base if number == 1 else f"{base}-{number}") not in taken)


def _refused(sentence: str) -> ProjectError:
    return ProjectError(sentence, kind="sample")
