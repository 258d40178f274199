"""What was deployed, as a project that can be deployed again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ..client import Client
from ..core.errors import BadRequest
from ..project import artifacts, bundle, config_file
from ..project.from_notebook import CONFIG


def export(client: Client, name: str, version: int | None, directory: str | None) -> dict[str, Any]:
    """Write a version's files and its spec as it was deployed into a new directory (default: ``<name>-v<version>``).

    Without ``version`` the live one. `.env` is never among them: no answer of a gateway holds it; neither are artifacts. Returns
    ``{"directory", "version", "files", "missing", "message"}``. Raises BadRequest for a directory that exists or cannot be made, DeploymentNotFound.
    """
    version = version or client.get_api(name)["live"]
    if not version:
        raise BadRequest(f"{name} has no live version; name one: `cortex get {name}` lists them")
    target = Path(directory or f"{name}-v{version}").expanduser()
    if os.path.lexists(target):
        raise BadRequest(f"{target} exists already; name a new directory with --dir")
    spec, data = client.written_spec(name, version), client.bundle(name, version)
    apart = sorted(artifacts.paths_of([spec]))
    if apart:
        spec["artifacts"] = apart
    staging = target.absolute().with_name(f".{target.name}.{os.getpid()}")
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        names = bundle.unpack(data, staging)
        (staging / "project").mkdir(exist_ok=True)
        (staging / "project" / CONFIG).write_text(config_file.written([spec]), "utf-8")
        (staging / "project").rename(target)
    except OSError as error:
        raise BadRequest(f"{target} cannot be written: {error.strerror}; name another directory with --dir") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    missing = [f"{path} (an artifact)" for path in apart]
    message = f"wrote {name} version {version} to {target}: {CONFIG} and {len(names)} file{'s' * (len(names) != 1)}"
    left = f"; not among them: {', '.join([*missing, 'the .env, if it had one'])}"
    return {"directory": str(target), "version": version, "files": sorted([CONFIG, *names]), "missing": [*missing, ".env"], "message": message + left}
