"""Bytes and Content-Type in, payload out: the contract's vectors, and what an error says."""

from __future__ import annotations

import ast
import base64
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_cortex.core.errors import CortexError, PayloadError
from jupyter_cortex.handler import payload

CASES = yaml.safe_load((Path(__file__).parents[1] / "contract" / "payload.yaml").read_text())["cases"]


def body_of(case: dict[str, Any]) -> bytes:
    if "body_gen" in case:
        gen = case["body_gen"]
        return base64.b64decode(gen["open_b64"]) * gen["count"] + base64.b64decode(gen["close_b64"]) * gen["count"]
    return base64.b64decode(case["body_b64"])


def content_type_of(case: dict[str, Any]) -> str | None:
    headers = case.get("headers")
    return headers[0][1] if isinstance(headers, list) else case["content_type"]


def depth_of(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth, value = depth + 1, value[0] if value else None
    return depth


def refusal(body: bytes, content_type: str | None) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        payload.parse(body, content_type)
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_contract_vector(case: dict[str, Any]) -> None:
    body, content_type, expect = body_of(case), content_type_of(case), case["expect"]
    if "error" in expect:
        error = refusal(body, content_type)
        assert (error.details["kind"], error.status) == (expect["error"], expect["http_status"])
        return
    value = payload.parse(body, content_type)
    assert type(value).__name__ == expect["type"]
    if "depth" in expect:
        assert depth_of(value) == expect["depth"]
    elif "value_b64" in expect:
        assert value == base64.b64decode(expect["value_b64"])
    else:
        wanted = ast.literal_eval(expect["value_repr"]) if "value_repr" in expect else expect["value"]
        if isinstance(wanted, float) and math.isnan(wanted):
            assert math.isnan(value)
        else:
            assert value == wanted


def test_a_json_error_names_content_type_line_and_column() -> None:
    error = refusal(b'{"a": 1,\n "b": x}', "application/json; charset=utf-8")
    assert (error.details["line"], error.details["column"]) == (2, 7)
    assert "application/json; charset=utf-8" in error.message
    assert "line 2, column 7" in error.message


def test_a_position_counts_characters_after_multibyte_text() -> None:
    error = refusal('{"é": x}'.encode(), "application/json")
    assert (error.details["line"], error.details["column"]) == (1, 7)


def test_undecodable_json_gives_the_byte_offset() -> None:
    error = refusal(b'{"a": "\xff"}', "application/json")
    assert error.details["column"] == 8
    assert "byte offset 7" in error.message


def test_undecodable_text_gives_the_byte_offset_and_the_charset() -> None:
    error = refusal("plain é".encode(), "text/plain; charset=us-ascii")
    assert error.details["offset"] == 6
    assert "us-ascii" in error.message
    assert "0xc3" in error.message


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"key=value&b=2", "curl"),
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{'a': 1}", "double quotes"),
        (b"<html></html>", "XML"),
        (b"\x1f\x8b\x08\x00", "uncompressed"),
    ],
)
def test_a_json_error_says_what_to_do(body: bytes, hint: str) -> None:
    assert hint in refusal(body, "application/json").message


def test_too_deep_nesting_says_where() -> None:
    error = refusal(b"[" * 100_000, "application/json")
    assert "nested too deeply" in error.message
    assert error.details["line"] == 1


def test_a_number_of_too_many_digits_says_where() -> None:
    error = refusal(b"[1,\n " + b"7" * 5000 + b"]", "application/json")
    assert (error.details["line"], error.details["column"]) == (2, 2)


@pytest.mark.parametrize("body", [b'{"password": "' + b"s3cret" * 100 + b'"', b'"' + b"\x00s3cret" * 100, b"s3cret" * 99])
def test_an_error_echoes_at_most_forty_characters_of_the_body(body: bytes) -> None:
    message = refusal(body, "application/json").message
    assert message.count("s3cret") <= 40 // len("s3cret")
    assert len(message) < 400


def test_a_huge_content_type_is_cut_in_the_error() -> None:
    assert len(refusal(b"\xff", "text/plain; charset=" + "x" * 60_000).message) < 600


@pytest.mark.parametrize(
    "charset", ["base64", "hex", "zlib", "rot13", "bz2", "idna", "undefined", "unicode_escape", "punycode:", "raw:unicode+escape", "idna."]
)
@pytest.mark.parametrize("body", [b"", b"abc"])
def test_a_codec_that_is_no_charset_is_unknown_even_for_an_empty_body(charset: str, body: bytes) -> None:
    assert refusal(body, f"text/plain; charset={charset}").details["kind"] == "unknown_charset"


@pytest.mark.parametrize(
    ("header", "media_type", "parameters"),
    [
        ('Text/Plain; Charset="UTF-8"', "text/plain", {"charset": "UTF-8"}),
        ('a/b; x="1;2"; y=3', "a/b", {"x": "1;2", "y": "3"}),
        (r'a/b; x="q\"; z=1"; y=2', "a/b", {"x": 'q"; z=1', "y": "2"}),
        ('a/b; x="never closed; y=1', "a/b", {"x": "never closed; y=1"}),
        ("a/b; flag; =x; c=", "a/b", {"": "x", "c": ""}),
        (";;;", "", {}),
    ],
)
def test_content_type_parameters(header: str, media_type: str, parameters: dict[str, str]) -> None:
    assert payload.parse_content_type(header) == (media_type, parameters)


def test_no_combination_of_odd_headers_and_bodies_escapes_the_family_of_errors() -> None:
    bodies = [
        b"",
        b"\x00",
        b"\xff\xfe",
        b"\xff\xfe\x00\x00",
        b"\xef\xbb\xbf",
        b"[" * 5000,
        b"\xed\xa0\x80",
        b'"\\ud800"',
        b"NaN",
    ]
    headers = [
        "application/json",
        "text/plain; charset=\x00",
        "text/plain; charset=utf-16",
        "text/plain; charset=utf-7",
        'text/plain; charset="',
        "text/plain; charset=\udcff",
        "text/plain; charset=punycode",
        "é/ü",
        " ",
        '"',
    ]
    for body in bodies:
        for header in headers:
            try:
                payload.parse(body, header)
            except CortexError as error:
                error.message.encode()


def test_bytearrays_and_memoryviews_count_as_bytes() -> None:
    assert payload.parse(memoryview(b"x"), "image/png") == b"x"  # type: ignore[arg-type]
    assert payload.parse(bytearray(b"[1]"), "application/json") == [1]  # type: ignore[arg-type]
