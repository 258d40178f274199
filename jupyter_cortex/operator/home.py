"""The local environment's place on disk: where everything lies, and what was chosen once and kept.

::

    <home>/config.json     port, tokens, chaining address (0600)
    <home>/store/          the embedded store's append-only files and which server wrote them
    <home>/run/            locks with process ids, boards, the store's socket
    <home>/projects/       unpacked bundles
    <home>/artifacts/      the content of artifacts, by sha256
    <home>/pythons/        Pythons with what projects require, by digest
    <home>/logs/           what our own processes print
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..core.errors import EnvironmentProblem

#: The sun_path of a unix socket holds 108 bytes on Linux, 104 on macOS.
SOCKET_PATH_MAX = 100
#: The first port tried for the gateway, and how many after it.
FIRST_PORT, PORTS = 8780, 200
#: Seconds for which a chosen port counts as taken though no environment has noted it as its own yet.
RESERVED_S = 30.0


def _digest(redis_url: str) -> str:
    return hashlib.sha256(redis_url.encode()).hexdigest()


@dataclass
class Config:
    """What an environment keeps for life. ``token`` opens the control routes, ``internal`` marks requests of our own replicas."""

    port: int
    token: str = field(repr=False)
    internal: str = field(repr=False)
    chain_address: str = ""


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store"
        self.run = path / "run"
        self.projects = path / "projects"
        self.artifacts = path / "artifacts"
        self.pythons = path / "pythons"
        self.logs = path / "logs"

    def make(self) -> None:
        """Create the directories, private to the user. Raises EnvironmentProblem."""
        try:
            for directory in (self.path, self.store, self.run, self.projects, self.artifacts, self.logs):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot use {self.path} as the environment's home: {error.strerror}. Set JUPYTER_CORTEX_HOME to a directory of yours"
            ) from error

    @property
    def socket(self) -> Path:
        """The store's unix socket; in a short private directory when the home's path is too long for one."""
        wanted = self.run / "store.sock"
        if len(os.fsencode(wanted)) <= SOCKET_PATH_MAX:
            return wanted
        tag = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        short = Path(tempfile.gettempdir()) / f"cortex-{os.getuid()}-{tag}"
        short.mkdir(mode=0o700, exist_ok=True)
        if short.stat().st_uid != os.getuid() or short.stat().st_mode & 0o077:
            raise EnvironmentProblem(f"{short} is not private to this user; remove it or choose a shorter JUPYTER_CORTEX_HOME")
        return short / "store.sock"

    def redis_url(self) -> str:
        return f"unix://{self.socket}"

    def note_store(self, redis_url: str) -> None:
        """Keep which store the running operator uses: as a digest, since a URL may hold a password."""
        self._store_note.write_text(_digest(redis_url))

    def forget_store(self) -> None:
        self._store_note.unlink(missing_ok=True)

    def is_on(self, redis_url: str) -> bool:
        """Whether the running operator uses this store; also True where it has not said."""
        try:
            said = self._store_note.read_text()
        except FileNotFoundError:
            said = ""
        return said in ("", _digest(redis_url))

    @property
    def _store_note(self) -> Path:
        return self.run / "operator.store"

    def read_config(self) -> Config | None:
        try:
            raw = json.loads((self.path / "config.json").read_text())
            return Config(**raw)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise EnvironmentProblem(
                f"{self.path / 'config.json'} is damaged ({error}); restore it, or remove it to get a new port and token"
            ) from error

    def config(self, *, host: str = "127.0.0.1", port: int = 0) -> Config:
        """The kept choices, made now if this is the first time. ``port``: the user's wish, 0 for none."""
        config = self.read_config()
        if config is None:
            config = Config(port or free_port(host, self.path), secrets.token_urlsafe(32), secrets.token_urlsafe(32), self._chain_address())
        elif port and port != config.port:
            config.port = port
        else:
            return config
        self.write_config(config)
        return config

    def write_config(self, config: Config) -> None:
        temporary = self.path / f"config.json.{os.getpid()}"
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(asdict(config), indent=2))
        temporary.replace(self.path / "config.json")

    def _chain_address(self) -> str:
        """An address of 127.88/16 of this environment's own, so that two environments may both answer on port 8888."""
        digest = hashlib.sha256(os.fsencode(self.path.resolve())).digest()
        return f"127.88.{digest[0]}.{1 + digest[1] % 254}"


def free_port(host: str, home: Path) -> int:
    """A port to keep: below the range that systems hand out to clients, so that nobody takes it between two starts."""
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        if _reserved(port, home):
            return port
    raise EnvironmentProblem(f"no free port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} on {host}; set JUPYTER_CORTEX_PORT")


def _reserved(port: int, home: Path) -> bool:
    """Take a free port for good: two environments that start at once must not choose the same, nor one the port of one that is down."""
    marker = Path(tempfile.gettempdir()) / f"cortex-{os.getuid()}-port-{port}"
    try:
        owner = Home(Path(marker.read_text()))
        if time.time() - marker.stat().st_mtime > RESERVED_S and not _keeps(owner, port):
            marker.unlink()
    except OSError:
        pass
    try:
        fd = os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return False
    except OSError:
        return True  # no directory for temporary files: then there is nobody to agree with
    with open(fd, "w") as file:
        file.write(str(home))
    return True


def _keeps(home: Home, port: int) -> bool:
    try:
        config = home.read_config()
    except (EnvironmentProblem, OSError):
        return False
    return config is not None and config.port == port
