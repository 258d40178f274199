"""A clean process for every test: modules, import path, logger, masks."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_cortex.handler import log_lines, logs, masking


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Take pytest's own handler off the logger: it raises for a bad format, and ours is what is tested."""
    logger = logging.getLogger("cortex")
    for handler in list(logger.handlers):
        if not isinstance(handler, logs.LineHandler):
            logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    monkeypatch.setattr(log_lines, "_noted", False)
    monkeypatch.setattr(logs, "cut_lines", 0)
    monkeypatch.setattr(logs, "failed_writes", 0)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if name == "cortex_async_handler" or "pytest-of-" in file:
            del sys.modules[name]
    logger = logging.getLogger("cortex")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    masking.clear()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a project's files and stand in its root, as a replica does."""

    def write(source: str = "", **files: str) -> Path:
        for name, text in {"handler.py": source, **files}.items():
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return write
