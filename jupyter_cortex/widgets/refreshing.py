"""A page that looks again every 2 seconds, in its place, while its cell is long done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import ipywidgets

from ..commands.verbs import as_in_a_cell
from ..core.errors import CortexError
from .style import box, esc, page
from .views import show_widget

#: Seconds between two looks, and after how long a page that nobody may be watching any more rests.
LOOK_S, REST_S = 2.0, 30 * 60.0


class Refreshing:
    """Shows ``first`` (mime type -> content, which exports keep), then what ``look`` gives as HTML. A button stops it and starts it again."""

    def __init__(self, look: Callable[[], str], first: dict[str, str]) -> None:
        self._look = look
        self._stopped = threading.Event()
        self._stopped.set()
        self.table = ipywidgets.HTML(first["text/html"])
        self.button = ipywidgets.Button(icon="refresh", layout={"width": "110px"}, tooltip="look again every 2 seconds, or not")
        self.said = ipywidgets.HTML()
        self.button.on_click(lambda _: self.start() if self._stopped.is_set() else self.stop())
        show_widget(ipywidgets.VBox([self.table, ipywidgets.HBox([self.button, self.said])]), first)
        self.start()

    def start(self) -> None:
        self._stopped = threading.Event()
        self.button.description = "Stop"
        # A daemon: a kernel must end without waiting for it.
        threading.Thread(target=self._run, args=(self._stopped,), daemon=True, name="cortex-refreshing").start()

    def stop(self) -> None:
        self._stopped.set()
        self.button.description = "Refresh"

    def _run(self, stopped: threading.Event) -> None:
        rest = time.monotonic() + REST_S
        while not stopped.wait(LOOK_S):
            if time.monotonic() > rest:
                self.stop()
                return
            try:
                shown = self._look()
                self.said.value = ""
            except CortexError as error:  # an environment that is away may come again
                self.said.value = page(f'<span class="warn">{esc(as_in_a_cell(error.message))}</span>')
                continue
            except Exception as error:  # a thread's traceback would land in whichever cell runs now
                self.said.value = page(box("bad", esc(f"{type(error).__name__}: {error}")))
                self.stop()
                return
            if shown != self.table.value:
                self.table.value = shown
