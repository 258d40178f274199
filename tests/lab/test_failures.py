"""What the page does with a failure: its notebook's kernel is made ready for a replay, its payload kept as a sample, it goes back into the queue."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..conftest import Environment, ProjectMaker, wait_until
from .conftest import KernelMaker, Lab, LabMaker
from .test_security import AUTHORIZER

HANDLER = "class Handler:\n    def handle_async(self, payload):\n        return {'x': payload['x']}"


@pytest.fixture
def failed(lab: Lab, kernel: KernelMaker, environment: Environment, request: pytest.FixtureRequest) -> Any:
    """``failed(name)``: an API of a notebook in a directory of its own, and the id of a request that failed on it."""

    def make(name: str) -> tuple[str, str]:
        path = f"{name}/{name}.ipynb"
        notebook = lab.notebook(path, HANDLER)
        one = kernel(directory=name)
        one.run_all(HANDLER)
        lab.ask("deploy", one, path, notebook, name=name).worked()
        client = environment.client()
        identity = client.submit(name, {"y": 1})
        wait_until(lambda: client.result(name, identity, 5).status == "failed", "it failed")
        return path, identity

    return make


def test_any_python_kernel_is_made_ready_for_a_replay(lab: Lab, kernel: KernelMaker) -> None:
    notebook = lab.notebook("ready.ipynb", HANDLER)
    one = kernel("plain")
    assert lab.ask("prepare", one, "ready.ipynb", notebook).worked() == {"handler": False}
    assert "Usage" in one.run("%cortex --help"), "the magic is there"
    one.run(HANDLER, "cell-0")
    assert lab.ask("prepare", one, "ready.ipynb", notebook).worked() == {"handler": True}
    one.run("Handler = 3")
    assert lab.ask("prepare", one, "ready.ipynb", notebook).worked() == {"handler": False}
    assert lab.ask("prepare", kernel("other"), "ready.ipynb", notebook).problem["kind"] == "not_python"


def test_a_failure_is_kept_as_a_sample_beside_its_notebook(lab: Lab, failed: Any) -> None:
    path, identity = failed("kept")
    kept = lab.post("sample", json={"api": "kept", "id": identity, "path": path}).json()
    assert kept["file"].startswith("samples/failed-")
    assert "must not fail any more" in kept["message"]
    written = yaml.safe_load((lab.root / "kept" / kept["file"]).read_text())
    assert written == {"content_type": "application/json", "body": '{"y": 1}', "notebook": Path(path).name}
    again = lab.post("sample", json={"api": "kept", "id": identity, "path": path})
    assert again.status_code == 400
    assert f"sample {kept['name']}" in again.json()["detail"]
    assert len(list((lab.root / "kept" / "samples").iterdir())) == 1


@pytest.mark.parametrize(
    ("wish", "status", "says"),
    [
        ({"id": "x", "path": "none.ipynb"}, 400, "`api`"),
        ({"api": "a", "id": 3, "path": "none.ipynb"}, 400, "`id`"),
        ({"api": "a", "id": "x", "path": "none.ipynb"}, 404, "no notebook"),
        ({"api": "a", "id": "x", "path": "../../etc/x.ipynb"}, 404, "no notebook"),
        ({"api": "nobody", "id": "x", "path": "there.ipynb"}, 404, "nobody"),
    ],
)
def test_a_sample_of_nothing_is_refused(lab: Lab, wish: dict[str, Any], status: int, says: str) -> None:
    lab.notebook("there.ipynb", HANDLER)
    answer = lab.post("sample", json=wish)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in answer.json()["detail"]
    assert not (lab.root / "samples").exists()


def test_who_may_not_write_files_keeps_no_sample(environment: Environment, own_lab: LabMaker, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        AUTHORIZER.replace("{allowed}", repr({("read", "cortex"), ("write", "cortex")})).replace('("cortex", "kernels")', '("cortex", "contents")')
    )
    own = own_lab(environment.home, f"--config={config}")
    own.notebook("n.ipynb", HANDLER)
    refused = own.post("sample", json={"api": "a", "id": "x", "path": "n.ipynb"})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "write files" in refused.json()["detail"]


def test_a_requeue_notes_who_runs_the_server_whatever_the_page_says(lab: Lab, environment: Environment, failed: Any) -> None:
    path, identity = failed("requeued")
    who = f"{getpass.getuser()}@{platform.node()}"
    asked = ({"source": path, "who": "somebody else"}, path), ({}, "JupyterLab")
    for about, source in asked:
        said = lab.post("api/apis/requeued/requeue", json={"ids": [identity], **about}).json()
        assert said["requeued"] == [identity], said
        wait_until(lambda: environment.client().result("requeued", identity, 5).status == "failed", "it failed again")
        (entry, *_) = lab.get("api/apis/requeued/audit").json()["entries"]
        assert (entry["who"], entry["source"], entry["ids"]) == (who, source, [identity])
    row = lab.get(f"api/apis/requeued/workloads/{identity}", params={"logs": "false"}).json()
    assert row["failure"]["traceback"]
    assert "logs" not in row["failure"]
    assert lab.get(f"api/apis/requeued/workloads/{identity}").json()["failure"]["logs"]
    assert (row["run"], [one["who"] for one in row["requeues"]]) == (3, [who, who])
    (group,) = lab.get("api/apis/requeued/failures", params={"since": 3600}).json()["groups"]
    assert (group["count"], group["newest"], group["place"]) == (1, identity, "cell 1, line 3")
    assert lab.post("api/apis/requeued/requeue", content=b"[").status_code == 400


def test_each_version_says_which_notebook_it_was(lab: Lab, kernel: KernelMaker, environment: Environment, project: ProjectMaker, failed: Any) -> None:
    path, _ = failed("taken-over")
    made = project("taken-over")
    environment.cortex("deploy", "--take-over", "--yes", cwd=made.directory)
    newest, oldest = lab.get("api/apis/taken-over").json()["api_versions"]
    assert (newest["version"], newest["notebook"]) == (2, None)
    assert (oldest["version"], oldest["notebook"]) == (1, path)
