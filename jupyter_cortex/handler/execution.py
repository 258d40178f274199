"""From bytes to JSON, once: parse, call, encode. Replica, gate and notebook run exactly this."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from jupyter_cortex.core.errors import CortexError, PayloadError

from . import errors_text, fingerprint, logs, payload, result
from .instance import Instance
from .live import Cancelled, DeadlineExceeded, Stage
from .log_context import Request
from .redaction import Redaction, without_echo

if TYPE_CHECKING:
    from .notebook.report import Report


class Outcome:
    """How one execution ended. ``result``: JSON bytes when completed. ``error`` and ``details``: JSON text when failed.

    ``exception`` is what was raised, ``lines`` are the request's own log lines (encoded), ``run_ms`` the time from bytes to JSON. Failures of one
    ``fingerprint`` are one mistake; ``frames`` say where it is, the author's first.
    """

    __slots__ = ("details", "error", "exception", "fingerprint", "frames", "lines", "result", "run_ms", "status")

    def __init__(self) -> None:
        self.status = "failed"
        self.result = b""
        self.error = self.details = self.fingerprint = ""
        self.frames: list[dict[str, Any]] = []
        self.exception: BaseException | None = None
        self.lines: list[str] = []
        self.run_ms = 0.0


def execute(
    handler: Instance | Report,
    body: bytes,
    content_type: str | None,
    request_id: str,
    project_dir: str,
    *,
    run: int = 1,
    redaction: Redaction | None = None,
    stage: Stage | None = None,
) -> Outcome:
    """Run one workload. Never raises: SystemExit and KeyboardInterrupt from the author's code mean failed, too.

    ``run``: its number, 1 until it is requeued. ``redaction``: what must not be read in its log lines and errors. ``stage``: who hears of its
    progress, and may interrupt it.
    """
    outcome = Outcome()
    began = time.perf_counter()
    with logs.request(request_id, run, stage) as request:
        try:
            logs.logger.debug("processing workload...")
            try:
                if stage is not None:
                    stage.request = request
                arrived = payload.parse(body, content_type) if redaction is None else _hidden(body, content_type, request, redaction)
                outcome.result = result.encode(handler.call(arrived, request_id))
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
        logs.logger.debug("workload processing complete")
    outcome.lines = request.lines
    outcome.run_ms = (time.perf_counter() - began) * 1000
    return outcome


def _hidden(body: bytes, content_type: str | None, request: Request, redaction: Redaction) -> Any:
    """The payload, once nothing that the request writes can show what is redacted of it."""
    try:
        arrived = payload.parse(body, content_type)
    except PayloadError as error:
        raise without_echo(error) from None
    if mask := redaction.mask(arrived, content_type):
        request.hide(mask)
    return arrived


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
    # Where it was when its time was over is chance: those that take too long are one group.
    outcome.fingerprint = fingerprint.of_reason("DeadlineExceeded", told)
    outcome.frames = [] if error is None else fingerprint.explain(error, "DeadlineExceeded", told, project_dir)[1]
    outcome.details = details(outcome.fingerprint, outcome.frames, where, request.lines)


def _failed(outcome: Outcome, error: BaseException, request: Request, project_dir: str) -> None:
    if request.ending is not None:
        outcome.exception = error
        logs.logger.info("the handler ended because its request was %s", "cancelled" if request.ending is Cancelled else "over its time")
        return
    with errors_text.once():
        story = errors_text.describe(error, project_dir)
        logs.logger.error("failed to process workload", exc_info=error)
    # Our own refusals (a result that is no JSON) go by their plain name: where they live is of no use to the author.
    kind = type(error).__name__ if isinstance(error, CortexError) else story["type"]
    outcome.exception = error
    outcome.error = json.dumps({"type": kind, "message": story["message"]})
    outcome.fingerprint, outcome.frames = fingerprint.explain(error, kind, story["message"], project_dir)
    outcome.details = details(outcome.fingerprint, outcome.frames, story["traceback"], request.lines)


def details(mark: str, frames: list[dict[str, Any]], traceback: str, lines: list[str]) -> str:
    """What the store keeps of a failure. First the fingerprint, for lua/prelude.lua, then the frames: a list of groups reads no further."""
    return json.dumps({"fingerprint": mark, "frames": frames, "traceback": traceback, "logs": lines})
