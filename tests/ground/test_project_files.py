"""Which files travel: every case of the contract, and ``.cortexignore`` beside git itself."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_cortex.core.errors import ProjectError
from jupyter_cortex.project import files as project_files
from jupyter_cortex.project.files import (
    MAX_BYTES,
    confirm_bundle,
    list_files,
    needs_bundle_prompt,
    needs_count_prompt,
    needs_file_prompt,
)
from jupyter_cortex.project.ignore import IgnoreRules

CONTRACT = yaml.safe_load((Path(__file__).parents[1] / "contract" / "project.yaml").read_text("utf-8"))
CASES, PROMPTS = CONTRACT["cases"], CONTRACT["prompt_cases"]


def build(root: Path, files: dict[str, Any]) -> Path:
    """Make the tree of a case; the path of its ``cortex.yaml``."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_bytes(content.encode())
        elif "size" in content:
            with path.open("wb") as file:
                file.truncate(content["size"])
        elif "symlink" in content:
            path.symlink_to(content["symlink"])
        else:
            path.mkdir(exist_ok=True)
    return root / "cortex.yaml"


def paths(config: Path, **options: Any) -> list[str]:
    return [file.path for file in list_files(config, **options)]


def refusal(config: Path, **options: Any) -> ProjectError:
    with pytest.raises(ProjectError) as caught:
        list_files(config, **options)
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_project_case_of_the_contract_holds(case: dict[str, Any], tmp_path: Path) -> None:
    tree = dict(case["files"])
    if case["cortexignore"] is not None:
        tree[".cortexignore"] = case["cortexignore"]
    root = tmp_path / case.get("project_dir_name", "project")
    config = build(root, tree).with_name(case.get("config", "cortex.yaml"))
    if "include" in case["expect"]:
        assert sorted(paths(config)) == sorted(case["expect"]["include"])
        return
    error = refusal(config)
    assert (error.details["kind"], error.details["path"]) == (case["expect"]["error"], case["expect"]["path"])
    assert case["expect"]["path"] in error.message


@pytest.mark.parametrize("case", PROMPTS, ids=[case["id"] for case in PROMPTS])
def test_every_prompt_case_of_the_contract_holds(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if "error" in case:
        monkeypatch.setenv("HOME", str(tmp_path))
        root = Path("/") if case["project_root"] == "/" else tmp_path
        assert refusal(root / "cortex.yaml").details["kind"] == case["error"]
    elif "largest_file" in case:
        assert needs_file_prompt(case["largest_file"]) == bool(case["prompt"])
    elif "file_count" in case:
        assert needs_count_prompt(case["file_count"]) == bool(case["prompt"])
    else:
        assert needs_bundle_prompt(case["zip_bytes"], 5) == bool(case["prompt"])
        assert not needs_bundle_prompt(case["zip_bytes"], 1000)


def test_files_come_in_walk_order_with_env_last(tmp_path: Path) -> None:
    config = build(tmp_path, {"b": "1", "a/z": "22", "a.txt": "", ".env": "A=1", "cortex.yaml": ""})
    listed = list_files(config)
    assert [(file.path, file.size, file.is_env) for file in listed] == [
        ("a/z", 2, False),
        ("a.txt", 0, False),
        ("b", 1, False),
        (".env", 3, True),
    ]
    assert listed[0].source.read_text() == "22"


def test_the_config_file_may_have_any_name_and_then_cortex_yaml_travels(tmp_path: Path) -> None:
    build(tmp_path, {"cortex.yaml": "", "prod.yaml": "", "sub/prod.yaml": ""})
    assert paths(tmp_path / "prod.yaml") == ["cortex.yaml", "sub/prod.yaml"]


def test_debug_files_and_directories_stay_behind(tmp_path: Path) -> None:
    config = build(tmp_path, {"cortex-debug-1.zip": "", "cortex-debug-x/a": "", "my-cortex-debug-1": "", "cortex.yaml": ""})
    assert paths(config) == ["my-cortex-debug-1"]


def test_a_link_to_a_file_travels_with_its_targets_content_and_size(tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(b"12345")
    config = build(tmp_path / "p", {"link.bin": {"symlink": "../outside.bin"}, "x.pyc": {"symlink": "../outside.bin"}})
    assert [(file.path, file.size) for file in list_files(config)] == [("link.bin", 5)]


def test_a_link_to_itself_is_a_broken_link(tmp_path: Path) -> None:
    config = build(tmp_path, {"loop": {"symlink": "loop"}})
    assert refusal(config).details["kind"] == "broken_symlink"


def test_a_dotenv_that_is_a_directory_is_not_there(tmp_path: Path) -> None:
    assert paths(build(tmp_path, {".env/x": "", "a": ""})) == ["a"]


def test_a_socket_is_left_out_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build(tmp_path, {"a": ""})
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    warnings: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert paths(config, warnings=warnings) == ["a"]
    assert warnings == ["s is left out: it is not a regular file."]


def test_too_large_a_project_names_the_five_largest_and_the_remedy(tmp_path: Path) -> None:
    sizes = {f"f{index}.bin": {"size": index * 3 * 2**20} for index in range(1, 7)}
    error = refusal(build(tmp_path, {**sizes, ".env": {"size": 100}}))
    assert (error.details["kind"], error.details["path"]) == ("too_large", "f5.bin")  # 3 + 6 + 9 + 12 is 30 MiB
    assert ".cortexignore" in error.message
    assert "f6.bin (18.0 MiB), f5.bin (15.0 MiB), f4.bin (12.0 MiB), f3.bin (9.0 MiB), f2.bin (6.0 MiB)" in error.message
    assert "f1.bin" not in error.message


def test_too_large_a_file_is_named_with_the_limit(tmp_path: Path) -> None:
    error = refusal(build(tmp_path, {"w.bin": {"size": MAX_BYTES + 1}, "a": ""}))
    assert error.details["path"] == "w.bin"
    assert "33,554,433" in error.message
    assert "33,554,432" in error.message


def test_no_to_a_large_file_leaves_only_that_file_out(tmp_path: Path) -> None:
    config = build(tmp_path, {"large.bin": {"size": 10 * 2**20 + 1}, "a": "", "edge.bin": {"size": 10 * 2**20}})
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return False

    assert paths(config, confirm=confirm) == ["a", "edge.bin"]
    assert len(asked) == 1
    assert "large.bin" in asked[0]


def test_without_anyone_to_ask_the_questions_become_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build(tmp_path, {"large.bin": {"size": 10 * 2**20 + 1}, "a": ""})
    monkeypatch.setattr(project_files, "ASK_FILE_COUNT", 2)
    warnings: list[str] = []
    assert paths(config, warnings=warnings) == ["a", "large.bin"]
    assert warnings == ["large.bin has 10.0 MiB.", "The project has 2 files."]


def test_no_to_many_files_or_a_large_bundle_deploys_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_files, "ASK_FILE_COUNT", 2)
    config = build(tmp_path, {"a": "", ".env": ""})
    assert refusal(config, confirm=lambda question: False).details["kind"] == "declined"
    with pytest.raises(ProjectError, match="answered no"):
        confirm_bundle(10 * 2**20, 1, confirm=lambda question: False)
    confirm_bundle(10 * 2**20, 1, confirm=lambda question: True)
    warnings: list[str] = []
    confirm_bundle(10 * 2**20, 1, warnings=warnings)
    assert warnings == ["The project's bundle has 10.0 MiB."]


def test_a_home_directory_behind_a_link_is_still_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    build(home, {"a": ""})
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(tmp_path / "link"))
    assert refusal(home / "cortex.yaml").details["kind"] == "deploy_from_top_level_dir"
    assert refusal(tmp_path / "link" / "cortex.yaml").details["kind"] == "deploy_from_top_level_dir"
    assert paths(build(home / "project", {"b": ""})) == ["b"]


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no" / "cortex.yaml").details["kind"] == "no_such_directory"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not take such names")
@pytest.mark.parametrize("name", [b"bad\xff.txt", b"back\\slash", b"C:x"])
def test_a_name_that_cannot_travel_is_refused_unless_it_is_ignored(name: bytes, tmp_path: Path) -> None:
    config = build(tmp_path, {"a": ""})
    with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
        pass
    error = refusal(config)
    assert error.details["kind"] == "invalid_name"
    error.message.encode()
    build(tmp_path, {".cortexignore": "bad*\nback*\nC*\n"})
    assert paths(config) == ["a"]


def test_a_deep_tree_is_walked(tmp_path: Path) -> None:
    assert [path.count("/") for path in paths(build(tmp_path, {"d/" * 390 + "x": ""}))] == [390]


def test_a_path_that_is_too_long_for_other_systems_is_refused(tmp_path: Path) -> None:
    assert refusal(build(tmp_path, {("n" * 200 + "/") * 4 + "x": ""})).details["kind"] == "invalid_name"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_directory_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = build(tmp_path, {"locked/x": ""})
    (tmp_path / "locked").chmod(0)
    try:
        error = refusal(config)
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert (error.details["kind"], error.details["path"]) == ("unreadable", "locked/")


@pytest.mark.parametrize(
    ("line", "path", "is_directory", "excluded"),
    [
        ("/*.md", "docs/x.md", False, False),
        ("/*.md", "x.md", False, True),
        ("data/", "data", False, False),
        ("data/", "data", True, True),
        ("[[:upper:]]*", "Readme", False, True),
        ("[[:nope:]]", "n", False, False),
        ("[z-a]", "m", False, False),
        ("a/***/b", "a/x/y/b", False, True),
        ("?", "é", False, False),  # two bytes, as in git
        ("!", "a", False, False),
        ("/", "a", True, False),
        ("\\", "a", False, False),
        ("a\\ ", "a ", False, True),
        ("A", "a", False, False),
    ],
)
def test_single_patterns_match_as_in_git(line: str, path: str, is_directory: bool, excluded: bool) -> None:
    assert IgnoreRules(line.encode()).excludes(path, is_directory=is_directory) == excluded


def test_a_pattern_of_many_stars_does_not_take_for_ever() -> None:
    rules = IgnoreRules(b"*a" * 60 + b"b\n" + b"x/" + b"**/" * 12 + b"*a*a*a*a*c\n")
    assert not rules.excludes("a" * 250, is_directory=False)
    assert not rules.excludes("x/" + "a" * 40, is_directory=False)


NAMES = [
    "a",
    "b",
    "ab",
    "abc",
    "foobar",
    "foo.py",
    "x.csv",
    "a b",
    "a[b",
    "#x",
    "!y",
    "é",
    "a*b",
    "-",
    "]",
    "A1",
    "a\\b",
    "a ",
]
TOKENS = [
    *("a", "b", "ab", "foo", "bar", ".py", "*", "**", "***", "?", "/", "/**/", "**/", "/**", "[ab]", "[!a]", "[a-c]"),
    *(
        "[]a]",
        "[[:alpha:]]",
        "[[:upper:]0-9]",
        "[a",
        "\\",
        "\\*",
        " ",
        "!",
        "#",
        "é",
        "x",
        "[[:foo:]]",
        "[[a:]",
        "[a-]",
    ),
    *("[\\]a]", "[a/b]", "\\/", "[z-a]", "[[:]", "[:a]"),
]


def _walked(root: Path, rules: IgnoreRules, prefix: str = "") -> list[str]:
    found = []
    for entry in os.scandir(root):
        path = prefix + entry.name
        directory = entry.is_dir(follow_symlinks=False)
        if path in (".git", ".gitignore") or rules.excludes(path, is_directory=directory):
            continue
        found += _walked(Path(entry.path), rules, path + "/") if directory else [path]
    return found


def _random_patterns(chance: random.Random) -> bytes:
    lines = []
    for _ in range(chance.randint(1, 5)):
        line = "".join(chance.choices(TOKENS, k=chance.randint(1, 5)))
        end = chance.choice(["  ", "\r", "/", "\\ "]) if chance.random() < 0.2 else ""
        lines.append(("!" if chance.random() < 0.3 else "") + line + end)
    return (("\ufeff" if chance.random() < 0.1 else "") + "\n".join(lines)).encode()


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("git"), reason="needs git, and names that only Linux takes")
@pytest.mark.parametrize("seed", range(4))
def test_random_patterns_exclude_what_git_excludes(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "init", "-q", tmp_path], check=True, env=environment)
    for _ in range(45):
        path = tmp_path.joinpath(*chance.choices(NAMES, k=chance.randint(1, 4)))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to("a") if chance.random() < 0.1 else path.touch()
        except OSError:
            continue  # one of its directories is a file already
    listing = ["git", "-c", "core.excludesFile=" + os.devnull, "ls-files", "-z", "--others", "--exclude-standard"]
    for _ in range(120):
        patterns = _random_patterns(chance)
        (tmp_path / ".gitignore").write_bytes(patterns)
        output = subprocess.run(listing, cwd=tmp_path, check=True, capture_output=True, env=environment).stdout
        kept = {name for name in os.fsdecode(output).split("\0") if name and name != ".gitignore"}
        assert set(_walked(tmp_path, IgnoreRules(patterns))) == kept, patterns
