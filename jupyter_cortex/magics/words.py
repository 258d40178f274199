"""A magic's line as words: quotes as in a shell, ``$name`` and ``{expression}`` as in IPython, JSON left alone."""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import Any
from uuid import UUID

from IPython.core.error import UsageError
from IPython.utils.text import DollarFormatter

from ..core.errors import BadRequest

_WHOLE = re.compile(r"^(?:\$([A-Za-z_]\w*)|\{(.+)\})$", re.DOTALL)
#: What opens a value in brackets: the word itself, or what stands behind ``name=``.
_OPENED = re.compile(r"(?:[\w.-]+=)?[{\[]")
_NAMED = re.compile(r"[\w.-]+=")

#: A piece of a word, and whether it stood in single quotes. Where quotes change within a word, it has several.
Piece = tuple[str, bool]


def words(line: str, shell: Any, local: dict[str, Any] | None = None) -> list[str]:
    """Split and expand; ``local``: the variables of the function in which the magic stands. Raises UsageError for what never closes."""
    return [expand(pieces, shell, local or {}) for pieces in split(line)]


def split(line: str) -> list[list[Piece]]:
    """The pieces of each word, without the quotes around them. Braces hold a word together, and keep the quotes inside: JSON's, or Python's."""
    found: list[list[Piece]] = []
    position = 0
    while position < len(line):
        if line[position].isspace():
            position += 1
            continue
        pieces, position = _word(line, position)
        found.append(pieces)
    return found


def _word(line: str, position: int) -> tuple[list[Piece], int]:
    """The pieces of the blank-separated word that begins here, and the position behind it."""
    # A lone [ holds nothing together: it may be a file's name. Behind `name=` and at the beginning it is a list.
    openers = "{[" if _OPENED.match(line, position) else "{"
    named = _NAMED.match(line, position)
    pieces: list[Piece] = []
    while position < len(line) and not line[position].isspace():
        char = line[position]
        if char in "'\"":
            end = _end_of_quote(line, position)
            inside = line[position + 1 : end - 1]
            pieces.append((inside, True) if char == "'" else (re.sub(r'\\(["\\])', r"\1", inside), False))
        elif char in openers or (named and _is_item(line, position)):
            end = _end_of_braces(line, position)
            pieces.append((line[position:end], False))
        elif char == "\\":
            end = position + 2
            if end > len(line):
                raise UsageError("%cortex: nothing stands behind the last backslash")
            pieces.append((line[position + 1], True))
        else:
            end = position + 1
            pieces.append((char, False))
        position = end
    return _joined(pieces), position


def _is_item(line: str, position: int) -> bool:
    """Whether a bracket with a text in it stands behind a name: ``price=frame["price"]``, an expression whose quotes are Python's."""
    return bool(re.match(r"\[['\"]", line[position : position + 2])) and bool(re.match(r"[\w\])]", line[position - 1]))


def _end_of_quote(line: str, position: int) -> int:
    """Behind the quote that closes the one here."""
    quote, at = line[position], position + 1
    while at < len(line) and line[at] != quote:
        at += 2 if line[at] == "\\" and quote == '"' else 1
    if at >= len(line):
        raise UsageError(f"%cortex: a quote is never closed: {line[position : position + 40]}")
    return at + 1


def _end_of_braces(line: str, position: int) -> int:
    """Behind the brace that closes the one here; those in quotes do not count."""
    depth, at = 0, position
    while at < len(line):
        char = line[at]
        if char in "'\"":
            at = _end_of_quote(line, at)
            continue
        depth += (char in "{[") - (char in "}]")
        at += 1
        if not depth:
            return at
    raise UsageError(f"%cortex: a brace is never closed: {line[position : position + 40]}")


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind as one piece: `$name` is read letter by letter."""
    joined: list[Piece] = []
    for text, quoted in pieces:
        if joined and joined[-1][1] == quoted:
            text = joined.pop()[0] + text
        joined.append((text, quoted))
    return joined


def expand(pieces: list[Piece], shell: Any, local: dict[str, Any]) -> str:
    """One word with the notebook's values in it. What is JSON, or stood in single quotes and is no single expression, stays."""
    word = "".join(text for text, _ in pieces)
    if len(pieces) == 1 and _is_json(_NAMED.sub("", word, count=1) if _OPENED.match(word) else word):
        return word
    if len(pieces) == 1 and (match := _WHOLE.match(word)):
        source = match[1] or match[2]
        try:
            value = eval(source, shell.user_global_ns, {**shell.user_ns, **local})
        except Exception:  # as IPython does: what is no expression is text, or several of them
            pass
        else:
            return as_text(value)
    return "".join(text if quoted else _formatted(text, shell, local) for text, quoted in pieces)


def _formatted(word: str, shell: Any, local: dict[str, Any]) -> str:
    """IPython's own filling-in, which looks into the calling frame by itself; here the frame is given."""
    try:
        return str(DollarFormatter().vformat(word, args=[], kwargs={**shell.user_ns, **local}))
    except Exception:  # as IPython does: what cannot be filled in stays
        return word


def as_text(value: Any) -> str:
    """A value as an argument: text as it is, what JSON can hold as JSON. Raises BadRequest for what is neither."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        if isinstance(value, PurePath | UUID):
            return str(value)
        raise BadRequest(
            f"a value of type {type(value).__name__} is neither text nor JSON, and what Python prints for it is seldom what is meant; write it to a "
            "file and name that (--file), or convert it (`.tolist()`, `.to_dict()`)"
        ) from None


def _is_json(word: str) -> bool:
    if word[:1] not in '{["':
        return False
    try:
        json.loads(word)
    except ValueError:
        return False
    return True
