"""``handler.config``: any values, as long as JSON has them too."""

from __future__ import annotations

from typing import Any

from .readers import FieldError, a_string

#: How deep and how large ``handler.config`` may be; YAML's aliases can make a small file endless.
CONFIG_DEPTH = 100
CONFIG_VALUES = 100_000
#: Integers up to about 3,900 digits: Python refuses to write more than 4,300 of them as text.
CONFIG_INTEGER_BITS = 13_000


def plain_copy(value: Any, *at: str) -> Any:
    """A copy of ``value`` (found at the keys ``at``), the same after a trip through JSON.

    Raises FieldError for keys that are not strings, other types, numbers that are not finite or too long, and for what
    is too deep or too large.
    """
    return _PlainCopy().copy(value, at)


class _PlainCopy:
    """Copies ``handler.config``, counting the values on the way."""

    def __init__(self) -> None:
        self.values = 0

    def copy(self, value: Any, at: tuple[str | int, ...]) -> Any:
        self.values += 1
        if len(at) > CONFIG_DEPTH or self.values > CONFIG_VALUES:
            limits = f"{CONFIG_DEPTH} levels or {CONFIG_VALUES:,} values"
            raise FieldError("value", f"this has more than {limits}; put such data into a file of the project.", *at[:2])
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise FieldError("non_string_key", "a non-string key was found; put quotes around it.", *at)
            return {self._string(key, at): self.copy(item, (*at, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.copy(item, (*at, index)) for index, item in enumerate(value)]
        if isinstance(value, str):
            return self._string(value, at)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and value.bit_length() <= CONFIG_INTEGER_BITS:
            return value
        if isinstance(value, float) and value - value == 0:  # neither infinite nor NaN
            return value
        raise FieldError("value", "this must be a value that JSON has: null, boolean, finite number, string, list, map.", *at)

    @staticmethod
    def _string(value: str, at: tuple[str | int, ...]) -> str:
        try:
            return a_string(value)
        except FieldError as error:
            raise error.below(*at) from None
