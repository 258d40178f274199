"""A magic's line as words: quotes as in a shell, ``$name`` and ``{expression}`` as in IPython, JSON left alone."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from IPython.core.error import UsageError
from IPython.utils.text import DollarFormatter

_WHOLE = re.compile(r"^(?:\$([A-Za-z_]\w*)|\{(.+)\})$", re.DOTALL)


def words(line: str, shell: Any, local: dict[str, Any] | None = None) -> list[str]:
    """Split and expand; ``local``: the variables of the function in which the magic stands. Raises UsageError for what never closes."""
    return [expand(word, quoted, shell, local or {}) for word, quoted in split(line)]


def split(line: str) -> list[tuple[str, bool]]:
    """(word, whether it was in single quotes). A word that opens a brace goes on to the brace that closes it."""
    found: list[tuple[str, bool]] = []
    position, size = 0, len(line)
    while position < size:
        if line[position].isspace():
            position += 1
            continue
        end = _end_of_word(line, position)
        raw = line[position:end]
        if raw[0] in "{[" or (raw[0] != "'" and "{" in raw and _balanced(raw)):
            found.append((raw, False))
        else:
            try:
                parts = shlex.split(raw)
            except ValueError as error:
                raise UsageError(f"%cortex: {error}: {raw[:40]}") from None
            found.append((parts[0] if parts else "", raw.startswith("'")))
        position = end
    return found


def _end_of_word(line: str, position: int) -> int:
    """Behind the blank-separated word that begins here; quotes and braces hold blanks together."""
    depth, quote = 0, ""
    opened_by_brace = line[position] in "{[" or re.match(r"[\w.-]+=[{\[]", line[position:]) is not None
    while position < len(line):
        char = line[position]
        if quote:
            if char == "\\" and quote == '"' and position + 1 < len(line):
                position += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in "{[" and (opened_by_brace or char == "{"):
            depth += 1
        elif char in "}]" and depth:
            depth -= 1
        elif char.isspace() and not depth:
            return position
        position += 1
    if quote or depth:
        raise UsageError(f"%cortex: {'a quote' if quote else 'a brace'} is never closed")
    return position


def _balanced(raw: str) -> bool:
    return raw.count("{") == raw.count("}")


def expand(word: str, quoted: bool, shell: Any, local: dict[str, Any]) -> str:
    """One word with the notebook's values in it. What is JSON, or stood in single quotes and is no single expression, stays."""
    if _is_json(word):
        return word
    if match := _WHOLE.match(word):
        source = match[1] or match[2]
        try:
            value = eval(source, shell.user_global_ns, {**shell.user_ns, **local})
        except Exception:  # as IPython does: what is no expression is text
            return word
        return as_text(value)
    return word if quoted else _formatted(word, shell, local)


def _formatted(word: str, shell: Any, local: dict[str, Any]) -> str:
    """IPython's own filling-in, which looks into the calling frame by itself; here the frame is given."""
    try:
        return str(DollarFormatter().vformat(word, args=[], kwargs={**shell.user_ns, **local}))
    except Exception:  # as IPython does: what cannot be filled in stays
        return word


def as_text(value: Any) -> str:
    """A value as an argument: text as it is, what JSON can hold as JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return str(value)


def _is_json(word: str) -> bool:
    if word[:1] not in '{["':
        return False
    try:
        json.loads(word)
    except ValueError:
        return False
    return True
