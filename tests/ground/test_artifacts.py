"""``artifacts`` in the spec, and what a client makes of the files they name."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import ProjectError, SpecError
from jupyter_cortex.core.spec import APISpec, check_specs
from jupyter_cortex.project import artifacts
from jupyter_cortex.project.project import from_config, from_directory

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


# The files that they name ---------------------------------------------------------------------------------------------


def write(root: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def test_what_is_sent_says_what_each_file_is_and_changes_no_document(tmp_path: Path) -> None:
    document = entry(["./a", {"path": "b"}, {"path": "c", "sha256": SHA, "bytes": 1}])
    before = copy.deepcopy(document)
    contents = artifacts.read([document], artifacts.sources([document], write(tmp_path, a=b"one", b=b"")))
    assert artifacts.sent(document, contents)["artifacts"] == [
        {"path": "a", "sha256": hashlib.sha256(b"one").hexdigest(), "bytes": 3},
        {"path": "b", "sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0},
        {"path": "c", "sha256": SHA, "bytes": 1},  # not here, but it may be where it is sent
    ]
    assert document == before
    assert artifacts.sent(entry([]), contents) == entry([])


def test_paths_are_found_in_documents_that_nobody_has_checked_yet() -> None:
    odd: list[Any] = [None, 1, "x", {}, {"artifacts": 1}, {"artifacts": [1, None, {}, {"path": 2}, "./a", {"path": "b/c"}]}]
    assert artifacts.paths_of(odd) == {"a", "b/c"}


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ("none", "artifact_missing"),
        ("directory", "not_a_file"),
        ({"path": "a", "sha256": SHA}, "artifact_differs"),
        ({"path": "a", "bytes": 4}, "artifact_differs"),
        ("a/b", "unreadable"),
    ],
)
def test_a_file_that_is_not_what_is_named_is_refused_with_its_path(item: Any, kind: str, tmp_path: Path) -> None:
    write(tmp_path, a=b"one")
    (tmp_path / "directory").mkdir()
    with pytest.raises(ProjectError) as caught:
        artifacts.read([entry([item])], artifacts.sources([entry([item])], tmp_path))
    path = item if isinstance(item, str) else item["path"]
    assert (caught.value.details["kind"], caught.value.details["path"]) == (kind, path)
    assert path in caught.value.message


@pytest.mark.parametrize("change", ["shorter", "longer", "same"])
def test_a_file_that_changes_before_it_is_sent_is_noticed(change: str, tmp_path: Path) -> None:
    content = artifacts.read([entry(["a"])], {"a": write(tmp_path, a=b"x" * 3_000_000) / "a"})["a"]
    assert b"".join(content.pieces()) == b"x" * 3_000_000
    write(tmp_path, a=b"x" * {"shorter": 2_000_000, "longer": 4_000_000, "same": 3_000_000}[change])
    with pytest.raises(ProjectError, match="changed while it was read"):
        list(content.pieces())


def test_a_digest_is_remembered_for_as_long_as_the_file_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, memory = {"a": write(tmp_path, a=b"one") / "a"}, tmp_path / "cache" / "digests.json"

    def digest() -> str:
        return artifacts.read([entry(["a"])], place, memory)["a"].sha256

    assert digest() == hashlib.sha256(b"one").hexdigest()
    assert not memory.exists(), "a file that has just been written may change again within the same tick"
    monkeypatch.setattr(artifacts, "SETTLED_NS", 0)
    digest()
    memory.write_text(memory.read_text().replace(digest(), SHA))
    assert digest() == SHA, "it is not read again"
    times = place["a"].stat()
    write(tmp_path, a=b"two")
    os.utime(place["a"], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest() == hashlib.sha256(b"two").hexdigest(), "the same size and time are not the same file"
    for damage in (b"{", b"[1]", b'{"a": 1}', b"\xff"):
        memory.write_bytes(damage)
        assert digest() == hashlib.sha256(b"two").hexdigest()
    memory.write_text(json.dumps({str(place["a"].absolute()): 5}))
    assert digest() == hashlib.sha256(b"two").hexdigest()


def test_an_artifact_counts_to_no_limit_of_the_project_and_is_not_asked_about(tmp_path: Path) -> None:
    (tmp_path / "cortex.yaml").write_text("- {name: a, kind: AsyncAPI, handler: {type: python, path: handler.py}, artifacts: [./big/model.bin]}\n")
    write(tmp_path, **{"handler.py": b""})
    (tmp_path / "big").mkdir()
    with (tmp_path / "big" / "model.bin").open("wb") as file:
        file.truncate(40 * 2**20)
    for project in (from_config(tmp_path / "cortex.yaml"), from_directory(entry(["big/model.bin"]), tmp_path)):
        assert "handler.py" in [file.path for file in project.files]
        assert "big/model.bin" not in [file.path for file in project.files]
        assert project.warnings == []
        assert project.artifact_sources() == {"big/model.bin": tmp_path / "big" / "model.bin"}
    elsewhere = dataclasses.replace(project, artifacts={"big/model.bin": tmp_path / "x"})
    assert elsewhere.artifact_sources() == {"big/model.bin": tmp_path / "x"}


def test_artifacts_are_linked_into_a_copy_of_the_project(tmp_path: Path) -> None:
    source = write(tmp_path, model=b"one") / "model"
    artifacts.link_into({"deep/er/model": source}, tmp_path / "copy")
    assert (tmp_path / "copy" / "deep" / "er" / "model").read_bytes() == b"one"
    with pytest.raises(ProjectError, match="is not there"):
        artifacts.link_into({"other": tmp_path / "none"}, tmp_path / "copy")
