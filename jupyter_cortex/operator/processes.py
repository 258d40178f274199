"""Processes that outlive whoever started them.

Each holds an exclusive lock on ``run/<role>.lock`` for its life (it inherits the locked descriptor, so that even a foreign program such as the
store does);
the file says its process id. A lock cannot lie as a bare id could: ids are used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

#: Somebody who only looks has the lock for some microseconds: who wants to move in tries so often, 1 ms apart.
LOOKS = 10
#: Behind the id of who starts the process that is to live here; and how often, 1 ms apart, its own id is waited for.
STARTING, STARTS = b"+", 1000


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class Slot:
    """The place of one process: at most one lives in it."""

    def __init__(self, run_dir: Path, role: str) -> None:
        self.role = role
        self.path = run_dir / f"{role}.lock"

    def pid(self) -> int | None:
        """The process id of the one that lives here, None when it is empty."""
        try:
            fd = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return None
        text = b""
        try:
            # Between taking the lock and writing the id there are microseconds, and until it is that of who is to live here a program starts.
            for _ in range(STARTS):
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # two who look at once do not take each other for one who lives here
                    return None
                if (text := os.pread(fd, 32, 0).strip()) and not text.endswith(STARTING):
                    return int(text)
                if text and not _lives(int(text.removesuffix(STARTING))):
                    # Killed just then: nobody will write the other's id any more.
                    if holder := self._holder():
                        self._write(fd, holder)
                    return holder or int(text.removesuffix(STARTING))
                time.sleep(0.001)
            return int(text.removesuffix(STARTING)) if text else None
        finally:
            os.close(fd)

    def _settled(self, pid: int) -> bool:
        """Whether the file says that this one lives here, rather than that it starts who is to."""
        try:
            return self.path.read_bytes().strip() == str(pid).encode()
        except FileNotFoundError:
            return False

    def _holder(self) -> int | None:
        """The oldest process that has the lock's file open, as Linux shows it."""
        found = []
        for process in psutil.process_iter(["pid", "create_time"]):
            with contextlib.suppress(OSError):
                fds = Path(f"/proc/{process.pid}/fd")
                if process.pid != os.getpid() and any(os.readlink(fd) == str(self.path) for fd in fds.iterdir()):
                    found.append((process.info["create_time"], process.pid))
        return min(found)[1] if found else None

    def take(self) -> int | None:
        """Lock the slot for this process; the descriptor, or None when it is taken."""
        return self._take("")

    def _take(self, mark: str) -> int | None:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        for attempt in range(LOOKS):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == LOOKS - 1:
                    os.close(fd)
                    return None
                time.sleep(0.001)
        try:
            self._write(fd, os.getpid(), mark)
        except OSError:
            os.close(fd)  # or this process would hold the lock as long as it lives
            raise
        return fd

    @staticmethod
    def _write(fd: int, pid: int, mark: str = "") -> None:
        # Over the old id, all of it at once: on a full disk a file that was emptied first would stay empty.
        os.pwrite(fd, f"{pid}{mark}".ljust(16).encode(), 0)

    def spawn(self, argv: Sequence[str], env: Mapping[str, str], log: Path | None, cwd: Path) -> subprocess.Popen[bytes] | None:
        """Start a detached process in this slot; None when it is taken. Without ``log`` it writes to where we do.

        Raises OSError when the program cannot be started.
        """
        # Whoever looks meanwhile must not take us for it: a signal would be for the wrong one.
        fd = self._take(STARTING.decode())
        if fd is None:
            return None
        try:
            with contextlib.ExitStack() as stack:
                out = None
                if log is not None:
                    _cap(log)
                    out = stack.enter_context(log.open("ab"))
                process = subprocess.Popen(
                    argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(fd,), start_new_session=True
                )
            self._write(fd, process.pid)
            return process
        finally:
            os.close(fd)

    def signal(self, number: signal.Signals) -> bool:
        pid = self.pid()
        if pid is None or not self._settled(pid):
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait_empty(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def _cap(log: Path, limit: int = 5_000_000) -> None:
    """Keep one old log: our processes print little, but they may live for years."""
    if log.exists() and log.stat().st_size > limit:
        log.replace(log.with_suffix(log.suffix + ".1"))


class Watch:
    """Calls back once when a process ends, whoever's child it is. Linux notices at once; elsewhere the caller's own polling does.

    ``sees``: whether it does. Not where the kernel is older than 5.3 or a container forbids the call, nor while descriptors or threads are used up.
    """

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self.sees = hasattr(os, "pidfd_open")
        self._watched: set[int] = set()
        self._lock = threading.Lock()

    def add(self, pid: int) -> None:
        with self._lock:
            if pid in self._watched or not hasattr(os, "pidfd_open"):
                return
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                self._on_end()
                return
            except OSError:
                self.sees = False
                return
            try:
                threading.Thread(target=self._wait, args=(pid, fd), name=f"cortex-watch-{pid}", daemon=True).start()
            except RuntimeError:  # no more threads
                os.close(fd)
                self.sees = False
                return
            self._watched.add(pid)
            self.sees = True

    def _wait(self, pid: int, fd: int) -> None:
        import select

        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll()
        os.close(fd)
        with self._lock:
            self._watched.discard(pid)
        self._on_end()
