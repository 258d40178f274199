"""Asking a notebook's kernel: one silent request, its steps as they come, then the end. See ``magics/lab.py`` for the other side."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import math
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from jupyter_core.utils import ensure_async

from ..core.errors import CortexError, KernelEnded, KernelLacksCortex, KernelProblem, NoKernel

#: As in ``magics/lab.py``, which a Jupyter server has no reason to import.
REQUEST = MESSAGE = "cortex"
MIME = "application/vnd.jupyter-cortex.answer"
#: An expression rather than code: it leaves nothing in the namespace, the history, the outputs or the caches of source. In a Python without
#: jupyter-cortex its value is that interpreter's path.
ASK = (
    "__import__('jupyter_cortex.magics.lab', fromlist=['answer']).answer()"
    " if __import__('importlib.util', fromlist=['find_spec']).find_spec('jupyter_cortex') else __import__('sys').executable"
)
WAITING = {"step": "waiting: the kernel is running a cell"}
#: Seconds until a new listener is taken not to hear the kernel; between two looks at a kernel that says nothing; until a request that has not begun
#: is said to wait; for the last messages behind the reply; and for a reply behind the last message.
HEARD_S, LOOK_S, BEGUN_S, REST_S, REPLY_S = 5.0, 0.5, 1.0, 1.0, 10.0
#: A request behind a cell that fails is sent back by the kernel, and asked again; more often than this it is no accident.
MAX_ABORTED = 50


def find(manager: Any, kernel_id: Any) -> Any:
    """The kernel of that id. Raises NoKernel, KernelProblem (not Python)."""
    if not isinstance(kernel_id, str) or kernel_id not in manager:
        raise NoKernel("the notebook has no running kernel; start one and run the notebook's cells")
    kernel = manager.get_kernel(kernel_id)
    try:
        language = str(kernel.kernel_spec.language or "python")
    except Exception:  # its kernelspec was removed after it had started
        language = "python"
    if language.lower() not in ("python", "ipython"):
        raise KernelProblem(f"the notebook's kernel runs {language}; a Handler is written in Python", kind="not_python", language=language)
    return kernel


async def ask(kernel: Any, wish: dict[str, Any]) -> AsyncIterator[dict[str, Any] | str]:
    """Each step as an object, then the end as the kernel wrote it: JSON text of ``{"result": …}`` or ``{"problem": …}``.

    Nothing is sent while a cell is running, so that whoever gives up waiting has asked for nothing. What was sent goes on to its end, whoever
    listens. Raises KernelProblem and its children.
    """
    talk = Conversation(kernel)
    try:
        async for step in talk.until_idle():
            yield step
        await talk.listen()
        async for said in talk.ask(wish):
            yield said
    finally:
        talk.close()


class Conversation:
    """A client of one kernel beside those of the browser."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        # Of its own: replies go to whoever's session asked, and two requests at once must not be taken for one.
        session = kernel.session.clone()
        session.session = uuid.uuid4().hex
        self._client = kernel.client(session=session)
        self._heard: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self._readers: list[asyncio.Task[None]] = []
        self._process = self._process_id()

    def close(self) -> None:
        for reader in self._readers:
            reader.cancel()
        if self._readers:
            self._client.stop_channels()

    def _process_id(self) -> Any:
        return getattr(getattr(self._kernel, "provisioner", None), "pid", None)

    async def _check_alive(self) -> None:
        """Raises KernelEnded, also for a kernel that was restarted: what it knew is gone."""
        if not await ensure_async(self._kernel.is_alive()) or self._process_id() != self._process:
            raise KernelEnded("the notebook's kernel ended or was restarted; run the notebook's cells again, then repeat this")

    async def until_idle(self) -> AsyncIterator[dict[str, Any]]:
        await self._check_alive()
        looked = 0.0
        while getattr(self._kernel, "execution_state", "") == "busy":
            if not looked:
                yield WAITING
            if time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                await self._check_alive()
            await asyncio.sleep(0.05)

    async def listen(self) -> None:
        """Until something is heard: what a kernel says before a new listener has arrived, it does not hear."""
        self._client.start_channels(shell=True, iopub=True, stdin=False, hb=False, control=True)
        for name in ("iopub", "shell"):
            self._readers.append(asyncio.create_task(self._read(name, getattr(self._client, f"{name}_channel"))))
        deadline = time.monotonic() + HEARD_S
        while time.monotonic() < deadline:
            # Answered by the kernel's own thread for control messages, whatever a cell is doing.
            self._client.control_channel.send(self._client.session.msg("kernel_info_request", {}))
            if await self._next(0.2):
                return
            await self._check_alive()

    async def _read(self, name: str, channel: Any) -> None:
        while True:
            with contextlib.suppress(ValueError):  # a message that nobody has signed
                self._heard.put_nowait((name, await channel.get_msg(timeout=None)))

    async def _next(self, seconds: float) -> tuple[str, dict[str, Any]] | None:
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._heard.get(), seconds)
        return None

    async def ask(self, wish: dict[str, Any]) -> AsyncIterator[dict[str, Any] | str]:
        for _ in range(MAX_ABORTED):
            reply: dict[str, Any] = {}
            async for said in self._once(wish):
                if "reply" in said:
                    reply = said["reply"]
                else:
                    yield said
            if reply.get("status") != "aborted":
                yield _end(reply)
                return
            await asyncio.sleep(0.1)
        raise KernelProblem("the kernel refuses to be asked while its cells fail; wait until they are done, then repeat this")

    async def _once(self, wish: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Send it, give each step, then ``{"reply": the content of the reply}``."""
        content = {
            "code": "",
            "silent": True,
            "store_history": False,
            "user_expressions": {REQUEST: ASK},
            "allow_stdin": False,
            "stop_on_error": False,
            REQUEST: json.dumps(wish),  # ASCII: half a surrogate pair in a cell is no UTF-8
        }
        message = self._client.session.msg("execute_request", content)
        self._client.shell_channel.send(message)
        sent = looked = time.monotonic()
        begun, idle, reply, rest = False, False, None, math.inf
        while time.monotonic() < rest:
            heard = await self._next(LOOK_S)
            now = time.monotonic()
            if heard is not None and heard[1]["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                name, said = heard
                kind, told = said["msg_type"], said["content"]
                if name == "shell" and kind == "execute_reply":
                    reply, rest = told, now if idle else now + REST_S
                elif kind == MESSAGE:
                    yield json.loads(told["line"])
                elif kind == "status":
                    begun, idle = True, told.get("execution_state") == "idle"
                    # The end of what is told, before or after the reply; one that never comes is not waited for.
                    if idle:
                        rest = now + REPLY_S if reply is None else now
            if reply is None and now - looked > LOOK_S:
                looked = now
                await self._check_alive()
                if not begun and now - sent > BEGUN_S:
                    begun = True
                    yield WAITING
        yield {"reply": reply or {}}


def _end(reply: dict[str, Any]) -> str:
    """The text of the end. Raises KernelLacksCortex, KernelProblem."""
    value = (reply.get("user_expressions") or {}).get(REQUEST) or {}
    data = value.get("data") or {}
    if isinstance(data.get(MIME), str):
        return str(data[MIME])
    if "text/plain" in data:
        python = _text(data["text/plain"])
        raise KernelLacksCortex(
            f"the notebook's kernel runs {python}, which has no jupyter-cortex; run `%pip install jupyter-cortex` in a cell and restart the kernel",
            python=python,
        )
    why = value if value.get("ename") else reply
    said = f"{why.get('ename')}: {why.get('evalue')}" if why.get("ename") else "it gave no answer"
    if why.get("ename") in ("ImportError", "ModuleNotFoundError", "AttributeError"):
        raise KernelLacksCortex(
            f"the notebook's kernel cannot use its jupyter-cortex ({said}); run `%pip install -U jupyter-cortex` in a cell and restart the kernel"
        )
    raise KernelProblem(f"the notebook's kernel did not answer ({said}); restart it, run its cells and repeat this")


def _text(shown: Any) -> str:
    try:
        return str(ast.literal_eval(str(shown)))
    except (ValueError, SyntaxError):
        return str(shown)


def problem_of(error: CortexError) -> dict[str, Any]:
    return {"problem": error.problem()}
