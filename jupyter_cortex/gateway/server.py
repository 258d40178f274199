"""Running the gateway: its sockets, its chaining door, and its eye on the operator."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from ..core.errors import EnvironmentProblem
from ..handler.chaining import PORT as CHAIN_PORT
from ..operator.processes import Watch
from .connections import Limits, allow_files, protocol
from .public import PublicDoor

log = logging.getLogger(__name__)
BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.set_inheritable(False)
    except OSError:
        sock.close()
        raise
    return sock


def public_socket(host: str, port: int) -> socket.socket:
    """The public door. A port that is still held by a gateway that just died is waited for; raises EnvironmentProblem when it stays taken."""
    deadline = time.monotonic() + 5.0
    while True:
        try:
            return bind(host, port)
        except OSError as error:
            if time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"cannot listen on {host}:{port}: {error.strerror}. Another program has the port; set JUPYTER_CORTEX_PORT to another one"
                ) from error
            time.sleep(0.1)


def chain_socket(address: str, public: socket.socket) -> tuple[socket.socket | None, dict[str, Any]]:
    """The chaining door: port 8888 on this environment's own loopback address; where that cannot be (macOS has only 127.0.0.1, Jupyter likes
    8888), the next best. Returns (socket or None, {"address", "port"}) as replicas need it."""
    for candidate in (address, "127.0.0.1"):
        if not candidate:
            continue
        with contextlib.suppress(OSError):
            return bind(candidate, CHAIN_PORT), {"address": candidate, "port": CHAIN_PORT}
    host, port = public.getsockname()[:2]
    log.warning("port %d is taken: chaining names reach this gateway on port %d instead, which async HTTP clients do not follow", CHAIN_PORT, port)
    return None, {"address": "127.0.0.1" if host in ("0.0.0.0", "::") else host, "port": port}


def write_chain(run_dir: Path, chain: dict[str, Any]) -> None:
    temporary = run_dir / f"chain.json.{os.getpid()}"
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(chain))
    temporary.replace(run_dir / "chain.json")


class _Server(uvicorn.Server):
    """Says when it is told to stop: its own end of the application comes only after the last answer."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)


def serve(app: PublicDoor, sockets: list[socket.socket], *, limits: Limits, access_log: bool, on_stop: Callable[[], None]) -> None:
    """Until SIGTERM, which calls ``on_stop``: finishes what is under way, for at most 5 s."""
    config = uvicorn.Config(
        app,
        loop="auto",
        http=protocol(allow_files(limits), app.express),
        ws="none",
        log_config=None,
        access_log=access_log,
        lifespan="on",
        server_header=False,
        # Who calls is who the connection comes from: no header may say otherwise, and reading those costs 3 % of a request.
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    _Server(config, on_stop).run(sockets=sockets)


def watch(look: Callable[[], int | None], seconds: float = 1.0) -> None:
    """Call ``look`` again and again from a thread: the operator watches the gateway, the gateway the operator.

    It returns the process id to watch; when that one ends (where the system tells us so), the next look comes at once.
    """
    ended = threading.Event()
    ends = Watch(ended.set)

    def run() -> None:
        while True:
            try:
                if pid := look():
                    ends.add(pid)
            except Exception:
                log.exception("the look at the operator failed")
            ended.wait(seconds)
            ended.clear()

    threading.Thread(target=run, name="cortex-watch", daemon=True).start()


class AccessFormatter(logging.Formatter):
    """One JSON line per request: uvicorn's sentence, and its parts."""

    def format(self, record: logging.LogRecord) -> str:
        client, method, path, version, status = record.args  # type: ignore[misc]
        from http import HTTPStatus

        try:
            phrase = f"{status} {HTTPStatus(int(status)).phrase}"  # type: ignore[arg-type]
        except ValueError:
            phrase = str(status)
        line = {
            "asctime": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created)) + f",{record.msecs:03.0f}",
            "levelname": record.levelname,
            "message": f'{client} - "{method} {path} HTTP/{version}" {status}',
            "process": record.process,
            "status_code": phrase,
            "method": method,
            "path": str(path).partition("?")[0],
        }
        return json.dumps(line)
