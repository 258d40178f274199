"""What an API requires, from the deploy to the replica: installed once, shared, told, failing without harm, removed when nobody needs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import DeployFailed, RequirementsError
from jupyter_cortex.operator.home import Home
from jupyter_cortex.operator.tidy import prune_pythons
from jupyter_cortex.project.installation import layers, steps
from jupyter_cortex.project.installation.needs import Needs
from jupyter_cortex.project.installation.pythons import DAY_S, Pythons
from jupyter_cortex.store.registry import Registry

from ..conftest import Environment, ProjectMaker, runs, wait_until
from ..wheels import make_wheel, only_from
from .test_lifecycle import ask

BOOSTED = """
import sys
import tinyboost

class Handler:
    def handle_async(self):
        return {"value": tinyboost.VALUE, "python": sys.executable, "path": __import__("os").environ["PATH"]}
"""
PLAIN = """
import sys

class Handler:
    def handle_async(self):
        return {"python": sys.executable}
"""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shelf")
    make_wheel(directory, "tinyboost", "3.4.1", "VALUE = 'tiny'")
    return directory


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """uv where it is, also on a machine whose pip knows of an index: what is installed here comes from no index."""
    monkeypatch.setenv("UV_NO_INDEX", "1")


def pythons(environment: Environment) -> Pythons:
    return Pythons(Home(environment.home).pythons, 300)


@pytest.mark.parametrize(
    ("pip", "uv", "means"), [(True, True, "-m pip --python"), (False, True, "-m uv pip"), (False, False, "has no pip, and there is no uv on PATH")]
)
def test_pip_in_a_script_means_the_new_python_or_refuses(tmp_path: Path, pip: bool, uv: bool, means: str) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    base = replace(layers.ask(sys.executable, runtime=False), pip=pip, uv=uv)
    steps._write_pip(
        python, base, Needs(tmp_path, sys.executable, "3.11", pip="", conda="", shell="dependencies.sh", lock="", digest=""), {"PATH": "/nowhere"}
    )
    said = (tmp_path / "bin" / "pip").read_text()
    assert means in said
    if pip or uv:
        assert f'--python "{python}"' in said
    else:
        assert subprocess.run([tmp_path / "bin" / "pip", "install", "x"], check=False, stderr=subprocess.DEVNULL).returncode == 1


def running_on(environment: Environment, name: str) -> list[dict[str, Any]]:
    return [worker["python"] for worker in environment.client().get_api(name)["workers"].values()]


def log(environment: Environment, name: str) -> str:
    return environment.cortex("logs", name, "-n", "1000").stdout


def test_two_apis_that_require_the_same_share_one_python_which_is_made_once(environment: Environment, project: ProjectMaker, shelf: Path) -> None:
    files = {"requirements.txt": only_from(shelf, "tinyboost>=3"), "dependencies.sh": f"echo made >> {shelf}/made\n"}
    steps: list[str] = []
    with ThreadPoolExecutor() as both:
        for done in [
            both.submit(project(name, BOOSTED, files=files).deploy, environment, progress=steps.append) for name in ("shares-one", "shares-two")
        ]:
            done.result()
    first, second = ask(environment, "shares-one"), ask(environment, "shares-two")
    assert first == second
    assert first["value"] == "tiny"
    assert first["python"].startswith(str(Home(environment.home).pythons))
    assert first["path"].split(":")[0] == str(Path(first["python"]).parent)
    assert (shelf / "made").read_text() == "made\n"
    digest = Path(first["python"]).parent.parent.parent.name
    assert running_on(environment, "shares-one") == running_on(environment, "shares-two") == [{"digest": digest, "kind": "layered"}]
    assert pythons(environment).users()[digest] == {"shares-one-v1", "shares-two-v1"}
    # Both deploys tell what was done, whoever did it.
    for name in ("shares-one", "shares-two"):
        wait_until(lambda name=name: "installed in" in (said := log(environment, name)) and "dependencies.sh" in said, f"{name} tells")
    assert any(step.startswith("installing: ") for step in steps)
    assert f"version 1 runs on a Python of its own (layered, {digest})" in environment.cortex("get", "shares-one").stdout


def test_a_project_whose_requirements_are_met_runs_on_the_interpreter_itself(environment: Environment, project: ProjectMaker) -> None:
    project("met", PLAIN, files={"requirements.txt": "pytest\n"}).deploy(environment)
    assert ask(environment, "met")["python"] == sys.executable
    assert running_on(environment, "met") == [{}]


def test_a_failing_install_leaves_the_old_version_live_and_says_what_the_installer_said(
    environment: Environment, project: ProjectMaker, shelf: Path
) -> None:
    project("unlucky", PLAIN).deploy(environment)
    for number, (files, said) in enumerate(
        [
            ({"requirements.txt": only_from(shelf, "no-such-distribution>=2")}, "no.such.distribution"),
            ({"dependencies.sh": "echo no compiler here >&2\nexit 3\n"}, r"dependencies.sh failed \(exit status 3\): no compiler here"),
        ],
        2,
    ):
        with pytest.raises(DeployFailed, match=rf"unlucky version {number} did not start: .*{said}") as failed:
            project("unlucky", PLAIN, files=files).deploy(environment)
        assert failed.value.details["logs"]
        assert environment.client().get_api("unlucky")["live"] == 1
        (Path(project("unlucky", PLAIN).directory) / next(iter(files))).unlink()
    assert ask(environment, "unlucky")["python"] == sys.executable
    assert "did not start, version 1 still serves" in environment.client().get_api("unlucky")["message"]
    assert "unlucky-v" not in str(pythons(environment).users())


def test_what_no_installer_and_no_machine_could_do_is_refused_before_anything_is_sent(
    environment: Environment, project: ProjectMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(RequirementsError, match=r"line 2: 'num py' is not a requirement"):
        project("misspelt", files={"requirements.txt": "pytest\nnum py\n"}).deploy(environment)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequirementsError, match=r"neither micromamba nor mamba nor conda is on PATH"):
        project("caged", files={"conda-packages.txt": "rtree\n"}).deploy(environment)
    assert not {"misspelt", "caged"} & {api["name"] for api in environment.client().list_apis()}


def test_the_checks_run_on_the_python_that_production_will_have_and_the_worker_finds_it(
    environment: Environment, project: ProjectMaker, shelf: Path
) -> None:
    files = {"requirements.txt": only_from(shelf, "tinyboost==3.4.1"), "dependencies.sh": f"echo checked >> {shelf}/checked\n"}
    sample = {"samples/one.yaml": "content_type: application/json\nbody: '{}'\n"}
    made = project("checked-on-it", BOOSTED.replace("import sys\n", "import sys, idna\n"), files={**files, **sample})
    assert "1 sample" in environment.cortex("check", cwd=made.directory).stdout
    deployed = json.loads(environment.cortex("deploy", "-o", "json", cwd=made.directory).stdout)[0]
    assert (shelf / "checked").read_text() == "checked\n"
    assert ask(environment, "checked-on-it")["value"] == "tiny"
    (note,) = deployed["warnings"]
    assert note.startswith("`idna` is imported but not in requirements.txt; this Python has 3.")
    assert note.endswith("— add it?")
    wait_until(lambda: "which was there; when it was made:" in log(environment, "checked-on-it"), "the log tells")


def test_a_locked_version_runs_with_what_the_kernel_had_and_without_the_rest_of_it(
    environment: Environment, project: ProjectMaker, tmp_path: Path
) -> None:
    import dill

    shelf = tmp_path / "shelf"
    make_wheel(shelf, "dill", dill.__version__, "VALUE = 'of its own'")
    handler = """
        import dill, importlib.util
        class Handler:
            def handle_async(self):
                return {"dill": dill.VALUE, "rest": [name for name in ("pytest", "sklearn") if importlib.util.find_spec(name)]}
    """
    sample = "content_type: application/json\nbody: '{}'\nexpected: {dill: of its own, rest: []}\n"
    made = project("locked", handler, files={"requirements.txt": only_from(shelf), "samples/one.yaml": sample})
    environment.cortex("deploy", "--lock", cwd=made.directory)
    assert ask(environment, "locked") == {"dill": "of its own", "rest": []}
    assert [python["kind"] for python in running_on(environment, "locked")] == ["locked"]
    assert environment.client().get_api("locked")["drift"] == {}
    # The lock is a part of the version: a refresh has it too.
    environment.client().refresh("locked")
    assert ask(environment, "locked")["dill"] == "of its own"
    assert not (made.directory / "cortex.lock").exists()


def test_what_no_version_needs_is_removed_and_made_again_for_a_rollback(environment: Environment, project: ProjectMaker, shelf: Path) -> None:
    count = shelf / "rolled"
    for version in ("one", "two", "three"):
        project("rolled", PLAIN, files={"dependencies.sh": f"echo {version} >> {count}\n"}).deploy(environment)
    client, registry = environment.client(), Registry(environment.redis())
    wait_until(lambda: registry.active("rolled") == [3], "only the third runs")
    by_user = {user: digest for digest, users in pythons(environment).users().items() for user in users}
    removed = prune_pythons(registry, pythons(environment), time.time() + 2 * DAY_S)
    assert by_user["rolled-v1"] in removed
    # What runs, and what a rollback without a number brings back.
    assert not {by_user["rolled-v2"], by_user["rolled-v3"]} & set(removed)
    client.rollback("rolled")
    assert count.read_text().split() == ["one", "two", "three"]
    client.rollback("rolled", 1)
    assert count.read_text().split() == ["one", "two", "three", "one"]
    assert ask(environment, "rolled")["python"].startswith(str(Home(environment.home).pythons / by_user["rolled-v1"]))


def test_a_worker_that_is_killed_in_the_middle_leaves_nothing_half_and_the_next_one_begins_anew(
    environment: Environment, project: ProjectMaker, tmp_path: Path
) -> None:
    script = f"echo ran >> {tmp_path}/ran\nwhile [ ! -f {tmp_path}/go ]; do sleep 0.05; done\n"
    deployed = project("killed-midway", PLAIN, files={"dependencies.sh": script}).deploy(environment, wait=False)
    client = environment.client()
    wait_until((tmp_path / "ran").exists, "the script runs")
    wait_until(lambda: "dependencies.sh" in client.deployment("killed-midway", 1)["installing"], "it is told")
    assert client.get_api("killed-midway")["message"].startswith("installing: ")
    pid = environment.slot("worker-killed-midway-1").pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: environment.slot("worker-killed-midway-1").pid() not in (None, pid), "another worker is there")
    # What its predecessor has left running is ended, so that it need not wait for that.
    wait_until(lambda: (tmp_path / "ran").read_text() == "ran\nran\n", "it begins anew")
    (tmp_path / "go").touch()
    client.wait_live("killed-midway", deployed.version)
    assert (tmp_path / "ran").read_text() == "ran\nran\n"
    assert ask(environment, "killed-midway")["python"].startswith(str(Home(environment.home).pythons))


def installing(environment: Environment, project: ProjectMaker, name: str, directory: Path) -> int:
    """A version whose dependencies.sh does not end, neither by itself nor for a SIGTERM; its process id."""
    pid = directory / "pid"
    script = f"trap '' TERM\necho $$ > {pid}.part\nmv {pid}.part {pid}\nsleep 1000\n"
    project(name, PLAIN, files={"dependencies.sh": script}).deploy(environment, wait=False)
    wait_until(pid.exists, "the script runs")
    return int(pid.read_text())


def test_deleting_an_api_ends_what_installs_for_it(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    script = installing(environment, project, "abandoned", tmp_path)
    environment.client().delete("abandoned")
    wait_until(lambda: not runs(script), "the script has ended")


def test_what_a_killed_worker_of_a_deleted_api_was_installing_is_ended(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    script = installing(environment, project, "orphaned", tmp_path)
    pid = environment.slot("worker-orphaned-1").pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    environment.client().delete("orphaned")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(script), "the script has ended")
