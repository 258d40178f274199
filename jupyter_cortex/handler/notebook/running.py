"""One run of the notebook: papermill parametrises it and keeps its books, nbclient talks to a kernel that is warm already."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import signal
import sys
from contextlib import suppress
from typing import Any

# See project/gate_process.py: 2.2 s for the formats of web addresses, which notebooks do not have.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat  # noqa: E402
import papermill  # noqa: E402
from nbclient.client import NotebookClient  # noqa: E402
from nbclient.exceptions import CellExecutionError, DeadKernelError  # noqa: E402
from papermill.engines import Engine, papermill_engines  # noqa: E402
from papermill.translators import PythonTranslator, papermill_translators  # noqa: E402

from jupyter_cortex.core.errors import HandlerError  # noqa: E402

from .. import fingerprint, live, log_context, logs  # noqa: E402
from ..errors_text import Elsewhere  # noqa: E402
from ..log_lines import EXTRAS  # noqa: E402
from ..prints import _LEVELS, Partial  # noqa: E402
from . import executed, parameters, source  # noqa: E402
from .glue import MIME  # noqa: E402
from .kernel import MESSAGE  # noqa: E402
from .kernels import Kernel  # noqa: E402

ENGINE = KERNEL = "cortex-notebook"


class WarmKernel(Engine):
    """The papermill engine: the cells run on the handler's event loop, on which their kernel's connection lives."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, run: Run, **_: Any) -> None:  # type: ignore[override]
        run.manager = nb_man
        asyncio.run_coroutine_threadsafe(run.cells(), run.loop).result()


papermill_engines.register(ENGINE, WarmKernel)
papermill_translators.register(KERNEL, parameters.translator(PythonTranslator))
logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of what we say better


class _Client(NotebookClient):
    """Puts our own messages aside, and lets log lines out while a cell still runs."""

    def __init__(self, run: Run, nb: Any) -> None:
        super().__init__(nb, km=None, timeout=None, record_timing=True, coalesce_streams=False)
        self.kc, self._run = run.kernel.client, run
        self.log.setLevel(logging.CRITICAL)

    async def _async_check_alive(self) -> None:
        if not self._run.kernel.alive:
            raise DeadKernelError("the kernel has died")

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == MESSAGE:
            self._run.hear(json.loads(msg["content"]["said"]))
            return None
        content = msg["content"]
        if msg["msg_type"] == "stream":
            self._run.printed(content["name"], content["text"])
            if self._run.is_too_much(len(content["text"])):
                return None
        elif MIME in (content.get("data") or {}):
            self._run.glued.append(content["data"].pop(MIME)["json"])
        return super().process_message(msg, cell, cell_index)


class Run:
    """``document``: the notebook as published. ``loop``: where `cells` runs and ``kernel`` is connected."""

    def __init__(self, document: Any, values: dict[str, Any], request_id: str, kernel: Kernel, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.kernel = loop, kernel
        self._document, self._values, self._request_id = document, values, request_id
        self.manager: Any = None
        self.glued: list[str] = []
        self.story: dict[str, Any] | None = None
        self.stopped = False
        self._where, self._done, self._total, self._title = "", 0, 1, ""
        self._partials: dict[str, Partial] = {}
        self._printed = 0

    @property
    def executed(self) -> Any:
        """The notebook as far as it has come; None when it did not begin."""
        return None if self.manager is None else self.manager.nb

    # The thread that papermill runs on ---------------------------------------------------------------------------------------------------

    def papermill(self) -> None:
        """From the first cell to the last. Raises Elsewhere with the failing cell's story, HandlerError when the kernel dies."""
        with suppress(papermill.PapermillExecutionError):  # `story` has it better
            papermill.execute_notebook(
                copy.deepcopy(self._document),
                None,
                parameters=self._values,
                engine_name=ENGINE,
                kernel_name=KERNEL,
                language="python",
                progress_bar=False,
                log_output=False,
                run=self,
            )
        if self.story is not None:
            raise Elsewhere(self.story)

    # The event loop ----------------------------------------------------------------------------------------------------------------------

    async def cells(self) -> None:
        nb = self.manager.nb
        nb.metadata["papermill"]["parameters"] = {}  # once is enough: they are in their cell; and bytes are no JSON
        client, named = _Client(self, nb), source.labels(nb.cells)
        own = [at for at, cell in enumerate(nb.cells) if cell.cell_type == "code" and not source.is_injected(cell)]
        self._total = max(1, len(own))
        try:
            for index, cell in enumerate(nb.cells):
                if self.stopped:
                    return
                self._where, self._title = named[index]
                if index in own:
                    self._tell(0.0)
                self.manager.cell_start(cell, index)
                try:
                    await self._cell(client, cell, index)
                except CellExecutionError as error:
                    self.manager.cell_exception(cell, cell_index=index, exception=error)
                    self.story = self.story or self._plain(error)
                    return
                finally:
                    if "outputs" in cell:
                        cell.outputs = executed.coalesced(cell.outputs)
                    self.manager.cell_complete(cell, cell_index=index)
                    self._flush()
                self.story = None  # of a cell that may raise
                self._done += index in own
        finally:
            nb.metadata["language_info"] = {"name": "python"}

    async def _cell(self, client: _Client, cell: Any, index: int) -> None:
        self.kernel.client.about = {"cell": self._where, "request": self._request_id}
        try:
            await client.async_execute_cell(cell, index)
        except DeadKernelError:
            for _ in range(100):  # the nursery says how it ended, in a moment
                if not self.kernel.alive:
                    break
                await asyncio.sleep(0.02)
            problem = f"the kernel ended in {self._where} of {self._total} ({self.kernel.why()})"
            cell.setdefault("outputs", []).append(nbformat.v4.new_output("error", ename="DeadKernel", evalue=problem, traceback=[problem]))
            raise HandlerError(f"{problem}; a notebook must not exit or crash", stage="call", kind="kernel_died") from None

    def _plain(self, error: CellExecutionError) -> dict[str, Any]:
        """What is known where the kernel did not get to tell the story."""
        kind, message = error.ename or "Error", error.evalue or ""
        told = {"type": kind, "message": message, "traceback": f"{self._where}\n{kind}: {message}", "frames": [], "place": self._where}
        return {**told, "fingerprint": fingerprint.of_reason(kind, message)}

    def hear(self, said: dict[str, Any]) -> None:
        """What the kernel says beside its outputs."""
        if "story" in said:
            self.story = said["story"]
        elif "progress" in said:
            fraction, text, partial = said["progress"]
            self._tell(fraction, text, json.loads(partial) if partial else None)
        elif "record" in said:
            self._flush()
            fields = json.loads(said["record"])
            level = logging.getLevelName(fields.pop("levelname", "INFO"))
            record = logs.logger.makeRecord("cortex", level if isinstance(level, int) else 20, "", 0, fields.pop("message", ""), (), None)
            fields.pop("asctime", None)
            record.process = fields.pop("process", None)
            record.__dict__[EXTRAS] = fields
            logs.logger.handle(record)

    def printed(self, stream: str, text: str) -> None:
        """As a Handler's prints: a record for each line."""

        def emit(line: str) -> None:
            logs.logger.handle(logs.logger.makeRecord("cortex", _LEVELS[stream], "", 0, line, (), None, extra={"stream": stream}))

        self._partials.setdefault(stream, Partial(emit)).write(text)

    def is_too_much(self, size: int) -> bool:
        """Whether the notebook can hold no more of what cells print: it would be cut in the end, and a replica's memory has one."""
        self._printed += size
        return self._printed - size > 2 * executed.MAX_BYTES

    def _flush(self) -> None:
        for partial in self._partials.values():
            partial.flush()

    def _tell(self, within: float, text: str = "", partial: Any = None) -> None:
        request = log_context.current()
        if request is None or request.stage is None or request.ending is not None:
            return
        title = text or self._title
        said = f"{self._where} of {self._total}" + (f": {title}" if title else "")
        live.progress((self._done + min(1.0, max(0.0, within))) / self._total, said, partial=partial)

    # Ending it ---------------------------------------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """No further cell, and KeyboardInterrupt in the one that runs."""
        self.stopped = True
        self.kernel.signal(signal.SIGINT)

    def kill(self) -> None:
        self.stopped = True
        self.kernel.signal(signal.SIGKILL)
