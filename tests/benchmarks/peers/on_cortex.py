# /// script
# dependencies = []
# ///
"""Ours, in the same words: one call of the script with which the gateway submits, for the API PEER_API. Runs in our own environment."""

from __future__ import annotations

import hashlib
import os

import redis
from common import URL, serve

from jupyter_cortex.store.scripts import SUBMIT

API = os.environ["PEER_API"]
client = redis.Redis.from_url(URL)


def enqueue(number: int) -> None:
    body = b'{"number": %d}' % number
    outcome = SUBMIT.run(client, API, f"n{number}", "application/json", hashlib.sha256(body).hexdigest()[:32], len(body), body)
    assert outcome == b"ok", outcome


if __name__ == "__main__":
    serve(enqueue, [])
