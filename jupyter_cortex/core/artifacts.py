"""``artifacts``: large files of an API that do not travel in the bundle. How they are written, and what they must be.

An author lists paths; the client that publishes adds what each file is (its sha256 and size). One form has both: a list of maps
``{"path": str, "sha256": 64 hex digits | None, "bytes": int | None}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Any

from .checks import is_portable
from .fields import Field, read_map
from .readers import INT64, FieldError, a_list, integer, printable, text

SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def check_artifact_path(value: str) -> str:
    path = value.removeprefix("./")
    if not is_portable(path):
        raise FieldError("value", f"{printable(value)!r} must be the path of a file below the project's root, such as models/iris.joblib.")
    if path == ".env":
        raise FieldError("reserved", ".env travels by itself; remove it from this list.")
    return path


def _sha256(value: str) -> str:
    if not SHA256.fullmatch(value):
        raise FieldError("value", "a sha256 has 64 lower-case hexadecimal digits; leave it out and deploy fills it in.")
    return value


ARTIFACT = (
    Field("path", text(check_artifact_path), required=True),
    Field("sha256", text(_sha256), nullable=True),
    Field("bytes", integer(0, largest=INT64), nullable=True),
)


def read_artifacts(value: Any) -> list[dict[str, Any]]:
    """The list in its one form; a text stands for a map with this path. Raises FieldError."""
    result: list[dict[str, Any]] = []
    for index, item in enumerate(a_list(value)):
        try:
            result.append(read_map({"path": item} if isinstance(item, str) else item, ARTIFACT))
        except FieldError as error:
            raise error.below(index) from None
    return result


def check_artifacts(values: dict[str, Any], files: Set[str] | None) -> None:
    """What the artifacts of one API must be to each other, to the Handler's file and to the shipped ``files`` (None: not known).

    Raises FieldError.
    """
    paths = [artifact["path"] for artifact in values["artifacts"]]
    others = {*paths, *(files or ())} if paths else set()
    directories = {parent for path in others for parent in _parents(path)}
    seen: set[str] = set()
    for index, path in enumerate(paths):
        at = ("artifacts", index, "path")
        if path == values["handler"]["path"]:
            raise FieldError("conflict", "the Handler's file travels in the bundle; remove it from this list.", *at)
        if path in seen:
            raise FieldError("duplicate", f"{printable(path)} is listed twice; remove one of the two.", *at)
        if files is not None and path in files:
            raise FieldError("conflict", f"{printable(path)} is in the bundle as well; leave it out of one of the two.", *at)
        if path in directories or not others.isdisjoint(_parents(path)):
            raise FieldError("conflict", f"{printable(path)} is a file and a directory at once; rename one of the two.", *at)
        seen.add(path)


def _parents(path: str) -> Iterator[str]:
    """``a/b`` and ``a`` for ``a/b/c``."""
    while path := path.rpartition("/")[0]:
        yield path
