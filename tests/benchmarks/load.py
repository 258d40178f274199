"""Load: wrk where it is installed, else our own generator; and the keep-alive connection that both the generator and others use."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from urllib.parse import urlsplit

#: Callers at once. Each waits for its batch's commit, so few of them do not fill a gateway: in turns, three runs each, POST came to 0.40–0.56x of the
#: floor with 32 callers, 0.57–0.68x with 128 and 0.60–0.75x with 256.
CONNECTIONS = 128
JSON = "application/json"


def generator() -> str:
    return "wrk" if shutil.which("wrk") else "own generator"


def rate(url: str, seconds: int, body: str | None = None) -> float:
    """Answers per second of GET, or POST with a body, over 128 connections. Raises RuntimeError when any request fails."""
    if shutil.which("wrk"):
        return _wrk(url, seconds, body)
    return asyncio.run(_own(url, seconds, body))


def _wrk(url: str, seconds: int, body: str | None) -> float:
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if body is not None:
            script.write(f"wrk.method = 'POST'\nwrk.body = '{body}'\nwrk.headers['Content-Type'] = '{JSON}'\n")
            script.flush()
            argv += ["-s", script.name]
        said = subprocess.run([*argv, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"requests to {url} failed:\n{said}")
    found = re.search(r"Requests/sec:\s*([\d.]+)", said)
    assert found is not None, said
    return float(found.group(1))


async def _own(url: str, seconds: int, body: str | None) -> float:
    parts = urlsplit(url)
    answered = 0
    deadline = time.monotonic() + seconds

    async def one() -> None:
        nonlocal answered
        async with Connection(parts.hostname or "", parts.port or 80) as connection:
            while time.monotonic() < deadline:
                status, _ = await connection.request("GET" if body is None else "POST", parts.path, body)
                if status != 200:
                    raise RuntimeError(f"{url} answered {status}")
                answered += 1

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return answered / (time.monotonic() - began)


class Connection:
    """One HTTP/1.1 connection that is kept. Raises OSError or EOFError when the server drops it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def request(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
        if body is not None:
            head += f"Content-Type: {JSON}\r\nContent-Length: {len(body.encode())}\r\n"
        self._writer.write(f"{head}\r\n{body or ''}".encode())
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = answer.partition(b"content-length:")[2].partition(b"\r\n")[0]
        return int(answer[9:12]), await self._reader.readexactly(int(length))
