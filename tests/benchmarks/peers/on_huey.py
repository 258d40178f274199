# /// script
# dependencies = ["huey", "redis", "hiredis"]
# ///
"""huey keeping nothing, at its best for latency: a blocking read (its default on Redis), no results, no periodic tasks; four threads, which
share a wait for the disk: one (its default) drained a quarter less, sixteen no more."""

from __future__ import annotations

from common import URL, note, serve
from huey import RedisHuey

queue = RedisHuey("peer", url=URL, results=False, blocking=True)
WORKER = ["-m", "huey.bin.huey_consumer", "on_huey.queue", "-k", "thread", "-w", "4", "--no-periodic", "--quiet"]


@queue.task()
def noop(number: int) -> None:
    note(number)


if __name__ == "__main__":
    # By its module's name: the task's name says where the worker finds it.
    import on_huey

    serve(on_huey.noop, WORKER)
