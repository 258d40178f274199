"""Whether an environment has moved since a deployment was made on it; light, since every replica asks."""

from __future__ import annotations

import importlib.metadata


def drift(recorded: dict[str, str]) -> dict[str, list[str]]:
    """Distributions of this environment with another version than then: name -> [then, now]; "missing" for one that is gone."""
    moved = {}
    for name, then in recorded.items():
        try:
            now = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            now = "missing"
        if now != then:
            moved[name] = [then, now]
    return moved
