"""``cortex demo``: the iris notebook, run with papermill from its first cell to a published API that answers."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.syntax import Syntax
from rich.text import Text

from ..core.errors import ApiNotFound, Conflict, EnvironmentDown, EnvironmentProblem, NotebookError, ProjectError
from ..project import run_notebook
from ..project.notebook import cells

NOTEBOOK = "iris-classifier.ipynb"
API = "iris-classifier"
#: Lines of one output that the screen gets; the notebook keeps all.
OUTPUT_LINES = 24


def source() -> Path:
    """The notebook as it is shipped; in a checkout, the example itself."""
    shipped = Path(str(resources.files(__package__) / NOTEBOOK))
    return shipped if shipped.is_file() else Path(__file__).parents[2] / "examples" / "notebooks" / NOTEBOOK


def write_notebook(directory: Path) -> bool:
    """Put the notebook there; False when it is there already, edited or not. Raises ProjectError when something else is."""
    if (directory / NOTEBOOK).is_file():
        cells.read(directory / NOTEBOOK)  # an edited one that is no notebook any more is said now
        return False
    if directory.exists() and not directory.is_dir():
        raise ProjectError(f"{directory} is a file; choose another place with --dir")
    if directory.exists() and any(directory.iterdir()):
        raise ProjectError(f"{directory} is not empty and has no {NOTEBOOK}; choose another place with --dir")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / NOTEBOOK).write_bytes(source().read_bytes())
    except OSError as error:
        raise ProjectError(f"{directory} cannot be written: {error.strerror}; choose another place with --dir") from None
    return True


def run(door: Any, directory: str) -> None:
    """Tell the story cell by cell on the door's console, or as JSON. Raises members of the CortexError family."""
    if importlib.util.find_spec("sklearn") is None:
        raise EnvironmentProblem(
            f"the demo trains a scikit-learn model, which is not installed: {sys.executable} -m pip install 'jupyter-cortex[demo]'"
        )
    path = Path(directory).absolute()
    written = write_notebook(path)
    console = door.console
    if not door.json:
        console.print(f"{'wrote' if written else 'found'} [bold]{escape(str(path / NOTEBOOK))}[/]; papermill runs it, cell by cell\n")
    told = (lambda kind, text, outputs: None) if door.json else Story(console)
    try:
        run_notebook.run(path / NOTEBOOK, {"keep": True}, told)
    except NotebookError:
        _refuse_anothers(door, path)
        raise
    api = door.client().get_api(API)
    url = door.client().url(API)
    if door.json:
        print(json.dumps({"notebook": str(path / NOTEBOOK), "api": {"name": API, "url": url, "status": api["status"], "version": api["live"]}}))
        return
    console.print(f"[bold]{API}[/] goes on running at [bold]{url}[/]. What next:")
    for command, what in (
        (
            f"jupyter lab {escape(directory)}/{NOTEBOOK}",
            "open the notebook, change a cell, run it, press Deploy; the sidebar shows the API, its requests, logs and versions",
        ),
        (f"cortex submit {API} --wait 10 5.1,3.5,1.4,0.2", "one more request"),
        (f"cortex logs {API}", "what the handler logged"),
        (f"cortex show {escape(directory)}/{NOTEBOOK}", "what is published, with the reason for each statement"),
        (f"cortex delete {API}", "remove it"),
        ("cortex down", "stop the local environment"),
    ):
        console.print(f"  [bold]{command}[/]\n      [dim]{what}[/]")


def _refuse_anothers(door: Any, path: Path) -> None:
    """Raises Conflict when the API runs already and is not this notebook's: what the deploy cell says of it cannot be said to `cortex demo`."""
    try:
        source = str(door.client().get_api(API)["source"])
    except (ApiNotFound, EnvironmentDown, EnvironmentProblem):
        return
    directory = source.partition(":")[2].removesuffix(f"/{NOTEBOOK}")
    if directory != str(path):
        raise Conflict(
            f"{API} runs already, deployed from {source}. Remove it with `cortex delete {API}` and try again, or go on with that one: "
            f"`cortex demo --dir {shlex.quote(directory)}`"
        )


class Story:
    """Prints each finished cell: the text of the notebook, its code, and what the code showed."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, kind: str, text: str, outputs: list[dict[str, Any]]) -> None:
        if kind == "markdown":
            self._console.print(Markdown(text.strip()), width=min(100, self._console.width))
            self._console.print()
            return
        code = Syntax("", "python", background_color="default").highlight(text.rstrip("\n"))
        self._console.print(_indented(code, 2), soft_wrap=True)
        for output in outputs:
            shown = output.get("text") or (output.get("data") or {}).get("text/plain") or ""
            lines = str(shown).rstrip("\n").split("\n")
            if len(lines) > OUTPUT_LINES:
                lines = [*lines[:OUTPUT_LINES], f"… {len(lines) - OUTPUT_LINES} more lines"]
            if any(lines):
                self._console.print(_indented(Text("\n".join(lines), style="cyan"), 4), soft_wrap=True)
        self._console.print()


def _indented(text: Text, columns: int) -> Text:
    """Moved to the right; a line that is longer than the screen goes on in the next instead of being cut."""
    return Text("\n").join(Text(" " * columns) + line for line in text.split("\n", allow_blank=True))
