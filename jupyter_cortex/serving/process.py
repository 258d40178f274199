"""A replica as its supervisor sees it: the process, its pipes, its board, its log lines."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..handler.masking import masked
from .board import Board


class Phase(StrEnum):
    STARTING = "starting"  #: importing and constructing
    READY = "ready"  #: constructed; waits for the deployment to become live
    SERVING = "serving"
    DRAINING = "draining"  #: takes no more; finishes what it runs
    GONE = "gone"


class Pipe:
    """The reading end of a pipe, cut into lines."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_blocking(fd, False)
        self._rest = b""

    def fileno(self) -> int:
        return self.fd

    def lines(self, *, last: bool = False) -> list[str] | None:
        """What has arrived, as whole lines (with ``last``, an unfinished one, too); None at the end of the stream."""
        end = False
        chunks = [self._rest]
        size = 0
        # A chatty replica must not keep the supervisor from its other duties.
        while size < 1 << 20:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                break
            if not data:
                end = True
                break
            chunks.append(data)
            size += len(data)
        *whole, self._rest = b"".join(chunks).split(b"\n")
        if last and self._rest:
            whole.append(self._rest)
            self._rest = b""
        lines = [line.decode("utf-8", "replace") for line in whole]
        return None if end and not lines else lines

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ReplicaProcess:
    """Starts one replica and keeps what is known of it. ``on_line`` gets each finished log line (JSON text)."""

    def __init__(
        self, argv: list[str], env: dict[str, str], cwd: Path, run_dir: Path, config: dict[str, Any], on_line: Callable[[str], None]
    ) -> None:
        self.id = f"{config['api']}-v{config['version']}-{secrets.token_hex(4)}"
        self.phase = Phase.STARTING
        self.started = time.monotonic()
        self.asked_to_go = False
        self.drain_since: float | None = None
        self.drained = False
        self.failure: dict[str, Any] | None = None
        self.tail: deque[str] = deque(maxlen=100)
        self._labels = config["labels"]
        self._on_line = on_line
        self.board = Board(run_dir / f"{self.id}.board")
        fds: list[int] = []
        try:
            for _ in range(4):
                fds += os.pipe()
            control_r, self._control, status_r, status_w, records_r, records_w, out_r, out_w = fds
            self.process = subprocess.Popen(
                [*argv, *map(str, (control_r, status_w, records_w, os.getpid()))],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out_w,
                stderr=out_w,
                pass_fds=(control_r, status_w, records_w),
                start_new_session=True,
            )
        except OSError:
            for fd in fds:
                os.close(fd)
            self.board.remove()
            raise
        for fd in (control_r, status_w, records_w, out_w):
            os.close(fd)
        self.out, self.records, self.status = Pipe(out_r), Pipe(records_r), Pipe(status_r)
        self.tell(json.dumps({**config, "replica": self.id, "board": str(self.board.path)}))

    def tell(self, word: str) -> None:
        try:
            os.write(self._control, (word + "\n").encode())
        except OSError:
            pass  # it is dying; its exit will be noticed

    def go(self) -> None:
        self.asked_to_go = True
        if self.phase is Phase.READY:
            self.phase = Phase.SERVING
            self.tell("go")

    def drain(self) -> None:
        if self.drain_since is None:
            self.drain_since = time.monotonic()
            self.phase = Phase.DRAINING
            self.tell("drain")

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)

    def read_records(self) -> bool:
        """Pass on the log records it wrote; False at the end of the stream. A record that its death cut short is dropped."""
        lines = self.records.lines()
        for line in lines or ():
            if line:
                self._pass_on(f'{line[:-1]}, "replica": "{self.id}"}}')
        return lines is not None

    def read_output(self, *, last: bool = False) -> bool:
        """Pass on what came past its logger (native code, child processes, a crash's stack), each line as a record; False at the end."""
        lines = self.out.lines(last=last)
        for line in lines or ():
            if line:
                now = datetime.now().strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
                about = {"process": self.process.pid, "labels": self._labels, "replica": self.id}
                self._pass_on(json.dumps({"asctime": now, "levelname": "INFO", "message": masked(line), **about}))
        return lines is not None

    def _pass_on(self, line: str) -> None:
        self.tail.append(line)
        self._on_line(line)

    def end_group(self) -> None:
        """The replica has ended: end what its handlers started and left behind."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # nobody; macOS says the second of a group of zombies
            pass

    def why(self, out_of_memory: bool | None = None) -> str:
        """How it ended, in words. ``out_of_memory``: whether the kernel has just killed something for want of memory, None when it does not say."""
        code = self.process.returncode
        if code is None:
            return "still running"
        if code >= 0:
            return f"exit status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:  # real-time signals have numbers only
            name = f"signal {-code}"
        if name != "SIGKILL" or out_of_memory is False:
            return f"killed by {name}"
        return f"killed by {name}: out of memory" if out_of_memory else f"killed by {name}; perhaps the machine ran out of memory"

    def close(self) -> None:
        self.phase = Phase.GONE
        self.out.close()
        self.records.close()
        self.status.close()
        if self._control >= 0:
            os.close(self._control)
            self._control = -1
