"""Writing answers: as plain ASGI messages, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fastapi import Response

from ..core.errors import CortexError
from ..serving.intake import Found
from .cycle import Cycle

Headers = Iterable[tuple[bytes, bytes]]
JSON = b"application/json"


class Json(Response):
    """Plain ASCII JSON: results may hold lone surrogates, which are no UTF-8, and be nested deeper than FastAPI's encoder goes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


async def respond(send: Any, status: int, body: bytes, headers: Headers = (), content_type: bytes = JSON) -> None:
    cycle = getattr(send, "__self__", None)
    if status == 200 and not headers and isinstance(cycle, Cycle) and cycle.answer(body, content_type):
        return
    start = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*start, *headers]})
    await send({"type": "http.response.body", "body": body})


def problem_body(error: CortexError) -> bytes:
    return json.dumps(error.problem()).encode()


def problem_headers(error: CortexError) -> list[tuple[bytes, bytes]]:
    headers = []
    if error.status == 503:
        headers.append((b"retry-after", str(error.details.get("retry_after", 1)).encode()))
    if allow := error.details.get("allow"):
        headers.append((b"allow", str(allow).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


async def refuse(send: Any, error: CortexError, headers: Headers = ()) -> None:
    await respond(send, error.status, problem_body(error), [*problem_headers(error), *headers], b"application/problem+json")


@lru_cache(maxsize=1024)  # who polls asks for the same second again and again, and making it was 5 % of a GET
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def timestamp(ms: int) -> str:
    """Completion time as documented: UTC, whole seconds, ``+00:00``."""
    return _second(ms // 1000)


#: How a replica marks a progress that has a partial result beside it (serving/news.py).
_MARK = b', "partial": true}'


def without_mark(progress: bytes) -> bytes:
    return progress.removesuffix(_MARK) + b"}" if progress.endswith(_MARK) else progress


def workload_body(request_id: str, found: Found, partial: bytes | None = None) -> bytes:
    """GET's answer. The result goes out as the bytes the replica stored: order and numbers exactly."""
    start = f'{{"id": "{request_id}", "status": "{found.status}"'
    if found.status == "completed":
        rest = f', "timestamp": "{timestamp(found.finished or 0)}"}}'
        return start.encode() + b', "result": ' + (found.result or b"{}") + rest.encode()
    if found.status == "failed" and found.error:
        return start.encode() + b', "error": ' + found.error + b"}"
    if found.status == "in_progress" and found.progress:
        return start.encode() + b', "progress": ' + without_mark(found.progress) + (b', "partial": ' + partial if partial else b"") + b"}"
    return start.encode() + b"}"
