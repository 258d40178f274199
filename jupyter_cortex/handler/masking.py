"""Keep the values of ``.env``, and what the spec redacts of payloads, out of lines, errors and reports."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Iterable
from typing import Any

from . import log_context

#: Shorter values ("1", "on", "dev") stand in ordinary text by chance; hiding them would hide the text.
SHORTEST = 4
STARS = "***"
#: What the runtime itself writes into a line: never a secret, and "info" or "2026" may well be a value of .env.
METADATA = frozenset({"asctime", "levelname", "process", "labels", "request_id"})
#: Keys of a line that keep their name, whatever the values are called.
KEYS = METADATA | {"message", "exc_info", "stack_info"}

_lock = threading.Lock()
_values: set[str] = set()
#: Both patterns are replaced as a whole, so readers need no lock. The first finds the values in plain text, the second
#: in an encoded line, where quotes and letters beyond ASCII are escaped.
_plain: re.Pattern[str] | None = None
_encoded: re.Pattern[str] | None = None


def mask(values: Iterable[str]) -> None:
    """From now on replace these values (of 4 characters and more) by ``***`` in every line and error."""
    global _plain, _encoded
    with _lock:
        for value in values:
            # print() cuts a value of several lines into several records, so each line of it counts as well.
            _values.update(part for part in (value, *value.splitlines()) if len(part.strip()) >= SHORTEST)
        forms = {form for value in _values for form in spellings(value)}
        _plain = _pattern(forms)
        _encoded = _pattern({json.dumps(form)[1:-1] for form in forms})


def spellings(value: str) -> set[str]:
    """A value as it is, as Python shows it, and as HTML does (a table in a kept notebook)."""
    return {value, repr(value)[1:-1], html.escape(value), html.escape(value, quote=False)}


def clear() -> None:
    """Forget every value (a kernel that leaves a project)."""
    global _plain, _encoded
    with _lock:
        _values.clear()
        _plain = _encoded = None


def known() -> object:
    """What stands for the values that :func:`masked` knows, apart from a request's: another object once they are others."""
    return _plain


def masked(text: str) -> str:
    """``text`` with every known value replaced by ``***``."""
    pattern = _plain
    if pattern is not None:
        text = pattern.sub(STARS, text)
    for mask in log_context.masks():
        text = mask.text(text)
    return text


def masked_line(line: str) -> str:
    """An encoded JSON line with every known value replaced, still valid JSON with its metadata intact.

    Most lines hold no value, and one search tells; a line that does is taken apart and encoded again.
    """
    pattern = _encoded
    if (pattern is None or not pattern.search(line)) and not any(mask.is_in_line(line) for mask in log_context.masks()):
        return line
    record = json.loads(line)
    return json.dumps({key if key in KEYS else masked(key): value if key in METADATA else _walk(value) for key, value in record.items()})


def _walk(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {masked(key): _walk(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item) for item in value]
    if isinstance(value, (int, float)) and masked(text := json.dumps(value)) != text:
        return STARS  # a PIN that was turned into a number
    return value


def _pattern(forms: set[str]) -> re.Pattern[str] | None:
    # Longest first: with "abcd" and "abcdef" known, the longer one must not leave "ef" behind.
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None
