"""A version before it is live: what its rehearsal gave, and what becomes of it: `promote` or `drop`."""

from __future__ import annotations

import click

from .. import commands
from ..client import Client, Deployed
from ..core.errors import BadRequest
from .completing import complete_rehearsed
from .door import Door
from .verbs import api_argument, shared


def after(door: Door, deployed: list[Deployed], *, waited: bool, promote_if_same: bool, asks: bool) -> None:
    """What follows a `deploy --rehearse`: the report, then the decision. Exits with 1 where --promote-if-same did not."""
    differs = False
    with door.client() as client:
        for one in deployed:
            if not waited:
                door.show(
                    "said", {"message": one.message, "version": one.version}, text=f"{one.message}; `{_report(door, one)}` shows what came of it"
                )
                continue
            report = client.rehearsal(one.api, one.version)
            report["warnings"] = one.warnings
            chosen = report["same"] if promote_if_same else asks and door_asks(door, client, one, report)
            report["promoted"] = bool(chosen)
            if not (asks and not promote_if_same):
                door.show("rehearsed", report, command=door.command)
            if chosen:
                promote_one(door, client, one.api, one.version, quiet=door.json)
            elif promote_if_same and not door.in_cell:
                differs = True
    if differs:  # when each has had its report
        raise click.exceptions.Exit(1)


def door_asks(door: Door, client: Client, one: Deployed, report: dict[str, object]) -> bool:
    """Show the report and ask. A no drops it, if that is wanted as well; else it waits for a day."""
    door.show("rehearsed", report, command=door.command)
    if door.ask(f"make version {one.version} of {one.api} live?"):
        return True
    if door.ask("drop it? (it waits for a day else)"):
        door.show("said", client.drop(one.api, one.version))
    return False


def _report(door: Door, one: Deployed) -> str:
    return f"{door.command} get {one.api} --rehearsal {one.version}"


def promote_one(door: Door, client: Client, name: str, version: int, *, force: bool = False, wait: bool = True, quiet: bool = False) -> None:
    with door.working(f"promoting {name}") as progress:
        done = client.promote(name, version, force, wait, door.source(), progress)
    if not quiet:
        door.show("deployed", [commands.deployed_row(done)], live=wait, command=door.command)


def undecided(client: Client, name: str, version: int | None) -> int:
    """That version, else the one that waits for a decision. Raises BadRequest."""
    if version is not None:
        return version
    for one in client.get_api(name)["api_versions"]:
        if one["state"] in ("rehearsing", "rehearsed"):
            return int(one["version"])
    raise BadRequest(f"no version of {name} is rehearsed; `deploy --rehearse N` does it")


@shared
@api_argument
@click.argument("version", required=False, type=click.IntRange(min=1), shell_complete=complete_rehearsed)
@click.option("-f", "--force", is_flag=True, help="Even while it is updating.")
@click.option("--no-wait", is_flag=True, help="Return before it is live.")
def promote(door: Door, name: str, version: int | None, force: bool, no_wait: bool) -> None:
    """Make a rehearsed version live; without VERSION, the one that waits for it."""
    client = door.client()
    promote_one(door, client, name, undecided(client, name, version), force=force, wait=not no_wait)


@shared
@api_argument
@click.argument("version", required=False, type=click.IntRange(min=1), shell_complete=complete_rehearsed)
def drop(door: Door, name: str, version: int | None) -> None:
    """End a rehearsal, or what was rehearsed, without making it live."""
    client = door.client()
    door.show("said", client.drop(name, undecided(client, name, version)))
