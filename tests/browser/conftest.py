"""A browser in front of a real Jupyter server. These tests run in a process of their own (see suites.py)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect, sync_playwright

from ..conftest import Environment, missing
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        missing("Chromium is not on PATH: `apt-get install chromium`")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, headless=True, args=FLAGS)
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
    #: What the page wrote to its console as an error or warning; shown when a test fails.
    console: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", self._failed)
        self.page.on("console", self._said)

    def _failed(self, error: Error) -> None:
        if not any(words in error.message for words in NOT_OURS):
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
        self.page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").first.wait_for(timeout=PATIENCE_MS)

    def run(self, command: str, arguments: str = "{}") -> None:
        """One of Lab's commands, as its menus run it."""
        self.page.evaluate(f"async () => {{ await window.jupyterapp.commands.execute({command!r}, {arguments}); }}")

    def _go(self, path: str) -> None:
        joined = "&" if "?" in path else "?"
        self.page.goto(f"{self.jupyter.url}{path}{joined}token={self.jupyter.token}", timeout=PATIENCE_MS)


TabMaker = Callable[..., Tab]


@pytest.fixture
def tab(request: pytest.FixtureRequest, browser: Browser, shot: Shots) -> Iterator[TabMaker]:
    """``tab()`` opens a tab on the shared server, ``tab(own_jupyter())`` on another. An uncaught error of the page fails the test."""
    tabs: list[Tab] = []
    contexts: list[BrowserContext] = []

    def make(jupyter: Jupyter | None = None, **options: object) -> Tab:
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        tabs.append(Tab(context.new_page(), jupyter or request.getfixturevalue("jupyter")))
        return tabs[-1]

    yield make
    failed = request.node.stash.get(FAILED, False)
    for number, one in enumerate(tabs):
        if failed:
            print(f"tab {number}: {one.page.url}", *one.errors, *one.console, sep="\n")
            print(shot(one.page, f"failed-{request.node.name}-{number}"))
    errors = [error for one in tabs for error in one.errors]
    for context in contexts:
        context.close()
    if errors and not failed:
        pytest.fail("the page had uncaught errors:\n" + "\n\n".join(errors))


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
