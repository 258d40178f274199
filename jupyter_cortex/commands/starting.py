"""`init`: what somebody needs to begin."""

from __future__ import annotations

from typing import Any

from ..core.checks import NAME_LIMIT, check_name
from ..core.errors import BadRequest, NotebookError, ProjectError
from ..core.readers import FieldError, printable, text
from ..project.from_notebook import CONFIG, MODULE, default_name
from .door import Door

CONFIG_TEXT = """\
# What is published, and how. The keys are Cortex's; README has a table of ours beside them.
- name: {name}
  kind: AsyncAPI
  handler:
    type: python
    path: handler.py  # made from the notebook's Handler at each deploy; for a project without a notebook, the module itself
    config: {{}}  # what Handler.__init__ gets as `config`
  # autoscaling:
  #   min_replicas: 1
  #   max_replicas: 2
"""
HANDLER_TEXT = '''\
from cortex_internal.lib.log import logger


class Handler:
    def __init__(self, config, metrics_client):
        """Once per replica: load what every request needs."""
        self.metrics = metrics_client

    def handle_async(self, payload, request_id):
        """Once per request: `payload` is what its Content-Type says. Return a dict that JSON can hold."""
        logger.info("received", extra={"type": type(payload).__name__})
        return {"received": str(payload)}
'''


def init(door: Door, name: str | None, *, force: bool) -> dict[str, Any]:
    """Write a cortex.yaml; ``handler`` in the answer is a class to start from. Raises BadRequest, ProjectError, NotebookError."""
    root = door.root()
    path = root / CONFIG
    if path.exists() and not force:
        raise ProjectError(f"{path} exists already; edit it, or replace it with --force", kind="exists", path=str(path))
    name = name or door.remembered() or _name(door)
    if problem := _problem_of(name):
        raise BadRequest(f"{printable(name)} cannot name an API: {problem}; `{door.command} init NAME` takes another")
    try:
        path.write_text(CONFIG_TEXT.format(name=name), "utf-8")
    except OSError as error:
        raise ProjectError(f"{path} cannot be written: {error.strerror}; choose another directory", kind="unwritable", path=str(path)) from None
    written = [str(path)]
    if not door.in_cell and not (root / MODULE).exists() and not any(root.glob("*.ipynb")):
        (root / MODULE).write_text(HANDLER_TEXT, "utf-8")
        written.append(str(root / MODULE))
    return {"file": " and ".join(written), "name": name, "handler": HANDLER_TEXT, "message": f"wrote {' and '.join(written)}"}


def _problem_of(name: str) -> str:
    """Why a deploy would refuse a name, "" for one that it takes."""
    try:
        text(check_name, longest=NAME_LIMIT)(name)
    except FieldError as error:
        return error.sentence.rstrip(".")
    return ""


def _name(door: Door) -> str:
    try:
        return default_name(door.notebook(None))
    except NotebookError:
        made = "".join(char if char.isalnum() and char.isascii() else "-" for char in door.root().name.lower()).strip("-")
        return "my-api" if _problem_of(made) else made
