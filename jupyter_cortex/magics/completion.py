"""Tab completion of ``%cortex``: verbs, their options, and the names of what is deployed."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import ShellComplete


def complete(session: Any, line: str) -> list[str]:
    """What may stand at the end of ``line`` (up to the cursor)."""
    from .cortex import group

    before = line.split("\n")[0].lstrip().lstrip("%").split()[1:]
    incomplete = "" if line.endswith((" ", "\t")) or not before else before.pop()
    completion = ShellComplete(group(), {"obj": _maker(session)}, "cortex", "_CORTEX_COMPLETE")
    try:
        return [item.value for item in completion.get_completions(before, incomplete) if item.type == "plain"]
    except click.ClickException:
        return []


def _maker(session: Any) -> Any:
    from .door import CellDoor

    return lambda output, env: CellDoor(session, output, env)
