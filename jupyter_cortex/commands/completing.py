"""What Tab offers behind a verb, in a shell and in a cell: names, ids, versions. Quietly nothing where the environment is down."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from ..client import Client
from ..core.errors import CortexError
from ..environments import Environments
from .door import Door

Completer = Callable[[click.Context, click.Parameter, str], list[str]]
#: So many of the newest requests are offered.
IDS = 50
#: Seconds that a call may take; nobody waits longer for names.
QUICK_S = 1.5


def completer(find: Callable[[Door, click.Context, click.Parameter], Iterable[str]]) -> Completer:
    """Of what ``find`` gives (which may raise CortexError), that which begins as the word does."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        try:
            found = find(ctx.find_root().obj("json", ctx.params.get("env")), ctx, param)
            return [one for one in found if one.startswith(incomplete)]
        except (CortexError, AttributeError, TypeError, KeyError):  # a line that is not finished lacks this and that
            return []

    return complete


def quick_client(door: Door) -> Client:
    """For who has typed Tab and waits, in a cell with the kernel's only thread."""
    client = door.client()
    client.patience = QUICK_S
    return client


@completer
def complete_env(door: Door, ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    return [row["name"] for row in Environments(door.settings).list()]


@completer
def complete_api(door: Door, ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    return [api["name"] for api in quick_client(door).list_apis()]


@completer
def complete_id(door: Door, ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """Of the API named before; for `cancel` those that have not ended."""
    open_only = "in_queue,in_progress" if ctx.command.name == "cancel" else None
    return [row["id"] for row in quick_client(door).workloads(ctx.params["name"], open_only, limit=IDS)]


@completer
def complete_earlier(door: Door, ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """Versions of the API named before that were live and are not now."""
    api = quick_client(door).get_api(ctx.params["name"])
    return [str(one["version"]) for one in api["api_versions"] if "live_at" in one["times"] and one["version"] != api["live"]]


@completer
def complete_rehearsed(door: Door, ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """Versions of the API named before that wait for a decision."""
    api = quick_client(door).get_api(ctx.params["name"])
    return [str(one["version"]) for one in api["api_versions"] if one["state"] in ("rehearsing", "rehearsed")]
