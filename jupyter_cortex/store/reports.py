"""The check notebook of each deployment, as its gate executed it."""

from __future__ import annotations

import zlib

import redis

from ..core.errors import DeploymentNotFound
from . import keys
from .connection import store_errors


def put(client: redis.Redis, name: str, version: int, data: bytes) -> None:
    """Keep a report (ipynb) until the registry forgets it; notebooks compress to a tenth. Raises StoreUnavailable."""
    with store_errors():
        client.set(keys.report(name, version), zlib.compress(data))


def get(client: redis.Redis, name: str, version: int) -> bytes:
    """Raises DeploymentNotFound where none was kept, StoreUnavailable."""
    with store_errors():
        data = client.get(keys.report(name, version))
    if data is None:
        raise DeploymentNotFound(f"{name} version {version} has no report: it was deployed without checks, or long ago")
    return zlib.decompress(data)  # type: ignore[arg-type]
