"""README is always true: its commands run, its tables say what the code says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_cortex.core.settings import PREFIX, Settings
from jupyter_cortex.project.samples import Sample, load

from .conftest import Environment
from .notebook.conftest import KernelMaker, kernel

__all__ = ["kernel"]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

#: What README calls pytest with.
PYTEST = set(re.findall(r"`pytest ([^`]+)`", README))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = (
            "" if name == "home" or field.default == "" else f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
        )
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def test_the_settings_table_is_the_code_s() -> None:
    shown = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", README, re.DOTALL)
    assert shown is not None
    assert shown.group(1) == settings_table(), f"put this into README:\n{settings_table()}"


def test_the_five_minute_story_runs_as_written(own_environment: Callable[..., Environment], tmp_path: Path) -> None:
    environment = own_environment()
    environment.down()
    story, end = blocks("bash")[:-1], blocks("bash")[-1]
    python = f"python - <<'PY'\n{blocks('python')[0]}PY\n"
    script = "set -euo pipefail\n" + "".join(story) + python + end
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(tmp_path), "JUPYTER_CORTEX_HOME": str(environment.home)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "creating flowers (AsyncAPI)",
        '"label": "setosa"',
        '"label":"versicolor"',
        "Workload(id=",
        "KeyError: 'petal_length'",
        "it must not fail any more",
        "1 of flowers requeued",
        "deleting flowers",
        "stopped 1 operator",
    ):
        assert said in done.stdout


def test_the_notebook_story_runs_in_a_kernel_as_written(kernel: KernelMaker, tmp_path: Path) -> None:
    one = kernel()
    shown = "".join(one.run(cell).text for block in blocks("ipython") for cell in [block])
    for said in (
        "kept samples/lovely.yaml",
        "`GOOD`, used in Handler.handle_async",
        "sentiment is live",
        '"score": 0.3333333333333333',
        "scored",
        "AttributeError: 'dict' object has no attribute 'lower'",
        "the same failure as in production",
        "1 of 1 succeed here",
        "it must not fail any more",
        "1 of sentiment requeued",
        "deleting sentiment",
    ):
        assert said in shown, said


def test_the_sample_that_readme_shows_is_one(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "lovely.yaml").write_text(blocks("yaml")[0])
    assert load(tmp_path) == [Sample("lovely", "text/plain", b"a lovely day", {"score": 1 / 3}, "sentiment.ipynb")]


def test_every_magic_that_readme_names_exists() -> None:
    from jupyter_cortex.magics.cortex import group

    named = set(re.findall(r"%cortex ([a-z]+)", README))
    assert named <= set(group().commands)
    assert {"payload", "try", "sample", "save", "show", "check", "deploy", "requests", "replay", "requeue"} <= named


def collected(*arguments: str) -> list[str]:
    """The ids of the tests that pytest finds with these arguments."""
    done = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_tests_that_readme_names_exist() -> None:
    """Asked for all at once: starting pytest for each of them took as long as many of them run."""
    named = sorted(path for path in PYTEST if " " not in path)
    found = collected(*named)
    assert [path for path in named if not any(test.startswith(path) for test in found)] == []


@pytest.mark.parametrize("arguments", sorted(arguments for arguments in PYTEST if " " in arguments))
def test_the_tests_that_readme_selects_exist(arguments: str) -> None:
    assert collected(*shlex.split(arguments))


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`python (tests/benchmarks/[^`]+)`", README))))
def test_the_benchmarks_that_readme_names_can_be_asked_for(command: str) -> None:
    """Measuring takes minutes and is nothing for a suite: here all modules are loaded and the arguments are read."""
    done = subprocess.run([sys.executable, *command.split(), "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--quick" in done.stdout


def test_the_chaos_command_that_readme_names_can_be_asked_for() -> None:
    """Its short run is part of the suite: tests/chaos/test_chaos.py."""
    assert "`python -m tests.chaos`" in README
    done = subprocess.run([sys.executable, "-m", "tests.chaos", "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_readme_s_two_commands_are_on_lines_of_their_own() -> None:
    lines = README.splitlines()
    assert "pip install '.[demo]' && cortex demo" in lines
    assert "pip install '.[test]' && pytest" in lines


def test_the_picture_is_there() -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).is_file()


def test_every_cortex_verb_in_readme_exists() -> None:
    from jupyter_cortex.cli import main

    used = set(re.findall(r"(?:^|[`&(] ?)cortex ([a-z]+)", README, re.MULTILINE))
    assert used <= set(main.commands)
