# /// script
# dependencies = ["saq[hiredis]", "redis", "typing_extensions", "uvloop"]
# ///
"""saq keeping nothing: ttl -1 forgets a job when it has ended. Its worker blocks on the queue; 10 jobs at once are its default.

``typing_extensions``: saq 0.26 imports it and does not ask for it. It wants an older redis-py than the others, hence an environment of its own.
"""

from __future__ import annotations

from typing import Any

from common import URL, note, serve
from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

#: Its own from_url knows no unix sockets.
queue = RedisQueue(Redis.from_url(URL), name="peer")


async def noop(context: dict[str, Any], *, number: int) -> None:
    note(number)


settings = {"queue": queue, "functions": [noop], "concurrency": 10}
WORKER = ["-m", "saq", "on_saq.settings", "--quiet"]


async def enqueue(number: int) -> None:
    await queue.enqueue("noop", number=number, ttl=-1)


if __name__ == "__main__":
    serve(enqueue, WORKER)
