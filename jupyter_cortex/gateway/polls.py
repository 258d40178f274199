"""How many may wait at once, and that nobody does any more when the gateway is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

#: Seconds after which a caller who could not wait may ask again. Without it, one who asks in a loop would do so as fast as he can.
AGAIN_S = 1
AGAIN = (b"retry-after", str(AGAIN_S).encode())
#: Seconds after which it is heeded whether who waits is still there.
WATCHED_S = 1.0


class WaitOver(Exception):
    """The gateway has ended a wait"""


class Watch:
    """Tells when a caller has closed the connection. Not in the first second, when most waits end: a task for each is a share of their cost."""

    def __init__(self, receive: Any, tell: Callable[[], None]) -> None:
        self._receive, self._tell = receive, tell
        self._listening: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCHED_S, self._listen)

    def _listen(self) -> None:
        self._listening = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        await gone(self._receive)
        self._tell()

    def end(self) -> None:
        self._timer.cancel()
        if self._listening is not None:
            self._listening.cancel()


async def gone(receive: Any) -> None:
    """Until the caller closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Polls:
    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = 0
        self._held: set[asyncio.Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over = False

    @property
    def full(self) -> bool:
        """Whether nobody more may wait."""
        return self._over or self._waiting >= self._most

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Around a wait that `full` does not forbid."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def hold(self, wait: Coroutine[Any, Any, Any], receive: Any = None) -> Any:
        """What a wait brings. Raises WaitOver when it was ended by `end`, or by the caller, of whom ``receive`` tells."""
        self._loop = asyncio.get_running_loop()
        held = asyncio.ensure_future(wait)
        self._held.add(held)
        watch = Watch(receive, lambda: self._let_go(held)) if receive is not None else None
        try:
            with self.one():
                return await held
        except asyncio.CancelledError:
            if held in self._held:  # it is the caller who was cancelled
                raise
            raise WaitOver from None
        finally:
            self._held.discard(held)
            if watch is not None:
                watch.end()

    def _let_go(self, held: asyncio.Future[Any]) -> None:
        self._held.discard(held)
        held.cancel()

    def end(self) -> None:
        """All waits end now, and nobody waits any more. May be called by a signal handler."""
        self._over = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        held, self._held = self._held, set()
        for wait in held:
            wait.cancel()
