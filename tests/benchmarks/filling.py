"""Many workloads at once: through the script with which the gateway submits, without HTTP, pipelined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stage import Stage, until

from jupyter_cortex.serving.digest import PayloadDigest
from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import SUBMIT

BODY = b'{"x": 1}'
CHUNK = 1000


def submit(stage: Stage, api: str, ids: list[str]) -> None:
    # The script is known to the store once a request was accepted; here it may be the first.
    stage.redis.script_load(SUBMIT.source)
    digest = str(PayloadDigest(BODY))
    for start in range(0, len(ids), CHUNK):
        pipe = stage.redis.pipeline(transaction=False)
        for request_id in ids[start : start + CHUNK]:
            pipe.execute_command("EVALSHA", SUBMIT.sha, 1, keys.prefix(api), request_id, "application/json", digest, len(BODY), BODY)
        if set(pipe.execute()) != {b"ok"}:
            raise RuntimeError("the submit script did not accept everything")


def drained(stage: Stage, api: str, count: int, seconds: float = 300) -> None:
    """Wait until so many workloads of the API are completed. Raises RuntimeError when one ends otherwise."""
    until(lambda: stage.redis.zcard(keys.index(api, "completed")) >= count or _failed(stage, api), "the queue is drained", seconds)
    if _failed(stage, api):
        raise RuntimeError("workloads failed")


def _failed(stage: Stage, api: str) -> bool:
    return bool(stage.redis.zcard(keys.index(api, "failed")))


@contextmanager
def without_disk(stage: Stage) -> Iterator[None]:
    """Filling is nobody's figure: meanwhile the store does not wait for the disk."""
    before = stage.redis.config_get("appendfsync")["appendfsync"]
    stage.redis.config_set("appendfsync", "no")
    try:
        yield
    finally:
        stage.redis.config_set("appendfsync", before)
