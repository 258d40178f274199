"""What a user adds to a task queue to have what we keep: a record per request with its status, its times and its result, kept for 7 days."""

from __future__ import annotations

import json
import os
import time

import redis

KEEP_S = 7 * 86400
PAYLOAD = '{"x": 1}'

store = redis.Redis.from_url(os.environ["PEER_REDIS"])


def key(request_id: str) -> str:
    return f"peer:w:{request_id}"


def accept(request_id: str, payload: str = PAYLOAD) -> None:
    store.hset(key(request_id), mapping={"status": "in_queue", "payload": payload, "accepted": time.time()})


def begin(request_id: str) -> None:
    json.loads(store.hget(key(request_id), "payload"))
    store.hset(key(request_id), mapping={"status": "in_progress", "started": time.time()})


def finish(request_id: str, result: object) -> None:
    pipe = store.pipeline()
    pipe.hset(key(request_id), mapping={"status": "completed", "result": json.dumps(result), "finished": time.time()})
    pipe.hdel(key(request_id), "payload")
    pipe.expire(key(request_id), KEEP_S)
    pipe.execute()
