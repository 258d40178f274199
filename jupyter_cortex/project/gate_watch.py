"""The gate's process as its parent sees it: started in a session of its own, followed while it runs, ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import GateFailed
from .gate_report import Masking

#: Bytes of what the process printed itself, past Python's streams, that are kept: the last ones. Of them this many lines are shown, each cut.
KEPT_OUTPUT, SHOWN_LINES, SHOWN_CHARACTERS = 256 * 1024, 15, 2000
#: Seconds that processes which the author's code left behind get to end by themselves, and those that the system gets to end them.
GRACE_S, KILL_S = 0.5, 0.1


def run(env: dict[str, str], directory: Path, progress: Callable[[str], None], program: str = sys.executable) -> Heard:
    """Run the job that is laid out in ``directory`` on the Python ``program``. Raises GateFailed when it cannot be started."""
    check = _start(env, directory, program)
    try:
        heard = _watch(check, progress)
    finally:
        _end(check)
    heard.code = check.process.returncode
    return heard


@dataclass
class _Check:
    """``events``: the process tells its steps there. ``alive``: held open for as long as anyone waits."""

    process: subprocess.Popen[bytes]
    events: int
    alive: int


@dataclass
class Heard:
    """``last``: the last event, with the step it was in. ``output``: the end of what was printed past Python's
    streams. ``code``: how it exited, of use where it did not say that it has ended."""

    last: dict[str, Any] = field(default_factory=dict)
    output: bytearray = field(default_factory=bytearray)
    cut: bool = False
    code: int = 0
    _partial: bytes = b""

    def tell(self, data: bytes, progress: Callable[[str], None]) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")  # what a kill cut off is no event
        for line in lines:
            self.last = {**self.last, **json.loads(line)}
            if "ended" not in self.last and self.last.get("name"):
                progress(f"checking: {self.last['name']}")

    def printed(self, data: bytes) -> None:
        self.output += data
        if len(self.output) > 2 * KEPT_OUTPUT:
            del self.output[:-KEPT_OUTPUT]
            self.cut = True

    def lines(self, masks: Masking) -> list[str]:
        text = self.output.decode("utf-8", "replace")
        if self.cut:
            text = text.partition("\n")[2]  # the first line has lost its beginning, and half a value cannot be masked
        return [line[:SHOWN_CHARACTERS] for line in masks.text(text).strip().splitlines()[-SHOWN_LINES:]]


def _start(env: dict[str, str], directory: Path, program: str) -> _Check:
    events, told = os.pipe()
    held, alive = os.pipe()
    try:
        process = subprocess.Popen(
            [program, "-P", "-m", "jupyter_cortex.project.gate_process", str(directory), str(told), str(held)],
            env=env,
            cwd=directory / "project",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(told, held),
            start_new_session=True,  # an interrupt in the terminal or the kernel is ours to answer
        )
    except BaseException as error:
        os.close(events)
        os.close(alive)
        if isinstance(error, OSError):
            raise GateFailed(f"the process of the checks cannot be started: {error.strerror}", step="the start") from None
        raise
    finally:
        os.close(told)
        os.close(held)
    return _Check(process, events, alive)


def _watch(check: _Check, progress: Callable[[str], None]) -> Heard:
    """Follow the process until it says that it has ended, or is gone. What it started may hold its pipes open for as long as it likes."""
    heard = Heard()
    assert check.process.stdout is not None
    readers: dict[int, Callable[[bytes], None]] = {
        check.events: lambda data: heard.tell(data, progress),
        check.process.stdout.fileno(): heard.printed,
    }
    with selectors.DefaultSelector() as waiting:
        for descriptor in readers:
            os.set_blocking(descriptor, False)
            waiting.register(descriptor, selectors.EVENT_READ)
        while "ended" not in heard.last and check.process.poll() is None:
            for key, _ in waiting.select(0.1):
                if data := os.read(key.fd, 1 << 16):
                    readers[key.fd](data)
                else:
                    waiting.unregister(key.fd)
    for descriptor, read in readers.items():
        for _ in range(64):  # what was written last; a process that is left may go on writing
            with contextlib.suppress(BlockingIOError):
                if data := os.read(descriptor, 1 << 16):
                    read(data)
                    continue
            break
    return heard


def _end(check: _Check) -> None:
    """End the whole session, asked first and made to after :data:`GRACE_S`: a helper that cleans up shared memory behind others can do so."""
    try:
        _signal(check, signal.SIGTERM, GRACE_S)
    finally:  # also when somebody is in a hurry and interrupts once more
        _signal(check, signal.SIGKILL, KILL_S)
        check.process.wait()
        os.close(check.events)
        os.close(check.alive)
        if check.process.stdout:
            check.process.stdout.close()


def _signal(check: _Check, wish: signal.Signals, seconds: float) -> None:
    """Returns when nobody is left in the session, or after ``seconds``: where nothing reaps orphans, they stay listed for ever."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody there; macOS has the second for processes that have ended
        os.killpg(check.process.pid, wish)
        while time.monotonic() < deadline:
            check.process.poll()
            os.killpg(check.process.pid, 0)
            time.sleep(0.005)
