"""Redeploys under load: nobody's request fails, and nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from urllib.parse import urlsplit

from figures import Figure
from load import Connection
from stage import Stage, until

from jupyter_cortex.store import keys

NAME = "redeploy"
CONNECTIONS, REDEPLOYS = 8, 3
LOAD_S = 15.0
CHUNK = 10_000


def handler(revision: int) -> str:
    return f"class Handler:\n    def handle_async(self, payload):\n        return {{'revision': {revision}}}\n"


def run(stage: Stage, quick: bool) -> list[Figure]:
    path = stage.deploy(NAME, handler(0)).endpoint
    load = Load(stage.url, path)
    asyncio.run(load.run(stage))
    until(lambda: not stage.redis.zcard(keys.index(NAME, "open")), "everything accepted has ended", 120)
    ends = _ends(stage, load.accepted)
    stage.delete(NAME)
    requests, lost = sum(load.answers.values()), len(load.accepted) - ends["completed"]
    failed = {status: count for status, count in load.answers.items() if status != "200"}
    if failed or lost:
        print(f"redeploy under load: answers {dict(load.answers)}, ends {dict(ends)}")
    label = f"{REDEPLOYS} redeploys under load"
    return [
        Figure(f"{label}: requests that failed", sum(failed.values()), "", most=0, worst=True),
        Figure(f"{label}: accepted and not completed", lost, "", most=0, worst=True),
        Figure(f"{label}: requests a second meanwhile", requests / load.took, "/s"),
    ]


class Load:
    """POST and GET in turns on 8 connections, while the API is deployed three times."""

    def __init__(self, url: str, path: str) -> None:
        address = urlsplit(url)
        self._host, self._port, self._path = address.hostname or "", address.port or 80, path
        self._over = False
        self.answers: Counter[str] = Counter()
        self.accepted: list[str] = []
        self.took = 0.0

    async def run(self, stage: Stage) -> None:
        began = time.monotonic()
        callers = [asyncio.create_task(self._call()) for _ in range(CONNECTIONS)]
        try:
            for revision in range(1, REDEPLOYS + 1):
                # Spread over the time of the load: the first a moment after its start, the last well before its end.
                await asyncio.sleep(max(0.0, began + LOAD_S * revision / (REDEPLOYS + 2) - time.monotonic()))
                deployed = await asyncio.to_thread(stage.deploy, NAME, handler(revision))
                if deployed.outcome != "updating":
                    raise RuntimeError(f"redeploy {revision}: {deployed.message}")
            await asyncio.sleep(max(0.0, began + LOAD_S - time.monotonic()))
        finally:
            self._over = True
            await asyncio.gather(*callers)
        self.took = time.monotonic() - began

    async def _call(self) -> None:
        while not self._over:
            try:
                async with Connection(self._host, self._port) as connection:
                    while not self._over:
                        await self._post_and_get(connection)
            except (OSError, EOFError) as error:
                self.answers[type(error).__name__] += 1

    async def _post_and_get(self, connection: Connection) -> None:
        status, body = await connection.request("POST", self._path, '{"x": 1}')
        self.answers[str(status)] += 1
        if status == 200:
            request_id = json.loads(body)["id"]
            self.accepted.append(request_id)
            status, _ = await connection.request("GET", f"{self._path}/{request_id}")
            self.answers[str(status)] += 1


def _ends(stage: Stage, request_ids: list[str]) -> Counter[str]:
    ends: Counter[str] = Counter()
    for start in range(0, len(request_ids), CHUNK):
        pipe = stage.redis.pipeline(transaction=False)
        for request_id in request_ids[start : start + CHUNK]:
            pipe.hget(keys.record(NAME, request_id), "status")
        ends.update((status or b"unknown").decode() for status in pipe.execute())
    return ends
