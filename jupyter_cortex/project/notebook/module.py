"""From a slice to the text of ``handler.py``, and the map from its lines back to the cells."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from .slicing import Slice
from .steps import Step

#: The first line of every module made from a notebook. No date, no cell numbers: the same code must give the same bytes.
HEADER = "# Made from a notebook by jupyter-cortex. Change the notebook, not this file."


@dataclass(frozen=True)
class Placed:
    """A statement in the module: its first line there, how many lines it has, and the cell lines that they came from."""

    step: Step
    line: int
    count: int


def write(found: Slice) -> tuple[str, list[Placed]]:
    """The module's text, as the author wrote each statement, and where each one stands."""
    lines, placed = [HEADER], []
    before: Step | None = None
    for step in found.order:
        lines += [""] * _gap(before, step)
        text = step.text.split("\n")
        placed.append(Placed(step, len(lines) + 1, len(text)))
        lines += text
        before = step
    return "\n".join(lines) + "\n", placed


def _gap(before: Step | None, step: Step) -> int:
    """Blank lines in front: the author's own between neighbours of one cell, else what PEP 8 says."""
    if before is None:
        return 1
    if before.cell is step.cell and 0 < step.first - before.last <= 3 and step.index == before.index + 1:
        return step.first - before.last - 1
    if before.cell is step.cell and step.first == before.last:
        return 0  # two statements of one line
    if step.defines or before.defines:
        return 2
    return 0 if before.imports and step.imports else 1


def line_map(placed: Iterable[Placed], notebook: str) -> bytes:
    """``{"notebook", "lines": [[module line, cell, line in the cell], ...]}``, one entry per line of code."""
    lines = [[one.line + offset, one.step.cell.label, _cell_line(one, offset)] for one in placed for offset in range(one.count)]
    return json.dumps({"notebook": notebook, "lines": lines}).encode()


def _cell_line(one: Placed, offset: int) -> int:
    return one.step.first + offset


def reasons(found: Slice, placed: Iterable[Placed]) -> list[dict[str, object]]:
    """One row per statement: its cell, its first line there and in the module, its text and why it is in."""
    return [
        {
            "cell": one.step.cell.label,
            "line": one.step.first,
            "module_line": one.line,
            "lines": one.count,
            "text": one.step.text,
            "reasons": [str(reason) for reason in found.reasons[one.step.index]],
        }
        for one in placed
    ]
