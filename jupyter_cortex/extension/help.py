"""``/cortex/help``: the documentation of the version that is installed here, also without a network."""

from __future__ import annotations

import asyncio
from importlib import metadata

from jupyter_server.auth.decorator import authorized
from tornado.web import authenticated

from ..core.errors import EnvironmentProblem
from .answers import CortexHandler, answering


class HelpHandler(CortexHandler):
    @authenticated
    @authorized
    @answering
    async def get(self) -> None:
        """README as Markdown, as the package carries it. Raises EnvironmentProblem."""
        text = await asyncio.to_thread(readme)
        self.finish(text, set_content_type="text/markdown; charset=utf-8")


def readme() -> str:
    """The description in this package's metadata. Raises EnvironmentProblem when it was installed without."""
    try:
        found = metadata.metadata("jupyter-cortex")
    except metadata.PackageNotFoundError:
        found = None  # type: ignore[assignment]
    # Older metadata has it as a header, newer as the body.
    text = "" if found is None else found["Description"] or str(found.get_payload())  # type: ignore[attr-defined]
    if not text.strip():
        raise EnvironmentProblem("the documentation is not installed here; README.md of the repository is the same")
    return text
