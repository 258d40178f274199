"""What processes cost, from Linux's /proc."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
from stage import Stage

from jupyter_cortex.operator.processes import Slot

MB = 1e6


def gateway(stage: Stage) -> int:
    pid = Slot(stage.home.run, "gateway").pid()
    if pid is None:
        raise RuntimeError("the gateway is not running")
    return pid


def replicas(stage: Stage, api: str) -> list[int]:
    return [replica["pid"] for worker in stage.client.get_api(api)["workers"].values() for replica in worker["replicas"]]


def workers(stage: Stage, api: str) -> list[int]:
    return [worker["pid"] for worker in stage.client.get_api(api)["workers"].values()]


def children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def all_of_ours(stage: Stage) -> set[int]:
    """Operator, gateway, store, workers and what they have started."""
    slots = (Slot(stage.home.run, path.stem).pid() for path in stage.home.run.glob("*.lock"))
    tops = [psutil.Process(pid) for pid in slots if pid is not None]
    return {process.pid for top in tops for process in (top, *top.children(recursive=True))}


def cpu_s(pids: set[int]) -> float:
    """Seconds on a core so far, all threads; exact, where /proc/<pid>/stat counts in steps of 10 ms."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                total += int(task.read_text().split()[0])
    return total / 1e9


def pss(pid: int) -> float:
    """Bytes of its proportional set: what it has for itself, and of what several share its part."""
    return _kb(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def resident(pid: int) -> float:
    return _kb(Path(f"/proc/{pid}/status"), "VmRSS:")


def forget_peak(pid: int) -> None:
    """The peak of the resident set begins anew: 5 is the kernel's word for that."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> float:
    return _kb(Path(f"/proc/{pid}/status"), "VmHWM:")


def _kb(path: Path, name: str) -> float:
    line = next(line for line in path.read_text().splitlines() if line.startswith(name))
    return float(line.split()[1]) * 1024
