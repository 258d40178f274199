"""The gateway as a function of its parts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import redis
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from .. import __version__
from ..core.errors import BadRequest, CortexError, MethodNotAllowed, RouteNotFound, StoreUnavailable
from ..serving.artifacts import Artifacts
from ..serving.intake import Intake
from ..store import keys
from ..store.connection import connect, explain, is_temporary
from ..store.registry import Registry
from .answers import problem_headers
from .artifact_routes import Shelf
from .changes import Changes, add_changes_route
from .checkers import Checkers
from .control import Control
from .control_routes import create_router
from .described import REFUSALS
from .events import LogReader
from .failure_routes import add_failure_routes
from .notebooks import Notebooks, add_notebook_routes
from .polls import Polls
from .public import Guard, PublicDoor
from .routes import RouteTable
from .version_routes import add_version_routes
from .watch import Watch

#: Seconds between two looks at the registry's version: how long another gateway's change may take to be seen here.
REFRESH_S = 0.5
#: Seconds between two looks at the store's memory. What is accepted in between is counted here.
MEASURE_S = 1.0
RESERVED = ("/_cortex", "/metrics", "/healthz", "/readyz")


@dataclass(frozen=True)
class Parts:
    """What a gateway is made of. ``call_token``: empty = public routes are open."""

    redis_url: str
    token: str
    internal_token: str
    call_token: str
    hosts: frozenset[str]
    max_body: int
    max_queued: int
    max_polls: int
    memory_watermark: float
    store_wait: float
    artifacts: Artifacts


def is_control(path: str) -> bool:
    return path.startswith(RESERVED) and any(path == name or path.startswith(f"{name}/") for name in RESERVED)


def problem(error: CortexError) -> JSONResponse:
    headers = {name.decode(): value.decode() for name, value in problem_headers(error)}
    return JSONResponse(error.problem(), error.status, headers, "application/problem+json")


def create_app(parts: Parts, watch: Watch) -> PublicDoor:
    """The ASGI application: public routes in front, control routes behind them."""
    client = connect(parts.redis_url)
    # Short: a request for an unknown path waits for it.
    table = RouteTable(Registry(connect(parts.redis_url, timeout=2.0)))
    intake = Intake(parts.redis_url, parts.store_wait, parts.max_queued, parts.memory_watermark)

    def changed() -> None:
        with contextlib.suppress(StoreUnavailable):
            table.refresh()

    checkers = Checkers()
    control = Control(client, Shelf(client, parts.artifacts), changed, guarded=bool(parts.call_token))

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_keep_fresh(table)), asyncio.create_task(_keep_measured(intake))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            checkers.close()
            await intake.close()

    app = FastAPI(title="jupyter-cortex", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/_cortex/openapi.json")
    router = create_router(control)
    add_version_routes(router, control)
    add_failure_routes(router, control, parts.max_queued)
    add_notebook_routes(router, control)
    add_changes_route(router, Changes(client, watch), Polls(parts.max_polls))
    app.include_router(router, responses=REFUSALS)
    _add_health(app, client, control, parts)
    _add_error_handlers(app)
    guard = Guard(parts.hosts, parts.token, parts.call_token, parts.internal_token, parts.max_body)
    return PublicDoor(app, table, intake, guard, is_control, Polls(parts.max_polls), LogReader(client), Notebooks(client), checkers)


async def _keep_fresh(table: RouteTable) -> None:
    while True:
        with contextlib.suppress(StoreUnavailable, OSError):
            await asyncio.to_thread(table.refresh)
        await asyncio.sleep(REFRESH_S)


async def _keep_measured(intake: Intake) -> None:
    while True:
        with contextlib.suppress(redis.RedisError, StoreUnavailable, OSError):
            await intake.measure()
        await asyncio.sleep(MEASURE_S)


def _add_health(app: FastAPI, client: redis.Redis, control: Control, parts: Parts) -> None:
    @app.get("/healthz", response_class=PlainTextResponse)
    def healthz() -> PlainTextResponse:
        """Whether this process answers."""
        return PlainTextResponse("ok")

    @app.get("/readyz", response_class=PlainTextResponse, responses=REFUSALS)
    def readyz() -> PlainTextResponse:
        """Whether a POST would be accepted: the store answers and takes writes."""
        try:
            client.set(keys.READY, "1", ex=1)
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"{explain(error)}; try again", retry_after=1) from error
        return PlainTextResponse("ok")

    @app.get("/metrics", response_class=PlainTextResponse, responses=REFUSALS)
    def metrics(request: Request) -> PlainTextResponse:
        if parts.call_token and request.headers.get("authorization", "") not in (f"Bearer {parts.call_token}", f"Bearer {parts.token}"):
            from ..core.errors import Unauthorized

            raise Unauthorized("this gateway wants a call token: send `Authorization: Bearer <token>`")
        return PlainTextResponse(control.metrics(), media_type="text/plain; version=0.0.4")


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(CortexError)
    def cortex_error(request: Request, error: CortexError) -> JSONResponse:
        return problem(error)

    @app.exception_handler(redis.RedisError)
    def store_error(request: Request, error: redis.RedisError) -> JSONResponse:
        if not is_temporary(error):
            raise error
        return problem(StoreUnavailable(f"{explain(error)}; try again", retry_after=1))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(BadRequest(f"{where}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 405:
            allow = (error.headers or {}).get("Allow")
            return problem(MethodNotAllowed(f"{request.method} is not allowed at {request.url.path}", allow=allow))
        if error.status_code == 404:
            return problem(RouteNotFound(f"there is nothing at {request.url.path}"))
        return problem(BadRequest(str(error.detail)))
