"""The notebooks that were executed for workloads of a notebook handler."""

from __future__ import annotations

import zlib
from typing import Any

import redis

from ..core.errors import NotebookGone
from . import keys
from .connection import store_errors
from .records import not_found


def get(client: redis.Redis, api: str, request_id: str) -> bytes:
    """The notebook (ipynb). Raises WorkloadNotFound, NotebookGone, StoreUnavailable."""
    with store_errors():
        pipe = client.pipeline(transaction=False)
        pipe.hget(keys.record(api, request_id), "status")
        pipe.get(keys.notebook(api, request_id))
        status, data = pipe.execute()
    if status is None:
        raise not_found(api, request_id)
    if data is None:
        raise NotebookGone(_why(status.decode(), request_id))
    raw: Any = data
    return zlib.decompress(raw)


def _why(status: str, request_id: str) -> str:
    if status in ("in_queue", "in_progress"):
        return f"{request_id} has not ended ({status}): its executed notebook is there when it has"
    return (
        f"{request_id} has left no executed notebook ({status}): its API is no notebook handler, it was ended before a cell ran or with its replica, "
        "or the store had no room"
    )
