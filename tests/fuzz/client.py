"""A raw HTTP client: it sends bytes as they are, many before the first answer, and reads what comes back without believing it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})[ \r]")
_ACCEPTED = re.compile(rb'\{"id": "([A-Za-z0-9._-]{1,128})"\}')


@dataclass
class Answer:
    status: int
    head: bytes
    body: bytes

    @property
    def accepted(self) -> str | None:
        """The id of an accepted payload."""
        found = _ACCEPTED.fullmatch(self.body) if self.status == 200 else None
        return found[1].decode() if found else None

    @property
    def wrong(self) -> bool:
        """A mistake of the gateway's: a 5xx, but for a 503 that says when to come again."""
        return self.status >= 500 and not (self.status == 503 and b"retry-after" in self.head.lower())

    @property
    def cut_short(self) -> bool:
        """uvicorn's own answer to what is no HTTP. It waits for no answer before it."""
        return b"text/plain" in self.head and self.status == 400


@dataclass
class Connection:
    """One connection; ``rest`` is what was read beyond the last answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    rest: bytes = field(default=b"")

    @classmethod
    async def open(cls, url: str) -> Connection:
        at = urlsplit(url)
        return cls(*await asyncio.open_connection(at.hostname, at.port))

    async def answer(self) -> Answer | None:
        """The next answer, None at the end of the connection. Raises TimeoutError after a long silence, AssertionError for what is no answer."""
        while (end := self.rest.find(b"\r\n\r\n")) < 0:
            if not await self._more():
                assert not self.rest, f"no answer: {self.rest[:200]!r}"
                return None
        head, self.rest = self.rest[:end], self.rest[end + 4 :]
        status = _STATUS.match(head)
        assert status, f"no answer: {head[:200]!r}"
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        needed = 0 if status[1] in (b"100", b"204", b"304") else int(length[1]) if length else 1 << 30
        while len(self.rest) < needed and not self.rest.startswith(b"HTTP/1.1 "):
            if not await self._more():
                break
        if self.rest.startswith(b"HTTP/1.1 "):
            needed = 0  # it answers HEAD: a length without a body
        body, self.rest = self.rest[:needed], self.rest[needed:]
        return await self.answer() if status[1] == b"100" else Answer(int(status[1]), head, body)

    async def _more(self) -> bool:
        async with asyncio.timeout(30):
            try:
                data = await self.reader.read(1 << 16)
            except ConnectionError:
                return False
        self.rest += data
        return bool(data)

    def close(self) -> None:
        self.writer.close()
