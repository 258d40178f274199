"""Suites that need a process of their own, reported test by test as if they ran here.

Playwright's loop disturbs every other test that has one, and the extension's own tests run in Node. So ``tests/browser`` is listed by a child pytest
without third-party plugins and run by a second one when its turn comes; vitest runs while pytest collects (listing costs as much as running, and
leaves out what is skipped). A skip is a failure in CI, as everywhere.

To debug in this process: ``CORTEX_SUITE=here pytest -p no:asyncio tests/browser --pdb``.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.nodes import FSCollector

ROOT = Path(__file__).parent.parent
LABEXTENSION = ROOT / "labextension"
APART = ROOT / "tests" / "browser"
VITEST = LABEXTENSION / "tests"
#: A child that reports nothing for so long hangs; only bounds a broken run.
SILENCE_S = 900


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Imported by the conftest of the folder above a suite's."""
    if "CORTEX_SUITE" in os.environ:
        return None
    if path == APART:
        return Apart.from_parent(parent, path=path)
    return Vitest.from_parent(parent, path=path) if path == VITEST else None


def environ() -> dict[str, str]:
    """A child's variables: none of the outer pytest's options, and the scripts of this interpreter first."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_CURRENT_TEST")}
    return {**env, "CORTEX_SUITE": "child", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


class Away(Exception):
    """The text of a test that failed elsewhere."""


class Test(pytest.Item):
    """One test of a suite; ``outcome()`` gives its row, waiting for it where it is still to come."""

    __test__ = False

    def __init__(self, *, outcome: Callable[[], dict[str, Any]], line: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.outcome, self.line = outcome, line

    def runtest(self) -> None:
        row = self.outcome()
        for title, text in row.get("sections", []):
            title, _, when = title.rpartition(" ")
            self.add_report_section(when, title, text)
        if row["outcome"] == "skipped":
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(row["text"] or "skipped")
        if row["outcome"] != "passed":
            raise Away(row["text"])

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if isinstance(excinfo.value, Away) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self.line, self.name


class Tests(FSCollector):
    """The tests of one file; ``rows``: name, outcome and line of each."""

    def __init__(self, *, rows: list[dict[str, Any]], **options: Any) -> None:
        super().__init__(**options)
        self.rows = rows

    def collect(self) -> Iterator[Test]:
        for row in self.rows:
            yield Test.from_parent(self, **row)


class Apart(FSCollector):
    """A folder whose tests run in a pytest of their own."""

    _process: subprocess.Popen[bytes] | None = None

    def collect(self) -> Iterator[Tests]:
        self._seen: dict[str, dict[str, Any]] = {}
        self._directory = tempfile.TemporaryDirectory(prefix="cx-suite-")
        self.config.add_cleanup(self._end)
        listing, said = self._start("--collect-only", str(self.path))
        if listing.wait() not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            raise self.CollectError(said.read_text(errors="replace"))
        files: dict[Path, list[dict[str, Any]]] = {}
        for row in self._rows("listed"):
            path, _, name = row["id"].partition("::")
            files.setdefault(ROOT / path, []).append({"name": name, "line": row["line"], "outcome": lambda name=row["id"]: self._outcome(name)})
        for path, rows in files.items():
            yield Tests.from_parent(self, path=path, rows=rows)

    def _start(self, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        directory = Path(self._directory.name)
        said = directory / "said"
        self._report = directory / "report"
        self._report.write_text("")
        self._read = 0
        argv = [sys.executable, "-m", "pytest", "-p", "tests.suite_report", "-p", "no:cacheprovider", "--tb=long", "--rootdir", str(ROOT)]
        argv += ["-o", "addopts=-ra --strict-markers", *arguments]  # one browser, one process
        env = {**environ(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CORTEX_SUITE_REPORT": str(self._report)}
        with said.open("wb") as out:
            # A session of its own: an interrupt at the terminal reaches it through _end, once.
            process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
        return process, said

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        """The whole lines that came since the last call."""
        with self._report.open() as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._read += len(whole.encode())
        return [row for line in whole.splitlines() if (row := json.loads(line))["kind"] == kind]

    def _outcome(self, identity: str) -> dict[str, Any]:
        if self._process is None:
            self._wanted = [item.nodeid for item in self.session.items if isinstance(item, Test) and self in item.iter_parents()]
            self._process, self._said = self._start(*self._wanted)
        heard = time.monotonic()
        while identity not in self._seen:
            ended = self._process.poll() is not None
            for row in self._rows("ran"):
                self._seen[row["id"]], heard = row, time.monotonic()
            if identity in self._seen:
                break
            if ended or time.monotonic() - heard > SILENCE_S:
                why = f"its process ended with {self._process.returncode}" if ended else f"its process said nothing for {SILENCE_S} s"
                return {"outcome": "failed", "text": f"{why}, without a word about this test:\n{self._said.read_text(errors='replace')[-20_000:]}"}
            time.sleep(0.05)
        return self._seen[identity]

    def _end(self) -> None:
        """Wait for its end; interrupt what is still running, so that its fixtures end what they started."""
        if self._process is not None and self._process.poll() is None:
            try:
                # After the last test it is tearing down by itself.
                self._process.wait(60 if len(self._seen) == len(self._wanted) else 0)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGINT)
                try:
                    self._process.wait(60)
                except subprocess.TimeoutExpired:
                    self._process.kill()
        self._directory.cleanup()


class Vitest(FSCollector):
    """The extension's own tests, in Node: run once, while pytest collects; where it collects in several processes, by the first of them."""

    def collect(self) -> Iterator[Tests]:
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
        directory = Path(tempfile.gettempdir()) / f"cx-vitest-{os.getuid()}-{run}" if run else Path(tempfile.mkdtemp(prefix="cx-vitest-"))
        directory.mkdir(mode=0o700, exist_ok=True)
        self.config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
        report, said = directory / "report.json", directory / "said"
        with (directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not said.exists():
                script = f"{sys.executable} bundle.py install && node node_modules/vitest/vitest.mjs run --reporter=json --outputFile={report}"
                with said.open("w") as out:
                    subprocess.run(script, shell=True, cwd=LABEXTENSION, env=environ(), stdout=out, stderr=subprocess.STDOUT, check=False)
        if not report.is_file():
            # No Node or no npm: one test that says so. Everything else is still to be run.
            yield Tests.from_parent(self, path=self.path / "vitest", rows=[self._row("runs", "failed", said.read_text())])
            return
        results = json.loads(report.read_text())["testResults"]
        for result in sorted(results, key=lambda one: str(one["name"])):
            rows = [
                self._row(
                    " > ".join([*test["ancestorTitles"], test["title"]]),
                    {"passed": "passed", "failed": "failed"}.get(test["status"], "skipped"),
                    "\n".join(test["failureMessages"]),
                )
                for test in result["assertionResults"]
            ]
            if result["status"] == "failed" and not any(test["status"] == "failed" for test in result["assertionResults"]):
                rows.append(self._row("loads", "failed", result["message"] or said.read_text()))
            yield Tests.from_parent(self, path=Path(result["name"]), rows=rows)

    @staticmethod
    def _row(name: str, outcome: str, text: str) -> dict[str, Any]:
        return {"name": name, "outcome": lambda: {"outcome": outcome, "text": text}}
