"""Two results beside each other."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_cortex.project.difference import MOST, difference

THEN = {"label": "setosa", "score": 0.1, "rows": [1, {"a": None}], "gone": True}


def told(then: Any, now: Any) -> list[tuple[str, str, str | None, str | None]]:
    return [(row["kind"], row["path"], row["then"], row["now"]) for row in difference(then, now)["rows"]]


def test_equal_values_have_no_rows() -> None:
    assert difference(THEN, dict(reversed(THEN.items()))) == {"rows": [], "more": 0, "same": True, "tolerance": 1e-6}


def test_each_difference_is_told_with_its_path_and_both_values() -> None:
    now = {"label": "virginica", "score": 0.1, "rows": [1, {"a": 0}, "new"], "added": {"b": [1]}}
    assert told(THEN, now) == [
        ("changed", "result.label", '"setosa"', '"virginica"'),
        ("changed", "result.rows[1].a", "null", "0"),
        ("added", "result.rows[2]", None, '"new"'),
        ("removed", "result.gone", "true", None),
        ("added", "result.added", None, '{"b": [1]}'),
    ]


def test_null_is_a_value_and_no_missing_one() -> None:
    assert told({"a": None}, {}) == [("removed", "result.a", "null", None)]
    assert told({}, {"a": None}) == [("added", "result.a", None, "null")]


@pytest.mark.parametrize(
    ("then", "now", "kind"),
    [
        (0.1, 0.1 + 1e-9, "close"),
        (1, 1.0000000001, "close"),
        (1, 1.0, ""),
        (0.1, 0.2, "changed"),
        (1, 2, "changed"),
        (10**400, 1.5, "changed"),
        (True, 1, "changed"),
        (False, 0, "changed"),
        ("1", 1, "changed"),
        ([], {}, "changed"),
    ],
)
def test_floats_may_differ_a_little_and_nothing_else_may(then: Any, now: Any, kind: str) -> None:
    found = difference({"x": then}, {"x": now})
    assert [row["kind"] for row in found["rows"]] == ([kind] if kind else [])
    assert found["same"] == (kind in ("", "close"))


def test_many_differences_are_counted_and_deep_values_do_not_end_it() -> None:
    found = difference({"x": list(range(1000))}, {"x": []})
    assert (len(found["rows"]), found["more"], found["same"]) == (MOST, 1000 - MOST, False)
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert difference({"x": deep}, {"x": deep})["same"]
    assert len(difference({"x": deep}, {"x": 1})["rows"][0]["then"]) < 400
