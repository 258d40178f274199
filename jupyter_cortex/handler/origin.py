"""Where the Handler's lines come from: a module made from a notebook names its cells in every traceback, here and in production.

Of the process, like the masked values: a process holds one Handler.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

#: (file, line) -> "cell 3, line 4", or "" for a line that comes from nowhere else.
Lookup = Callable[[str, int], str]

#: What the line map is called beside the project, in ``meta/``.
LINE_MAP = "lines.json"
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')
_lookup: Lookup | None = None
_instead = False


def use(lookup: Lookup | None, instead: bool = False) -> None:
    """From now on ask ``lookup`` for the place of each frame; None: nobody. ``instead``: a kernel's file names mean nothing and are left out."""
    global _lookup, _instead
    _lookup, _instead = lookup, instead


def used() -> tuple[Lookup | None, bool]:
    """What :func:`use` was told last, to be told again after another lookup had its turn."""
    return _lookup, _instead


def use_map(project_dir: Path, module: str) -> None:
    """Use the line map that travelled beside the project, if there is one. Never raises: it only makes errors easier to read."""
    try:
        document = json.loads((project_dir.parent / "meta" / LINE_MAP).read_bytes())
        places = {int(line): f"{cell}, line {cell_line}" for line, cell, cell_line in document["lines"]}
    except (OSError, ValueError, KeyError, TypeError):
        return
    ours = {module, os.path.join(project_dir, module), os.path.realpath(os.path.join(project_dir, module))}
    use(lambda file, line: places.get(line, "") if file in ours else "")


def is_kernel() -> bool:
    """Whether file names mean nothing here."""
    return _instead


def place(file: str, line: int | None) -> str:
    """``"cell 3, line 4"``, or "" where that is not known."""
    return _lookup(file, line) if _lookup is not None and line is not None else ""


def beside(file: str, line: int | None) -> str:
    """``" (cell 3, line 4)"`` to put behind a position, or ""."""
    found = place(file, line)
    return f" ({found})" if found else ""


def deepest(error: BaseException) -> str:
    """The author's last line on the way to an error, as a place; "" where no frame has one."""
    found, step = "", error.__traceback__
    while step is not None:
        found = place(step.tb_frame.f_code.co_filename, step.tb_lineno) or found
        step = step.tb_next
    return found


def annotated(text: str) -> str:
    """A traceback's text with the cell behind each frame that came from one."""
    if _lookup is None:
        return text

    def shown(frame: re.Match[str]) -> str:
        found = place(frame[1], int(frame[2]))
        return frame[0] if not found else found if _instead else f"{frame[0]} ({found})"

    return _FRAME.sub(shown, text)
