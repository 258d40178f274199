"""What the cells of the check notebook call: load the project as a replica does, then run its samples through parse → handle → JSON."""

from __future__ import annotations

import base64
import json
import math
import time
import uuid
from pathlib import Path
from typing import Any

from ..core.errors import CortexError, GateFailed
from ..handler import execution, loading, logs, metrics, origin, shim
from ..handler.errors_text import Elsewhere
from ..handler.instance import Instance, tensorflow_client
from ..handler.notebook.report import Report
from ..handler.payload import parse
from .gate_report import Masking

#: Floats may differ by this much of themselves: another number of threads adds up in another order.
FLOAT_TOLERANCE = 1e-6
#: A result that is not what it was goes along with the refusal up to this size.
TOLD_BYTES = 1_000_000
#: Characters of a payload and of a result that the report shows.
SHOWN = 2000


class Checked:
    """A project as a replica would have it: ``handler.path`` imported, the class checked, ``Handler(config)`` constructed.

    The spec and the samples are in the job's file beside the project. Raises HandlerError as loading and constructing do.
    """

    def __init__(self, project_dir: str) -> None:
        self.project_dir = Path(project_dir)
        job = json.loads((self.project_dir.parent / "job.json").read_text())
        self.samples, self.masks = job["samples"], Masking(job["secrets"])
        section = job["spec"]["handler"]
        origin.use_map(self.project_dir, section["path"])
        logs.setup_notebook(level=section["log_level"])
        shim.install()
        if section["type"] == "notebook":
            self._open_notebook(job["spec"])
            return
        began = time.perf_counter()
        cls = loading.load_class(self.project_dir, section["path"], section.get("python_path"))
        imported = time.perf_counter()
        loading.check_class(cls, handler_type=section["type"], path=section["path"])  # before models are loaded
        self.instance: Instance | Report = Instance(
            cls,
            config=section["config"],
            metrics_client=metrics.MetricsClient(metrics.Registry()),
            handler_type=section["type"],
            tensorflow_client=tensorflow_client(section, self.project_dir),
            path=section["path"],
        )
        ready = time.perf_counter()
        print(f"imported {section['path']} in {(imported - began) * 1000:.0f} ms, constructed Handler in {(ready - imported) * 1000:.0f} ms")

    def _open_notebook(self, spec: dict[str, Any]) -> None:
        section, began = spec["handler"], time.perf_counter()
        self.instance = Report(
            self.project_dir, section["path"], config=section["config"], python_path=section.get("python_path"), log_level=section["log_level"]
        )
        print(f"read {section['path']}, started its kernel in {(time.perf_counter() - began) * 1000:.0f} ms")

    def run(self, facts: dict[str, Any]) -> None:
        """The sample that ``facts`` names. Raises GateFailed with the reason, the traceback of a failing handler in its details."""
        name, sample = facts["sample"], self.samples[facts["sample"]]
        body = base64.b64decode(sample["body"])
        try:
            payload = parse(body, sample["content_type"])
        except CortexError as error:
            raise GateFailed(f"sample {name}: {error.message}", sample=name) from None
        print(f"payload: {type(payload).__name__} {self._shown(repr(payload))}")
        with logs.capture_prints():
            outcome = execution.execute(self.instance, body, sample["content_type"], str(uuid.uuid4()), str(self.project_dir))
        if outcome.status != "completed":
            error_row, details = json.loads(outcome.error), json.loads(outcome.details)
            raise GateFailed(
                f"sample {name}: {error_row['type']}: {error_row['message']}{_place(outcome.exception)}", sample=name, traceback=details["traceback"]
            )
        result = json.loads(outcome.result)
        print(f"result after {outcome.run_ms:.1f} ms: {self._shown(outcome.result.decode())}")
        if sample["expected"] is not None and (difference := differs(sample["expected"], result, masks=self.masks)):
            remedy = f"send it again and keep it with `%cortex sample {name}`, or edit samples/{name}.yaml"
            message = f"sample {name}: its result has changed: {difference}; if that is right, {remedy}"
            raise GateFailed(message, sample=name, result=result if len(outcome.result) <= TOLD_BYTES else None)

    def _shown(self, text: str) -> str:
        text = self.masks.text(text)  # before it is cut: half a value would not be found any more
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"


def _place(error: BaseException | None) -> str:
    found = error.story["place"] if isinstance(error, Elsewhere) else origin.deepest(error) if error else ""
    return f" ({found})" if found else ""


def differs(expected: Any, found: Any, path: str = "result", *, masks: Masking | None = None) -> str:
    """Where two JSON values differ first, in words; "" when they do not."""
    masks = masks or Masking(())
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (expected, found))
    if not numbers and type(expected) is not type(found):
        return f"{path} was {_brief(expected, masks)} and is {_brief(found, masks)}"
    if isinstance(expected, dict):
        for key in expected:
            if key not in found:
                return f"{path}.{key} is missing"
            if inner := differs(expected[key], found[key], f"{path}.{key}", masks=masks):
                return inner
        new = [key for key in found if key not in expected]
        return f"{path}.{new[0]} is new" if new else ""
    if isinstance(expected, list):
        if len(expected) != len(found):
            return f"{path} had {len(expected)} items and has {len(found)}"
        return next(
            (inner for at, pair in enumerate(zip(expected, found, strict=True)) if (inner := differs(*pair, f"{path}[{at}]", masks=masks))), ""
        )
    if isinstance(expected, float) or isinstance(found, float):
        try:
            same = math.isclose(expected, found, rel_tol=FLOAT_TOLERANCE, abs_tol=1e-12)
        except OverflowError:  # an integer that no float holds
            same = False
    else:
        same = expected == found
    return "" if same else f"{path} was {_brief(expected, masks)} and is {_brief(found, masks)}"


def _brief(value: Any, masks: Masking) -> str:
    text = masks.text(json.dumps(value))
    return text if len(text) <= 60 else text[:57] + "..."
