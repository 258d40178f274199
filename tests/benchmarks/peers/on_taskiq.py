# /// script
# dependencies = ["taskiq", "taskiq-redis", "redis", "hiredis", "uvloop"]
# ///
"""taskiq keeping nothing: the list broker, whose blocking pop is the quickest of its brokers, and its default of no result backend; one process,
with prefetch and early acknowledgement (the list broker knows no other), which drain twice as much as the defaults."""

from __future__ import annotations

from common import URL, note, serve
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(URL)
WORKER = ["-m", "taskiq", "worker", "on_taskiq:broker", "--workers", "1", "--no-parse", "--log-level", "WARNING"]
WORKER += ["--max-prefetch", "100", "--ack-type", "when_received"]


@broker.task(task_name="noop")
async def noop(number: int) -> None:
    note(number)


async def enqueue(number: int) -> None:
    await noop.kiq(number)


if __name__ == "__main__":
    serve(enqueue, WORKER)
