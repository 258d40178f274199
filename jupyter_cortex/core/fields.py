"""An ordered table of fields. It gives errors in the table's order, one at a time.

The contract says which of several errors is reported: fields in the order of the schema, the unknown keys of a map only
after all its fields. A validation library reports all of them in an order of its own, hence this small one.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .readers import INT64, Duration, FieldError, Reader, a_list, a_map, filled
from .scalars import format_duration


@dataclass(frozen=True)
class Field:
    """One key of a map: a value (``read``), a map of its own (``fields``) or a list of maps (``items``)."""

    name: str
    read: Reader | None = None
    fields: Sequence[Field] = ()
    items: Sequence[Field] = ()
    default: Any = None
    required: bool = False
    nullable: bool = False
    null: Any = None  #: what an explicit null stands for, if it is allowed
    optional: bool = False  #: an absent map stays None; otherwise it becomes a map of defaults


def read_map(value: Any, fields: Sequence[Field]) -> dict[str, Any]:
    """``value`` checked field by field, with defaults filled in. Raises FieldError for the first thing wrong."""
    given = a_map(value)
    result = {field.name: _read_field(field, given) for field in fields}
    known = set(result)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key[:100], result, n=1) or result
            raise FieldError("unknown_key", f"this key is not supported; use {', '.join(near)}, or remove it.", key)
    return result


def _read_field(field: Field, given: dict[str, Any]) -> Any:
    try:
        if field.name not in given:
            if field.required:
                raise FieldError("required", "this key is required.")
            return read_map({}, field.fields) if field.fields and not field.optional else copy.deepcopy(field.default)
        value = given[field.name]
        if value is None:
            if field.nullable:
                return copy.deepcopy(field.null)
            raise FieldError("null", "this cannot be null; give it a value, or remove the key to get the default.")
        if field.fields:
            return read_map(value, field.fields)
        if field.items:
            return [_read_item(item, index, field.items) for index, item in enumerate(filled(a_list(value)))]
        return field.read(value) if field.read else value
    except FieldError as error:
        raise error.below(field.name) from None


def _read_item(item: Any, index: int, fields: Sequence[Field]) -> dict[str, Any]:
    try:
        return read_map(item, fields)
    except FieldError as error:
        raise error.below(index) from None


def as_written(document: Any, fields: Sequence[Field]) -> Any:
    """A resolved map turned back into what :func:`read_map` reads: durations as text, keys without a value left out."""
    if not isinstance(document, dict):
        return document
    table = {field.name: field for field in fields}
    written = {}
    for key, value in document.items():
        field = table.get(key) if isinstance(key, str) else None
        if field is None or (value is None and field.nullable):
            written[key] = value
        elif field.items and isinstance(value, list):
            written[key] = [as_written(item, field.items) for item in value]
        elif isinstance(field.read, Duration) and isinstance(value, int | float) and abs(value) <= INT64:
            written[key] = format_duration(value)  # NaN is never below a limit, so it stays and is refused
        elif value is not None:
            written[key] = as_written(value, field.fields) if field.fields else value
    return written
