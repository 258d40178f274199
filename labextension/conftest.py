"""``pytest labextension``: the extension's own tests, which vitest runs."""

from tests.suites import pytest_collect_directory

__all__ = ["pytest_collect_directory"]
