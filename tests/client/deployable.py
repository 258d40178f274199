"""A handler in an importable file, under a name of its own."""

from __future__ import annotations

from typing import Any


class Doubler:
    def __init__(self, config: dict[str, Any]) -> None:
        self.factor = config.get("factor", 2)

    def handle_async(self, payload: dict[str, int]) -> dict[str, int]:
        return {"n": payload["n"] * self.factor}
