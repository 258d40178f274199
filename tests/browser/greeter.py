"""A small API that was published from a notebook, as ``cortex deploy NOTEBOOK.ipynb`` does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from ..notebook.conftest import write_notebook
from .jupyter import Jupyter

IMPORTS = "import time"
HANDLER = """class Handler:
    def __init__(self, config):
        self.greeting = config.get("greeting", "hello")

    def handle_async(self, payload, request_id):
        print("greeting", payload.get("name"))
        time.sleep(payload.get("seconds", 0))
        return {"text": f"{self.greeting}, {payload['name']}"}
"""
#: Where a payload without a name fails, as the inspector says it.
FAILS = "cell 2, line 8"


@dataclass
class Greeter:
    """One API and its notebook. ``seconds`` in a payload makes a request last; one without ``name`` fails."""

    jupyter: Jupyter
    name: str
    ids: list[str] = field(default_factory=list)

    @property
    def notebook(self) -> str:
        """Its path, as the file browser shows it: in a directory of its own, since the samples beside a notebook belong to it."""
        return f"{self.name}/{self.name}.ipynb"

    def write(self, handler: str = HANDLER) -> Greeter:
        path = self.jupyter.root / self.notebook
        path.parent.mkdir(exist_ok=True)
        write_notebook(path, IMPORTS, handler)
        return self

    def deploy(self, *options: str) -> Greeter:
        """Publish it as it stands in the file."""
        self.jupyter.environment.cortex("deploy", self.notebook, "--yes", *options, cwd=self.jupyter.root)
        return self

    @property
    def url(self) -> str:
        return f"{self.jupyter.environment.url}/{self.name}"

    def post(self, **payload: Any) -> str:
        answer = httpx.post(self.url, json=payload, trust_env=False)
        answer.raise_for_status()
        self.ids.append(answer.json()["id"])
        return self.ids[-1]

    def ended(self, identity: str) -> dict[str, Any]:
        """The workload at its end."""
        answer = httpx.get(f"{self.url}/{identity}", params={"wait": 30}, trust_env=False, timeout=40).json()
        assert answer["status"] not in ("in_queue", "in_progress"), answer
        return dict(answer)

    def delete(self) -> None:
        self.jupyter.environment.client().delete(self.name)
