"""The gate: in a clean process, papermill runs the check notebook; what fails names the cell, the line and the sample."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_cortex.core.errors import GateFailed
from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.project import from_notebook, gate, samples
from jupyter_cortex.project.check_cells import differs
from jupyter_cortex.project.notebook.cells import read
from jupyter_cortex.project.samples import Sample

from ..conftest import wait_until
from .conftest import write_notebook

GOOD = "class Handler:\n    def __init__(self, config):\n        self.add = config.get('add', 0)\n    def handle_async(self, payload):\n        print('got', payload)\n        return {'y': payload + self.add}"


def run(tmp_path: Path, *cells: str, recorded: list[Sample] | None = None, config: dict[str, Any] | None = None) -> gate.Passed:
    built = from_notebook.build(read(write_notebook(tmp_path / "n.ipynb", *cells)), tmp_path, name="gated", config=config)
    spec = check_specs(built.project.documents, [file.path for file in built.project.files])[0]
    return gate.run(built.project, spec, recorded or [])


def failed(tmp_path: Path, *cells: str, recorded: list[Sample] | None = None) -> GateFailed:
    with pytest.raises(GateFailed) as caught:
        run(tmp_path, *cells, recorded=recorded)
    return caught.value


def sample(body: str, expected: dict[str, Any] | None = None, content_type: str = "application/json") -> Sample:
    return Sample("mine", content_type, body.encode(), expected)


def test_what_passes_leaves_a_report_that_papermill_executed(tmp_path: Path) -> None:
    passed = run(tmp_path, GOOD, recorded=[sample("1", {"y": 3})], config={"add": 2})
    report = json.loads(passed.report)
    assert passed.samples == ["mine"]
    assert "papermill" in report["metadata"]
    assert any("parameters" in "".join(cell["metadata"].get("tags", [])) for cell in report["cells"])
    text = json.dumps(report)
    for said in ("constructed Handler", "payload: int 1", "result after"):
        assert said in text
    assert any("parameters" in cell["metadata"].get("tags", []) and "project_dir" in "".join(cell["source"]) for cell in report["cells"])


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["import no_such_module_anywhere\n" + GOOD.replace("payload + self.add", "no_such_module_anywhere.x")], "no_such_module_anywhere"),
        (["VALUE = open('not-there.txt').read()", GOOD.replace("payload + self.add", "VALUE")], "(cell 1, line 1)"),
        (["class Handler:\n    def __init__(self, config):\n        config['missing']\n    def handle_async(self): return {}"], "(cell 1, line 3)"),
        (["class Handler:\n    def __init__(self, config):\n        raise SystemExit(3)\n    def handle_async(self): return {}"], "SystemExit"),
    ],
)
def test_what_cannot_be_imported_or_constructed_names_its_cell(tmp_path: Path, cells: list[str], said: str) -> None:
    error = failed(tmp_path, *cells)
    assert said in error.message + str(error.details.get("traceback"))
    assert "report" in error.details


@pytest.mark.parametrize(
    ("body", "expected", "cell", "said"),
    [
        ("1", {"y": 2}, GOOD, "result.y was 2 and is 1"),
        ("1", {"y": 1, "z": 0}, GOOD, "result.z is missing"),
        ("1", None, GOOD.replace("{'y'", "{'new': {1}, 'y'"), "new"),
        ('"text"', None, GOOD, "TypeError"),
        ("{broken", None, GOOD, "not valid JSON"),
        ("1", None, GOOD.replace("{'y': payload + self.add}", "[1]"), "must return a dict"),
    ],
)
def test_a_sample_that_does_not_give_its_result_fails(tmp_path: Path, body: str, expected: dict[str, Any] | None, cell: str, said: str) -> None:
    error = failed(tmp_path, cell, recorded=[sample(body, expected)])
    assert said in error.message
    assert "sample mine" in error.message


def test_a_failing_sample_names_the_cell_and_line_of_the_handler(tmp_path: Path) -> None:
    error = failed(
        tmp_path,
        "def helper(x):\n    return 1 / x",
        "class Handler:\n    def handle_async(self, payload):\n        return {'y': helper(payload)}",
        recorded=[sample("0")],
    )
    assert error.message.endswith("division by zero (cell 1, line 2)")
    assert "cell 2, line 3" in error.details["traceback"]


@pytest.mark.parametrize(
    ("source", "said"), [("import os\nos._exit(7)", "exit status 7"), ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV")]
)
def test_a_handler_that_takes_its_process_down_is_told_from_one_that_fails(tmp_path: Path, source: str, said: str) -> None:
    body = "\n        ".join(source.split("\n"))
    error = failed(tmp_path, f"class Handler:\n    def handle_async(self):\n        {body}\n        return {{}}", recorded=[sample("1")])
    assert said in error.message
    assert "sample mine" in error.message


def test_hidden_state_of_the_kernel_is_not_there(tmp_path: Path) -> None:
    """A module that is only importable because the kernel changed its path."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "hidden_helper.py").write_text("X = 1\n")
    source = "import hidden_helper\n" + GOOD.replace("payload + self.add", "hidden_helper.X")
    assert "hidden_helper" in failed(tmp_path, source).message


def test_secrets_are_masked_in_the_report_and_in_the_refusal(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PHRASE=sesame-street-9\n")
    source = "import os\nclass Handler:\n    def handle_async(self, payload):\n        print('it is', os.environ['PHRASE'])\n        raise ValueError(os.environ['PHRASE'])"
    error = failed(tmp_path, source, recorded=[sample("1")])
    assert "sesame-street-9" not in error.message + json.dumps(error.details)
    assert "***" in error.message


def test_the_check_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    write_notebook(
        tmp_path / "n.ipynb",
        "class Handler:\n    def __init__(self, config):\n        import time\n        time.sleep(600)\n    def handle_async(self): return {}",
    )
    script = (
        "from pathlib import Path\nfrom jupyter_cortex.core.spec import check_specs\nfrom jupyter_cortex.project import from_notebook, gate\n"
        "from jupyter_cortex.project.notebook.cells import read\nroot = Path('.').absolute()\n"
        "built = from_notebook.build(read(root / 'n.ipynb'), root, name='x')\n"
        "gate.run(built.project, check_specs(built.project.documents, ['handler.py'])[0], [], print)\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert asking.stdout is not None
    while "construct" not in asking.stdout.readline():
        assert asking.poll() is None
    child = wait_until(lambda: psutil.Process(asking.pid).children(), "the check runs")[0]
    asking.kill()
    asking.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the check has ended, too")


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": 1}, {"a": 1.0}, ""),
        ({"a": 0.1 + 0.2}, {"a": 0.3}, ""),
        ({"a": 1.0}, {"a": 1.001}, "result.a was 1.0 and is 1.001"),
        ({"a": True}, {"a": 1}, "result.a was true and is 1"),
        ({"a": [1, 2]}, {"a": [1]}, "result.a had 2 items and has 1"),
        ({"a": [{"b": "x"}]}, {"a": [{"b": "y"}]}, 'result.a[0].b was "x" and is "y"'),
        ({"a": 1}, {"a": 1, "b": 2}, "result.b is new"),
        ({"a": None}, {"a": 0}, "result.a was null and is 0"),
    ],
)
def test_two_results_differ_in_words(expected: Any, found: Any, said: str) -> None:
    assert differs(expected, found) == said


# Samples as files ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain",
        b'{"a": 1}',
        "größe\nzwei".encode(),
        b"\r\nwindows\r\n",
        b"\x00\xff",
        b" leading and trailing ",
        b"x" * 40_000,
        b"'quotes\" # and: colons",
        b"- list\n- like",
    ],
)
def test_a_sample_comes_back_byte_for_byte(tmp_path: Path, body: bytes) -> None:
    samples.save(tmp_path, Sample("one", "text/plain; charset=utf-8", body, {"a": [1, None, "ü"]}))
    assert samples.load(tmp_path) == [Sample("one", "text/plain; charset=utf-8", body, {"a": [1, None, "ü"]})]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("body: x\n", "content_type"),
        ("content_type: text/plain\n", "body (text) or body_file"),
        ("content_type: text/plain\nbody: x\nbody_file: y\n", "one of them"),
        ("content_type: text/plain\nbody: 4\n", "quotes"),
        ("content_type: text/plain\nbody_file: ../../etc/passwd\n", "name of a file in samples/"),
        ("content_type: text/plain\nbody_file: missing\n", "cannot be read"),
        ("content_type: text/plain\nbody: x\nexpected: [1]\n", "a map"),
        ("content_type: text/plain\nbody: x\nexpect: {a: 1}\n", "expect is no key"),
        ("content_type: [\n", "samples/bad.yaml"),
    ],
)
def test_a_sample_that_cannot_be_used_names_its_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "bad.yaml").write_text(text)
    with pytest.raises(Exception, match=r"samples/bad\.yaml") as caught:
        samples.load(tmp_path)
    assert said in str(caught.value)


def test_a_free_name_does_not_replace_a_sample(tmp_path: Path) -> None:
    assert samples.free_name(tmp_path, "My sample!") == "My-sample"
    samples.save(tmp_path, Sample("My-sample", "text/plain", b"x"))
    assert samples.free_name(tmp_path, "My sample!") == "My-sample-2"
