# /// script
# dependencies = []
# ///
"""Ours, in the same words: one call of the script with which the gateway submits, for the API PEER_API, over a connection as raw as the gateway's.
Runs in our own environment."""

from __future__ import annotations

import os

from common import URL, serve

from jupyter_cortex.serving.digest import PayloadDigest
from jupyter_cortex.serving.link import Link
from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import SUBMIT

API = os.environ["PEER_API"]
PREFIX = keys.prefix(API)
link = Link(URL, (SUBMIT,))


def enqueue(number: int) -> None:
    body = b'{"number": %d}' % number
    link.send(("EVALSHA", SUBMIT.sha, 1, PREFIX, f"n{number}", "application/json", str(PayloadDigest(body)), len(body), body))
    outcome = link.receive()
    assert outcome == [b"ok"], outcome


if __name__ == "__main__":
    serve(enqueue, [])
