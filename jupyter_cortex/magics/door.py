"""A cell as the door to the verbs: displays instead of text, live where the front end can, the same as text everywhere."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.display import display

from .. import commands, render
from ..client import Client
from ..core.settings import Settings
from ..environments import Environments, start_local, stop_local
from ..widgets import pages

if TYPE_CHECKING:
    from ..project.notebook.cells import Notebook

#: Seconds between two looks of `--watch`.
WATCH_S = 2.0
#: Log lines that are shown while they come (a drawing of 1,000 takes 50 ms), and that stay in the end.
LIVE_LINES, LAST_LINES = 200, 1000


class CellDoor:
    """``body``: what stands below ``%%cortex``."""

    in_cell = True
    command = "%cortex"

    def __init__(self, session: Any, output: str, env: str | None, body: str | None = None) -> None:
        self.session, self.body = session, body
        self.json = output == "json"
        self.settings = Settings.read()
        self._env = env

    @property
    def live(self) -> bool:
        """Whether widgets can be shown: a kernel with a front end, not a terminal."""
        return getattr(self.session.shell, "kernel", None) is not None

    def client(self) -> Client:
        return Client(Environments(self.settings).find(self._env), self.settings)

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[str], None]]:
        from ..widgets.progress import Progress

        if self.json:
            yield lambda step: None
            return
        with Progress(what, live=self.live) as progress:
            yield progress.step

    @contextmanager
    def drawing(self) -> Iterator[logging.Handler | None]:
        """A watcher that shows log records while a handler runs; what it drew goes when the whole is shown."""
        if not self.live or self.json:
            yield None
            return
        from ..widgets.workbench import Drawing

        handle: Any = None

        def draw(html: str) -> None:
            nonlocal handle
            if handle is None:
                handle = display({"text/html": html, "text/plain": ""}, raw=True, display_id=True)
            else:
                handle.update({"text/html": html, "text/plain": ""}, raw=True)

        drawing = Drawing(draw)
        try:
            yield drawing
        finally:
            drawing.close()
            if handle is not None:
                handle.update({"text/html": "", "text/plain": ""}, raw=True)

    def ask(self, question: str) -> bool | None:
        """Nobody is asked in a cell: "Run All" must not stop at a question. What would be asked is refused, and says how to say yes."""
        return None

    def show(self, view: str, data: Any, **facts: Any) -> None:
        if self.json:
            print(json.dumps(data))
            return
        display(bundle(view, data, **facts), raw=True)

    def watch(self, look: Callable[[], tuple[str, Any, dict[str, Any]]]) -> None:
        """Until interrupted; then the last look stays."""
        view, data, facts = look()
        handle = display(bundle(view, data, **facts), raw=True, display_id=True)
        try:
            while True:
                time.sleep(WATCH_S)
                view, data, facts = look()
                handle.update(bundle(view, data, **facts), raw=True)
        except KeyboardInterrupt:
            return

    def glance(self, look: Callable[[], tuple[str, Any, dict[str, Any]]]) -> None:
        view, data, facts = look()
        if self.json or not self.live:
            self.show(view, data, **facts)
            return
        from ..widgets.refreshing import Refreshing

        if self.session.refreshing is not None:
            self.session.refreshing.stop()  # one table that asks every 2 seconds is enough
        self.session.refreshing = Refreshing(lambda: drawn(*look()), bundle(view, data, **facts))

    def source(self) -> str:
        return str(self.session.path or f"{self.session.root}/(unsaved notebook)")

    def stream(self, records: Iterator[dict[str, Any]], *, raw: bool) -> None:
        """Until interrupted, or the API is deleted."""
        if self.json:
            with suppress(KeyboardInterrupt):
                for record in records:
                    print(json.dumps(record), flush=True)
            return
        from ..widgets.calm import Calm

        found: deque[dict[str, Any]] = deque(maxlen=LAST_LINES)
        handle = display(bundle("logs", [], raw=raw), raw=True, display_id=True)
        calm = Calm(lambda: handle.update(bundle("logs", list(found)[-LIVE_LINES:], raw=raw), raw=True))
        try:
            for record in records:
                found.append(record)
                calm.touch()
        except KeyboardInterrupt:
            pass
        finally:
            calm.close()
            handle.update(bundle("logs", list(found), raw=raw), raw=True)

    def follow(self, client: Client, name: str, request_id: str, seconds: float) -> dict[str, Any]:
        from ..widgets.follow import follow

        if not self.json:
            return follow(client, name, request_id, seconds, live=self.live)
        data = commands.result(client, name, request_id, seconds)
        self.show("workload", data, name=name)
        return data

    def notebook(self, path: Path | None) -> Notebook:
        from ..project import from_notebook

        return from_notebook.read(path) if path else self.session.notebook()

    def remember(self, name: str) -> None:
        self.session.api = name

    def remembered(self) -> str | None:
        return str(self.session.api) if self.session.api else None

    def root(self) -> Path:
        return self.session.root

    def up(self) -> dict[str, Any]:
        start_local()
        return {"gateway": self.client().environment.url}

    def down(self, grace: float) -> dict[str, Any]:
        return stop_local(grace)


def bundle(view: str, data: Any, **facts: Any) -> dict[str, str]:
    """The page, and the same as text for where pages cannot be shown (a terminal, a text export)."""
    return {"text/plain": _sendable(text(view, data, **facts)), "text/html": drawn(view, data, facts)}


def drawn(view: str, data: Any, facts: dict[str, Any]) -> str:
    """The page alone."""
    return _sendable(pages.VIEWS[view](data, **facts))


def _sendable(content: str) -> str:
    """JSON may hold lone surrogates, which no message to a front end can."""
    return content.encode("utf-8", "backslashreplace").decode()


def text(view: str, data: Any, **facts: Any) -> str:
    with render.as_text() as (console, text_of):
        render.VIEWS[view](console, data, **facts)
        return text_of()
