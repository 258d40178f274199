"""The environment that this Jupyter server points to: the one place that knows its URL and its token, and speaks to its gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from .. import __version__
from ..core.errors import BadRequest, CortexError, EnvironmentDown, EnvironmentProblem, from_problem

if TYPE_CHECKING:
    from ..core.settings import Settings
    from ..environments import Environment

#: The gateway takes bodies of up to 512 MiB, and a result may be as large as that.
MAX_BODY_BYTES = 520 * 1024 * 1024
#: Each open page holds one long poll; more than this many calls at once wait for each other.
MAX_CALLS = 1000
#: Seconds to connect; for an answer, beyond what a long poll waits (55) and a large body takes; and for the question whether it is there.
CONNECT_S, ANSWER_S, LOOK_S = 5.0, 600.0, 5.0


@dataclass(frozen=True)
class Answer:
    """What the gateway said; ``headers`` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    def document(self, kind: type) -> Any:
        """The JSON of an answer that refuses nothing. Raises what the gateway refused with, EnvironmentProblem for another server."""
        try:
            said = json.loads(self.body)
        except (ValueError, RecursionError):
            raise self.foreign() from None
        if self.is_problem and isinstance(said, dict):
            raise from_problem(said)
        if self.status != 200 or not isinstance(said, kind):
            raise self.foreign()
        return said

    @property
    def is_problem(self) -> bool:
        return self.status >= 400 and self.headers.get("content-type", "").startswith("application/problem+json")

    def foreign(self) -> EnvironmentProblem:
        return EnvironmentProblem(f"the gateway answered {self.status}, and not in our words; is it a jupyter-cortex gateway?")


class Link:
    """``url`` and ``token``: the traits; empty for what the settings and `cortex env use` say, which are read anew with each call."""

    #: Where the server's settings keep it.
    SETTING: ClassVar[str] = "cortex_link"

    def __init__(self, url: str = "", token: str = "") -> None:
        self._url, self._token = url.rstrip("/"), token.strip()
        self._http: SimpleAsyncHTTPClient | None = None
        self._starting = asyncio.Lock()
        #: By the environment's URL and the API's name: the deploy, and its spec.
        self.specs: dict[tuple[str, str], tuple[Any, Any]] = {}
        #: What runs for open pages; ended with the server.
        self.listeners: set[asyncio.Task[None]] = set()

    def settings(self) -> Settings:
        """Raises EnvironmentProblem."""
        from ..core.settings import Settings

        return Settings.read()

    def environment(self) -> Environment:
        """Raises EnvironmentProblem."""
        from ..environments import Environment, Environments

        settings = self.settings()
        if self._url:
            return Environment("settings", self._url, self._token or settings.token, settings.call_token)
        return Environments(settings).find()

    # Asking ------------------------------------------------------------------------------------------------------------------------------

    async def control(self, method: str, path: str, *, query: str = "", body: bytes | None = None, seconds: float = ANSWER_S) -> Answer:
        """``/_cortex/v1<path>`` with the environment's token. Raises EnvironmentDown, EnvironmentProblem (it refuses the token)."""
        environment = self.environment()
        headers = {"authorization": f"Bearer {environment.token}"}
        if body:
            headers["content-type"] = "application/json"
        answer = await self._call(environment, method, f"/_cortex/v1{path}", query, headers, body, seconds)
        if answer.status == 401:
            raise EnvironmentProblem(f"{environment.url} refuses the token of this Jupyter server; add the environment again with `cortex env add`")
        return answer

    async def public(self, method: str, path: str, *, query: str, headers: dict[str, str], body: bytes | None) -> Answer:
        """A public route, with the token that callers need. Raises EnvironmentDown, EnvironmentProblem."""
        environment = self.environment()
        return await self._call(environment, method, path, query, _as_caller(environment, headers), body, ANSWER_S)

    @contextlib.asynccontextmanager
    async def following(self, path: str, *, query: str, headers: dict[str, str]) -> AsyncIterator[Any]:
        """GET of a public route whose answer comes bit by bit, as :func:`client.streamed` gives it. Raises EnvironmentDown, also when it breaks off,
        and EnvironmentProblem."""
        # Tornado's client gives its callback no way to end the call. Importing this one takes 60 ms, which only those pay who follow.
        from ..client.wire import streamed

        environment = self.environment()
        try:
            async with streamed(_url(environment, path, query), _as_caller(environment, headers)) as answer:
                yield answer
        except ConnectionError as error:
            raise down(environment, error) from None

    async def _call(
        self, environment: Environment, method: str, path: str, query: str, headers: dict[str, str], body: bytes | None, seconds: float
    ) -> Answer:
        url = _url(environment, path, query)
        if self._http is None:
            self._http = SimpleAsyncHTTPClient(
                force_instance=True, max_clients=MAX_CALLS, max_buffer_size=MAX_BODY_BYTES, max_body_size=MAX_BODY_BYTES
            )
        try:
            request = HTTPRequest(
                url,
                method,
                headers,
                body,
                connect_timeout=CONNECT_S,
                request_timeout=seconds,
                follow_redirects=False,
                decompress_response=False,
                allow_nonstandard_methods=True,
            )
            said = await self._http.fetch(request, raise_error=False)
        except (OSError, HTTPClientError, ValueError, KeyError) as error:  # the last two: what is no URL
            raise down(environment, error) from None
        return Answer(said.code, {name.lower(): value for name, value in said.headers.get_all()}, said.body)

    def close(self) -> None:
        for listener in self.listeners:
            listener.cancel()
        if self._http is not None:
            self._http.close()
            self._http = None

    # Whether it is there -----------------------------------------------------------------------------------------------------------------

    async def look(self) -> dict[str, Any]:
        """What a browser may know: ``{"name", "url", "local", "up", "message", "version", "guarded", "hub", "python"}``.

        ``message`` says why it is not up; ``guarded``: who calls an API needs a token.
        """
        from ..environments import LOCAL

        name = url = message = ""
        guarded = False
        try:
            environment = self.environment()
            name, url = environment.name, environment.url
            guarded = bool((await self.control("GET", "/status", seconds=LOOK_S)).document(dict).get("guarded"))
        except CortexError as error:
            message = error.message
        return {
            "name": name,
            "url": url,
            "local": name == LOCAL,
            "up": not message,
            "message": message,
            "version": __version__,
            "guarded": guarded,
            "hub": "JUPYTERHUB_SERVICE_PREFIX" in os.environ,
            "python": sys.executable,
        }

    async def start(self) -> dict[str, Any]:
        """Start the local environment as `cortex up` does, unless it is up; then as :meth:`look`. Raises BadRequest, EnvironmentDown."""
        from ..environments import start_local

        async with self._starting:
            there = await self.look()
            if there["up"]:
                return there
            if not there["local"]:
                raise BadRequest(f"only the local environment can be started from here: {there['message']}")
            await asyncio.to_thread(start_local)
            return await self.look()


def _as_caller(environment: Environment, headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "authorization": f"Bearer {environment.caller}"} if environment.caller else headers


def _url(environment: Environment, path: str, query: str) -> str:
    """Raises EnvironmentDown where there is no environment yet."""
    if not environment.url:
        raise down(environment)
    return f"{environment.url}{path}{f'?{query}' if query else ''}"


def down(environment: Environment, error: Exception | None = None) -> EnvironmentDown:
    """EnvironmentDown with the remedy."""
    from ..environments import LOCAL

    if not environment.url:
        return EnvironmentDown("no local environment runs yet; start it here, or with `cortex up`")
    if environment.name == LOCAL and isinstance(error, ConnectionRefusedError):
        return EnvironmentDown(f"the local environment ({environment.url}) is not running; start it here, or with `cortex up`")
    hint = "start it here, or with `cortex up`" if environment.name == LOCAL else "check its URL with `cortex env list`"
    return EnvironmentDown(f"{environment.url} does not answer ({type(error).__name__}); {hint}")
