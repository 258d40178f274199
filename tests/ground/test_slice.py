"""From cells to the module: every case of ``notebooks/``; and what needs a newer Python.

A case's ``cells`` are texts or the fields of a Cell; ``uses`` adds a last cell whose Handler returns these expressions. ``takes`` are the statements
that come along in front of Handler, in order, by their first line or their whole text; ``module`` is the module's exact text without its header.
``reasons`` maps a statement to a part of its reasons. ``surprises`` are the kinds of all surprises, ``says`` parts of what they say, ``never`` what
nothing of it may show.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_cortex.project.from_notebook import star_names
from jupyter_cortex.project.notebook.cells import Cell, Notebook, State
from jupyter_cortex.project.notebook.module import HEADER, reasons, write
from jupyter_cortex.project.notebook.slicing import Slice, slice_timeline
from jupyter_cortex.project.notebook.steps import timeline
from jupyter_cortex.project.notebook.surprises import cells_of, surprises

CASES = [
    {**case, "theme": path.stem}
    for path in sorted((Path(__file__).parent / "notebooks").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text("utf-8"))["cases"]
]
HANDLER = "class Handler:\n    def handle_async(self, payload):\n        return [{}]"
STARS = {"math": {"pi", "sin", "pow"}, "own": {"helper"}, "empty": set()}


def cell_of(given: str | dict[str, Any], number: int) -> Cell:
    fields = {"source": given} if isinstance(given, str) else dict(given)
    fields["source"] = fields["source"].rstrip("\n")
    fields.setdefault("number", number)
    fields["state"] = State(fields.get("state", "current"))
    fields["tags"] = frozenset(fields.get("tags", ()))
    return Cell(**fields)


def notebook_of(case: dict[str, Any]) -> Notebook:
    given = [*case["cells"], *([HANDLER.format(case["uses"])] if "uses" in case else [])]
    cells = [cell_of(cell, number) for number, cell in enumerate(given, 1)]
    return Notebook(
        cells,
        Path("notebook.ipynb"),
        executed=case.get("executed", False),
        alive=frozenset(case.get("alive", ())),
        loading=lambda name, target: f"{target} = load({name + '.joblib'!r})" if name in case.get("saved", ()) else "",
        edited=[cell for cell in cells if cell.state is State.EDITED],
        waiting=[cell_of(cell, len(cells) + number) for number, cell in enumerate(case.get("waiting", ()), 1)],
    )


def sliced(notebook: Notebook) -> Slice:
    return slice_timeline(timeline(notebook), STARS.get)


@pytest.mark.parametrize("case", CASES, ids=[f"{case['theme']}: {case['id']}" for case in CASES])
def test_a_notebook_becomes_its_module(case: dict[str, Any]) -> None:
    notebook = notebook_of(case)
    found = sliced(notebook)
    text, placed = write(found)
    rows = surprises(found, notebook, case.get("requirements"))
    if "takes" in case:
        taken = [step.text for step in found.order if step is not found.handler]
        assert [text if text in case["takes"] else text.split("\n")[0] for text in taken] == case["takes"]
    if "module" in case:
        assert text == f"{HEADER}\n\n{case['module']}"
    for statement, part in case.get("reasons", {}).items():
        row = next(row for row in reasons(found, placed) if str(row["text"]).startswith(statement))
        assert part in " | ".join(map(str, row["reasons"]))  # type: ignore[call-overload]
    assert sorted(row.kind for row in rows) == sorted(case.get("surprises", [])), list(map(str, rows))
    said = "\n".join(map(str, rows))
    for part in case.get("says", []):
        assert part in said
    for part in case.get("never", []):
        assert part not in said + "".join(row.text for row in found.left_out) + "".join(
            str(reason) for every in found.reasons.values() for reason in every
        )
    assert all(row.message and row.remedy and "\n" not in str(row) for row in rows), "each surprise is one line and has a remedy"
    blocks = {"no_handler", "undefined", "await"} | ({"syntax"} if found.handler is None else set())
    assert {row.kind for row in rows if row.blocks} == {row.kind for row in rows} & blocks


def test_there_are_many_cases_and_each_has_a_sentence_of_its_own() -> None:
    assert len(CASES) >= 80
    assert len({case["id"] for case in CASES}) == len(CASES)
    assert all(len(case["id"].split()) >= 4 for case in CASES)


def test_every_statement_has_a_reason() -> None:
    for case in CASES:
        found = sliced(notebook_of(case))
        assert all(found.reasons[step.index] for step in found.order)


def test_the_cells_of_a_slice_come_each_once_in_order() -> None:
    notebook = notebook_of({"cells": ["a = 1\nb = 2", "unused = 1", "c = a"], "uses": "a, b, c"})
    assert [cell.number for cell in cells_of(sliced(notebook))] == [1, 3, 4]


def test_another_class_can_be_the_one_that_is_published() -> None:
    notebook = notebook_of({"cells": ["a = 1\nb = 2", "class Other:\n    def handle_async(self):\n        return a"], "uses": "b"})
    found = slice_timeline(timeline(notebook), STARS.get, "Other")
    assert [step.text.split("\n")[0] for step in found.order] == ["a = 1", "class Other:"]


def test_cell_magics_that_hold_python_and_those_that_do_not() -> None:
    held = ["time", "capture out", "prun", "memit"]
    other = ["bash", "html", "javascript", "R", "timeit", "writefile x.py", "cython", "sql", "cortex a"]
    for magic in held + other:
        found = timeline(Notebook([Cell(f"%%{magic}\nx = 1")]))
        assert [step.text for step in found.steps] == (["x = 1"] if magic in held else [])


def test_what_ipython_puts_into_the_builtins_is_no_builtin_of_a_replica() -> None:
    code = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from jupyter_cortex.project.notebook.slicing import BUILTINS")
names = shell.user_ns["BUILTINS"]
import builtins
assert hasattr(builtins, "display") and "print" in names
assert not {"display", "get_ipython"} & names, names
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


STAR_FILES = {
    "helpers/__init__.py": "from .io import *",
    "helpers/io.py": "def read_table(): ...",
    "deep/__init__.py": "",
    "deep/inner.py": "from .same import *\nbelow = 1",
    "deep/same.py": "beside = 1",
    "same/__init__.py": "from .same import *",
    "same/same.py": "own = 1",
    "a.py": "from b import *\nfirst = 1",
    "b.py": "from a import *\nsecond = 1",
}


def test_a_star_import_brings_what_the_packages_own_stars_bring(tmp_path: Path) -> None:
    for name, text in STAR_FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert star_names("helpers", tmp_path) == {"read_table"}, "not what the standard library's io has"
    assert star_names("deep.inner", tmp_path) == {"below", "beside"}
    assert star_names("same", tmp_path) == {"own"}
    assert star_names("a", tmp_path) is None, "what a circle brings is unknown, and nobody calls it for ever"


NEW = {
    "the value of a type alias is looked up when it is asked for": (
        ["type Pair = tuple[Item, Item]", "class Item: pass"],
        "Pair",
        ["type Pair", "class Item"],
    ),
    "type parameters are no names of the module": (["T = 1", "def first[T](xs: list[T]) -> T:\n    return xs[0]"], "first(payload)", ["def first"]),
    "the bound of a type parameter comes along": (["class Base: pass", "class Box[T: Base]: pass"], "Box()", ["class Base", "class Box"]),
}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of Python 3.12")
@pytest.mark.parametrize("name", NEW)
def test_generics(name: str) -> None:
    cells, uses, takes = NEW[name]
    found = sliced(notebook_of({"cells": cells, "uses": uses}))
    taken = [step.text for step in found.order if step is not found.handler]
    assert len(taken) == len(takes)
    assert all(text.startswith(begin) for text, begin in zip(taken, takes, strict=True))
    assert not found.missing
