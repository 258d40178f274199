"""``artifacts`` in the spec, and what a client makes of the files they name."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_cortex.core.errors import SpecError
from jupyter_cortex.core.spec import APISpec, check_specs

SHA = "ab" * 32


def entry(artifacts: Any, path: str = "handler.py") -> dict[str, Any]:
    return {"name": "iris", "kind": "AsyncAPI", "handler": {"type": "python", "path": path}, "artifacts": artifacts}


def read(artifacts: Any, files: tuple[str, ...] = ("handler.py",)) -> list[dict[str, Any]]:
    spec = check_specs([entry(artifacts)], files)[0]
    assert APISpec.from_resolved(spec.resolved()) == spec
    return list(spec.resolved()["artifacts"])


def test_both_written_forms_have_one_resolved_form() -> None:
    assert read([]) == []
    assert read(["model.bin", {"path": "./models/b.bin"}, {"path": "c.bin", "sha256": SHA, "bytes": 3}]) == [
        {"path": "model.bin", "sha256": None, "bytes": None},
        {"path": "models/b.bin", "sha256": None, "bytes": None},
        {"path": "c.bin", "sha256": SHA, "bytes": 3},
    ]
    assert read([{"path": "a", "sha256": None, "bytes": None}])[0]["sha256"] is None


@pytest.mark.parametrize(
    ("artifacts", "path", "kind"),
    [
        (None, "artifacts", "null"),
        ("model.bin", "artifacts", "type"),
        ([1], "artifacts[0]", "type"),
        ([{}], "artifacts[0].path", "required"),
        ([""], "artifacts[0].path", "empty"),
        (["a", "../b"], "artifacts[1].path", "value"),
        (["/etc/passwd"], "artifacts[0].path", "value"),
        (["a/../../b"], "artifacts[0].path", "value"),
        (["a\\b"], "artifacts[0].path", "value"),
        (["C:model"], "artifacts[0].path", "value"),
        (["models/"], "artifacts[0].path", "value"),
        (["a\0b"], "artifacts[0].path", "value"),
        (["\ud800"], "artifacts[0].path", "value"),
        (["x" * 801], "artifacts[0].path", "value"),
        ([".env"], "artifacts[0].path", "reserved"),
        (["a", "./a"], "artifacts[1].path", "duplicate"),
        (["a", "a/b"], "artifacts[0].path", "conflict"),
        (["handler.py"], "artifacts[0].path", "conflict"),
        (["data.csv"], "artifacts[0].path", "conflict"),
        (["lib"], "artifacts[0].path", "conflict"),
        (["data.csv/x"], "artifacts[0].path", "conflict"),
        ([{"path": "a", "sha256": "AB" * 32}], "artifacts[0].sha256", "value"),
        ([{"path": "a", "sha256": "ab"}], "artifacts[0].sha256", "value"),
        ([{"path": "a", "bytes": -1}], "artifacts[0].bytes", "range"),
        ([{"path": "a", "bytes": "1"}], "artifacts[0].bytes", "type"),
        ([{"path": "a", "url": "s3://x"}], "artifacts[0].url", "unknown_key"),
    ],
)
def test_what_is_no_artifact_is_refused_with_its_place(artifacts: Any, path: str, kind: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_specs([entry(artifacts)], ["handler.py", "data.csv", "lib/a.py"])
    assert (caught.value.details["path"], caught.value.details["kind"]) == (path, kind)


def test_a_long_list_is_read_at_once() -> None:
    assert len(read([f"shards/{number:06}.bin" for number in range(50_000)])) == 50_000
