"""Where kernels come from: a small process that has imported what a kernel needs, and forks one in a tenth of the time that a start takes.

Started as ``python -P -m jupyter_cortex.handler.notebook.nursery <commands fd> <events fd>``, in a session of its own. The first line of commands are
the facts (JSON); each further one is the connection file of a kernel to be made. Events are lines of JSON: ``{"made": file, "pid": …}``,
``{"ready": file, "pid": …}``, ``{"ended": pid, "code": …}``. The commands' end means that the replica is gone: then all kernels end, and what their
cells have started.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
from typing import Any, NoReturn

from ...core.parent import die_with

#: What is imported once for all kernels. None of these starts a thread, or imports a library that a notebook may want set up otherwise (NumPy).
PRELOADED = ("ipykernel.kernelapp", "ipykernel.ipkernel", "IPython.core.interactiveshell", "IPython.core.completer")


class Nursery:
    def __init__(self, commands: int, events: int) -> None:
        self._commands, self._events, self._rest = commands, events, b""
        self._kernels: set[int] = set()
        self._wakes = os.pipe()
        for fd in (commands, *self._wakes):
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
        os.set_inheritable(events, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes[1], warn_on_full_buffer=False)
        self._facts: dict[str, Any] = {}

    def run(self) -> None:
        """Until the commands end."""
        while True:
            ready = select.select([self._commands, self._wakes[0]], [], [])[0]
            if self._wakes[0] in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakes[0], 4096)
                self._reap()
            if self._commands in ready:
                data = os.read(self._commands, 65536)
                if not data:
                    break
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    if self._facts:
                        self._make(json.loads(line))
                    else:
                        self._facts = json.loads(line)
        for pid in self._kernels:
            _end_group(pid)
        if self._facts:
            shutil.rmtree(self._facts["directory"], ignore_errors=True)  # a replica that was killed leaves it

    def _tell(self, **event: Any) -> None:
        with contextlib.suppress(OSError):  # the replica is gone; the commands' end says so, too
            os.write(self._events, (json.dumps(event) + "\n").encode())

    def _make(self, file: str) -> None:
        pid = os.fork()
        if not pid:
            self._become_kernel(file)
        self._kernels.add(pid)
        self._tell(made=file, pid=pid)

    def _become_kernel(self, file: str) -> NoReturn:
        code = 1
        try:
            os.setsid()
            die_with(os.getppid())
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (self._commands, *self._wakes):
                os.close(fd)
            from . import kernel

            kernel.run(file, self._facts, lambda: self._tell_ready(file))
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _tell_ready(self, file: str) -> None:
        self._tell(ready=file, pid=os.getpid())
        os.close(self._events)  # its end says that the nursery has ended

    def _reap(self) -> None:
        while self._kernels:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._kernels.discard(pid)
            _end_group(pid)  # what its cells have started
            self._tell(ended=pid, code=os.waitstatus_to_exitcode(status))


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def main() -> None:
    import importlib

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands, events = map(int, sys.argv[1:3])
    nursery = Nursery(commands, events)
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from . import kernel  # noqa: F401

    nursery.run()


if __name__ == "__main__":
    main()
