"""JupyterLab's page of an API: 10,000 workloads in its table, 500 events a second, the way from a failure into its notebook.

Needs Chromium and `pip install '.[test]'`."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import Figure
from load import Connection
from stage import ECHO, Stage, until

ROOT = Path(__file__).parents[2]
NAME = "lab"
WORKLOADS = 10_000
#: Three events a request: accepted, started, completed.
EVENTS, PER_REQUEST = 500, 3
#: Lines that one workload logs before it fails; it keeps 1 MB of them.
LINES = 10_000
FAILING = """class Handler:
    def handle_async(self, payload):
        for number in range(payload.get("lines", 0)):
            print("line", number)
        return {"x": payload["x"]}
"""
#: 60 Hz; a frame is dropped when the next one comes later than one and a half of them.
FRAME_MS = 1000 / 60
FRAMES = """seconds => new Promise(done => {
    const gaps = [];
    let last = performance.now();
    const until = last + seconds * 1000;
    const frame = now => {
        gaps.push(now - last);
        last = now;
        now < until ? requestAnimationFrame(frame) : done(gaps);
    };
    requestAnimationFrame(frame);
})"""


def run(stage: Stage, quick: bool) -> list[Figure]:
    sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import launch, new_context
    from tests.browser.greeter import Greeter
    from tests.browser.jupyter import Jupyter
    from tests.conftest import Environment

    stage.deploy(NAME, ECHO)
    address = stage.url.rpartition("//")[2].split(":")
    _in_thread(_post, address, WORKLOADS, None)
    until(lambda: stage.client.get_api(NAME)["workloads"]["completed"] >= WORKLOADS, "all workloads are completed")
    directory = stage.directory / "jupyter"
    directory.mkdir(exist_ok=True)
    jupyter = Jupyter(directory, Environment(stage.home.path)).start()
    try:
        with sync_playwright() as playwright:
            browser = launch(playwright)
            try:
                page = new_context(browser).new_page()
                figures = Page(page, jupyter).measure(lambda seconds: _in_thread(_post, address, int(EVENTS / PER_REQUEST * seconds), seconds), quick)
                greeter = Greeter(jupyter, "failing").write(FAILING).deploy("--no-check")
                figures += Failing(new_context(browser).new_page(), greeter).measure()
                greeter.delete()
            finally:
                browser.close()
    finally:
        jupyter.stop()
    stage.delete(NAME)
    return figures


class Page:
    def __init__(self, page: Any, jupyter: Any) -> None:
        self.page = page
        page.goto(f"{jupyter.url}/lab?reset&token={jupyter.token}")
        page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored.then(() => true)")
        page.evaluate("() => window.jupyterapp.commands.execute('cortex:show-apis')")
        page.get_by_role("region", name="Cortex APIs").get_by_role("button", name=NAME, exact=True).wait_for()
        page.wait_for_timeout(2000)
        self.cdp = page.context.new_cdp_session(page)
        self.cdp.send("Performance.enable", {"timeDomain": "threadTicks"})

    def measure(self, traffic: Callable[[float], None], quick: bool) -> list[Figure]:
        page = self.page
        idle = self._busy(lambda: page.wait_for_timeout(2000)) / 2
        opening = self._busy(self._open)
        loading = self._busy(self._load_all)
        search = page.get_by_role("searchbox", name="Text or id")
        filtering = self._busy(lambda: self._filter(search, "completed", "a"))
        typing = self._busy(lambda: self._filter(search, "", "abc"))
        self._filter(search, "", "")
        seconds = 3.0 if quick else 10.0
        quiet = page.evaluate(FRAMES, min(3.0, seconds))
        sending = threading.Thread(target=traffic, args=(seconds,))
        sending.start()
        gaps: list[float] = []
        busy = self._busy(lambda: gaps.extend(page.evaluate(FRAMES, seconds)))
        sending.join()
        what = f"{EVENTS} events/s for {seconds:.0f} s"
        return [
            Figure(f"Lab: opening the Workloads tab of an API with {WORKLOADS:,} workloads, main thread", opening, "ms", most=200),
            Figure(f"Lab: scrolling until all {WORKLOADS:,} are in the table, main thread", loading, "ms"),
            Figure(f"Lab: filtering {WORKLOADS:,} rows by status and a letter, main thread", filtering, "ms", most=200),
            Figure("Lab: the same by three letters, typed one by one, main thread", typing, "ms"),
            Figure("Lab: an open page at rest, main thread per second", idle, "ms"),
            Figure(f"Lab: {what}, main thread per second", busy / seconds, "ms"),
            Figure(f"Lab: {what}, longest gap between two frames (peer: at rest)", max(gaps), "ms", max(quiet), worst=True),
            Figure(f"Lab: {what}, dropped frames of {round(seconds * 60)}", _dropped(gaps), "", worst=True),
        ]

    def _busy(self, job: Callable[[], object]) -> float:
        """ms of work on the page's main thread until the job is done and nothing is left to be drawn."""
        before = self._tasks()
        job()
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        return (self._tasks() - before) * 1000

    def _tasks(self) -> float:
        metrics = self.cdp.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    def _open(self) -> None:
        self.page.evaluate("name => void window.jupyterapp.commands.execute('cortex:open-api', { name, tab: 'workloads' })", NAME)
        self.page.get_by_role("grid").get_by_role("gridcell").first.wait_for()
        self._settled()

    def _load_all(self) -> None:
        grid = self.page.get_by_role("grid")
        grid.focus()
        deadline = time.monotonic() + 120
        while int(grid.get_attribute("aria-rowcount") or 0) <= WORKLOADS:
            assert time.monotonic() < deadline, "the table does not load all workloads"
            self.page.keyboard.press("End")
            self._settled()
        self.page.keyboard.press("Home")

    def _filter(self, search: Any, status: str, text: str) -> None:
        self.page.get_by_role("combobox", name="Status").select_option(status)
        search.fill("")
        search.press_sequentially(text)
        # Typing that has paused makes the server look through the rest.
        self.page.wait_for_timeout(400)
        self._settled()

    def _settled(self) -> None:
        self.page.get_by_role("status").filter(has_text="shown").first.wait_for()


class Failing:
    """An API whose requests fail, and its notebook, run and open beside its page."""

    def __init__(self, page: Any, greeter: Any) -> None:
        from tests.browser.conftest import Tab

        self.page, self.greeter = page, greeter
        self.tab = Tab(page, greeter.jupyter)
        self.tab.lab(greeter.notebook)
        self.tab.run("notebook:run-all-cells")
        self.tab.wait_for_idle_kernel()

    def measure(self) -> list[Figure]:
        first, again = (self._replay() for _ in range(2))
        return [
            Figure("Lab: click on Replay → the failing frame in the notebook, the first in its kernel", first, "ms", most=3000),
            Figure("Lab: the same, again", again, "ms", most=3000),
            Figure(f"Lab: opening a workload that logged {LINES:,} lines → its last line is shown", self._open_long(), "ms", most=300),
        ]

    def _show(self, tab: str) -> None:
        self.tab.run("cortex:open-api", f"{{ name: '{self.greeter.name}', tab: '{tab}' }}")

    def _replay(self) -> float:
        """ms; each of another request, so that what is waited for is new."""
        identity = self.greeter.post(y=1)
        self.greeter.ended(identity)
        self._show("workloads")
        self.page.get_by_role("gridcell", name=identity).click()
        button = self.page.get_by_role("region", name=f"Workload {identity}").get_by_role("button", name="Replay in notebook")
        button.wait_for()
        begun = time.monotonic()
        button.click()
        shown = (
            self.page.locator(".jp-Notebook:visible .jp-OutputArea").filter(has_text=identity).filter(has_text="the same failure as in production")
        )
        shown.get_by_text("Traceback (most recent call last)").last.wait_for()
        return (time.monotonic() - begun) * 1000

    def _open_long(self) -> float:
        identity = self.greeter.post(lines=LINES)
        self.greeter.ended(identity)
        last = self.greeter.jupyter.environment.client().workload_log(self.greeter.name, identity)[-1]["message"]
        self._show("workloads")
        row = self.page.get_by_role("gridcell", name=identity)
        row.wait_for()
        begun = time.monotonic()
        row.click()
        self.page.get_by_role("table", name="This workload's log").get_by_text(str(last).splitlines()[0]).last.wait_for()
        return (time.monotonic() - begun) * 1000


def _dropped(gaps: list[float]) -> int:
    return sum(round(gap / FRAME_MS) - 1 for gap in gaps if gap > 1.5 * FRAME_MS)


def _in_thread(job: Callable[..., Any], *arguments: Any) -> None:
    """Playwright has a loop in this one."""
    thread = threading.Thread(target=lambda: asyncio.run(job(*arguments)))
    thread.start()
    thread.join()


async def _post(address: list[str], requests: int, seconds: float | None) -> None:
    """So many requests, as fast as they are accepted or evenly over some seconds."""
    left = iter(range(requests))
    began = time.monotonic()

    async def one() -> None:
        async with Connection(address[0], int(address[1])) as connection:
            for number in left:
                if seconds is not None:
                    await asyncio.sleep(max(0.0, began + number * seconds / requests - time.monotonic()))
                status, _ = await connection.request("POST", f"/{NAME}", '{"x": 1}')
                assert status == 200, status

    await asyncio.gather(*(one() for _ in range(8)))
