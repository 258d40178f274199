"""The levels of log lines."""

from __future__ import annotations

from typing import Literal, get_args

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
#: From the least to the most.
LEVELS: tuple[Level, ...] = get_args(Level)


def rank(level: object) -> int:
    """Its place among them; what a line says that is none of them, or does not say, counts as INFO."""
    return LEVELS.index(level) if level in LEVELS else LEVELS.index("INFO")  # type: ignore[arg-type]
