"""Which keys one entry of ``cortex.yaml`` has: order, type, default and range of each, said once.

The order of the tables is the order in which errors are reported. What a single text must look like is in
``checks.py``, what concerns several fields at once in ``rules.py``.
"""

from __future__ import annotations

from typing import Any

from . import checks, json_paths
from .artifacts import read_artifacts
from .fields import Field, read_map
from .models import check_serving
from .plain import plain_copy
from .readers import INT64, Duration, a_map, filled, integer, number, one_of, quantity, text, texts, yes_or_no

_TENSORFLOW_MODEL = (
    Field("name", text(checks.check_model_name), required=True),
    Field("path", text(), required=True),
    Field("signature_key", text()),
)
MODELS = (
    Field("path", text()),
    Field("paths", items=_TENSORFLOW_MODEL),
    Field("dir", text()),
    Field("signature_key", text()),
    Field("serving", text(check_serving)),
    Field("cache_size", integer(1)),
    Field("disk_cache_size", integer(1)),
)
DEPENDENCIES = (
    Field("pip", text(), default="requirements.txt"),
    Field("conda", text(), default="conda-packages.txt"),
    Field("shell", text(), default="dependencies.sh"),
)
HANDLER = (
    Field("type", text(checks.check_type), required=True),
    Field("path", text(checks.check_path), required=True),
    Field("protobuf_path", text(checks.check_protobuf_path), nullable=True),
    Field("python_path", text(checks.check_python_path)),
    Field("image", text(checks.check_image, empty=True), default=""),
    Field("tensorflow_serving_image", text(checks.check_image, empty=True), default=""),
    Field("processes_per_replica", integer(1, 100), default=1),
    Field("threads_per_process", integer(1, 100), default=1),
    Field("shm_size", quantity(), nullable=True),
    Field("log_level", one_of("debug", "info", "warning", "error"), default="info"),
    Field("config", a_map, default={}, nullable=True, null={}),
    Field("env", checks.check_env, default={}),
    Field("models", fields=MODELS, optional=True),
    Field("multi_model_reloading", a_map),
    Field("server_side_batching", a_map),
    Field("dependencies", fields=DEPENDENCIES),
)
NETWORKING = (
    Field("endpoint", text(checks.check_endpoint, longest=checks.ENDPOINT_LIMIT)),
    Field("allow_origins", checks.check_origins, default=[]),
)
COMPUTE = (
    Field("cpu", quantity("20m", numeric=True), default="200m", nullable=True),
    Field("mem", quantity("20Mi"), nullable=True),
    Field("gpu", integer(0, largest=INT64), default=0),
    Field("inf", integer(0, 1, largest=INT64), default=0),
    Field("node_groups", lambda value: filled(texts(text(checks.check_node_group))(value)), nullable=True),
)
AUTOSCALING = (
    Field("min_replicas", integer(1), default=1),
    Field("max_replicas", integer(1), default=100),
    Field("init_replicas", integer(1)),
    Field("max_replica_concurrency", integer(1, 30_000, largest=INT64), default=1024),
    Field("target_replica_concurrency", number(lambda x: x > 0, "greater than 0")),
    Field("window", Duration(10, multiple_of=10), default=60.0),
    Field("downscale_stabilization_period", Duration(), default=300.0),
    Field("upscale_stabilization_period", Duration(), default=60.0),
    Field("max_downscale_factor", number(lambda x: 0 <= x < 1, "from 0 to less than 1"), default=0.75),
    Field("max_upscale_factor", number(lambda x: x > 1, "greater than 1"), default=1.5),
    Field("downscale_tolerance", number(lambda x: 0 <= x < 1, "from 0 to less than 1"), default=0.05),
    Field("upscale_tolerance", number(lambda x: x >= 0, "0 or more"), default=0.05),
)
UPDATE_STRATEGY = (
    Field("max_surge", checks.check_surge, default="25%"),
    Field("max_unavailable", checks.check_surge, default="25%"),
)
RETAIN = (
    Field("payload", one_of("failed", "always", "never"), default="failed"),
    Field("days", integer(1, 7), default=7),
    Field("max_bytes", integer(0, largest=INT64), default=10 * 1024 * 1024),
    Field("redact", texts(text(json_paths.check)), default=[]),
)
API = (
    Field("name", text(checks.check_name, longest=checks.NAME_LIMIT), required=True),
    Field("kind", text(checks.check_kind), required=True),
    Field("handler", fields=HANDLER, required=True),
    Field("artifacts", read_artifacts, default=[]),
    Field("networking", fields=NETWORKING),
    Field("compute", fields=COMPUTE),
    Field("autoscaling", fields=AUTOSCALING),
    Field("update_strategy", fields=UPDATE_STRATEGY),
    Field("retain", fields=RETAIN),
    Field("rehearse", yes_or_no, default=False),
    Field("max_deliveries", integer(1, 100), default=3),
    Field("drain_timeout", Duration(above=0), default=86_400.0),
    Field("timeout", Duration(above=0)),
    Field("queue_timeout", Duration(above=0)),
    Field("cancel", one_of("interrupt", "kill"), default="interrupt"),
    Field("cancel_grace", Duration(), default=1.0),
)


def read_api(document: Any) -> dict[str, Any]:
    """One entry of the file with its own defaults filled in; a null entry is an empty map. Raises FieldError."""
    values = read_map({} if document is None else document, API)
    values["handler"]["config"] = plain_copy(values["handler"]["config"], "handler", "config")
    return values
