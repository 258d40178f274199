"""Bytes and a Content-Type in, what ``handle_async`` receives out: the one parser of gateway, replica and notebook."""

from __future__ import annotations

import json
import re
import sys
from functools import lru_cache
from typing import Any, NoReturn

from jupyter_cortex.core.errors import PayloadError

#: Body characters an error may echo. Payloads can hold private data; this is enough to see a quote or a comma.
ECHO = 24
#: Characters of the Content-Type that an error repeats; a header may be 64 kB long.
ECHO_TYPE = 100
#: How far we look for the place where nesting becomes too deep; beyond it the sentence has no position.
DEPTH_SCAN = 1_000_000

#: Text encodings in Python's registry that are no charset of any sender; some take quadratic time on long input.
PYTHON_ONLY = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})

_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:+-]{0,63}")
_FORM = re.compile(r"\s*[A-Za-z0-9_.\[\]%+-]+=")
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def parse(body: bytes, content_type: str | None) -> Any:
    """Turn a request body into a payload.

    ``application/json`` gives any JSON value, ``text/plain`` a str in the declared charset (utf-8 by default),
    everything else the exact bytes. Raises :class:`PayloadError` whose ``kind`` is ``json_decode``, ``text_decode``,
    ``unknown_charset`` or ``missing_content_type``; ``line``, ``column`` or ``offset`` say where.
    """
    if content_type is None or not content_type.strip():
        raise PayloadError(
            "the request has no Content-Type header; send one, for example 'Content-Type: application/json'",
            kind="missing_content_type",
        )
    body = body if isinstance(body, bytes) else bytes(body)
    media_type, charset = _media_type_and_charset(content_type)
    if media_type == "application/json":
        try:
            # On the bytes, not on decoded text: the encoding is found by inspection and a byte order mark is skipped.
            return json.loads(body)
        except Exception as exc:  # RecursionError, ValueError for 4,300 digits and MemoryError are refusals as well
            _refuse_json(body, content_type, exc)
    if media_type == "text/plain":
        return _text(body, content_type, charset or "utf-8")
    return body


def is_bytes(content_type: str) -> bool:
    """Whether :func:`parse` gives the exact bytes of every body with this Content-Type: nothing about them can be wrong."""
    return bool(content_type.strip()) and _media_type_and_charset(content_type)[0] not in ("application/json", "text/plain")


def parse_content_type(value: str) -> tuple[str, dict[str, str]]:
    """Split a Content-Type into the lower-cased media type and its parameters.

    Parameter names are lower-cased, quotes are removed, the last of repeated parameters wins, and a piece without
    ``=`` is ignored. Never raises: what is not a media type is simply not equal to one.
    """
    media_type, *pieces = _split(value)
    parameters: dict[str, str] = {}
    for piece in pieces:
        name, equals, raw = piece.partition("=")
        if equals:
            parameters[name.strip().lower()] = _unquoted(raw.strip())
    return media_type.strip().lower(), parameters


@lru_cache(maxsize=256)  # a sender repeats its header; parsing it costs more than a small json.loads
def _media_type_and_charset(value: str) -> tuple[str, str]:
    media_type, parameters = parse_content_type(value)
    return media_type, parameters.get("charset", "").strip()


def _split(value: str) -> list[str]:
    """Cut at the semicolons outside quotes; a quote that never closes runs to the end."""
    if '"' not in value:
        return value.split(";")
    pieces, start, quoted, escaped = [], 0, False, False
    for index, char in enumerate(value):
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == ";" and not quoted:
            pieces.append(value[start:index])
            start = index + 1
    return [*pieces, value[start:]]


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    inner = value[1:-1] if len(value) > 1 and value.endswith('"') else value[1:]
    return re.sub(r"\\(.)", r"\1", inner)


def _text(body: bytes, content_type: str, charset: str) -> str:
    if not _is_charset(charset):
        raise PayloadError(
            f"Content-Type {_named(content_type)}: {_cut(ascii(charset), 60)} is not a known charset; "
            "use a name such as utf-8, iso-8859-1 or windows-1252, or leave it out for utf-8",
            kind="unknown_charset",
            content_type=_cut(content_type, ECHO_TYPE),
            charset=_cut(charset, 60),
        )
    try:
        return body.decode(charset)
    except UnicodeDecodeError as exc:
        offset, byte = exc.start, f"byte 0x{body[exc.start]:02x} " if exc.start < len(body) else "the end "
    except Exception:  # a codec may raise a bare UnicodeError, which knows no position
        offset, byte = 0, "the text "
    raise PayloadError(
        f"Content-Type {_named(content_type)}: {byte}at offset {offset} is not {charset}; "
        "send the charset that the text is written in, or application/octet-stream for raw bytes",
        kind="text_decode",
        content_type=_cut(content_type, ECHO_TYPE),
        charset=charset,
        offset=offset,
    ) from None


@lru_cache(maxsize=64)
def _is_charset(name: str) -> bool:
    """Whether Python decodes text with it. A one-byte probe, because an empty body would skip the look-up."""
    if not _CHARSET.fullmatch(name) or re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") in PYTHON_ONLY:
        return False
    try:
        b"a".decode(name)
    except UnicodeError:
        return True  # known, but one byte is not a whole character of it (utf-16)
    except Exception:  # unknown, or not a text encoding (base64, hex, zlib, rot13)
        return False
    return True


def _refuse_json(body: bytes, content_type: str, exc: Exception) -> NoReturn:
    text, why, position = _json_problem(body, exc)
    where, details = "", {}
    if position is not None:
        line = text.count("\n", 0, position) + 1
        column = position - (text.rfind("\n", 0, position) + 1) + 1
        where, details = f" at line {line}, column {column}", {"line": line, "column": column, "offset": position}
        near = text[position : position + ECHO]
        where += f" (near {_cut(ascii(near), 40)})" if near.strip() and near.isprintable() else ""
    raise PayloadError(
        f"Content-Type {_named(content_type)}: the body is not valid JSON: {why}{where}; {_remedy(body, text)}",
        kind="json_decode",
        content_type=_cut(content_type, ECHO_TYPE),
        **details,
    ) from None


def _json_problem(body: bytes, exc: Exception) -> tuple[str, str, int | None]:
    """The body as text (for lines and columns), what is wrong, and the character where it is."""
    encoding = json.detect_encoding(body)
    text = body.decode(encoding, "replace")
    if isinstance(exc, json.JSONDecodeError):
        # The parser's sentence holds no more than one escaped character of the body.
        return exc.doc if isinstance(exc.doc, str) else text, exc.msg, exc.pos
    if isinstance(exc, UnicodeDecodeError):
        # The offset counts bytes; the characters before it are decodable and give line and column.
        before = body[: exc.start].decode(encoding, "replace")
        return text, f"byte offset {exc.start} is not {encoding}", len(before)
    if isinstance(exc, RecursionError):
        return text, "it is nested too deeply", _too_deep(text)
    digits = sys.get_int_max_str_digits()
    if isinstance(exc, ValueError) and digits:
        # From the first digit of each number only: from every one of them, 64 MB of long numbers would take minutes.
        long = re.search(rf"(?<!\d)\d{{{digits + 1}}}", text)
        return text, f"a number has more than {digits} digits", long.start() if long else None
    return text, f"the parser gave up ({type(exc).__name__})", None


def _too_deep(text: str) -> int | None:
    depth, limit = 0, max(200, sys.getrecursionlimit() // 2)
    for token in _TOKENS.finditer(text, 0, DEPTH_SCAN):
        first = token[0][0]
        depth += 1 if first in "[{" else -1 if first in "]}" else 0
        if depth > limit:
            return token.start()
    return None


def _remedy(body: bytes, text: str) -> str:
    start = text[:200].lstrip("\ufeff \t\r\n")
    if not body.strip():
        return "the body is empty: send a JSON value, null for nothing"
    if body[:2] == b"\x1f\x8b":
        return "it is compressed (gzip), and Content-Encoding is not undone: send it uncompressed"
    if _FORM.match(start):
        return 'it looks like a form: with curl, write the JSON out, as in -d \'{"key": "value"}\''
    if start[:2] in ("{'", "['"):
        return "it looks like Python: JSON strings take double quotes (json.dumps writes them)"
    if start[:1] == "<":
        return "it looks like XML or HTML: send its own Content-Type and it arrives as bytes"
    return "send JSON, or another Content-Type for raw bytes"


def _named(content_type: str) -> str:
    return _cut(ascii(content_type), ECHO_TYPE)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
