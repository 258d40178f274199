"""A replica as its supervisor sees it: the process, its pipes, its board, its log lines."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..handler.log_rate import LogRate
from ..handler.masking import masked
from .board import Board

#: A line of what came past the logger is cut there; of it, so many characters are kept.
LINE_BYTES, SHOWN = 1 << 20, 100_000
#: What the pipe to a replica holds: Linux allows every user so much.
CONTROL_BYTES = 1 << 20
#: Of the last that came past the logger before its replica ended, so many lines are kept, and so many bytes of what the rate would have left out.
LAST_LINES, LAST_BYTES = 100, 16 * 1024


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
        self.skipped, self.skipped_last = 0, b""

    def fileno(self) -> int:
        return self.fd

    def lines(self, *, last: bool = False, most: int = -1) -> list[str] | None:
        """What has arrived, as whole lines (with ``last``, an unfinished one, too); None at the end of the stream.

        ``most``: how many; what is more is thrown away and counted in ``skipped``, and a line that does not end within 1 MB is cut there.
        """
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
        *whole, self._rest = b"".join(chunks).split(b"\n", most)
        if most >= 0 and (more := self._rest.count(b"\n")):
            self.skipped += more
            end_of_lines = self._rest.rfind(b"\n") + 1
            self.skipped_last = self._rest[max(0, end_of_lines - LAST_BYTES) : end_of_lines]
            self._rest = self._rest[end_of_lines:]
        elif whole:
            self.skipped_last = b""
        if self._rest and (last or (most >= 0 and len(self._rest) > LINE_BYTES)):
            whole.append(self._rest)
            self._rest = b""
        lines = [line.decode("utf-8", "replace") for line in whole]
        return None if end and not lines else lines

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def is_of(line: str, request_id: str) -> bool:
    """Whether a log line is this request's: its logger says so."""
    return f'"request_id": "{request_id}"' in line


class ReplicaProcess:
    """Starts one replica and keeps what is known of it. ``on_line`` gets each finished log line (JSON text); ``inherits``: locks that it holds."""

    def __init__(
        self,
        argv: list[str],
        env: dict[str, str],
        cwd: Path,
        run_dir: Path,
        config: dict[str, Any],
        on_line: Callable[[str], None],
        inherits: Sequence[int] = (),
    ) -> None:
        self.id = f"{config['api']}-v{config['version']}-{secrets.token_hex(4)}"
        self.phase = Phase.STARTING
        self.started = time.monotonic()
        self.asked_to_go = False
        self.drain_since: float | None = None
        self.drained = False
        #: Whether it was ended from here.
        self.killed = False
        self.serving_since = 0.0
        #: Why it is being replaced; "" as long as it is not. That is no fault of what it runs beside, which is given back uncharged.
        self.replaced = ""
        #: What was cancelled and does not end in it.
        self.stuck: list[str] = []
        self.failure: dict[str, Any] | None = None
        self.tail: deque[str] = deque(maxlen=100)
        self._labels = config["labels"]
        self._mem = config["spec"]["compute"].get("mem")
        self._max_deliveries = config["spec"]["max_deliveries"]
        self._rate = LogRate(config["limits"]["log_rate"])
        #: What the spec redacts is known to the replica's logger; what comes past it once payloads are there could show anything.
        self._closed_mouth = bool(config["spec"]["retain"]["redact"])
        self._withheld = 0
        self._on_line = on_line
        self.board = Board(run_dir / f"{self.id}.board")
        fds: list[int] = []
        try:
            for _ in range(4):
                fds += os.pipe()
            control_r, self._control, status_r, status_w, records_r, records_w, out_r, out_w = fds
            with contextlib.suppress(OSError, AttributeError):  # Linux; a user's pipes may be used up
                # It reads its config when it has imported, and until then a larger one than 64 kB would keep the supervisor from its beats.
                fcntl.fcntl(self._control, fcntl.F_SETPIPE_SZ, CONTROL_BYTES)
            self.process = subprocess.Popen(
                [*argv, *map(str, (control_r, status_w, records_w, os.getpid()))],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out_w,
                stderr=out_w,
                pass_fds=(control_r, status_w, records_w, *inherits),
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
            self.phase, self.serving_since = Phase.SERVING, time.monotonic()
            self.tell("go")

    def drain(self) -> None:
        if self.drain_since is None:
            self.drain_since = time.monotonic()
            self.phase = Phase.DRAINING
            self.tell("drain")

    def replace(self, why: str) -> None:
        """Something in it does not end: end it, so that another one takes its place."""
        self.replaced = self.replaced or why
        self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.killed = True
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
        if last:
            self._read_last_words()
            return False
        lines = self.out.lines(most=self._rate.free())
        for line in lines or ():
            if line and not self._withholds() and self._rate.take():
                self._rate.charge(len(line))
                text = masked(line)
                self._say("INFO", text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)")
        self._rate.dropped += self.out.skipped
        self.out.skipped = 0
        return lines is not None

    def _read_last_words(self) -> None:
        """They say why it ended, so they are kept, whatever came before them."""
        before = self.out.skipped_last.decode("utf-8", "replace").splitlines()
        lines = self.out.lines(last=True) or []
        kept = [line for line in (*before, *lines) if line and not self._withholds()][-LAST_LINES:]
        self._rate.dropped += max(0, len(lines) - len(kept))
        for line in kept:
            self._say("INFO", masked(line)[:SHOWN])

    def tell_dropped(self) -> None:
        """Say how many of these lines were left out since the last time; what goes through its logger it counts itself."""
        if note := self._rate.note():
            self._say("WARNING", note)
        if self._withheld:
            said = (
                f"{self._withheld} lines that came past the logger are left out, since the spec has `retain.redact`; print and the logger are heard"
            )
            self._withheld = 0
            self._say("WARNING", said)

    def _withholds(self) -> bool:
        """Whether a line that came past the logger must not be passed on; counts it."""
        if not (self._closed_mouth and self.asked_to_go):
            return False
        self._withheld += 1
        return True

    def tell_end(self, why: str, ran: Collection[str]) -> None:
        """Say in the log that it ended unasked: with each request that was inside its handler then, since the handler itself could not."""
        most = self._max_deliveries
        deliveries = f"a request is delivered at most {most} times" if most > 1 else "a request is delivered once"
        for request_id in ran:
            self._on_line(self._record("ERROR", f"the replica ended while it ran this request: {why} ({deliveries})", request_id=request_id))
        if not ran:
            self._on_line(self._record("ERROR", f"the replica ended: {why}"))

    def _say(self, level: str, message: str) -> None:
        self._pass_on(self._record(level, message))

    def _record(self, level: str, message: str, **more: str) -> str:
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
        about = {"process": self.process.pid, **more, "labels": self._labels, "replica": self.id}
        return json.dumps({"asctime": now, "levelname": level, "message": message, **about})

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
        if self._mem and name == "SIGABRT":
            return f"killed by {name}; perhaps it needs more than the {self._mem} of compute.mem"  # how C++ ends that finds no memory
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
