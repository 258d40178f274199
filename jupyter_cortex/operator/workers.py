"""Workers as they are started and found: whoever keeps them, operator or `cortex worker`, does it in the same way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..core.settings import Settings
from ..project import environment
from ..serving import remote
from .home import Home
from .processes import Slot


def slot(run_dir: Path, api: str, version: int) -> Slot:
    return Slot(run_dir, f"worker-{api}-{version}")


def slots(run_dir: Path) -> dict[tuple[str, int], Slot]:
    """All that were ever used and not tidied away, by API and version."""
    found = {}
    for path in run_dir.glob("worker-*.lock"):
        api, _, version = path.stem.removeprefix("worker-").rpartition("-")
        if version.isdigit():
            found[api, int(version)] = Slot(run_dir, path.stem)
    return found


def facts(home: Home, settings: Settings, redis_url: str, replicas: int | None = None) -> str:
    """What a worker is told of where it runs, as JSON. ``replicas``: it keeps so many, whatever the API wants."""
    told = {
        "redis_url": redis_url,
        "run_dir": str(home.run),
        "projects_dir": str(home.projects),
        "artifacts_dir": str(home.artifacts),
        "artifacts_url": settings.artifacts,
        "limits": settings.replica_limits(),
        "pythons_dir": str(home.pythons),
        "install_timeout": settings.install_timeout,
    }
    return json.dumps(told if replicas is None else {**told, "replicas": replicas})


def environ(settings: Settings, facts: str) -> dict[str, str]:
    return {**environment.base(), **environment.installers(), **remote.environ(settings.artifacts), "JUPYTER_CORTEX_WORKER": facts}


def command(api: str, version: int) -> list[str]:
    return [sys.executable, "-P", "-m", "jupyter_cortex.serving", api, str(version)]
