"""The control routes that only look: APIs, workloads, history, events and logs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from ..core.errors import BadRequest, CortexError, PayloadGone
from ..core.levels import Level
from ..core.workload import FINAL, DeploymentState, Status, stays
from ..handler.redaction import Redaction
from ..store import history, listing, logs, streams
from ..store.records import Record
from .answers import Json
from .control import Control
from .described import answers

#: Seconds without a line after which one who follows a log is sent an empty one.
QUIET_S = 10.0


def add_looking_routes(router: APIRouter, control: Control) -> None:
    _add_apis(router, control)
    _add_workloads(router, control)
    _add_logs(router, control)


def _add_apis(router: APIRouter, control: Control) -> None:
    @router.get("/status")
    def status() -> Response:
        return Json(control.status())

    @router.get("/apis")
    def list_apis(recent: int = Query(0, ge=0, le=60)) -> Response:
        return Json(control.summaries(recent))

    @router.get("/apis/{name}")
    def get_api(name: str) -> Response:
        return Json(control.detail(name))

    @router.get("/apis/{name}/deployments/{version}")
    def deployment(name: str, version: int) -> Response:
        """With ``installing``: the last line of what installs its requirements, "" when nothing does."""
        found = control.registry.deployment(name, version)
        workers = control.registry.workers(name).values() if found.state in (DeploymentState.STARTING, DeploymentState.REHEARSING) else ()
        saying = next((said for worker in workers if worker["version"] == version and (said := worker.get("installing"))), "")
        return Json({**found.public(), "installing": saying})

    @router.get("/apis/{name}/deployments/{version}/spec")
    def spec(name: str, version: int) -> Response:
        """As its author wrote it, defaults left out."""
        return Json({"spec": control.written_spec(name, version)})

    @router.get("/apis/{name}/history")
    def get_history(name: str, minutes: int = Query(60, ge=1, le=10080), step: int | None = Query(None, ge=1, le=1440)) -> Response:
        """Without ``step``: the minutes with traffic. With it: one row per ``step`` minutes, without gaps."""
        control.registry.get(name)
        if step is None:
            return Json(history.history(control.client, name, minutes))
        return Json(history.dense(control.client, name, minutes, step))

    @router.get("/apis/{name}/events")
    def events(name: str, after: str = Query("0-0", pattern="^[0-9]{1,19}-[0-9]{1,19}$"), limit: int = Query(1000, ge=1, le=10000)) -> Response:
        control.registry.get(name)
        return Json(streams.events(control.client, name, after, limit))


def _statuses(given: list[str]) -> frozenset[Status]:
    """``?status=failed,cancelled&status=completed``. Raises BadRequest."""
    words = [word for part in given for word in part.split(",") if word]
    try:
        return frozenset(map(Status, words))
    except ValueError:
        raise BadRequest(f"status: {ascii(words)[:100]} is not made of {', '.join(Status)}; leave it out for all", path="status") from None


def _add_workloads(router: APIRouter, control: Control) -> None:
    @router.get("/apis/{name}/workloads")
    def workloads(
        name: str,
        status: Annotated[list[str], Query()] = [],  # noqa: B006 (FastAPI copies it)
        limit: int = Query(50, ge=1, le=1000),
        cursor: str = Query("", max_length=300),
        q: str = Query("", max_length=200),
        fingerprint: str = Query("", pattern="^([0-9a-f]{12,16})?$"),
    ) -> Response:
        control.registry.get(name)
        page = listing.page(control.client, name, _statuses(status), limit, cursor, q, fingerprint)
        return Json({"workloads": [record.public() for record in page.records], "next": page.next, "scanned": page.scanned})

    @router.get("/apis/{name}/workloads/{request_id}")
    def workload(name: str, request_id: str, logs: bool = True) -> Response:
        """``logs=false``: without a failure's own lines, which may be 1 MB. ``payload_gone`` says why a payload is not kept."""
        api = control.registry.get(name)
        shown = control.records.details(name, request_id, logs=logs)
        if shown["status"] in FINAL and not shown["payload_kept"]:
            shown["payload_gone"] = _why_gone(shown["status"], shown["size"], api.spec["retain"])
        return Json(shown)

    @router.get("/apis/{name}/workloads/{request_id}/payload", response_class=Response, responses=answers("application/octet-stream"))
    def payload(name: str, request_id: str) -> Response:
        """The bytes as they came, but for what the spec redacts. They are a stranger's: no browser may take them for a page."""
        api = control.registry.get(name)
        record, body = control.records.payload(name, request_id)
        if body is None:
            raise _payload_gone(record, api.spec["retain"])
        # Also while it waits or runs, and one that an earlier spec kept whole.
        shown = Redaction(paths).applied(body, record.content_type) if (paths := api.spec["retain"]["redact"]) else body
        if shown is None:
            raise PayloadGone(f"the payload of {request_id} is no JSON, and the spec has `retain.redact`: nobody can say what may be shown of it")
        headers = {
            "x-content-type-options": "nosniff",
            "content-disposition": "attachment",
            "content-security-policy": "sandbox",
            "x-payload-content-type": quote(record.content_type, safe="/;="),
            "x-payload-redacted": "1" if record.redacted or shown is not body else "0",
        }
        return Response(shown, media_type="application/octet-stream", headers=headers)

    @router.get("/apis/{name}/workloads/{request_id}/logs")
    def own_log(
        name: str,
        request_id: str,
        limit: int | None = Query(None, ge=1, le=2000),
        first: int | None = Query(None, ge=0),
        q: str = Query("", max_length=200),
    ) -> Response:
        """All of its records. With ``limit`` only so many: from number ``first`` on, else the last ones, of those whose text holds ``q``;
        ``first`` and ``total`` of the answer say which these are."""
        control.registry.get(name)
        record = control.records.get(name, request_id)
        if limit is None:
            return Json({"records": logs.of_workload(control.client, name, record)})
        page = logs.page_of_workload(control.client, name, record, limit, first, q)
        return Json({"records": page.records, "times": page.times, "first": page.first, "total": page.total})


def _payload_gone(record: Record, retain: dict[str, Any]) -> PayloadGone:
    return PayloadGone(
        f"the payload of {record.id} was deleted when the workload ended ({record.status}): {_why_gone(record.status, record.size, retain)}"
    )


def _why_gone(status: str, size: int, retain: dict[str, Any]) -> str:
    """Why a payload is not there, and how the next ones will be."""
    limit = retain["max_bytes"]
    keeps = stays({**retain, "max_bytes": -1}, status, size)
    if keeps and 0 <= limit < size:
        return f"it has {size:,} bytes, and `retain: {{max_bytes: {limit}}}` keeps smaller ones"
    if keeps and retain["redact"]:
        return "the spec has `retain.redact`, and what is no JSON, or was cancelled, does not stay then"
    if keeps:
        return "the spec did not keep such payloads then"
    return "`retain: {payload: always}` in the spec keeps those of workloads to come"


def _add_logs(router: APIRouter, control: Control) -> None:
    @router.get("/apis/{name}/logs/tail")
    def log_tail(name: str, sought: Annotated[logs.Sought, Depends(_sought)], lines: int = Query(500, ge=0, le=10000)) -> Response:
        """The newest lines as records, with the ms since the epoch at which each was written, and the position from which `POST /changes` goes on.

        With ``q`` or ``level`` of those that show this text, of this level and above, among all that are kept.
        """
        control.registry.get(name)
        found, position = logs.newest(control.client, name, lines, sought)
        records = [logs.record(line) for line, _ in found]
        times = [logs.written(shown, shipped) for shown, (_, shipped) in zip(records, found, strict=True)]
        return Json({"records": records, "times": times, "position": position})

    @router.get("/apis/{name}/logs", response_class=Response, responses=answers("application/x-ndjson"))
    def log(name: str, sought: Annotated[logs.Sought, Depends(_sought)], lines: int = Query(200, ge=0, le=10000), follow: bool = False) -> Response:
        """JSON lines, oldest first; with ``follow`` the answer goes on until the caller closes it or the API is deleted. `q`, `level`: as above."""
        control.registry.get(name)
        found, position = logs.tail(control.client, name, lines, sought)
        text = "".join(f"{line}\n" for line in found)
        if not follow:
            return PlainTextResponse(text, media_type="application/x-ndjson")
        return StreamingResponse(_follow(control, name, text, position, sought), media_type="application/x-ndjson")


def _sought(q: str = Query("", max_length=200), level: Level = "DEBUG") -> logs.Sought:
    return logs.Sought(q, level)


def _after(control: Control, name: str, position: str, sought: logs.Sought) -> tuple[list[str], str]:
    lines, position = logs.after(control.client, name, position)
    return sought.among(lines), position


async def _follow(control: Control, name: str, first: str, position: str, sought: logs.Sought) -> AsyncIterator[str]:
    yield first or "\n"
    told = time.monotonic()
    while True:
        lines: list[str] = []
        with contextlib.suppress(CortexError):  # the store is away: who follows waits, as those do whose workloads it has
            lines, position = await run_in_threadpool(_after, control, name, position, sought)
        if lines:
            yield "".join(f"{line}\n" for line in lines)
            told = time.monotonic()
            continue
        await asyncio.sleep(0.2)
        if time.monotonic() - told >= QUIET_S:
            # An empty line now and then: a caller that is gone is only noticed by writing.
            told = time.monotonic()
            yield "\n"
            with contextlib.suppress(CortexError):
                if await run_in_threadpool(control.registry.find, name) is None:
                    return
