"""The check notebook of each deployment, as its gate executed it."""

from __future__ import annotations

import zlib

import redis

from ..core.errors import DeploymentNotFound
from . import keys
from .connection import store_errors

#: Reports of older versions are forgotten.
KEPT = 10


def put(client: redis.Redis, name: str, version: int, data: bytes) -> None:
    """Keep a report (ipynb); notebooks compress to a tenth. Raises StoreUnavailable."""
    with store_errors():
        pipe = client.pipeline(transaction=False)
        pipe.set(keys.report(name, version), zlib.compress(data))
        if version > KEPT:
            pipe.unlink(keys.report(name, version - KEPT))
        pipe.execute()


def get(client: redis.Redis, name: str, version: int) -> bytes:
    """Raises DeploymentNotFound where none was kept, StoreUnavailable."""
    with store_errors():
        data = client.get(keys.report(name, version))
    if data is None:
        raise DeploymentNotFound(f"{name} version {version} has no report: it was deployed without checks, or long ago")
    return zlib.decompress(data)  # type: ignore[arg-type]
