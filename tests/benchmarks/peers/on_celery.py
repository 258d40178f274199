# /// script
# dependencies = ["celery[redis]", "redis", "hiredis"]
# ///
"""celery keeping nothing: no result backend; a pool of threads, which hands tasks over without a second process in between and drained half
as many again as the solo and the prefork pool; no gossip, no mingling, no heartbeats, no events, the log at warnings."""

from __future__ import annotations

from celery import Celery
from common import URL, note, serve

#: kombu writes a unix socket's URL in a way of its own.
app = Celery("on_celery", broker=URL.replace("unix://", "redis+socket://"))
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
WORKER = ["-m", "celery", "-A", "on_celery", "worker", "--pool", "threads", "-c", "8", "--without-gossip", "--without-mingle", "--without-heartbeat"]
WORKER += ["--loglevel", "WARNING"]


@app.task(name="noop")
def noop(number: int) -> None:
    note(number)


if __name__ == "__main__":
    serve(noop.delay, WORKER)
