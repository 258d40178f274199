"""From bytes to JSON, once: parse, call, encode. Replica, gate and notebook run exactly this."""

from __future__ import annotations

import json
import time
from typing import Any

from jupyter_cortex.core.errors import CortexError, PayloadError

from . import errors_text, fingerprint, logs, payload, result
from .instance import Instance
from .redaction import Redaction, without_echo


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
    handler: Instance,
    body: bytes,
    content_type: str | None,
    request_id: str,
    project_dir: str,
    *,
    run: int = 1,
    redaction: Redaction | None = None,
) -> Outcome:
    """Run one workload. Never raises: SystemExit and KeyboardInterrupt from the author's code mean failed, too.

    ``run``: its number, 1 until it is requeued. ``redaction``: what must not be read in its log lines and errors.
    """
    outcome = Outcome()
    began = time.perf_counter()
    with logs.request(request_id, run) as request:
        try:
            arrived = payload.parse(body, content_type) if redaction is None else _hidden(body, content_type, request, redaction)
            outcome.result = result.encode(handler.call(arrived, request_id))
            outcome.status = "completed"
        except BaseException as error:
            _failed(outcome, error, request, project_dir)
    outcome.lines = request.lines
    outcome.run_ms = (time.perf_counter() - began) * 1000
    return outcome


def _hidden(body: bytes, content_type: str | None, request: Any, redaction: Redaction) -> Any:
    """The payload, once nothing that the request writes can show what is redacted of it."""
    try:
        arrived = payload.parse(body, content_type)
    except PayloadError as error:
        raise without_echo(error) from None
    if mask := redaction.mask(arrived, content_type):
        request.hide(mask)
    return arrived


def _failed(outcome: Outcome, error: BaseException, request: Any, project_dir: str) -> None:
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
