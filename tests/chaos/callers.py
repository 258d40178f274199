"""Careful callers: each sends with an id of its own, repeats on 503 and on a broken connection, and follows its workload to the end."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp

from .ledger import FINAL, Ledger
from .payloads import Workload

CALLERS = 48
#: Only bounds a broken run: an accepted workload must end, and one that is refused must be accepted at last.
PATIENCE_S = 240.0
#: How long a long poll waits; the shortest and longest pause between two polls.
WAIT_S = 10
PAUSE_S = (0.05, 1.0)


class Callers:
    """All callers on one event loop in a thread. ``limit``: workloads with a smaller number may be sent; the run raises it as it goes on."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self.url, self.ledger = url, ledger
        self.limit = 0
        #: Set to end early: nothing more is sent.
        self.enough = False
        self._next = 0
        self._deeds = ledger.plan.deeds()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="callers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Raises what ended a caller that was not meant to end."""
        self._thread.join(seconds)
        if self._failure is not None:
            raise self._failure
        if self._thread.is_alive():
            raise TimeoutError(f"the callers have not come to an end within {seconds:.0f} s")

    def _main(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:
            self._failure = error

    async def _all(self) -> None:
        async with session() as http:
            await asyncio.gather(*(self._caller(http) for _ in range(CALLERS)))

    async def _caller(self, http: aiohttp.ClientSession) -> None:
        while True:
            while self._next >= self.limit and self._next < self.ledger.plan.count and not self.enough:
                await asyncio.sleep(0.02)
            number, self._next = self._next, self._next + 1
            if number >= self.ledger.plan.count or self.enough:
                return
            await self._one(http, self.ledger.plan.workload(number, self._deeds.get(number, "")))

    async def _one(self, http: aiohttp.ClientSession, workload: Workload) -> None:
        url = f"{self.url}/{workload.api}"
        headers = {"content-type": workload.content_type, "x-request-id": workload.id}
        accepted = await self._ask(http, "POST", url, workload, data=workload.body, headers=headers)
        if accepted is None:
            self.ledger.trouble("workloads never accepted", workload.id)
            return
        kept = replace(workload, body=b"")
        self.ledger.accept(kept, workload.outcome())
        if workload.style == "cancel":
            await self._ask(http, "DELETE", f"{url}/{workload.id}", kept)
        if workload.style != "leave":
            await self.follow(http, kept, wait=workload.style == "wait")

    async def follow(self, http: aiohttp.ClientSession, workload: Workload, *, wait: bool, patience: float = PATIENCE_S) -> bool:
        """Until it has ended. Whether it did."""
        deadline = time.monotonic() + patience
        pause = PAUSE_S[0]
        path = f"{self.url}/{workload.api}/{workload.id}{f'?wait={WAIT_S}' if wait else ''}"
        while time.monotonic() < deadline:
            answer = await self._ask(http, "GET", path, workload)
            if answer is None:
                return False
            if answer["status"] in FINAL:
                self.ledger.ended(workload, answer)
                return True
            if not wait:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, PAUSE_S[1])
        return False

    async def _ask(self, http: aiohttp.ClientSession, method: str, url: str, workload: Workload, **options: Any) -> dict[str, Any] | None:
        """One request, repeated while the store or the gateway is away; None when it was refused for good."""
        deadline = time.monotonic() + PATIENCE_S
        what = f"{method} of {workload.id}"
        while time.monotonic() < deadline:
            try:
                async with http.request(method, url, **options) as answer:
                    body = await answer.read()
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.ledger.counts["connections broken"] += 1
                await asyncio.sleep(random.uniform(*PAUSE_S) / 2)
                continue
            self.ledger.answer(what, answer.status, answer.headers, body)
            if answer.status == 200:
                found: dict[str, Any] = json.loads(body)
                return found
            if answer.status < 500:
                gone = answer.status == 404 and method != "POST"
                self.ledger.trouble("accepted ids that are gone" if gone else "other refusals", f"{what}: {answer.status} {body[:200]!r}")
                return None
            # As told, and not all at once.
            await asyncio.sleep(random.uniform(0.5, 1.0) * float(answer.headers.get("Retry-After") or 1))
        return None


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    # Long polls wait for 10 s, and a paused store holds a GET for a few more.
    limits = aiohttp.ClientTimeout(total=60, connect=5)
    async with aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=CALLERS * 2)) as http:
        yield http


def count(callers: Callers, progress: Callable[[str], None]) -> None:
    """Ask for every accepted workload twice: it has ended, and says the same each time."""

    async def main() -> None:
        waiting = list(callers.ledger.accepted.values())

        async def ask(http: aiohttp.ClientSession) -> None:
            while waiting:
                workload = waiting.pop()
                if await callers.follow(http, workload, wait=True, patience=WAIT_S):
                    await callers.follow(http, workload, wait=False)

        async with session() as http:
            await asyncio.gather(*(ask(http) for _ in range(CALLERS)))

    progress(f"asking for {len(callers.ledger.accepted)} workloads")
    asyncio.run(main())
