"""The control routes of one deployment: its module with the reasons, and the report of its checks."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from ..core.errors import BodyTooLarge, Refused
from ..handler.origin import LINE_MAP
from ..project import bundle
from ..project.gate import MAX_REPORT_BYTES
from ..project.notebook.cells import Cell, code_cells
from ..store import rehearsals, reports
from .answers import Json
from .control import Control, DecisionRequest
from .described import answers, takes

NOTEBOOK = "application/x-ipynb+json"


def module(control: Control, name: str, version: int) -> dict[str, Any]:
    """``{"path", "source", "reasons", "notebook", "cells"}`` of a deployment. Raises DeploymentNotFound.

    ``notebook``: the name of the file that it was sliced from, "" for a project without one. ``cells``: what reasons and tracebacks call its cells
    ("cell 3") -> the cell's id.
    """
    deployment = control.registry.deployment(name, version)
    path = deployment.spec["handler"]["path"]
    with zipfile.ZipFile(io.BytesIO(control.registry.bundle(name, deployment.digest))) as archive:
        names = set(archive.namelist())
        source = archive.read(bundle.PROJECT + path).decode("utf-8", "replace") if bundle.PROJECT + path in names else ""
        reasons, lines, snapshot = (
            _json(archive.read(bundle.META + kept)) if bundle.META + kept in names else None for kept in ("reasons.json", LINE_MAP, "notebook.ipynb")
        )
    notebook = str(lines.get("notebook", "")) if isinstance(lines, dict) else ""
    if path.endswith(".ipynb"):  # a notebook handler's: its cells are what tracebacks name
        snapshot, notebook = _json(source.encode()), path
        source = "\n\n".join(f"# %% {cell.label}\n{cell.source}" for cell in _code_cells(snapshot))
    return {
        "path": path,
        "source": source,
        "reasons": reasons if isinstance(reasons, list) else [],
        "notebook": notebook if notebook.endswith(".ipynb") else "",
        "cells": _cells(snapshot),
    }


def _json(raw: bytes) -> Any:
    """What a bundle's meta holds, None where somebody packed something else."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _cells(snapshot: Any) -> dict[str, str]:
    return {cell.label: cell.id for cell in _code_cells(snapshot) if cell.id}


def _code_cells(snapshot: Any) -> list[Cell]:
    return code_cells(snapshot) if isinstance(snapshot, dict) and isinstance(snapshot.get("cells"), list) else []


def add_version_routes(router: APIRouter, control: Control) -> None:
    @router.get("/apis/{name}/deployments/{version}/module")
    def get_module(name: str, version: int) -> Response:
        return Response(json.dumps(module(control, name, version)), media_type="application/json")

    @router.get("/apis/{name}/deployments/{version}/bundle", response_class=Response, responses=answers("application/zip"))
    def get_bundle(name: str, version: int) -> Response:
        """The version's archive (`project/` and `meta/`, no `.env`): what a replay runs or compares with."""
        deployment = control.registry.deployment(name, version)
        headers = {"x-content-type-options": "nosniff", "content-disposition": "attachment"}
        return Response(control.registry.bundle(name, deployment.digest), media_type="application/zip", headers=headers)

    @router.get("/apis/{name}/deployments/{version}/report", response_class=Response, responses=answers(NOTEBOOK))
    def get_report(name: str, version: int) -> Response:
        control.registry.deployment(name, version)
        return Response(reports.get(control.client, name, version), media_type=NOTEBOOK)

    @router.get("/apis/{name}/deployments/{version}/rehearsal")
    def get_rehearsal(name: str, version: int) -> Response:
        """The report: each workload's verdict, differences and errors, and how fast it was beside production."""
        control.registry.deployment(name, version)
        return Json(rehearsals.get_known(control.client, name, version))

    @router.post("/apis/{name}/deployments/{version}/promote")
    def promote(name: str, version: int, body: DecisionRequest) -> Response:
        return Json(control.promote(name, version, body))

    @router.post("/apis/{name}/deployments/{version}/drop")
    def drop(name: str, version: int) -> Response:
        return Json(control.drop(name, version))

    @router.put("/apis/{name}/deployments/{version}/report", openapi_extra=takes(NOTEBOOK))
    async def put_report(request: Request, name: str, version: int) -> Response:
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_REPORT_BYTES:
                raise BodyTooLarge(f"a report may have at most {MAX_REPORT_BYTES:,} bytes", limit=MAX_REPORT_BYTES)
        await run_in_threadpool(_keep, control, name, version, bytes(data))
        return Response('{"kept": true}', media_type="application/json")


def _keep(control: Control, name: str, version: int, data: bytes) -> None:
    control.registry.deployment(name, version)
    try:
        if not isinstance(json.loads(data)["cells"], list):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("a report must be a notebook (ipynb)") from None
    reports.put(control.client, name, version, data)
