"""The command that runs the example notebooks: what it makes, shares, skips and demands. It is run itself in CI, where the frameworks are."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FRAMEWORKS = ROOT / "tests" / "frameworks"


def _module(name: str) -> Any:
    """Under a name of its own: the benchmarks have a run.py, too."""
    spec = importlib.util.spec_from_file_location(f"frameworks_{name}", FRAMEWORKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layered = sys.modules["layered"] = _module("layered")
runner = _module("run")
NAMES = sorted(path.stem for path in (runner.NOTEBOOKS / "requirements").glob("*.txt"))


@pytest.mark.parametrize("name", NAMES)
def test_each_notebook_of_a_framework_holds_its_answer_against_its_own_and_is_told_in_readme(name: str) -> None:
    assert runner.compares_after_its_deploy(runner.NOTEBOOKS / f"{name}.ipynb")
    readme = (ROOT / "README.md").read_text()
    assert f"(examples/notebooks/{name}.ipynb)" in readme
    assert f"`python tests/frameworks/run.py {name}`" in readme


def test_an_assert_before_the_deploy_or_in_a_comment_does_not_count(tmp_path: Path) -> None:
    def notebook(*cells: str) -> Path:
        path = tmp_path / "n.ipynb"
        path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [cell]} for cell in cells]}))
        return path

    assert runner.compares_after_its_deploy(notebook("%cortex deploy a", "%cortex get\nassert answer == own"))
    assert not runner.compares_after_its_deploy(notebook("assert 1 == 1", "%cortex deploy a", "# assert answer == own"))


def test_an_environment_has_its_own_packages_over_those_of_this_one_and_equal_lists_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = []

    def install(python: str, wanted: list[str], seconds: float | None) -> None:
        installed.append(wanted)
        site = next(Path(python).parent.parent.glob("lib/python*/site-packages"))
        (site / "a_framework.py").write_text("version = 7")
        (site / "click.py").write_text("mine = True")  # another version than here

    monkeypatch.setattr(layered, "_install", install)
    (tmp_path / "one.txt").write_text("# why\nb>=2\na==1  # because\n")
    (tmp_path / "two.txt").write_text("a==1\n\nb>=2\n")
    one, two = (layered.interpreter(layered.requirements(tmp_path / name), tmp_path / "made", 60) for name in ("one.txt", "two.txt"))
    assert one == two
    assert installed == [["a==1", "b>=2"]]
    code = "import a_framework, click, jupyter_cortex, sys; print(a_framework.version, click.mine, sys.executable)"
    done = subprocess.run([one, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == f"7 True {one}"
    assert layered.interpreter([], tmp_path / "made", 60) == sys.executable


def test_what_cannot_be_installed_is_skipped_within_a_budget_and_fails_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(python: str, wanted: list[str], seconds: float | None) -> None:
        raise layered.CannotInstall("there is no index")

    monkeypatch.setattr(layered, "_install", install)
    for budget, outcome in ((runner.Budget(1000), "skipped"), (runner.Budget(None), "FAILED")):
        row = runner.run_one(NAMES[0], budget, tmp_path, None)
        assert (row.outcome, row.why) == (outcome, "there is no index")
    assert list(tmp_path.glob("*/complete")) == [], "it is made anew the next time"


def test_a_budget_that_is_used_up_is_said(tmp_path: Path) -> None:
    row = runner.run_one(NAMES[0], runner.Budget(0), tmp_path, None)
    assert (row.outcome, row.why) == ("skipped", "the budget of 0 s is used up: it was not begun")
    with pytest.raises(runner.OutOfBudget, match="it was ended after"):
        runner._within([sys.executable, "-c", "import time; time.sleep(600)"], {}, tmp_path, runner.Budget(0.5))


def test_a_name_that_is_none_is_refused() -> None:
    done = subprocess.run([sys.executable, str(FRAMEWORKS / "run.py"), "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no notebook nothing" in done.stderr
