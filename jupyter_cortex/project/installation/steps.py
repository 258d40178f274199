"""The commands that make a Python of what a project needs: an empty one or conda's, dependencies.sh, conda's packages, then uv or pip."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...core.errors import InstallationFailed, RequirementsError
from . import layers
from .layers import Base
from .needs import Needs
from .running import Means, activated, run

#: What can make a conda prefix, the quickest first.
CONDAS = ("micromamba", "mamba", "conda")
#: Where pip is told of other places to look in, and whether uv, which reads none of that, is told as well.
_PLACES = ("index-url", "extra-index-url", "find-links", "no-index")
_UV_PLACES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONFIG_FILE", "UV_NO_INDEX")
_PYTHON_PIN = re.compile(r"^(?:[\w.-]+::)?python\s*(?:[=<>!~ ]=?\s*)?(\d+\.\d+)?", re.IGNORECASE)


def conda(environ: Mapping[str, str] = os.environ) -> str | None:
    """The program that makes conda prefixes here, None where there is none."""
    return next((found for name in CONDAS if (found := shutil.which(name, path=environ.get("PATH")))), None)


def check_conda(path: str, environ: Mapping[str, str] = os.environ) -> str:
    """Raises RequirementsError where conda-packages.txt cannot be installed."""
    found = conda(environ)
    if found is None:
        raise RequirementsError(
            f"{path} wants conda packages, and neither micromamba nor mamba nor conda is on PATH here: install one of them, or move what it lists to "
            "requirements.txt",
            path=path,
        )
    return found


def make(needs: Needs, prefix: Path, means: Means) -> Path:
    """Make the Python at ``prefix``, which does not exist; its program.

    Raises InstallationFailed, RequirementsError, EnvironmentProblem, Abandoned.
    """
    base = layers.ask(needs.interpreter, runtime=bool(needs.lock))
    of_conda = _Conda(needs, means) if needs.conda else None
    if of_conda:
        of_conda.create(prefix, means)
    else:
        run([needs.interpreter, "-P", "-m", "venv", "--without-pip", str(prefix)], "making the Python", needs.project, means)
    python = prefix / "bin" / "python"
    packages = _packages(python, prefix)
    if not needs.lock:
        layers.write_layer(packages, base)
    pip = _write_pip(python, base, needs, means.env)
    means = Means(activated(means.env, prefix), means.tell, means.deadline, means.seconds, means.abandon, means.held)
    if needs.shell:
        run(["bash", "-e", needs.shell], needs.shell, needs.project, means)
    if of_conda and of_conda.waiting:
        if pip:  # conda may bring one of its own
            pip.unlink(missing_ok=True)
        of_conda.install(prefix, means)
        _write_pip(python, base, needs, means.env)
    if file := needs.lock or needs.pip:
        installer = _installer(needs, base, python, means.env)
        with layers.listed(packages, base) if installer.is_uv and not needs.lock else contextlib.nullcontext():
            argv = [*installer.argv, *(["--no-deps"] if needs.lock else []), "-r", file]
            run(argv, f"installing {file}", needs.project, means)
    if needs.lock:  # last: what lies below must not count as installed, or the interpreter's next upgrade would be this one's
        layers.write_runtime(packages, base)
    return python


def _packages(python: Path, prefix: Path) -> Path:
    """Where its own packages lie. Raises InstallationFailed."""
    found = Path(_said_by(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    if not found.resolve().is_relative_to(prefix.resolve()):  # whatever is written there next would be written into somebody else's
        raise InstallationFailed(f"{python} keeps its packages in {found}, outside of {prefix}")
    return found


def _said_by(python: Path, code: str) -> str:
    """What a Python that was just made prints. Raises InstallationFailed."""
    argv = [str(python), "-I", "-c", code]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallationFailed(f"{python} was made and does not run: {error}") from None


def _write_pip(python: Path, base: Base, needs: Needs, env: Mapping[str, str]) -> Path | None:
    """`pip install` in dependencies.sh must mean this Python, not the one whose pip comes next on PATH. Returns what was written."""
    pip = python.parent / "pip"
    if pip.exists():
        return None
    if base.pip:
        line = f'exec "{needs.interpreter}" -P -m pip --python "{python}" "$@"'
    elif base.uv or shutil.which("uv", path=env.get("PATH")):
        uv = f'"{needs.interpreter}" -P -m uv' if base.uv else f'"{shutil.which("uv", path=env.get("PATH"))}"'
        line = f'exec {uv} pip "$@" --python "{python}"'
    else:
        line = f"echo '{needs.interpreter} has no pip, and there is no uv on PATH: install one of them there' >&2; exit 1"
    pip.write_text(f"#!/bin/sh\n{line}\n")
    pip.chmod(0o755)
    return pip


# pip and uv ---------------------------------------------------------------------------------------------------------------------------------


class _Installer(NamedTuple):
    is_uv: bool
    argv: list[str]


def _installer(needs: Needs, base: Base, python: Path, env: Mapping[str, str]) -> _Installer:
    """uv where it is, else pip; also pip where only pip was told where to look. Raises InstallationFailed where there is neither."""
    uv = shutil.which("uv", path=env.get("PATH"))
    # -P: these run in the project, which may have a logging.py of its own.
    pip = [needs.interpreter, "-P", "-m", "pip", "--python", str(python), "install", "--no-input"]
    pip += ["--progress-bar", "off", "--disable-pip-version-check"]
    if (uv or base.uv) and not (base.pip and _only_pip_knows(env)):
        program = [uv] if uv else [needs.interpreter, "-P", "-m", "uv"]
        return _Installer(True, [*program, "pip", "install", "--no-progress", "--python", str(python)])
    if base.pip:
        return _Installer(False, pip)
    raise InstallationFailed(f"{needs.interpreter} has no pip, and there is no uv on PATH: install one of them there")


def _only_pip_knows(env: Mapping[str, str]) -> bool:
    """Whether pip's variables or files name an index or a directory of wheels, and no variable names one to uv."""
    if any(env.get(name) for name in _UV_PLACES):
        return False
    if any(env.get(f"PIP_{name.upper().replace('-', '_')}") for name in _PLACES):
        return True
    home = Path(env.get("HOME", "/"))
    files = [Path("/etc/pip.conf"), home / ".config/pip/pip.conf", home / ".pip/pip.conf", home / "Library/Application Support/pip/pip.conf"]
    files += [Path(sys.prefix) / "pip.conf", Path(env.get("PIP_CONFIG_FILE") or "/dev/null")]
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue
        if any(parser.has_option(section, name) for section in ("global", "install") for name in _PLACES):
            return True
    return False


# conda --------------------------------------------------------------------------------------------------------------------------------------


class _Conda:
    """conda-packages.txt of a project: in a prefix at once, or behind dependencies.sh in one that has its Python and nothing else.

    ``waiting``: whether its packages still are to be installed. A file of exact URLs is never parted: it may be there for want of a channel.
    """

    def __init__(self, needs: Needs, means: Means) -> None:
        self._needs, self._program = needs, check_conda(needs.conda, means.env)
        self._ours = ".".join(needs.python_version.split(".")[:2])
        self._specs = _with_python((needs.project / needs.conda).read_text("utf-8-sig", "replace"), self._ours, needs.conda)
        self.waiting = bool(needs.shell) and "@EXPLICIT" not in map(str.strip, self._specs.splitlines())

    def create(self, prefix: Path, means: Means) -> None:
        """Raises InstallationFailed, RequirementsError."""
        lines = [line for line in self._specs.splitlines() if _is_python(line)]
        self._run("create", "\n".join([*lines, ""]) if self.waiting else self._specs, prefix, means)

    def install(self, prefix: Path, means: Means) -> None:
        """The same."""
        self._run("install", self._specs, prefix, means)

    def _run(self, verb: str, content: str, prefix: Path, means: Means) -> None:
        specs, shown = prefix.with_name("conda-packages.txt"), self._needs.conda
        specs.write_text(content)
        argv = [self._program, verb, "--yes", "--prefix", str(prefix), "--file", str(specs), *_channels(self._program, means.env)]
        run(argv, "making the Python" if verb == "create" and self.waiting else f"installing {shown}", self._needs.project, means)
        python = prefix / "bin" / "python"
        if not python.exists():
            raise InstallationFailed(f"{shown} brought no Python: add python={self._ours} to it")
        brought = _said_by(python, "import sys; print('%d.%d' % sys.version_info[:2])")
        if brought != self._ours:
            raise RequirementsError(
                f"{shown} brought Python {brought}, and replicas run on Python {self._ours}, with which this is deployed: add python={self._ours} to "
                f"it, or deploy from a kernel with Python {brought}",
                path=shown,
            )


def _is_python(line: str) -> bool:
    return bool(re.match(r"^(?:[\w.-]+::)?python(?![\w.-])", line, re.IGNORECASE))


def _channels(program: str, env: Mapping[str, str]) -> list[str]:
    """micromamba knows no channel by itself; where its files or variables name none, conda-forge is meant."""
    home = Path(env.get("HOME", "/"))
    files = [home / ".condarc", home / ".mambarc", home / ".conda/.condarc", home / ".config/conda/.condarc", Path("/etc/conda/.condarc")]
    told = any(env.get(name) for name in ("CONDA_CHANNELS", "CONDARC", "MAMBARC")) or any(file.is_file() for file in files)
    return [] if told or Path(program).name != "micromamba" else ["--channel", "conda-forge"]


def _with_python(content: str, ours: str, shown: str) -> str:
    """The packages, and the Python that a replica needs. Raises RequirementsError for another one.

    The rest of jupyter_cortex's packages is the interpreter's, and compiled for its version.
    """
    lines = [line.strip() for line in content.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if "@EXPLICIT" in lines:
        return content
    pins = [found for line in lines if _is_python(line) and (found := _PYTHON_PIN.match(line))]
    for pin in pins:
        if pin[1] and pin[1] != ours and not re.search(r"[<>~!]", pin.string):
            raise RequirementsError(
                f"{shown} asks for Python {pin[1]}, and replicas run on Python {ours}, with which this is deployed: deploy from a kernel with Python "
                f"{pin[1]}, or leave python out",
                path=shown,
            )
    # Beside a range, too: of python>=3.9 a solver would take the newest.
    exact = any(pin[1] and not re.search(r"[<>~!]", pin.string) for pin in pins)
    return "\n".join([*lines, *([] if exact else [f"python={ours}"]), ""])
