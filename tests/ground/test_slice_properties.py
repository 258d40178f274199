"""What must hold for every notebook: the module computes what the notebook computed, with nothing too much, and no text makes it raise."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.project.notebook.cells import Cell, Notebook, State
from jupyter_cortex.project.notebook.lines import python_of
from jupyter_cortex.project.notebook.module import line_map, reasons, write
from jupyter_cortex.project.notebook.slicing import Slice, slice_timeline
from jupyter_cortex.project.notebook.steps import timeline
from jupyter_cortex.project.notebook.surprises import surprises

HANDLER = "class Handler:\n    def handle_async(self, payload):\n        return [{names}]\n"
EXAMPLES = Path(__file__).parents[2] / "examples" / "notebooks"


def sliced(cells: list[Cell], **keys: Any) -> tuple[Notebook, Slice]:
    notebook = Notebook(cells, **keys)
    return notebook, slice_timeline(timeline(notebook))


def answer(namespace: dict[str, Any]) -> str:
    """What Handler answers, twice: a second call sees what the first one left behind."""
    try:
        instance = namespace["Handler"]()
        return repr([shown(instance.handle_async(3)), shown(instance.handle_async(4))])
    except Exception as error:
        return type(error).__name__


def shown(value: Any) -> Any:
    """A value without the addresses of objects."""
    if isinstance(value, list | tuple | set | frozenset):
        rows = [shown(part) for part in value]
        return [type(value).__name__, *(sorted(map(repr, rows)) if isinstance(value, set | frozenset) else rows)]
    if isinstance(value, dict):
        return {str(key): shown(part) for key, part in value.items()}
    if isinstance(value, type) and hasattr(value, "size"):
        return [value.__name__, value.size, shown(value().get())]
    if callable(value):
        return getattr(value, "__name__", "callable")
    if type(value).__module__ == "builtins":
        return value
    return [type(value).__name__, shown(vars(value)) if hasattr(value, "__dict__") else ""]


# Notebooks made by chance ---------------------------------------------------------------------------------------------------------------------


def run(cell: Cell, namespace: dict[str, Any]) -> Cell | None:
    """Run a cell as a kernel does, up to the statement that fails; None where that one may have done a part of its work."""
    for node in ast.parse(cell.source).body:
        try:
            exec(compile(ast.Module([node], []), cell.label, "exec"), namespace)
        except Exception:
            partly = any(isinstance(part, ast.Call | ast.For | ast.If | ast.Try | ast.Match | ast.With) for part in ast.walk(node))
            return None if partly else replace(cell, failed_line=node.lineno)
    return cell


@dataclass
class Author:
    """Writes statements and runs them, so that what it writes next makes sense."""

    chance: random.Random
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "handler"})
    cells: list[Cell] = field(default_factory=list)

    def write(self, count: int) -> list[Cell]:
        while len(self.cells) < count:
            if self.cells and self.chance.random() < 0.15:
                self.add(replace(self.chance.choice(self.cells), failed_line=None))
            else:
                self.add(self.cell("\n".join(self.statement() for _ in range(self.chance.randint(1, 4)))))
        names = [name for name in self.alive() if not name.startswith("h_")]
        used = self.chance.sample(names, min(len(names), self.chance.randint(1, 5)))
        self.add(self.cell(HANDLER.format(names=", ".join(self.value(name) for name in used))))
        if self.chance.random() < 0.2:
            self.add(self.cell("trial = Handler().handle_async(1)"))
        return self.cells

    def cell(self, source: str) -> Cell:
        return Cell(source, number=len(self.cells) + 1)

    def add(self, cell: Cell) -> None:
        ran = None if "missing" in cell.source else run(replace(cell, count=len(self.cells) + 1), self.namespace)
        if ran is not None:
            self.cells.append(ran)
            return
        self.namespace = {"__name__": "handler"}
        for earlier in self.cells:
            run(earlier, self.namespace)

    def alive(self) -> list[str]:
        return sorted(name for name in self.namespace if not name.startswith("__") and name not in ("Handler", "trial"))

    def value(self, name: str) -> str:
        value = self.namespace[name]
        if callable(value) and not isinstance(value, type) and value.__module__ == "handler":
            return f"{name}()" if value.__code__.co_argcount == 0 else f"{name}(payload)"
        return name

    def new(self) -> str:
        return f"{self.chance.choice('abcdefg')}{self.chance.randint(1, 3)}"

    def of(self, *types: type) -> str:
        names = [name for name in self.alive() if isinstance(self.namespace[name], types) and not isinstance(self.namespace[name], bool)]
        return self.chance.choice(names) if names else "missing"

    def number(self) -> str:
        return self.of(int) if self.chance.random() < 0.6 and self.of(int) != "missing" else str(self.chance.randint(10, 99))

    def statement(self) -> str:
        return getattr(self, self.chance.choice([name for name in dir(self) if name.startswith("do_")]))()

    def do_constant(self) -> str:
        return f"{self.new()} = {self.number()} + {self.chance.randint(1, 9)}"

    def do_list(self) -> str:
        return f"{self.new()} = [{self.number()}, {self.number()}]"

    def do_dict(self) -> str:
        return f"{self.new()} = {{'k': {self.number()}, 'rows': [{self.number()}]}}"

    def do_rows(self) -> str:
        return f"{self.new()} = [{{'k': {self.number()}}}, {{'k': 2}}]"

    def do_tuple(self) -> str:
        return f"{self.new()}, *{self.new()} = {self.number()}, {self.number()}, 3"

    def do_chain(self) -> str:
        return f"{self.new()} = {self.new()} = [{self.number()}]"

    def do_alias(self) -> str:
        return f"{self.new()} = {self.of(list, dict)}"

    def do_part(self) -> str:
        return f"{self.new()} = {self.of(dict)}['rows']"

    def do_first(self) -> str:
        return f"{self.new()} = {self.of(list)}[0]"

    def do_append(self) -> str:
        return f"{self.of(list)}.append({self.number()})"

    def do_store(self) -> str:
        return f"{self.of(dict)}['k'] = {self.number()}"

    def do_item(self) -> str:
        return f"{self.of(list)}[0] = {self.number()}"

    def do_attribute(self) -> str:
        return f"{self.of(type)}.extra = {self.number()}"

    def do_add(self) -> str:
        return f"{self.of(int)} += {self.number()}"

    def do_extend(self) -> str:
        return f"{self.of(list)} += [{self.number()}]"

    def do_function(self) -> str:
        return f"def f_{self.new()}():\n    return {self.number()} + {self.number()}"

    def do_function_of_list(self) -> str:
        return f"def f_{self.new()}(x, k={self.number()}):\n    return [x, k, len({self.of(list)})]"

    def do_changing_function(self) -> str:
        name = self.of(list)
        return f"def h_{self.new()}():\n    {name}.append({self.number()})\n    return {self.number()}"

    def do_argument_function(self) -> str:
        return f"def h_{self.new()}_of(xs):\n    xs.append({self.number()})\n    return len(xs)"

    def do_passing_function(self) -> str:
        inner = self.chance.choice([name for name in self.alive() if name.endswith("_of")] or ["missing"])
        return f"def h_{self.new()}_of(ys):\n    {inner}(ys)\n    return 1"

    def do_call_of_argument(self) -> str:
        function = self.chance.choice([name for name in self.alive() if name.endswith("_of")] or ["missing"])
        return f"{self.new()} = {function}({self.of(list)})"

    def do_global_function(self) -> str:
        return f"def h_{self.new()}():\n    global {(name := self.of(int))}\n    {name} = {name} + {self.chance.randint(1, 9)}\n    return 1"

    def do_call(self) -> str:
        names = [name for name in self.alive() if name.startswith("h_") and not name.endswith("_of")]
        call = f"{self.chance.choice(names)}()" if names else "missing()"
        return call if self.chance.random() < 0.5 else f"{self.new()} = {call}"

    def do_loop(self) -> str:
        return f"for i in range(2):\n    {self.of(list)}.append(i + {self.number()})"

    def do_loop_over_rows(self) -> str:
        return f"for row in {self.of(list)}:\n    row['k'] = {self.number()}"

    def do_loop_binding(self) -> str:
        return f"for {self.new()} in [{self.number()}, 2]:\n    {self.new()} = {self.number()}"

    def do_branch(self) -> str:
        return f"if {self.number()} > 40:\n    {self.new()} = {self.number()}\nelse:\n    {self.new()} = [1]"

    def do_try(self) -> str:
        return f"try:\n    {self.new()} = {self.of(dict)}['none']\nexcept (KeyError, NameError):\n    {self.new()} = {self.number()}"

    def do_with(self) -> str:
        return f"import contextlib\nwith contextlib.nullcontext({self.number()}) as {self.new()}:\n    {self.new()} = {self.number()}"

    def do_comprehension(self) -> str:
        return f"{self.new()} = [x + {self.number()} for x in range(3) if ({self.new()} := x) > 0]"

    def do_lambda(self) -> str:
        return f"f_{self.new()} = lambda x={self.number()}: x + {self.number()}"

    def do_class(self) -> str:
        return f"class C_{self.new()}:\n    size = {self.number()}\n    def get(self, k={self.number()}):\n        return {self.number()}"

    def do_object(self) -> str:
        return f"{self.new()} = {self.of(type)}()"

    def do_method(self) -> str:
        methods = f"    def __init__(self):\n        self.n = {self.number()}\n    def tick(self):\n        self.n += 1\n        return self.n"
        return f"class C_{self.new()}:\n{methods}"

    def do_tick(self) -> str:
        objects = [name for name in self.alive() if hasattr(self.namespace[name], "tick") and not isinstance(self.namespace[name], type)]
        return f"{self.new()} = {self.chance.choice(objects)}.tick()" if objects else "missing()"

    def do_match(self) -> str:
        return f"match {self.of(list)}:\n    case [{self.new()}, *rest]:\n        pass\n    case _:\n        {self.new()} = 1"

    def do_delete(self) -> str:
        return f"del {self.chance.choice(self.alive() or ['missing'])}"

    def do_sort(self) -> str:
        return f"{self.of(list)}.sort(key=str)"

    def do_import(self) -> str:
        return self.chance.choice(["import math", "from math import pi as p1", "import json, re", "from collections import *"])

    def do_register(self) -> str:
        name, registry = f"h_{self.new()}_reg", self.of(list)
        return f"def {name}(f):\n    {registry}.append(f.__name__)\n    return f\n@{name}\ndef f_{self.new()}():\n    return 1"

    def do_bound_method(self) -> str:
        return f"h_{self.new()}_add = {self.of(list)}.append"

    def do_call_of_bound_method(self) -> str:
        names = [name for name in self.alive() if name.endswith("_add")]
        return f"{self.chance.choice(names)}({self.number()})" if names else "missing()"

    def do_partial(self) -> str:
        function = self.chance.choice([name for name in self.alive() if name.endswith("_of")] or ["missing"])
        return f"import functools\nh_{self.new()} = functools.partial({function}, {self.of(list)})"

    def do_print(self) -> str:
        return f"print(len(str({self.of(list, dict)})))"


@pytest.mark.parametrize("seed", range(500))
def test_the_module_answers_what_the_notebook_answers_or_a_surprise_names_what_may_be_missing(seed: int) -> None:
    author = Author(random.Random(seed))
    cells = author.write(author.chance.randint(3, 25))
    notebook, found = sliced(cells)
    text, _ = write(found)
    rows = surprises(found, notebook, None)
    told = "\n".join([*(cell.source + "\n# --" for cell in cells), "=== module", text, *map(str, rows)])
    expected = answer(author.namespace)
    if expected == "NameError":  # the notebook's own Handler fails: it uses what was deleted
        assert any(row.kind == "undefined" for row in rows), told
    else:
        assert answered(text) == expected or any(row.kind == "not_included" for row in rows), told


def test_hardly_any_notebook_needs_that_surprise() -> None:
    silent = 0
    for seed in range(100):
        author = Author(random.Random(seed))
        notebook, found = sliced(author.write(12))
        silent += not any(row.kind == "not_included" for row in surprises(found, notebook, None))
    assert silent >= 75


def answered(module: str) -> str:
    namespace: dict[str, Any] = {"__name__": "handler"}
    try:
        exec(compile(module, "handler.py", "exec"), namespace)
    except Exception as error:
        return f"not even made: {error!r}"
    return answer(namespace)


# Exactly what it needs ------------------------------------------------------------------------------------------------------------------------


class PlainAuthor(Author):
    """Writes only statements whose every effect can be seen: no branch, no number that is changed in place, no re-run."""

    def statement(self) -> str:
        plain = "constant list dict append store function function_of_list changing_function argument_function call_of_argument class object import"
        return getattr(self, f"do_{self.chance.choice(plain.split())}")()

    def write(self, count: int) -> list[Cell]:
        while len(self.cells) < count:
            self.add(self.cell(self.statement()))
        names = [name for name in self.alive() if name[0] in "nfC" and not name.startswith("from")]
        self.add(self.cell(HANDLER.format(names=", ".join(map(self.value, self.chance.sample(names, min(3, len(names))))))))
        return self.cells

    def new(self) -> str:
        return f"n{len(self.cells)}"

    def number(self) -> str:
        return self.of(int) if self.chance.random() < 0.4 and self.of(int) != "missing" else str(1000 + len(self.cells))

    def do_append(self) -> str:
        return f"{self.of(list)}.append({1000 + len(self.cells)})"

    def do_store(self) -> str:
        return f"{self.of(dict)}['k{len(self.cells)}'] = {self.number()}"


@pytest.mark.parametrize("seed", range(150))
def test_without_any_one_of_its_statements_the_module_breaks_or_answers_something_else(seed: int) -> None:
    author = PlainAuthor(random.Random(seed))
    _, found = sliced(author.write(author.chance.randint(4, 18)))
    text, placed = write(found)
    whole = answered(text)
    assert whole == answer(author.namespace)
    lines = text.split("\n")
    for one in placed:
        without = "\n".join([*lines[: one.line - 1], *lines[one.line - 1 + one.count :]])
        assert one.step is found.handler or answered(without) != whole, f"not needed: {one.step.text}\n---\n{text}"


# For any text ---------------------------------------------------------------------------------------------------------------------------------


def examples() -> list[str]:
    texts = [
        "%time x = 1\nfiles = !ls\nfor f in files:\n    print(f)\n",
        "@decorated\nasync def f(a, *, b: 'int' = 1) -> list[int]:\n    async with a as b:\n        return [await c async for c in b]\n",
        "match p:\n    case {'k': [x, *rest], **more} if x:\n        y = lambda q, /, r=rest: (z := q)\n    case _:\n        del more\n",
        'x = f"""{a!r:>{width}} {b[\'k\']}"""; y = "é ü 漢字"  # ünïcode\nclass Handler:\n    def handle_async(self, payload): return x\n',
        "try:\n    import a.b as c\nexcept* (ImportError, NameError) as e:\n    raise\nelse:\n    global c\nfinally:\n    c[0].d += 1\n",
    ]
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return texts


def mutated(chance: random.Random, text: str) -> str:
    odd = [
        "\t",
        "\r",
        "\r\n",
        "\f",
        "\0",
        "\ud800",
        "\u2028",
        "\x85",
        "%",
        "!",
        "?",
        "\\\n",
        '"""',
        "'",
        "(",
        "]",
        "{",
        ";",
        ":",
        "#",
        "漢",
        "é",
        "   ",
        "\n",
    ]
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(text) + 1)
        action = chance.random()
        if action < 0.5:
            text = text[:at] + chance.choice(odd) + text[at:]
        elif action < 0.75:
            text = text[:at] + text[at + chance.randint(1, 10) :]
        else:
            other = chance.randrange(len(text) + 1)
            text = text[:at] + text[min(at, other) : max(at, other)] + text[at:]
    return text


def everything(cells: list[Cell]) -> str:
    """All that is made of a notebook, as one text."""
    notebook, found = sliced(cells)
    text, placed = write(found)
    rows = [*map(str, surprises(found, notebook, None)), *map(str, surprises(found, notebook, "numpy==1\n"))]
    return "\n".join([text, line_map(placed, "n.ipynb").decode(), json.dumps(reasons(found, placed)), *rows])


@pytest.mark.parametrize("seed", range(100))
def test_no_text_of_a_cell_makes_it_raise(seed: int) -> None:
    chance, texts = random.Random(seed), examples()
    for _ in range(5):
        sources = [mutated(chance, text) if chance.random() < 0.7 else text for text in chance.sample(texts, 4)]
        cells = [
            Cell(source, number=chance.randint(0, 5), state=chance.choice(list(State)), failed_line=chance.choice([None, None, 1, 3]))
            for source in [*sources, HANDLER.format(names="x, y, c, f")]
        ]
        assert everything(cells).startswith("# Made from a notebook")


HARD = {
    "nothing": "",
    "only blank": " \n\t\n\f\n",
    "a null byte": "x = 1\0",
    "half a surrogate": "x = '\ud800'",
    "half a surrogate beside a magic": "%load_ext a\nx = '\ud800'",
    "a very long line": "x = [" + "1, " * 100_000 + "]",
    "a very long line of a magic": "!echo " + "x" * 1_000_000,
    "deep brackets": "x = " + "(" * 500 + ")" * 500,
    "deep lists": "x = " + "[" * 150 + "]" * 150,
    "a deep sum": "x = " + "+".join("1" * 3000),
    "deep attributes": "x = a" + ".b" * 3000,
    "deep calls": "a" + ".b()" * 900,
    "deep blocks": "\n".join("  " * depth + "if x:" for depth in range(90)) + "\n" + "  " * 90 + "y = 1",
    "many magics": "\n".join(["!echo 'it is'", "x = 1", "%cd .."] * 300),
    "many statements": "\n".join(f"x{at} = {at}" for at in range(5000)),
    "a question at the end": "x = '''\n?",
    "a question": "?",
    "a cell magic alone": "%%",
    "a percent alone": "%",
    "an exclamation mark alone": "!",
    "a backslash at the end": "x = 1 + \\",
    "a magic that goes on at the end": "%time x = \\",
    "carriage returns": "x = 1\ry = 2\r\nz = '''a\rb'''",
    "a byte order mark": "\ufeffx = 1",
    "an identifier in another form": "ﬁ = 1\nHandler = fi",
    "a declared encoding": "# -*- coding: latin-1 -*-\nx = 'é'",
}


@pytest.mark.parametrize("name", HARD)
def test_a_hard_text_is_read_or_named(name: str) -> None:
    assert "class Handler" in everything([Cell(HARD[name], number=1), Cell(HANDLER.format(names="1"), number=2)])
    everything([Cell(HARD[name], number=1, tags=frozenset({"cortex"})), Cell(HANDLER.format(names="x"), number=2)])


@pytest.mark.parametrize("seed", range(0, 200, 4))
def test_every_line_of_the_module_is_the_line_of_the_cell_that_the_map_names(seed: int) -> None:
    cells = decorated(Author(random.Random(seed)).write(10), random.Random(seed))
    _, found = sliced(cells)
    text, placed = write(found)
    lines = text.split("\n")
    rows = json.loads(line_map(placed, "n.ipynb"))["lines"]
    of_label = {cell.label: python_of(cell.source).source.split("\n") for cell in cells}
    assert rows
    for module_line, label, cell_line in rows:
        assert lines[module_line - 1].strip() in of_label[label][cell_line - 1], (module_line, label, cell_line)
    mapped = {row[0] for row in rows}
    assert all(at in mapped or not line or at == 1 for at, line in enumerate(lines, 1)), "a line of code that the map does not know"


def decorated(cells: list[Cell], chance: random.Random) -> list[Cell]:
    """The same cells as people write them: comments, blank lines, several statements in a line, magics, other line ends, an indentation."""
    made = []
    for number, cell in enumerate(cells, 1):
        statements = [ast.unparse(node) for node in ast.parse(cell.source).body]
        text = ""
        for statement in statements:
            before = chance.choice(["", "", "# why: é\n", "\n\n", "%matplotlib inline\n", "!ls\n"])
            text += before + statement + (chance.choice(["  # ü", "", ";", "; 1; 'é'"]) if "\n" not in statement else "") + "\n"
        if chance.random() < 0.2:
            text = "\n".join(("    " + line if line else line) for line in text.split("\n"))
        if chance.random() < 0.2:
            text = text.replace("\n", "\r\n")
        made.append(replace(cell, source=text, number=number, failed_line=None))
    return made


@pytest.mark.parametrize("seed", range(0, 100, 2))
def test_what_is_taken_stands_in_the_cell_as_the_author_wrote_it(seed: int) -> None:
    cells = decorated(Author(random.Random(seed)).write(10), random.Random(seed))
    _, found = sliced(cells)
    assert found.order
    for step in found.order:
        assert step.text in python_of(step.cell.source).source
        assert step.text == step.text.strip() or step.text.startswith("#") or step.text.lstrip().startswith("#")
        assert ast.dump(ast.parse(step.text)) == ast.dump(ast.Module([step.node], []))


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_the_same_notebook_gives_the_same_bytes(seed: int) -> None:
    cells = Author(random.Random(seed)).write(15)
    assert everything(cells) == everything(list(cells))


def test_another_process_with_other_hashes_gives_the_same_bytes_and_a_module_that_runs(tmp_path: Path) -> None:
    author = Author(random.Random(7))
    cells = author.write(20)
    (tmp_path / "cells.json").write_text(json.dumps([[cell.source, cell.number, cell.failed_line] for cell in cells]))
    code = (
        "import json, pathlib\n"
        "from jupyter_cortex.project.notebook import cells, module, slicing, steps\n"
        "rows = json.loads(pathlib.Path('cells.json').read_text())\n"
        "notebook = cells.Notebook([cells.Cell(source, number=number, failed_line=failed) for source, number, failed in rows])\n"
        "text, placed = module.write(found := slicing.slice_timeline(steps.timeline(notebook)))\n"
        "pathlib.Path('handler.py').write_text(text)\n"
        "print(text, json.dumps(module.reasons(found, placed)))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONHASHSEED": seed, "PATH": ""}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    call = "import handler; h = handler.Handler(); print(repr([h.handle_async(3), h.handle_async(4)]))"
    done = subprocess.run([sys.executable, "-c", call], cwd=tmp_path, capture_output=True, text=True, check=True)
    instance = author.namespace["Handler"]()
    assert done.stdout.strip() == repr([instance.handle_async(3), instance.handle_async(4)])
