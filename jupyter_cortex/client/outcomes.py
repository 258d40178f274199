"""What comes of a deploy, and what is known of a request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import ArtifactsUnavailable, CortexError, DeployFailed, EnvironmentDown, StoreUnavailable, Unauthorized

#: What says nothing of the API that it met first: the next one would meet it, too.
NOT_OF_ONE = (EnvironmentDown, Unauthorized, StoreUnavailable, ArtifactsUnavailable)


@dataclass(frozen=True)
class Workload:
    """What is known of one request. ``result`` is the Handler's dict once ``status`` is completed; ``error`` has type and message when failed."""

    id: str
    status: str
    result: Any = None
    timestamp: str | None = None
    error: dict[str, str] | None = None
    #: While it runs: {"fraction", "text", "at"} as its Handler said last, and what it has told of the result so far.
    progress: dict[str, Any] | None = None
    partial: Any = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a workload. ``kind``: in_queue, in_progress, progress, log, completed, failed or cancelled."""

    id: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Deployed:
    """The outcome of deploying one API: ``outcome`` is created, updating, changed or up_to_date. ``guarded``: who calls it needs a token."""

    api: str
    outcome: str
    version: int
    message: str
    endpoint: str
    url: str
    warnings: list[str] = field(default_factory=list)
    guarded: bool = False


@contextlib.contextmanager
def gathered(name: str, refused: dict[str, CortexError]) -> Iterator[None]:
    """A refusal of one API of several is kept for the end."""
    try:
        yield
    except CortexError as error:
        refused[name] = error


def of_several(refused: dict[str, CortexError], deployed: list[Deployed], names: list[str], done: str) -> CortexError:
    """The first refusal; of several APIs with what became of each."""
    error = next(iter(refused.values()))
    error.deployed = tuple(deployed)
    if len(names) > 1:
        untried = [name for name in names if name not in {*refused, *(one.api for one in deployed)}]
        lines = [f"{name}: {one.message}" for name, one in refused.items()]
        lines += [f"{done} all the same: {', '.join(f'{one.api} (version {one.version})' for one in deployed)}."] if deployed else []
        lines += [f"{one.api}: {warning}" for one in deployed for warning in one.warnings]
        lines += [f"Not tried: {', '.join(untried)}."] if untried else []
        error.message = "\n".join(lines)
    return error


def workload_of(answer: dict[str, Any]) -> Workload:
    """An answer of GET or DELETE; a newer gateway may say more."""
    return Workload(**{key: answer[key] for key in Workload.__dataclass_fields__ if key in answer})


def did_not_start(name: str, version: int, error: dict[str, Any]) -> DeployFailed:
    return DeployFailed(
        f"{name} version {version} did not start: {error.get('message')}",
        api=name,
        version=version,
        traceback=error.get("details", {}).get("traceback"),
        logs=error.get("logs"),
    )
