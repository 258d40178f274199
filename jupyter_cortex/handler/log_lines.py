"""A log record as fields, and the fields as one JSON line or one readable line."""

from __future__ import annotations

import datetime
import json
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from .errors_text import message_of, traceback_text

#: What a line says about itself. An extra of that name would hide it, or raise in the standard library's makeRecord.
RESERVED = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "labels", "taskName"}
#: The record's attribute that holds the author's extras: a formatter need not guess them from the record again.
EXTRAS = "_cortex_extras"

_PLAIN_INT = 2**63  #: integers below it are written without asking the encoder
_NO_EXTRAS: dict[str, Any] = {}

_noted = False  #: dropped_extra_keys is said once per process: one note helps, a note per line is noise
_second: tuple[int, str] = (-1, "")  #: the last formatted second; strftime costs more than all the rest of a line


def attach(record: logging.LogRecord, extra: Any) -> None:
    """Put an ``extra`` on a record without ever raising: clashing keys are left out and noted once per process."""
    global _noted
    if extra is None:
        record.__dict__[EXTRAS] = _NO_EXTRAS
        return
    extras: dict[str, Any] = {}
    dropped: list[str] = []
    try:
        items: Iterable[tuple[Any, Any]] = list(extra.items())
    except Exception:  # a list, a string: the standard library would raise inside the handler
        items = [("extra", extra)]
    for key, value in items:
        name = key if isinstance(key, str) else _text(key) or "null"
        if name in RESERVED:
            dropped.append(name)
        else:
            extras[name] = value
            record.__dict__[name] = value
    if dropped and not _noted:
        _noted = True
        extras["dropped_extra_keys"] = dropped
    record.__dict__[EXTRAS] = extras


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The record's fields in the order of a line: asctime, levelname, message, process, exc_info, extras."""
    merged: dict[str, Any] = {}
    if isinstance(record.msg, dict):  # logger.info({...}): its keys are fields, its message is the message
        merged = record.msg
        message = merged.get("message")
    else:
        message = _message(record)
    values: dict[str, Any] = {
        "asctime": _asctime(record.created),
        "levelname": record.levelname,
        "message": message,
        "process": record.process,
    }
    exc_info = record.exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3 and isinstance(exc_info[1], BaseException):
        values["exc_info"] = traceback_text(exc_info[1])
    if record.stack_info:
        values["stack_info"] = record.stack_info
    for key, value in merged.items():
        name = key if isinstance(key, str) else _text(key) or "null"
        if name not in RESERVED and not name.startswith("_"):
            values[name] = value
    for key, value in _extras(record).items():
        if not key.startswith("_"):
            values[key] = value
    return values


#: Fields that a cut line keeps of its author's; those that say whose line it is stay in any case.
FIELDS_OF_CUT, KEY_OF_CUT = 50, 100
_WHOSE = ("labels", "request_id")


def cut(values: dict[str, Any], most: int, mask: Callable[[str], str]) -> dict[str, Any]:
    """The same fields, long ones cut at their ends so that they make a line of at most ``most`` bytes; masked first: half a secret is one."""
    said = [(key, value) for key, value in values.items() if key not in _WHOSE][:FIELDS_OF_CUT]
    share = most // (len(said) + 1)
    found: dict[str, Any] = {}
    for key, value in said:
        text = mask(value if isinstance(value, str) else encode_value(value))
        if len(text) <= share and len(_quote(text)) <= share:
            found[key[:KEY_OF_CUT]] = value
            continue
        length = share
        while len(_quote(text[:length])) > share:  # an escaped character is up to twelve
            length //= 2
        found[key[:KEY_OF_CUT]] = text[:length] + "…"
    return found | {key: values[key] for key in _WHOSE if key in values}


def encode(values: dict[str, Any]) -> str:
    """One JSON line, ASCII only, without a newline. What JSON has no form for becomes text; never raises."""
    try:
        return _joined(values)
    except Exception:  # a key that is no string, a circle, too deep, a surprise in an author's class
        return _joined({key: _encodable(value) for key, value in values.items()})


class Labels(dict[str, str]):
    """The labels of every line, encoded once."""

    def __init__(self, labels: dict[str, str]) -> None:
        super().__init__(labels)
        self.text = json.dumps(labels)


def _joined(values: dict[str, Any]) -> str:
    """By hand, because most values are strings and setting up the C encoder costs 3 us a line, strings 0.1 us."""
    parts = []
    for key, value in values.items():
        cls = type(value)
        if cls is str:
            text = _quote(value)
        elif cls is Labels:
            text = value.text
        elif cls is int and -_PLAIN_INT < value < _PLAIN_INT:
            text = str(value)
        else:
            text = _encode(value)
        parts.append(f"{_quote(key)}: {text}")
    return "{" + ", ".join(parts) + "}"


def readable(values: dict[str, Any]) -> str:
    """``12:00:01 INFO  message  key=value key2={"a":1}``, with the traceback below."""
    rest = {k: v for k, v in values.items() if k not in ("asctime", "levelname", "message", "process", "labels")}
    below = [str(rest.pop(key)) for key in ("stack_info", "exc_info") if key in rest]
    message = values["message"]
    line = f"{values['asctime'][11:19]} {values['levelname']:<5} {'' if message is None else _shown(message, bare=True)}"
    if rest:
        line += "  " + " ".join(f"{key}={_shown(value)}" for key, value in rest.items())
    # A lone surrogate would make the stream refuse the whole line.
    return "\n".join([line, *reversed(below)]).encode("utf-8", "backslashreplace").decode()


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    found = record.__dict__.get(EXTRAS)
    if found is None:  # made by another logger (a child such as cortex.model)
        found = {key: value for key, value in record.__dict__.items() if key not in RESERVED}
    return found


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # logger.info("%d", "x"): the line is worth more than its formatting
        return f"{_text(record.msg)} {_text(record.args)}"


def _asctime(created: float) -> str:
    global _second
    second, text = _second  # one tuple, read and replaced as a whole: no lock
    if second != int(created):
        second = int(created)
        text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        _second = (second, text)
    return f"{text},{int((created - second) * 1000):03d}"


def _fallback(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    return message_of(value) if isinstance(value, BaseException) else _text(value)


def _text(value: Any) -> str | None:
    try:
        return str(value)
    except Exception:
        return None


def _encodable(value: Any) -> Any:
    try:
        _encode(value)
    except Exception:
        return _text(value)
    return value


def _shown(value: Any, *, bare: bool = False) -> str:
    if not isinstance(value, str):
        value = encode_value(value)
        return value
    plain = bare or (value and value.isprintable() and not any(char in ' "=' for char in value))
    return value if plain else json.dumps(value, ensure_ascii=False)


def encode_value(value: Any) -> str:
    """One value as compact JSON, under the same rules as a line."""
    try:
        return _encode_compact(value)
    except Exception:
        return _encode_compact(_encodable(value))


_quote = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder(default=_fallback).encode
_encode_compact = json.JSONEncoder(default=_fallback, separators=(",", ":"), ensure_ascii=False).encode
