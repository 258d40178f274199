"""A page sees everything once, then what changes, over lost connections and restarts."""

from __future__ import annotations

from ..conftest import Environment, ProjectMaker
from .conftest import Lab


def test_a_page_sees_what_moves_after_its_snapshot(lab: Lab, environment: Environment, project: ProjectMaker) -> None:
    project("streamed").deploy(environment)
    said = lab.get("snapshot").json()
    assert said["environment"]["up"]
    assert "streamed" in {row["name"] for row in said["apis"]}
    environment.client().submit("streamed", {"a": 1})
    page = lab.page(said["seq"])
    page.until(lambda frame: page.moves("streamed").get("completed"), "the workload is done")
    last = page.frames[-1]
    assert last["changes"]["streamed"]["workloads"][0]["status"] == "completed"
    page.close()
