"""The gateway's checkers: processes that parse large bodies, started when they are first needed and ended when they no longer are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from typing import Any

from ..core.errors import BodyCheckFailed, PayloadError

log = logging.getLogger(__name__)

#: At once: each takes a core, and eight times the body in memory where that is records, 25 times where it is empty lists.
MOST = 2
#: Seconds for one body: 64 MB of JSON take 2 s. And once the gateway is told to stop, less than it gives those who are under way (server.py).
CHECK_S, LAST_S = 60.0, 4.0
#: Seconds after which there may be memory again.
AGAIN_S = 5
#: Seconds after which one that has nothing to do is ended, and with it goes the memory of what it parsed.
IDLE_S = 30.0
#: A body is checked so often when its checker is killed: not every death is the body's fault.
ATTEMPTS = 2
#: Bytes of an answer: a sentence with cut-off quotes, and numbers.
ANSWER_BYTES = 64 * 1024


class _Checker:
    """One process, its socket, and the timer that ends it."""

    def __init__(self) -> None:
        """Raises OSError."""
        ours, its = socket.socketpair()
        try:
            argv = [sys.executable, "-P", "-m", "jupyter_cortex.gateway.checker", str(os.getpid())]
            # From the event loop's own thread: the kernel ends it with the thread that started it.
            self.process = subprocess.Popen(argv, stdin=its.fileno(), stdout=subprocess.DEVNULL, start_new_session=True)
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        ours.setblocking(False)
        self._socket = ours
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.retiring: asyncio.TimerHandle | None = None

    async def ask(self, body: bytes, content_type: str | None) -> dict[str, Any] | None:
        """What the body is refused with. Raises OSError or EOFError when the process is gone."""
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(sock=self._socket, limit=ANSWER_BYTES)
        reader, writer = self._streams
        writer.write(json.dumps({"size": len(body), "content_type": content_type}).encode() + b"\n")
        writer.write(body)
        await writer.drain()
        answer = await reader.readline()
        if not answer.endswith(b"\n"):
            raise EOFError
        refusal: dict[str, Any] | None = json.loads(answer)
        return refusal

    def stay(self) -> None:
        if self.retiring is not None:
            self.retiring.cancel()
            self.retiring = None

    def end(self) -> None:
        self.stay()
        if self._streams is None:
            self._socket.close()
        else:
            self._streams[1].transport.abort()
        self.process.kill()
        # Giving back 500 MB takes the kernel 0.1 s. Where no thread may be started, the next one that is looks after this one.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self.process.wait, name="cortex-reaper", daemon=True).start()


class Checkers:
    """``check`` bodies; at most `MOST` at once, the others wait for their turn."""

    def __init__(self) -> None:
        self._idle: list[_Checker] = []
        self._turn = asyncio.Semaphore(MOST)
        self._limits: set[asyncio.Timeout] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = self._closed = False

    async def check(self, body: bytes, content_type: str | None) -> None:
        """Raises what `payload.parse` would raise here: PayloadError. And BodyCheckFailed when it could not be found out."""
        self._loop = asyncio.get_running_loop()
        limit = asyncio.timeout(0 if self._stopping else None)
        self._limits.add(limit)
        try:
            async with limit, self._turn:
                limit.reschedule(self._loop.time() + (LAST_S if self._stopping else CHECK_S))
                refusal = await self._asked(body, content_type)
        except TimeoutError:
            why = "the gateway is about to stop" if self._stopping else f"the check of the body took longer than {CHECK_S:.0f} s"
            raise BodyCheckFailed(f"{why}; nothing was accepted, try again", retry_after=1 if self._stopping else AGAIN_S) from None
        finally:
            self._limits.discard(limit)
        if refusal is not None:
            raise PayloadError(refusal.pop("message"), **refusal)

    async def _asked(self, body: bytes, content_type: str | None) -> dict[str, Any] | None:
        """What the body is refused with. Raises BodyCheckFailed when nobody lives long enough to say so."""
        for _ in range(ATTEMPTS):
            try:
                return await self._ask(body, content_type)
            except (OSError, EOFError) as error:
                log.warning("the process that checked a body of %d bytes is gone: %s", len(body), str(error) or "it has ended")
        raise BodyCheckFailed(
            f"the process that checks large bodies ended {ATTEMPTS} times over this one of {len(body)} bytes, perhaps for want of memory; "
            "nothing was accepted. Try again, or send less at once",
            retry_after=AGAIN_S,
        )

    async def _ask(self, body: bytes, content_type: str | None) -> dict[str, Any] | None:
        while self._idle:
            checker = self._idle.pop()
            if checker.process.poll() is None:
                checker.stay()
                break
            checker.end()
        else:
            checker = _Checker()
        try:
            refusal = await checker.ask(body, content_type)
        except BaseException:
            # Also when the caller is cancelled: what it would say next is about this body.
            checker.end()
            raise
        if self._closed:
            checker.end()
        else:
            self._idle.append(checker)
            checker.retiring = asyncio.get_running_loop().call_later(IDLE_S, self._retire, checker)
        return refusal

    def _retire(self, checker: _Checker) -> None:
        self._idle.remove(checker)
        checker.end()

    def end_waits(self) -> None:
        """The gateway is told to stop: who has no turn yet is refused now, who has one a little later. May be called by a signal handler."""
        self._stopping = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._hurry)

    def _hurry(self) -> None:
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                under_way = limit.when()
                limit.reschedule(now if under_way is None else min(under_way, now + LAST_S))

    def close(self) -> None:
        """End those that have nothing to do, and each other one after its answer."""
        self._closed = True
        while self._idle:
            self._idle.pop().end()
