"""``/cortex/sample``: the payload of a request of production, kept as a sample beside the notebook that the API is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from ..core.errors import BadRequest
from .answers import CortexHandler, answering
from .paths import notebook_file

if TYPE_CHECKING:
    from ..environments import Environment


class SampleHandler(CortexHandler):
    @authenticated
    @authorized
    @answering
    async def post(self) -> None:
        """``{"api", "id", "path"}`` (of the notebook) -> ``{"name", "file", "message"}``; ``file`` is below the notebook's directory.

        Raises PayloadGone, BadRequest (it is kept already), NotebookNotFound, ProjectError.
        """
        given = self.json_object()
        api, request_id = _text(given, "api"), _text(given, "id")
        notebook = await notebook_file(self.contents_manager, given.get("path"))
        if not os.path.isabs(notebook):
            raise BadRequest(f"this server keeps its notebooks in no directory; in a cell, `%cortex sample --from {request_id}` keeps it")
        if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, "write", "contents")):
            raise HTTPError(403, "you may not write files on this server")
        self.answer(await asyncio.to_thread(keep, self.link.environment(), api, request_id, Path(notebook)))


def keep(environment: Environment, api: str, request_id: str, notebook: Path) -> dict[str, Any]:
    """As `%cortex sample --from` in that notebook."""
    from ..client import Client
    from ..commands.failures import keep_workload
    from ..core.settings import Settings

    with Client(environment, Settings.read()) as client:
        path, note = keep_workload(client, api, request_id, notebook.parent, notebook=notebook)
    return {"name": path.stem, "file": path.relative_to(notebook.parent).as_posix(), "message": note}


def _text(given: dict[str, Any], key: str) -> str:
    value = given.get(key)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"`{key}` must be a text")
    return value
