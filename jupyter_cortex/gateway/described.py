"""What ``/_cortex/openapi.json`` says beyond what FastAPI finds by itself: refusals, and answers and bodies that are no JSON."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_PROBLEM: dict[str, Any] = {
    "application/problem+json": {
        "schema": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "code"],
            "properties": {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT, "code": _TEXT},
        }
    }
}
#: What any route may answer instead of its own: every refusal is a problem document (RFC 9457). There is no other 5xx.
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused; `code` is stable, `detail` says what, where and what to do", "content": _PROBLEM},
    503: {
        "description": "Not possible now; try again",
        "headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}, "required": True}},
        "content": _PROBLEM,
    },
}


def answers(media_type: str, description: str = "OK") -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route whose answer is no JSON (it needs ``response_class=Response`` too)."""
    return {200: {"description": description, "content": {media_type: {"schema": _TEXT}}}}


def takes(media_type: str) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its body as it comes."""
    return {"requestBody": {"required": True, "content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}
