"""IPython's own lines (``%magic``, ``!shell``, ``?help``) taken out of a cell, line for line, so that the rest is Python."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

#: Cell magics whose body is this kernel's Python. The body of any other is another language, or is not run in the notebook's namespace.
PYTHON_CELL_MAGICS = frozenset({"time", "capture", "prun", "memit"})
#: Line magics in front of a statement that takes effect.
WRAPPING_MAGICS = re.compile(
    r"^(\s*)%(?:time\s+|memit\s+(?:-[rtic]\s+[\d.]+\s+|-[a-zA-Z]\S*\s+)*|prun\s+(?:-[lsTD]\s+\S+\s+|-[a-zA-Z]\S*\s+)*)(?:-[a-zA-Z]\S*\s+)*(?=\S)"
)
_CANDIDATE = re.compile(r"^\s*(?:[%!?]|[\w.,\s\[\]'\"]+=\s*(?:%|!)|.*\?\s*$)")
_ASSIGNED = re.compile(r"^(\s*)([A-Za-z_][\w]*(?:\s*,\s*[A-Za-z_]\w*)*)\s*=\s*([%!].*)$", re.DOTALL)
_CELL_MAGIC = re.compile(r"^%%([\w.]+)(.*)$")
_PIP = re.compile(
    r"^[%!]+\s*(?:sudo\s+)?(?:(?:\S*python[\d.]*|\{\s*sys\.executable\s*\}|\$?sys\.executable|\"\{sys\.executable\}\")\s+-m\s+|uv\s+)?"
    r"(?:pip[\d.]*|conda|mamba)\s+install\s+(.*)$",
    re.DOTALL,
)
#: Options of `pip install` and `conda install` that are followed by a value.
_WITH_VALUE = frozenset(
    """-r --requirement -c --constraint --channel -i --index-url --extra-index-url -f --find-links -t --target -e --editable --prefix --root --src
    --python-version --platform --progress-bar --trusted-host --proxy --timeout --retries --cert --cache-dir --log -n --name -p""".split()
)
#: What IPython runs without a `%` where it is all that a cell has.
_AUTOMAGIC = re.compile(
    r"^(?:pip|conda|mamba|uv|ls|ll|cd|pwd|cat|cp|mv|rm|mkdir|matplotlib|pylab|load_ext|reload_ext|who|whos|run|time|timeit|env)\b"
)
_PROMPT = re.compile(r"^(?:>>>|\.\.\.)(?: |$)")
_SAVE = re.compile(r"^%cortex\s+save\s+(.*)$")

#: (name of the saved object, variable that gets it) -> the line of Python that loads it, "" where there is no such file.
Loading = Callable[[str, str], str]


@dataclass(frozen=True)
class Dropped:
    """One line that replicas do not run: where it was and what it said; ``binds``: the names it assigned."""

    line: int
    text: str
    binds: tuple[str, ...] = ()


@dataclass
class Python:
    """A cell's Python: as many lines as the cell has. ``foreign``: the cell magic that makes all of it something else."""

    source: str
    dropped: list[Dropped] = field(default_factory=list)
    foreign: str = ""
    #: Lines that became the loading line of an object that `%cortex save` wrote.
    loading: set[int] = field(default_factory=set)

    @property
    def installs(self) -> list[tuple[int, str]]:
        """(line, requirement) of what `%pip install` and its like ask for; options are left out."""
        return [(dropped.line, word) for dropped in self.dropped if (match := _PIP.match(dropped.text)) for word in _requirements(match[1])]


def _requirements(arguments: str) -> Iterator[str]:
    """The requirements among the arguments of an install: no options, no files, nothing of the shell's, nothing that a variable holds."""
    words = re.sub(r"\s#.*$", "", arguments.replace("\\\n", " "), flags=re.DOTALL)
    skip = False
    for word in re.split(r"\s(?:&&|\|\|?|;|&?\d?>+&?)|;\s*$", words)[0].split():
        name = word.strip("'\"").rstrip(";")
        if skip or name.startswith("-"):
            skip = not skip and name in _WITH_VALUE
        elif re.match(r"[A-Za-z0-9]", name) and not name.endswith((".txt", ".whl", ".gz", "/")) and not re.search(r"[{}$]", name):
            yield name


def python_of(source: str, saved: Loading | None = None) -> Python:
    """Take IPython's lines out of a cell. ``saved`` gives what stands in for a `%cortex save` line.

    Never raises: what is left may still be a syntax error, which is for the caller to name.
    """
    lines = _as_ipython_reads(source).split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    cell = Python(source)
    if first is not None and (match := _CELL_MAGIC.match(lines[first].rstrip())):
        if match[1] not in PYTHON_CELL_MAGICS:
            cell.foreign = match[1]
            return cell
        binds = tuple(re.findall(r"\b[A-Za-z_]\w*\b", match[2])) if match[1] == "capture" else ()
        cell.dropped.append(Dropped(first + 1, lines[first].rstrip(), binds))
        lines[first] = ""
    cell.source = "\n".join(lines)
    if isinstance(parse(cell.source), ast.Module):
        return cell
    if first is not None and not any(lines[first + 1 :]) and _AUTOMAGIC.match(lines[first]):
        lines[first] = f"%{lines[first]}"
    _take_out(lines, cell, saved or (lambda name, target: ""))
    cell.source = "\n".join(lines)
    return cell


def _as_ipython_reads(source: str) -> str:
    """Line ends as Python counts them; without an indentation that all of the cell has, and without the prompts of a pasted session."""
    text = source.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    begin = next((line for line in lines if line.strip()), "")
    if _PROMPT.match(begin):
        lines = [_PROMPT.sub("", line) for line in lines]
    elif indent := begin[: len(begin) - len(begin.lstrip(" \t"))]:
        lines = [line.removeprefix(indent) for line in lines]
    else:
        return text
    return "\n".join(lines)


def _take_out(lines: list[str], cell: Python, saved: Loading) -> None:
    number = known = 0  # at the line `known` a statement begins
    while number < len(lines):
        line = lines[number]
        if not _CANDIDATE.match(line) or not _begins_statement(lines[known:number]):
            number += 1
            continue
        known = number
        last = number
        while lines[last].endswith("\\") and last + 1 < len(lines):
            last += 1
        text = "\n".join(lines[number : last + 1]).strip()
        indent = line[: len(line) - len(line.lstrip())]
        if (wrapped := WRAPPING_MAGICS.match(line)) and last == number:
            lines[number] = wrapped[1] + line[wrapped.end() :]
        elif (loading := _loading(text, saved)) and last == number:
            lines[number] = indent + loading
            cell.loading.add(number + 1)
        elif text.startswith(("%", "!", "?")) or _is_help(text) or _ASSIGNED.match(text):
            assigned = _ASSIGNED.match(text)
            binds = tuple(name.strip() for name in assigned[2].split(",")) if assigned else ()
            cell.dropped.append(Dropped(number + 1, text, binds))
            lines[number : last + 1] = [indent + "pass"] + [""] * (last - number)
        number = last + 1


def _loading(text: str, saved: Loading) -> str:
    """The Python that stands for a `%cortex save` line: what loads those of its objects that are plain names."""
    if not (match := _SAVE.match(text)):
        return ""
    return "; ".join(line for name, target in saved_names(match[1]) if target and (line := saved(name, target)))


def saved_names(arguments: str) -> list[tuple[str, str]]:
    """``model labels=names`` -> (name of the file, the notebook's variable or "" for an expression)."""
    found = []
    for word in re.findall(r"[A-Za-z_]\w*\s*=\s*(?:\"[^\"]*\"|'[^']*'|\S+)|\S+", arguments):
        name, equals, value = word.partition("=")
        name, value = name.strip(), (value.strip() if equals else name.strip())
        if name.isidentifier():
            found.append((name, value if value.isidentifier() else ""))
    return found


def _is_help(text: str) -> bool:
    return bool(re.fullmatch(r"\??\??\s*[\w.%*]+(?:\([^()]*\))?\s*\?{0,2}", text)) and "?" in text


def _begins_statement(before: list[str]) -> bool:
    """Whether a new statement may begin after these lines: outside of brackets, strings and continued lines."""
    if before and before[-1].rstrip().endswith("\\"):
        return False
    try:
        for _ in tokenize.generate_tokens(io.StringIO("\n".join(map(str.lstrip, before)) + "\n").readline):
            pass
    except tokenize.TokenError as error:
        return "multi-line" not in str(error) and "unterminated" not in str(error)
    except (SyntaxError, ValueError):  # half a character, say: the parser will name it
        return True
    return True


@lru_cache(maxsize=1)  # who takes the lines out asks first, who reads the cell next
def parse(source: str) -> ast.Module | SyntaxError:
    """The syntax tree, or why there is none."""
    try:
        return ast.parse(source)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:
        return SyntaxError(str(error) or "too deeply nested", ("", 1, 1, ""))
