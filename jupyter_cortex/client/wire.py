"""Between the client and the wire: what travels, and what an answer means."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx

from ..core.errors import CortexError, PayloadError, from_problem

#: Seconds that one who waits bears a gateway or a store that has answered before and is away, and between two attempts.
AWAY_S, RECONNECT_S = 10.0, 0.25
#: An event stream says something every 15 s.
EVENTS_TIMEOUT = httpx.Timeout(45.0, connect=5.0)


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The system's certificates, as for everything else that the Jupyter server asks for; reading them takes 10 ms and more of its event loop."""
    return ssl.create_default_context()


@contextlib.asynccontextmanager
async def streamed(url: str, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
    """GET whose answer comes bit by bit, for who has an event loop. Raises ConnectionError, also when the answer breaks off."""
    try:
        plain = {**headers, "accept-encoding": "identity"}
        # A proxy must not keep the bits of an answer back.
        async with (
            httpx.AsyncClient(trust_env=False, timeout=EVENTS_TIMEOUT, verify=_trusted()) as http,
            http.stream("GET", url, headers=plain) as answer,
        ):
            yield answer
    except httpx.ConnectError as error:
        raise ConnectionRefusedError(str(error)) from None
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ConnectionError(str(error)) from None


def quoted(part: str) -> str:
    """A name or an id as one part of a path, whatever it holds: ``../x`` must not mean another one's."""
    return quote(part, safe="").replace(".", "%2E") if part.strip(".") == "" else quote(part, safe="")


def body_of(payload: Any) -> tuple[bytes, str]:
    """A payload as it travels, and the Content-Type of what it is."""
    if isinstance(payload, (bytes, bytearray)):
        return bytes(payload), "application/octet-stream"
    try:
        if isinstance(payload, str):
            return payload.encode(), "text/plain; charset=utf-8"
        return json.dumps(payload).encode(), "application/json"
    except (TypeError, ValueError, RecursionError) as error:
        kind = type(payload).__name__
        raise PayloadError(f"this payload ({kind}) cannot be sent: {error}. Send bytes, text, or what JSON knows: dict, list, numbers") from error


def document_of(answer: httpx.Response, *members: str) -> Any:
    """The JSON of an answer, with these members at least. Raises CortexError for one that no gateway gave."""
    try:
        document = answer.json()
    except ValueError:
        raise _foreign(answer) from None
    if members and not (isinstance(document, dict) and all(member in document for member in members)):
        raise _foreign(answer)
    return document


def error_of(answer: httpx.Response) -> CortexError:
    try:
        document = answer.json()
        if isinstance(document, dict) and "code" in document:
            return from_problem(document)
    except ValueError:
        pass
    return _foreign(answer)


def _foreign(answer: httpx.Response) -> CortexError:
    return CortexError(f"{answer.request.url} answered {answer.status_code}, and not in our words; is it a jupyter-cortex gateway?")


def record_of(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {"message": line}


def seconds_since(ms: int) -> int:
    """How long ago that was, for a server whose clock may be another."""
    return min(max(1, math.ceil(time.time() - ms / 1000)), 7 * 86400)


class Absence:
    """Of a gateway or a store that has answered before: borne for AWAY_S from when it was noticed."""

    def __init__(self) -> None:
        self._since = 0.0

    def bear(self, error: CortexError) -> None:
        """Wait a little; when it has been away for too long, raise the error."""
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since > AWAY_S:
            raise error
        time.sleep(RECONNECT_S)

    def over(self) -> None:
        self._since = 0.0
