"""The hand-written way: a record per request on stock Dramatiq, as its documentation suggests."""

from __future__ import annotations

import json
import os
import time

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

URL = os.environ["PEER_REDIS"]
KEEP_S = 7 * 86400
COMPLETED = "peer:completed"

broker = RedisBroker(url=URL)
dramatiq.set_broker(broker)
store = redis.Redis.from_url(URL)


def key(request_id: str) -> str:
    return f"peer:w:{request_id}"


@dramatiq.actor(max_retries=0)
def handle(request_id: str) -> None:
    entered = time.time()
    json.loads(store.hget(key(request_id), "payload"))
    store.hset(key(request_id), mapping={"status": "in_progress", "started": entered})
    result = json.dumps({"entered": entered})
    pipe = store.pipeline()
    pipe.hset(key(request_id), mapping={"status": "completed", "result": result, "finished": time.time()})
    pipe.hdel(key(request_id), "payload")
    pipe.expire(key(request_id), KEEP_S)
    pipe.incr(COMPLETED)
    pipe.execute()
