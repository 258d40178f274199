"""A measured figure, its goal, and the table of all of them."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """The goal: ``ratio``, at least so many times better than the peer; ``within``, at most so many times the peer; ``most``, at most so much;
    none of them: for information."""

    name: str
    ours: float
    unit: str
    peer: float | None = None
    more_is_better: bool = False
    ratio: float | None = None
    within: float | None = None
    most: float | None = None
    #: Of several runs the worst counts (a maximum, a number of failures), not the median.
    worst: bool = False

    @property
    def times(self) -> float | None:
        """How many times better than the peer."""
        if self.peer is None or not self.ours or not self.peer:
            return None
        return self.ours / self.peer if self.more_is_better else self.peer / self.ours

    @property
    def reached(self) -> bool | None:
        if self.ratio is not None:
            return self.times is not None and self.times >= self.ratio
        if self.within is not None:
            return self.peer is not None and self.ours <= self.within * self.peer
        return None if self.most is None else self.ours <= self.most


def joined(runs: Sequence[Figure]) -> Figure:
    """The same figure of several runs as one."""
    join = max if runs[0].worst else statistics.median
    peers = [run.peer for run in runs if run.peer is not None]
    return dataclasses.replace(runs[0], ours=join([run.ours for run in runs]), peer=statistics.median(peers) if peers else None)


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile: a value that was really seen."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    digits = 0 if value == int(value) or abs(value) >= 100 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def _goal(figure: Figure) -> str:
    if figure.ratio is not None:
        return f"≥ {figure.ratio:g}x"
    if figure.within is not None:
        return f"≤ {figure.within:g}x the peer's"
    return "–" if figure.most is None else f"≤ {figure.most:g} {figure.unit}".strip()


def table(figures: Sequence[Figure], machine: dict[str, Any]) -> str:
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    lines += ["| figure | ours | peer | ratio | goal | reached |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for one in figures:
        times = "–" if one.times is None else f"{one.times:,.{1 if one.times >= 2 else 2}f}x"
        reached = {None: "–", True: "yes", False: "**no**"}[one.reached]
        cells = [one.name, _number(one.ours, one.unit), _number(one.peer, one.unit), times, _goal(one), reached]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def document(figures: Sequence[Figure], machine: dict[str, Any], broken: dict[str, str]) -> dict[str, Any]:
    """The same for machines."""
    rows = [{**dataclasses.asdict(one), "times": one.times, "reached": one.reached} for one in figures]
    return {"machine": machine, "figures": rows, "broken": broken}


def machine(store: dict[str, Any], generator: str, runs: int) -> dict[str, Any]:
    """What the figures were measured on. ``store``: the store's INFO."""
    version = f"Valkey {store['valkey_version']}" if "valkey_version" in store else f"Redis {store['redis_version']}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": cores,
        "python": platform.python_version(),
        "store": version,
        "load": generator,
        "runs": runs,
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
