"""Notebook files as they are found, the snapshot that travels, and the files that a module needs beside itself."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import ProjectError
from jupyter_cortex.project.notebook import cells as notebooks
from jupyter_cortex.project.notebook import references as files
from jupyter_cortex.project.notebook.cells import Cell, Notebook, check_document, code_cells, read, snapshot
from jupyter_cortex.project.notebook.references import references


def code(source: Any, **keys: Any) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None, **keys}


def document(*cells: Any, **metadata: Any) -> dict[str, Any]:
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": list(cells)}


def saved(directory: Path, content: Any, name: str = "n.ipynb") -> Path:
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


# Reading --------------------------------------------------------------------------------------------------------------------------------------


def test_code_cells_are_numbered_in_the_order_of_the_document(tmp_path: Path) -> None:
    found = read(saved(tmp_path, document(code("a = 1"), {"cell_type": "markdown", "source": "# b"}, code("c = 3", id="x", execution_count=7))))
    assert [(cell.number, cell.source, cell.count, cell.id) for cell in found.cells] == [(1, "a = 1", None, ""), (2, "c = 3", 7, "x")]
    assert (found.name, found.executed, found.cells[1].label) == ("n.ipynb", False, "cell 2")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a\nb", "a\nb"),
        (["a\n", "b"], "a\nb"),
        ([], ""),
        ("", ""),
        (None, ""),
        ("a\r\nb\rc", "a\nb\nc"),
        (["ä = 1"], "ä = 1"),
    ],
)
def test_a_source_is_a_text_or_a_list_of_lines(source: Any, text: str) -> None:
    assert code_cells(document(code(source)))[0].source == text


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        ({"papermill": {"duration": 1.5}}, 1.5),
        ({"papermill": {"duration": 2}}, 2.0),
        ({"papermill": {"duration": None}}, None),
        ({"execution": {"iopub.execute_input": "2024-05-01T10:00:00.5Z", "shell.execute_reply": "2024-05-01T10:01:00.5Z"}}, 60.0),
        ({"execution": {"iopub.execute_input": "2024-05-01T10:00:00Z"}}, None),
        ({"execution": {"iopub.execute_input": "soon", "shell.execute_reply": "later"}}, None),
        ({"execution": {"iopub.execute_input": "2024-05-01T10:00:00Z", "shell.execute_reply": "2024-05-01T10:01:00"}}, None),
        ({}, None),
    ],
)
def test_how_long_a_cell_took_is_what_papermill_or_jupyterlab_wrote_down(metadata: dict[str, Any], seconds: float | None) -> None:
    assert code_cells(document(code("x", metadata=metadata)))[0].seconds == seconds


def test_tags_are_read_and_what_is_no_list_of_tags_is_none() -> None:
    made = code_cells(document(code("x", metadata={"tags": ["cortex", "b"]}), code("x", metadata={"tags": "cortex"}), code("x", metadata=None)))
    assert [cell.tags for cell in made] == [{"cortex", "b"}, frozenset(), frozenset()]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is not a notebook (no JSON); save it again from Jupyter"),
        (b"x = 1\n", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        ([], "it has no cells; is it a notebook?"),
        ({"cells": {}}, "it has no cells; is it a notebook?"),
        ({"nbformat": 3, "worksheets": [{"cells": []}]}, "its format is too old; open it in Jupyter and save it"),
        (document(language_info={"name": "R"}), "it is a notebook of R; a Handler is written in Python"),
        (document(kernelspec={"language": "julia"}), "it is a notebook of julia; a Handler is written in Python"),
    ],
)
def test_what_is_no_notebook_of_python_is_refused_in_one_line_with_a_remedy(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(ProjectError, match=r"^n\.ipynb: ") as caught:
        read(saved(tmp_path, content))
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="there is no such file"):
        read(tmp_path / "gone.ipynb")
    (tmp_path / "dir.ipynb").mkdir()
    with pytest.raises(ProjectError, match="cannot be read"):
        read(tmp_path / "dir.ipynb")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, document(code("x = 1", outputs=[{"text": "x" * 2**20}])))
    assert len(read(path).cells) == 1
    monkeypatch.setattr(notebooks, "MAX_NOTEBOOK_BYTES", 2**20)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(ProjectError, match="more than 1 MiB; clear its outputs and save it"):
        read(path)


@pytest.mark.parametrize("metadata", [{}, {"language_info": {"name": "python"}}, {"language_info": {"name": "ipython"}}, {"kernelspec": {}}])
def test_a_notebook_is_of_python_unless_it_says_otherwise(metadata: dict[str, Any]) -> None:
    assert check_document(document(code("x"), **metadata), "n.ipynb")


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    assert read(saved(tmp_path, b"\xef\xbb\xbf" + json.dumps(document(code("a = 1"))).encode())).cells[0].source == "a = 1"


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_notebook_is_read_or_refused_but_never_a_traceback(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    whole = document(
        code(["a = 1\n", "b"], id="a", metadata={"tags": ["cortex"], "papermill": {"duration": 1}, "execution": {"shell.execute_reply": "x"}}),
        {"cell_type": "markdown", "source": "# b", "attachments": {"x.png": {}}},
        kernelspec={"language": "python", "name": "x"},
        language_info={"name": "python"},
    )

    def damage(value: Any) -> Any:
        if chance.random() < 0.15:
            return chance.choice([None, 3, "text", [], {}, [1], {"a": 1}, True, -0.5])
        if isinstance(value, dict):
            return {key: damage(part) for key, part in value.items() if chance.random() > 0.05}
        return [damage(part) for part in value] if isinstance(value, list) else value

    for _ in range(20):
        try:
            found = read(saved(tmp_path, damage(whole)))
        except ProjectError:
            continue
        json.loads(snapshot(found))


# The snapshot ---------------------------------------------------------------------------------------------------------------------------------


def test_the_snapshot_has_the_cells_without_outputs_and_without_what_is_only_of_this_machine(tmp_path: Path) -> None:
    outputs = [{"output_type": "stream", "text": "the output " * 1000}]
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": "the state"}}
    text = {"cell_type": "markdown", "source": "# é \ud800", "attachments": {"a.png": "the picture"}, "metadata": {}}
    whole = document(code("a = 1", id="x", outputs=outputs, execution_count=9), text, widgets=widgets, kernelspec={"name": "python3"})
    made = json.loads(snapshot(read(saved(tmp_path, whole))))
    assert made["cells"][0] == code("a = 1", id="x")
    assert made["cells"][1] == {"cell_type": "markdown", "source": "# é \ud800", "metadata": {}}
    assert made["metadata"] == {"kernelspec": {"name": "python3"}}
    assert not any(word in json.dumps(made) for word in ("the output", "the state", "the picture"))


def test_what_ran_in_a_kernel_makes_a_snapshot_without_a_file() -> None:
    made = json.loads(snapshot(Notebook([Cell("a = 1", id="x"), Cell("b = 2")], executed=True)))
    assert (made["nbformat"], [(cell["id"], cell["source"]) for cell in made["cells"]]) == (4, [("x", "a = 1"), ("c1", "b = 2")])


def test_the_same_notebook_makes_the_same_snapshot(tmp_path: Path) -> None:
    first = saved(tmp_path, document(code("a = 1", execution_count=1)), "a.ipynb")
    again = saved(tmp_path, document(code("a = 1", execution_count=2, outputs=[{"x": 1}])), "b.ipynb")
    assert snapshot(read(first)) == snapshot(read(again))


# What the module needs beside itself ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in ("data.csv", "models/a.bin", "models/.hidden", "models/sub/b.bin", "values.json", ".env", "notes.txt", "one.txt", "two.txt"):
        (tmp_path / "home" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / path).write_text("x")
    (tmp_path / "outside.csv").write_text("x")
    return tmp_path / "home"


def module(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_local_modules_come_along_transitively_and_installed_ones_do_not(root: Path) -> None:
    module(root, "own.py", "import json, helper\n")
    module(root, "helper.py", "def f():\n    from deep.er import thing\n")
    module(root, "deep/er/thing.py", "from . import other\n")
    module(root, "deep/er/other.py")
    module(root, "unused.py")
    found = references("import own, numpy\n", root)
    assert found.files == {
        "own.py": "imported by handler.py",
        "helper.py": "imported by own.py",
        "deep/er/other.py": "imported by helper.py",
        "deep/er/thing.py": "imported by helper.py",
    }


def test_a_package_comes_along_whole_with_what_its_modules_import_and_name(root: Path) -> None:
    module(root, "pack/__init__.py", "from .a import x\n")
    module(root, "pack/a.py", "from . import b\nfrom .. import top\nimport side\nopen('data.csv')\n")
    module(root, "pack/table.json", "{}")
    module(root, "pack/__pycache__/a.pyc")
    module(root, "pack.py", "import never\n")
    module(root, "side.py")
    module(root, "never.py")
    assert set(references("from pack.a import x", root).files) == {"pack/__init__.py", "pack/a.py", "pack/table.json", "side.py", "data.csv"}


def test_a_module_that_is_imported_by_name_comes_along(root: Path) -> None:
    module(root, "plug.py")
    assert set(references("import importlib\np = importlib.import_module('plug')", root).files) == {"plug.py"}


def test_modules_that_import_each_other_or_are_no_python_end(root: Path) -> None:
    module(root, "a.py", "import b\n")
    module(root, "b.py", "import a, c\n")
    module(root, "c.py", "this is no python (\n")
    (root / "d.py").write_bytes(b"# \xff\xfe\nimport a\n")
    assert set(references("import a, d", root).files) == {"a.py", "b.py", "c.py", "d.py"}


@pytest.mark.parametrize(
    "source",
    [
        "open('data.csv')",
        "read(path='data.csv')",
        "PATH = 'data.csv'",
        "PATH: str = './data.csv'",
        "NAME = 'data'\nopen(NAME + '.csv')",
        "NAME = 'data'\nopen(f'{NAME}.csv')",
        "NAME: str = 'data'\nopen(f'{NAME}.csv')",
        "from pathlib import Path\nPath('.').joinpath('data.csv').read_text()",
        "from pathlib import Path\nx = Path('.') / 'data.csv'",
        "import os\nx = os.path.join('.', 'data.csv')",
        "def f(path='data.csv'): pass",
        "def f(*, path='data.csv'): pass",
        "class Handler:\n    def __init__(self):\n        self.path = 'data.csv'",
        "def f():\n    return 'data.csv'",
        "FILES = ['data.csv']",
        "FILES = {'iris': 'data.csv'}",
        "for name in ('data.csv', 'gone.csv'):\n    open(name)",
        "with open('data.csv') as f: pass",
    ],
)
def test_a_file_that_the_code_names_comes_along_with_its_line(root: Path, source: str) -> None:
    files = references(source, root).files
    assert set(files) == {"data.csv"}
    assert files["data.csv"].startswith("named in handler.py, line ")


def test_a_local_module_names_files_beside_itself(root: Path) -> None:
    module(root, "pack/__init__.py", "from pathlib import Path\nimport os\nA = Path(__file__).parent.parent / 'data.csv'\n")
    module(root, "side.py", "import os\nB = os.path.join(os.path.dirname(__file__), 'values.json')\nC = __import__('pathlib')\n")
    assert {"data.csv", "values.json"} <= set(references("import pack, side", root).files)


@pytest.mark.parametrize(
    "source",
    [
        "row['data.csv']",
        "row = {'data.csv': 1}",
        "ok = name == 'data.csv'",
        "def f():\n    'data.csv'",
        "'data.csv'",
        "x = 'data'",
        "x = '.env'",
        "x = ''",
        "x = '.'",
        "x = './'",
        "x = 'data.csv\\n'",
        "x = 'data.csv\\0'",
        "x = 'http://data.csv'",
        "x = 'x' * 3",
        "x = '" + "a" * 600 + "'",
        "x = ['models', 'sub']",
        "x = b'data.csv'",
        "x = '~nobody-of-this-name/data.csv'",
        "this is no python (",
    ],
)
def test_what_only_looks_like_a_path_brings_nothing(root: Path, source: str) -> None:
    found = references(source, root)
    assert (found.files, found.outside) == ({}, [])


def test_a_directory_that_is_named_comes_along_without_what_is_hidden(root: Path) -> None:
    assert set(references("load('models')", root).files) == {"models/a.bin", "models/sub/b.bin"}


def test_files_elsewhere_are_noted_once_and_do_not_come_along(root: Path) -> None:
    outside = str(root.parent / "outside.csv")
    found = references(f"open('../outside.csv')\nopen('../outside.csv')\nopen({outside!r})\nopen('/dev/null')", root)
    listed = [("../outside.csv", 1), (outside, 3)]
    assert (found.files, found.outside) == ({}, [row for row in listed if not row[0].startswith("/tmp")])


def test_what_is_told_to_stay_stays(root: Path) -> None:
    module(root, "own.py")
    assert references("import own\nopen('data.csv')", root, skip=frozenset({"own.py", "data.csv"})).files == {}


def test_the_root_may_be_written_in_any_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for written in (Path("."), root / "models" / "..", Path("models/..")):
        assert set(references("open('data.csv')", written).files) == {"data.csv"}


def test_what_cannot_be_read_as_a_file_does_not_come_along(root: Path) -> None:
    (root / "models" / "gone").symlink_to(root / "nowhere")
    os.mkfifo(root / "models" / "pipe")
    assert set(references("load('models')", root).files) == {"models/a.bin", "models/sub/b.bin"}


def test_a_big_directory_is_bounded_in_files_and_in_directories(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 20)
    for number in range(60):
        module(root, f"many/{number:03}.bin")
        (root / "hollow" / f"{number:03}" / "deeper").mkdir(parents=True)
    walked: list[str] = []
    walk = os.walk

    def counted(top: Any) -> Any:
        for row in walk(top):
            walked.append(row[0])
            yield row

    monkeypatch.setattr(os, "walk", counted)
    assert len((many := references("load('many')", root)).files) == 20
    assert many.cut == {"many"}, "and it is said"
    assert references("load('hollow')", root).files == {}
    assert len(walked) <= 2 + 20 + 2


def test_a_huge_tree_beside_the_notebook_is_not_walked_unless_it_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(root, "huge/data.bin")
    module(root, "own.py")
    monkeypatch.setenv("HOME", str(root))
    walked: list[str] = []
    monkeypatch.setattr(os, "walk", lambda top: walked.append(str(top)) or iter(()))
    source = "import own, numpy.linalg, os\nopen('data.csv')\nopen('~/notes.txt')\nx = ['~', '~/', '/', '..', 'huge']\n"
    source += "open(os.path.expanduser('~'))\nopen('..')\nopen('~')\n"
    assert set(references(source, root).files) == {"own.py", "data.csv", "notes.txt"}
    assert walked == []
