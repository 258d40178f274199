"""Readers of single values: they return the value, checked and converted, or raise FieldError."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .scalars import parse_duration, parse_quantity

Reader = Callable[[Any], Any]

INT32 = 2**31 - 1
INT64 = 2**63 - 1

#: YAML's words for Python's types, with their article. ``bool`` comes before ``int``, whose subclass it is.
_WORDS: tuple[tuple[type, str], ...] = (
    (type(None), "null"),
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "a map"),
)


class FieldError(ValueError):
    """What is wrong with one value: a ``kind``, a sentence, and the keys that lead to it (filled on the way up)."""

    def __init__(self, kind: str, sentence: str, *parts: str | int) -> None:
        super().__init__(sentence)
        self.kind, self.sentence = kind, sentence
        self.parts = parts

    def below(self, *parts: str | int) -> FieldError:
        self.parts = (*parts, *self.parts)
        return self

    @property
    def path(self) -> str:
        """``handler.models.paths[0].name``"""
        text = ""
        for part in self.parts:
            text += f"[{part}]" if isinstance(part, int) else f".{printable(part)}"
        return text.removeprefix(".")


def printable(text: str, limit: int = 100) -> str:
    """``text`` fit for one line of a message: no control characters, nothing that UTF-8 cannot carry, not too long."""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def word(value: Any) -> str:
    """``a string``, ``a list``... for messages."""
    return next((text for kind, text in _WORDS if isinstance(value, kind)), f"a {type(value).__name__}")


def a_map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError("type", f"this must be a map, but is {word(value)}.")
    if not all(isinstance(key, str) for key in value):
        raise FieldError("type", "all keys of this map must be strings; put quotes around the others.")
    return value


def a_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FieldError("type", f"this must be a list, but is {word(value)}.")
    return value


def a_string(value: Any) -> str:
    """Any text that a file name, an environment variable and a JSON document can carry."""
    if not isinstance(value, str):
        remedy = "." if isinstance(value, dict | list) else "; put quotes around it."
        raise FieldError("type", f"this must be a string, but is {word(value)}{remedy}")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise FieldError("value", "this cannot contain NUL characters or unpaired surrogates; remove them.")
    return value


def filled(value: list[Any]) -> list[Any]:
    if not value:
        raise FieldError("empty", "this cannot be empty; remove the key instead.")
    return value


def text(check: Callable[[str], str] | None = None, *, empty: bool = False, longest: int | None = None) -> Reader:
    """A reader of strings; ``check`` gets the text and returns it, changed or not, or raises FieldError."""

    def read(value: Any) -> str:
        string = a_string(value)
        if not string:
            if empty:
                return string
            raise FieldError("empty", "this cannot be empty.")
        if longest is not None and len(string) > longest:
            raise FieldError("too_long", f"this has {len(string):,} characters; the limit is {longest:,}.")
        return check(string) if check else string

    return read


def yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise FieldError("type", f"this must be true or false, but is {word(value)}.")
    return value


def one_of(*allowed: str) -> Reader:
    def check(value: str) -> str:
        if value not in allowed:
            raise FieldError("value", f"{printable(value)!r} is not supported; use {' or '.join(allowed)}.")
        return value

    return text(check)


def texts(read: Reader) -> Reader:
    """A reader of lists of strings."""

    def read_all(value: Any) -> list[str]:
        result = []
        for index, item in enumerate(a_list(value)):
            try:
                result.append(read(item))
            except FieldError as error:
                raise error.below(index) from None
        return result

    return read_all


def integer(least: int, most: int | None = None, *, largest: int = INT32) -> Reader:
    """A reader of integers from ``least`` to ``most``; beyond ±``largest`` it is of another type."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise FieldError("type", f"this must be an integer, but is {word(value)}.")
        if not -largest - 1 <= value <= largest:
            raise FieldError("type", f"this must be an integer of at most {largest:,}.")
        if value < least or (most is not None and value > most):
            limits = f"{least} or more" if most is None else f"from {least:,} to {most:,}"
            raise FieldError("range", f"this must be {limits}, but is {value}.")
        return value

    return read


def number(accepts: Callable[[float], bool], limits: str) -> Reader:
    """A reader of finite floats; ``limits`` is the sentence's name for what ``accepts`` accepts."""

    def read(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise FieldError("type", f"this must be a number, but is {word(value)}.")
        if isinstance(value, int) and not -INT64 - 1 <= value <= INT64:
            raise FieldError("type", f"this must be a number of at most {INT64:,}.")
        if not math.isfinite(value) or not accepts(float(value)):
            raise FieldError("range", f"this must be {limits}, but is {value}.")
        return float(value)

    return read


class Duration:
    """A reader of durations: text in, float seconds out. :func:`as_written` knows it by its class."""

    def __init__(self, least: float = 0, *, above: float | None = None, multiple_of: int | None = None) -> None:
        self.least, self.above, self.multiple_of = least, above, multiple_of

    def __call__(self, value: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise FieldError("type", "this must be a duration with its unit, such as 60s, but is a bare number.")
        string = text()(value)
        try:
            seconds = parse_duration(string)
        except ValueError:
            shown = printable(string)
            raise FieldError("duration", f"{shown!r} is not a duration; write 90s, 1.5m or 1h30m.") from None
        if seconds < self.least or (self.above is not None and seconds <= self.above):
            limit = f"{self.least:g}s or longer" if self.above is None else f"longer than {self.above:g}s"
            raise FieldError("range", f"this must be {limit}, but is {printable(string)}.")
        if self.multiple_of and seconds % self.multiple_of:
            raise FieldError("multiple", f"this must be a multiple of {self.multiple_of}s, but is {printable(string)}.")
        return seconds


def quantity(least: str | None = None, *, numeric: bool = False) -> Reader:
    """A reader of quantities, kept as their text; ``numeric`` also takes YAML's numbers."""

    def read(value: Any) -> str:
        if numeric and isinstance(value, int | float) and not isinstance(value, bool):
            # Beyond 64 bits str() is slow and, above 4,300 digits, an error of Python's own.
            value = str(value) if isinstance(value, float) or abs(value) <= INT64 else "too large"
        string = text()(value)
        try:
            amount = parse_quantity(string)
        except ValueError:
            raise FieldError("quantity", f"{printable(string)!r} is not a quantity; write 200m, 1.5, 512Mi or 2G.") from None
        if least is not None and amount < parse_quantity(least):
            raise FieldError("range", f"this must be at least {least}, but is {printable(string)}.")
        return string

    return read
