"""Every example notebook runs from its first cell to its last, in a clean environment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import NotebookError
from jupyter_cortex.project import run_notebook

from ..conftest import Environment

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))


def shown(path: Path) -> str:
    """All text outputs of a notebook."""
    outputs = [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])]
    return "\n".join("".join(output.get("text") or (output.get("data") or {}).get("text/plain") or "") for output in outputs)


@pytest.fixture
def run(own_environment: Callable[..., Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs a copy of a notebook with papermill against an environment of its own, which starts with the notebook's deploy."""

    def execute(source: Path, **parameters: Any) -> Path:
        environment = own_environment()
        environment.down()
        monkeypatch.setenv("JUPYTER_CORTEX_HOME", str(environment.home))
        target = tmp_path / "work" / source.name
        target.parent.mkdir()
        shutil.copy(source, target)
        run_notebook.run(target, parameters)
        return target

    return execute


@pytest.mark.parametrize("source", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_is_shipped_without_outputs_and_opens_with_the_cortex_kernel(source: Path) -> None:
    document = json.loads(source.read_text())
    assert document["metadata"]["kernelspec"]["name"] == "cortex"
    assert not any(cell.get("outputs") for cell in document["cells"])
    assert document["cells"][0]["cell_type"] == "markdown"


def test_no_two_examples_save_under_one_name_for_they_lie_in_one_directory() -> None:
    names = [
        (word.partition("=")[0], source.stem)
        for source in EXAMPLES
        for cell in json.loads(source.read_text())["cells"]
        if cell["cell_type"] == "code"
        for line in "".join(cell["source"]).splitlines()
        if line.startswith("%cortex save ")
        for word in line.split()[2:]
    ]
    assert len({name for name, _ in names}) == len(names) >= 9, sorted(names)


def test_the_iris_notebook_runs_from_data_to_a_deleted_api(run: Callable[..., Path]) -> None:
    path = run(next(path for path in EXAMPLES if path.stem == "iris-classifier"))
    text = shown(path)
    for said in (
        "saved model.joblib",
        "kept samples/setosa.yaml",
        "refused with 400",
        "iris-classifier is live",
        "'label': 'virginica'",
        "deleting iris-classifier",
    ):
        assert said in text, said
    assert text.count("completed") >= 3


def test_the_chaining_notebook_calls_two_apis_by_name(run: Callable[..., Path]) -> None:
    text = shown(run(next(path for path in EXAMPLES if path.stem == "chaining")))
    assert "'number': '4063182'" in text
    assert "print is captured, too" in text
    assert text.count("deleting ") == 3


def test_the_report_notebook_publishes_a_notebook_and_shows_its_executed_page(run: Callable[..., Path]) -> None:
    text = shown(run(next(path for path in EXAMPLES if path.stem == "notebook-report")))
    for said in (
        "wine-report is live",
        "'feature': 'alcohol'",
        "the page has 1 chart",
        "'sweetness' is not in list",
        "cell 2, line 4",
        "['ValueError']",
        "deleting wine-report",
    ):
        assert said in text, said


def test_the_failure_notebook_goes_from_a_failed_request_to_its_result_under_the_old_id(run: Callable[..., Path]) -> None:
    text = shown(run(next(path for path in EXAMPLES if path.stem == "failure-to-fix")))
    for said in (
        "status='failed'",
        "the same failure as in production",
        "it failed in production and succeeds here",
        "here, version 1",
        "it must not fail any more",
        "1 of irises requeued",
        "status='completed'",
        "no failures of irises",
        "deleting irises",
    ):
        assert said in text, said
    assert text.index("same failure") < text.index("succeeds here") < text.index("must not fail any more") < text.index("requeued")


def test_a_failing_cell_is_named(run: Callable[..., Path], tmp_path: Path) -> None:
    from .conftest import write_notebook

    with pytest.raises(NotebookError, match=r"cell 2 failed: ZeroDivisionError"):
        run(write_notebook(tmp_path / "failing.ipynb", "a = 1", "a / 0"))
