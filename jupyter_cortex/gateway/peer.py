"""Who is at the other end of a loopback connection."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

#: Linux lists the two ends of every TCP connection of this machine, with the user that owns each.
TABLE = Path("/proc/net/tcp")


def is_own(client: tuple[str, int] | None) -> bool:
    """Whether a process of this user made the connection that comes from ``client`` (IPv4 address and port); False where that cannot be told."""
    if client is None:
        return False
    try:
        (address,) = struct.unpack("=I", socket.inet_aton(client[0]))
        wanted = f"{address:08X}:{client[1]:04X}"
        for line in TABLE.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == wanted:
                return int(fields[7]) == os.getuid()
    except (OSError, ValueError, IndexError):
        pass
    return False
