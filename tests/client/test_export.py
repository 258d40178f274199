"""``cortex export`` and ``cortex patch``: what was deployed, as a project again, and with another spec."""

from __future__ import annotations

import json

import pytest

from jupyter_cortex.commands.exporting import export
from jupyter_cortex.core.errors import ApiNotFound, BadRequest, DeploymentNotFound
from jupyter_cortex.project.config_file import load

from ..conftest import Environment, ProjectMaker

HANDLER = """
import json

class Handler:
    def __init__(self, config):
        self.rows = json.load(open("data/rows.json"))
        self.config = config

    def handle_async(self, payload):
        return {"rows": self.rows, "config": self.config}
"""
CONFIG = "config: {rate: 1.0e-3, when: '2024-01-01', word: 'on', size: '1e3'}"


def test_what_was_deployed_becomes_a_project_that_deploys_again(environment: Environment, project: ProjectMaker) -> None:
    files = {"data/rows.json": "[1, 2]", ".env": "PIN=open-sesame\n"}
    made = project("exported", HANDLER, handler_spec=CONFIG, files=files)
    made.deploy(environment)
    made.write(HANDLER.replace("self.rows,", "'other',"))
    made.deploy(environment)
    target = made.directory.parent / "again"
    shown = environment.cortex("export", "exported", "1", "--dir", str(target))
    assert "wrote exported version 1" in shown.stdout
    assert "not among them: the .env, if it had one" in shown.stdout
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == ["cortex.yaml", "data/rows.json", "handler.py"]
    assert "open-sesame" not in "".join(path.read_text() for path in target.rglob("*") if path.is_file())
    assert load(target / "cortex.yaml") == [{**load(made.directory / "cortex.yaml")[0], "name": "exported"}]
    client = environment.client()
    deployed = client.deploy(target / "cortex.yaml", take_over=True)[0]
    assert client.result("exported", client.submit("exported", {}), wait=60).result == {
        "rows": [1, 2],
        "config": {"rate": 0.001, "when": "2024-01-01", "word": "on", "size": "1e3"},
    }
    assert deployed.version == 3
    # Without a version, what is live; a directory that exists is left alone.
    said = json.loads(environment.cortex("export", "exported", "-o", "json", cwd=made.directory.parent).stdout)
    assert (said["version"], said["missing"]) == (3, [".env"])
    again = environment.cortex("export", "exported", cwd=made.directory.parent, check=False)
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    with pytest.raises(DeploymentNotFound, match="no version 9"):
        export(client, "exported", 9, str(target) + "-9")
    with pytest.raises(ApiNotFound):
        export(client, "nobody", None, None)
    with pytest.raises(BadRequest, match="cannot be written"):
        export(client, "exported", 1, str(target / "handler.py" / "below"))
    assert not [path for path in target.parent.iterdir() if path.name.startswith(".again")]
    client.delete("exported")


def test_a_patch_changes_the_spec_and_not_the_files(environment: Environment, project: ProjectMaker) -> None:
    made = project("patched", HANDLER, handler_spec="config: {n: 1}", files={"data/rows.json": "[1]"})
    made.deploy(environment)
    made.write("raise RuntimeError('not this one')\nclass Handler: ...")
    config = made.directory / "cortex.yaml"
    config.write_text(config.read_text().replace("n: 1", "n: 2"))
    assert "patched is live (version 2)" in environment.cortex("patch", str(config)).stdout
    client = environment.client()
    assert client.result("patched", client.submit("patched", {}), wait=60).result == {"rows": [1], "config": {"n": 2}}
    config.write_text(config.read_text().replace("patched", "nobody"))
    refused = environment.cortex("patch", str(config), check=False)
    assert (refused.returncode, "nobody is not deployed" in refused.stderr) == (1, True)
    client.delete("patched")


def test_a_patch_that_is_refused_says_which_apis_were_patched_before(environment: Environment, project: ProjectMaker) -> None:
    made = project("patched-one", HANDLER, handler_spec="config: {n: 1}", files={"data/rows.json": "[1]"})
    made.deploy(environment)
    config = made.directory / "cortex.yaml"
    text = config.read_text().replace("n: 1", "n: 2")
    config.write_text(text + text.replace("patched-one", "never-deployed"))
    refused = environment.cortex("patch", str(config), check=False)
    assert refused.returncode == 1
    assert "never-deployed is not deployed" in refused.stderr
    assert "Patched before: patched-one (version 2)." in refused.stderr
    assert environment.client().get_api("patched-one")["live"] == 2
