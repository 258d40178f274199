"""The gate: before a deploy, the bundle is imported, ``Handler(config)`` constructed and every sample run, in a clean process.

It catches hidden state of a kernel, missing imports and files, results that are no JSON, and samples whose result has changed. Where the project
requires what this interpreter does not have, the process runs on the Python that production will have: that is made first, and the worker finds it.
What the gate did is a notebook, which papermill executed and which is kept as the deployment's report.
"""

from __future__ import annotations

import base64
import contextlib
import json
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.checks import is_portable
from ..core.errors import CortexError, GateFailed, ProjectError
from ..core.readers import printable
from ..core.spec import APISpec
from ..handler import masking
from . import artifacts, dotenv, environment, gate_watch
from .files import ENV_FILE
from .gate_report import MAX_REPORT_BYTES, Masking, check_notebook, finished
from .gate_watch import Heard
from .installation import needs as needed
from .installation.pythons import Python, Pythons, masked_progress
from .project import Project
from .samples import Sample

__all__ = ["MAX_REPORT_BYTES", "Passed", "run"]

#: Details of a refusal that are our own words and numbers; everything else may hold a value of .env.
_OWN = frozenset({"kind", "stage", "line"})


@dataclass(frozen=True)
class Passed:
    """``report``: the executed check notebook (ipynb). ``samples``: how many ran."""

    report: bytes
    samples: list[str] = field(default_factory=list)


def run(
    project: Project, spec: APISpec, samples: list[Sample], progress: Callable[[str], None] = lambda step: None, pythons: Pythons | None = None
) -> Passed:
    """Check one API of a project. Raises GateFailed with ``report`` (the executed notebook's text), ``traceback`` and ``step`` in its details,
    ProjectError and EnvFileError for files that cannot be used, InstallationFailed and RequirementsError for what it requires.

    ``pythons``: where what it requires is installed; without it, this interpreter has to have it.

    However it ends, an interrupt included, the process and what the author's code started in it end as well.
    """
    directory = Path(tempfile.mkdtemp(prefix="cortex-check-"))
    try:
        _lay_out(project, directory)
        env, secrets = environment.for_replica(spec.resolved(), env_text(project), directory / "project", [spec.name])
        _write_job(spec, samples, secrets, directory)
        masks = Masking(secrets)
        python = _python(spec, directory / "project", env, secrets, progress, pythons)
        if python is not None:
            progress(f"checking on its own Python ({python.kind}, {python.digest})")
            env = python.environ(env)
        heard = gate_watch.run(env, directory, progress, python.program if python else sys.executable)
        path = directory / "report.ipynb"
        report = finished(path.read_bytes(), masks) if path.is_file() else b""
        if heard.last.get("ended") == "passed":
            return Passed(report, [sample.name for sample in samples])
        raise _failed(heard, report, masks)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _python(
    spec: APISpec, laid_out: Path, env: dict[str, str], secrets: list[str], progress: Callable[[str], None], pythons: Pythons | None
) -> Python | None:
    dependencies = {"pip": spec.handler.dependencies.pip, "conda": spec.handler.dependencies.conda, "shell": spec.handler.dependencies.shell}
    needs = needed.of(laid_out, dependencies, sys.executable, platform.python_version()) if pythons else None
    if needs is None or pythons is None:
        return None
    masking.mask(secrets)
    return pythons.get(needs, {**environment.installers(), **env}, masked_progress(progress))


# Before it runs ------------------------------------------------------------------------------------------------------------------------------


def _lay_out(project: Project, directory: Path) -> None:
    """The project as a replica will have it; artifacts are linked, everything else is written. Raises ProjectError, and writes nothing outside."""
    linked = project.artifact_sources()
    for path in [*(file.path for file in project.files), *project.meta, *linked]:
        if not is_portable(path):
            shown = printable(path)
            sentence = f"The path {shown} cannot travel: it must stay below the project's root; correct handler.path, or rename the file."
            raise ProjectError(sentence, kind="invalid_name", path=shown)
    (directory / "project").mkdir()
    for file in project.files:
        if not file.is_env:
            with _refusing(file.path):
                _write(directory / "project" / file.path, file.read())
    for name, content in project.meta.items():
        with _refusing(name):
            _write(directory / "meta" / name, content)
    for path, source in sorted(linked.items()):
        with _refusing(path):
            artifacts.link_into({path: source}, directory / "project")


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


@contextlib.contextmanager
def _refusing(path: str) -> Any:
    """A file that is gone since it was listed, or that cannot be copied beside the others, in one sentence."""
    try:
        yield
    except OSError as error:
        shown = printable(path)
        raise ProjectError(f"{shown} cannot be copied for the checks: {error.strerror}.", kind="unreadable", path=shown) from None


def env_text(project: Project) -> str:
    """Raises EnvFileError for a file that is no text, ProjectError for one that cannot be read."""
    found = next((file for file in project.files if file.path == ENV_FILE), None)
    if found is None:
        return ""
    with _refusing(ENV_FILE):
        data = found.read()
    dotenv.parse(data, {})
    return data.decode("utf-8-sig")


def _write_job(spec: APISpec, samples: list[Sample], secrets: list[str], directory: Path) -> None:
    """What the process works on is a file of its own: papermill copies each parameter into the report, and a report is for other readers."""
    facts = [{"sample": sample.name, "content_type": sample.content_type, "bytes": len(sample.body)} for sample in samples]
    job = {
        "parameters": {"project_dir": str(directory / "project"), "api": spec.name, "module": spec.handler.path, "samples": facts},
        "spec": spec.resolved(),
        "samples": {sample.name: _plain(sample) for sample in samples},
        "secrets": secrets,
    }
    path = directory / "job.json"
    path.touch(0o600)
    path.write_text(json.dumps(job))
    (directory / "check.ipynb").write_text(json.dumps(check_notebook(spec.name, [sample.name for sample in samples])))


def _plain(sample: Sample) -> dict[str, Any]:
    return {"content_type": sample.content_type, "body": base64.b64encode(sample.body).decode(), "expected": sample.expected}


# After it ran --------------------------------------------------------------------------------------------------------------------------------


def _failed(heard: Heard, report: bytes, masks: Masking) -> CortexError:
    ended = heard.last
    step = masks.text(str(ended.get("name") or "the start"))
    if "ended" in ended:
        details = ended.get("details") or {}
        kept = {key: details[key] for key in ("kind", "stage", "line", "sample", "result", "traceback") if key in details}
        shown = {key: value if key in _OWN else masks.value(value) for key, value in kept.items()}
        return GateFailed(masks.text(str(ended["message"])), step=step, report=report.decode() or None, **shown)
    why = f"exit status {heard.code}"
    if heard.code < 0:
        why = f"killed by {signal.Signals(-heard.code).name if -heard.code in set(signal.Signals) else f'signal {-heard.code}'}"
    output = heard.output.decode("utf-8", "replace")
    if "No module named 'papermill'" in output or "No module named 'jupyter_cortex'" in output:
        return GateFailed(f"this Python lacks what the checks need: {sys.executable} -m pip install jupyter-cortex", step=step)
    return GateFailed(
        f"the check ended in the middle of {step} ({why}); a handler must not exit or crash", step=step, logs=heard.lines(masks) or None
    )
