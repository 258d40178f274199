# /// script
# dependencies = ["huey", "redis", "hiredis"]
# ///
"""huey with a record per request, written as for stock Dramatiq; else as in on_huey.py."""

from __future__ import annotations

import records
from common import URL, note, serve
from huey import RedisHuey

queue = RedisHuey("full", url=URL, results=False, blocking=True)
WORKER = ["-m", "huey.bin.huey_consumer", "on_huey_full.queue", "-k", "thread", "-w", "4", "--no-periodic", "--quiet"]


@queue.task()
def handle(number: int) -> None:
    note(number)
    records.begin(str(number))
    records.finish(str(number), {"ok": 1})


def enqueue(number: int) -> None:
    records.accept(str(number))
    handle(number)


if __name__ == "__main__":
    import on_huey_full

    serve(on_huey_full.enqueue, WORKER)
