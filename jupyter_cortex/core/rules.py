"""What one API's fields must be to each other, and to the files that are shipped with it."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from .artifacts import check_artifacts
from .checks import check_reserved
from .models import check_location, entries
from .readers import FieldError, printable
from .scalars import parse_quantity


def check_api(values: dict[str, Any], files: Set[str] | None) -> None:
    """Check ``values`` (as read by ``schema.read_api``) and fill the defaults that come from other fields.

    ``files`` are the shipped paths; None leaves the checks against them out, for a spec that was deployed before.
    Raises FieldError for the first thing that is wrong.
    """
    _fill(values)
    handler = values["handler"]
    check_artifacts(values, files)
    _check_path(handler)
    if files is not None:
        _check_files(handler, files)
    _check_handler(handler)
    _check_models(handler)
    _check_autoscaling(values["autoscaling"])
    if values["compute"]["gpu"] and values["compute"]["inf"]:
        raise FieldError("conflict", "gpu and inf cannot be used together; remove one of them.", "compute")
    strategy = values["update_strategy"]
    if int(strategy["max_surge"].rstrip("%")) == int(strategy["max_unavailable"].rstrip("%")) == 0:
        raise FieldError("conflict", "max_surge and max_unavailable cannot both be zero.", "update_strategy")
    shm, mem = handler["shm_size"], values["compute"]["mem"]
    if shm is not None and mem is not None and parse_quantity(shm) > parse_quantity(mem):
        raise FieldError("conflict", f"this cannot exceed compute.mem ({mem}).", "handler", "shm_size")


def _fill(values: dict[str, Any]) -> None:
    networking, autoscaling = values["networking"], values["autoscaling"]
    if networking["endpoint"] is None:
        try:
            networking["endpoint"] = check_reserved(f"/{values['name']}")
        except FieldError as error:
            raise error.below("networking", "endpoint") from None
    if autoscaling["init_replicas"] is None:
        autoscaling["init_replicas"] = autoscaling["min_replicas"]
    if autoscaling["target_replica_concurrency"] is None:
        # One process per replica, so a replica runs as many workloads at once as it has threads.
        autoscaling["target_replica_concurrency"] = float(values["handler"]["threads_per_process"])


def _check_path(handler: dict[str, Any]) -> None:
    shown = repr(printable(handler["path"]))
    if handler["type"] == "notebook" and not handler["path"].endswith(".ipynb"):
        raise FieldError("value", f"{shown} must end in .ipynb for type notebook.", "handler", "path")
    if handler["type"] != "notebook" and handler["path"].endswith(".ipynb"):
        remedy = "type notebook runs a notebook for each request"
        raise FieldError("value", f"{shown} must end in .py or .pickle; {remedy}.", "handler", "path")


def _check_files(handler: dict[str, Any], files: Set[str]) -> None:
    if handler["path"] not in files:
        shown = printable(handler["path"])
        raise FieldError(
            "file_missing",
            f"{shown} is not among the project's files; check the name, and .cortexignore.",
            "handler",
            "path",
        )
    root = handler["python_path"]
    if root is not None and not any(path.startswith(root) for path in files):
        raise FieldError("file_missing", f"no file of the project is below {printable(root)}.", "handler", "python_path")


def _check_handler(handler: dict[str, Any]) -> None:
    for key in ("protobuf_path", "multi_model_reloading", "server_side_batching"):
        if handler[key] is not None:
            raise FieldError("unsupported_for_kind", "AsyncAPI does not have this; remove the key.", "handler", key)
    if handler["processes_per_replica"] != 1:
        raise FieldError(
            "unsupported_for_kind",
            "this must be 1 for AsyncAPI; use threads_per_process or more replicas.",
            "handler",
            "processes_per_replica",
        )
    for name in handler["env"]:
        if name.startswith("CORTEX_"):
            raise FieldError("reserved", "names starting with CORTEX_ are reserved; choose another.", "handler", "env", name)


def _check_models(handler: dict[str, Any]) -> None:
    models = handler["models"]
    if handler["type"] != "tensorflow":
        for key in ("models", "tensorflow_serving_image"):
            if handler[key]:
                raise FieldError("unsupported_for_type", "only type tensorflow has this; remove the key.", "handler", key)
        return
    if models is None:
        raise FieldError("required", "this key is required for type tensorflow.", "handler", "models")
    given = [key for key in ("path", "paths", "dir") if models[key] is not None]
    if len(given) != 1:
        raise FieldError("exactly_one_of", "exactly one of path, paths and dir must be given.", "handler", "models")
    for key in ("cache_size", "disk_cache_size"):
        if models[key] is not None:
            raise FieldError("unsupported_for_kind", "AsyncAPI does not have this; remove the key.", "handler", "models", key)
    names = [model["name"] for model in models["paths"] or ()]
    if len(set(names)) < len(names):
        raise FieldError("duplicate", "the names of the models must be unique.", "handler", "models", "paths")
    for at, path in entries(models):
        try:
            check_location(path)
        except FieldError as error:
            raise error.below("handler", "models", *at) from None


def _check_autoscaling(autoscaling: dict[str, Any]) -> None:
    least, most, first = (autoscaling[f"{name}_replicas"] for name in ("min", "max", "init"))
    limit = autoscaling["max_replica_concurrency"]
    if autoscaling["target_replica_concurrency"] > limit:
        raise _conflict("target_replica_concurrency", f"this cannot exceed max_replica_concurrency ({limit}).")
    if least > most:
        raise _conflict("min_replicas", f"this ({least}) cannot exceed max_replicas ({most}).")
    if first > most:
        raise _conflict("init_replicas", f"this ({first}) cannot exceed max_replicas ({most}).")
    if first < least:
        raise _conflict("init_replicas", f"this ({first}) cannot be below min_replicas ({least}).")


def _conflict(key: str, sentence: str) -> FieldError:
    return FieldError("conflict", sentence, "autoscaling", key)
