"""``cortex``: the roof over both towers, and the shell's door to the verbs. Exit status 0 done, 1 refused or failed, 2 wrong usage."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from . import __version__, commands, render
from .client import Client
from .commands import following
from .commands.failures import sample
from .commands.verbs import KERNEL_VERBS, VERBS, Verbs, api_argument, verb
from .core.errors import CortexError, NotebookError
from .core.settings import Settings
from .environments import Environments

#: Seconds between two looks of `--watch`.
WATCH_S = 2.0


class Shell(Verbs):
    """Turns refusals into one line (or JSON) and exit status 1."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in KERNEL_VERBS:
            ctx.fail(f"`{cmd_name}` needs a notebook's kernel: write `%cortex {cmd_name}` in a cell")
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CortexError as error:
            words = sys.argv[1:]
            if any(word in ("json", "-ojson", "--output=json") for word in words):
                row = commands.error_row(error)
                # deploy's answer has one shape, whether it worked or not.
                rows = [*map(commands.deployed_row, error.deployed), {"api": None, "message": "", "error": error.message}]
                click.echo(json.dumps(rows if words[:1] == ["deploy"] else row))
            render.explain(Console(stderr=True, soft_wrap=True, highlight=False), error)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(1)


class ShellDoor:
    """Tables on standard output, steps and questions on standard error and the terminal."""

    in_cell = False
    command = "cortex"

    def __init__(self, output: str, env: str | None) -> None:
        self.json = output == "json"
        self.console = Console(soft_wrap=True, highlight=False)
        if not self.console.is_terminal:
            # Into a file or a pipe nothing is cut: 80 columns would be a guess.
            self.console = Console(soft_wrap=True, highlight=False, width=400)
        self.settings = Settings.read()
        self._env = env
        self._status: Any = None

    def client(self) -> Client:
        environments = Environments(self.settings)
        environment = environments.find(self._env)
        if self._env is None and not self.json and len(environments.list()) > 1:
            Console(stderr=True).print(f"[dim]using {environment.name} environment[/]")
        return Client(environment, self.settings)

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[str], None]]:
        """A spinner on standard error while something takes its time; silent where nobody looks."""
        with Console(stderr=True).status(what) as self._status:
            try:
                yield self._status.update
            finally:
                self._status = None

    def ask(self, question: str) -> bool | None:
        """An empty question only asks whether somebody could be asked."""
        if self.json or not sys.stdin.isatty():
            return None
        if not question:
            return True
        if self._status:
            self._status.stop()
        answer = click.confirm(question, err=True)
        if self._status:
            self._status.start()
        return answer

    def show(self, view: str, data: Any, **facts: Any) -> None:
        if not self.json:
            render.VIEWS[view](self.console, data, **facts)
        elif view == "logs":
            for record in data:
                click.echo(json.dumps(record))
        else:
            click.echo(json.dumps(data))

    def watch(self, look: Callable[[], tuple[str, Any, dict[str, Any]]]) -> None:
        with Live(console=self.console, screen=False, auto_refresh=False) as live:
            while True:
                view, data, facts = look()
                with self.console.capture() as captured:
                    self.show(view, data, **facts)
                live.update(Text.from_ansi(captured.get()), refresh=True)
                time.sleep(WATCH_S)

    def glance(self, look: Callable[[], tuple[str, Any, dict[str, Any]]]) -> None:
        view, data, facts = look()
        self.show(view, data, **facts)

    def source(self) -> str:
        return str(Path.cwd())

    def stream(self, records: Iterator[dict[str, Any]], *, raw: bool) -> None:
        for record in records:
            self.show("logs", [record], raw=raw)

    def follow(self, client: Client, name: str, request_id: str, seconds: float) -> dict[str, Any]:
        """On a terminal with its place in the queue, its progress and its log lines; Ctrl-C asks whether to cancel it."""
        if self.json or not sys.stderr.isatty():
            data = commands.result(client, name, request_id, seconds)
        else:
            data = self._follow(client, name, request_id, seconds)
            if "failure" in data:
                data["failure"]["records"] = []  # they were drawn as they came
        self.show("workload", data, name=name, command=self.command)
        return data

    def _follow(self, client: Client, name: str, request_id: str, seconds: float) -> dict[str, Any]:
        console = Console(stderr=True, highlight=False)
        shown = 0
        with console.status("") as status:

            def draw(seen: following.Followed) -> None:
                nonlocal shown
                for record in seen.records[shown:]:
                    render.log_record(console, record)
                shown = len(seen.records)
                status.update(render.followed(seen))

            try:
                return following.follow(client, name, request_id, seconds, draw)[0]
            except KeyboardInterrupt:
                status.stop()
                if self.ask(f"cancel {request_id}?"):
                    client.cancel(name, request_id)
                return commands.result(client, name, request_id)

    def notebook(self, path: Path | None) -> Any:
        from .project import from_notebook

        if path is None:
            raise NotebookError("name the notebook: `cortex deploy NOTEBOOK.ipynb`", kind="unnamed")
        return from_notebook.read(path)

    def remember(self, name: str) -> None:
        """A shell forgets."""

    def remembered(self) -> None:
        return None

    def root(self) -> Path:
        return Path.cwd()

    def up(self) -> dict[str, Any]:
        from .operator import local

        there = local.up(self.settings)
        return {"gateway": there.url, "notes": list(there.notes)}

    def down(self, grace: float) -> dict[str, Any]:
        from .operator import local

        return local.down(self.settings, self._status.update if self._status else lambda step: None, grace=grace)


@click.group(cls=Shell, commands=dict(VERBS), context_settings={"help_option_names": ["-h", "--help"], "obj": ShellDoor})
@click.version_option(__version__, prog_name="cortex")
def main() -> None:
    """Publish Handlers as asynchronous HTTP APIs."""


@main.group()
def env() -> None:
    """Environments: the local one, and gateways elsewhere."""


@verb
def list_(door: ShellDoor) -> None:
    """The environments; * marks the one in use."""
    door.show("environments", Environments(door.settings).list())


@verb
@click.argument("name")
@click.argument("url")
@click.option("--token", prompt=True, hide_input=True, help="The gateway's control token.")
def add(door: ShellDoor, name: str, url: str, token: str) -> None:
    """Add a gateway by URL and token."""
    Environments(door.settings).add(name, url, token)
    door.show("said", {"message": f"added {name}"}, text=f"added {name}; `cortex env use {name}` switches to it")


@verb
@click.argument("name")
def use(door: ShellDoor, name: str) -> None:
    """Use this environment from now on."""
    Environments(door.settings).use(name)
    door.show("said", {"message": f"using {name}"})


@verb
@click.argument("name")
def remove(door: ShellDoor, name: str) -> None:
    """Forget a gateway."""
    Environments(door.settings).remove(name)
    door.show("said", {"message": f"removed {name}"})


for command in (list_, add, use, remove):
    env.add_command(command)


@main.command()
@api_argument
@click.option("--redis", "redis_url", envvar="JUPYTER_CORTEX_REDIS_URL", required=True, help="The store's URL.")
@click.option("--replicas", type=click.IntRange(min=1), default=1, show_default=True, help="Replicas on this machine.")
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


@verb
@click.option("--dir", "directory", default="iris-classifier", show_default=True, help="Where to put the notebook.")
def demo(door: ShellDoor, directory: str) -> None:
    """Run the iris notebook from its first cell to a published API, and leave it running."""
    from . import demo as story

    story.run(door, directory)


main.add_command(demo)
main.add_command(sample)


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
