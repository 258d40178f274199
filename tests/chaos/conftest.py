"""What a run counted and how long things took, shown after the tests whatever pytest was told to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

SHOWN = pytest.StashKey[list[str]]()


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """``show(line)`` prints a line after all tests."""
    return request.config.stash.setdefault(SHOWN, []).append


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    lines = config.stash.get(SHOWN, [])
    if lines:
        terminalreporter.section("chaos")
        terminalreporter.write_line("\n".join(lines))
    return (yield)
