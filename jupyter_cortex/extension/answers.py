"""What every route has in common: who may ask, and how is answered, refusals as problem documents included."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote_plus

from jupyter_server.base.handlers import APIHandler
from tornado.web import HTTPError

from ..core.errors import BadRequest, CortexError, Forbidden, MethodNotAllowed, RouteNotFound
from .link import Answer, Link

Method = Callable[..., Awaitable[None]]
#: What the gateway answers with; anything else would be another server's, and a browser gets it as bytes.
TYPES = frozenset(
    {"application/json", "application/problem+json", "application/x-ipynb+json", "text/plain; charset=utf-8", "text/event-stream; charset=utf-8"}
)
#: For bytes that a caller of an API has chosen: whatever they are, a browser shows or runs nothing of them.
INERT = {"content-disposition": "attachment", "content-security-policy": "sandbox; default-src 'none'"}


class CortexHandler(APIHandler):
    """The methods of its children are decorated ``@authenticated @authorized @answering``; a test walks all of them without credentials."""

    auth_resource = "cortex"

    @property
    def link(self) -> Link:
        found: Link = self.settings[Link.SETTING]
        return found

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")

    def answer(self, document: Any) -> None:
        self.finish(json.dumps(document))

    def refuse(self, error: CortexError) -> None:
        self.set_status(error.status)
        self.finish(json.dumps(error.problem()), set_content_type="application/problem+json")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Refusals of Jupyter's own, and what should not happen: neither says more than its sentence."""
        raised = (kwargs.get("exc_info") or (None, None))[1]
        said = str(raised.log_message or "") if isinstance(raised, HTTPError) else ""
        family: dict[int, type[CortexError]] = {400: BadRequest, 403: Forbidden, 404: RouteNotFound, 405: MethodNotAllowed}
        sentences = {403: "sign in to this Jupyter server again", 404: "there is no such route here", 405: "this route takes other methods"}
        error = family.get(status_code, CortexError)(said or sentences.get(status_code, "the Jupyter server's log says more"))
        self.finish(json.dumps({**error.problem(), "status": status_code}), set_content_type="application/problem+json")

    def json_object(self) -> dict[str, Any]:
        """The body. Raises BadRequest."""
        try:
            document = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise BadRequest("the body is no JSON") from None
        if not isinstance(document, dict):
            raise BadRequest("the body must be a JSON object")
        return document

    def below(self, prefix: str) -> str:
        """The path below ``<base_url><prefix>``, as it was sent: still percent-encoded."""
        return self.request.path[len(self.base_url.rstrip("/")) + len(prefix) :]

    def query(self) -> str:
        """The caller's, as it was sent, without the token by which Jupyter knows the caller."""
        return "&".join(pair for pair in self.request.query.split("&") if unquote_plus(pair.partition("=")[0]) != "token")

    def pass_on(self, answer: Answer, names: tuple[str, ...]) -> None:
        """The gateway's answer with these of its headers."""
        self.finish(answer.body, set_content_type=self.begin(answer.status, answer.headers, names))

    def begin(self, status: int, headers: Mapping[str, str], names: tuple[str, ...]) -> str:
        """Take over an answer's status and these of its headers; what a browser may take its body for."""
        self.set_status(status)
        for name in names:
            if name in headers:
                self.set_header(name, headers[name])
        kind = headers.get("content-type", "")
        return kind if kind in TYPES else "application/octet-stream"


def answering(method: Method) -> Method:
    """Refusals of the house become problem documents."""

    @functools.wraps(method)
    async def wrapped(self: CortexHandler, *args: Any) -> None:
        try:
            await method(self, *args)
        except CortexError as error:
            self.refuse(error)

    return wrapped
