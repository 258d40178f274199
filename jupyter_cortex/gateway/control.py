"""The control API, ``/_cortex/v1/…``: always with the environment's token. Plain functions; FastAPI runs them in threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import redis
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import AfterValidator, BaseModel, Field
from starlette.concurrency import run_in_threadpool

from ..core.errors import BodyTooLarge, CortexError, Refused, SpecError
from ..core.spec import check_specs
from ..core.workload import DeploymentState
from ..project import bundle, dotenv
from ..serving import metrics_store
from ..store import keys, logs
from ..store.connection import store_errors
from ..store.records import Records
from ..store.registry import Api, Deployment, Registry
from .public import CONTROL_BODY_BYTES
from .routes import check_endpoint

NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"


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

    def __init__(self, client: redis.Redis, changed: Callable[[], None]) -> None:
        self.client = client
        self.registry = Registry(client)
        self.records = Records(client)
        self._changed = changed

    def names_in(self, name: str, digest: str) -> list[str]:
        return bundle.names(self.registry.bundle(name, digest))

    def check(self, name: str, raw: dict[str, Any], digest: str, dotenv_text: str) -> dict[str, Any]:
        """The resolved spec, or a refusal. The same function as the client's; the server does not take its word."""
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
        check_endpoint(self.registry, name, resolved)
        return resolved

    def deploy(self, name: str, request: DeployRequest) -> dict[str, Any]:
        resolved = self.check(name, request.spec, request.digest, request.dotenv)
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
        )
        self._changed()
        return {
            "api": name,
            "outcome": outcome,
            "version": version,
            "message": message(outcome, name),
            "endpoint": resolved["networking"]["endpoint"],
        }

    def again(self, name: str, *, raw_spec: dict[str, Any] | None, force: bool, anew: bool = False) -> dict[str, Any]:
        """Deploy what is there once more: with another spec (patch), or as it is (refresh)."""
        api = self.registry.get(name)
        last = self.registry.deployment(name, api.live or api.wanted)
        with store_errors():
            stored = self.client.hmget(keys.deployment(name, last.version), "raw_spec")
        raw = raw_spec if raw_spec is not None else json.loads(stored[0] or b"{}")  # type: ignore[index]
        resolved = self.check(name, raw, last.digest, last.dotenv)
        facts = {
            "python_version": last.python_version,
            "host": last.host,
            "distributions": json.dumps(last.distributions),
            "raw_spec": json.dumps(raw),
        }
        outcome, version = self.registry.deploy(
            name, resolved, last.digest, dotenv=last.dotenv, source=api.source, interpreter=last.interpreter, facts=facts, force=force, anew=anew
        )
        self._changed()
        return {
            "api": name,
            "outcome": outcome,
            "version": version,
            "message": message(outcome, name),
            "endpoint": resolved["networking"]["endpoint"],
        }

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
            "stale": sum(worker["ready"] for worker in workers.values() if worker["version"] != (api.wanted or api.live)),
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
    if any(worker["version"] == live.version and worker["failure"] for worker in workers.values()):
        failure = next(worker["failure"] for worker in workers.values() if worker["version"] == live.version and worker["failure"])
        return "error", str(failure.get("message", ""))
    return "updating", why


class Json(Response):
    """Plain ASCII JSON: results may hold lone surrogates, which are no UTF-8, and be nested deeper than FastAPI's encoder goes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def create_router(control: Control) -> APIRouter:
    """The routes. The door in front of them has checked the token."""
    router = APIRouter(prefix="/_cortex/v1")

    @router.get("/status")
    def status() -> Response:
        return Json(control.status())

    @router.get("/apis")
    def list_apis() -> Response:
        return Json([control.summary(api) for api in control.registry.all()])

    @router.get("/apis/{name}")
    def get_api(name: str) -> Response:
        return Json(control.detail(name))

    @router.get("/apis/{name}/bundles/{digest}")
    def has_bundle(name: str, digest: str) -> Response:
        return Json({"present": control.registry.has_bundle(name, digest)})

    @router.put("/apis/{name}/bundles/{digest}")
    async def put_bundle(request: Request, digest: str, name: str = Path(pattern=f"^{NAME}$", max_length=42)) -> Response:
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > CONTROL_BODY_BYTES:
                raise BodyTooLarge(
                    f"a bundle may have at most {CONTROL_BODY_BYTES} bytes; `.cortexignore` leaves files out", limit=CONTROL_BODY_BYTES
                )
        found = await run_in_threadpool(bundle.digest_of, bytes(data))
        if found != digest:
            raise Refused(f"the bundle's digest is {found[:12]}…, not {digest[:12]}… as said; it was damaged on the way")
        await run_in_threadpool(control.registry.put_bundle, name, digest, bytes(data))
        return Json({"present": True})

    @router.put("/apis/{name}")
    def deploy(name: str, body: DeployRequest) -> Response:
        return Json(control.deploy(name, body))

    @router.patch("/apis/{name}")
    def patch(name: str, body: PatchRequest) -> Response:
        return Json(control.again(name, raw_spec=body.spec, force=body.force))

    @router.post("/apis/{name}/refresh")
    def refresh(name: str, force: bool = False) -> Response:
        return Json(control.again(name, raw_spec=None, force=force, anew=True))

    @router.post("/apis/{name}/stop")
    def stop(name: str) -> Response:
        control.registry.set_stopped(name, True)
        return Json({"message": f"stopping {name}; requests are still accepted and wait"})

    @router.post("/apis/{name}/start")
    def start(name: str) -> Response:
        control.registry.set_stopped(name, False)
        return Json({"message": f"starting {name}"})

    @router.delete("/apis/{name}")
    def delete(name: str) -> Response:
        return Json(control.delete(name))

    @router.get("/apis/{name}/deployments/{version}")
    def deployment(name: str, version: int) -> Response:
        return Json(control.registry.deployment(name, version).public())

    @router.get("/apis/{name}/workloads")
    def workloads(name: str, status: str | None = None, limit: int = Query(50, ge=1, le=1000), before: int | None = None) -> Response:
        control.registry.get(name)
        return Json([record.public() for record in control.records.newest(name, status, limit, before)])

    @router.get("/apis/{name}/workloads/{request_id}")
    def workload(name: str, request_id: str) -> Response:
        control.registry.get(name)
        return Json(control.records.details(name, request_id))

    @router.get("/apis/{name}/history")
    def history(name: str, minutes: int = Query(60, ge=1, le=10080)) -> Response:
        control.registry.get(name)
        return Json(control.records.history(name, minutes))

    @router.get("/apis/{name}/events")
    def events(name: str, after: str = Query("0-0", pattern=r"^\d{1,19}-\d{1,19}$"), limit: int = Query(1000, ge=1, le=10000)) -> Response:
        control.registry.get(name)
        return Json(control.records.events(name, after, limit))

    @router.get("/apis/{name}/logs")
    def log(name: str, lines: int = Query(200, ge=0, le=10000), follow: bool = False) -> Response:
        """JSON lines, oldest first; with ``follow`` the answer goes on until the caller closes it or the API is deleted."""
        control.registry.get(name)
        found, position = logs.tail(control.client, name, lines) if lines else ([], logs.tail(control.client, name, 1)[1])
        text = "".join(f"{line}\n" for line in found)
        if not follow:
            return PlainTextResponse(text, media_type="application/x-ndjson")
        return StreamingResponse(_follow(control, name, text, position), media_type="application/x-ndjson")

    return router


async def _follow(control: Control, name: str, first: str, position: str) -> AsyncIterator[str]:
    yield first or "\n"
    quiet = 0.0
    while True:
        lines, position = await run_in_threadpool(logs.after, control.client, name, position)
        if lines:
            yield "".join(f"{line}\n" for line in lines)
            quiet = 0.0
            continue
        await asyncio.sleep(0.2)
        quiet += 0.2
        if quiet >= 10:
            # An empty line now and then: a caller that is gone is only noticed by writing.
            quiet = 0.0
            yield "\n"
            with contextlib.suppress(CortexError):
                if await run_in_threadpool(control.registry.find, name) is None:
                    return
