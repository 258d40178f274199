"""The gate: before a deploy, the bundle is imported, ``Handler(config)`` constructed and every sample run, in a clean process.

It catches hidden state of a kernel, missing imports and files, results that are no JSON, and samples whose result has changed. What it did is a
notebook, which papermill executed and which is kept as the deployment's report.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import CortexError, GateFailed
from ..core.spec import APISpec
from . import artifacts, dotenv, environment
from .files import ENV_FILE
from .project import Project
from .samples import Sample

#: Bytes of the report that are kept; a longer one loses its outputs.
MAX_REPORT_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True)
class Passed:
    """``report``: the executed check notebook (ipynb). ``samples``: how many ran."""

    report: bytes
    samples: list[str] = field(default_factory=list)


def run(project: Project, spec: APISpec, samples: list[Sample], progress: Callable[[str], None] = lambda step: None) -> Passed:
    """Check one API of a project. Raises GateFailed with ``report`` (the executed notebook's text), ``traceback`` and ``step`` in its details.

    An interrupt ends the process and passes on.
    """
    directory = Path(tempfile.mkdtemp(prefix="cortex-check-"))
    try:
        _lay_out(project, directory)
        secrets = _secrets(project, spec)
        parameters = {"project_dir": str(directory / "project"), "spec": spec.resolved(), "samples": [_plain(sample) for sample in samples]}
        (directory / "job.json").write_text(json.dumps({"parameters": parameters, "secrets": secrets}))
        (directory / "job.json").chmod(0o600)
        (directory / "check.ipynb").write_text(json.dumps(check_notebook(spec.name, [sample.name for sample in samples])))
        ended, output = _watch(_start(project, spec, directory), progress)
        report = _report(directory)
        if ended.get("ended") == "passed":
            return Passed(report, [sample.name for sample in samples])
        raise _failed(ended, output, report)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _lay_out(project: Project, directory: Path) -> None:
    """The project as a replica will have it; artifacts are linked, everything else is written."""
    for file in project.files:
        if not file.is_env:
            target = directory / "project" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read())
    artifacts.link_into(project.artifact_sources(), directory / "project")
    for name, content in project.meta.items():
        target = directory / "meta" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (directory / "project").mkdir(exist_ok=True)


def env_text(project: Project) -> str:
    found = next((file for file in project.files if file.path == ENV_FILE), None)
    return found.read().decode("utf-8-sig") if found else ""


def _secrets(project: Project, spec: APISpec) -> list[str]:
    text = env_text(project)
    return list(dotenv.parse(text.encode(), spec.handler.env).values()) if text else []


def _plain(sample: Sample) -> dict[str, Any]:
    return {
        "name": sample.name,
        "content_type": sample.content_type,
        "body": base64.b64encode(sample.body).decode(),
        "expected": sample.expected,
    }


def check_notebook(name: str, samples: list[str]) -> dict[str, Any]:
    """The notebook that papermill executes: parameters, load, one cell per sample. Raises nothing."""

    def code(source: str, identity: str, **metadata: Any) -> dict[str, Any]:
        return {"cell_type": "code", "id": identity, "metadata": metadata, "source": source, "outputs": [], "execution_count": None}

    cells: list[dict[str, Any]] = [
        {
            "cell_type": "markdown",
            "id": "title",
            "metadata": {},
            "source": f"# Checks before the deploy of `{name}`\n\nEverything below ran in a process of its own.",
        },
        code('project_dir = ""\nspec = {}\nsamples = []', "defaults", tags=["parameters"]),
        code(
            "from jupyter_cortex.project.check_cells import Checked\n\n"
            "# As a replica does: import the module, check the class, construct Handler(config).\nchecked = Checked(project_dir, spec)",
            "load",
            step="construct",
            title="import the module and construct Handler",
        ),
    ]
    for index, sample in enumerate(samples):
        cells.append(code(f"checked.run(samples[{index}])  # {sample}", f"sample-{index}", step="sample", title=f"sample {sample}"))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


@dataclass
class _Check:
    process: subprocess.Popen[bytes]
    events: int


def _start(project: Project, spec: APISpec, directory: Path) -> _Check:
    project_dir = directory / "project"
    env, _ = environment.for_replica(spec.resolved(), env_text(project), project_dir, [spec.name])
    read, write = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jupyter_cortex.project.gate_process", str(directory), str(write)],
            env=env,
            cwd=project_dir,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(write,),
            start_new_session=True,  # an interrupt in the terminal or the kernel is ours to answer
        )
    finally:
        os.close(write)
    return _Check(process, read)


def _watch(check: _Check, progress: Callable[[str], None]) -> tuple[dict[str, Any], str]:
    """Follow the events until the pipe ends. The last one, with the process's exit and the step it was in; and what it printed itself."""
    last: dict[str, Any] = {}
    try:
        with os.fdopen(check.events, "r", encoding="utf-8") as events:
            for line in events:
                last = {**last, **json.loads(line)}
                if "ended" not in last and last.get("name"):
                    progress(f"checking: {last['name']}")
        output = check.process.communicate()[0].decode("utf-8", "replace")
    except BaseException:
        check.process.kill()
        check.process.wait()
        raise
    return {**last, "exit": check.process.returncode}, output


def _report(directory: Path) -> bytes:
    path = directory / "report.ipynb"
    if not path.is_file():
        return b""
    data = path.read_bytes()
    if len(data) <= MAX_REPORT_BYTES:
        return data
    document = json.loads(data)
    for cell in document["cells"]:
        cell["outputs"] = []
    return json.dumps(document).encode()


def _failed(ended: dict[str, Any], output: str, report: bytes) -> CortexError:
    step = str(ended.get("name") or "the start")
    if "ended" in ended:
        details = ended.get("details") or {}
        kept = {key: details[key] for key in ("kind", "stage", "line", "sample", "result") if key in details}
        return GateFailed(
            str(ended["message"]), step=step, traceback=details.get("traceback"), report=report.decode("utf-8", "replace") or None, **kept
        )
    code = ended["exit"]
    why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    if "No module named 'papermill'" in output or "No module named 'jupyter_cortex'" in output:
        return GateFailed(f"this Python lacks what the checks need: {sys.executable} -m pip install jupyter-cortex", step=step)
    last = output.strip().splitlines()[-15:]
    return GateFailed(f"the check ended in the middle of {step} ({why}); a handler must not exit or crash", step=step, logs=last or None)
