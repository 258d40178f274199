"""The two kinds of text in a spec that stand for numbers: durations (``1h30m``) and quantities (``512Mi``)."""

from __future__ import annotations

import re
from fractions import Fraction

#: Longer text than this is refused unread: Python's own integers refuse more than 4,300 digits with another error.
MAX_TEXT = 100

#: Durations are counted in 64-bit nanoseconds, so the longest is about 292 years.
MAX_NANOSECONDS = 2**63 - 1

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)

_SUFFIXES: dict[str | None, Fraction] = {
    "": Fraction(1),
    **{letter: Fraction(1, 1000**power) for power, letter in enumerate("mun", start=1)},
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", start=1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,2})|([A-Za-z]{0,2}))", re.ASCII)


def parse_duration(text: str) -> float:
    """The seconds of a duration such as ``60s``, ``1h30m`` or ``0.5h``; units are ns, us, ms, s, m, h.

    Raises ValueError when ``text`` is anything else (``60``, ``1d``, ``""``); a bare ``0`` is a duration.
    """
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    if not rest or len(text) > MAX_TEXT:
        raise ValueError("not a duration")
    nanoseconds, position = Fraction(0), 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:
            raise ValueError("not a duration")
        # What is below a nanosecond is dropped part by part, so that 0.1ns0.9ns is nothing.
        nanoseconds += int(_decimal(part[1]) * _UNITS[part[2]])
        position = part.end()
    if nanoseconds > MAX_NANOSECONDS:
        raise ValueError("longer than 292 years")
    return sign * float(nanoseconds / 10**9)


def format_duration(seconds: float) -> str:
    """The text that :func:`parse_duration` reads back as exactly these (finite) seconds."""
    return f"{round(Fraction(seconds) * 10**9)}ns"


def parse_quantity(text: str) -> Fraction:
    """The exact value of a quantity such as ``200m``, ``1.5``, ``512Mi`` or ``1e3``.

    Suffixes are n u m (none) k M G T P E, Ki to Ei, or an exponent of at most two digits. Raises ValueError for
    anything else; a capital ``K`` is not a suffix.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_TEXT else None
    if match is None or (match[4] is not None and match[4] not in _SUFFIXES):
        raise ValueError("not a quantity")
    scale = _SUFFIXES[match[4]] if match[3] is None else Fraction(10) ** int(match[3])
    value = _decimal(match[2]) * scale
    return -value if match[1] == "-" else value


def _decimal(digits: str) -> Fraction:
    """``1``, ``1.``, ``.5`` or ``1.5`` as an exact number."""
    whole, _, fraction = digits.partition(".")
    return Fraction(int((whole or "0") + fraction), 10 ** len(fraction))
