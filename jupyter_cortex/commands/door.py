"""What a verb needs of the place where it was typed: a shell, or a notebook's cell."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..client import Client
    from ..core.settings import Settings
    from ..project.notebook.cells import Notebook

#: A step in words -> how much of a deploy is done by then. The first that the step begins with counts.
STAGES = (
    ("reading", 0.05),
    ("starting the local environment", 0.1),
    ("slicing", 0.15),
    ("checking: import", 0.2),
    ("checking: sample", 0.4),
    ("checking", 0.2),
    ("installing", 0.25),
    ("bundling", 0.55),
    ("uploading", 0.6),
    ("starting", 0.7),
    ("rehearsing", 0.7),
    ("promoting", 0.7),
)


def fraction(step: str) -> float:
    """How far a deploy is (0 to 1) when this step begins."""
    if step.endswith(" is live"):
        return 1.0
    return next((done for words, done in STAGES if step.startswith(words)), 0.0)


class Door(Protocol):
    """``json``: answer in JSON. ``in_cell``: typed in a notebook, where a bare name means an API of this notebook."""

    json: bool
    in_cell: bool
    #: What stands in front of a verb here: "cortex" or "%cortex".
    command: str
    settings: Settings

    def client(self) -> Client:
        """A client of the environment that the verb asked for. Raises EnvironmentProblem."""
        ...

    def working(self, what: str) -> AbstractContextManager[Callable[[str], None]]:
        """Shows that something takes its time; what it gives is called with each next step."""
        ...

    def ask(self, question: str) -> bool | None:
        """The author's answer; None where nobody can be asked."""
        ...

    def show(self, view: str, data: Any, **facts: Any) -> None:
        """Show data as the view of that name does here; ``facts`` are for the view alone and are no part of the JSON."""
        ...

    def notebook(self, path: Path | None) -> Notebook:
        """The notebook of that path, else the one in which the verb was typed. Raises NotebookError, ProjectError."""
        ...

    def remember(self, name: str) -> None:
        """The API that the notebook of this door is."""
        ...

    def remembered(self) -> str | None:
        """That API, if a verb has said it."""
        ...

    def root(self) -> Path:
        """The project's directory."""
        ...

    def watch(self, look: Callable[[], tuple[str, Any, dict[str, Any]]]) -> None:
        """Show (view, data, facts) again every 2 seconds until interrupted."""
        ...

    def glance(self, look: Callable[[], tuple[str, Any, dict[str, Any]]]) -> None:
        """Show (view, data, facts) at once and return; where a front end can, it goes on refreshing itself in its place."""
        ...

    def source(self) -> str:
        """Where a verb was typed, for the records of what it did: the notebook, or the shell's directory."""
        ...

    def stream(self, records: Iterator[dict[str, Any]], *, raw: bool) -> None:
        """Show log records as they come, until interrupted."""
        ...

    def follow(self, client: Client, name: str, request_id: str, seconds: float) -> dict[str, Any]:
        """Show one workload live until its end, or for so many seconds; what it is then."""
        ...

    def up(self) -> dict[str, Any]:
        """Start the local environment: ``{"gateway": url}``. Raises EnvironmentDown, EnvironmentProblem."""
        ...

    def down(self, grace: float) -> dict[str, Any]:
        """Stop it: role -> how many processes were stopped."""
        ...
