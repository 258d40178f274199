"""The files of a project by chance: cortex.yaml, .cortexignore and .env are accepted, or refused by an error of the house that names the place."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_cortex.core.errors import EnvFileError, SpecError
from jupyter_cortex.core.schema import API, Field
from jupyter_cortex.core.spec import APISpec, check_specs
from jupyter_cortex.project import config_file, dotenv
from jupyter_cortex.project.ignore import IgnoreRules

from ..conftest import missing

# cortex.yaml ---------------------------------------------------------------------------------------------------------------------------------


def _circle() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


#: What YAML and JSON can hold, and Python's objects that PyYAML makes of tags.
_scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5)),
    st.sampled_from(
        [10**400, -(10**20), "\ud800", "\0", "x" * 2000, "1s", "10s", "1h30m", "512Mi", "200m", "25%", "*", "http://a.b:99999", "a/b.py", "../x", "/"]
    ),
    st.sampled_from([date(2020, 1, 1), (1, 2), frozenset([1])]),
    st.builds(_circle),
)
anything = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3), max_leaves=8
)
_GOOD: dict[str, Any] = yaml.safe_load("""
{name: iris, kind: AsyncAPI, type: python, path: handler.py, cpu: 200m, mem: 1Gi, window: 60s, days: 3, payload: always, endpoint: /iris,
 allow_origins: ["*"], env: {A: b}, config: {a: [1, {b: null}]}, redact: [a.b], min_replicas: 2, drain_timeout: 1h, log_level: debug,
 artifacts: [models/a.bin], max_surge: 10%, threads_per_process: 4, max_deliveries: 1}
""")


def _entry(fields: tuple[Field, ...] | Any) -> st.SearchStrategy[dict[Any, Any]]:
    """A map of these fields: mostly good values, now and then anything, and seldom a key that is none."""
    keys: dict[str, st.SearchStrategy[Any]] = {}
    for one in fields:
        below = _entry(one.fields) if one.fields else st.lists(_entry(one.items), max_size=2) if one.items else None
        good = st.just(_GOOD[one.name]) if one.name in _GOOD else below
        keys[one.name] = st.one_of(good, good, good, anything if below is None else below, anything) if good is not None else anything
    required = {one.name: keys.pop(one.name) for one in fields if one.required and one.name in keys}
    known = st.fixed_dictionaries(required, optional=keys)
    few = st.dictionaries(st.sampled_from([*keys, *required, "kindd", "handler "]), anything, max_size=1)
    return st.builds(lambda base, odd, use: {**base, **odd} if use == 0 else base, known, few, st.integers(0, 5))


def _checked(documents: Any) -> list[APISpec]:
    """The specs; a refusal must name its place, and nothing else may come."""
    try:
        return check_specs(documents, ["handler.py", "a/b.py"])
    except SpecError as caught:
        refusal = caught
    document = json.loads(json.dumps(refusal.problem()))
    document["detail"].encode()
    assert document["detail"].startswith("cortex.yaml: ")
    assert len(document["detail"]) < 1500
    assert document["kind"]
    assert isinstance(document["path"], str)
    if "api" in document:
        assert f"[{document['api']}]" in document["detail"]
        assert document["path"] == "" or document["path"] in document["detail"]
    return []


@given(anything | st.lists(anything, max_size=2))
@settings(max_examples=400)
def test_any_value_is_a_spec_or_a_refusal_that_names_the_place(documents: Any) -> None:
    assert all(isinstance(spec, APISpec) for spec in _checked(documents))


@given(st.lists(_entry(API), min_size=1, max_size=2))
@settings(max_examples=400)
def test_what_is_nearly_a_spec_is_one_or_is_refused_at_its_place(documents: list[Any]) -> None:
    for spec in _checked(documents):
        resolved = spec.resolved()
        assert APISpec.from_resolved(json.loads(json.dumps(resolved, allow_nan=False))) == spec, "what was accepted comes back from the store"


def test_good_entries_are_among_those_that_are_tried() -> None:
    found: list[APISpec] = []

    @given(_entry(API))
    @settings(max_examples=100)
    def run(document: Any) -> None:
        found.extend(_checked([document]))

    run()
    assert found


_yaml = st.one_of(
    st.binary(max_size=60),
    st.text(st.sampled_from(list("-:{}[]&*!|>'\"%@`#,? \n\tab1~<=\\.0xe_")), max_size=60).map(str.encode),
    st.lists(
        st.sampled_from(
            [
                b"- ",
                b"name: ",
                b"a",
                b"\n",
                b"  ",
                b"&a ",
                b"*a",
                b"<<: ",
                b"!!binary ",
                b"!!set ",
                b"!!timestamp ",
                b"---\n",
                b"? ",
                b"0x_",
                b"1e999",
            ]
        ),
        max_size=20,
    ).map(b"".join),
    anything.map(lambda value: _dumped(value)),
)


def _dumped(value: Any) -> bytes:
    try:
        return yaml.dump(value, allow_unicode=True).encode()
    except (yaml.YAMLError, UnicodeEncodeError, ValueError):
        return b"- name: iris"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "cortex.yaml"


def test_any_bytes_of_a_config_file_are_entries_or_a_refusal(config: Path) -> None:
    @given(_yaml)
    @settings(max_examples=500)
    def run(data: bytes) -> None:
        config.write_bytes(data)
        try:
            documents = config_file.load(config)
        except SpecError as refusal:
            json.dumps(refusal.problem()).encode()
            return
        assert all(isinstance(spec, APISpec) for spec in _checked(documents))

    run()


# .cortexignore -------------------------------------------------------------------------------------------------------------------------------

TREE = [
    "a",
    "b.txt",
    "ab",
    "dir/a",
    "dir/b.txt",
    "dir/sub/a",
    "dir/sub/deep/ab",
    "sub/a",
    "x y",
    "[a]",
    "!a",
    "#a",
    "a-b",
    "dir.d/b",
    "\u00e9/a",
    "A",
    "a\\b",
    "*",
]
_glob = st.lists(
    st.sampled_from(
        [
            *"ab/*?![]^-\\#. x",
            "**",
            "**/",
            "/**",
            "dir",
            "sub",
            "b.txt",
            "[a-c]",
            "[!a]",
            "[[:alpha:]]",
            "[]a]",
            "\\ ",
            "\u00e9",
            "\r",
            "\t",
            "\0",
            ":]",
        ]
    ),
    max_size=8,
).map("".join)
rules = st.lists(_glob, max_size=5).map("\n".join).map(str.encode) | st.binary(max_size=40)


@given(rules, st.text(st.characters(exclude_characters="\0"), max_size=30), st.booleans())
@settings(max_examples=600)
def test_any_bytes_are_ignore_rules_and_answer_for_any_path(data: bytes, path: str, is_directory: bool) -> None:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return  # no file can have this name
    found = IgnoreRules(data).excludes(path, is_directory=is_directory)
    assert found in (True, False)


@given(st.lists(st.sampled_from([*"ab*?[]!#\\ -^é."]), min_size=1, max_size=12).map("".join))
def test_a_name_whose_characters_are_escaped_excludes_itself_and_can_be_brought_back(name: str) -> None:
    escaped = "".join(f"\\{char}" for char in name)
    assert IgnoreRules(escaped.encode()).excludes(name, is_directory=False)
    assert not IgnoreRules(f"{escaped}\n!{escaped}".encode()).excludes(name, is_directory=False)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    try:
        subprocess.run(["git", "init", "-q", root], check=True, env=_git_env(root))
    except FileNotFoundError:
        missing("git is not on PATH: `apt-get install git`")
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _git_env(root: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}


def _ours(data: bytes) -> set[str]:
    """The files of TREE that are left out, asked for as a walk does: top down."""
    found, rules = set(), IgnoreRules(data)
    for name in TREE:
        parts = name.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        if any(rules.excludes(one, is_directory=True) for one in above) or rules.excludes(name, is_directory=False):
            found.add(name)
    return found


def test_the_rules_leave_out_what_git_leaves_out(repository: Path) -> None:
    listed = "\0".join(TREE).encode()

    @given(rules)
    @settings(max_examples=200)
    def run(data: bytes) -> None:
        (repository / ".gitignore").write_bytes(data)
        command = ["git", "check-ignore", "--no-index", "--stdin", "-z"]
        said = subprocess.run(command, cwd=repository, input=listed, capture_output=True, check=False, env=_git_env(repository))
        assert said.returncode in (0, 1), said.stderr
        assert _ours(data) == set(said.stdout.decode().split("\0")) - {""}

    run()


# .env ----------------------------------------------------------------------------------------------------------------------------------------

_line = st.lists(
    st.sampled_from(
        [
            "A",
            "B_1",
            "=",
            "'",
            '"',
            "$",
            "${A}",
            "$B",
            "{",
            "}",
            "\\",
            "`",
            "(",
            "#",
            " ",
            "\t",
            "export ",
            "\r",
            "\0",
            "hunter2",
            "CORTEX_",
            "\u00e9",
            "1",
        ]
    ),
    max_size=12,
).map("".join)
env_files = st.lists(_line, max_size=6).map("\n".join).map(str.encode) | st.binary(max_size=60)


@given(env_files)
@settings(max_examples=500)
def test_any_bytes_of_an_env_file_are_variables_or_a_refusal_that_names_the_line_and_no_value(data: bytes) -> None:
    try:
        variables = dotenv.parse(data, {"A": "from outside", "HOME": "/home"})
    except EnvFileError as caught:
        refusal = caught
    else:
        for name, value in variables.items():
            assert name.isidentifier()
            assert not name.startswith("CORTEX_")
            assert not {"\0", "\n"} & set(value)
        return
    document = refusal.problem()
    assert "hunter2" not in json.dumps(document)
    if document["kind"] != "encoding":
        assert 1 <= document["line"] <= data.count(b"\n") + 1
        assert f"line {document['line']}" in document["detail"]


@given(
    st.dictionaries(
        st.from_regex(r"[A-BD-Z][A-Z0-9_]{0,8}", fullmatch=True), st.text(st.characters(exclude_characters="\n\r\0", codec="utf-8")), max_size=5
    )
)
def test_a_value_in_quotes_comes_back_as_it_was(variables: dict[str, str]) -> None:
    double = ["".join(f"\\{char}" if char in '"\\$`' else char for char in value) for value in variables.values()]
    written = "\n".join(f'{name}="{value}"' for name, value in zip(variables, double, strict=True))
    assert dotenv.parse(written.encode(), {}) == variables
    single = {name: value for name, value in variables.items() if "'" not in value}
    assert dotenv.parse("\n".join(f"{name}='{value}'" for name, value in single.items()).encode(), {}) == single
