"""JupyterLab's door: the routes below ``<base_url>/cortex/``, by which a browser reaches the environment through the Jupyter server alone.

Loading it starts nothing and reads no token: what a route needs opens when the route is asked.
"""

from __future__ import annotations

import os

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.application import ExtensionApp
from traitlets import Unicode

from .environment import EnvironmentHandler, StartHandler
from .forward import ForwardHandler
from .help import HelpHandler
from .link import Link
from .notebook import NotebookHandler
from .run import RunHandler
from .samples import SampleHandler
from .stream import SnapshotHandler, StreamHandler

__all__ = ["ROUTES", "CortexExtension"]

#: Pattern below the base URL -> what answers there.
ROUTES: tuple[tuple[str, type[JupyterHandler]], ...] = (
    (r"/cortex/environment", EnvironmentHandler),
    (r"/cortex/environment/start", StartHandler),
    (r"/cortex/api/(.*)", ForwardHandler),
    (r"/cortex/run(/.*)", RunHandler),
    (r"/cortex/help", HelpHandler),
    (r"/cortex/snapshot", SnapshotHandler),
    (r"/cortex/stream", StreamHandler),
    (r"/cortex/sample", SampleHandler),
    (r"/cortex/notebook/(show|check|deploy|prepare)", NotebookHandler),
)


class CortexExtension(ExtensionApp):
    """Publishes notebooks as APIs, and looks after them."""

    name = "jupyter_cortex"

    url = Unicode(
        help="The gateway to use. Default: JUPYTER_CORTEX_URL, else the environment that `cortex env use` has chosen, else the local one."
    ).tag(config=True)
    token = Unicode(help="The token for that gateway's control routes. Default: JUPYTER_CORTEX_TOKEN.").tag(config=True)

    def initialize_settings(self) -> None:
        self.settings[Link.SETTING] = Link(self.url, self.token)
        # Kernels and terminals inherit what this process has: `%cortex` and `cortex` there point to where the page points.
        os.environ |= {f"JUPYTER_CORTEX_{name}": value for name, value in (("URL", self.url), ("TOKEN", self.token)) if value}

    def initialize_handlers(self) -> None:
        self.handlers.extend(ROUTES)

    async def stop_extension(self) -> None:
        self.settings[Link.SETTING].close()
