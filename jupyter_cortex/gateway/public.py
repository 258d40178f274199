"""The public routes, as plain ASGI: what a request costs here is what the product costs.

==================================  =============================================================
``POST <endpoint>``                 200 ``{"id"}``
``GET <endpoint>/<id>[?wait=s]``    200 ``{"id", "status"[, "result", "timestamp"][, "error"]}``
``GET <endpoint>/<id>/events``      the same and more as it happens, as server-sent events (events.py)
``GET <endpoint>/<id>/notebook.…``  what was executed for it, by a notebook handler (notebooks.py)
``DELETE <endpoint>/<id>``          200 ``{"id", "status"}``: cancelled, or how it had ended before
==================================  =============================================================

At the chaining door the same lies below ``http://api-<name>:8888/``, the API's root.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import parse_qs, quote, urlsplit

from ..core.errors import (
    ApiNotFound,
    BadRequest,
    BodyTooLarge,
    CortexError,
    Forbidden,
    IdConflict,
    MethodNotAllowed,
    NotLive,
    QueueFull,
    RequestIdError,
    RouteNotFound,
    StoreFull,
    TooManyBodies,
    Unauthorized,
    WorkloadNotFound,
)
from ..core.workload import REQUEST_ID
from ..handler import payload
from ..handler.chaining import NAME as CHAIN_HOST
from ..serving.intake import Intake
from ..serving.upload import LEAST_BYTES, Upload
from . import events
from .answers import refuse, respond, without_mark, workload_body
from .checkers import Checkers
from .deadlines import limits_of
from .express import Express
from .notebooks import Notebooks, asked
from .peer import is_own
from .polls import AGAIN, Polls, WaitOver
from .routes import Route, RouteTable

#: Parsing a body above this would hold up everybody else on the event loop.
PARSE_INLINE_BYTES = 256 * 1024
#: So many of the largest bodies may be on their way at once, or ten times as many of a tenth: they lie in this process until their end has come.
LARGEST_AT_ONCE = 8
#: The largest body of a control request: a bundle of 32 MiB of incompressible files is a little larger than that.
CONTROL_BODY_BYTES = 48 * 1024 * 1024
#: Below this a body is an artifact.
ARTIFACTS = "/_cortex/v1/artifacts/"
#: The longest long poll; proxies tend to cut at 60 s.
WAIT_MAX_S = 55.0
#: An unknown path makes us look at the registry, but not more often than this.
LOOK_AGAIN_S = 0.1
#: Seconds after which a full queue or a full store may have room again.
FULL_AGAIN_S = 5
CORS_METHODS = b"GET, POST, DELETE"
CORS_HEADERS = b"content-type, x-request-id, authorization, cortex-timeout, cortex-queue-timeout, last-event-id"


@dataclass(frozen=True)
class Guard:
    """Who may call. ``hosts``: names this gateway answers to (empty = any, when a call token protects it)."""

    hosts: frozenset[str]
    token: str
    call_token: str
    internal_token: str
    max_body: int


class Request:
    """The few headers that matter, read in one pass; a repeated header counts with its first value."""

    __slots__ = ("authorization", "content_length", "content_type", "host", "last_event_id", "limits", "origin", "request_id", "scope")

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope
        self.host = self.origin = self.authorization = self.content_length = ""
        self.content_type: str | None = None
        self.request_id: str | None = None
        self.last_event_id = ""
        #: Deadlines as they were sent, by header.
        self.limits: dict[str, str] | None = None
        for name, value in scope["headers"]:
            if name == b"host":
                self.host = self.host or value.decode("latin-1")
            elif name == b"content-type":
                if self.content_type is None:
                    self.content_type = value.decode("latin-1")
            elif name == b"content-length":
                self.content_length = value.decode("latin-1")
            elif name == b"x-request-id":
                if self.request_id is None:
                    self.request_id = value.decode("latin-1")
            elif name == b"origin":
                self.origin = value.decode("latin-1")
            elif name == b"authorization":
                self.authorization = value.decode("latin-1")
            elif name == b"cortex-timeout" or name == b"cortex-queue-timeout":
                self.limits = {**(self.limits or {}), name.decode(): value.decode("latin-1")}
            elif name == b"last-event-id":
                self.last_event_id = value.decode("latin-1")


@lru_cache(maxsize=256)  # a caller's Host is the same each time
def _host_name(host: str) -> tuple[str, str | None]:
    """Host without port, lower-cased; and the API's name where it is one of the chaining door's."""
    name = host[: host.find("]") + 1].lower() if host.startswith("[") else host.partition(":")[0].lower().rstrip(".")
    return name, name.removeprefix("api-") if CHAIN_HOST.fullmatch(name) else None


class PublicDoor:
    """ASGI application for everything that is not a control route; ``control`` gets the rest."""

    def __init__(
        self,
        control: Any,
        table: RouteTable,
        intake: Intake,
        guard: Guard,
        is_control: Callable[[str], bool],
        polls: Polls,
        log_reader: events.LogReader | None = None,
        notebooks: Notebooks | None = None,
        checkers: Checkers | None = None,
    ) -> None:
        """``log_reader``: reads an API's log behind a position, for those who may see it."""
        self._log_reader = log_reader
        self._notebooks = notebooks
        self._checkers = checkers or Checkers()
        self._polls = polls
        #: Bytes of bodies of which the end has not come yet, and of large ones that are not in the store yet.
        self._arriving = 0
        self._looked = 0.0
        self._look: asyncio.Task[None] | None = None
        self._random = ""
        self.express = Express(self, intake)
        self._control, self._table, self._intake, self._guard, self._is_control = control, table, intake, guard, is_control

    def end_waits(self) -> None:
        """The gateway is told to stop: who waits is told how it stands, now. May be called by a signal handler."""
        self._polls.end()
        self._checkers.end_waits()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._control(scope, receive, send)
            return
        request = Request(scope)
        try:
            chained = self._check_host(request)
            if chained is None and self._is_control(scope["path"]):
                self._check_control(request)
                await self._control(scope, receive, send)
                return
            await self._public(request, chained, receive, send)
        except CortexError as error:
            await refuse(send, error)

    def _check_control(self, request: Request) -> None:
        """Before anything of the body is read: control routes are for holders of the environment's token. Raises Unauthorized, BodyTooLarge."""
        path = request.scope["path"]
        if path.startswith("/_cortex") and not _bearer(request, self._guard.token):
            raise Unauthorized("control routes want the environment's token: `Authorization: Bearer <token>`")
        if path.startswith(ARTIFACTS):
            return  # it goes to the disk piece by piece, whatever its size
        if request.content_length.isdigit() and int(request.content_length) > CONTROL_BODY_BYTES:
            raise _too_large(CONTROL_BODY_BYTES)

    def _check_host(self, request: Request) -> str | None:
        """The API's name at the chaining door, None elsewhere. A foreign Host is a web page that rebinds its own name to us: Forbidden."""
        host, chained = _host_name(request.host)
        if chained is not None:
            return chained
        if self._guard.hosts and host not in self._guard.hosts:
            raise Forbidden(f"this gateway does not answer to the host name {host[:80]!r}; use the address it was started with")
        return None

    async def _public(self, request: Request, chained: str | None, receive: Any, send: Any) -> None:
        path = request.scope["path"]
        if "//" in path:
            await self._redirect(request, path, chained, send)
            return
        found = self._find(path, chained)
        if found is None:
            await self._look_again()
            found = self._find(path, chained)
        if found is None:
            self._no_route(request, path, chained)
        route, rest = found
        cors = self._check_origin(request, route)
        if request.scope["method"] == "OPTIONS" and request.origin:
            await respond(
                send,
                200,
                b"",
                [
                    *cors,
                    (b"access-control-allow-methods", CORS_METHODS),
                    (b"access-control-allow-headers", CORS_HEADERS),
                ],
            )
            return
        try:
            self._check_token(request, chained)
            await self._answer(request, route, rest, receive, send, cors)
        except CortexError as error:
            await refuse(send, error, cors)

    def _find(self, path: str, chained: str | None) -> tuple[Route, str] | None:
        if chained is None:
            return self._table.match(path)
        route = self._table.named(chained)
        return (route, "" if path == "/" else path) if route else None

    async def _look_again(self) -> None:
        """The path is unknown: this gateway has just started, or another one has just published it. Raises StoreUnavailable while nobody knows."""
        now = asyncio.get_running_loop().time()
        if self._table.loaded and now - self._looked < LOOK_AGAIN_S:
            return
        self._looked = now
        if (begun := self._look) is not None:
            await asyncio.wait((begun,))  # it may have read before the other one wrote: the next one is for all who wait here
        if self._look is None or self._look is begun:
            # One at a time: while the store does not answer, each would keep a thread for seconds.
            self._look = asyncio.create_task(asyncio.to_thread(self._table.refresh))
            self._look.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, also when those who wait have gone
        look = self._look
        await asyncio.wait((look,))
        if self._look is look:
            self._look = None
        if isinstance(look.exception(), CortexError) and self._table.loaded:
            return
        look.result()

    async def _redirect(self, request: Request, path: str, chained: str | None, send: Any) -> None:
        """As the original: 301 to the cleaned path, where there is something; the query stays."""
        clean = re.sub("/+", "/", path)
        if self._find(clean, chained) is None:
            self._no_route(request, path, chained)
        location = quote(clean)
        if query := request.scope["query_string"]:
            location += "?" + query.decode("latin-1")
        await respond(send, 301, b"", [(b"location", location.encode("latin-1"))])

    def _no_route(self, request: Request, path: str, chained: str | None) -> NoReturn:
        self._check_token(request, chained)
        if chained is not None:
            names = ", ".join(self._table.names()) or "none"
            raise ApiNotFound(f"there is no API {chained} behind http://{request.host[:100]}/; deployed are: {names}")
        raise RouteNotFound(f"no API is published at {path[:200]}; `cortex get` lists the endpoints")

    def _check_origin(self, request: Request, route: Route) -> list[tuple[bytes, bytes]]:
        """CORS headers for an allowed origin. A page of another site that the spec does not allow is refused before anything happens:
        a text/plain POST needs no preflight, so silence would come too late."""
        if not request.origin:
            return []
        if request.host and _netloc(request.origin) == request.host:
            return []
        if "*" in route.origins or request.origin in route.origins:
            return [(b"access-control-allow-origin", request.origin.encode("latin-1")), (b"vary", b"origin")]
        raise Forbidden(f"pages of {request.origin[:200]} may not call {route.api}; add it to networking.allow_origins in cortex.yaml")

    def _check_token(self, request: Request, chained: str | None) -> None:
        if not self._guard.call_token:
            return
        # A handler's plain `requests.post("http://api-x:8888/")` carries no token; that it comes from a process of this user says as much.
        if chained is not None and is_own(request.scope.get("client")):
            return
        # Who may see the log lines of what was called may call it.
        if not _bearer(request, self._guard.call_token, self._guard.internal_token, self._guard.token):
            raise Unauthorized(
                "this gateway wants a call token: send `Authorization: Bearer <token>`, what JUPYTER_CORTEX_CALL_TOKEN is set to where it runs"
            )

    async def _answer(self, request: Request, route: Route, rest: str, receive: Any, send: Any, cors: list[tuple[bytes, bytes]]) -> None:
        method = request.scope["method"]
        if rest in ("", "/"):
            if method != "POST":
                raise MethodNotAllowed(f"POST a payload to {route.endpoint}, or GET {route.endpoint}/<id>", allow="POST")
            await self._submit(request, route, receive, send, cors)
            return
        request_id = rest[1:]
        if request_id.endswith("/events") and REQUEST_ID.fullmatch(request_id[:-7]):
            await self._events(request, route, request_id[:-7], receive, send, cors)
            return
        if request_id == "healthz":
            await respond(send, 200, b"ok", cors, b"text/plain; charset=utf-8")
            return
        if not REQUEST_ID.fullmatch(request_id):
            if self._notebooks is not None and (wanted := asked(request_id)) and REQUEST_ID.fullmatch(wanted[0]):
                if method != "GET":
                    raise MethodNotAllowed(f"GET {route.endpoint}/<id>/{wanted[1]}", allow="GET")
                await self._notebooks.answer(route.api, wanted, send, cors)
                return
            raise RouteNotFound(f"{rest[:200]} below {route.endpoint} is no request id")
        if method == "GET":
            await self._look_up(request, route, request_id, receive, send, cors)
        elif method == "DELETE":
            status = await self._intake.cancel(route.api, request_id, route.ttl, route.keep_payload)
            if status == "unknown":
                raise _unknown(request_id)
            await respond(send, 200, f'{{"id": "{request_id}", "status": "{status}"}}'.encode(), cors)
        else:
            raise MethodNotAllowed(f"GET {route.endpoint}/<id> for status and result, DELETE to cancel", allow="GET, DELETE")

    async def _look_up(self, request: Request, route: Route, request_id: str, receive: Any, send: Any, cors: list[tuple[bytes, bytes]]) -> None:
        query = request.scope["query_string"]
        seconds = _wait_of(query) if query else 0.0
        if not seconds:
            found = await self._intake.get(route.api, request_id)
        elif self._polls.full:
            found = await self._intake.get(route.api, request_id)
            cors = [*cors, AGAIN]
        else:
            try:
                found = await self._polls.hold(self._intake.wait(route.api, request_id, seconds), receive)
            except WaitOver:
                found = await self._intake.get(route.api, request_id)
        if found is None:
            raise _unknown(request_id)
        if found.overdue:
            await self._intake.sweep(route.api, route.ttl, route.retain, route.retain_max)
            found = await self._intake.get(route.api, request_id) or found
        partial = await self._intake.partial(route.api, request_id) if found.progress and found.progress != without_mark(found.progress) else None
        await respond(send, 200, workload_body(request_id, found, partial), cors)

    async def _events(self, request: Request, route: Route, request_id: str, receive: Any, send: Any, cors: list[tuple[bytes, bytes]]) -> None:
        if request.scope["method"] != "GET":
            raise MethodNotAllowed(f"GET {route.endpoint}/<id>/events", allow="GET")
        with_logs = events.wants_logs(request.scope["query_string"])
        if with_logs and not _bearer(request, self._guard.token):
            raise Unauthorized("log lines want the environment's token: `Authorization: Bearer <token>`, or leave out ?logs=true")
        follower = events.Follower(self._intake, route.api, request_id, self._log_reader if with_logs else None, request.last_event_id)
        if not await follower.look():
            raise _unknown(request_id)
        await events.stream(follower, self._polls, receive, send, cors)

    async def _submit(self, request: Request, route: Route, receive: Any, send: Any, cors: list[tuple[bytes, bytes]]) -> None:
        if request.limits:
            limits_of(request.limits, None)  # what is wrong with them is said before the body is read
        request_id = request.request_id
        if request_id is None:
            request_id = self.new_id()
        elif not self.is_id(request_id):
            raise RequestIdError(
                "x-request-id must be 1 to 128 letters, digits, dots, dashes or underscores (and not `healthz`); leave it out to get one"
            )
        outcome = await self._take_in(request, route, request_id, receive)
        if outcome is None:
            return  # the caller went away before the end of the body: nothing was accepted
        if error := self.refusal(outcome, route, request_id):
            raise error
        await respond(send, 200, f'{{"id": "{request_id}"}}'.encode(), cors)

    def refusal(self, outcome: str, route: Route, request_id: str) -> CortexError | None:
        """What is said to a submit's outcome; None where it was accepted."""
        if outcome in ("ok", "same"):
            return None
        if outcome == "conflict":
            return IdConflict(f"the id {request_id} belongs to a request with another body or content type; use a new x-request-id")
        if outcome == "not_live":
            return NotLive(f"{route.api} has not been live yet; `cortex get {route.api}` says why")
        if outcome == "queue_full":
            return QueueFull(
                f"{self._intake.max_queued} requests of {route.api} are waiting, as many as JUPYTER_CORTEX_MAX_QUEUED says; try again when some "
                "have been worked off, or give the API more replicas",
                retry_after=FULL_AGAIN_S,
            )
        if outcome == "store_full":
            return StoreFull(
                f"{self._intake.watermark:.0%} of the store's memory are used (JUPYTER_CORTEX_MEMORY_WATERMARK); what is left is for the results of "
                "requests already accepted. Try again when some have ended or expired, or give the store more memory",
                retry_after=FULL_AGAIN_S,
            )
        return ApiNotFound(f"{route.api} is not deployed any more")

    # What the short way asks (express.py) -----------------------------------------------------------------------------------------------

    def plain(self, scope: dict[str, Any]) -> tuple[Request, Route, str] | None:
        """The request, its route and the rest of its path, where nothing else matters: it has no token, no other site, no query, no deadline."""
        if self._guard.call_token or scope["query_string"]:
            return None
        request = Request(scope)
        if request.origin or request.limits:
            return None
        host, chained = _host_name(request.host)
        if chained is None and self._guard.hosts and host not in self._guard.hosts:
            return None
        path = scope["path"]
        if "//" in path or (chained is None and self._is_control(path)):
            return None
        found = self._find(path, chained)
        return (request, *found) if found else None

    def is_id(self, text: str) -> bool:
        return text != "healthz" and REQUEST_ID.fullmatch(text) is not None

    def check(self, body: bytes, content_type: str | None) -> None:
        """Raises what the body is refused with."""
        if len(body) > self._guard.max_body:
            raise _too_large(self._guard.max_body)
        payload.parse(body, content_type)

    def new_id(self) -> str:
        """A random UUID (version 4). Random bytes are drawn in blocks: a system call for each id was 7 % of a request, and the uuid module 4 %."""
        if len(self._random) < 32:
            self._random = os.urandom(1024).hex()
        drawn, self._random = self._random[:32], self._random[32:]
        # Version and variant (RFC 9562, section 5.4) take six of the bits.
        return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{'89ab'[int(drawn[16], 16) & 3]}{drawn[17:20]}-{drawn[20:]}"

    async def _take_in(self, request: Request, route: Route, request_id: str, receive: Any) -> str | None:
        """Read a body, check it and submit it; the submit's outcome, or None when it broke off. Raises PayloadError and what limits it."""
        api, content_type = route.api, request.content_type or ""
        limits = limits_of(request.limits, route.queue_timeout) if request.limits or route.queue_timeout else ()
        # What needs no look at it as a whole goes to the store while it comes in, instead of gathering here.
        upload: Upload | None = None

        async def pass_on(part: bytes) -> int:
            nonlocal upload
            if upload is None:
                upload = self._intake.upload(api, request_id)
            if upload is None:
                return 0
            await upload.add(part)
            return upload.wanted

        try:
            body = await self._body(request, receive, pass_on if payload.is_bytes(content_type) else None)
            if upload is not None and body is not None:
                if body:
                    await upload.add(body)
                return await self._intake.submit_upload(content_type, upload, limits)
        except BaseException:
            if upload is not None:
                await upload.abandon()
            raise
        if body is None:
            if upload is not None:
                await upload.abandon()
            return None
        if len(body) <= PARSE_INLINE_BYTES:
            payload.parse(body, request.content_type)
            return await self._intake.submit(api, request_id, content_type, body, limits)
        # It lies here until it is in the store, as if it were still on its way.
        self._arriving += len(body)
        try:
            if not payload.is_bytes(content_type):
                await self._checkers.check(body, request.content_type)
            return await self._intake.submit(api, request_id, content_type, body, limits)
        finally:
            self._arriving -= len(body)

    async def _body(self, request: Request, receive: Any, pass_on: Callable[[bytes], Awaitable[int]] | None) -> bytes | None:
        """The body, or its end where parts of it were passed on; None when the caller went away. Raises BodyTooLarge, TooManyBodies.

        ``pass_on`` takes a part and says how large the next one should be; 0 when there was no room for it.
        """
        limit = self._guard.max_body
        if request.content_length.isdigit() and int(request.content_length) > limit:
            raise _too_large(limit)
        message = await receive()
        if message["type"] != "http.request":
            return None
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(body) > limit:
                raise _too_large(limit)
            return body
        chunks, size, held, wanted = [body], len(body), len(body), LEAST_BYTES
        self._arriving += held
        try:
            while message.get("more_body"):
                message = await receive()
                if message["type"] != "http.request":
                    return None
                chunks.append(message.get("body", b""))
                came = len(chunks[-1])
                size, held = size + came, held + came
                self._arriving += came
                if size > limit:
                    raise _too_large(limit)
                if pass_on is not None and held >= wanted:
                    if wanted := await pass_on(b"".join(chunks)):
                        self._arriving -= held
                        chunks, held = [], 0
                    else:
                        pass_on = None  # there is no room, and asking again would copy all of it each time
                if self._arriving > limit * LARGEST_AT_ONCE and size > PARSE_INLINE_BYTES:
                    raise TooManyBodies(f"bodies of {self._arriving} bytes in all are on their way to this gateway, as many as it holds; try again")
            return b"".join(chunks)
        finally:
            self._arriving -= held


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _bearer(request: Request, *allowed: str) -> bool:
    """Whether the request carries one of these tokens."""
    scheme, _, token = request.authorization.partition(" ")
    given = token.strip().encode("latin-1")
    return scheme.lower() == "bearer" and any(wanted and hmac.compare_digest(given, wanted.encode()) for wanted in allowed)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than this gateway takes ({limit} bytes); the setting is JUPYTER_CORTEX_MAX_BODY_BYTES", limit=limit)


def _unknown(request_id: str) -> WorkloadNotFound:
    gone = "it was never accepted here, or it finished longer ago than results are kept (7 days, or `retain.days` of the spec)"
    return WorkloadNotFound(f"id {request_id} not found: {gone}")


def _wait_of(query: bytes) -> float:
    """Seconds of ``?wait=``, capped. Raises BadRequest."""
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("wait")
    if not values:
        return 0.0
    try:
        seconds = float(values[-1])
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise BadRequest(f"wait must be a number of seconds from 0 to {WAIT_MAX_S:.0f}, as in ?wait=30")
    return min(seconds, WAIT_MAX_S)
