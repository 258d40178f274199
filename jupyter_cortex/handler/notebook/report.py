"""A notebook as a handler, with the face of an `Instance`: constructed once, called for every workload."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import chaining, errors_text, log_context, logs, result
from ..event_loop import EventLoopThread
from . import executed, parameters, source

if TYPE_CHECKING:
    from .kernels import Kernels
    from .running import Run

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Report:
    """One notebook with its warm kernels. Safe to call from as many threads as it has kernels, and from more: they wait.

    ``redact``: the spec's JSON paths of what no executed notebook may show.
    """

    def __init__(
        self,
        project_dir: Path,
        path: str,
        *,
        config: dict[str, Any] | None = None,
        python_path: str | None = None,
        log_level: str = "info",
        threads: int = 1,
        redact: Sequence[str] = (),
        mem: tuple[str, int] | None = None,
    ) -> None:
        """Read the notebook and start its kernels; each may hold ``mem``: as the spec calls it, and in bytes.

        Raises :class:`HandlerError`: stage ``load`` for a notebook that cannot be run, ``init`` when no kernel starts.
        """
        root = Path(project_dir).resolve()
        document = source.read(root, path)
        # Here and not at the top: a Handler's replica does not need 0.7 s of imports.
        import nbformat

        from . import running

        self._run_class = running.Run
        self._document = nbformat.v4.upgrade(nbformat.from_dict(document))
        self._declared = source.declared(document)
        self._config, self._redact, self._threads = config or {}, redact, threads
        self._executed: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        facts = {
            "project_dir": str(root),
            "python_path": python_path,
            "log_level": log_level,
            "chain": chaining.target(),
            "max_result": result.most(),
            "mem": mem,
        }
        self._loop = EventLoopThread()
        self._kernels: Kernels | None = None
        try:
            self._loop.run(partial(self._start, facts, threads))
        except BaseException:
            self.close()
            raise

    async def _start(self, facts: dict[str, Any], threads: int) -> None:
        from .kernels import Kernels

        self._kernels = Kernels(facts, threads)
        await self._kernels.warm()

    def call(self, payload: Any, request_id: str) -> result.Encoded:
        """Run the notebook with this payload: what it glued, as JSON; null when that is nothing.

        Raises :class:`PayloadError` for a payload that gives no parameters, :class:`~..errors_text.Elsewhere` with what a cell raised,
        :class:`HandlerError` when its kernel dies. `take_executed` has the notebook, however it ended.
        """
        values = parameters.of(payload, self._config, request_id, self._declared)
        if odd := parameters.unknown(values, self._declared):
            logs.logger.warning("parameters that the notebook's `parameters` cell does not have: %s", ", ".join(odd))
        glued: bytes = self._loop.run(partial(self._run, payload, values, request_id))
        return result.Encoded(glued)

    async def _run(self, payload: Any, values: dict[str, Any], request_id: str) -> bytes:
        assert self._kernels is not None
        kernel = await self._kernels.take()
        run = self._run_class(self._document, values, request_id, kernel, asyncio.get_running_loop())
        try:
            await self._guarded(run)
        finally:
            self._kernels.give_back(kernel)
            self._keep(run, payload, request_id)
        return self._result(run.glued)

    @staticmethod
    async def _guarded(run: Run) -> None:
        """Wait for its end. Cancelled, interrupt its kernel; cancelled again, end it."""
        context = contextvars.copy_context()
        work = asyncio.get_running_loop().run_in_executor(None, context.run, run.papermill)
        asked = False
        while not work.done():
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError:
                if asked:
                    run.kill()
                else:
                    run.interrupt()
                asked = True
        if not asked:
            work.result()
            return
        problem = work.exception()
        request = log_context.current()
        if request is not None and isinstance(problem, errors_text.Elsewhere):
            request.where = ""  # its own story says better where it was
        raise problem or asyncio.CancelledError()

    @staticmethod
    def _result(glued: list[str]) -> bytes:
        if len(glued) <= 1:
            return glued[0].encode("ascii") if glued else b"null"
        import json

        merged: dict[str, Any] = {}
        for part in glued:
            merged |= json.loads(part)
        return result.encode(merged)

    # The executed notebook ---------------------------------------------------------------------------------------------------------------

    def take_executed(self, request_id: str) -> bytes:
        """The notebook (ipynb) that the last run for this request has left, once; empty when there is none."""
        with self._lock:
            return self._executed.pop(request_id, b"")

    def _keep(self, run: Run, payload: Any, request_id: str) -> None:
        if run.executed is None:
            return
        with suppress(Exception):  # what it keeps is worth less than its result
            for cell in run.executed.cells:
                for output in cell.get("outputs", []):
                    if output.get("output_type") == "error":  # without colours a value is found in it
                        output["traceback"] = [_ANSI.sub("", line) for line in output["traceback"]]
            data = executed.kept(run.executed, self._shown(payload, request_id))
            with self._lock:
                self._executed[request_id] = data
                while len(self._executed) > self._threads:  # nobody fetches them here
                    self._executed.popitem(last=False)

    def _shown(self, payload: Any, request_id: str) -> str | None:
        """The injected cell as it may be shown, None as it is."""
        if not self._redact:
            return None
        covered = parameters.covered(payload, self._redact)
        if covered is None:
            return executed.HIDDEN
        from papermill.parameterize import translate_parameters

        from .running import KERNEL

        values = parameters.of(covered, self._config, request_id, self._declared)
        return str(translate_parameters(KERNEL, "python", values, "Parameters"))

    def close(self) -> None:
        """End its kernels and its event loop."""
        kernels, self._kernels = self._kernels, None
        if kernels is not None:
            with suppress(Exception):
                self._loop.run(kernels.close)
        self._loop.close()

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
