"""``handler.models``: where a tensorflow handler's models are, as written. Which of them are files of the project, and travel as artifacts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from .checks import is_portable
from .readers import FieldError, printable

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.ASCII | re.DOTALL)
_SERVING = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?(/[A-Za-z0-9_.~/-]*)?", re.ASCII)
#: Protocols of fsspec that mean something in one process only.
_PRIVATE = ("memory", "data", "reference", "generic")


def is_url(path: str) -> bool:
    return "://" in path


def place_of(path: str) -> str:
    """A local path without ``./`` in front and ``/`` behind: ``models/iris``, ``/srv/models``."""
    return path.removeprefix("./").rstrip("/") or path


def served_name(path: str) -> str:
    """The name that a TensorFlow Serving has for the model at a path: its last directory."""
    return path.rstrip("/").rpartition("/")[2]


def entries(models: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each location of the section with its place in it; the section was checked."""
    for key in ("path", "dir"):
        if models.get(key) is not None:
            yield (key,), models[key]
    for index, model in enumerate(models.get("paths") or ()):
        yield ("paths", index, "path"), model["path"]


def check_location(path: str) -> None:
    """A directory of the project, an absolute one, or a URL. Raises FieldError."""
    if is_url(path):
        match = _URL.fullmatch(path)
        if match is None or match[1] in _PRIVATE or not match[2].strip("/") or "::" in path:
            raise FieldError("value", "this must be a directory, or a URL that other processes reach, such as s3://bucket/path.")
        if ":" in match[2].partition("/")[0].rpartition("@")[0]:
            raise FieldError("value", "a URL here is kept and shown, so it must hold no password; put credentials into .env.")
    elif not path.startswith("/") and not is_portable(place_of(path)):
        raise FieldError(
            "value", f"{printable(path)!r} must be a directory below the project's root, an absolute one, or a URL such as s3://bucket/path."
        )


def check_serving(value: str) -> str:
    """The address of a TensorFlow Serving's REST API, without a slash behind."""
    if not _SERVING.fullmatch(value):
        raise FieldError("value", "this must be the REST address of a TensorFlow Serving, such as http://localhost:8501, without a password.")
    return value.rstrip("/")


def directories(models: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """The model directories that are files of the project, each with its place in the section; [] where a TensorFlow Serving has the models.

    ``models`` may be anything: an entry of cortex.yaml is looked at before it is checked.
    """
    if not isinstance(models, dict) or models.get("serving"):
        return []
    try:
        found = [(at, path) for at, path in entries(models) if isinstance(path, str)]
    except (TypeError, KeyError, AttributeError):
        return []
    return [(at, place_of(path)) for at, path in found if not is_url(path) and is_portable(place_of(path))]


def not_come_along(models: Any, paths: Collection[str]) -> tuple[str, str] | None:
    """The first model directory of the project that none of the ``paths`` (bundle and artifacts) is in: its key in the spec, and the directory."""
    for at, place in directories(models):
        if not any(path.startswith(f"{place}/") for path in paths):
            return "handler.models" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at), place
    return None


def with_kept(document: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """A spec that names a model directory and none of its files, with those of the version ``before`` it (a resolved spec)."""
    section = document.get("handler")
    places = directories(section.get("models")) if isinstance(section, dict) and section.get("type") == "tensorflow" else []
    listed = document.get("artifacts") or []
    if not places or not before or not isinstance(listed, list):
        return document
    named = {str(item.get("path") if isinstance(item, dict) else item).removeprefix("./") for item in listed}
    kept = [
        artifact
        for artifact in before.get("artifacts") or ()
        if artifact["path"] not in named and any(artifact["path"].startswith(f"{place}/") for _, place in places)
    ]
    return {**document, "artifacts": [*listed, *kept]} if kept else document
