"""``cortex``: the roof over both towers. Exit status 0 done, 1 refused or failed, 2 wrong usage."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from . import __version__, commands, render
from .client import Client
from .core.errors import BadRequest, CortexError, EnvironmentDown
from .core.settings import Settings
from .environments import Environments


class Verbs(click.Group):
    """Takes unambiguous prefixes of verbs, and turns refusals into one line (or JSON) and exit status 1."""

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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CortexError as error:
            wants_json = any(word in ("json", "-ojson", "--output=json") for word in sys.argv[1:])
            if wants_json:
                click.echo(json.dumps(commands.error_row(error)))
            explain(error)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(1)


def explain(error: CortexError) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]error:[/] [bold]{escape(error.message)}[/]")
    if traceback := error.details.get("traceback"):
        console.print(escape(str(traceback)), style="red")
    elif logs := error.details.get("logs"):
        console.print("[dim]its last log lines:[/]")
        for line in list(logs)[-10:]:
            console.print(f"  {escape(str(line))}")


class Context:
    """What a verb needs: where to talk to, where to print."""

    def __init__(self, env: str | None, output: str) -> None:
        self.output = output
        self.console = Console(soft_wrap=True, highlight=False)
        if not self.console.is_terminal:
            # Into a file or a pipe nothing is cut: 80 columns would be a guess.
            self.console = Console(soft_wrap=True, highlight=False, width=400)
        self.settings = Settings.read()
        self._env = env

    @property
    def client(self) -> Client:
        environments = Environments(self.settings)
        environment = environments.find(self._env)
        if self._env is None and not self.json and len(environments.list()) > 1:
            Console(stderr=True).print(f"[dim]using {environment.name} environment[/]")
        return Client(environment, self.settings)

    @property
    def json(self) -> bool:
        return self.output == "json"

    def show(self, data: Any, screen: Callable[[], None]) -> None:
        if self.json:
            click.echo(json.dumps(data))
        else:
            screen()

    def working(self, what: str) -> Any:
        """A spinner on standard error while something takes its time; silent where nobody looks."""
        return Console(stderr=True).status(what)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """The options that every verb has."""

    @click.option("-o", "--output", type=click.Choice(["pretty", "json"]), default="pretty", help="Tables for people or JSON for programs.")
    @click.option("-e", "--env", default=None, help="The environment to use (see `cortex env`).")
    def wrapped(output: str, env: str | None, **arguments: Any) -> None:
        function(Context(env, output), **arguments)

    wrapped.__doc__ = function.__doc__
    wrapped.__name__ = function.__name__
    wrapped.__click_params__ = getattr(function, "__click_params__", []) + getattr(wrapped, "__click_params__", [])  # type: ignore[attr-defined]
    return wrapped


def complete_api(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    try:
        return [api["name"] for api in Context(None, "json").client.list_apis() if api["name"].startswith(incomplete)]
    except CortexError:
        return []


api_argument = click.argument("name", metavar="API", shell_complete=complete_api)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cortex")
def main() -> None:
    """Publish Handlers as asynchronous HTTP APIs."""


@main.command()
@click.option("-q", "--quiet", is_flag=True, help="Say nothing when it works.")
@verb
def up(context: Context, quiet: bool) -> None:
    """Start the local environment, with everything that was deployed."""
    from .operator import local

    with context.working("starting the local environment"):
        found = local.up(context.settings)
    if not quiet:
        context.show({"gateway": found.url}, lambda: context.console.print(f"the local environment is up: [bold]{found.url}[/]"))


@main.command()
@click.option("--grace", default=30.0, show_default=True, help="Seconds that running handlers get to finish.")
@verb
def down(context: Context, grace: float) -> None:
    """Stop the local environment. What was accepted waits for the next `cortex up`."""
    from .operator import local

    with context.working("stopping") as status:
        stopped = local.down(context.settings, status.update, grace=grace)
    what = ", ".join(f"{count} {role}{'s' if count > 1 else ''}" for role, count in stopped.items())
    context.show(stopped, lambda: context.console.print(f"stopped {what}" if what else "nothing was running"))


@main.command()
@api_argument
@verb
def stop(context: Context, name: str) -> None:
    """Stop an API's replicas; its requests are still accepted and wait."""
    said = context.client.stop(name)
    context.show(said, lambda: context.console.print(said["message"]))


@main.command()
@api_argument
@verb
def start(context: Context, name: str) -> None:
    """Start the replicas of a stopped API."""
    said = context.client.start(name)
    context.show(said, lambda: context.console.print(said["message"]))


@main.command()
@verb
def status(context: Context) -> None:
    """The processes of the environment."""
    data = full_status(context.client)
    context.show(data, lambda: render.processes(context.console, data))


def full_status(client: Client) -> dict[str, Any]:
    said = client.status()
    return {"gateway": client.environment.url, "redis": said.get("store", {}).get("url", "unknown"), **said}


@main.command()
@click.argument("config", default="cortex.yaml", metavar="[CONFIG]", type=click.Path())
@click.option("-f", "--force", is_flag=True, help="Deploy even if it is up to date or updating.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@click.option("--take-over", is_flag=True, help="Publish an API that was deployed from somewhere else.")
@click.option("--no-wait", is_flag=True, help="Return before it is live.")
@verb
def deploy(context: Context, config: str, force: bool, yes: bool, take_over: bool, no_wait: bool) -> None:
    """Publish the APIs of a cortex.yaml; starts the local environment if none runs."""
    ask = None if yes or context.json or not sys.stdin.isatty() else click.confirm
    with context.client as client:
        working = context.working("deploying")
        working.start()

        def confirm(question: str) -> bool:
            working.stop()
            answer = bool(ask and ask(question))
            working.start()
            return answer

        try:
            rows = commands.deploy(
                client, config, force=force, take_over=take_over, wait=not no_wait, confirm=confirm if ask else None, progress=working.update
            )
        except CortexError as error:
            if context.json:
                click.echo(json.dumps([{"api": None, "message": "", "error": error.message}]))
            working.stop()
            explain(error)
            sys.exit(1)
        finally:
            working.stop()
    context.show(rows, lambda: render.deployed(context.console, rows, live=not no_wait))


@main.command()
@click.argument("name", required=False, metavar="[API]", shell_complete=complete_api)
@click.option("-w", "--watch", is_flag=True, help="Look again every 2 seconds.")
@click.option("-v", "--verbose", is_flag=True, help="Show the spec as well.")
@verb
def get(context: Context, name: str | None, watch: bool, verbose: bool) -> None:
    """The APIs, or one API with its versions."""
    client = context.client

    def screen(console: Console) -> None:
        data = commands.get(client, name)
        if context.json:
            click.echo(json.dumps(data))
        elif name:
            render.api_detail(console, data[0], client.environment.url, verbose=verbose)
        else:
            render.api_list(console, data, client.environment.name)

    if not watch:
        screen(context.console)
        return
    import time

    from rich.live import Live
    from rich.text import Text

    with Live(console=context.console, screen=False, auto_refresh=False) as live:
        while True:
            with context.console.capture() as captured:
                screen(context.console)
            live.update(Text.from_ansi(captured.get()), refresh=True)
            time.sleep(2)


@main.command()
@api_argument
@click.argument("payload", required=False)
@click.option("--file", "-f", "file", help="Send a file's bytes; - for standard input.")
@click.option("--content-type", "-t", help="Default: by the file's name; application/json for text that is JSON, else text/plain.")
@click.option("--id", "request_id", help="A request id of your own: sending the same again is safe.")
@click.option("--wait", type=float, default=0.0, help="Wait so many seconds for the result.")
@verb
def submit(context: Context, name: str, payload: str | None, file: str | None, content_type: str | None, request_id: str | None, wait: float) -> None:
    """Send a payload; prints the request id, with --wait the result."""
    body, kind = commands.read_payload(payload, file, content_type)
    data = commands.submit(context.client, name, body, kind, request_id, wait)
    context.show(data, lambda: render.workload(context.console, data, name))


@main.command()
@api_argument
@click.argument("request_id", metavar="ID")
@click.option("--wait", type=float, default=0.0, help="Wait so many seconds for the end.")
@verb
def result(context: Context, name: str, request_id: str, wait: float) -> None:
    """Status and result of a request."""
    data = commands.result(context.client, name, request_id, wait)
    context.show(data, lambda: render.workload(context.console, data, name))


@main.command()
@api_argument
@click.argument("request_id", metavar="ID")
@verb
def cancel(context: Context, name: str, request_id: str) -> None:
    """Take a request back: it does not run any more, or its result is dropped."""
    workload = context.client.cancel(name, request_id)
    data = {"id": workload.id, "status": workload.status}
    context.show(data, lambda: render.workload(context.console, data, name))


@main.command()
@api_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they come.")
@click.option("-n", "--lines", default=200, show_default=True, help="How many of the newest lines.")
@click.option("--raw", is_flag=True, help="The JSON lines as stored.")
@verb
def logs(context: Context, name: str, follow: bool, lines: int, raw: bool) -> None:
    """The log of all replicas."""
    client = context.client
    for record in client.stream_api_logs(name, lines) if follow else client.logs(name, lines):
        if raw or context.json:
            click.echo(json.dumps(record))
        else:
            render.log_record(context.console, record)


@main.command()
@api_argument
@click.option("-f", "--force", is_flag=True, help="Even while it is updating.")
@verb
def refresh(context: Context, name: str, force: bool) -> None:
    """Fresh replicas, the new ones live before the old ones go."""
    with context.working(f"refreshing {name}"):
        row = commands.deployed_row(context.client.refresh(name, force))
    context.show({"message": row["message"]}, lambda: context.console.print(f"{name} is live again (version {row['api']['version']})"))


@main.command()
@api_argument
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
@click.option("-c", "--keep-cache", is_flag=True, hidden=True)
@verb
def delete(context: Context, name: str, yes: bool, keep_cache: bool) -> None:
    """Delete an API with its queue and results."""
    client = context.client
    if not yes and not context.json:
        counts = client.get_api(name)["workloads"]
        unfinished = f"{counts['in_progress']} running and {counts['in_queue']} waiting requests"
        if sys.stdin.isatty():
            click.confirm(f"delete {name} with {unfinished} and all results?", abort=True)
        elif counts["in_progress"] or counts["in_queue"]:
            raise BadRequest(f"{name} has {unfinished}; repeat with --yes to drop them")
    said = client.delete(name)
    context.show(said, lambda: context.console.print(said["message"]))


@main.group()
def env() -> None:
    """Environments: the local one, and gateways elsewhere."""


@env.command("list")
@verb
def env_list(context: Context) -> None:
    """The environments; * marks the one in use."""
    rows = Environments(context.settings).list()
    context.show(rows, lambda: render.environments(context.console, rows))


@env.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--token", prompt=True, hide_input=True, help="The gateway's control token.")
@verb
def env_add(context: Context, name: str, url: str, token: str) -> None:
    """Add a gateway by URL and token."""
    Environments(context.settings).add(name, url, token)
    context.show({"message": f"added {name}"}, lambda: context.console.print(f"added {name}; `cortex env use {name}` switches to it"))


@env.command("use")
@click.argument("name")
@verb
def env_use(context: Context, name: str) -> None:
    """Use this environment from now on."""
    Environments(context.settings).use(name)
    context.show({"message": f"using {name}"}, lambda: context.console.print(f"using {name}"))


@env.command("remove")
@click.argument("name")
@verb
def env_remove(context: Context, name: str) -> None:
    """Forget a gateway."""
    Environments(context.settings).remove(name)
    context.show({"message": f"removed {name}"}, lambda: context.console.print(f"removed {name}"))


@main.command()
@api_argument
@click.option("--redis", "redis_url", envvar="JUPYTER_CORTEX_REDIS_URL", required=True, help="The store's URL.")
@click.option("--replicas", default=1, show_default=True, help="Replicas on this machine.")
@click.option("--gateway/--no-gateway", default=True, help="Serve chaining names here as well.")
def worker(name: str, redis_url: str, replicas: int, gateway: bool) -> None:
    """Serve an API on this machine: follows the live version, until stopped."""
    from .operator import follow

    sys.exit(follow.run(Settings.read(), name, redis_url, replicas, serve_names=gateway))


@main.command(hidden=True)
def gateway() -> None:
    """Run a gateway in the foreground (the local one is started by `cortex up`)."""
    from .gateway.__main__ import main as serve

    sys.argv = ["cortex gateway", "--alone"]
    sys.exit(serve())


@main.command()
@click.option("--dir", "directory", default="iris-classifier", show_default=True, help="Where to write the project.")
@verb
def demo(context: Context, directory: str) -> None:
    """Write an iris classifier, publish it, and call it three times."""
    from . import demo as story

    story.run(context, directory)


@main.command()
@verb
def version(context: Context) -> None:
    """The versions of this program and of the environment."""
    data: dict[str, Any] = {"cli": __version__}
    try:
        data["environment"] = context.client.status().get("code")
    except EnvironmentDown:
        data["environment"] = None
    shown = data["environment"] or "not running"
    context.show(data, lambda: context.console.print(f"cli: {data['cli']}\nenvironment: {shown}"))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell; source it."""
    from click.shell_completion import get_completion_class

    cls = get_completion_class(shell)
    assert cls is not None
    click.echo(cls(main, {}, "cortex", "_CORTEX_COMPLETE").source())


if __name__ == "__main__":
    main(prog_name="cortex")
