"""Running a line: the shell's verbs and the cell's own, with refusals as one line instead of a traceback."""

from __future__ import annotations

import functools
from typing import Any

import click
from IPython.core.error import UsageError

from .. import render
from ..commands.verbs import SHELL_VERBS, VERBS, Verbs, as_in_a_cell
from ..core.errors import CortexError
from .door import CellDoor
from .words import words

#: What an interrupted verb may have begun already, and where it shows.
GOES_ON = {
    "deploy": ", and a version that was starting goes on by itself",
    "submit": ", and a request that was sent already goes on by itself; `%cortex requests API` lists it",
}


class Cell(Verbs):
    """Says of a verb that needs a shell where it works, as the shell does of those that need a kernel."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in SHELL_VERBS:
            ctx.fail(f"`{cmd_name}` needs a shell: write `cortex {cmd_name}` in a terminal, or `!cortex {cmd_name}` in a cell")
        return super().get_command(ctx, cmd_name)


@functools.cache
def group() -> click.Group:
    """The shell's verbs with those that need a kernel."""
    from .replay import replay
    from .verbs import CELL_VERBS

    @click.group(cls=Cell, commands={**VERBS, **CELL_VERBS, "replay": replay}, context_settings={"help_option_names": ["-h", "--help"]})
    def cortex() -> None:
        """Publish and try the Handler of this notebook. `%%cortex payload` sends the cell's body through it."""

    return cortex


def run(session: Any, line: str, cell: str | None = None, local: dict[str, Any] | None = None) -> None:
    """One ``%cortex`` line or ``%%cortex`` cell. Raises CortexError (shown as one line) and UsageError."""
    arguments = words(line, session.shell, local)
    if cell is not None and arguments[:1] != ["payload"]:
        raise UsageError("%%cortex: only `%%cortex payload` takes a body; write the verb with one %, as in `%cortex deploy`")
    try:
        door = functools.partial(CellDoor, session, body=cell)
        group().main(arguments or ["--help"], prog_name="%cortex", standalone_mode=False, obj=door)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        if isinstance(error, click.exceptions.Abort) and not isinstance(error.__cause__, KeyboardInterrupt):
            print("nothing was done")
            return
        on = GOES_ON.get(arguments[0], "") if arguments else ""
        raise shortened(KeyboardInterrupt(f"interrupted; nothing more is done here{on}")) from None
    except click.ClickException as error:
        context_of = getattr(error, "ctx", None)
        said = error.format_message()
        hint = f"see `{context_of.command_path} --help`" if context_of is not None else "see `%cortex --help`"
        raise UsageError(f"{said} S{hint[1:]}" if said.endswith("?") else f"{said.rstrip('.')}; {hint}") from None
    except CortexError as error:
        raise shortened(error) from None


def shortened(error: BaseException) -> BaseException:
    """The same error, which IPython then shows as one line with its remedy (and the author's own frames), in a red box like any error.

    A line that it says to type is one for a cell.
    """
    if isinstance(error, CortexError):
        error.message = as_in_a_cell(error.message)
        if "all" in error.details:
            error.details["all"] = [as_in_a_cell(str(one)) for one in error.details["all"]]
    with render.as_text(140, colours=True) as (console, text_of):
        if isinstance(error, CortexError):
            render.explain(console, error)
        else:
            console.print(f"[bold]{error}[/]")
        lines = text_of().split("\n")
    error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
    return error
