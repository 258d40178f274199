# /// script
# dependencies = ["dramatiq[redis]", "redis", "hiredis"]
# ///
"""The hand-written way: stock Dramatiq with a record per request, as its documentation suggests. `app.py` is the HTTP door to it."""

from __future__ import annotations

import os
import time

import dramatiq
import records
from common import URL, note, serve
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=URL, namespace="full"))
WORKER = ["-m", "dramatiq", "on_dramatiq_full", "--processes", "1", "--threads", "8"]


@dramatiq.actor(max_retries=0)
def handle(request_id: str) -> None:
    entered = time.time()
    if "PEER_NOTES" in os.environ:  # behind app.py nobody reads them
        note(int(request_id))
    records.begin(request_id)
    records.finish(request_id, {"entered": entered})


def enqueue(number: int) -> None:
    records.accept(str(number))
    handle.send(str(number))


if __name__ == "__main__":
    serve(enqueue, WORKER)
