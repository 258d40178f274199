"""The verbs and their arguments, once: the shell's `cortex <verb>` and a cell's `%cortex <verb>` are these very commands.

A verb asks its door (``door.py``) for what differs between a shell and a cell: where to show, whom to ask, which notebook is meant.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import __version__, commands
from ..core.errors import BadRequest, CortexError, EnvironmentDown
from ..core.levels import LEVELS, Level
from ..environments import LOCAL
from ..project import config_file, models
from . import exporting, publishing
from .completing import complete_api, complete_earlier, complete_env, complete_id
from .door import Door

#: Seconds after which lines that were just written are in the log: workers ship them every 0.1 s.
SHIPPED_S = 0.3

#: Every verb that both doors have, by name.
VERBS: dict[str, click.Command] = {}
#: Verbs that need a kernel, and those that need a shell.
KERNEL_VERBS = ("payload", "try", "save", "replay")
SHELL_VERBS = ("env", "demo", "worker", "gateway", "completion")


class Verbs(click.Group):
    """Takes unambiguous prefixes of verbs; suggests what is near."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            return found
        matches = [name for name in self.list_commands(ctx) if name.startswith(cmd_name)]
        if len(matches) == 1:
            return super().get_command(ctx, matches[0])
        if matches:
            ctx.fail(f"{cmd_name} may mean {', '.join(matches)}")
        return None


def as_in_a_cell(text: str) -> str:
    """A refusal's lines for a shell, in backquotes, as a cell takes them; what needs a shell stays."""
    return re.sub(rf"`cortex (?=(?:{'|'.join({*VERBS, *KERNEL_VERBS, 'sample'})})\b)", "`%cortex ", text)


def verb(function: Callable[..., None]) -> click.Command:
    """A command with the options that every verb has; it gets its door as the first argument."""

    @click.option("-o", "--output", type=click.Choice(["pretty", "json"]), default="pretty", help="Tables for people or JSON for programs.")
    @click.option("-e", "--env", default=None, shell_complete=complete_env, help="The environment to use (see `cortex env`).")
    @click.pass_context
    def wrapped(ctx: click.Context, output: str, env: str | None, **arguments: Any) -> None:
        function(ctx.find_root().obj(output, env), **arguments)

    wrapped.__doc__ = function.__doc__
    wrapped.__name__ = function.__name__
    parameters = getattr(function, "__click_params__", []) + getattr(wrapped, "__click_params__", [])
    wrapped.__click_params__ = parameters  # type: ignore[attr-defined]
    return click.command(function.__name__.rstrip("_").replace("_", "-"))(wrapped)


def shared(function: Callable[..., None]) -> click.Command:
    command = verb(function)
    VERBS[str(command.name)] = command
    return command


api_argument = click.argument("name", metavar="API", shell_complete=complete_api)
target_argument = click.argument("target", required=False, metavar="[TARGET]")
name_option = click.option("--name", default=None, shell_complete=complete_api, help="The API's name, for a notebook without a cortex.yaml.")
config_option = click.option("--config", "-c", "pairs", multiple=True, metavar="KEY=VALUE", help="Laid over handler.config; may be repeated.")


# Writing, checking, publishing ---------------------------------------------------------------------------------------------------------------


@shared
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Replace a cortex.yaml that is there.")
def init(door: Door, name: str | None, force: bool) -> None:
    """Write a cortex.yaml to start from."""
    from . import starting

    data = starting.init(door, name, force=force)
    door.show("init", data)


@shared
@target_argument
@name_option
@config_option
@click.option("--no-gate", is_flag=True, help="Only look: run neither the module nor samples.")
def check(door: Door, target: str | None, name: str | None, pairs: tuple[str, ...], no_gate: bool) -> None:
    """Check what would be published: surprises of the slice, then import, Handler(config) and every sample in a clean process.

    TARGET is a notebook or a cortex.yaml; in a cell, the API's name.
    """
    with door.working("checking") as progress:
        data = publishing.check(door, target, name, pairs, progress, gated=not no_gate)
    door.show("checked", data)
    if not data["ok"] and not door.in_cell:
        raise click.exceptions.Exit(1)


@shared
@target_argument
@name_option
@config_option
@click.option("--diff/--no-diff", default=True, help="Also the difference to what is live.")
def show(door: Door, target: str | None, name: str | None, pairs: tuple[str, ...], diff: bool) -> None:
    """The module that would be published from a notebook, the reason for each statement, and the difference to what is live."""
    with door.working("slicing"):
        built = publishing.from_target(door, target, name, pairs)
        if not isinstance(built, publishing.NotebookProject):
            raise BadRequest("`show` is for notebooks: `cortex show NOTEBOOK.ipynb`. A project's module is its own file")
        data = publishing.shown(built, door.client() if diff else None)
    door.show("module", data)


@shared
@target_argument
@name_option
@config_option
@click.option("-f", "--force", is_flag=True, help="Deploy even if it is up to date or updating.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing; in a cell: publish although cells were edited after they ran or training stays behind.")
@click.option("--take-over", is_flag=True, help="Publish an API that was deployed from somewhere else.")
@click.option("--no-check", is_flag=True, help="Without the checks before it.")
@click.option("--no-wait", is_flag=True, help="Return before it is live.")
@click.option("--lock", is_flag=True, help="Run it on a Python of its own, with the exact versions that this one has.")
@click.option("--rehearse", type=click.IntRange(1, 1000), metavar="N", help="First run the last N kept requests, in the shadow; then ask.")
@click.option("--promote-if-same", is_flag=True, help="After --rehearse: make it live if every request ended as before.")
def deploy(
    door: Door,
    target: str | None,
    name: str | None,
    pairs: tuple[str, ...],
    force: bool,
    yes: bool,
    take_over: bool,
    no_check: bool,
    no_wait: bool,
    lock: bool,
    rehearse: int | None,
    promote_if_same: bool,
) -> None:
    """Publish; starts the local environment if none runs.

    TARGET is a notebook or a cortex.yaml (the default); in a cell, the API's name.
    """

    if promote_if_same and (not rehearse or no_wait):
        raise BadRequest("--promote-if-same wants --rehearse N, and waits for it")

    def confirm(question: str) -> bool:
        return bool(door.ask(question))

    asks = not yes and not door.in_cell and door.ask("") is not None
    try:
        with door.working("deploying") as progress, door.client() as client:
            deployed, notebook, paste = publishing.publish(
                door,
                client,
                target,
                name,
                pairs,
                yes=yes,
                check=not no_check,
                progress=progress,
                confirm=confirm if asks else None,
                force=force,
                take_over=take_over,
                wait=not no_wait,
                lock=lock,
                rehearse=rehearse,
            )
    except CortexError as error:
        if rehearse and error.deployed and not door.json:
            # Of several APIs the others have been rehearsed all the same; what becomes of them is for somebody to decide who knows both.
            rehearsals.after(door, list(error.deployed), waited=not no_wait, promote_if_same=False, asks=False)
        raise
    if rehearse:
        rehearsals.after(door, deployed, waited=not no_wait, promote_if_same=promote_if_same, asks=asks)
        return
    rows = [commands.deployed_row(one) for one in deployed]
    for row in rows:
        row["sample"] = paste
    if notebook is not None:
        rows[0]["warnings"] += [str(row) for row in notebook.surprises]
        rows[0]["travels"] = [{"path": one.path, "bytes": one.size, "why": one.why} for one in notebook.travels]
    door.show("deployed", rows, live=not no_wait, command=door.command)


# Looking ------------------------------------------------------------------------------------------------------------------------------------


@shared
@click.argument("name", required=False, metavar="[API]", shell_complete=complete_api)
@click.option("-w", "--watch", is_flag=True, help="Look again every 2 seconds.")
@click.option("-v", "--verbose", is_flag=True, help="Show the spec as well.")
@click.option("--report", metavar="FILE", help="Write the live version's check notebook to FILE (ipynb).")
@click.option("--rehearsal", type=click.IntRange(min=1), metavar="VERSION", help="The report of that version's rehearsal.")
def get(door: Door, name: str | None, watch: bool, verbose: bool, report: str | None, rehearsal: int | None) -> None:
    """The APIs, or one API with its versions."""
    client = door.client()
    if rehearsal:
        if not name:
            raise BadRequest("--rehearsal wants the API's name, too")
        door.show("rehearsed", client.rehearsal(name, rehearsal), command=door.command)
        return
    if report:
        if not name:
            raise BadRequest("--report wants the API's name, too")
        door.show("written", commands.write_report(client, name, report))
        return

    def look() -> tuple[str, Any, dict[str, Any]]:
        data = commands.get(client, name, whole=door.json)
        facts = {"verbose": verbose, "url": client.environment.url} if name else {"env": client.environment.name, "command": door.command}
        return ("api" if name else "apis"), data, facts

    if not watch:
        view, data, facts = look()
        door.show(view, data, **facts)
        return
    door.watch(look)


@shared
@api_argument
@click.argument("payload", required=False)
@click.option("--file", "-f", "file", help="Send a file's bytes; - for standard input.")
@click.option("--content-type", "-t", help="Default: by the file's name; application/json for text that is JSON, else text/plain.")
@click.option("--id", "request_id", help="A request id of your own: sending the same again is safe.")
@click.option("--wait", type=float, default=None, help="Wait so many seconds for the result; in a cell 30, else 0.")
@click.option("--timeout", type=float, default=None, help="Seconds that it may run.")
@click.option("--queue-timeout", type=float, default=None, help="Seconds that it may wait before it is begun.")
def submit(
    door: Door,
    name: str,
    payload: str | None,
    file: str | None,
    content_type: str | None,
    request_id: str | None,
    wait: float | None,
    timeout: float | None,
    queue_timeout: float | None,
) -> None:
    """Send a payload; prints the request id, with --wait the result."""
    body, kind = commands.read_payload(payload, file, content_type)
    client = door.client()
    seconds = (30.0 if door.in_cell else 0.0) if wait is None else wait
    sent = client.submit(name, body, kind, request_id, timeout=timeout, queue_timeout=queue_timeout)
    if not seconds:
        door.show("workload", {"id": sent}, name=name, command=door.command)
        return
    try:
        seen = door.follow(client, name, sent, seconds)
    except CortexError as error:
        # Who does not know that it was accepted sends it again.
        error.message = f"{error.message}\nThe request was accepted as {sent}; `{door.command} result {name} {sent}` says what became of it."
        error.details["id"] = sent
        raise
    if seen.get("status") == "failed" and not door.in_cell:
        raise click.exceptions.Exit(1)


@shared
@api_argument
@click.argument("request_id", metavar="ID", shell_complete=complete_id)
@click.option("--wait", type=float, default=0.0, help="Wait so many seconds for the end.")
def result(door: Door, name: str, request_id: str, wait: float) -> None:
    """Status and result of a request."""
    if wait > 0:
        door.follow(door.client(), name, request_id, wait)
    else:
        door.show("workload", commands.result(door.client(), name, request_id), name=name, command=door.command)


@shared
@api_argument
@click.argument("request_id", metavar="ID", shell_complete=complete_id)
def cancel(door: Door, name: str, request_id: str) -> None:
    """Take a request back: it does not run any more; one that runs is told to end, and interrupted when it does not."""
    workload = door.client().cancel(name, request_id)
    door.show("workload", {"id": workload.id, "status": workload.status}, name=name, command=door.command)


@shared
@api_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they come.")
@click.option("-n", "--lines", type=click.IntRange(0, 10_000), default=200, show_default=True, help="How many of the newest lines.")
@click.option("-s", "--search", metavar="TEXT", default="", help="Only lines that show it, in whatever case, of all that are kept.")
@click.option("-l", "--level", type=click.Choice(LEVELS, case_sensitive=False), default=LEVELS[0], help="Only lines of this level and above.")
@click.option("--raw", is_flag=True, help="The JSON lines as stored.")
def logs(door: Door, name: str, follow: bool, lines: int, search: str, level: Level, raw: bool) -> None:
    """The log of all replicas."""
    client = door.client()
    if follow:
        door.stream(client.stream_api_logs(name, lines, search, level), raw=raw)
    else:
        records = client.logs(name, lines, search, level)
        if not records and lines:  # perhaps they are on their way
            time.sleep(SHIPPED_S)
            records = client.logs(name, lines, search, level)
        door.show("logs", records, raw=raw, sought=bool(search) or level != LEVELS[0])


# Looking after ------------------------------------------------------------------------------------------------------------------------------


@shared
@api_argument
@click.option("-f", "--force", is_flag=True, help="Even while it is updating.")
def refresh(door: Door, name: str, force: bool) -> None:
    """Fresh replicas, the new ones live before the old ones go."""
    with door.working(f"refreshing {name}"):
        row = commands.deployed_row(door.client().refresh(name, force))
    door.show("said", {"message": row["message"]}, text=f"{name} is live again (version {row['api']['version']})")


@shared
@api_argument
@click.argument("version", required=False, type=click.IntRange(min=1), shell_complete=complete_earlier)
@click.option("-f", "--force", is_flag=True, help="Even while it is updating.")
@click.option("--no-wait", is_flag=True, help="Return before it is live.")
def rollback(door: Door, name: str, version: int | None, force: bool, no_wait: bool) -> None:
    """Make an earlier version live again, as a new version; without VERSION, the one that was live before. What runs goes on."""
    with door.working(f"rolling {name} back") as progress:
        done = door.client().rollback(name, version, force, not no_wait, door.source(), progress)
    door.show("deployed", [commands.deployed_row(done)], live=not no_wait, command=door.command)


@shared
@click.argument("config", required=False, default="cortex.yaml", metavar="[CONFIG]")
@click.option("-f", "--force", is_flag=True, help="Even while it is updating.")
@click.option("--no-wait", is_flag=True, help="Return before it is live.")
def patch(door: Door, config: str, force: bool, no_wait: bool) -> None:
    """Another spec for what is deployed: the files stay those of the deployed version."""
    path = Path(config).expanduser()
    documents = models.with_files(config_file.load(path), path.absolute().parent)
    with door.working("patching"), door.client() as client:
        done: list[Any] = []
        for document in documents:
            try:
                done.append(client.patch(document, force, not no_wait))
            except CortexError as error:
                if done:
                    error.message += f"\nPatched before: {', '.join(f'{one.api} (version {one.version})' for one in done)}."
                raise
    door.show("deployed", [commands.deployed_row(one) for one in done], live=not no_wait, command=door.command)


@shared
@api_argument
@click.argument("version", required=False, type=click.IntRange(min=1), shell_complete=complete_earlier)
@click.option("--dir", "directory", help="The directory to make; NAME-vVERSION without it.")
def export(door: Door, name: str, version: int | None, directory: str | None) -> None:
    """Write what was deployed as a project: its cortex.yaml and files. Without VERSION, what is live."""
    with door.working(f"exporting {name}"), door.client() as client:
        said = exporting.export(client, name, version, directory)
    door.show("said", said)


@shared
@api_argument
@click.option("-y", "--yes", "-f", "--force", "yes", is_flag=True, help="Ask nothing.")
@click.option("-c", "--keep-cache", is_flag=True, hidden=True)
def delete(door: Door, name: str, yes: bool, keep_cache: bool) -> None:
    """Delete an API with its queue and results."""
    client = door.client()
    if not yes:
        counts = client.get_api(name)["workloads"]
        unfinished = f"{counts['in_progress']} running and {counts['in_queue']} waiting requests"
        answer = None if door.json else door.ask(f"delete {name} with {unfinished} and all results?")
        if answer is False:
            raise click.Abort
        if answer is None and (door.in_cell or any(counts.values())):
            raise BadRequest(f"{name} has {unfinished} and {counts['completed'] + counts['failed']} results; repeat with --yes to drop them")
    door.show("said", client.delete(name))


@shared
@api_argument
def stop(door: Door, name: str) -> None:
    """Stop an API's replicas; its requests are still accepted and wait."""
    door.show("said", door.client().stop(name))


@shared
@api_argument
def start(door: Door, name: str) -> None:
    """Start the replicas of a stopped API."""
    door.show("said", door.client().start(name))


@shared
@click.option("-q", "--quiet", is_flag=True, help="Say nothing when it works.")
def up(door: Door, quiet: bool) -> None:
    """Start the local environment, with everything that was deployed."""
    with door.working("starting the local environment"):
        data = door.up()
    if not quiet:
        door.show(
            "said", data, text="\n".join([f"the local environment is up: {data['gateway']}", *(f"note: {note}" for note in data.get("notes", []))])
        )


@shared
@click.option("--grace", default=30.0, show_default=True, help="Seconds that running handlers get to finish.")
def down(door: Door, grace: float) -> None:
    """Stop the local environment. What was accepted waits for the next `cortex up`."""
    with door.working("stopping"):
        stopped = door.down(grace)
    what = ", ".join(f"{count} {role}{'s' if count > 1 else ''}" for role, count in stopped.items())
    door.show("said", stopped, text=f"stopped {what}" if what else "nothing was running")


@shared
def status(door: Door) -> None:
    """The processes of the environment."""
    client = door.client()
    said = client.status()
    data = {"gateway": client.environment.url, "redis": said.get("store", {}).get("url", "unknown"), **said}
    door.show("processes", data, command=door.command, local=client.environment.name == LOCAL)


@shared
def version(door: Door) -> None:
    """The versions of this program and of the environment."""
    data: dict[str, Any] = {"cli": __version__}
    try:
        data["environment"] = door.client().status().get("code")
    except EnvironmentDown:
        data["environment"] = None
    door.show("said", data, text=f"cli: {data['cli']}\nenvironment: {data['environment'] or 'not running'}")


# The verbs on failures stand in a file of their own; they register themselves.
from . import rehearsals  # noqa: E402
