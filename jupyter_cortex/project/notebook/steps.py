"""The notebook's timeline: every top-level statement that took effect, in order, with its text and its names."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass, field

from .cells import NEVER, Cell, Notebook
from .lines import Dropped, Python, parse, python_of
from .names import LAZY_ANNOTATIONS, Names, names_of


@dataclass(frozen=True)
class Step:
    """One statement of the timeline. ``first``/``last``: its lines in the cell (from 1), decorators and comments right above it included."""

    index: int
    cell: Cell
    node: ast.stmt
    names: Names
    text: str
    first: int
    last: int
    #: Made from a `%cortex save` line: it loads what the notebook made.
    loads: bool = False

    @property
    def place(self) -> str:
        return f"{self.cell.label}, line {self.node.lineno}"

    @property
    def ended(self) -> bool:
        """The run of its cell ended with an error in this statement, which may have done a part of its work."""
        return self.cell.failed_line is not None and self.first <= self.cell.failed_line <= self.last

    @property
    def defines(self) -> bool:
        """A function or class: code that runs later."""
        return isinstance(self.node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))

    @property
    def imports(self) -> bool:
        return isinstance(self.node, (ast.Import, ast.ImportFrom))

    @property
    def is_future(self) -> bool:
        return isinstance(self.node, ast.ImportFrom) and self.node.module == "__future__"


@dataclass(frozen=True)
class Broken:
    """A cell that is no Python: where and why."""

    cell: Cell
    line: int
    message: str


@dataclass
class Timeline:
    steps: list[Step] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    #: What replicas do not run: (cell, line).
    dropped: list[tuple[Cell, Dropped]] = field(default_factory=list)
    installs: list[tuple[Cell, int, str]] = field(default_factory=list)
    #: Cells of another language (``%%bash``), and those tagged `cortex-ignore`: no part of the timeline.
    foreign: list[tuple[Cell, str]] = field(default_factory=list)
    ignored: list[Cell] = field(default_factory=list)
    #: Statements that did not take effect, because the run of their cell ended before them.
    unreached: list[Step] = field(default_factory=list)


def timeline(notebook: Notebook) -> Timeline:
    """Every statement of the notebook's cells. Never raises: what cannot be read is listed."""
    found = Timeline()
    parsed: dict[str, tuple[Python, ast.Module | SyntaxError]] = {}  # a cell may have run a hundred times
    lazy = LAZY_ANNOTATIONS
    for cell in notebook.cells:
        if NEVER in cell.tags:
            found.ignored.append(cell)
            continue
        if cell.source not in parsed:
            parsed[cell.source] = _parse(cell.source, notebook)
        python, tree = parsed[cell.source]
        if python.foreign:
            if python.foreign != "cortex":
                found.foreign.append((cell, python.foreign))
            continue
        found.dropped += [(cell, dropped) for dropped in python.dropped]
        found.installs += [(cell, line, requirement) for line, requirement in python.installs]
        if isinstance(tree, SyntaxError):
            found.broken.append(Broken(cell, tree.lineno or 1, str(tree.msg)))
            continue
        # IPython keeps a future import for the cells after it.
        lazy = lazy or any(isinstance(node, ast.ImportFrom) and node.module == "__future__" and _brings(node, "annotations") for node in tree.body)
        _add_steps(found, cell, python, tree, lazy)
    return found


def _brings(node: ast.ImportFrom, name: str) -> bool:
    return any(alias.name == name for alias in node.names)


def _parse(source: str, notebook: Notebook) -> tuple[Python, ast.Module | SyntaxError]:
    python = python_of(source, notebook.loading)
    return python, parse(python.source)


@functools.lru_cache(maxsize=8192)
def _names(source: str, position: int, lazy: bool) -> Names:
    """The names of one statement of a cell, kept: a notebook is shown and deployed again and again, and reading names is most of the work.

    Raises RecursionError.
    """
    tree = parse(source)
    assert isinstance(tree, ast.Module)
    return names_of(tree.body[position], last=position == len(tree.body) - 1, lazy=lazy)


def _add_steps(found: Timeline, cell: Cell, python: Python, tree: ast.Module, lazy: bool) -> None:
    lines = python.source.split("\n")
    dropped = {line.line for line in python.dropped}
    body = tree.body
    for position, node in enumerate(body):
        if isinstance(node, ast.Pass) and node.lineno in dropped:
            continue
        before = body[position - 1] if position else None
        first, last, text = _text(lines, node, before)
        try:
            names = _names(python.source, position, lazy)
        except RecursionError:
            found.broken.append(Broken(cell, node.lineno, "too deeply nested"))
            continue
        step = Step(len(found.steps), cell, node, names, text, first, last, node.lineno in python.loading)
        if cell.failed_line is not None and last >= cell.failed_line:
            found.unreached.append(step)
        else:
            found.steps.append(step)


def _text(lines: list[str], node: ast.stmt, before: ast.stmt | None) -> tuple[int, int, str]:
    """The statement as the author wrote it, with the comments right above it and at its end; of `a = 1; b = 2` only its own part."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    last = node.end_lineno or node.lineno
    text = lines[first - 1 : last]
    own, rest = _cut(text[-1], node.end_col_offset or 0)
    text[-1] = text[-1].rstrip() if re.match(r"\s*;?\s*#", rest) else own
    if first == node.lineno:
        text[0] = _cut(text[0], node.col_offset)[1]
    floor = (before.end_lineno or 0) if before is not None else 0
    while first - 1 > floor and re.match(r"\s*#", lines[first - 2]):
        first -= 1
    return first, last, "\n".join([*lines[first - 1 : last - len(text)], *text])


def _cut(line: str, offset: int) -> tuple[str, str]:
    """AST columns count bytes of UTF-8."""
    raw = line.encode()
    return raw[:offset].decode("utf-8", "replace"), raw[offset:].decode("utf-8", "replace")
