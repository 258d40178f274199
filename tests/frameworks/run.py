"""The example notebooks, each from its first cell to its last: ``python tests/frameworks/run.py [NAME ...] [--budget SECONDS]``.

A notebook ``examples/notebooks/<name>.ipynb`` with a ``requirements/<name>.txt`` beside it gets an environment that has these over all that the
running interpreter has (``pip install '.[test]'`` first; the environments are made at the first run and kept); the others run in the interpreter
itself. papermill runs each in a kernel of its environment, against a local environment of its own.

A notebook passes when no cell fails, an ``assert`` after its deploy holds that the API's answer is the notebook's own prediction, and nothing stays
deployed. Where its environment can, the real frameworks' part of ``%cortex save`` is tested, too (``test_saving.py``), and with TensorFlow the
handler made for it (``test_tensorflow.py``).
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import layered

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "examples" / "notebooks"
#: A notebook that trains for under a minute and deploys is done long before; only bounds a broken one.
NOTEBOOK_S = 600.0
PASSED, FAILED, SKIPPED = "pass", "FAILED", "skipped"


@dataclass
class Row:
    name: str
    outcome: str
    seconds: float
    why: str = ""


class Budget:
    """Seconds for everything, installing included; None: any time."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self._end = seconds, None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def at_most(self, seconds: float) -> float:
        left = self.left()
        return seconds if left is None else min(seconds, left)


class OutOfBudget(Exception):
    """Says what was going on."""


def names() -> list[str]:
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the example notebooks, each in an environment that has what it needs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all, which are {', '.join(names())}")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="for all of it; what does not fit, or cannot be installed, is skipped")
    parser.add_argument("--environments", type=Path, default=layered.CACHE, metavar="DIR", help="where environments are kept: %(default)s")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the executed notebooks there")
    wanted = parser.parse_args()
    if unknown := [name for name in wanted.names if name not in names()]:
        parser.error(f"there is no notebook {unknown[0]}; there are {', '.join(names())}")
    wanted.names = list(dict.fromkeys(wanted.names)) or names()
    return wanted


def compares_after_its_deploy(source: Path) -> bool:
    """Whether an assert stands in a cell behind the first one that deploys; that it holds is seen when it runs."""
    deployed = False
    for cell in json.loads(source.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        python = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines())
        if deployed and _asserts(python):
            return True
        deployed = deployed or "deploy" in text
    return False


def _asserts(python: str) -> bool:
    try:
        return any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(python)))
    except SyntaxError:
        return False


def run_one(name: str, budget: Budget, environments: Path, keep: Path | None) -> Row:
    began = time.monotonic()
    source, wanted = NOTEBOOKS / f"{name}.ipynb", NOTEBOOKS / "requirements" / f"{name}.txt"
    outcome, why = PASSED, ""
    try:
        if budget.left() == 0.0:
            raise OutOfBudget("it was not begun")
        asked = layered.requirements(wanted) if wanted.is_file() else []
        python = layered.interpreter(asked, environments, budget.left())
        print(f"{name}: {', '.join(asked) or 'nothing beside what is here'}", file=sys.stderr, flush=True)
        why = play(python, source, budget, keep) or test(python, asked, budget)
        if not why and wanted.is_file() and not compares_after_its_deploy(source):
            why = "no cell after its deploy asserts that the answer is the notebook's own"
        outcome = FAILED if why else PASSED
    except (OutOfBudget, layered.CannotInstall) as error:
        # Without a budget everything was asked for, and must be had.
        outcome = FAILED if budget.seconds is None else SKIPPED
        why = f"the budget of {budget.seconds:.0f} s is used up: {error}" if isinstance(error, OutOfBudget) else str(error)
    return Row(name, outcome, time.monotonic() - began, why)


def play(python: str, source: Path, budget: Budget, keep: Path | None) -> str:
    """Run a copy of the notebook in a directory of its own; why it failed, "" when it passed. Raises OutOfBudget."""
    work = Path(tempfile.mkdtemp(prefix="cx-notebook-"))
    notebook, home = work / "project" / source.name, work / "home"
    notebook.parent.mkdir()
    shutil.copy(source, notebook)
    env = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER_CORTEX_")}
    env["JUPYTER_CORTEX_HOME"] = str(home)
    try:
        said = _within([python, str(Path(__file__).with_name("play.py")), str(notebook)], env, notebook.parent, budget)
        return _error(said)
    finally:
        # A notebook that was ended in the middle leaves its environment running.
        subprocess.run([sys.executable, "-m", "jupyter_cortex.cli", "down"], env=env, cwd=work, capture_output=True, check=False, timeout=120)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(notebook, keep / source.name)
        shutil.rmtree(work, ignore_errors=True)


def _error(said: str) -> str:
    try:
        return str(json.loads(said.strip().splitlines()[-1])["error"])
    except (IndexError, ValueError, KeyError, TypeError):
        return f"it ended without a word: {said.strip()[-500:]}"


def test(python: str, asked: list[str], budget: Budget) -> str:
    """What we make of the real frameworks of this environment; why a test failed, "" when none did. Raises OutOfBudget."""
    if not asked:
        return ""
    argv = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "tests/frameworks/test_saving.py"]
    if any(requirement.startswith("tensorflow") for requirement in asked):
        argv.append("tests/frameworks/test_tensorflow.py")
    said = _within(argv, dict(os.environ), ROOT, budget)
    last = said.strip().splitlines()[-1:] or ["nothing"]
    return said[-3000:] if "failed" in last[0] or "error" in last[0] or not ("passed" in last[0] or "skipped" in last[0]) else ""


def _within(argv: list[str], env: dict[str, str], cwd: Path, budget: Budget) -> str:
    """All that a child says. Raises OutOfBudget when it took longer than there was, after ending it and what it started in its session."""
    seconds = budget.at_most(NOTEBOOK_S)
    # A session of its own, so that all of it can be ended. Kernels have sessions of their own, and end when their parent does.
    child = subprocess.Popen(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        return child.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        _end(child)
        if seconds < NOTEBOOK_S:
            raise OutOfBudget(f"it was ended after {seconds:.0f} s") from None
        return json.dumps({"error": f"it was ended after {seconds:.0f} s"})
    except BaseException:
        _end(child)
        raise


def _end(child: subprocess.Popen[str]) -> None:
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def show(row: Row) -> str:
    return f"{row.name:<24} {row.seconds:>6.0f} s  {row.outcome}{': ' + row.why if row.why else ''}"


def main() -> int:
    wanted, rows = arguments(), []
    budget = Budget(wanted.budget)
    for name in wanted.names:
        rows.append(run_one(name, budget, wanted.environments, wanted.keep))
        print(show(rows[-1]), file=sys.stderr, flush=True)
    print("\n".join(map(show, rows)))
    return 1 if any(row.outcome == FAILED for row in rows) else 0


if __name__ == "__main__":
    # A terminated run still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
