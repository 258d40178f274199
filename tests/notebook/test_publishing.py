"""From a saved notebook to a published API through the shell: what is sliced, checked, sent along, refused, and kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import Conflict, NotebookError
from jupyter_cortex.project import from_notebook
from jupyter_cortex.project.notebook.cells import read

from ..conftest import Environment, wait_until
from .conftest import write_notebook

HANDLER = "class Handler:\n    def handle_async(self, payload):\n        return {'got': payload}"


def published(environment: Environment, path: Path, *arguments: str) -> list[dict[str, Any]]:
    return json.loads(environment.cortex("deploy", str(path), "-o", "json", *arguments, cwd=path.parent).stdout)


def answer(environment: Environment, name: str, payload: Any, content_type: str | None = None) -> Any:
    client = environment.client()
    return client.result(name, client.submit(name, payload, content_type), wait=60)


def refusal(environment: Environment, *arguments: str, cwd: Path) -> str:
    done = environment.cortex(*arguments, cwd=cwd, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'Traceback (most recent call last):\n  File "/' not in done.stderr
    return done.stderr


# The way of one notebook -----------------------------------------------------------------------------------------------------------------


def test_a_notebook_is_published_under_its_own_name_and_again_when_it_changed(environment: Environment, tmp_path: Path) -> None:
    path = write_notebook(
        tmp_path / "My Flowers (2).ipynb",
        "FACTOR = 2",
        "scratch = 1 / 1",
        "class Handler:\n    def handle_async(self, payload):\n        return {'y': payload * FACTOR}",
    )
    row = published(environment, path)[0]
    assert (row["api"]["name"], row["outcome"]) == ("my-flowers-2", "created")
    assert answer(environment, "my-flowers-2", 21).result == {"y": 42}
    assert published(environment, path)[0]["outcome"] == "up_to_date"
    write_notebook(
        path,
        "# a comment above\nimport math  # not needed",
        "FACTOR = 2",
        "class Handler:\n    def handle_async(self, payload):\n        return {'y': payload * FACTOR}",
    )
    assert published(environment, path)[0]["outcome"] == "up_to_date", "cells that the slice does not take change nothing"
    write_notebook(path, "FACTOR = 3", "class Handler:\n    def handle_async(self, payload):\n        return {'y': payload * FACTOR}")
    assert published(environment, path)[0]["outcome"] == "updating"
    assert answer(environment, "my-flowers-2", 14).result == {"y": 42}


def test_the_name_and_the_config_can_be_given(environment: Environment, tmp_path: Path) -> None:
    path = write_notebook(
        tmp_path / "n.ipynb",
        "class Handler:\n    def __init__(self, config):\n        self.config = config\n    def handle_async(self):\n        return self.config",
    )
    published(environment, path, "--name", "given-name", "--config", "rate=0.5", "--config", "names=[a, b]")
    assert answer(environment, "given-name", "x").result == {"rate": 0.5, "names": ["a", "b"]}


def test_a_cortex_yaml_beside_the_notebook_says_how(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "cortex.yaml").write_text(
        "- name: with-yaml\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: app/main.py\n    config: {greeting: hi}\n    env: {MODE: quick}\n"
        "- name: another\n  kind: AsyncAPI\n  handler: {type: python, path: other.py}\n"
    )
    (tmp_path / "values.json").write_text('{"a": 1}')
    (tmp_path / "other.py").write_text(HANDLER)
    path = write_notebook(
        tmp_path / "n.ipynb",
        "import json, os\nclass Handler:\n    def __init__(self, config):\n        self.config = config\n    def handle_async(self):\n"
        "        return {'config': self.config, 'mode': os.environ['MODE'], 'values': json.load(open('values.json')), 'files': sorted(os.listdir('.'))}",
    )
    assert "say which one" in refusal(environment, "deploy", "n.ipynb", cwd=tmp_path)
    assert "with-yaml, another" in refusal(environment, "deploy", "n.ipynb", "--name", "third", cwd=tmp_path)
    published(environment, path, "--name", "with-yaml")
    result = answer(environment, "with-yaml", "x").result
    assert result == {"config": {"greeting": "hi"}, "mode": "quick", "values": {"a": 1}, "files": ["app", "other.py", "values.json"]}


def test_without_a_cortex_yaml_only_what_is_needed_travels(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook in a home directory, beside files that no bundle could hold."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with (tmp_path / "huge.bin").open("wb") as huge:
        huge.truncate(5 * 1024**3)
    (tmp_path / "private.txt").write_text("mine")
    (tmp_path / "helpers.py").write_text("from inner import deep\ndef words(text):\n    return deep(text).split()\n")
    (tmp_path / "inner.py").write_text("def deep(text):\n    return text.lower()\n")
    (tmp_path / "stop.txt").write_text("the\na\n")
    path = write_notebook(
        tmp_path / "home.ipynb",
        "import os\nfrom pathlib import Path\nfrom helpers import words\nSTOP = set(Path('stop.txt').read_text().split())",
        "class Handler:\n    def handle_async(self, payload):\n        return {'words': [w for w in words(payload) if w not in STOP], 'files': sorted(set(os.listdir('.')) - {'__pycache__'})}",
    )
    row = published(environment, path, "--name", "from-home")[0]
    assert sorted(file["path"] for file in row["travels"]) == ["handler.py", "helpers.py", "inner.py", "stop.txt"]
    assert answer(environment, "from-home", "The A quick fox", "text/plain").result == {
        "words": ["quick", "fox"],
        "files": ["handler.py", "helpers.py", "inner.py", "stop.txt"],
    }


def test_what_requirements_name_travels_and_counts_as_declared(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "requirements.txt").write_text("-r deep/base.txt\n-c ../outside.txt\n-c bounds.txt\n")
    (tmp_path / "bounds.txt").write_text("redis<9\n")  # bounds it, and does not bring it
    (tmp_path / "deep" / "base.txt").write_text("numpy\n--requirement more.txt\n")
    (tmp_path / "deep" / "more.txt").write_text("-r base.txt\nhttpx\n")
    (tmp_path / "conda-packages.txt").write_text("conda-forge::pyyaml=6\n# a remark\n")
    source = (
        "import httpx, numpy, redis, yaml\nclass Handler:\n    def handle_async(self):\n        return [str(m) for m in (httpx, numpy, redis, yaml)]"
    )
    path = write_notebook(tmp_path / "n.ipynb", source)
    built = from_notebook.build(read(path), tmp_path)
    assert [row.message for row in built.surprises] == ["`redis` is imported but not in requirements.txt"]
    required = ["requirements.txt", "conda-packages.txt", "deep/base.txt", "deep/more.txt", "bounds.txt"]
    assert [file.path for file in built.travels] == ["handler.py", *required]
    (tmp_path / "cortex.lock").write_text("redis==5.0\n")
    assert not from_notebook.build(read(path), tmp_path).surprises


def test_a_large_named_file_travels_as_an_artifact_by_itself(environment: Environment, tmp_path: Path) -> None:
    with (tmp_path / "weights.bin").open("wb") as weights:
        weights.write(b"\x01")
        weights.truncate(40 * 1024**2)
    path = write_notebook(
        tmp_path / "n.ipynb",
        "class Handler:\n    def __init__(self, config):\n        self.size = len(open('weights.bin', 'rb').read())\n    def handle_async(self):\n        return {'size': self.size}",
    )
    row = published(environment, path, "--name", "heavy")[0]
    assert any("artifact" in file["why"] for file in row["travels"])
    assert answer(environment, "heavy", "x").result == {"size": 40 * 1024**2}


def test_dotenv_beside_the_notebook_travels_apart_and_is_in_no_listing(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY_PHRASE=sesame-open-1\n")
    path = write_notebook(
        tmp_path / "n.ipynb", "import os\nclass Handler:\n    def handle_async(self):\n        return {'has': 'KEY_PHRASE' in os.environ}"
    )
    done = environment.cortex("deploy", str(path), "--name", "with-env", cwd=tmp_path)
    assert answer(environment, "with-env", "x").result == {"has": True}
    assert "sesame-open-1" not in done.stdout + done.stderr + json.dumps(environment.client().get_api("with-env"))
    assert "sesame-open-1" not in environment.client().report("with-env", 1).decode()


def test_show_tells_the_difference_to_what_is_live(environment: Environment, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "n.ipynb", "WORD = 'one'", HANDLER.replace("payload}", "WORD}"))
    published(environment, path, "--name", "differs")
    same = json.loads(environment.cortex("show", str(path), "--name", "differs", "-o", "json", cwd=tmp_path).stdout)
    assert same["live"] == {"version": 1, "diff": [], "keeps_payloads": False}
    write_notebook(path, "WORD = 'two'", HANDLER.replace("payload}", "WORD}"))
    changed = json.loads(environment.cortex("show", str(path), "--name", "differs", "-o", "json", cwd=tmp_path).stdout)
    assert "-WORD = 'one'" in changed["live"]["diff"]
    assert "+WORD = 'two'" in changed["live"]["diff"]
    screen = environment.cortex("show", str(path), "--name", "differs", cwd=tmp_path).stdout
    assert "# cell 1: `WORD`, used in Handler.handle_async" in screen


def test_a_class_of_a_notebook_is_published_from_python(environment: Environment, tmp_path: Path) -> None:
    """`deploy_async_api(handler=<class of this notebook>)`, through the slice; covered with a kernel in the chaining example."""
    path = write_notebook(tmp_path / "n.ipynb", "K = 2", "class Double:\n    def handle_async(self, payload):\n        return {'y': payload * K}")
    built = from_notebook.build(read(path), tmp_path, document={"name": "double", "kind": "AsyncAPI"}, target="Double")
    assert built.source.endswith("\nHandler = Double\n")
    environment.client().publish(built.project)
    assert answer(environment, "double", 4).result == {"y": 8}


# What is kept --------------------------------------------------------------------------------------------------------------------------------


def test_a_traceback_from_production_names_the_cell_and_its_line(environment: Environment, tmp_path: Path) -> None:
    path = write_notebook(
        tmp_path / "n.ipynb",
        "x = 1",
        "# a helper\ndef helper(value):\n    return 1 / value",
        "class Handler:\n    def handle_async(self, payload):\n        return {'y': helper(payload)}",
    )
    published(environment, path, "--name", "traced")
    client = environment.client()
    request_id = client.submit("traced", 0)
    assert client.result("traced", request_id, wait=60).status == "failed"
    details = wait_until(
        lambda: client.workload("traced", request_id).get("traceback") or json.dumps(client.workload("traced", request_id)), "it is kept"
    )
    assert "(cell 2, line 3)" in details
    assert "(cell 3, line 3)" in details


def test_the_bundle_carries_the_line_map_the_reasons_and_the_notebook_without_outputs(environment: Environment, tmp_path: Path) -> None:
    import io
    import zipfile

    from jupyter_cortex.store import keys

    path = write_notebook(tmp_path / "n.ipynb", "A = 1", HANDLER.replace("payload}", "A}"))
    document = json.loads(path.read_text())
    document["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 100_000}]
    path.write_text(json.dumps(document))
    published(environment, path, "--name", "carried")
    digest = environment.client().get_api("carried")["api_versions"][0]["digest"]
    data = environment.redis().get(keys.bundle("carried", digest))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:  # type: ignore[arg-type]
        assert sorted(archive.namelist()) == ["meta/lines.json", "meta/notebook.ipynb", "meta/reasons.json", "project/handler.py"]
        assert "xxx" not in archive.read("meta/notebook.ipynb").decode()
        assert json.loads(archive.read("meta/reasons.json"))[0]["reasons"] == ["`A`, used in Handler.handle_async"]


def test_the_executed_checks_are_kept_as_the_deployment_s_report(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "four.yaml").write_text("content_type: application/json\nbody: '4'\nexpected: {got: 4}\n")
    path = write_notebook(tmp_path / "n.ipynb", HANDLER)
    published(environment, path, "--name", "reported")
    environment.cortex("get", "reported", "--report", "checks.ipynb", cwd=tmp_path)
    text = (tmp_path / "checks.ipynb").read_text()
    assert "constructed Handler" in text
    assert "sample four" in text or "# four" in text
    assert all(not any(o["output_type"] == "error" for o in cell.get("outputs", [])) for cell in json.loads(text)["cells"])
    published(environment, path, "--name", "unchecked", "--no-check")
    assert "without checks" in refusal(environment, "get", "unchecked", "--report", "none.ipynb", cwd=tmp_path)


# Refusals ------------------------------------------------------------------------------------------------------------------------------------


def test_the_same_name_from_another_notebook_wants_take_over(environment: Environment, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for directory in (first, second):
        directory.mkdir()
        write_notebook(directory / "same.ipynb", f"WHO = {directory.name!r}", HANDLER.replace("payload}", "WHO}"))
    published(environment, first / "same.ipynb", "--name", "owned-notebook")
    assert "--take-over" in refusal(environment, "deploy", "same.ipynb", "--name", "owned-notebook", cwd=second)
    assert answer(environment, "owned-notebook", "x").result == {"got": "a"}
    published(environment, second / "same.ipynb", "--name", "owned-notebook", "--take-over")
    assert answer(environment, "owned-notebook", "x").result == {"got": "b"}
    assert Conflict.status == 409


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["x = 1"], "no cell defines a class Handler"),
        (["class Handler:\n    def handle_async(self, payload)\n        return {}"], "cell 1, line 2"),
        ([HANDLER.replace("payload}", "unknown_thing}")], "`unknown_thing`"),
        (["class Handler:\n    pass"], "cell 1, line 1"),
        (["import asyncio\nx = await asyncio.sleep(0, 1)", HANDLER.replace("payload}", "x}")], "cell 1, line 2"),
        (["files = !ls", HANDLER.replace("payload}", "files}")], "cell 1, line 1"),
        ([HANDLER.replace("payload}", "display}")], "IPython"),
        (["class Model:\n    def handle_async(self, payload):\n        return {}"], "rename it to Handler"),
    ],
)
def test_what_cannot_be_published_is_refused_with_cell_line_and_remedy(environment: Environment, tmp_path: Path, cells: list[str], said: str) -> None:
    write_notebook(tmp_path / "n.ipynb", *cells)
    before = (tmp_path / "n.ipynb").read_bytes()
    assert said in refusal(environment, "deploy", "n.ipynb", "--name", "refused-one", cwd=tmp_path)
    assert (tmp_path / "n.ipynb").read_bytes() == before, "the notebook is unharmed"
    assert "refused-one" not in [api["name"] for api in environment.client().list_apis()]


def test_a_file_that_is_no_notebook_is_named(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("not json")
    (tmp_path / "r.ipynb").write_text(json.dumps({"cells": [], "metadata": {"kernelspec": {"language": "R"}}, "nbformat": 4, "nbformat_minor": 5}))
    for name, said in (("a.ipynb", "no JSON"), ("r.ipynb", "a notebook of R"), ("none.ipynb", "no such file")):
        assert said in refusal(environment, "deploy", name, cwd=tmp_path)


def test_a_secret_in_a_cell_is_flagged_and_never_shown(environment: Environment, tmp_path: Path) -> None:
    secret = "sk-" + "a1B2" * 8
    write_notebook(tmp_path / "n.ipynb", f"api_key = {secret!r}", HANDLER.replace("payload}", "len(api_key)}"))
    done = environment.cortex("check", "n.ipynb", "--no-gate", cwd=tmp_path)
    assert "looks like a secret" in done.stdout
    assert ".env" in done.stdout
    assert secret not in done.stdout + done.stderr


def test_a_failing_check_refuses_and_the_old_version_goes_on(environment: Environment, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "n.ipynb", HANDLER)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "one.yaml").write_text("content_type: application/json\nbody: '1'\nexpected: {got: 1}\n")
    published(environment, path, "--name", "guarded")
    write_notebook(path, HANDLER.replace("payload}", "payload + 1}"))
    said = refusal(environment, "deploy", "n.ipynb", "--name", "guarded", cwd=tmp_path)
    assert "result.got was 1 and is 2" in said
    assert answer(environment, "guarded", 1).result == {"got": 1}
    published(environment, path, "--name", "guarded", "--no-check")
    assert answer(environment, "guarded", 1).result == {"got": 2}


def test_a_notebook_is_not_checked_with_the_samples_of_its_neighbour(environment: Environment, tmp_path: Path) -> None:
    """Until the neighbour is gone: what was renamed must not leave the checks unseen."""
    write_notebook(tmp_path / "n.ipynb", HANDLER)
    other = write_notebook(tmp_path / "other.ipynb", HANDLER.replace("payload}", "payload['a']}"))
    (tmp_path / "samples").mkdir()
    for name, body, notebook in (("mine", "1", "n.ipynb"), ("theirs", '{"a": 2}', "other.ipynb"), ("all", '{"a": 3}', None)):
        sample = {"content_type": "application/json", "body": body, **({"notebook": notebook} if notebook else {})}
        (tmp_path / "samples" / f"{name}.yaml").write_text(json.dumps(sample))

    def checked(notebook: str) -> list[str]:
        return json.loads(environment.cortex("check", notebook, "-o", "json", cwd=tmp_path).stdout)["samples"]

    assert checked("n.ipynb") == ["all", "mine"]
    assert checked("other.ipynb") == ["all", "theirs"]
    other.rename(tmp_path / "another.ipynb")
    assert checked("n.ipynb") == ["all", "mine", "theirs"]


def test_two_apis_may_come_from_one_notebook_at_once(environment: Environment, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "n.ipynb", HANDLER)
    for name in ("first-of-two", "second-of-two"):
        published(environment, path, "--name", name)
    assert answer(environment, "first-of-two", 1).result == answer(environment, "second-of-two", 1).result


def test_the_samples_never_reach_a_replica(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "cortex.yaml").write_text("- name: no-samples\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py}\n")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "a.yaml").write_text("content_type: text/plain\nbody: x\n")
    (tmp_path / "handler.py").write_text(
        "import os\nclass Handler:\n    def handle_async(self):\n        return {'files': sorted(os.listdir('.'))}\n"
    )
    environment.cortex("deploy", cwd=tmp_path)
    assert answer(environment, "no-samples", "x").result == {"files": ["handler.py"]}
    shutil.rmtree(tmp_path / "samples")


@pytest.mark.parametrize("path", ["/tmp/somewhere/victim.py", "../victim.py", "a//b.py", "handler.txt"])
def test_a_module_cannot_be_written_outside_of_the_project(environment: Environment, tmp_path: Path, path: str) -> None:
    directory = tmp_path / "project"
    directory.mkdir()
    (tmp_path / "victim.py").write_text("precious")
    (directory / "cortex.yaml").write_text(f"- name: escaping\n  kind: AsyncAPI\n  handler: {{type: python, path: {path}}}\n")
    write_notebook(directory / "n.ipynb", HANDLER)
    for verb in ("check", "deploy", "show"):
        assert "handler.path" in refusal(environment, verb, "n.ipynb", cwd=directory)
    assert (tmp_path / "victim.py").read_text() == "precious"


def test_a_class_is_the_one_that_was_passed_and_its_requirements_are_checked(environment: Environment) -> None:
    from jupyter_cortex.core.errors import DeployFailed, ProjectError, RequirementsError, SpecError

    class Inner:
        def handle_async(self) -> dict[str, int]:
            return {}

    client = environment.client()
    with pytest.raises(ProjectError, match="inside another class or function"):
        client.deploy_async_api({"name": "inner"}, Inner)
    from ..client.deployable import Doubler

    with pytest.raises(RequirementsError, match="'no such thing' is not a requirement"):
        client.deploy_async_api({"name": "unmet"}, Doubler, requirements=["no such thing"])
    with pytest.raises(DeployFailed, match="no-such-thing-zzz"):
        client.deploy_async_api({"name": "unmet"}, Doubler, requirements=["--no-index", "no-such-thing-zzz==1"])
    with pytest.raises(ProjectError, match="list of lines"):
        client.deploy_async_api({"name": "letters"}, Doubler, requirements="requests")  # type: ignore[arg-type]
    for spec in ({"name": "x", "handler": "text"}, {"name": "x", "handler": {"config": {1, 2}}}):
        with pytest.raises(SpecError):
            client.deploy_async_api(spec, Doubler)


def test_a_name_with_a_slash_reaches_nobody_else_s_request(environment: Environment, tmp_path: Path) -> None:
    published(environment, write_notebook(tmp_path / "n.ipynb", HANDLER), "--name", "slashed")
    done = environment.cortex("result", "slashed", "../healthz", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert environment.cortex("get", "../status", check=False).returncode == 1


def test_a_saved_notebook_loads_what_its_save_lines_wrote_and_says_when_nothing_is_there(environment: Environment, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "n.ipynb", "table = {'a': sum(range(10))}", "%cortex save table", HANDLER.replace("payload}", "table}"))
    said = environment.cortex("show", "n.ipynb", "--name", "saved-table", cwd=tmp_path).stdout
    assert "`%cortex save table` has written no file here" in said
    (tmp_path / "table.json").write_text('{"a": 45}')
    row = published(environment, path, "--name", "saved-table")[0]
    assert [file["path"] for file in row["travels"]] == ["handler.py", "table.json"]
    assert answer(environment, "saved-table", "x").result == {"got": {"a": 45}}


def test_the_requirements_beside_a_notebook_are_installed_for_check_and_deploy_and_what_cannot_be_is_said(
    environment: Environment, tmp_path: Path
) -> None:
    write_notebook(tmp_path / "n.ipynb", HANDLER)
    (tmp_path / "requirements.txt").write_text("--no-index\nno-such-package-zzz>=99\n")
    said = environment.cortex("check", "n.ipynb", "--name", "needy", cwd=tmp_path, check=False)
    assert said.returncode == 1
    assert "no-such-package-zzz" in said.stdout
    assert "no-such-package-zzz" in refusal(environment, "deploy", "n.ipynb", "--name", "needy", cwd=tmp_path)


def test_from_nothing_init_and_deploy_make_an_api(environment: Environment, tmp_path: Path) -> None:
    environment.cortex("init", "from-nothing", cwd=tmp_path)
    environment.cortex("deploy", cwd=tmp_path)
    assert answer(environment, "from-nothing", "hi", "text/plain").result == {"received": "hi"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deploy"], "deploy here.ipynb"),
        (["check"], "deploy here.ipynb"),
        (["deploy", "my-api"], "--name"),
        (["deploy", "script.py"], "neither a notebook"),
        (["deploy", "."], "deploy here.ipynb"),
    ],
)
def test_a_target_that_is_none_is_refused_with_what_is_there(environment: Environment, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "here.ipynb").write_text("{}")
    (tmp_path / "script.py").write_text("x = 1\n")
    assert said in refusal(environment, *arguments, cwd=tmp_path)


def test_refuse_lists_everything_that_is_in_the_way(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "n.ipynb", "class Handler:\n    def handle_async(self):\n        return {'a': one, 'b': two}")
    with pytest.raises(NotebookError) as caught:
        from_notebook.build(read(path), tmp_path, name="x").refuse()
    assert len(caught.value.details["all"]) == 2
