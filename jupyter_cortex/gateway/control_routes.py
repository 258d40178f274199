"""The control API, ``/_cortex/v1/…``, as routes. Plain functions, which FastAPI runs in threads; the door in front has checked the token."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from ..core.errors import BodyTooLarge, CortexError, Refused
from ..project import bundle
from ..store import logs
from .artifact_routes import add_artifact_routes
from .control import Control, DeployRequest, PatchRequest
from .public import CONTROL_BODY_BYTES

NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"


class Json(Response):
    """Plain ASCII JSON: results may hold lone surrogates, which are no UTF-8, and be nested deeper than FastAPI's encoder goes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def create_router(control: Control) -> APIRouter:
    router = APIRouter(prefix="/_cortex/v1")
    _add_publishing(router, control)
    add_artifact_routes(router, control.shelf)
    _add_looking(router, control)
    return router


def _add_publishing(router: APIRouter, control: Control) -> None:
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


def _add_looking(router: APIRouter, control: Control) -> None:
    @router.get("/status")
    def status() -> Response:
        return Json(control.status())

    @router.get("/apis")
    def list_apis() -> Response:
        return Json([control.summary(api) for api in control.registry.all()])

    @router.get("/apis/{name}")
    def get_api(name: str) -> Response:
        return Json(control.detail(name))

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
