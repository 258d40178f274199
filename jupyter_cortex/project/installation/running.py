"""One command of an installation, followed line by line, within its time."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from ...core.errors import InstallationFailed
from ...handler import masking

#: Of what a command says, the last lines go into its error; a longer line is cut.
LAST_LINES, LINE_CHARACTERS = 20, 2000
#: Seconds that a command gets to end by itself when it is told to.
GRACE_S = 3.0
#: A line is cut here, and of what is still there when a command has ended, so much is read: something that it left behind may print for ever.
LONGEST_LINE, LAST_BYTES = 1 << 16, 1 << 20
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")


class Abandoned(Exception):
    """Nobody waits for it any more."""


@dataclass
class Means:
    """``env``: its variables. ``tell``: gets each line. ``deadline`` (monotonic) and ``seconds``, the setting that it came from: for all commands
    of one installation. ``held``: a descriptor that lives as long as any of its processes (the lock): what a killed parent leaves is waited for."""

    env: Mapping[str, str]
    tell: Callable[[str], None]
    deadline: float
    seconds: float
    abandon: Event = field(default_factory=Event)
    held: int = -1


def activated(env: Mapping[str, str], prefix: Path) -> dict[str, str]:
    """Variables with which programs of this Python come first."""
    return {**env, "PATH": f"{prefix / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}", "VIRTUAL_ENV": str(prefix)}


def shown(line: str) -> str:
    """A line without passwords of addresses, values of .env, colours and overlong ends."""
    return masking.masked(_USERINFO.sub(masking.STARS, _CONTROL.sub("", line.rpartition("\r")[2] or line)))[:LINE_CHARACTERS]


def run(argv: Sequence[str], what: str, cwd: Path, means: Means) -> None:
    """Raises InstallationFailed with the command's last lines as ``logs`` when it fails, does not end in time or cannot be started; Abandoned."""
    means.tell(shown(f"$ {' '.join(argv)}"))
    try:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(means.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(means.held,) if means.held >= 0 else (),
        )
    except OSError as error:
        raise InstallationFailed(f"{what} cannot be run: {argv[0]}: {error.strerror}") from None
    last: deque[str] = deque(maxlen=LAST_LINES)
    try:
        ended = _follow(process, last, means)
    finally:
        _end(process)
    if means.abandon.is_set():
        raise Abandoned
    logs = list(last)
    if not ended:
        remedy = "JUPYTER_CORTEX_INSTALL_TIMEOUT gives it more"
        raise InstallationFailed(f"{what} did not end within {means.seconds:.0f} s and was stopped; {remedy}", logs=logs)
    if process.returncode:
        code = process.returncode
        how = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"
        said = next((line for line in reversed(logs) if re.match(r"error|fatal", line, re.IGNORECASE)), logs[-1] if logs else "it said nothing")
        raise InstallationFailed(f"{what} failed ({how}): {said}", logs=logs)


def _follow(process: subprocess.Popen[bytes], last: deque[str], means: Means) -> bool:
    """Until it has ended; whether it did so in time. What it leaves behind may hold its output open for as long as it likes."""
    assert process.stdout is not None
    rest, after = b"", 0
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            waiting.select(0.0 if ended else 0.1)
            # A little at a time: what prints faster than it is read would never come to the end of it, nor to its deadline.
            try:
                data = os.read(process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                data = b""
            else:
                if not data and not ended:  # it has closed its output, and goes on
                    time.sleep(0.1)
            *whole, rest = (rest + data).split(b"\n")
            if len(rest) > LONGEST_LINE:
                whole, rest = [*whole, rest], b""
            for raw in whole:
                _tell(raw, last, means)
            after += len(data) if ended else 0
            if ended and (not data or after > LAST_BYTES):
                _tell(rest, last, means)
                return True
            if means.abandon.is_set() or time.monotonic() > means.deadline:
                return False


def _tell(raw: bytes, last: deque[str], means: Means) -> None:
    if line := shown(raw.decode("utf-8", "replace")).rstrip():
        last.append(line)
        means.tell(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """It, and what it started."""
    for wish, seconds in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 60.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody there; macOS has the second for processes that have ended
            os.killpg(process.pid, wish)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            if wish is signal.SIGTERM:
                continue
    if process.stdout:
        process.stdout.close()
