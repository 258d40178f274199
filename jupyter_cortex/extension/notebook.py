"""``/cortex/notebook/show|check|deploy|prepare``: what the notebook's own kernel does with it, told line by line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from ..core.errors import BadRequest, CortexError, EnvironmentDown
from . import kernel as kernels
from .answers import CortexHandler, answering
from .paths import notebook_file

#: What else a wish may hold, and the type it must have.
OPTIONS: dict[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "config": (dict, "an object"),
    "replicas": (int, "a whole number"),
    "yes": (bool, "true or false"),
    "take_over": (bool, "true or false"),
    "force": (bool, "true or false"),
    "rehearse": (int, "a whole number"),
}
#: Seconds without a word after which the last step is told again: proxies cut connections that look dead, most of them after 60 s.
QUIET_S = 20.0


class NotebookHandler(CortexHandler):
    _told: asyncio.Task[None] | None = None

    @authenticated
    @authorized
    @answering
    async def post(self, verb: str) -> None:
        """NDJSON: steps, then ``{"result": …}`` or ``{"problem": …}``. What can be refused at once is a problem document with its status."""
        given = self.json_object()
        file = await notebook_file(self.contents_manager, given.get("path"))
        kernel = kernels.find(self.kernel_manager, given.get("kernel_id"))
        if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, "execute", "kernels")):
            raise HTTPError(403, "you may not run code in this server's kernels")
        wish = {"verb": verb, "path": file, "model": _model(given), **_options(given)}
        self.set_header("Content-Type", "application/x-ndjson")
        self.set_header("X-Accel-Buffering", "no")
        self._told = asyncio.create_task(self._tell(self._told_by(kernel, wish)))
        try:
            await self._told
        except (asyncio.CancelledError, StreamClosedError):
            return  # the browser is gone; what the kernel was asked to do, it does
        self.finish(set_content_type="application/x-ndjson")

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._told is not None:
            self._told.cancel()

    async def _tell(self, lines: AsyncIterator[str]) -> None:
        """Write each line at once, and the last one again when nothing comes for a while."""
        last, waiting = "", None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(lines, ""))
                done, _ = await asyncio.wait([waiting], timeout=QUIET_S)
                if done:
                    last, waiting = waiting.result(), None
                    if not last:
                        return
                if last:
                    self.write(f"{last}\n")
                    await self.flush()
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.wait([waiting])
            await lines.aclose()  # type: ignore[attr-defined]

    async def _told_by(self, kernel: Any, wish: dict[str, Any]) -> AsyncIterator[str]:
        """Each line as JSON text. Raises nothing: the status has been sent."""
        try:
            if wish["verb"] == "deploy":
                async for step in self._environment_up():
                    yield json.dumps(step)
            if wish["verb"] not in ("check", "prepare"):  # which ask no gateway, and need no token
                environment = self.link.environment()
                wish["environment"] = {"name": environment.name, "url": environment.url, "token": environment.token}
            conversation = kernels.ask(kernel, wish)
            try:
                async for said in conversation:
                    yield said if isinstance(said, str) else json.dumps(said)
            finally:
                await conversation.aclose()  # type: ignore[attr-defined]
        except CortexError as error:
            yield json.dumps(kernels.problem_of(error))
        except Exception:
            self.log.exception("a notebook's kernel could not be asked")
            yield json.dumps(kernels.problem_of(CortexError("the Jupyter server could not ask the kernel; its log says why")))

    async def _environment_up(self) -> AsyncIterator[dict[str, Any]]:
        """Raises EnvironmentDown for one that is not ours to start."""
        there = await self.link.look()
        if there["up"]:
            return
        if there["local"]:
            yield {"step": "starting the local environment", "done": 0.05}
            there = await self.link.start()
        if not there["up"]:
            raise EnvironmentDown(there["message"])


def _model(given: dict[str, Any]) -> dict[str, Any]:
    model = given.get("model")
    if not isinstance(model, dict):
        raise BadRequest("`model` must be the notebook as it is in the browser")
    return model


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Raises BadRequest."""
    found = {}
    for name, (kind, said) in OPTIONS.items():
        value = given.get(name)
        if value is None or value == "":
            continue
        if not isinstance(value, kind) or (isinstance(value, int) and kind is int and (value is True or value < 1)):
            raise BadRequest(f"`{name}` must be {said}")
        found[name] = value
    return found
