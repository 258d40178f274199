"""The floor: what uvicorn, uvloop and httptools cost when nothing is done but reading the request."""

from __future__ import annotations

from typing import Any

BODY = b'{"id": "01234567-89ab-cdef-0123-456789abcdef"}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())],
}
END = {"type": "http.response.body", "body": BODY}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(END)
