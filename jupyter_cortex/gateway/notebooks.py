"""The notebook that was executed for a workload, as a file and as a page.

``GET <endpoint>/<id>/notebook.ipynb`` and ``…/notebook.html``, and the same below the control routes. What is in it is the author's and his callers':
no browser may take it for a page of this origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from collections.abc import AsyncIterator
from typing import Any

import redis
from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from ..core.errors import NotebookUnreadable, TooManyPages
from ..store import notebooks
from .answers import Headers, respond
from .control import Control
from .described import answers

IPYNB, HTML = "notebook.ipynb", "notebook.html"
TYPES = {IPYNB: "application/x-ipynb+json", HTML: "text/html; charset=utf-8"}
#: Pages made at once, each in a process of its own, and seconds that one may take.
AT_ONCE, PATIENCE_S = 2, 60.0
#: Pages that may wait for their turn.
WAITING = 32
#: Nothing in the page runs, and nothing is fetched for it; the sandbox makes its origin nobody's.
POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"

_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[asyncio.Semaphore, list[None]]] = weakref.WeakKeyDictionary()


def asked(path: str) -> tuple[str, str] | None:
    """(id, file) of what stands behind an endpoint, None when that asks for no notebook."""
    request_id, _, name = path.rpartition("/")
    return (request_id, name) if name in TYPES else None


class Notebooks:
    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def file(self, api: str, request_id: str, name: str) -> tuple[bytes, dict[str, str]]:
        """The file and its headers. Raises WorkloadNotFound, NotebookGone, NotebookUnreadable, StoreUnavailable."""
        safe = {"x-content-type-options": "nosniff", "content-security-policy": POLICY, "referrer-policy": "no-referrer"}
        if name == IPYNB:
            data = await run_in_threadpool(notebooks.get, self._client, api, request_id)
            return data, {**safe, "content-disposition": f'attachment; filename="{request_id}.ipynb"'}
        async with _slot():  # only then is it read: it may have 8 MiB
            return await page_of(await run_in_threadpool(notebooks.get, self._client, api, request_id)), safe

    async def answer(self, api: str, wanted: tuple[str, str], send: Any, cors: Headers) -> None:
        data, headers = await self.file(api, *wanted)
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        await respond(send, 200, data, [*cors, *extra], TYPES[wanted[1]].encode())


@contextlib.asynccontextmanager
async def _slot() -> AsyncIterator[None]:
    """One of those who may make a page. Raises TooManyPages where enough wait for that."""
    slots, waiting = _slots.setdefault(asyncio.get_running_loop(), (asyncio.Semaphore(AT_ONCE), []))
    if len(waiting) >= WAITING:
        raise TooManyPages(f"{WAITING} notebooks wait to be made pages; try again, or take {IPYNB}")
    waiting.append(None)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await slots.acquire()
    except TimeoutError:
        raise TooManyPages(f"other notebooks are being made pages; try again, or take {IPYNB}") from None
    finally:
        waiting.pop()
    try:
        yield
    finally:
        slots.release()


async def page_of(data: bytes) -> bytes:
    """The notebook as HTML. A process of its own makes it: reading a stranger's Markdown must not hold up who calls. Raises NotebookUnreadable."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "jupyter_cortex.gateway.notebook_page",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            page, _ = await process.communicate(data)
    except TimeoutError:
        page = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode or not page:
        raise NotebookUnreadable(f"this notebook cannot be made a page; {IPYNB} has it")
    return page


def add_notebook_routes(router: APIRouter, control: Control) -> None:
    shelf = Notebooks(control.client)

    @router.get("/apis/{name}/workloads/{request_id}/notebook.ipynb", response_class=Response, responses=answers(TYPES[IPYNB]))
    async def as_file(name: str, request_id: str) -> Response:
        """The executed notebook of a notebook handler's workload, also of a failed one; masked and redacted as its log is."""
        data, headers = await shelf.file(name, request_id, IPYNB)
        return Response(data, media_type=TYPES[IPYNB], headers=headers)

    @router.get("/apis/{name}/workloads/{request_id}/notebook.html", response_class=Response, responses=answers("text/html"))
    async def as_page(name: str, request_id: str) -> Response:
        """The same as a page, in which nothing runs."""
        data, headers = await shelf.file(name, request_id, HTML)
        return Response(data, media_type="text/html", headers=headers)
