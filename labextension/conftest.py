"""``pytest labextension``: the extension's own tests, which vitest runs."""

from tests.spread import pytest_xdist_auto_num_workers
from tests.suites import pytest_collect_directory

__all__ = ["pytest_collect_directory", "pytest_xdist_auto_num_workers"]
