"""Where this server points, and whether it is up."""

from __future__ import annotations

from jupyter_server.auth.decorator import authorized
from tornado.web import authenticated

from .answers import CortexHandler, answering


class EnvironmentHandler(CortexHandler):
    @authenticated
    @authorized
    @answering
    async def get(self) -> None:
        """As :meth:`Link.look`."""
        self.answer(await self.link.look())


class StartHandler(CortexHandler):
    @authenticated
    @authorized
    @answering
    async def post(self) -> None:
        """Start the local environment; then as :meth:`Link.look`."""
        self.answer(await self.link.start())
