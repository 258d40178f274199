"""Names for chaining: inside a handler ``http://api-<name>:8888/`` reaches the API ``<name>``.

Name resolution is changed inside this process only (``socket.getaddrinfo``), so no root is needed. That serves requests, urllib, httpx and
aiohttp; it does
not serve what asks the system's resolver itself: uvloop, aiodns, gRPC, child processes.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

#: The host names that mean an API of this environment (names as in the spec: at most 42 characters).
NAME = re.compile(r"api-[a-z](?:[-a-z0-9]*[a-z0-9])?", re.IGNORECASE)
PORT = 8888

_system_getaddrinfo = socket.getaddrinfo
#: Where the names lead, asked at each look-up: in a notebook the environment may start after the kernel.
Target = Callable[[], tuple[str, int] | None]
_target: Target | None = None


def install(address: str, port: int = PORT) -> None:
    """Resolve ``api-<name>`` to ``address``; may be called again with another one.

    Where the door is not on port 8888, the port 8888 is exchanged as well: requests, urllib and httpx's synchronous client follow that,
    asynchronous clients connect to the port they were given and do not.
    """
    install_lookup(lambda: (address, port))


def install_lookup(target: Target | None) -> None:
    """As :func:`install`, with (address, port) asked at each look-up; where that gives None the name is unknown here."""
    global _target
    _target = target
    if socket.getaddrinfo is not _getaddrinfo:
        socket.getaddrinfo = _getaddrinfo


def target() -> tuple[str, int] | None:
    """Where the names lead now: for a kernel of this process's own."""
    return None if _target is None else _target()


def _getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if _target is not None and isinstance(name, str) and NAME.fullmatch(name.rstrip(".")) and (target := _target()) is not None:
        address, door = target
        if port in (PORT, str(PORT), None):
            port = door
        return _system_getaddrinfo(address, port, family if family != socket.AF_INET6 else 0, type, proto, flags)
    return _system_getaddrinfo(host, port, family, type, proto, flags)
