"""``python -m enqueue 20000``: so many records and messages, each as the app writes them."""

from __future__ import annotations

import sys
import time

from tasks import handle, key, store

count = int(sys.argv[1])
for start in range(0, count, 1000):
    pipe = store.pipeline(transaction=False)
    for number in range(start, min(start + 1000, count)):
        pipe.hset(key(str(number)), mapping={"status": "in_queue", "payload": '{"x": 1}', "accepted": time.time()})
    pipe.execute()
for number in range(count):
    handle.send(str(number))
