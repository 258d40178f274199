"""The short way of what nearly every request is: a small payload to take in, a workload to look up.

It costs a sixth less than the long way (public.py), for nobody waits on it: no task and no coroutine stand between the request that has come, the
store's reply and the answer. It decides nothing that is not decided there: whatever is wrong or rare is handed to the long way, which finds it anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from ..core.errors import CortexError
from ..serving.intake import Found, Intake
from .answers import JSON, refuse, respond, without_mark, workload_body
from .cycle import Cycle
from .routes import Route

log = logging.getLogger(__name__)

#: Larger bodies are taken in on the long way; up to here uvicorn never stops reading from the connection.
BODY_BYTES = 32 * 1024

#: Start a request's answer on the long way, by the application, or by the one that is given.
Start = Callable[[Any | None], None]


class Door(Protocol):
    """What the short way asks of the public door."""

    def plain(self, scope: Any) -> tuple[Any, Route, str] | None: ...
    def new_id(self) -> str: ...
    def is_id(self, text: str) -> bool: ...
    def check(self, body: bytes, content_type: str | None) -> None: ...
    def refusal(self, outcome: str, route: Route, request_id: str) -> CortexError | None: ...


class Express:
    def __init__(self, door: Door, intake: Intake) -> None:
        self._door, self._intake = door, intake

    def take(self, cycle: Cycle, start: Start) -> bool:
        """Whether this request, which has come as a whole, is answered on the short way: then ``start`` is called only if that comes to nothing."""
        if cycle.access_log or not cycle.keep_alive or cycle.waiting_for_100_continue or len(cycle.body) > BODY_BYTES:
            return False
        found = self._door.plain(cycle.scope)
        if found is None:
            return False
        request, route, rest = found
        method = cycle.scope["method"]
        if method == "GET":
            request_id = rest[1:]
            return self._door.is_id(request_id) and self._intake.get_soon(partial(_look, cycle, start, request_id), route.api, request_id)
        if method != "POST" or rest not in ("", "/") or route.queue_timeout:
            return False
        return self._submit(cycle, start, request, route)

    def _submit(self, cycle: Cycle, start: Start, request: Any, route: Route) -> bool:
        body, request_id = bytes(cycle.body), request.request_id
        if request_id is None:
            request_id = self._door.new_id()
        elif not self._door.is_id(request_id):
            return False
        try:
            self._door.check(body, request.content_type)
        except CortexError:
            return False
        told = partial(self._submitted, cycle, start, route, request_id)
        return self._intake.submit_soon(told, route.api, request_id, request.content_type or "", body)

    def _submitted(self, cycle: Cycle, start: Start, route: Route, request_id: str, outcome: str, error: BaseException | None) -> None:
        try:
            body = f'{{"id": "{request_id}"}}'.encode()
            refused = self._door.refusal(outcome, route, request_id) if error is None else error
            if refused is not None:
                start(_refusing(refused))
            elif not cycle.answer(body, JSON):
                start(_saying(body))
        except Exception:
            _give_up(cycle)


def _look(cycle: Cycle, start: Start, request_id: str, found: Found | None) -> None:
    try:
        plain = found is not None and not found.overdue and (not found.progress or found.progress == without_mark(found.progress))
        if found is None or not plain or not cycle.answer(workload_body(request_id, found), JSON):
            start(None)
    except Exception:
        _give_up(cycle)


def _give_up(cycle: Cycle) -> None:
    """An error of ours: the reader of the store's replies must go on, and the caller must not wait for ever."""
    log.exception("an answer could not be given")
    cycle.transport.close()


def _refusing(error: BaseException) -> Any:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        if not isinstance(error, CortexError):
            raise error
        await refuse(send, error)

    return refusing


def _saying(body: bytes) -> Any:
    async def saying(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, 200, body)

    return saying
