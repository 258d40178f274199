# /// script
# dependencies = ["rq", "redis", "hiredis"]
# ///
"""rq keeping nothing: a result lives for 0 s, which deletes its job. SimpleWorker runs jobs in the worker's own process: its default forks for each
job, which costs milliseconds."""

from __future__ import annotations

import redis
from common import URL, note, serve
from rq import Queue

queue = Queue("peer", connection=redis.Redis.from_url(URL))
WORKER = ["-m", "rq.cli", "worker", "peer", "--url", URL, "--worker-class", "rq.worker.SimpleWorker", "--quiet"]
WORKER += ["--disable-job-desc-logging"]


def noop(number: int) -> None:
    note(number)


if __name__ == "__main__":
    serve(lambda number: queue.enqueue("on_rq.noop", number, result_ttl=0), WORKER)
