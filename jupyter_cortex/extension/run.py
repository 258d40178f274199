"""``/cortex/run/<endpoint>``: calling an API through the Jupyter server, for a browser and for whoever holds a Jupyter token."""

from __future__ import annotations

import re
from urllib.parse import unquote

from jupyter_server.auth.decorator import authorized
from tornado.iostream import StreamClosedError
from tornado.web import authenticated

from ..core.errors import EnvironmentDown, RouteNotFound
from .answers import CortexHandler, answering

#: Headers of a caller that the gateway gets. Everything else (cookies, tokens, where the page came from) is between the caller and Jupyter.
REQUEST_HEADERS = ("content-type", "x-request-id", "accept", "cortex-timeout", "cortex-queue-timeout", "last-event-id")
ANSWER_HEADERS = ("retry-after", "allow", "x-request-id", "x-accel-buffering")


class RunHandler(CortexHandler):
    @authenticated
    @authorized
    @answering
    async def get(self, path: str) -> None:
        await self._call("GET")

    @authenticated
    @authorized
    @answering
    async def post(self, path: str) -> None:
        await self._call("POST")

    @authenticated
    @authorized
    @answering
    async def delete(self, path: str) -> None:
        await self._call("DELETE")

    async def _call(self, method: str) -> None:
        given = self.request.headers
        headers = {name: given[name] for name in REQUEST_HEADERS if name in given}
        # Tornado's client would call a body without a type a form.
        headers.setdefault("content-type", "")
        path = public_path(self.below("/cortex/run"))
        if method == "GET" and path.endswith("/events"):
            await self._follow(path, headers)
            return
        body = self.request.body if method == "POST" else None
        answer = await self.link.public(method, path, query=self.query(), headers=headers, body=body)
        self.pass_on(answer, ANSWER_HEADERS)

    async def _follow(self, path: str, headers: dict[str, str]) -> None:
        """What comes is passed on as it comes. A stream that breaks off just ends: whoever reads it comes again with ``Last-Event-ID``."""
        begun = False
        try:
            async with self.link.following(path, query=self.query(), headers=headers) as answer:
                self.set_header("Content-Type", self.begin(answer.status_code, answer.headers, ANSWER_HEADERS))
                async for chunk in answer.aiter_raw():
                    begun = True
                    self.write(chunk)
                    await self.flush()
        except StreamClosedError:
            return  # the reader is gone
        except EnvironmentDown:
            if not begun:
                raise
        self.finish(set_content_type=self._headers["Content-Type"])


def public_path(sent: str) -> str:
    """The path as the gateway gets it, ``sent`` as the caller wrote it. Raises RouteNotFound for what is not public, however it is written."""
    from ..core.checks import RESERVED_ENDPOINTS

    path = re.sub("/+", "/", sent)
    meant = re.sub("/+", "/", unquote(path))
    parts = meant.split("/")
    if f"/{parts[1]}" in RESERVED_ENDPOINTS or any(part in (".", "..") for part in parts):
        raise RouteNotFound(f"no API is published at {meant[:200]}")
    return path
