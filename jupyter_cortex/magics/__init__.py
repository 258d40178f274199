"""The notebook's door: ``%cortex <verb>`` and ``%%cortex payload``. Light until a verb is typed: a kernel loads this at its start."""

from __future__ import annotations

from typing import Any

from .session import Session

#: Where a shell keeps its session.
ATTRIBUTE = "cortex_session"


def load(shell: Any) -> None:
    """Register the magic and start recording. Loading twice changes nothing."""
    if getattr(shell, ATTRIBUTE, None) is not None:
        return
    session = Session(shell)
    session.start()
    setattr(shell, ATTRIBUTE, session)  # not before: one that could not start must not count as loaded

    def cortex(line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> None:
        """Publish and try this notebook's Handler: `%cortex --help` lists the verbs."""
        from .cortex import run

        run(session, line, cell, local_ns)

    cortex._ipython_magic_no_var_expand = True  # type: ignore[attr-defined]  # JSON's braces are not ours to expand: see words.py
    cortex.needs_local_scope = True  # type: ignore[attr-defined]
    shell.register_magic_function(cortex, "line_cell", "cortex")
    shell.set_hook("complete_command", _complete, re_key=r"%{1,2}cortex\b")


def unload(shell: Any) -> None:
    session = getattr(shell, ATTRIBUTE, None)
    if session is None:
        return
    session.stop()
    delattr(shell, ATTRIBUTE)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("cortex", None)


def _complete(shell: Any, event: Any) -> list[str]:
    from .completion import complete

    session = getattr(shell, ATTRIBUTE, None)
    # What stands behind the cursor is no part of the word that is being typed.
    return complete(session, event.text_until_cursor) if session is not None else []
