"""From bytes to JSON, once: parse, call, encode. Replica, gate and notebook run exactly this."""

from __future__ import annotations

import json
import time

from jupyter_cortex.core.errors import CortexError

from . import errors_text, logs, payload, result
from .instance import Instance
from .live import Cancelled, DeadlineExceeded, Stage
from .log_context import Request


class Outcome:
    """How one execution ended. ``result``: JSON bytes when completed. ``error`` and ``details``: JSON text when failed.

    ``exception`` is what was raised, ``lines`` are the request's own log lines (encoded), ``run_ms`` the time from bytes to JSON.
    """

    __slots__ = ("details", "error", "exception", "lines", "result", "run_ms", "status")

    def __init__(self) -> None:
        self.status = "failed"
        self.result = b""
        self.error = self.details = ""
        self.exception: BaseException | None = None
        self.lines: list[str] = []
        self.run_ms = 0.0


def execute(handler: Instance, body: bytes, content_type: str | None, request_id: str, project_dir: str, stage: Stage | None = None) -> Outcome:
    """Run one workload. Never raises: SystemExit and KeyboardInterrupt from the author's code mean failed, too.

    ``stage``: who hears of its progress, and may interrupt it.
    """
    outcome = Outcome()
    began = time.perf_counter()
    with logs.request(request_id, stage) as request:
        try:
            try:
                if stage is not None:
                    stage.request = request
                outcome.result = result.encode(handler.call(payload.parse(body, content_type), request_id))
                outcome.status = "completed"
            finally:
                # An interruption comes once: where it comes in these lines it ends up below, and after them none can come any more.
                if stage is not None:
                    stage.request = request.stage = None
                    if stage.pending:
                        stage.settle()
        except BaseException as error:
            if stage is not None:
                stage.request = request.stage = None
            _failed(outcome, error, request, project_dir)
        if request.ending is not None:
            _ended(outcome, request, stage, project_dir)
    outcome.lines = request.lines
    outcome.run_ms = (time.perf_counter() - began) * 1000
    return outcome


def _ended(outcome: Outcome, request: Request, stage: Stage | None, project_dir: str) -> None:
    """It was told to end, and has: what came of it in the meantime comes too late."""
    if request.ending is not DeadlineExceeded:
        outcome.status, outcome.result, outcome.error, outcome.details = "cancelled", b"", "", ""
        return
    error, told = outcome.exception, (stage.limit if stage is not None else "") or "it has run for longer than its timeout"
    where = errors_text.traceback_text(error, project_dir) if error is not None else ""
    if request.where:
        where = f"When its time was over it was here:\n{request.where}" + (f"\n\nIt ended here:\n{where}" if where else "")
    logs.logger.error("%s", told)
    outcome.status, outcome.result = "failed", b""
    outcome.error = json.dumps({"type": "DeadlineExceeded", "message": told})
    outcome.details = json.dumps({"traceback": where, "logs": list(request.lines)})


def _failed(outcome: Outcome, error: BaseException, request: Request, project_dir: str) -> None:
    if request.ending is not None:
        outcome.exception = error
        logs.logger.info("the handler ended because its request was %s", "cancelled" if request.ending is Cancelled else "over its time")
        return
    story = errors_text.describe(error, project_dir)
    logs.logger.error("failed to process workload", exc_info=error)
    # Our own refusals (a result that is no JSON) go by their plain name: where they live is of no use to the author.
    kind = type(error).__name__ if isinstance(error, CortexError) else story["type"]
    outcome.exception = error
    outcome.error = json.dumps({"type": kind, "message": story["message"]})
    outcome.details = json.dumps({"traceback": story["traceback"], "logs": list(request.lines)})
