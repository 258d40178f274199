"""From bytes to JSON, once: parse, call, encode. Replica, gate and notebook run exactly this."""

from __future__ import annotations

import json
import time
from typing import Any

from jupyter_cortex.core.errors import CortexError

from . import errors_text, logs, payload, result
from .instance import Instance


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


def execute(handler: Instance, body: bytes, content_type: str | None, request_id: str, project_dir: str) -> Outcome:
    """Run one workload. Never raises: SystemExit and KeyboardInterrupt from the author's code mean failed, too."""
    outcome = Outcome()
    began = time.perf_counter()
    with logs.request(request_id) as request:
        try:
            outcome.result = result.encode(handler.call(payload.parse(body, content_type), request_id))
            outcome.status = "completed"
        except BaseException as error:
            _failed(outcome, error, request, project_dir)
    outcome.lines = request.lines
    outcome.run_ms = (time.perf_counter() - began) * 1000
    return outcome


def _failed(outcome: Outcome, error: BaseException, request: Any, project_dir: str) -> None:
    story = errors_text.describe(error, project_dir)
    logs.logger.error("failed to process workload", exc_info=error)
    # Our own refusals (a result that is no JSON) go by their plain name: where they live is of no use to the author.
    kind = type(error).__name__ if isinstance(error, CortexError) else story["type"]
    outcome.exception = error
    outcome.error = json.dumps({"type": kind, "message": story["message"]})
    outcome.details = json.dumps({"traceback": story["traceback"], "logs": list(request.lines)})
