"""A shadow: a replica that runs what its rehearsal hands to it, and answers nobody else. It has no connection to the store.

Started by ``rehearsal.py`` as a replica is by its worker, with the same pipes. Beside the words of a replica the control pipe brings ``run`` and one
line of JSON: ``id``, ``content_type``, ``run``, and the files of body and answer. The status pipe takes ``ran`` when the answer is there.
"""

from __future__ import annotations

import json
import queue
import sys
from pathlib import Path
from typing import Any

from . import replica
from .broker import Delivery

#: True in ``config`` while kept workloads are rehearsed: what has side effects can look.
GUARD = "cortex_rehearsal"


class Shadow(replica.Replica):
    """The metrics client's numbers and progress go nowhere; the supervisor does not pass them on."""

    def __init__(self, control: int, status: replica.Status, records: int) -> None:
        super().__init__(control, status, records)
        self._jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._drain = lambda: self._jobs.put(None)

    def _construct(self, config: dict[str, Any], spec: dict[str, Any]) -> Any:
        section = spec["handler"]
        return super()._construct(config, {**spec, "handler": {**section, "config": {**section["config"], GUARD: True}}})

    def _hear(self, word: bytes) -> None:
        if word.startswith(b"run "):
            self._jobs.put(json.loads(word[4:]))

    def _serve(self, config: dict[str, Any], spec: dict[str, Any], execution: replica.Execution) -> None:
        """One after the other, on the main thread."""
        sys.setswitchinterval(0.001)
        while (job := self._jobs.get()) is not None:
            delivery = Delivery(job["id"], job["content_type"], Path(job["body"]).read_bytes(), marked=True, run=job["run"])
            execution(delivery)
            Path(job["answer"]).write_bytes(delivery.result if delivery.status == "completed" else delivery.details.encode())
            self._status.tell("ran", id=job["id"], status=delivery.status, run_ms=delivery.run_ms, error=delivery.error)


if __name__ == "__main__":
    replica.main(Shadow)
