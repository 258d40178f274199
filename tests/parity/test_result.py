"""What handle_async returned becomes JSON, or an error that points at the value."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import uuid
from typing import Any

import numpy
import pytest

from jupyter_cortex.core.errors import ResultError
from jupyter_cortex.handler import result


def refusal(value: Any) -> ResultError:
    with pytest.raises(ResultError) as caught:
        result.encode(value)
    return caught.value


def test_the_result_is_compact_json_in_the_handlers_order() -> None:
    assert result.encode({"b": 1, "a": [1.0, True, None]}) == b'{"b":1,"a":[1.0,true,null]}'


def test_numbers_keep_their_digits() -> None:
    value = {"i": 2**64 + 1, "f": 0.1, "e": 1e300}
    assert json.loads(result.encode(value)) == value


def test_lone_surrogates_survive() -> None:
    assert result.encode({"a": "\ud800é"}) == b'{"a":"\\ud800\\u00e9"}'


class Pair(collections.namedtuple("Pair", "a b")):
    pass


def test_subclasses_of_plain_types_are_plain() -> None:
    class Number(enum.IntEnum):
        ONE = 1

    value = collections.OrderedDict(x=Pair(1, 2), n=Number.ONE, f=numpy.float64(0.5))
    assert result.encode(value) == b'{"x":[1,2],"n":1,"f":0.5}'


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (None, "return missing"),
        (({"a": 1}, 200), "status code"),
        ([1], "wrap it"),
        ("text", "wrap it"),
        ((x for x in ()), "generator"),
        (numpy.float32(1), "numpy.float32"),
    ],
)
def test_what_is_no_dict_is_named_with_a_remedy(value: Any, hint: str) -> None:
    error = refusal(value)
    assert error.details["kind"] == "not_a_dict"
    assert hint in error.message


@dataclasses.dataclass
class Record:
    a: int = 1


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (numpy.float32(0.5), "is numpy.float32; use float(...)"),
        (numpy.int64(1), "is numpy.int64; use int(...)"),
        (numpy.bool_(True), "use bool(...)"),
        (numpy.zeros(2), "is numpy.ndarray; use .tolist()"),
        (datetime.datetime(2021, 1, 1), "is datetime.datetime; use .isoformat()"),
        (datetime.date(2021, 1, 1), ".isoformat()"),
        (decimal.Decimal(1), "float(...)"),
        (uuid.UUID(int=1), "str(...)"),
        (b"x", "base64"),
        ({1, 2}, "sorted(...)"),
        (range(3), "list(...)"),
        ({}.keys(), "list(...)"),
        (pathlib.Path("x"), "str(...)"),
        (ValueError("x"), "str(...)"),
        (Record(), "dataclasses.asdict(...)"),
        (Colour.RED, ".value"),
        (1j, "z.real"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        pytest.param(10**5000, "digits", id="huge-int"),
        (object(), "plain Python values"),
        ({(1, 2): 1}, "key of type tuple"),
        ({float("inf"): 1}, "key Infinity"),
    ],
)
def test_a_value_that_is_not_json_is_found_and_has_a_remedy(value: Any, hint: str) -> None:
    error = refusal({"ok": [1, "a"], "scores": [1, 2, 3, value]})
    assert error.details == {"kind": "not_json", "path": 'result["scores"][3]'}
    assert error.message.startswith('result["scores"][3] ')
    assert hint in error.message


def test_the_first_offender_in_order_is_reported() -> None:
    assert refusal({"a": {"b": {1}}, "c": {2}}).details["path"] == 'result["a"]["b"]'


def test_a_circle_is_found_and_a_shared_value_is_not_one() -> None:
    shared = [1]
    assert result.encode({"a": shared, "b": shared}) == b'{"a":[1],"b":[1]}'
    circle: dict[str, Any] = {"a": []}
    circle["a"].append(circle)
    error = refusal(circle)
    assert error.details["path"] == 'result["a"][0]'
    assert "circular" in error.message


def test_too_deep_nesting_is_refused_without_a_recursion_error() -> None:
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"k": value}
    error = refusal(value)
    assert "deep" in error.message
    assert len(error.message) < 500


def test_a_long_key_does_not_flood_the_message() -> None:
    assert len(refusal({"k" * 100_000: {"\ud800" * 1000: {1}}}).message) < 500


def test_a_dict_whose_own_methods_raise_is_refused() -> None:
    class Broken(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise OSError("gone")

        def __iter__(self) -> Any:
            raise OSError("gone")

    assert refusal(Broken(a=1)).details["kind"] == "not_json"
