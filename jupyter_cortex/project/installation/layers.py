"""How a Python sees packages of the interpreter that it is layered on.

Its own packages come first. Behind them a layered one has all of the interpreter's; a locked one has only jupyter_cortex, which its replicas run, and
what that imports: nothing else of the interpreter's is there, so that what is missing from cortex.lock is missing at once.

``python -P -m jupyter_cortex.project.installation.layers`` answers with what an interpreter has for that (`Base`), as JSON.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ...core.errors import EnvironmentProblem

ASK_S = 60.0
#: Read last of all such files: what the Python's own packages put on the path stays in front.
_NAME = "zz_cortex_layer"


@dataclass(frozen=True)
class Base:
    """``places``: directories of packages, in their order. ``pip``, ``uv``: whether it has them. ``modules``, ``distributions``: top-level names of
    jupyter_cortex and all it imports, and the canonical names of their distributions; ``own``: the directory that jupyter_cortex lies in."""

    places: list[str]
    pip: bool
    uv: bool
    own: str
    modules: list[str]
    distributions: list[str]


def here(*, runtime: bool) -> Base:
    """This interpreter. ``runtime``: also what jupyter_cortex imports, which takes 0.3 s to find out."""
    places = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    pip, uv = (importlib.util.find_spec(name) is not None for name in ("pip", "uv"))
    modules, distributions = _runtime() if runtime else ([], [])
    own = str(Path(__file__).resolve().parents[3])
    return Base([place for place in dict.fromkeys(places) if Path(place).is_dir()], pip, uv, own, modules, distributions)


def _runtime() -> tuple[list[str], list[str]]:
    import importlib.metadata

    from packaging.requirements import Requirement

    from .lock import OURS, closure

    asked = [one for one in map(Requirement, importlib.metadata.requires(OURS) or ()) if one.marker is None or one.marker.evaluate({"extra": ""})]
    needed = {*closure(asked), OURS}
    by_module = importlib.metadata.packages_distributions()
    canonical = {name: name.lower().replace("_", "-").replace(".", "-") for names in by_module.values() for name in names}
    modules = {module for module, names in by_module.items() if any(canonical[name] in needed for name in names)}
    return sorted(modules | {"jupyter_cortex"}), sorted(needed)


def ask(interpreter: str, *, runtime: bool) -> Base:
    """Raises EnvironmentProblem when the interpreter does not answer."""
    if interpreter == sys.executable:
        return here(runtime=runtime)
    argv = [interpreter, "-P", "-m", __name__, *(["runtime"] if runtime else [])]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=ASK_S, stdin=subprocess.DEVNULL)
        return Base(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        words = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise EnvironmentProblem(f"{interpreter} cannot be layered on: {words[-1] if words else error}") from None


def write_layer(packages: Path, base: Base) -> None:
    """All of the base's packages, behind those in ``packages``. `addsitedir` reads their .pth files, too, which editable installs live by."""
    text = "".join(f"import site; site.addsitedir({place!r})\n" for place in base.places)
    (packages / f"{_NAME}.pth").write_text(text)


def write_runtime(packages: Path, base: Base) -> None:
    """Of the base's packages only jupyter_cortex and what it imports, and only where ``packages`` has no such module of its own."""
    facts = {"PLACES": [*base.places, base.own], "MODULES": base.modules, "DISTRIBUTIONS": base.distributions}
    head = "".join(f"{name} = {value!r}\n" for name, value in facts.items())
    (packages / f"{_NAME}.py").write_text(head + _FINDER)
    (packages / f"{_NAME}.pth").write_text(f"import {_NAME}\n")


@contextlib.contextmanager
def listed(packages: Path, base: Base) -> Iterator[None]:
    """While it lasts, what the base has is listed in ``packages`` as installed.

    uv asks no interpreter what it can import but reads this list; without it, it would install again, in whatever build an index has, all that a new
    package needs. What it replaces is its own afterwards; the rest is taken from the list again.
    """
    ours = "cortex-layer"
    for place in base.places:
        for info in Path(place).glob("*.dist-info"):
            there = packages / info.name
            if not (info / "METADATA").is_file() or there.exists():
                continue
            there.mkdir()
            shutil.copyfile(info / "METADATA", there / "METADATA")
            (there / "INSTALLER").write_text(ours)
            (there / "RECORD").write_text("".join(f"{info.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")))
    try:
        yield
    finally:
        for info in packages.glob("*.dist-info"):
            if (info / "INSTALLER").is_file() and (info / "INSTALLER").read_text() == ours:
                shutil.rmtree(info)


_FINDER = '''
import sys
from importlib.machinery import PathFinder


class Runtime:
    """Behind all other finders: the packages that a replica runs with, as the interpreter it is layered on has them."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, PLACES, target) if path is None and name in MODULES else None

    @staticmethod
    def find_distributions(context=None):
        from importlib.metadata import DistributionFinder, MetadataPathFinder

        name = getattr(context, "name", None)
        for one in [name] if name else DISTRIBUTIONS:
            if one.lower().replace("_", "-").replace(".", "-") in DISTRIBUTIONS:
                yield from MetadataPathFinder.find_distributions(DistributionFinder.Context(name=one, path=PLACES))


sys.meta_path.append(Runtime)
'''


def main() -> None:
    print(json.dumps(asdict(here(runtime="runtime" in sys.argv[1:]))))


if __name__ == "__main__":
    main()
