"""The kernels of one notebook handler: one for each thread that is warm before a request comes, each used for one run.

Everything here runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient

from jupyter_cortex.core.errors import HandlerError

from .kernel import KEY

#: Seconds that a kernel has to start in, and between two attempts while kernels do not live.
START_S, AGAIN_S = 60.0, 1.0


class KernelClient(AsyncKernelClient):
    """Says with each cell which one it is."""

    about: dict[str, Any] = {}  # noqa: RUF012 (a new one is put in its place)

    def execute(self, code: str, silent: bool = False, store_history: bool = True, stop_on_error: bool = True, **_: Any) -> str:  # type: ignore[override]
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": stop_on_error,
        }
        message = self.session.msg("execute_request", content, metadata={KEY: self.about})
        self.shell_channel.send(message)
        return str(message["header"]["msg_id"])


class Kernel:
    """One kernel: its process, which leads a session, and the client that is connected to it."""

    def __init__(self, file: Path) -> None:
        self.file, self.pid, self.alive = file, 0, True
        self.code: int | None = None
        self.ready = asyncio.Event()  #: also when it has ended instead
        self.client: KernelClient = KernelClient()

    def signal(self, number: signal.Signals) -> None:
        """To it and to what its cells have started."""
        if self.alive and self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def why(self) -> str:
        if self.code is None or self.code >= 0:
            return "it exited" if not self.code else f"exit status {self.code}"
        name = signal.Signals(-self.code).name if -self.code in set(signal.Signals) else f"signal {-self.code}"
        return f"killed by {name}" + ("; perhaps the machine ran out of memory" if name == "SIGKILL" else "")

    async def connect(self) -> None:
        """Returns when what it says is heard."""
        info = json.loads(self.file.read_text())
        self.client.load_connection_info(info)
        self.client.allow_stdin = False
        self.client.start_channels(shell=True, iopub=True, stdin=False, hb=False, control=False)
        while self.alive:
            asked = self.client.kernel_info()
            with contextlib.suppress(Exception):  # queue.Empty, TimeoutError: once more
                async with asyncio.timeout(1.0):
                    while (await self.client.get_iopub_msg())["parent_header"].get("msg_id") != asked:
                        pass
                    while (await self.client.get_shell_msg())["parent_header"].get("msg_id") != asked:
                        pass
                    return

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        with contextlib.suppress(Exception):
            self.client.stop_channels()
        for path in self.file.parent.glob(f"{self.file.stem}*"):
            path.unlink(missing_ok=True)


class Kernels:
    """``size``: how many are kept warm; as many more may be at work."""

    def __init__(self, facts: dict[str, Any], size: int) -> None:
        self._facts, self._size = facts, size
        # In /tmp and short: a unix socket's path has 104 characters at most.
        self._directory = Path(tempfile.mkdtemp(prefix="cx-"))
        self._warm: list[Kernel] = []
        self._all: dict[str, Kernel] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._commands = self._events = -1
        self._rest = b""
        self._closed = self._serving = False
        self._trouble = ""

    # The nursery -------------------------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        commands, self._commands = os.pipe()
        self._events, events = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "jupyter_cortex.handler.notebook.nursery", str(commands), str(events)],
                env={**os.environ, "IPYTHONDIR": str(self._directory / "ipython")},  # nobody's start-up files
                cwd=self._facts["project_dir"],
                stdin=subprocess.DEVNULL,
                pass_fds=(commands, events),
                start_new_session=True,
            )
        finally:
            os.close(commands)
            os.close(events)
        os.set_blocking(self._events, False)
        asyncio.get_running_loop().add_reader(self._events, self._hear)
        self._say({**self._facts, "directory": str(self._directory)})

    def _say(self, word: Any) -> None:
        with contextlib.suppress(OSError):  # it is dying; the events' end says so
            os.write(self._commands, (json.dumps(word) + "\n").encode())

    def _hear(self) -> None:
        try:
            data = os.read(self._events, 65536)
        except BlockingIOError:
            return
        if not data:
            self._nursery_ended()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for event in map(json.loads, lines):
            if "ended" in event:
                if (kernel := next((one for one in self._all.values() if one.pid == event["ended"]), None)) is not None:
                    self._ended(kernel, event["code"])
            elif (kernel := self._all.get(event.get("made") or event["ready"])) is not None:
                kernel.pid = event["pid"]
                if "ready" in event:
                    kernel.ready.set()

    def _ended(self, kernel: Kernel, code: int | None) -> None:
        kernel.alive, kernel.code = False, code
        kernel.ready.set()
        self._all.pop(str(kernel.file), None)
        if kernel in self._warm:
            self._warm.remove(kernel)
            kernel.close()
            self._later(self._start(AGAIN_S))

    def _nursery_ended(self) -> None:
        self._close_nursery()
        for kernel in list(self._all.values()):
            kernel.signal(signal.SIGKILL)
            self._ended(kernel, -signal.SIGKILL)

    def _close_nursery(self) -> None:
        if self._process is not None:
            asyncio.get_running_loop().remove_reader(self._events)
            os.close(self._commands)
            os.close(self._events)
            self._process.poll()
            self._process = None

    # Kernels -----------------------------------------------------------------------------------------------------------------------------

    def _later(self, work: Any) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, wait: float = 0.0) -> None:
        """Make one more warm."""
        await asyncio.sleep(wait)
        if self._process is None:
            self._open()
        kernel = Kernel(self._directory / f"k{secrets.token_hex(4)}.json")
        ports = {f"{name}_port": number for number, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)}
        info = {"transport": "ipc", "ip": str(kernel.file.with_suffix("")), "key": secrets.token_hex(16), "signature_scheme": "hmac-sha256", **ports}
        kernel.file.touch(0o600)
        kernel.file.write_text(json.dumps({**info, "kernel_name": "python3"}))
        self._all[str(kernel.file)] = kernel
        self._say(str(kernel.file))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await kernel.ready.wait()
                if kernel.alive:
                    await kernel.connect()
        if kernel.alive and not self._closed:
            self._warm.append(kernel)
        else:
            self._trouble = kernel.why()
            kernel.close()
            self._all.pop(str(kernel.file), None)
            if self._serving:
                self._later(self._start(AGAIN_S))
        self._changed.set()

    async def warm(self) -> None:
        """Returns when each thread's kernel is ready. Raises HandlerError when they do not start."""
        await asyncio.gather(*(self._start() for _ in range(self._size)))
        if len(self._warm) < self._size:
            raise HandlerError(
                f"the notebook's kernel does not start ({self._trouble or 'it did not answer'}); its log says more", stage="init", kind="kernel"
            )
        self._serving = True

    async def take(self) -> Kernel:
        """A kernel of its own for one run; its successor starts meanwhile. Raises HandlerError when none comes up."""
        self._later(self._start())
        deadline = time.monotonic() + START_S
        while not self._warm:
            self._changed.clear()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await self._changed.wait()
            except TimeoutError:
                raise HandlerError(f"no kernel has started for {START_S:.0f} s ({self._trouble})", stage="call", kind="kernel") from None
        return self._warm.pop(0)

    def give_back(self, kernel: Kernel) -> None:
        """Its run is over; what it left in memory goes with it."""
        kernel.close()

    def close(self) -> None:
        """End all of them."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        for kernel in list(self._all.values()):
            kernel.close()
        process = self._process
        self._close_nursery()
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
        shutil.rmtree(self._directory, ignore_errors=True)
