"""``.env``: every case of the contract; a parser, never a shell."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_cortex.core.errors import EnvFileError
from jupyter_cortex.project.dotenv import parse

CASES = yaml.safe_load((Path(__file__).parents[1] / "contract" / "env.yaml").read_text("utf-8"))["cases"]


def refused(data: bytes, **base_env: str) -> EnvFileError:
    with pytest.raises(EnvFileError) as caught:
        parse(data, base_env)
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_env_case_of_the_contract_holds(case: dict[str, Any]) -> None:
    data = base64.b64decode(case["text_b64"]) if "text_b64" in case else case["text"].encode()
    expected = case["expect"]
    if "env" in expected:
        assert parse(data, case.get("base_env", {})) == expected["env"]
        return
    error = refused(data, **case.get("base_env", {}))
    assert (error.details["kind"], error.details.get("line")) == (expected["error"], expected["line"])
    assert ".env" in error.message
    assert f"line {expected['line']}" in error.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('A="a\\"b\\\\c\\$d\\`e\\nf"', 'a"b\\c$d`e\\nf'),
        ("A='$HOME `x` $(y) \\'", "$HOME `x` $(y) \\"),
        ("A=$ROOT/${ROOT}x$missing.", "/srv//srvx."),
        ("A=$1$$ ${X:-y} a$", "$1$$ ${X:-y} a$"),
        ("A=a b  c", "a b  c"),
        ("A=x#y", "x#y"),
        ('A=it\'s "fine"', 'it\'s "fine"'),
        ("A=\\$ROOT", "\\/srv"),
        ('A="\\$ROOT"', "$ROOT"),
        ("\texport\tA=x\t # c", "x"),
        ("A=x\r", "x"),
        ("A='' # c", ""),
        ("A=é✓", "é✓"),
    ],
)
def test_values_are_read_as_documented(text: str, value: str) -> None:
    assert parse(text.encode(), {"ROOT": "/srv"}) == {"A": value}


@pytest.mark.parametrize(
    ("data", "kind", "line"),
    [
        (b"A=\xff", "encoding", None),
        ("A=1".encode("utf-16"), "encoding", None),
        (b"\n\nA='x", "unterminated_quote", 3),
        (b'A="x\\"', "unterminated_quote", 1),
        (b"A='x'y", "text_after_quote", 1),
        (b"A='x'#y", "text_after_quote", 1),
        (b'A="$(x)"', "command_substitution", 1),
        (b'A="`x`"', "command_substitution", 1),
        (b"A=1\rB=2", "invalid_character", 1),
        (b"A=\0", "invalid_character", 1),
        (b"=x", "invalid_name", 1),
        (b"1A=x", "invalid_name", 1),
        ("é=x".encode(), "invalid_name", 1),
        (b"export A", "no_equals", 1),
        (b"\xef\xbb\xbf\xef\xbb\xbfA=1", "invalid_name", 1),
        (b"A=" + b"x" * 200_000, "too_long", 1),
    ],
)
def test_other_lines_are_refused_with_their_number(data: bytes, kind: str, line: int | None) -> None:
    error = refused(data)
    assert (error.details["kind"], error.details.get("line")) == (kind, line)


def test_earlier_lines_win_over_the_environment_and_later_ones_do_not_count() -> None:
    assert parse(b"B=$A\nA=file\nC=$A\nA=last", {"A": "base"}) == {"B": "base", "A": "last", "C": "file"}


def test_values_that_double_themselves_come_to_an_end() -> None:
    lines = ["A0=xxxxxxxxxxxxxxxx"] + [f"A{i}=$A{i - 1}$A{i - 1}" for i in range(1, 60)]
    assert refused("\n".join(lines).encode()).details["kind"] == "too_long"
    many = b"A=" + b"x" * 1000 + b'\nB="' + b"$A\\\\" * 5000 + b'"'
    assert refused(many).details["kind"] == "too_long"


@pytest.mark.parametrize(
    "line",
    [
        "hunter2",
        "hunter2/x==",
        "A B=hunter2",
        "A= hunter2",
        "A='hunter2",
        "A='x'hunter2",
        "A=$(hunter2)",
        "CORTEX_A=hunter2",
    ],
)
def test_no_message_has_a_value(line: str) -> None:
    assert "hunter2" not in json.dumps(refused(line.encode()).problem())


def test_no_bytes_bring_out_another_kind_of_error() -> None:
    chance = random.Random(5)
    alphabet = [
        b"A",
        b"=",
        b"'",
        b'"',
        b"$",
        b"{",
        b"}",
        b"\\",
        b"`",
        b"(",
        b"#",
        b" ",
        b"\t",
        b"\n",
        b"\r",
        b"\0",
        b"\xc3\xa9",
    ]
    for _ in range(5000):
        data = b"".join(chance.choices([*alphabet, b"\xff", b"export "], k=chance.randint(0, 14)))
        try:
            assert all(isinstance(value, str) for value in parse(b"A=" + data, {"A": "\udc80"}).values())
        except EnvFileError as error:
            error.message.encode()
