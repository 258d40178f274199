# /// script
# dependencies = ["dramatiq[redis]", "redis", "hiredis"]
# ///
"""Stock Dramatiq as it comes: nothing is kept. It has no setting for latency: an idle worker sleeps between two looks."""

from __future__ import annotations

import dramatiq
from common import URL, note, serve
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=URL))
#: One process, as we have one replica; 8 threads are its default.
WORKER = ["-m", "dramatiq", "on_dramatiq", "--processes", "1", "--threads", "8"]


@dramatiq.actor(max_retries=0)
def noop(number: int) -> None:
    note(number)


if __name__ == "__main__":
    serve(noop.send, WORKER)
