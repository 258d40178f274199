"""The client of a tensorflow Handler: the same in kernel, gate and replica.

``open_client`` makes it of ``handler.models``: models are found (``models``, ``download``), loaded (``savedmodel``) or asked for (``rest``), and each
prediction is checked against the model's signature (``signature``, ``convert``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyter_cortex.core.errors import HandlerError
from jupyter_cortex.core.models import entries, is_url, place_of, served_name

from ..exceptions import CortexException
from .client import TensorFlowClient
from .models import SINGLE, ModelProblem

__all__ = ["TensorFlowClient", "open_client", "stamp"]


def open_client(section: dict[str, Any], project_dir: Path) -> TensorFlowClient | None:
    """The client for ``handler`` of a resolved spec, None for another type. ``project_dir``: what relative paths are relative to.

    Raises HandlerError (stage ``init``) of kind ``tensorflow_missing``, ``numpy_missing`` or ``model``, with what to do.
    """
    if section["type"] != "tensorflow":
        return None
    models = section["models"]
    try:
        import numpy  # noqa: F401
    except ImportError:
        raise HandlerError("a tensorflow handler needs numpy: add it to requirements.txt", stage="init", kind="numpy_missing") from None
    try:
        return _serving(models) if models.get("serving") else _local(models, Path(project_dir))
    except (ModelProblem, CortexException) as error:
        raise HandlerError(f"handler.models: {error}", stage="init", kind="model") from error


def stamp(section: dict[str, Any], project_dir: Path) -> list[Any]:
    """What changes when a model of this project does: a kernel lives longer than a model that is trained again."""
    if section["type"] != "tensorflow" or section["models"].get("serving"):
        return []
    found: list[Any] = []
    for _, path in entries(section["models"]):
        if not is_url(path):
            for file in sorted((Path(project_dir) / place_of(path)).rglob("*")):
                status = file.stat()
                found.append([str(file), status.st_size, status.st_mtime_ns])
    return found


def _serving(models: dict[str, Any]) -> TensorFlowClient:
    from .rest import Serving

    default = models.get("signature_key")
    single = served_name(models["path"]) if models.get("path") else None
    keys = {single: default} if single else {model["name"]: model.get("signature_key") or default for model in models.get("paths") or ()}
    backend = Serving(models["serving"], keys, default)
    for name in keys:  # what is wrong is told now, not with the first request
        available = backend.versions(name)
        if not available:
            raise ModelProblem(f"TensorFlow Serving at {models['serving']} has no model {name!r} available; start it with that model")
        backend.signature(name, max(available, key=int))
    return TensorFlowClient(backend, single=single, listed=bool(models.get("paths")))


def _local(models: dict[str, Any], root: Path) -> TensorFlowClient:
    from .models import models_in, versions
    from .savedmodel import SavedModels, missing_sentence, tensorflow_present

    if not tensorflow_present():
        raise HandlerError(missing_sentence(), stage="init", kind="tensorflow_missing")
    default = models.get("signature_key")
    if models.get("dir"):
        found = models_in(_directory(models["dir"], root), models["dir"])
        keys = dict.fromkeys(found, default)
    elif models.get("path"):
        found, keys = {SINGLE: versions(_directory(models["path"], root), models["path"])}, {SINGLE: default}
    else:
        found = {model["name"]: versions(_directory(model["path"], root), model["path"]) for model in models["paths"]}
        keys = {model["name"]: model.get("signature_key") or default for model in models["paths"]}
    return TensorFlowClient(SavedModels(found, keys), single=SINGLE if models.get("path") else None, listed=bool(models.get("paths")))


def _directory(path: str, root: Path) -> Path:
    if is_url(path):
        from .download import local_copy

        return local_copy(path)
    return root / place_of(path)
