"""Steps and a bar while a verb takes its time; afterwards the steps with their times, as HTML and text."""

from __future__ import annotations

import contextvars
import re
import threading
import time
from types import TracebackType
from typing import Any

from ..commands.door import fraction
from .style import esc, page
from .views import show_widget

#: A verb that took less leaves nothing behind.
SHORT_S = 0.5
#: A verb that has told no step by then is shown by what it does.
SILENT_S = 0.3
_COUNTS = re.compile(r"\d of [\d,]")


class Progress:
    """``with Progress("deploying", live=True) as p: p.step("slicing")``. Not ``live``: lines of text as they come.

    ``what``: shown in the place of steps while there are none.
    """

    def __init__(self, what: str, *, live: bool) -> None:
        self.what, self._live = what, live
        self.steps: list[tuple[str, float]] = []
        self._done = 0.0
        self._began = time.monotonic()
        self._widget: Any = None
        self._handle: Any = None
        self._lock = threading.RLock()
        # In the cell's own context: the front end must know which cell's output it is.
        self._silent = threading.Timer(SILENT_S, contextvars.copy_context().run, (self._begin,))
        self._silent.daemon = True

    def __enter__(self) -> Progress:
        self._silent.start()
        return self

    def _begin(self) -> None:
        with self._lock:
            if not self.steps and not self._silent.finished.is_set():
                self._show(self.what)

    def _show(self, text: str) -> None:
        if self._live:
            self._draw()
        else:
            print(f"{text} …", flush=True)

    def step(self, text: str) -> None:
        """The next step begins. What counts, and installers, tell of themselves many times: that replaces their line."""
        with self._lock:
            self._silent.cancel()
            self._done = max(self._done, fraction(text))
            if self.steps and _line(self.steps[-1][0]) == _line(text):
                self.steps[-1] = (text, self.steps[-1][1])
                if self._live:
                    self._draw()
                return
            self.steps.append((text, time.monotonic()))
            self._show(text)

    def _draw(self) -> None:
        if self._widget is None:
            import ipywidgets

            bar = ipywidgets.FloatProgress(value=self._done, min=0, max=1, layout={"width": "420px"})
            text = ipywidgets.HTML()
            self._widget = ipywidgets.VBox([bar, text])
            text.value = page(self._html(ended=False))
            self._handle = show_widget(self._widget, {"text/plain": f"{self.what} …"})
            return
        bar, text = self._widget.children
        bar.value, text.value = self._done, page(self._html(ended=False))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._lock:  # it may be drawing just now
            self._silent.cancel()
        if self._handle is None:
            return
        took = time.monotonic() - self._began
        if took < SHORT_S and error is None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)
        else:
            self._handle.update(
                {"text/plain": self._text(failed=error is not None), "text/html": page(self._html(ended=True, failed=error is not None))}, raw=True
            )
        for part in (*self._widget.children, self._widget):
            part.close()

    def _times(self) -> list[tuple[str, float]]:
        steps = self.steps or [(self.what, self._began)]
        ends = [begun for _, begun in steps[1:]] + [time.monotonic()]
        return [(text, end - begun) for (text, begun), end in zip(steps, ends, strict=True)]

    def _html(self, *, ended: bool, failed: bool = False) -> str:
        rows = []
        times = self._times()
        for at, (text, seconds) in enumerate(times):
            last = at == len(times) - 1
            mark = "✗" if last and failed else "✓" if ended or not last else "…"
            kind = "bad" if mark == "✗" else "good" if mark == "✓" else "warn"
            shown = f" <span class=dim>{seconds:.1f} s</span>" if mark != "…" and seconds >= 0.05 else ""
            rows.append(f"<div><span class={kind}>{mark}</span> {esc(text)}{shown}</div>")
        return "".join(rows)

    def _text(self, *, failed: bool) -> str:
        times = self._times()
        return "\n".join(f"{'x' if failed and at == len(times) - 1 else '+'} {text} ({seconds:.1f} s)" for at, (text, seconds) in enumerate(times))


def _line(text: str) -> str:
    """Steps that are news of the same thing have the same."""
    first = text.split(" ")[0]
    if first in ("uploading", "installing:"):
        return first
    return re.sub(r"[\d,]+(?= (?:of|requeued)\b)|(?<= of )[\d,]+", "", text) if _COUNTS.search(text) else text
