"""Handlers of type tensorflow, from cortex.yaml to an answer: with a TensorFlow Serving, and up to where TensorFlow itself is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_cortex.core.errors import DeployFailed, ProjectError, SpecError
from jupyter_cortex.core.models import not_come_along, with_kept
from jupyter_cortex.handler.tensorflow.savedmodel import tensorflow_present
from jupyter_cortex.project import from_notebook
from jupyter_cortex.project.notebook import cells
from jupyter_cortex.project.project import from_config, from_directory

from ..conftest import Environment
from ..parity.test_tensorflow import saved
from ..tensorflow_serving import irises, serving

HANDLER = """
from cortex_internal.lib.exceptions import UserException

class Handler:
    def __init__(self, tensorflow_client, config):
        self.client = tensorflow_client

    def handle_async(self, payload):
        try:
            prediction = self.client.predict({"measurements": payload["flowers"]}, model_version=payload.get("version", "latest"))
        except UserException as error:
            return {"refused": str(error)}
        return {"class_ids": [int(number) for number in prediction["class_ids"]]}
"""


def written(directory: Path, name: str, **models: Any) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "handler.py").write_text(HANDLER)
    entry = {"name": name, "kind": "AsyncAPI", "handler": {"type": "tensorflow", "path": "handler.py", "models": models}}
    (directory / "cortex.yaml").write_text(yaml.safe_dump([entry]))
    return directory / "cortex.yaml"


def test_a_handler_predicts_with_the_models_of_a_tensorflow_serving(environment: Environment, tmp_path: Path) -> None:
    client = environment.client()
    with serving({"iris": {"1": irises(1), "2": irises(2)}}) as server:
        # The directory of the model is the server's: it need not be here.
        config = written(tmp_path / "tf", "tf-serving", path="models/iris", serving=server.address)
        try:
            assert client.deploy(config)[0].api == "tf-serving"
            asked = [{"flowers": [[5, 3, 1, 0]]}, {"flowers": [[5, 3, 1, 0]] * 2, "version": "1"}, {"flowers": [[5]]}]
            found = [client.result("tf-serving", client.submit("tf-serving", payload), wait=60).result for payload in asked]
            assert found[:2] == [{"class_ids": [8]}, {"class_ids": [4, 4]}]
            assert "expected float32 of shape [?, 4], got int64 of shape [1, 1]" in found[2]["refused"]
        finally:
            client.delete("tf-serving")


def test_a_model_directory_travels_as_artifacts_and_absent_tensorflow_is_the_deploy_s_one_sentence(environment: Environment, tmp_path: Path) -> None:
    if tensorflow_present():
        pytest.skip("TensorFlow is installed here")
    saved(tmp_path / "tf" / "models" / "iris" / "3")
    config = written(tmp_path / "tf", "tf-absent", path="./models/iris/")
    client = environment.client()
    try:
        with pytest.raises(DeployFailed, match=r"TensorFlow is not installed in .*: add tensorflow-cpu to requirements\.txt or install it"):
            client.deploy(config)
        version = client.get_api("tf-absent")["api_versions"][0]
        places = [artifact["path"] for artifact in version["spec"]["artifacts"]]
        names = ("saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index")
        assert places == [f"models/iris/3/{name}" for name in names]
    finally:
        client.delete("tf-absent")


# What travels ---------------------------------------------------------------------------------------------------------


def test_the_files_of_every_local_model_are_artifacts_and_not_in_the_bundle(tmp_path: Path) -> None:
    for name in ("one", "all/a/7", "all/b"):
        saved(tmp_path / name)
    (tmp_path / "one" / ".hidden").touch()
    (tmp_path / "one" / "assets").mkdir()
    (tmp_path / "one" / "assets" / "words.txt").write_text("a b")
    (tmp_path / ".cortexignore").write_text("one\nall\n")
    config = written(tmp_path, "tf", paths=[{"name": "x", "path": "one"}, {"name": "y", "path": "s3://b/m"}, {"name": "z", "path": "/srv/models/z"}])
    project = from_config(config)
    listed = [item["path"] if isinstance(item, dict) else item for item in project.documents[0]["artifacts"]]
    assert listed == ["one/saved_model.pb", "one/assets/words.txt", *(f"one/variables/variables.{end}" for end in ("data-00000-of-00001", "index"))]
    assert [file.path for file in project.files] == ["handler.py"]
    document = {"name": "tf", "kind": "AsyncAPI", "handler": {"type": "tensorflow", "path": "handler.py", "models": {"dir": "all"}}}
    listed = from_directory(document, tmp_path).documents[0]["artifacts"]
    assert [path for path in listed if path.endswith(".pb")] == ["all/a/7/saved_model.pb", "all/b/saved_model.pb"]
    assert len(listed) == 6
    assert "artifacts" not in document
    (tmp_path / "served").mkdir()
    written(tmp_path / "served", "tf", path="not/here", serving="http://localhost:8501")
    assert "artifacts" not in from_config(tmp_path / "served" / "cortex.yaml").documents[0]


def test_a_class_that_a_notebook_publishes_takes_its_model_along(tmp_path: Path) -> None:
    saved(tmp_path / "models" / "iris" / "1")
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    source = f"{HANDLER}\nGRAPH = 'models/iris/1/saved_model.pb'\n"
    cell = {"cell_type": "code", "source": source.replace('return {"refused"', 'return {"graph": GRAPH, "refused"'), "outputs": [], "metadata": {}}
    notebook = cells.Notebook(cells.code_cells({"cells": [cell]}), tmp_path / "n.ipynb")
    document = {"name": "tf", "handler": {"type": "tensorflow", "models": {"path": "models/iris"}}}
    built = from_notebook.build(notebook, tmp_path, document=document)
    assert not [row for row in built.surprises if row.blocks]
    assert [file.path for file in built.project.files] == ["handler.py"]
    assert [one.path for one in built.travels if one.why == "an artifact of the spec"] == sorted(built.project.documents[0]["artifacts"])
    assert len(built.project.documents[0]["artifacts"]) == 3


def test_what_is_no_model_is_refused_before_anything_is_sent_and_names_its_key(tmp_path: Path) -> None:
    for models, said in (
        ({"path": "models/iris"}, r"cortex\.yaml: handler\.models\.path \(tf\): models/iris is not there"),
        ({"dir": "models"}, r"handler\.models\.dir \(tf\): models is not there"),
        ({"paths": [{"name": "x", "path": "."}]}, None),
        ({"paths": [{"name": "x", "path": "handler.py"}]}, r"handler\.models\.paths\.0\.path \(tf\): handler\.py is a file"),
    ):
        config = written(tmp_path / "p", "tf", **models)
        if said is None:
            assert "artifacts" not in from_config(config).documents[0], "the spec's check refuses it"
            continue
        with pytest.raises(ProjectError, match=said):
            from_config(config)


def test_a_patch_that_names_the_model_alone_keeps_its_files() -> None:
    artifact = {"path": "models/iris/saved_model.pb", "sha256": "ab" * 32, "bytes": 1}
    other = {**artifact, "path": "models/iris2/saved_model.pb"}
    section = {"type": "tensorflow", "path": "handler.py", "models": {"path": "./models/iris/"}}
    document = {"name": "tf", "handler": section, "artifacts": ["x.bin"]}
    assert with_kept(document, {"artifacts": [artifact, other]})["artifacts"] == ["x.bin", artifact]
    assert with_kept({**document, "artifacts": [artifact]}, {"artifacts": [artifact]})["artifacts"] == [artifact]
    assert with_kept({**document, "handler": {**section, "type": "python"}}, {"artifacts": [artifact]}) == {
        **document,
        "handler": {**section, "type": "python"},
    }
    assert with_kept(document, None) == document
    assert not_come_along(section["models"], ["models/iris2/x"]) == ("handler.models.path", "models/iris")
    assert not_come_along(section["models"], ["models/iris/x"]) is None
    assert not_come_along({"path": "s3://b/m"}, []) is None


def test_a_path_that_leaves_the_project_is_refused_by_the_spec(tmp_path: Path) -> None:
    from jupyter_cortex.core.spec import check_specs

    for path in ("../m", ".", "a/../b"):
        with pytest.raises(SpecError, match="must be a directory below the project's root"):
            check_specs(from_config(written(tmp_path / "p", "tf", path=path)).documents, ["handler.py"])
