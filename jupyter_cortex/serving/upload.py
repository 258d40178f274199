"""A large body on its way to the store in pieces, while more of it still comes in."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic, perf_counter
from typing import Any, Protocol

import redis

from ..core.errors import StoreUnavailable
from ..store import keys
from ..store.scripts import PIECE
from .digest import PayloadDigest

#: Bodies above this come in pieces: the store syncs what it is told to disk before it does anything else for anybody; at 70 MB/s this takes 4 ms.
PIECE_BYTES = 256 * 1024
#: The size of pieces. A sync costs much the same for each, small requests wait for a whole one: they grow while they are quick, and shrink when they
#: are slow. On a disk that takes 10 MB in 40 ms, pieces of 128 kB to 256 kB took 71 ms for them.
LEAST_BYTES, MOST_BYTES = 128 * 1024, 1024 * 1024
#: Seconds under way, another piece in front of it included.
QUICK_S, SLOW_S = 0.006, 0.015
#: Pieces under way at once: the store writes one while the next one travels.
UNDER_WAY = 2
#: What the kernel may hold of them: a store that has synced one finds the next as a whole. With 208 kB, as is usual, it waited for the gateway's turn
#: five times for each, and 10 MB took a fifth longer.
AHEAD_BYTES = UNDER_WAY * MOST_BYTES

#: Seconds after which a piece goes by the script again, which has the store keep all of them for another hour.
ANEW_S = 600.0

#: Sends one command to the store, patiently; its reply.
Call = Callable[[tuple[Any, ...]], Awaitable[Any]]


class Direct(Protocol):
    """A connection on which a command can be sent once; see `line.Line`."""

    @property
    def epoch(self) -> int: ...

    @property
    def haunted(self) -> bool: ...

    def at_once(self, epoch: int, command: tuple[Any, ...]) -> Awaitable[list[Any]] | None: ...


class Upload:
    """``await add(...)`` piece after piece, then `settle`; submit.lua makes a workload of what `token` names. What is never submitted is to be
    `abandon`\\ ed, and goes after an hour if nobody does.

    A piece goes by a script that leaves out what does not fit where it says, so that it may be said twice. Copying 1 MB into Lua and out of it takes
    the store as long as all the rest of it: so once the first piece is there, further ones are APPENDed ``direct``\\ ly while that very connection
    holds, and said once. Where its reply is lost, the script goes on: the next connection has ended the one before it.
    """

    def __init__(self, call: Call, api: str, request_id: str, direct: Direct | None = None) -> None:
        self._call, self._direct = call, direct
        self._epoch, self._careful, self._scripted = 0, direct is None, 0.0
        #: Where what was last sent directly ends.
        self._sent = -1
        self.api, self.request_id = api, request_id
        self.token = os.urandom(8).hex()
        self.size = 0
        #: How many bytes the next piece should have.
        self.wanted = LEAST_BYTES
        self._digest = PayloadDigest()
        self._flights: deque[asyncio.Task[None]] = deque()

    @property
    def digest(self) -> str:
        """Of everything added, as records keep it."""
        return str(self._digest)

    async def add(self, piece: bytes) -> None:
        """Returns when there is room for the next one. Raises StoreUnavailable."""
        self._digest.add(piece)
        before = self._flights[-1] if self._flights else None
        self._flights.append(asyncio.create_task(self._send(self.size, piece, before)))
        self.size += len(piece)
        if len(self._flights) >= UNDER_WAY:
            await self._landed()

    async def settle(self) -> None:
        """Returns when the store has everything. Raises StoreUnavailable."""
        while self._flights:
            await self._landed()

    async def _landed(self) -> None:
        first = self._flights[0]
        await asyncio.wait((first,))  # a caller who is cancelled here must not cancel it
        self._flights.popleft()
        first.result()

    async def _send(self, offset: int, piece: bytes, before: asyncio.Task[None] | None) -> None:
        began = perf_counter()
        there = await self._appended(offset, piece, before)
        if there is None:
            there = await self._there(offset, piece)
        took = perf_counter() - began
        if took < QUICK_S:
            self.wanted = min(2 * self.wanted, MOST_BYTES)
        elif took > SLOW_S:
            self.wanted = max(self.wanted // 2, LEAST_BYTES)
        if there >= offset + len(piece):
            if self._direct is not None and not self._epoch:
                self._epoch = self._direct.epoch
            return
        # The connection was lost, and what was sent again came in another order.
        if before is not None:
            await asyncio.wait((before,))
            if await self._there(offset, piece) >= offset + len(piece):
                return
        raise self.lost()

    @staticmethod
    def lost() -> StoreUnavailable:
        return StoreUnavailable("the store lost parts of the body while it came in; try again", retry_after=1)

    async def _appended(self, offset: int, piece: bytes, before: asyncio.Task[None] | None) -> int | None:
        """How many bytes are there, None where only the script can tell. Raises StoreUnavailable where others are in between."""
        if self._direct is None or self._careful or not self._epoch or monotonic() - self._scripted > ANEW_S:
            return None
        if self._sent != offset and before is not None:
            await asyncio.wait((before,))  # it goes by the script, perhaps once more: this one must not come to stand in its place
        sent = self._direct.at_once(self._epoch, ("APPEND", keys.upload(self.api, self.request_id, self.token), piece))
        if sent is None:
            self._careful = True
            return None
        self._sent = offset + len(piece)
        try:
            (there,) = await sent
        except (redis.RedisError, OSError):
            self._careful = True
            return None
        if there != offset + len(piece):  # the one before it was refused
            raise self.lost()
        return int(there)

    async def _there(self, offset: int, piece: bytes) -> int:
        self._scripted = monotonic()
        there = int(await self._call(("EVALSHA", PIECE.sha, 1, keys.prefix(self.api), self.request_id, self.token, offset, piece)))
        if self._epoch and self._direct is not None and self._direct.haunted:  # what was appended may be appended once more
            raise self.lost()
        return there

    async def abandon(self) -> None:
        """Nothing of it stays. Never raises."""
        flights, self._flights = self._flights, deque()
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        if self.size:
            with contextlib.suppress(StoreUnavailable):
                await self._call(("UNLINK", keys.upload(self.api, self.request_id, self.token)))
