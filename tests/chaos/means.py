"""What the faults are made with: a small disk, a clock that can be set, and finding every process of an environment."""

from __future__ import annotations

import glob
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from jupyter_cortex.operator.embedded import server_binary

#: Of the tmpfs below the store; memory is only used as it fills.
DISK_BYTES = 2 << 30
LIBFAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1", "/opt/homebrew/lib/faketime/libfaketime.1.dylib")


class Disk:
    """The disk below a directory, which can be filled: a tmpfs of its own where we may mount one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.mounted = self._mount(f"size={DISK_BYTES},mode=700")

    @contextmanager
    def full(self, store_pid: int) -> Iterator[str]:
        """No byte more can be written while the block runs; yields how. Without a tmpfs, no file of the store may grow."""
        if not self.mounted:
            largest = max((path.stat().st_size for path in self.directory.rglob("*.aof")), default=0)
            resource.prlimit(store_pid, resource.RLIMIT_FSIZE, (largest + 1, largest + 1))
            yield "RLIMIT_FSIZE"
            return
        # As small as what is on it, and a few pages: the store goes on writing meanwhile.
        while not self._mount(f"remount,size={shutil.disk_usage(self.directory).used + 64 * 1024}"):
            time.sleep(0.01)
        try:
            yield "a full tmpfs"
        finally:
            self._mount(f"remount,size={DISK_BYTES}")

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.directory)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def close(self) -> None:
        # A process that died a moment ago may still hold it.
        for _ in range(50):
            if not self.mounted or subprocess.run(["umount", str(self.directory)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)


class Clock:
    """The wall clock of the store, on whose time all states, leases and expiries stand; its monotonic clock goes on as it is."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._setting = directory / "clock"
        self.library = next((path for pattern in LIBFAKETIME for path in glob.glob(pattern)), "")

    def store_program(self) -> str:
        """A program that runs the store with this clock."""
        self.step(0)
        program = self._directory / "store-with-clock"
        settings = {
            "LD_PRELOAD": self.library,
            "FAKETIME_TIMESTAMP_FILE": str(self._setting),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        said = " ".join(f"{name}='{value}'" for name, value in settings.items())
        program.write_text(f"#!/bin/sh\n{said} exec '{server_binary()}' \"$@\"\n")
        program.chmod(0o700)
        return str(program)

    def step(self, seconds: int) -> None:
        """From within a second on, the store's clock is ahead of the machine's by so much."""
        fresh = Path(tempfile.mkstemp(dir=self._directory)[1])
        fresh.write_text(f"{seconds:+}\n")
        fresh.replace(self._setting)


def processes_of(home: Path) -> list[psutil.Process]:
    """Everything that runs for this environment, and what its handlers started: by what each was started with."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        with suppress(psutil.Error):
            variables = process.environ()
            marks = (variables.get(name, "") for name in ("JUPYTER_CORTEX_HOME", "JUPYTER_CORTEX_WORKER", "CORTEX_PROJECT_DIR"))
            text = "\n".join([*marks, *(process.info["cmdline"] or [])])
            if str(home) in text and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
