"""The notebook's door: loading the extension, slicing a large notebook, and from the click to a live API."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from figures import Figure
from jupyter_client.manager import KernelManager
from stage import Stage

from jupyter_cortex.demo import source
from jupyter_cortex.project import from_notebook
from jupyter_cortex.project.notebook import steps
from jupyter_cortex.project.notebook.cells import from_document

ROUNDS = 5
CELLS = 200
LOAD = """
import sys, time
_before, _began = set(sys.modules), time.perf_counter()
get_ipython().run_line_magic("load_ext", "jupyter_cortex")
print((time.perf_counter() - _began) * 1000)
"""
WAIT_S = 120


def run(stage: Stage, quick: bool) -> list[Figure]:
    rounds = 2 if quick else ROUNDS
    first, again = (statistics.median(_slice(stage, cold=cold) for _ in range(rounds)) for cold in (True, False))
    return [
        Figure("%load_ext jupyter_cortex", statistics.median(_load(stage) for _ in range(rounds)), "ms", most=150),
        Figure(f"slice and check of a notebook of {CELLS} cells, first", first, "ms", most=300),
        Figure("the same again, in one kernel", again, "ms"),
        Figure("iris notebook, %cortex deploy to live with the gate", statistics.median(_clicks(stage, rounds)), "s", most=5),
        Figure("%cortex replay, the first in its kernel, to the failing frame", statistics.median(_replays(stage, rounds)), "s", most=3),
    ]


class Kernel:
    def __init__(self, stage: Stage, directory: Path) -> None:
        self.manager = KernelManager()
        self.manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER_CORTEX_", "JPY_"))}
        self.manager.start_kernel(cwd=str(directory), env={**environ, **stage.settings.environ()})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WAIT_S)

    def run(self, code: str) -> str:
        parts: list[str] = []

        def collect(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                parts.append(message["content"]["text"])

        reply = self.client.execute_interactive(code, timeout=WAIT_S, output_hook=collect, allow_stdin=False)
        if reply["content"]["status"] != "ok":
            raise RuntimeError("\n".join(reply["content"]["traceback"]))
        return "".join(parts)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def _load(stage: Stage) -> float:
    with Kernel(stage, stage.directory) as kernel:
        return float(kernel.run(LOAD))


def _slice(stage: Stage, *, cold: bool) -> float:
    """A notebook of which a third is needed: constants, functions on functions, plots and tables between them."""
    cells = ["import math\nimport json\nfrom collections import defaultdict\n%matplotlib inline"]
    for number in range((CELLS - 2) // 3):
        before = f"step_{number - 1}(x)" if number else "x"
        table = f"TABLE_{number} = {{'a': [1, 2, {number}], 'b': WEIGHT_{number}}}\nTABLE_{number}['c'] = 3"
        cells.append(f"# part {number}\nWEIGHT_{number} = {number} / 7\n{table}")
        cells.append(f"def step_{number}(x):\n    total = sum(value * x for value in TABLE_{number}['a'])\n    return math.sin(total) + {before}")
        cells.append(
            f"values_{number} = [step_{number}(x) for x in range(5)]\nprint(values_{number})\nfor value in values_{number}:\n    print(value)"
        )
    cells.append(f"class Handler:\n    def handle_async(self, payload):\n        return {{'y': step_{(CELLS - 2) // 3 - 1}(payload)}}")
    document = {
        "cells": [{"cell_type": "code", "source": text, "metadata": {}} for text in cells],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    if cold:
        steps._names.cache_clear()
    began = time.perf_counter()
    built = from_notebook.build(from_document(document), stage.directory, name="large")
    took = (time.perf_counter() - began) * 1000
    if built.source.count("def step_") != (CELLS - 2) // 3 or any(row.blocks for row in built.surprises):
        raise RuntimeError("the slice of the large notebook is not what it should be")
    return took


def _replays(stage: Stage, rounds: int) -> list[float]:
    """A request of production fails again in a kernel that has just run the notebook's cells, and its frame can be looked at."""
    name, handler = "replay-click", "class Handler:\n    def handle_async(self, payload):\n        return {'y': payload['word']}"
    taken = []
    for number in range(rounds):
        with Kernel(stage, stage.directory) as kernel:
            kernel.run("%load_ext jupyter_cortex")
            kernel.run(handler)
            if number == 0:
                kernel.run(f"%cortex deploy {name} --no-check")
                request_id = stage.client.submit(name, {"wort": 1})
                stage.client.result(name, request_id, wait=WAIT_S)
            began = time.perf_counter()
            kernel.run(f"%cortex replay {request_id} --name {name}")
            seen = kernel.run("import sys; print(list(sys.last_traceback.tb_frame.f_locals['payload']))")
            taken.append(time.perf_counter() - began)
            if seen.strip() != "['wort']":
                raise RuntimeError(f"the failing frame is not there: {seen}")
    stage.delete(name)
    return taken


def _clicks(stage: Stage, rounds: int) -> list[float]:
    """The cells of the iris notebook up to its deploy in a fresh kernel; then the deploy under a new name, again and again."""
    directory = stage.directory / "iris"
    directory.mkdir(exist_ok=True)
    cells = [cell for cell in json.loads(source().read_text())["cells"] if cell["cell_type"] == "code"]
    texts = ["".join(cell["source"]) for cell in cells]
    texts = texts[: next(at for at, text in enumerate(texts) if text.startswith("%cortex show"))]
    taken = []
    with Kernel(stage, directory) as kernel:
        kernel.run("%load_ext jupyter_cortex")
        for text in texts:
            kernel.run(text)
        for number in range(rounds):
            name = f"iris-click-{number}"
            began = time.perf_counter()
            kernel.run(f"%cortex deploy {name}")
            taken.append(time.perf_counter() - began)
            if stage.client.get_api(name)["status"] != "live":
                raise RuntimeError(f"{name} is said to be live, and is not")
            stage.delete(name)
    return taken
