"""The control API, ``/_cortex/v1/…``: publishing. Plain functions, which FastAPI runs in threads; the door in front has checked the token."""

from __future__ import annotations

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from ..core.errors import BodyTooLarge, Refused
from ..project import bundle
from .answers import Json
from .artifact_routes import add_artifact_routes
from .control import Control, DeployRequest, PatchRequest, RollbackRequest
from .described import takes
from .looking_routes import add_looking_routes
from .public import CONTROL_BODY_BYTES

NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"


def create_router(control: Control) -> APIRouter:
    router = APIRouter(prefix="/_cortex/v1")
    _add_publishing(router, control)
    add_artifact_routes(router, control.shelf)
    add_looking_routes(router, control)
    return router


def _add_publishing(router: APIRouter, control: Control) -> None:
    @router.get("/apis/{name}/bundles/{digest}")
    def has_bundle(name: str, digest: str) -> Response:
        control.registry.await_delete(name)
        return Json({"present": control.registry.has_bundle(name, digest)})

    @router.put("/apis/{name}/bundles/{digest}", openapi_extra=takes("application/octet-stream"))
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

    @router.post("/apis/{name}/rollback")
    def rollback(name: str, body: RollbackRequest) -> Response:
        return Json(control.rollback(name, body))

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
