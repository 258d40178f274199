"""What a run counted and how long things took, shown after the tests whatever pytest was told to show."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from .__main__ import interrupted

SHOWN = pytest.StashKey[list[str]]()


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """``show(line)`` prints a line after all tests."""
    return request.config.stash.setdefault(SHOWN, []).append


@pytest.fixture(autouse=True)
def ends_what_it_started() -> Iterator[None]:
    """Also when pytest is told to stop by a signal, which by itself ends no fixture."""
    before = signal.signal(signal.SIGTERM, interrupted)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    lines = config.stash.get(SHOWN, [])
    if lines:
        terminalreporter.section("chaos")
        terminalreporter.write_line("\n".join(lines))
    return (yield)
