"""From what ran in a kernel and what is saved on disk to the one notebook that the slice reads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..project.notebook.cells import Cell, Notebook, State, code_cells
from ..project.notebook.lines import Loading
from .recorder import Run

#: A cell that publishes itself runs only up to this line.
_OURS = re.compile(r"^\s*%cortex\s+(?:deploy|show|check|save)\b")


def executed_notebook(
    runs: Iterable[Run], path: Path | None, document: dict[str, Any] | None, saved_at: float, alive: frozenset[str], loading: Loading
) -> Notebook:
    """The runs as cells, in the order in which they ran, each with its place in the saved notebook.

    ``saved_at``: when the file was written (seconds since the epoch); a run after that may be of text that is not saved yet, so that a difference
    to the file means nothing then.
    """
    saved = code_cells(document) if document else []
    happened = [run for run in runs if run.failed_line != 0]
    numbers = _numbers(happened, saved)
    last = {number: run for run, number in zip(happened, numbers, strict=True) if number}
    cells, edited = [], []
    for run, number in zip(happened, numbers, strict=True):
        place = saved[number - 1] if number else None
        state = _state(run, place, last.get(number), bool(document), saved_at)
        cell = Cell(
            run.source,
            number=number,
            count=run.count,
            id=run.cell_id,
            tags=place.tags if place else frozenset(),
            seconds=run.seconds if run.seconds is not None else place.seconds if place else None,
            state=state,
            failed_line=run.failed_line or (_own_line(run.source) if run.running else None),
        )
        cells.append(cell)
        if state is State.EDITED:
            edited.append(cell)
    ran = set(numbers)
    waiting = [cell for cell in saved if cell.number not in ran and cell.source.strip()]
    return Notebook(cells, path, executed=True, alive=alive, loading=loading, edited=edited, waiting=waiting, document=document or {})


def _numbers(runs: list[Run], saved: list[Cell]) -> list[int]:
    """For each run the number of its cell: by the id that the front end sent, else by its text; 0 for none."""
    by_id = {cell.id: cell.number for cell in saved if cell.id}
    by_text: dict[str, list[int]] = {}
    for cell in saved:
        by_text.setdefault(cell.source.strip(), []).append(cell.number)
    numbers: list[int] = []
    taken: dict[str, int] = {}
    for run in runs:
        if run.cell_id and by_id:  # a notebook of format 4.4 has no ids, though its front end sends some
            numbers.append(by_id.get(run.cell_id, 0))
            continue
        same = by_text.get(run.source.strip(), [])
        # Cells of equal text are taken in their order; the last stands for every further run.
        at = taken.get(run.source.strip(), 0)
        numbers.append(same[min(at, len(same) - 1)] if same else 0)
        taken[run.source.strip()] = at + 1
    return numbers


def _state(run: Run, place: Cell | None, last: Run | None, known: bool, saved_at: float) -> State:
    if place is None:
        return State.DELETED if known and run.started < saved_at and run.started else State.CURRENT
    if run is not last and last is not None and run.source != last.source:
        return State.SUPERSEDED
    if place.source.strip() == run.source.strip() or run.started > saved_at or not run.started:
        return State.CURRENT
    return State.EDITED


def _own_line(source: str) -> int | None:
    return next((number for number, line in enumerate(source.split("\n"), 1) if _OURS.match(line)), None)


def belongs(document: dict[str, Any], runs: Iterable[Run]) -> bool:
    """Whether these runs can be of this notebook: a kernel may have inherited another one's name."""
    cells = code_cells(document)
    ids, texts = {cell.id for cell in cells if cell.id}, {cell.source.strip() for cell in cells}
    return any(run.cell_id in ids if run.cell_id and ids else run.source.strip() in texts for run in runs)
