"""One entry of ``cortex.yaml``: the typed, frozen ``APISpec``, and the passes that make it from parsed YAML."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict

from .checks import NAME, NAME_LIMIT, RESERVED_ENDPOINTS
from .errors import SpecError
from .fields import as_written
from .readers import FieldError, printable
from .rules import check_api
from .scalars import parse_quantity
from .schema import API, read_api

__all__ = [
    "RESERVED_ENDPOINTS",
    "APISpec",
    "Artifact",
    "Autoscaling",
    "Compute",
    "Dependencies",
    "HandlerSpec",
    "Models",
    "Networking",
    "Retain",
    "TensorFlowModel",
    "UpdateStrategy",
    "check_documents",
    "check_specs",
]


class _Frozen(BaseModel):
    # Values were checked and converted before they come here, so pydantic converts nothing (strict).
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class Dependencies(_Frozen):
    """Files that say what to install; none of them needs to exist."""

    pip: str
    conda: str
    shell: str


class TensorFlowModel(_Frozen):
    name: str
    path: str
    signature_key: str | None


class Models(_Frozen):
    """Where a tensorflow handler's models are: exactly one of ``path``, ``paths`` and ``dir``."""

    path: str | None
    paths: list[TensorFlowModel] | None
    dir: str | None
    signature_key: str | None
    serving: str | None  #: the REST address of a TensorFlow Serving that has them
    cache_size: int | None
    disk_cache_size: int | None


class HandlerSpec(_Frozen):
    """The author's class: where it is, what it gets, what it runs with."""

    type: str
    path: str
    protobuf_path: str | None
    python_path: str | None  #: relative to the project's root, ends in a slash
    image: str
    tensorflow_serving_image: str
    processes_per_replica: int
    threads_per_process: int
    shm_size: str | None
    log_level: str
    config: dict[str, Any]
    env: dict[str, str]
    models: Models | None
    multi_model_reloading: dict[str, Any] | None
    server_side_batching: dict[str, Any] | None
    dependencies: Dependencies


class Artifact(_Frozen):
    """A large file that travels apart from the bundle: where it lies below the project's root, and what it is.

    ``sha256`` (64 hex digits) and ``bytes`` are None until a client has filled them in.
    """

    path: str
    sha256: str | None
    bytes: int | None


class Networking(_Frozen):
    endpoint: str  #: with a slash in front and none behind
    allow_origins: list[str]  #: ``scheme://host[:port]``, or the single ``*``


class Compute(_Frozen):
    """What a replica asks for, in the text that was written; the properties have the numbers."""

    cpu: str | None
    mem: str | None
    gpu: int
    inf: int
    node_groups: list[str] | None

    @property
    def cpu_cores(self) -> float | None:
        return None if self.cpu is None else float(parse_quantity(self.cpu))

    @property
    def mem_bytes(self) -> int | None:
        return None if self.mem is None else int(parse_quantity(self.mem))


class Autoscaling(_Frozen):
    """Durations are in seconds."""

    min_replicas: int
    max_replicas: int
    init_replicas: int
    max_replica_concurrency: int
    target_replica_concurrency: float
    window: float
    downscale_stabilization_period: float
    upscale_stabilization_period: float
    max_downscale_factor: float
    max_upscale_factor: float
    downscale_tolerance: float
    upscale_tolerance: float


class UpdateStrategy(_Frozen):
    """Numbers of replicas, or percentages, as text."""

    max_surge: str
    max_unavailable: str


class Retain(_Frozen):
    """What is kept of a finished workload's payload, for how long, and the JSON paths of what must not stay of it."""

    payload: str
    days: int
    max_bytes: int
    redact: list[str]


class APISpec(_Frozen):
    """One API as its author wants it, with every default filled in. Made by :func:`check_specs`."""

    name: str
    kind: str
    handler: HandlerSpec
    artifacts: list[Artifact]
    networking: Networking
    compute: Compute
    autoscaling: Autoscaling
    update_strategy: UpdateStrategy
    retain: Retain
    rehearse: bool  #: its handler may run real workloads a second time, in the shadow
    max_deliveries: int
    drain_timeout: float  #: seconds
    timeout: float | None  #: seconds that a workload may run, None: any time
    queue_timeout: float | None  #: seconds that it may wait before it is begun
    cancel: str  #: what happens to a replica whose handler does not end when it is cancelled
    cancel_grace: float  #: seconds between asking a handler to end, interrupting it, and replacing its replica

    def resolved(self) -> dict[str, Any]:
        """This spec as a new JSON-safe dict: durations as float seconds, None where there is no value."""
        return self.model_dump(mode="python")

    @classmethod
    def from_resolved(cls, document: Any, source: str = "spec") -> APISpec:
        """The equal of the spec whose :meth:`resolved` is ``document``.

        All rules are checked again, except that files must exist. Raises SpecError as :func:`check_specs` does.
        """
        with _reported(source, None, document):
            values = read_api(as_written(document, API))
            check_api(values, None)
        return cls.model_validate(values)

    @property
    def warnings(self) -> list[str]:
        """Sentences on keys that are valid but do nothing here."""
        handler, compute, autoscaling, strategy = self.handler, self.compute, self.autoscaling, self.update_strategy
        no_containers = "there are no containers here"
        no_cluster = "there is no cluster here"
        ignored = {
            "handler.image": (handler.image, no_containers),
            "handler.tensorflow_serving_image": (handler.tensorflow_serving_image, f"{no_containers}; models.serving names a TensorFlow Serving"),
            "handler.shm_size": (handler.shm_size, no_containers),
            "compute.inf": (compute.inf, no_cluster),
            "compute.node_groups": (compute.node_groups, no_cluster),
            "autoscaling.max_replica_concurrency": (
                autoscaling.max_replica_concurrency != 1024,
                "an AsyncAPI queues workloads instead of refusing them",
            ),
            "update_strategy": (
                (strategy.max_surge, strategy.max_unavailable) != ("25%", "25%"),
                "a new version gets all of its replicas beside those of the old one, which leave when it is live",
            ),
        }
        return [f"{key} is ignored: {reason}" for key, (given, reason) in ignored.items() if given]


def check_documents(documents: Any, source: str = "cortex.yaml") -> list[dict[str, Any]]:
    """The shape of the whole file: a list of one or more maps with string keys; a null entry counts as an empty map.

    Raises SpecError (kind ``no_apis`` or ``not_a_list_of_maps``).
    """
    if documents is None or documents == []:
        raise SpecError(f"{source}: at least one API must be in the file.", path="", kind="no_apis")
    if not isinstance(documents, list) or not all(_is_map(document) for document in documents):
        sentence = "the file must contain a list of maps, one per API; begin each with '- name: <name>'."
        raise SpecError(f"{source}: {sentence}", path="", kind="not_a_list_of_maps")
    return [document or {} for document in documents]


def _is_map(document: Any) -> bool:
    return document is None or (isinstance(document, dict) and all(isinstance(key, str) for key in document))


def check_specs(documents: Any, files: Collection[str], source: str = "cortex.yaml") -> list[APISpec]:
    """The APIs of a parsed ``cortex.yaml``, in its order. ``files`` are the paths that are shipped with it.

    Raises SpecError for the first thing that is wrong, with details ``api`` (index, absent when it is about the whole
    file), ``path`` (dotted) and ``kind``. The passes, each over all APIs: fields, rules between fields, duplicate
    names, duplicate endpoints.
    """
    entries, shipped, apis = check_documents(documents, source), frozenset(files), []
    for index, entry in enumerate(entries):
        with _reported(source, index, entry):
            apis.append(read_api(entry))
    for index, values in enumerate(apis):
        with _reported(source, index, values):
            check_api(values, shipped)
    with _reported(source, None, None):
        _check_unique([values["name"] for values in apis], "name")
        _check_unique([values["networking"]["endpoint"] for values in apis], "networking", "endpoint")
    return [APISpec.model_validate(values) for values in apis]


def _check_unique(given: list[str], *parts: str) -> None:
    first: dict[str, int] = {}
    for index, value in enumerate(given):
        if value in first:
            sentence = f"{printable(value)} is used by [{first[value]}] and [{index}]; it must be unique across the APIs."
            raise FieldError("duplicate", sentence, *parts)
        first[value] = index


@contextmanager
def _reported(source: str, index: int | None, entry: Any) -> Iterator[None]:
    """Turn a FieldError into ``cortex.yaml: [0].handler.path (iris): <sentence>``."""
    try:
        yield
    except FieldError as error:
        name = entry.get("name") if isinstance(entry, dict) else None
        usable = isinstance(name, str) and len(name) <= NAME_LIMIT and NAME.fullmatch(name)
        place = error.path if index is None else f"[{index}].{error.path}".rstrip(".")
        place += f" ({name})" if usable else ""
        raise SpecError(f"{source}: {place}: {error.sentence}", api=index, path=error.path, kind=error.kind) from None
