"""``/cortex/api/…``: the control routes that a browser needs, and no other, with the environment's token."""

from __future__ import annotations

import json
import re

from jupyter_server.auth.decorator import authorized
from tornado.web import authenticated

from ..core.errors import RouteNotFound
from .answers import INERT, CortexHandler, answering
from .link import Answer
from .paths import root_of, with_notebook, with_notebooks

_API = "apis/[a-z]([-a-z0-9]*[a-z0-9])?"
_ID = r"(?!\.+(?:/|$))[A-Za-z0-9._-]{1,128}"
#: What may be asked, as it is written in a URL: nothing in it can be percent-encoded, or mean another path.
ALLOWED = {
    "GET": re.compile(
        rf"status|apis|{_API}(/workloads(/{_ID}(/payload|/logs)?)?|/failures|/audit|/history|/logs/tail|/deployments/[0-9]{{1,9}}(/module|/report|/rehearsal)?)?",
        re.ASCII,
    ),
    "POST": re.compile(rf"{_API}/(refresh|rollback|stop|start|requeue|deployments/[0-9]{{1,9}}/(promote|drop))", re.ASCII),
    "DELETE": re.compile(_API, re.ASCII),
}
_SUMMARIES = re.compile(rf"apis|{_API}", re.ASCII)
_BYTES = re.compile(r".*/(payload|report)", re.ASCII)
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
        answer = await self.link.control(method, f"/{path}", query=self.query(), body=self.request.body or None)
        if answer.status != 200 and not answer.is_problem:
            raise answer.foreign()
        if answer.status == 200 and method == "GET":
            answer = self._made_safe(path, answer)
        self.pass_on(answer, HEADERS)

    def _made_safe(self, path: str, answer: Answer) -> Answer:
        """Summaries get the path of their notebook; what others have written goes out as bytes to be kept, not to be shown."""
        if _SUMMARIES.fullmatch(path):
            root = root_of(self.contents_manager)
            told = with_notebooks(answer, root) if path == "apis" else with_notebook(answer.document(dict), root)
            return Answer(answer.status, answer.headers, json.dumps(told).encode())
        if _BYTES.fullmatch(path):
            for name, value in INERT.items():
                self.set_header(name, value)
        return answer
