"""A notebook handler before it is published: the gate and the kernel run it as a replica does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.commands import publishing
from jupyter_cortex.core.errors import GateFailed
from jupyter_cortex.core.settings import Settings
from jupyter_cortex.project import project as projects
from jupyter_cortex.project import samples
from jupyter_cortex.project.samples import Sample

from ..conftest import Environment
from ..server.reports import document, write_report
from .conftest import KernelMaker

CELLS = (
    "# parameters\nx = 1\nconfig = {}",
    "print('running with', x)",
    "from jupyter_cortex import glue\nglue(y=10 / x, unit=config.get('unit'))",
)


def test_the_gate_runs_every_sample_through_the_notebook(tmp_path: Path) -> None:
    config = write_report(tmp_path, "gated", *CELLS, handler=", config: {unit: m}")
    samples.save(tmp_path, Sample("five", "application/json", b'{"x": 5}', {"y": 2.0, "unit": "m"}))
    passed = publishing.run_gate(projects.from_config(config), None, lambda step: None, Settings.read(), always=True)
    assert passed["gated"].samples == ["five"]
    samples.save(tmp_path, Sample("zero", "application/json", b'{"x": 0}'))
    with pytest.raises(GateFailed, match=r"sample zero: ZeroDivisionError: division by zero \(cell 3, line 2\)"):
        publishing.run_gate(projects.from_config(config), None, lambda step: None, Settings.read(), always=True)


def test_a_payload_can_be_tried_in_the_kernel_before_anything_is_deployed(kernel: KernelMaker, tmp_path: Path) -> None:
    write_report(tmp_path, "tried", *CELLS, handler=", config: {unit: km}")
    one = kernel()
    shown = one.run('%%cortex payload\n{"x": 4}')
    assert "running with 4" in shown.text
    assert "2.5" in shown.text
    assert "km" in shown.text
    failed = one.run('%%cortex payload\n{"x": 0}')
    assert "ZeroDivisionError" in failed.text
    assert "cell 3, line 2" in failed.text


def test_a_request_is_replayed_with_the_notebook_as_it_is_now_and_as_a_version_was(
    kernel: KernelMaker, environment: Environment, tmp_path: Path
) -> None:
    config = write_report(tmp_path, "replayed", *CELLS, handler=", config: {unit: m}", spec="  retain: {payload: always}\n")
    with environment.client() as client:
        client.deploy(config)
        good, bad = (client.submit("replayed", payload) for payload in ({"x": 4}, {"x": 0}))
        assert [client.result("replayed", one, wait=60).status for one in (good, bad)] == ["completed", "failed"]
        one = kernel()

        def replayed(line: str) -> dict[str, Any]:
            row: dict[str, Any] = json.loads(one.run(f"%cortex replay {line} --name replayed -o json").stdout.strip().splitlines()[-1])
            return row

        assert replayed(good)["verdict"]["kind"] == "same_result"
        same = replayed(bad)
        assert same["verdict"]["kind"] == "same_failure"
        assert "cell 3, line 2" in same["here"]["traceback"]
        fixed = [cell.replace("10 / x", "10 / (x or 5)") for cell in CELLS]
        (tmp_path / "report.ipynb").write_text(json.dumps(document(*fixed)))
        now = replayed(bad)
        assert (now["verdict"]["kind"], now["here"]["result"]) == ("fixed", {"y": 2.0, "unit": "m"})
        then = replayed(f"{bad} --in 1")
        assert (then["ran"], then["verdict"]["kind"]) == ("version 1", "same_failure")
        client.delete("replayed")


def test_a_version_is_replayed_with_its_own_variables(kernel: KernelMaker, environment: Environment, tmp_path: Path) -> None:
    cells = ("# parameters\nx = 1", "import os\nfrom jupyter_cortex import glue\nglue(place=os.environ['PLACE'])")
    config = write_report(tmp_path, "placed", *cells, handler=", env: {PLACE: then}", spec="  retain: {payload: always}\n")
    with environment.client() as client:
        client.deploy(config)
        done = client.submit("placed", {"x": 2})
        assert client.result("placed", done, wait=60).result == {"place": "then"}
        write_report(tmp_path, "placed", *cells, handler=", env: {PLACE: now}", spec="  retain: {payload: always}\n")
        one = kernel()
        ran = {line: json.loads(one.run(f"%cortex replay {done} --name placed -o json {line}").stdout.splitlines()[-1]) for line in ("", "--in 1")}
        assert {line: row["here"]["result"] for line, row in ran.items()} == {"": {"place": "now"}, "--in 1": {"place": "then"}}
        client.delete("placed")
