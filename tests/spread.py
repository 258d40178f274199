"""All tests at once run in several processes; some of them, named by path, in this one.

Most tests wait for processes, browsers and clocks: two at a time take little more than half as long. The tests of a file stay together, and so
do all of ``tests/browser``, which share one browser. ``pytest -n 0`` runs everything in one process.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

#: More at once would only wait for the processor.
PROCESSES_MAX = 4
#: What takes longest begins, so that none of it is left for the end.
ORDER = ("tests/browser", "tests/chaos", "tests/server", "tests/notebook", "tests/lab", "tests/client", "tests/test_", "tests/fuzz", "")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.collectonly
    return min(os.cpu_count() or 1, PROCESSES_MAX) if everything else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # the order is ours
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: next(at for at, path in enumerate(ORDER) if item.nodeid.startswith(path)))


class ByFile(LoadScopeScheduling):
    """Hands out whole files, and ``tests/browser`` as one."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        return "tests/browser" if path.startswith("tests/browser/") else path
