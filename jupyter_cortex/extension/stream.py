"""``/cortex/snapshot`` and ``/cortex/stream``: everything once, then what changes, for as long as a page is open.

Each websocket is one coroutine with its own positions, which asks the gateway for what lies behind them. Nothing is shared and nothing remembered:
after a lost connection or a restart of this server, the page brings the sequence numbers it has and gets what it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from typing import Any

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado.web import authenticated
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..core.errors import BadRequest, CortexError
from .answers import CortexHandler, answering
from .link import Link
from .paths import root_of, summaries_of, with_notebooks

#: Seconds between two frames: ten a second are more than an eye follows.
FRAME_S = 0.1
#: Seconds of one long poll. A page that is gone leaves one behind for as long.
POLL_S = 10.0
#: Seconds after which all APIs are looked at, also those of which nothing was heard: numbers of the last hour fall by themselves.
REFRESH_S = 10.0
#: Seconds until the gateway is asked again while it is away: the first, and at most.
AGAIN_S, AGAIN_MAX_S = 0.5, 5.0
#: Seconds in which a page must have taken a frame; the next is not made before, so that one frame is all that waits.
SEND_S = 30.0
#: Streams that one page may follow, and bytes of one of its messages.
MAX_STREAMS, MAX_MESSAGE = 2000, 256 * 1024
_POSITION = re.compile(r"\$|[0-9]{1,19}-[0-9]{1,19}|", re.ASCII)
#: From now on, and from the beginning: what a stream is followed from that was there before, or is new.
NOW, BEGINNING = "$", "0-0"


class SnapshotHandler(CortexHandler):
    @authenticated
    @authorized
    @answering
    async def get(self) -> None:
        """``{"environment", "apis", "seq"}``. What moves while this is put together lies behind ``seq``, and comes by the stream."""
        environment = await self.link.look()
        apis: list[dict[str, Any]] = []
        seq: dict[str, str] = {}
        if environment["up"]:
            try:
                apis, seq = await self._look()
            except CortexError as error:
                environment |= {"up": False, "message": error.message}
        self.answer({"environment": environment, "apis": apis, "seq": seq})

    async def _look(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        listed = {row["name"]: row for row in summaries_of(await self.link.control("GET", "/apis", query="recent=60"))}
        said = await changes(self.link, dict.fromkeys(listed, NOW), {}, complete=True, wait=0)
        told = await with_notebooks(self.link, said["summaries"], root_of(self.contents_manager))
        apis = [{"recent": [], **listed.get(row["name"], {}), **row} for row in told]
        return apis, {name: one["seq"] for name, one in said["changes"].items()}


async def changes(link: Link, events: dict[str, str], logs: dict[str, str], **options: Any) -> dict[str, Any]:
    """The gateway's answer to what has changed behind these positions. Raises EnvironmentDown, EnvironmentProblem, BadRequest."""
    answer = await link.control("POST", "/changes", body=json.dumps({"events": events, "logs": logs, **options}).encode())
    said: dict[str, Any] = answer.document(dict)
    if not said.keys() >= {"summaries", "complete", "registry", "changes", "logs"}:
        raise answer.foreign()
    # Too many wait there already: it was answered at once, and is not to be asked again at once.
    await asyncio.sleep(float(answer.headers.get("retry-after", 0)))
    return said


class StreamHandler(WebSocketMixin, WebSocketHandler, JupyterHandler):  # type: ignore[misc]
    """Frames: ``{"environment"?, "apis"?, "gone"?, "changes"?, "logs"?, "turn"?}``.

    A page's messages: ``{"events"?, "logs"?, "turn"?}``. ``logs`` are all that it follows from then on, with the position behind which it wants the
    lines, or null to go on where we are; ``turn`` numbers its messages, and a frame with lines says which of them it was made after.
    """

    auth_resource = "cortex"
    _task: asyncio.Task[None] | None = None
    _news: asyncio.Event
    _followed: dict[str, Any]

    @ws_authenticated
    @authorized
    async def get(self) -> None:
        await super().get()

    @property
    def link(self) -> Link:
        found: Link = self.settings[Link.SETTING]
        return found

    def open(self, *args: Any, **kwargs: Any) -> None:
        super().open(*args, **kwargs)
        self._news, self._followed = asyncio.Event(), {}

    def on_message(self, message: str | bytes) -> None:
        try:
            said = _read(message)
        except BadRequest as error:
            self.close(1008, error.message)
            return
        waiting = self._followed.get("logs", {})
        if "logs" in said:
            said["logs"] = {api: waiting.get(api) if position is None else position for api, position in said["logs"].items()}
        self._followed |= said
        self._news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self.link.listeners.add(self._task)
            self._task.add_done_callback(self.link.listeners.discard)

    def on_close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await Listening(self.link, root_of(self.contents_manager), self._followed, self._news, self._send).run()
        except (asyncio.CancelledError, WebSocketClosedError):
            self.close(1001)
        except TimeoutError:
            self.log.warning("a page did not take its frames for %.0f s and was disconnected", SEND_S)
            self.close(1008, "too slow")
        except Exception:
            self.log.exception("the stream of a page ended")
            self.close(1011)

    async def _send(self, frame: dict[str, Any]) -> None:
        await asyncio.wait_for(self.write_message(json.dumps(frame)), SEND_S)


def _read(message: str | bytes) -> dict[str, Any]:
    """``events``, ``logs`` and ``turn`` of a page's message. Raises BadRequest."""
    try:
        said = json.loads(message) if len(message) <= MAX_MESSAGE else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not (found := {key: said[key] for key in ("events", "logs") if key in said}):
        raise BadRequest('a message is {"events": {...}, "logs": {...}}')
    for key, positions in found.items():
        if not isinstance(positions, dict) or len(positions) > MAX_STREAMS:
            raise BadRequest("positions are an object: the name of an API, and where it is")
        given = [position for position in positions.values() if position is not None or key == "events"]
        if not all(isinstance(position, str) and _POSITION.fullmatch(position) for position in given):
            raise BadRequest('a position is the "seq" or "position" of an earlier answer, or "$"; null goes on with a log')
    turn = said.get("turn", 0)
    if type(turn) is not int or not 0 <= turn < 2**53:
        raise BadRequest("a turn is a whole number")
    return {**found, "turn": turn}


class Listening:
    """What one page knows, and asking for what it does not know yet. ``followed``: what the page wished last; ``news``: it has wished anew."""

    def __init__(self, link: Link, root: str | None, followed: dict[str, Any], news: asyncio.Event, send: Any) -> None:
        self._link, self._root, self._followed, self._news, self._send = link, root, followed, news, send
        self._events: dict[str, str] = {}
        self._logs: dict[str, str] = {}
        self._turn = 0
        self._registry: int | None = None
        self._shown: dict[str, Any] = {}
        self._where: tuple[str, str] | None = None
        #: The environment was away, or is another one, since the last frame that told what changed.
        self._down = self._moved = False
        self._complete = 0.0
        self._again = AGAIN_S

    async def run(self) -> None:
        """Until cancelled. Raises what sending raises."""
        while True:
            self._take_wishes()
            begun = time.monotonic()
            try:
                frame = await self._frame()
            except CortexError:
                frame = await self._away()
                if frame:
                    await self._send(frame)
                await asyncio.sleep(FRAME_S)  # a page that wishes all the time is heard no more often
                await self._wait(self._again)
                self._again = min(2 * self._again, AGAIN_MAX_S)
                continue
            if frame:
                await self._send(frame)
            await asyncio.sleep(max(0.0, begun + FRAME_S - time.monotonic()))

    def _take_wishes(self) -> None:
        self._news.clear()
        self._events |= self._followed.pop("events", {})
        wished = self._followed.pop("logs", dict.fromkeys(self._logs))
        self._logs = {api: self._logs.get(api, NOW) if position is None else position for api, position in wished.items()}
        self._turn = self._followed.pop("turn", self._turn)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)

    async def _away(self) -> dict[str, Any]:
        """The environment is away: said once."""
        if self._down:
            return {}
        look = await self._link.look()
        self._down = not look["up"]
        return {"environment": look} if self._down else {}

    async def _frame(self) -> dict[str, Any]:
        """The next frame, empty where there is nothing to say. Raises CortexError."""
        frame: dict[str, Any] = {}
        first = self._registry is None
        environment = self._link.environment()
        where = environment.name, environment.url
        if self._where not in (None, where):
            self._start_anew()
        self._where = where
        anew = first or self._down or self._moved
        complete = anew or time.monotonic() - self._complete > REFRESH_S
        said = await self._ask(complete=complete, wait=0 if anew else POLL_S)
        if said is None:
            return {}
        if anew:
            frame["environment"] = await self._link.look()
        await self._take(said, frame, first=first)
        self._again, self._down, self._moved = AGAIN_S, False, False
        return {key: value for key, value in frame.items() if value}

    def _start_anew(self) -> None:
        """Another environment: its streams are others, whatever their names."""
        self._moved = True
        self._events = dict.fromkeys(self._events, NOW)
        self._logs = dict.fromkeys(self._logs, NOW)
        self._registry = None
        self._shown = {}

    async def _ask(self, **options: Any) -> dict[str, Any] | None:
        """None when the page has wished something else meanwhile: positions stand where they stood, so that nothing is lost."""
        if self._registry is not None:
            options["registry"] = self._registry
        asking = asyncio.ensure_future(changes(self._link, self._events, self._logs, **options))
        wished = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({asking, wished}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            wished.cancel()
            asking.cancel()

    async def _take(self, said: dict[str, Any], frame: dict[str, Any], *, first: bool) -> None:
        """Put what was said into the frame, and remember where we are."""
        self._registry = said["registry"]
        for api, one in said["changes"].items():
            self._events[api] = one["seq"]
            one.setdefault("workloads", [])
            one["gap"] = one["gap"] or self._moved
        for api, one in said["logs"].items():
            self._logs[api] = one["position"]
            one["gap"] = one["gap"] or self._moved
        frame |= {"changes": said["changes"], "logs": {api: one for api, one in said["logs"].items() if one["records"] or one["gap"]}}
        frame["turn"] = self._turn if frame["logs"] else 0
        rows = {row["name"]: row for row in said["summaries"]}
        if said["complete"]:
            self._complete = time.monotonic()
            frame["gone"] = sorted((self._events.keys() | self._shown.keys()) - rows.keys())
            for name in frame["gone"]:
                for known in (self._events, self._logs, self._shown):
                    known.pop(name, None)
            for name in rows.keys() - self._events.keys():
                self._events[name] = NOW if first else BEGINNING
        moved = [row for name, row in rows.items() if self._shown.get(name) != _counted(row)]
        frame["apis"] = await with_notebooks(self._link, moved, self._root)
        self._shown |= {name: _counted(row) for name, row in rows.items()}


def _counted(row: dict[str, Any]) -> dict[str, Any]:
    """A summary without the clock: a minute in which nothing happened is as good as the one before it."""
    minute = row.get("minute") or {}
    return {**row, "minute": minute if any(value for key, value in minute.items() if key != "minute") else None}
