"""The child's side of suites.py: writes each test that was found, and each that ended, as a line of JSON."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest


class Report:
    def __init__(self, path: str) -> None:
        self.file = open(path, "a", buffering=1)  # noqa: SIM115 - as long as the process
        self.running: dict[str, dict[str, Any]] = {}

    def write(self, kind: str, **row: Any) -> None:
        self.file.write(json.dumps({"kind": kind, **row}) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.write("listed", id=item.nodeid, line=item.reportinfo()[1])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self.running.setdefault(report.nodeid, {"outcome": "passed", "text": "", "sections": []})
        if report.failed:
            row["text"] = f"{row['text']}\n\n{report.when}:\n{report.longreprtext}".strip() if row["outcome"] == "failed" else report.longreprtext
            row["outcome"] = "failed"
        elif report.skipped and row["outcome"] == "passed":
            # An expected failure is as it should be.
            row["outcome"] = "passed" if hasattr(report, "wasxfail") else "skipped"
            row["text"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        if report.when == "teardown":
            row["sections"] = [(title.removeprefix("Captured "), text) for title, text in report.sections]
            self.write("ran", id=report.nodeid, **self.running.pop(report.nodeid))


def end_with(parent: int) -> None:
    """An outer pytest that was killed cannot end us."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)


def pytest_configure(config: pytest.Config) -> None:
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    config.pluginmanager.register(Report(os.environ["CORTEX_SUITE_REPORT"]))
