"""What a project requires: read, told apart by a digest, locked, and installed by uv, pip, bash and conda."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from jupyter_cortex.core.errors import InstallationFailed, ProjectError, RequirementsError
from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.project import environment, provenance
from jupyter_cortex.project import project as projects
from jupyter_cortex.project.installation import layers, lock, needs, requirements, running, steps
from jupyter_cortex.project.installation.pythons import DAY_S, Abandoned, Pythons

from ..conftest import missing, wait_until
from ..wheels import make_wheel, only_from

DEPENDENCIES = {"pip": "requirements.txt", "conda": "conda-packages.txt", "shell": "dependencies.sh"}
VARIABLES = {**environment.base(), **{name: value for name, value in os.environ.items() if name.startswith("PIP_")}}


def needed(directory: Path, interpreter: str = sys.executable, **files: str) -> needs.Needs | None:
    for name, text in files.items():
        path = directory / {"sh": "dependencies.sh", "conda": "conda-packages.txt", "lock": "cortex.lock"}.get(name, "requirements.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return needs.of(directory, DEPENDENCIES, interpreter, platform.python_version())


def some(directory: Path, **files: str) -> needs.Needs:
    found = needed(directory, **files)
    assert found is not None
    return found


def said_by(program: str, code: str) -> str:
    return subprocess.run([program, "-P", "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout.strip()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    directory = tmp_path / "shelf"
    make_wheel(directory, "tinyboost", "3.4.1", "VALUE = 'tiny'", ["idna"])
    make_wheel(directory, "idna", "0.0.1", "VALUE = 'old'")
    return directory


# What is needed -----------------------------------------------------------------------------------------------------------------------------


def test_what_the_interpreter_has_needs_nothing(tmp_path: Path) -> None:
    assert needs.of(tmp_path, DEPENDENCIES, sys.executable, "3.11.0") is None
    text = "# ours\npytest>=1  # the runner\nnothing-like-it ; python_version < '3'\n--extra-index-url https://example.org\nhttpx \\\n  >=0.1\n\n"
    assert needed(tmp_path, txt=text, sh="  \n") is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("no-such-distribution>=2", "line 1: no-such-distribution>=2 is not installed"),
        ("pyyaml<1", "line 1: pyyaml<1 is wanted"),
        ("./wheels/x.whl", "line 1: ./wheels/x.whl is to be installed"),
        ("git+https://me:secret@example.org/x.git", "line 1: git+https://***@example.org/x.git is to be installed"),
        ("pytest @ https://example.org/pytest.whl", "line 1: pytest is to be installed from its address"),
        ("-e .", "line 1: -e . is to be installed"),
        ("-r more.txt", "more.txt, line 1: nested-thing is not installed"),
        ("-r gone.txt", "line 1: gone.txt cannot be read"),
    ],
)
def test_what_it_lacks_is_said_line_by_line(tmp_path: Path, line: str, why: str) -> None:
    (tmp_path / "more.txt").write_text("nested-thing\n")
    (tmp_path / "requirements.txt").write_text(f"{line}\n")
    assert str(requirements.unmet(tmp_path / "requirements.txt")[0]).startswith(why)


def test_a_line_that_nobody_could_install_is_refused_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(RequirementsError, match=r"requirements.txt cannot be installed: line 2: 'num py' is not a requirement"):
        needed(tmp_path, txt="pytest\nnum py\n")


def test_another_interpreter_is_asked_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("no-such-distribution>=2\n")
    # The same one by another name counts as another one, which is asked in a process of its own.
    names = ("python", "python3", f"python3.{sys.version_info.minor}")
    other = next(path for name in names if (path := Path(sys.executable).with_name(name)).exists() and str(path) != sys.executable)
    assert [row.why for row in requirements.ask(str(other), tmp_path / "requirements.txt")] == ["no-such-distribution>=2 is not installed"]
    assert requirements.ask(str(tmp_path / "no-python"), tmp_path / "requirements.txt") == []


def test_equal_needs_have_one_digest_wherever_the_project_lies(tmp_path: Path) -> None:
    first = some(tmp_path / "a", txt="one-thing\n\nother-thing  \n", sh="echo 1\n")
    assert first.digest == some(tmp_path / "b", txt="one-thing\r\nother-thing", sh="echo 1").digest
    assert first.digest != some(tmp_path / "c", txt="one-thing\nother-thing==2", sh="echo 1").digest
    assert first.digest != some(tmp_path / "d", txt="one-thing\nother-thing", sh="echo 2").digest
    (tmp_path / "b" / "handler.py").write_text("unnamed = True")
    assert first.digest == some(tmp_path / "b").digest
    elsewhere = needs.of(tmp_path / "a", DEPENDENCIES, "/opt/other/bin/python", "3.12.1")
    assert elsewhere is not None
    assert elsewhere.digest != first.digest


def test_files_that_the_four_name_count_with_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("more.txt", "setup.sh", "lib/thing.py", "other.py"):
        (tmp_path / name).write_text("pytest")
    before = some(tmp_path, txt="-r more.txt\n./lib\n", sh="bash setup.sh\n").digest
    (tmp_path / "other.py").write_text("changed")
    (tmp_path / "lib" / "__pycache__").mkdir()
    (tmp_path / "lib" / "__pycache__" / "x.pyc").write_text("made")
    assert some(tmp_path).digest == before
    for name in ("more.txt", "setup.sh", "lib/thing.py"):
        (tmp_path / name).write_text("httpx")
        after = some(tmp_path).digest
        assert after != before, name
        before = after


# Locking ------------------------------------------------------------------------------------------------------------------------------------


def locked(directory: Path, requires: str | None, handler: str = "") -> str:
    directory.mkdir(exist_ok=True)
    (directory / "handler.py").write_text(handler)
    if requires is not None:
        (directory / "requirements.txt").write_text(requires)
    project = projects.from_directory({"name": "x", "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}}, directory)
    specs = check_specs(project.documents, [file.path for file in project.files])
    made = lock.locked(project, specs, provenance.distributions(project.files))
    return next(file for file in made.files if file.path == "cortex.lock").read().decode()


def test_the_lock_holds_what_is_required_and_imported_with_all_that_needs_and_the_options_that_say_where(tmp_path: Path) -> None:
    text = locked(tmp_path, "--extra-index-url https://example.org\nhttpx>=0.1\n", "import yaml, os, jupyter_cortex, jinja2\n")
    pins = dict(line.split("==") for line in text.splitlines() if "==" in line)
    assert text.splitlines()[1] == "--extra-index-url https://example.org"
    for name in ("httpx", "httpcore", "h11", "anyio", "idna", "certifi", "PyYAML"):
        assert pins[name] == importlib.metadata.version(name)
    assert {"Jinja2", "jinja2"} & set(pins)
    assert {"MarkupSafe", "markupsafe"} & set(pins)
    assert not {"jupyter-cortex", "redis", "h2", "pytest"} & {name.lower() for name in pins}


def test_the_lock_holds_what_a_requirements_file_names_in_others(tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("-r more/deep.txt\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "deep.txt").write_text("--no-index\njinja2\n")
    text = locked(tmp_path, "-r base.txt\n")
    assert "jinja2==" in text.lower()
    assert "--no-index" in text
    with pytest.raises(RequirementsError, match=r"cannot read gone.txt \(requirements.txt, line 1\): no such file travels with the project"):
        locked(tmp_path, "-r gone.txt\n")
    with pytest.raises(RequirementsError, match=r"requirements.txt, line 1: -e . is a directory of this machine"):
        locked(tmp_path, "-e .\n")


@pytest.mark.parametrize(
    ("asked", "came_from", "same"),
    [
        ("git+https://github.com/x/y@v1", {"url": "https://github.com/x/y", "vcs_info": {"requested_revision": "v1", "commit_id": "abc123"}}, True),
        ("git+https://github.com/x/y@v2", {"url": "https://github.com/x/y", "vcs_info": {"requested_revision": "v1", "commit_id": "abc123"}}, False),
        ("git+https://github.com/x/y@abc1", {"url": "https://github.com/x/y", "vcs_info": {"commit_id": "abc123"}}, True),
        ("git+https://me:token@github.com/x/y", {"url": "https://github.com/x/y", "vcs_info": {"commit_id": "abc123"}}, True),
        ("git+https://github.com/x/yy", {"url": "https://github.com/x/y", "vcs_info": {"commit_id": "abc123"}}, False),
        ("git+ssh://git@github.com/x/y@v1#egg=y", {"url": "ssh://github.com/x/y", "vcs_info": {"requested_revision": "v1"}}, True),
        ("https://host/y-1.whl#sha256=0", {"url": "https://host/y-1.whl", "archive_info": {}}, True),
        ("https://host/y-1.whl", {"url": "https://github.com/x/y", "vcs_info": {"commit_id": "abc123"}}, False),
        ("file:///d/y-1.whl", {"url": "file:///d/y-1.whl"}, True),
        ("https://host/y-1.whl", {}, False),
    ],
)
def test_a_requirement_by_address_is_met_by_that_address_and_revision_alone(asked: str, came_from: dict[str, object], same: bool) -> None:
    assert requirements._is_from(asked, came_from) is same


def test_what_this_python_does_not_have_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(RequirementsError, match=r"--lock records what this Python has.*line 1: pyyaml<1 is wanted.*deploy without --lock"):
        locked(tmp_path, "pyyaml<1\n")


def test_conda_packages_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"cortex.lock holds no conda packages"):
        needed(tmp_path, lock="idna==3.4\n", conda="rtree\n")


# Installing ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_only_what_is_missing_is_installed_and_wins_over_what_lies_below(tmp_path: Path, shelf: Path, installer: str) -> None:
    base = layers.here(runtime=False)
    if installer == "uv" and not (base.uv or shutil.which("uv")):
        missing("uv is not installed: `pip install uv`")
    env = {**VARIABLES, **({"UV_NO_INDEX": "1"} if installer == "uv" else {"PIP_NO_INDEX": "1"})}
    said: list[str] = []
    found = some(tmp_path / "one", txt=only_from(shelf, "tinyboost"))
    python = Pythons(tmp_path / "pythons", 300).get(found, env, said.append)
    assert (python.kind, python.own()) == ("layered", {"tinyboost"})
    assert any(f"-m {installer}" in line or f"{installer} pip" in line for line in said)
    below = "import idna, jupyter_cortex, pytest, importlib.metadata as m; print(m.version('idna'), jupyter_cortex.__file__)"
    assert said_by(python.program, below) == said_by(sys.executable, below)
    assert said_by(python.program, "import tinyboost; print(tinyboost.VALUE)") == "tiny"
    # nbconvert's templates lie with the interpreter below.
    blank = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
    page = subprocess.run(
        [python.program, "-P", "-m", "jupyter_cortex.gateway.notebook_page"], input=blank, capture_output=True, text=True, check=True
    )
    assert "<html" in page.stdout
    # Another version than the interpreter's lies in front of that.
    python = Pythons(tmp_path / "pythons", 300).get(some(tmp_path / "two", txt=only_from(shelf, "idna<1")), env, said.append)
    assert python.own() == {"idna"}
    assert said_by(python.program, "import idna, importlib.metadata as m; print(idna.VALUE, m.version('idna'))") == "old 0.0.1"
    assert said_by(sys.executable, "import idna; print(hasattr(idna, 'VALUE'))") == "False"


def test_a_locked_one_has_what_the_lock_says_and_a_replica_s_own_needs_and_nothing_else(tmp_path: Path, shelf: Path) -> None:
    # Of the very version that the interpreter has: it must be installed all the same, or the next upgrade there would reach it.
    make_wheel(shelf, "idna", importlib.metadata.version("idna"), "VALUE = 'its own'")
    text = only_from(shelf, f"idna=={importlib.metadata.version('idna')}")
    python = Pythons(tmp_path / "pythons", 300).get(some(tmp_path / "project", lock=text, txt="no-such-thing"), VARIABLES, print)
    code = (
        "import importlib.util as u, importlib.metadata as m, json, idna, jupyter_cortex.serving.replica\n"
        "asked = ('papermill', 'pytest', 'hypothesis', 'sklearn', 'uv')\n"
        "print(json.dumps([idna.VALUE, m.version('redis'), [name for name in asked if u.find_spec(name)]]))"
    )
    assert json.loads(said_by(python.program, code)) == ["its own", importlib.metadata.version("redis"), ["papermill"]]
    assert python.kind == "locked"


def test_dependencies_sh_runs_in_the_project_with_the_python_s_programs_first(tmp_path: Path, shelf: Path) -> None:
    script = f"pwd\ncat note.txt\ncommand -v python\npip install --quiet --no-index --find-links {shelf} 'idna<1'\n"
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "note.txt").write_text("a note\n")
    said: list[str] = []
    python = Pythons(tmp_path / "pythons", 300).get(some(tmp_path / "project", sh=script), VARIABLES, said.append)
    assert [str(tmp_path / "project"), "a note", python.program] == [line for line in said if not line.startswith("$")][:3]
    assert python.own() == {"idna"}
    assert (python.prefix.parent / "build.log").read_text().splitlines() == said


def test_a_script_that_fails_says_its_last_lines_and_leaves_nothing(tmp_path: Path) -> None:
    script = "for i in $(seq 100); do echo line $i; done\necho from https://me:hunter22@example.org/simple\nfalse\necho never\n"
    pythons = Pythons(tmp_path / "pythons", 300)
    with pytest.raises(InstallationFailed, match=r"dependencies.sh failed \(exit status 1\)") as refused:
        pythons.get(some(tmp_path / "project", sh=script), VARIABLES, lambda line: None)
    assert refused.value.details["logs"][-2:] == ["line 100", "from https://***@example.org/simple"]
    assert len(refused.value.details["logs"]) == running.LAST_LINES
    assert pythons.users() == {}


def test_what_takes_too_long_is_stopped_and_the_setting_named(tmp_path: Path) -> None:
    with pytest.raises(InstallationFailed, match=r"did not end within 3 s and was stopped; JUPYTER_CORTEX_INSTALL_TIMEOUT"):
        Pythons(tmp_path / "pythons", 3).get(some(tmp_path / "project", sh="sleep 1000\n"), VARIABLES, print)


def test_what_prints_without_end_is_stopped_as_well_and_its_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_cortex.project.installation.pythons.LOG_BYTES", 1000)
    log = tmp_path / "pythons" / (found := some(tmp_path / "project", sh="yes please answer y or n\n")).digest / "build.log"
    sizes: set[int] = set()
    with pytest.raises(InstallationFailed, match="did not end within 3 s"):
        Pythons(tmp_path / "pythons", 3).get(found, VARIABLES, lambda line: sizes.add(log.stat().st_size) if len(sizes) < 100 else None)
    assert max(sizes) < 1000 + 100


def test_what_a_script_leaves_behind_that_prints_without_end_is_not_waited_for(tmp_path: Path) -> None:
    python = Pythons(tmp_path / "pythons", 300).get(some(tmp_path / "project", sh="yes &\n"), VARIABLES, lambda line: None)
    assert python.fresh


def test_a_project_s_own_modules_are_none_of_the_installers(tmp_path: Path, shelf: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("logging", "types", "json"):
        (project / f"{name}.py").write_text("raise RuntimeError('the author's code')\n")
    script = f"pip install --quiet --no-index --find-links {shelf} 'idna<1'\n"
    python = Pythons(tmp_path / "pythons", 300).get(some(project, sh=script, txt=only_from(shelf, "tinyboost")), VARIABLES, lambda line: None)
    assert {"idna", "tinyboost"} <= python.own()


def test_who_waits_for_another_s_installation_gets_it_and_it_is_made_once(tmp_path: Path) -> None:
    found = some(tmp_path / "project", sh=f"echo ran >> {tmp_path}/ran\nwhile [ ! -f {tmp_path}/go ]; do sleep 0.05; done\n")
    said: list[str] = []
    got: list[str] = []
    first = Thread(target=lambda: got.append(Pythons(tmp_path / "pythons", 60).get(found, VARIABLES, lambda line: None, user="a-v1").digest))
    first.start()
    wait_until(lambda: (tmp_path / "ran").exists(), "the script runs")
    second = Thread(target=lambda: got.append(Pythons(tmp_path / "pythons", 60).get(found, VARIABLES, said.append, user="b-v7").digest))
    second.start()
    wait_until(lambda: said, "the second waits")
    abandon = Event()
    abandon.set()
    with pytest.raises(Abandoned):
        Pythons(tmp_path / "pythons", 60).get(found, VARIABLES, print, abandon)
    (tmp_path / "go").touch()
    first.join()
    second.join()
    assert said == ["somebody else installs the same already; waiting for that"]
    assert got == [found.digest] * 2
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert Pythons(tmp_path / "pythons", 60).users() == {found.digest: {"a-v1", "b-v7"}}


def test_nobody_begins_anew_beside_what_a_killed_process_has_left_running(tmp_path: Path) -> None:
    found = some(tmp_path / "project", sh=f"echo ran >> {tmp_path}/ran\nwhile [ ! -f {tmp_path}/go ]; do sleep 0.05; done\n")
    code = (
        "import platform, sys; from pathlib import Path\n"
        "from jupyter_cortex.project import environment; from jupyter_cortex.project.installation import needs, pythons\n"
        f"found = needs.of(Path({str(tmp_path / 'project')!r}), {DEPENDENCIES!r}, sys.executable, platform.python_version())\n"
        f"pythons.Pythons(Path({str(tmp_path / 'pythons')!r}), 60).get(found, environment.base(), print)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    wait_until((tmp_path / "ran").exists, "the script runs")
    killed.kill()
    killed.wait()
    said: list[str] = []
    next_one = Thread(target=lambda: Pythons(tmp_path / "pythons", 60).get(found, VARIABLES, said.append))
    next_one.start()
    wait_until(lambda: said, "the next one has begun")
    assert said == ["somebody else installs the same already; waiting for that"]
    (tmp_path / "go").touch()
    next_one.join()
    assert (tmp_path / "ran").read_text() == "ran\nran\n"


def test_half_of_one_is_none_and_is_made_anew(tmp_path: Path) -> None:
    pythons = Pythons(tmp_path / "pythons", 60)
    found = some(tmp_path / "project", sh="true\n")
    half = tmp_path / "pythons" / found.digest / "python" / "bin"
    half.mkdir(parents=True)
    (half / "python").write_text("half")
    assert pythons.find(found) is None
    assert said_by(pythons.get(found, VARIABLES, lambda line: None).program, "print('whole')") == "whole"


def test_what_no_version_keeps_goes_after_a_day_and_not_before(tmp_path: Path) -> None:
    pythons = Pythons(tmp_path / "pythons", 60)
    for digest, users in (("kept", ["a-v1", "b-v2"]), ("old", ["a-v0"]), ("checked", [])):
        (tmp_path / "pythons" / digest / "users").mkdir(parents=True)
        (tmp_path / "pythons" / digest / "complete.json").write_text("{}")
        for user in users:
            (tmp_path / "pythons" / digest / "users" / user).touch()
    now = (tmp_path / "pythons" / "old" / "complete.json").stat().st_mtime
    assert pythons.prune({"b-v2"}, now + DAY_S / 2) == []
    assert pythons.prune(None, now + 2 * DAY_S) == ["checked"]
    assert pythons.prune({"b-v2"}, now + 2 * DAY_S) == ["old"]
    assert set(pythons.users()) == {"kept"}


# conda --------------------------------------------------------------------------------------------------------------------------------------


def test_conda_packages_come_with_micromamba_into_a_prefix_below_which_the_interpreter_s_packages_lie(tmp_path: Path, shelf: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    fake = programs / "micromamba"
    # It notes what it was asked, and makes a prefix as the real one would: with a Python in bin/.
    fake.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncp "$6" {tmp_path}/specs\necho "Transaction finished"\n'
        f'{sys.executable} -m venv --without-pip "$4"\n'
    )
    fake.chmod(0o755)
    found = some(tmp_path / "project", conda="# for maps\nconda-forge::rtree==1.0\n", txt=only_from(shelf, "tinyboost"))
    said: list[str] = []
    env = {**VARIABLES, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    python = Pythons(tmp_path / "pythons", 300).get(found, env, said.append)
    assert python.kind == "conda"
    assert (tmp_path / "asked").read_text().split()[:5] == ["create", "--yes", "--prefix", str(python.prefix), "--file"]
    assert (tmp_path / "asked").read_text().endswith(" --channel conda-forge\n")
    assert (tmp_path / "specs").read_text() == f"conda-forge::rtree==1.0\npython={sys.version_info.major}.{sys.version_info.minor}\n"
    assert "Transaction finished" in said
    assert said_by(python.program, "import tinyboost, pytest; print(tinyboost.VALUE)") == "tiny"


@pytest.mark.parametrize("explicit", [False, True])
def test_dependencies_sh_comes_before_conda_s_packages_and_these_before_pip_s(tmp_path: Path, shelf: Path, explicit: bool) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    fake = programs / "mamba"
    # Like the real ones it has a pip of its own in what it installs beyond Python.
    fake.write_text(
        f'#!/bin/sh\necho "$1" $(cat "$6") >> {tmp_path}/did\n[ "$1" = install ] || {sys.executable} -m venv --without-pip "$4"\n'
        '[ "$1" = create ] || { [ ! -e "$4/bin/pip" ] && echo "#!/bin/sh" > "$4/bin/pip"; }\n'
    )
    fake.chmod(0o755)
    script = f"echo shell $(python -c 'import sys; print(sys.prefix)') $(pip --version | cut -c1-3) >> {tmp_path}/did\n"
    packages = "@EXPLICIT\nhttps://mirror.example/rtree.conda\n" if explicit else "rtree\npython >=3.3\n"
    found = some(tmp_path / "project", conda=packages, sh=script, txt=only_from(shelf, "tinyboost"))
    env = {**VARIABLES, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    python = Pythons(tmp_path / "pythons", 300).get(found, env, lambda line: None)
    ours = f"python={sys.version_info.major}.{sys.version_info.minor}"
    created = "@EXPLICIT https://mirror.example/rtree.conda" if explicit else f"python >=3.3 {ours}"
    expected = [f"create {created}", f"shell {python.prefix} pip", *([] if explicit else [f"install rtree python >=3.3 {ours}"])]
    assert (tmp_path / "did").read_text().splitlines() == expected
    assert said_by(python.program, "import tinyboost; print(tinyboost.VALUE)") == "tiny"


def test_without_conda_its_packages_are_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(RequirementsError, match=r"neither micromamba nor mamba nor conda is on PATH here: install one of them, or move"):
        steps.check_conda("conda-packages.txt", {"PATH": str(tmp_path / "nothing")})


@pytest.mark.parametrize(
    ("line", "refused"), [("python=2.7", True), ("conda-forge::python==3.3", True), ("python>=3.3", False), ("python-dateutil=2.8", False)]
)
def test_another_python_than_the_interpreter_s_is_refused(line: str, refused: bool) -> None:
    ours = platform.python_version().rpartition(".")[0]
    if refused:
        with pytest.raises(RequirementsError, match=f"replicas run on Python {ours}"):
            steps._with_python(f"{line}\n", ours, "conda-packages.txt")
    else:
        assert f"python={ours}" in steps._with_python(f"{line}\n", ours, "conda-packages.txt").split("\n")


def test_installers_get_their_variables_and_not_the_shell_s_environment() -> None:
    variables = {"PIP_INDEX_URL": "x", "UV_INDEX": "y", "CONDA_PREFIX": "/c", "PIP_TARGET": "/t", "CONDA_SSL_VERIFY": "no", "SECRET": "z"}
    assert environment.installers(variables) == {"PIP_INDEX_URL": "x", "UV_INDEX": "y", "CONDA_SSL_VERIFY": "no"}
