"""What the control API does: deploy, delete, and say how things are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import redis
from pydantic import AfterValidator, BaseModel, Field

from ..core.errors import SpecError
from ..core.spec import check_specs
from ..core.workload import DeploymentState
from ..project import bundle, dotenv
from ..serving import metrics_store
from ..store import keys
from ..store.connection import store_errors
from ..store.records import Records
from ..store.registry import Api, Deployment, Registry
from .artifact_routes import Shelf
from .routes import check_endpoint


def _is_text(value: str) -> str:
    """A lone surrogate is valid JSON, but no text that could be stored."""
    value.encode()
    return value


Line = Annotated[str, AfterValidator(_is_text)]


class DeployRequest(BaseModel):
    """The body of PUT /apis/{name}: one entry of cortex.yaml as written, and what it was made with."""

    spec: dict[str, Any]
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    dotenv: Line = ""
    source: Line = Field(min_length=1, max_length=1000)
    interpreter: Line = ""
    python_version: Line = ""
    host: Line = ""
    distributions: dict[Line, Line] = {}
    take_over: bool = False
    force: bool = False


class PatchRequest(BaseModel):
    spec: dict[str, Any]
    force: bool = False


class Control:
    """The routes' common ground: the store, the registry, and what changes routes."""

    def __init__(self, client: redis.Redis, shelf: Shelf, changed: Callable[[], None]) -> None:
        self.client, self.shelf = client, shelf
        self.registry = Registry(client)
        self.records = Records(client)
        self._changed = changed

    def names_in(self, name: str, digest: str) -> list[str]:
        return bundle.names(self.registry.bundle(name, digest))

    def check(self, name: str, raw: dict[str, Any], digest: str, dotenv_text: str, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """The resolved spec, or a refusal. The same function as the client's; the server does not take its word. ``before``: the spec it replaces."""
        spec = check_specs([raw], self.names_in(name, digest))[0]
        if spec.name != name:
            raise SpecError(f"the spec names {spec.name}, the request {name}", path="name")
        if spec.handler.type != "python":
            raise SpecError(
                f"cortex.yaml: [0].handler.type ({name}): the {spec.handler.type} handler is not served by this version; load the model in a "
                "python handler's constructor",
                path="handler.type",
                kind="unsupported",
            )
        if dotenv_text:
            dotenv.parse(dotenv_text.encode(), spec.handler.env)
        resolved = spec.resolved()
        resolved["artifacts"] = self.shelf.resolve(name, spec.artifacts, (before or {}).get("artifacts", []))
        check_endpoint(self.registry, name, resolved)
        return resolved

    def deploy(self, name: str, request: DeployRequest) -> dict[str, Any]:
        return self._record(name, request, self.check(name, request.spec, request.digest, request.dotenv))

    def again(self, name: str, *, raw_spec: dict[str, Any] | None, force: bool, anew: bool = False) -> dict[str, Any]:
        """Deploy what is there once more: with another spec (patch), or as it is (refresh: ``anew``)."""
        api = self.registry.get(name)
        last = self.registry.deployment(name, api.live or api.wanted)
        if raw_spec is None:
            with store_errors():
                raw_spec = json.loads(self.client.hget(keys.deployment(name, last.version), "raw_spec") or b"{}")  # type: ignore[arg-type]
        request = DeployRequest(
            spec=raw_spec or {},
            digest=last.digest,
            dotenv=last.dotenv,
            source=api.source,
            interpreter=last.interpreter,
            python_version=last.python_version,
            host=last.host,
            distributions=last.distributions,
            force=force,
        )
        return self._record(name, request, self.check(name, request.spec, last.digest, last.dotenv, last.spec), anew=anew)

    def _record(self, name: str, request: DeployRequest, resolved: dict[str, Any], *, anew: bool = False) -> dict[str, Any]:
        facts = {
            "python_version": request.python_version,
            "host": request.host,
            "distributions": json.dumps(request.distributions),
            "raw_spec": json.dumps(request.spec),
        }
        outcome, version = self.registry.deploy(
            name,
            resolved,
            request.digest,
            dotenv=request.dotenv,
            source=request.source,
            interpreter=request.interpreter,
            facts=facts,
            take_over=request.take_over,
            force=request.force,
            anew=anew,
        )
        self._changed()
        endpoint = resolved["networking"]["endpoint"]
        return {"api": name, "outcome": outcome, "version": version, "message": message(outcome, name), "endpoint": endpoint}

    def delete(self, name: str) -> dict[str, str]:
        self.registry.delete(name)
        self._changed()
        return {"message": f"deleting {name}"}

    def summary(self, api: Api) -> dict[str, Any]:
        """What lists show of an API, and everything that says how it is."""
        live = self.registry.find_deployment(api.name, api.live) if api.live else None
        wanted = self.registry.find_deployment(api.name, api.wanted) if api.wanted else None
        workers = self.registry.workers(api.name)
        status, why = api_status(api, live, wanted, workers)
        shown = live or wanted
        # Replicas of a version that failed are on their way out; the live one's are not stale because of it.
        newest = api.live if wanted is None or wanted.state is DeploymentState.FAILED else api.wanted
        return {
            "name": api.name,
            "status": status,
            "message": why,
            "endpoint": api.endpoint,
            "live": api.live,
            "wanted": api.wanted,
            "stopped": api.stopped,
            "source": api.source,
            "requested": shown.replicas if shown else 0,
            "ready": _ready(workers, api.live),
            "stale": sum(worker["ready"] for worker in workers.values() if worker["version"] not in (newest, api.wanted)),
            "capped": shown.capped if shown else "",
            "drift": next((w["drift"] for w in workers.values() if w["version"] == api.live and w["drift"]), {}),
            "created": api.created,
            "updated": api.updated,
            "workloads": self.records.counts(api.name),
        }

    def detail(self, name: str) -> dict[str, Any]:
        api = self.registry.get(name)
        with store_errors():
            exits = [json.loads(raw) for raw in self.client.lrange(keys.exits(name), 0, 9)]  # type: ignore[union-attr]
        return {
            **self.summary(api),
            "spec": api.spec,
            "api_versions": [deployment.public() for deployment in self.registry.deployments(name)],
            "workers": self.registry.workers(name),
            "exits": exits,
        }

    def status(self) -> dict[str, Any]:
        with store_errors():
            raw = self.client.get(keys.STATUS)
        return json.loads(raw) if raw else {"processes": []}  # type: ignore[arg-type]

    def metrics(self) -> str:
        """Prometheus text of everything."""
        from ..handler import metrics as client_metrics

        lines = ["# TYPE cortex_async_queue_length gauge"]
        ready = ["# TYPE cortex_replicas_ready gauge"]
        custom = []
        for api in self.registry.all():
            labels = f'{{api_name="{api.name}",api_kind="{api.spec["kind"]}"}}'
            counts = self.records.counts(api.name)
            lines.append(f"cortex_async_queue_length{labels} {counts['in_queue'] + counts['in_progress']}")
            ready.append(f"cortex_replicas_ready{labels} {_ready(self.registry.workers(api.name), api.live)}")
            custom.append(client_metrics.render(metrics_store.totals(self.client, api.name), {"api_name": api.name}))
        return "\n".join([*lines, *ready, *(part.strip("\n") for part in custom if part.strip())]) + "\n"


def message(outcome: str, name: str) -> str:
    said = {"created": "creating {}", "updating": "updating {}", "changed": "updating {}", "up_to_date": "{} is up to date"}[outcome]
    return said.format(f"{name} (AsyncAPI)")


def _ready(workers: dict[str, dict[str, Any]], version: int) -> int:
    return sum(worker["ready"] for worker in workers.values() if worker["version"] == version)


def api_status(api: Api, live: Deployment | None, wanted: Deployment | None, workers: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """(live | updating | error | stopped, why). The last deploy's failure is said even while the version before it serves."""
    failed = wanted is not None and wanted.state is DeploymentState.FAILED
    why = str(wanted.error.get("message", "")) if failed and wanted else ""
    if api.stopped:
        return "stopped", f"started again by `cortex start {api.name}`"
    if live is None:
        return ("error", why) if failed else ("updating", "")
    if failed and wanted:
        why = f"version {wanted.version} did not start, version {live.version} still serves: {why}"
    if _ready(workers, live.version) >= max(1, live.replicas):
        updating = wanted is not None and wanted.state in (DeploymentState.PENDING, DeploymentState.STARTING)
        return ("updating" if updating else "live"), why
    if not _ready(workers, live.version):
        trouble = next((worker["trouble"] for worker in workers.values() if worker["version"] == live.version and worker["trouble"]), "")
        if trouble:
            return "error", trouble
    return "updating", why
