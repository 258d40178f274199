"""How many may wait at once, and that nobody does any more when the gateway is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

#: Seconds after which a caller who could not wait may ask again. Without it, one who asks in a loop would do so as fast as he can.
AGAIN_S = 1
AGAIN = (b"retry-after", str(AGAIN_S).encode())


class WaitOver(Exception):
    """The gateway has ended a wait"""


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

    async def hold(self, wait: Coroutine[Any, Any, Any]) -> Any:
        """What a wait brings. Raises WaitOver when it was ended by `end`."""
        self._loop = asyncio.get_running_loop()
        held = asyncio.ensure_future(wait)
        self._held.add(held)
        try:
            with self.one():
                return await held
        except asyncio.CancelledError:
            if held in self._held:  # it is the caller who was cancelled
                raise
            raise WaitOver from None
        finally:
            self._held.discard(held)

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
