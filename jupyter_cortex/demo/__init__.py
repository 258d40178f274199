"""``cortex demo``: from nothing to a published API with three answered requests."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.syntax import Syntax

from .. import commands
from ..core.errors import EnvironmentProblem, ProjectError

FILES = ("handler.py", "cortex.yaml", "requirements.txt")
#: One flower of each kind, from scikit-learn's own data: sepal length and width, petal length and width in cm.
SETOSA, VERSICOLOR, VIRGINICA = (5.1, 3.5, 1.4, 0.2), (6.4, 2.9, 4.3, 1.3), (6.3, 3.3, 6.0, 2.5)
NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def requests() -> list[dict[str, Any]]:
    """One JSON, one text and one binary request, each with a curl line that sends the same."""
    as_json = json.dumps(dict(zip(NAMES, SETOSA, strict=True)))
    as_text = ",".join(map(str, VERSICOLOR))
    as_bytes = struct.pack("<4f", *VIRGINICA)
    escaped = "".join(f"\\x{byte:02x}" for byte in as_bytes)
    return [
        {"type": "application/json", "body": as_json.encode(), "shown": f"-d '{as_json}'"},
        {"type": "text/plain", "body": as_text.encode(), "shown": f"-d '{as_text}'"},
        {"type": "application/octet-stream", "body": as_bytes, "shown": "--data-binary @-", "pipe": f"printf '{escaped}' | "},
    ]


def write_project(directory: Path) -> bool:
    """Write the project; False when it is there already. Raises ProjectError when something else is."""
    if directory.exists() and any(directory.iterdir()):
        if all((directory / name).exists() for name in FILES):
            return False
        raise ProjectError(f"{directory} is not empty and no demo project; choose another place with --dir")
    directory.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        source = resources.files(__package__) / "iris" / f"{name}.txt"
        (directory / name).write_text(source.read_text("utf-8"), "utf-8")
    return True


def run(context: Any, directory: str) -> None:
    """Tell the story on the context's console, or as JSON. Raises members of the CortexError family."""
    if importlib.util.find_spec("sklearn") is None:
        raise EnvironmentProblem(
            f"the demo trains a scikit-learn model, which is not installed: {sys.executable} -m pip install 'jupyter-cortex[demo]'"
        )
    console = context.console
    path = Path(directory).absolute()
    written = write_project(path)
    if not context.json:
        console.print(f"{'wrote' if written else 'found'} the project [bold]{path}[/]")
        console.print(
            Panel(
                Syntax((path / "handler.py").read_text(), "python", background_color="default"), title="handler.py", title_align="left", expand=False
            )
        )
    client = context.client
    begun = time.monotonic()
    with context.working("deploying") as working:
        rows = commands.deploy(client, str(path / "cortex.yaml"), progress=working.update if not context.json else lambda step: None)
    name, url = rows[0]["api"]["name"], rows[0]["api"]["url"]
    if not context.json:
        console.print(f"{rows[0]['message']} … live after {time.monotonic() - begun:.1f} s at [bold]{url}[/]\n")
    told = [_ask(context, client, name, url, request) for request in requests()]
    if context.json:
        print(json.dumps({"project": str(path), "api": rows[0]["api"], "requests": told}))
        return
    console.print("It goes on running. What next:")
    for command, what in (
        (f"cortex logs {name}", "what the handler logged"),
        (f"cortex get {name}", "status, versions, numbers"),
        (f"cortex submit {name} --wait 10 '{requests()[0]['body'].decode()}'", "one more request"),
        (f"$EDITOR {directory}/handler.py && cortex deploy {directory}/cortex.yaml", "change it and publish the next version"),
        (f"cortex delete {name}", "remove it"),
        ("cortex down", "stop the local environment"),
    ):
        console.print(f"  [bold]{escape(command)}[/]\n      [dim]{what}[/]")


def _ask(context: Any, client: Any, name: str, url: str, request: dict[str, Any]) -> dict[str, Any]:
    line = f"{request.get('pipe', '')}curl -X POST {url} -H 'Content-Type: {request['type']}' {request['shown']}"
    request_id = client.submit(name, request["body"], request["type"])
    answer = commands.result(client, name, request_id, wait=60)
    if not context.json:
        context.console.print(f"[dim]$[/] {escape(line)}")
        context.console.print_json(json.dumps({"id": request_id}))
        context.console.print(f"[dim]$[/] curl {url}/{request_id}")
        context.console.print_json(json.dumps(answer))
        context.console.print()
    return {"content_type": request["type"], "curl": line, "answer": answer}
