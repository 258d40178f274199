"""The GPUs of this machine, and which replica has which: ``compute.gpu`` of the spec.

Who has a GPU holds a lock on a file of its own below the run directory, by a descriptor that the replica inherits: it is free again when the replica
and what it forked are gone, however they ended. Only while one version takes over from another do the two share what both need.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import EnvironmentProblem

#: A driver that has to wake the cards up first takes seconds.
SMI_S = 30.0
#: What NVIDIA's driver says where its tool is not installed: one directory per card, by its address.
DRIVER = Path("/proc/driver/nvidia/gpus")


def listed(environ: dict[str, str] | None = None) -> list[str]:
    """The GPUs that replicas may be given, by index; those that CUDA_VISIBLE_DEVICES leaves where it is set (as it names them)."""
    visible = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    indexes, names = _by_tool() or _by_driver(), []
    if visible is None:
        return list(indexes)
    for name in visible.split(","):
        # As CUDA does: what comes behind one that is not there does not count.
        if not any(name.strip() in (index, uuid) for index, uuid in indexes.items()):
            break
        names.append(name.strip())
    return names


def _by_tool() -> dict[str, str]:
    """Index -> uuid; {} where nvidia-smi is not there or finds nothing."""
    argv = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=SMI_S)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True) if done.returncode == 0 else ()
    return {row[0].strip(): row[1].strip() for row in rows if len(row) == 2 and row[0].strip().isdigit()}


def _by_driver() -> dict[str, str]:
    try:
        return {str(index): "" for index, _ in enumerate(sorted(DRIVER.iterdir()))}
    except OSError:
        return {}


def too_few(wanted: int, there: int) -> str:
    """Why a replica that wants so many cannot run on this machine, and the way out."""
    has = "no GPU that nvidia-smi knows" if there == 0 else f"{there} GPU{'' if there == 1 else 's'}"
    remedy = "make it smaller" if there else "remove compute.gpu"
    return f"compute.gpu is {wanted}, and this machine has {has}; {remedy}, or deploy where there are as many"


class Gpus:
    """What the replicas of one version get of this machine's. ``run_dir`` is shared by all workers of the environment."""

    def __init__(self, run_dir: Path, api: str, version: int, each: int) -> None:
        self._run_dir, self._api, self._version, self.each = run_dir, api, version, each
        self._there: list[str] = []

    def take(self) -> tuple[dict[str, str], list[int]]:
        """The variables of one more replica, and the locks that it must inherit; the caller closes its own copies.

        Raises EnvironmentProblem: the machine has too few (kind ``no_gpu``), or too few are free (kind ``gpus_taken``).
        """
        if not self.each:
            return {}, []
        self._there = self._there or listed()
        if self.each > len(self._there):
            raise EnvironmentProblem(too_few(self.each, len(self._there)), kind="no_gpu")
        with self._alone():
            holders = self._holders()
            free = [gpu for gpu in self._there if gpu not in holders]
            # Those of other versions of this API come last: they are let go when this one is live.
            ours = [gpu for gpu in self._there if gpu in holders and all(self._follows(holder) for holder in holders[gpu])]
            if len(chosen := (free + ours)[: self.each]) < self.each:
                raise EnvironmentProblem(self._taken(holders, len(free + ours)), kind="gpus_taken")
            fds: list[int] = []
            try:
                for gpu in chosen:
                    fds.append(self._lock(gpu))
            except OSError:
                for fd in fds:
                    os.close(fd)
                raise
        return {"CUDA_VISIBLE_DEVICES": ",".join(chosen), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, fds

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One worker at a time looks and takes."""
        fd = os.open(self._run_dir / "gpus.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _holders(self) -> dict[str, list[tuple[str, int]]]:
        """GPU -> (API, version) of the replicas that have it; files that nobody holds are removed."""
        found: dict[str, list[tuple[str, int]]] = {}
        for path in self._run_dir.glob("gpu-*.held"):
            fd = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            except BlockingIOError:
                gpu, api, version = path.read_text().split()
                found.setdefault(gpu, []).append((api, int(version)))
            finally:
                os.close(fd)
        return found

    def _follows(self, holder: tuple[str, int]) -> bool:
        return holder[0] == self._api and holder[1] != self._version

    def _taken(self, holders: dict[str, list[tuple[str, int]]], free: int) -> str:
        who = sorted({api for rows in holders.values() for api, _ in rows})
        return (
            f"compute.gpu is {self.each}, and of this machine's {len(self._there)} GPUs {free} are free: {', '.join(who)} "
            f"{'has' if len(who) == 1 else 'have'} the others; stop one of them, or let this one have fewer replicas"
        )

    def _lock(self, gpu: str) -> int:
        path = self._run_dir / f"gpu-{gpu}-{self._api}-{self._version}.held"
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(fd, f"{gpu} {self._api} {self._version}".encode(), 0)
        except OSError:
            os.close(fd)
            raise
        return fd
