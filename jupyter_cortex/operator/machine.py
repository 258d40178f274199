"""What this machine has for replicas: cores, GPUs and memory."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from ..serving.gpus import listed

#: Where Linux says what a container may use, by version of its control groups.
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_gpus = 0


def cpus() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def gpus() -> int:
    """GPUs that replicas may be given."""
    global _gpus
    # Asking takes up to seconds. Cards do not come and go, but a driver may be busy with waking them.
    _gpus = _gpus or len(listed())
    return _gpus


def memory_total() -> int:
    """Bytes that this machine has, or the container that it is."""
    total = int(psutil.virtual_memory().total)
    for limit in CONTAINER_LIMITS:
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):  # another version of cgroups, or "max"
            continue
    return total


def memory_available() -> int:
    """Bytes that can be had without swapping."""
    return int(psutil.virtual_memory().available)


def replica_memory(pids: list[int]) -> int | None:
    """The mean resident size of these processes in bytes; None when none could be measured."""
    sizes = []
    for pid in pids:
        try:
            sizes.append(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            continue
    return sum(sizes) // len(sizes) if sizes else None


def left_by_handlers(projects: Path, api: str = "", version: int = 0) -> Iterator[psutil.Process]:
    """Processes that handlers of this environment (or of one version) have started, and that may have outlived their replica.

    They are known by the variable that every replica has and its children inherit; their parents are gone.
    """
    wanted = re.compile(rf"{re.escape(api)}-v{version}-[0-9a-f]+" if api else ".+")
    for process in psutil.process_iter():
        try:
            directory = Path(process.environ().get("CORTEX_PROJECT_DIR", ""))
            below = directory.is_relative_to(projects) and directory.relative_to(projects).parts
            if below and wanted.fullmatch(below[0]) and process.pid != os.getpid():
                yield process
        except (psutil.Error, OSError):
            continue


def end_left_by_handlers(projects: Path, api: str = "", version: int = 0, *, patience: float = 5.0) -> None:
    """Kill them, and wait until they are over, for up to ``patience`` seconds.

    A zombie is: it holds nothing, and who has inherited it may reap it every 2 s (the init of some machines) or never (a container's program).
    """
    found = list(left_by_handlers(projects, api, version))
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + patience
    while not all(over(process.pid) for process in found) and time.monotonic() < deadline:
        time.sleep(0.005)


def over(pid: int) -> bool:
    """Whether this process has ended, reaped or not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True
