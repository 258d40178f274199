"""``/cortex/api/…``: the control routes that a browser needs, and no other, with the environment's token."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado.web import authenticated

from ..core.errors import RouteNotFound
from .answers import INERT, CortexHandler, answering
from .link import Answer
from .paths import root_of, summaries_of, with_notebooks, with_version_notebooks

_API = "apis/[a-z]([-a-z0-9]*[a-z0-9])?"
_ID = r"(?!\.+(?:/|$))[A-Za-z0-9._-]{1,128}"
#: What may be asked, as it is written in a URL: nothing in it can be percent-encoded, or mean another path.
ALLOWED = {
    "GET": re.compile(
        rf"status|apis|{_API}(/workloads(/{_ID}(/payload|/logs|/notebook\.(ipynb|html))?)?|/failures|/audit|/history|/logs/tail|/deployments/[0-9]{{1,9}}(/module|/report|/rehearsal)?)?",
        re.ASCII,
    ),
    "POST": re.compile(rf"{_API}/(refresh|rollback|stop|start|requeue|deployments/[0-9]{{1,9}}/(promote|drop))", re.ASCII),
    "DELETE": re.compile(_API, re.ASCII),
}
_SUMMARIES = re.compile(rf"apis|{_API}", re.ASCII)
_AUDITED = re.compile(rf"{_API}/(requeue|rollback|deployments/[0-9]{{1,9}}/promote)", re.ASCII)
_BYTES = re.compile(r".*/(payload|report|notebook\.ipynb)", re.ASCII)
#: A page that others have written: it is shown, and nothing in it runs. The same words as the gateway's.
_PAGE = re.compile(r".*/notebook\.html", re.ASCII)
PAGE = {
    "content-security-policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:",
    "referrer-policy": "no-referrer",
}
HEADERS = ("retry-after", "allow", "x-payload-content-type", "x-payload-redacted")


class ForwardHandler(CortexHandler):
    @authenticated
    @authorized
    @answering
    async def get(self, path: str) -> None:
        await self._forward("GET")

    @authenticated
    @authorized
    @answering
    async def post(self, path: str) -> None:
        await self._forward("POST")

    @authenticated
    @authorized
    @answering
    async def delete(self, path: str) -> None:
        await self._forward("DELETE")

    async def _forward(self, method: str) -> None:
        """Raises RouteNotFound before anything leaves, EnvironmentDown, EnvironmentProblem."""
        path = self.below("/cortex/api/")
        if not ALLOWED[method].fullmatch(path):
            raise RouteNotFound(f"{method} {path[:200]} is no route of the Jupyter server")
        body = self.request.body or None
        if body and method == "POST" and _AUDITED.fullmatch(path):
            body = json.dumps({"source": "JupyterLab", **self.json_object(), "who": await self._who()}).encode()
        answer = await self.link.control(method, f"/{path}", query=self.query(), body=body)
        if answer.status != 200 and not answer.is_problem:
            raise answer.foreign()
        if answer.status == 200 and method == "GET":
            answer = await self._made_safe(path, answer)
        if answer.status == 200 and _PAGE.fullmatch(path):
            for name, value in PAGE.items():
                self.set_header(name, value)
            self.finish(answer.body, set_content_type="text/html; charset=utf-8")
            return
        self.pass_on(answer, HEADERS)

    async def _who(self) -> str:
        """Who is noted, whatever the page says: on a hub whom it has signed in; elsewhere whoever runs this server, as Jupyter makes up its users."""
        found = await asyncio.to_thread(_whoami)
        user: Any = self.current_user
        name = str(getattr(user, "username", "") or "")
        return f"{name}@{found.partition('@')[2]}"[:200] if name and "JUPYTERHUB_SERVICE_PREFIX" in os.environ else found

    async def _made_safe(self, path: str, answer: Answer) -> Answer:
        """Summaries get the path of their notebook; what others have written goes out as bytes to be kept, not to be shown."""
        if _SUMMARIES.fullmatch(path):
            root = root_of(self.contents_manager)
            if path == "apis":
                told: Any = await with_notebooks(self.link, summaries_of(answer), root)
            else:
                told = with_version_notebooks(answer.document(dict), root)
            return Answer(answer.status, answer.headers, json.dumps(told).encode())
        if _BYTES.fullmatch(path):
            for name, value in INERT.items():
                self.set_header(name, value)
        return answer


def _whoami() -> str:
    from ..client import whoami

    return whoami()
