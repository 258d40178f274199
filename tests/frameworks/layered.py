"""An environment for each list of requirements, layered on the interpreter that runs this: made on demand, kept, shared by equal lists."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

#: Kept between runs: torch and TensorFlow are hundreds of MB. Removed, they are made anew with what is newest then.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jupyter-cortex" / "frameworks"
BASE = Path(sysconfig.get_path("purelib"))


class CannotInstall(Exception):
    """What the installer said, in one line."""


def requirements(path: Path) -> list[str]:
    """The lines that ask for something, without comments."""
    lines = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in path.read_text("utf-8").splitlines()]
    return sorted(line for line in lines if line)


def interpreter(wanted: list[str], directory: Path, seconds: float | None) -> str:
    """The Python of an environment below ``directory`` that has what is ``wanted`` over everything this interpreter has.

    Raises CannotInstall; ``seconds`` bounds the installation. What was not finished is made anew the next time.
    """
    if not wanted:
        return sys.executable
    digest = hashlib.sha256(json.dumps([wanted, sys.version, str(BASE)]).encode()).hexdigest()[:12]
    place = directory / digest
    python, complete = place / "bin" / "python", place / "complete"
    if complete.exists():
        return str(python)
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=False, symlinks=True)
    packages = place / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    # addsitedir rather than a path: packages that are installed for editing are found through .pth files of the base.
    (packages / "base.pth").write_text(f"import site; site.addsitedir({str(BASE)!r})\n")
    _install(str(python), wanted, seconds)
    complete.write_text("\n".join(wanted) + "\n")
    return str(python)


def _install(python: str, wanted: list[str], seconds: float | None) -> None:
    if uv := shutil.which("uv"):
        argv = [uv, "pip", "install", "--quiet", "--python", python, *wanted]
    else:
        argv = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check", *wanted]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"installing {' '.join(wanted)} takes longer than the {seconds:.0f} s that are left") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["nothing"]
        said = next((line for line in lines if re.match(r"\s*(ERROR|error|×)", line)), lines[-1])
        raise CannotInstall(f"{' '.join(wanted)} cannot be installed: {said.strip()}")
