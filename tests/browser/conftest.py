"""A browser in front of a real Jupyter server. These tests run in a process of their own (see suites.py)."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Playwright, expect, sync_playwright

from jupyter_cortex.core.errors import CortexError

from ..conftest import Environment, missing
from .greeter import Greeter
from .jupyter import Jupyter

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
#: Uncaught errors that Notebook 7 has by itself, with no extension installed.
NOT_OURS = ("reading 'schema'", "Command 'filebrowser:open-path' not registered")
#: How long the browser may take for one thing; only bounds a broken run.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


def launch(playwright: Playwright) -> Browser:
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        missing("Chromium is not on PATH: `apt-get install chromium`")
    return playwright.chromium.launch(executable_path=found, headless=True, args=FLAGS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = launch(playwright)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def jupyter(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """The server that tests share; a test that stops or configures one makes its own with ``own_jupyter``."""
    made = Jupyter(tmp_path_factory.mktemp("jupyter"), environment)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def own_jupyter(own_environment: Callable[..., Environment], tmp_path: Path) -> Iterator[Callable[..., Jupyter]]:
    """``own_jupyter(environment)`` starts a server that ends with the test; without an environment it gets one of its own, up."""
    made: list[Jupyter] = []

    def make(environment: Environment | None = None) -> Jupyter:
        made.append(Jupyter(tmp_path / f"jupyter{len(made)}", environment or own_environment()))
        made[-1].directory.mkdir()
        return made[-1].start()

    yield make
    for one in made:
        one.stop()


GreeterMaker = Callable[..., Greeter]


@pytest.fixture
def greeter(request: pytest.FixtureRequest) -> Iterator[GreeterMaker]:
    """``greeter("name")`` publishes an API from a notebook of the shared server, ``greeter("name", jupyter)`` of another; it ends with the test."""
    made: list[Greeter] = []

    def make(name: str, jupyter: Jupyter | None = None) -> Greeter:
        made.append(Greeter(jupyter or request.getfixturevalue("jupyter"), name))
        return made[-1].write().deploy("--no-check")

    yield make
    for one in made:
        with contextlib.suppress(CortexError):
            one.delete()


@dataclass
class Shots:
    """Screenshots: in ``$JUPYTER_CORTEX_SHOTS``, else in the run's temporary directory."""

    directory: Path

    def __call__(self, page: Page, name: str) -> Path:
        path = self.directory / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.png"
        page.screenshot(path=path)
        return path


@pytest.fixture(scope="session")
def shot(tmp_path_factory: pytest.TempPathFactory) -> Shots:
    wanted = os.environ.get("JUPYTER_CORTEX_SHOTS")
    directory = Path(wanted) if wanted else tmp_path_factory.mktemp("shots")
    directory.mkdir(parents=True, exist_ok=True)
    return Shots(directory)


@dataclass
class Tab:
    """One browser tab, and what went wrong in it."""

    page: Page
    jupyter: Jupyter
    errors: list[str] = field(default_factory=list)
    #: Words of errors that are Lab's own in what the test does.
    expected: tuple[str, ...] = ()
    #: What the page wrote to its console as an error or warning; shown when a test fails.
    console: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", self._failed)
        self.page.on("console", self._said)

    def _failed(self, error: Error) -> None:
        if not any(words in error.message for words in (*NOT_OURS, *self.expected)):
            self.errors.append(f"{error.name}: {error.message}\n{error.stack or ''}")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.console.append(f"{message.type}: {message.text}")
            if message.text.startswith("Settings failed to load for (jupyter-cortex"):
                self.errors.append(message.text)

    def lab(self, path: str = "", workspace: str = "") -> Page:
        """JupyterLab with a file open: ready, restored, and the notebook's kernel idle."""
        self._go(f"/lab{f'/workspaces/{workspace}' if workspace else ''}{f'/tree/{path}' if path else ''}?reset")
        self.page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored.then(() => true)", timeout=PATIENCE_MS)
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")
        if path.endswith(".ipynb"):
            self.wait_for_idle_kernel()
        return self.page

    def notebook7(self, path: str) -> Page:
        """The same in Notebook 7, which shows one document."""
        self._go(f"/notebooks/{path}")
        self.page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored.then(() => true)", timeout=PATIENCE_MS)
        if path.endswith(".ipynb"):
            self.wait_for_idle_kernel()
        return self.page

    def wait_for_idle_kernel(self) -> None:
        # The indicator in the toolbar says idle before there is a kernel, too: a cell that is run then opens the dialog that asks for one.
        self.page.wait_for_function(
            """() => {
                const kernel = window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel;
                return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
            }"""
        )

    def run(self, command: str, arguments: str = "{}") -> None:
        """One of Lab's commands, as its menus run it."""
        self.page.evaluate(f"async () => {{ await window.jupyterapp.commands.execute({command!r}, {arguments}); }}")

    def _go(self, path: str) -> None:
        joined = "&" if "?" in path else "?"
        self.page.goto(f"{self.jupyter.url}{path}{joined}token={self.jupyter.token}", timeout=PATIENCE_MS)


TabMaker = Callable[..., Tab]


def new_context(browser: Browser) -> BrowserContext:
    made = browser.new_context(viewport={"width": 1400, "height": 900})
    made.set_default_timeout(PATIENCE_MS)
    return made


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Tabs on the shared server have Lab's scripts in one cache. (Servers on other ports of the host need cookies of their own.)"""
    made = new_context(browser)
    yield made
    made.close()


@pytest.fixture
def tab(request: pytest.FixtureRequest, browser: Browser, shot: Shots) -> Iterator[TabMaker]:
    """``tab()`` opens a tab on the shared server, ``tab(own_jupyter())`` on another. An uncaught error of the page fails the test."""
    tabs: list[Tab] = []
    contexts: list[BrowserContext] = []

    def make(jupyter: Jupyter | None = None) -> Tab:
        if jupyter is None:
            tabs.append(Tab(request.getfixturevalue("context").new_page(), request.getfixturevalue("jupyter")))
        else:
            contexts.append(new_context(browser))
            tabs.append(Tab(contexts[-1].new_page(), jupyter))
        return tabs[-1]

    yield make
    failed = request.node.stash.get(FAILED, False)
    for number, one in enumerate(tabs):
        if failed:
            print(f"tab {number}: {one.page.url}", *one.errors, *one.console, sep="\n")
            print(shot(one.page, f"failed-{request.node.name}-{number}"))
    errors = [error for one in tabs for error in one.errors]
    for one in tabs:
        one.page.close()
    for own in contexts:
        own.close()
    for jupyter in {id(one.jupyter): one.jupyter for one in tabs}.values():
        jupyter.end_kernels()
    if errors and not failed:
        pytest.fail("the page had uncaught errors:\n" + "\n\n".join(errors))


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
