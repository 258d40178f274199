"""From a target (a notebook, a config file) to what is checked, shown and published. Plain data out."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..client import Client, Deployed
from ..core.checks import NAME, NAME_LIMIT, check_name
from ..core.errors import ApiNotFound, BadRequest, CortexError, EnvironmentDown
from ..core.readers import FieldError, text
from ..core.settings import Settings
from ..core.spec import APISpec, check_specs
from ..environments import LOCAL
from ..project import config_file, from_notebook, gate, provenance, samples
from ..project import project as projects
from ..project.files import ProjectFile
from ..project.from_notebook import NotebookProject
from ..project.installation import lock as locking
from ..project.installation import steps
from ..project.installation.pythons import Pythons
from ..project.notebook.cells import code_cells
from ..project.project import Project
from . import sample_to_paste
from .door import Door

Progress = Callable[[str], None]


def is_notebook(target: str) -> bool:
    return target.endswith(".ipynb")


def is_config(target: str) -> bool:
    return target.endswith((".yaml", ".yml")) or "/" in target


def read_settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs for ``handler.config``; a value is YAML, as in cortex.yaml. Raises BadRequest."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise BadRequest(f"--config {pair!r}: write KEY=VALUE")
        found[key.strip()] = config_file.value_of(value, f"--config {key.strip()}") if value.strip() else ""
    return found


def from_target(door: Door, target: str | None, name: str | None, pairs: tuple[str, ...] = (), *, confirm: Any = None) -> NotebookProject | Project:
    """A notebook's project or a directory's. In a cell a bare word is the API's name, in a shell a config file.

    Raises NotebookError, ProjectError, SpecError, BadRequest.
    """
    config = read_settings(pairs)
    if target and is_notebook(target):
        path = Path(target).absolute()
        return from_notebook.build(door.notebook(path), path.parent, name=name, config=config, confirm=confirm)
    if door.in_cell and not (target and is_config(target)):
        own = target or name or _remembered(door)
        built = from_notebook.build(door.notebook(None), door.root(), name=own, config=config, confirm=confirm)
        with suppress(FieldError):  # what can name no API is refused later, and must not be meant from then on
            door.remember(text(check_name, longest=NAME_LIMIT)(built.name))
        return built
    if config or name:
        raise BadRequest("--config and --name are for notebooks; a project has its config in cortex.yaml")
    return projects.from_config(_config(door, target), confirm=confirm)


def _remembered(door: Door) -> str | None:
    """The API that the notebook was said to be; None where cortex.yaml has none of that name (any more)."""
    name = door.remembered()
    try:
        from_notebook.entry_of(door.root(), name)
    except CortexError:
        return None
    return name


def _config(door: Door, target: str | None) -> Path:
    """The config file that a target means: a directory's, or the file itself. Raises BadRequest naming what is there instead."""
    path = Path(target or "cortex.yaml")
    if path.is_dir():
        path = path / "cortex.yaml"
    if path.exists() and path.suffix not in (".yaml", ".yml"):
        raise BadRequest(f"{path.name} is neither a notebook (.ipynb) nor a config file (.yaml)")
    if not path.exists() and (target is None or not is_config(target)):
        there = sorted(found.name for found in Path(path.parent).glob("*.ipynb"))[:3] if path.parent.is_dir() else []
        notebook = there[0] if there else "NOTEBOOK.ipynb"
        what = (
            f"there is no {path.name} here"
            if target is None or path.name == "cortex.yaml"
            else f"{target} is no file; an API's name goes into --name"
        )
        raise BadRequest(f"{what}: `{door.command} deploy {notebook}` publishes a notebook, `{door.command} init` writes a cortex.yaml")
    return path


def shown(built: NotebookProject, client: Client | None) -> dict[str, Any]:
    """What `show` shows: the module, a reason for each statement, surprises, what travels, and the diff against what is live."""
    return {
        "name": built.name,
        "notebook": str(built.notebook.path or ""),
        "executed": built.notebook.executed,
        "module": built.module,
        "source": built.source,
        "reasons": built.reasons,
        "surprises": [surprise_row(row) for row in built.surprises],
        "travels": [{"path": one.path, "bytes": one.size, "why": one.why} for one in built.travels],
        "has_config": built.has_config,
        "live": _live_diff(built, client) if client else None,
    }


def surprise_row(row: Any) -> dict[str, Any]:
    return {"kind": row.kind, "place": row.place, "message": row.message, "remedy": row.remedy, "blocks": row.blocks, "asks": row.asks}


def _live_diff(built: NotebookProject, client: Client) -> dict[str, Any] | None:
    """The module that is live under this name, and the difference; None where there is none."""
    if not NAME.fullmatch(built.name) or len(built.name) > NAME_LIMIT:
        return None  # nobody's; a deploy says why
    try:
        api = client.get_api(built.name)
        if not api["live"]:
            return None
        live = client.module(built.name, api["live"])
    except (ApiNotFound, EnvironmentDown):
        return None
    diff = difflib.unified_diff(
        live["source"].splitlines(),
        built.source.splitlines(),
        f"{live['path']} (version {api['live']}, live)",
        f"{built.module} (this notebook)",
        lineterm="",
        n=3,
    )
    return {"version": api["live"], "diff": list(diff), "keeps_payloads": api["spec"].get("retain", {}).get("payload") == "always"}


def checked_specs(project: Project) -> list[APISpec]:
    return check_specs(project.documents, [file.path for file in project.files if not file.is_env], project.config_name)


def run_gate(
    project: Project, notebook: NotebookProject | None, progress: Progress, settings: Settings, *, always: bool, here: bool = True
) -> dict[str, gate.Passed]:
    """The gate for each API of a project: name -> what passed.

    A directory without samples is only gated when ``always``: its replicas' start imports and constructs just the same. ``here``: whether
    replicas are to run on this machine; what they require is installed here in either case, so that the gate judges what will run. Raises
    GateFailed, RequirementsError, InstallationFailed.
    """
    found = samples_of(project, notebook)
    if not found and not always:
        return {}
    passed = {}
    for spec in checked_specs(project):
        if spec.handler.path.endswith(".pickle"):
            continue
        progress("checking in a clean process")
        provenance.check_surroundings(project, spec, here=here)
        if not here and steps.conda() is None and any(file.path == spec.handler.dependencies.conda and file.size for file in project.files):
            progress("checking is left to the other machine: there is no conda here")
            continue
        pythons = Pythons(settings.home / "pythons", settings.install_timeout)
        passed[spec.name] = gate.run(project, spec, found, progress, pythons)
        pythons.prune(None, time.time())
    return passed


def publish(
    door: Door,
    client: Client,
    target: str | None,
    name: str | None,
    pairs: tuple[str, ...],
    *,
    yes: bool,
    check: bool,
    progress: Progress,
    confirm: Callable[[str], bool] | None = None,
    **options: Any,
) -> tuple[list[Deployed], NotebookProject | None, dict[str, str] | None]:
    """Slice → gate → bundle → live. Raises whatever refuses it; nothing is deployed then.

    Also gives the notebook's project, if it was one, and a sample that a shell line can send.
    """
    progress("slicing" if door.in_cell or (target and is_notebook(target)) else "reading the project")
    built = from_target(door, target, name, pairs, confirm=confirm)
    notebook = built if isinstance(built, NotebookProject) else None
    agreed = yes or (notebook is not None and _agreed(door, notebook))
    deployed, paste = publish_built(client, built, yes=agreed, check=check, progress=progress, confirm=confirm, **options)
    return deployed, notebook, paste


def publish_built(
    client: Client,
    built: NotebookProject | Project,
    *,
    yes: bool,
    check: bool,
    progress: Progress,
    confirm: Callable[[str], bool] | None = None,
    lock: bool = False,
    **options: Any,
) -> tuple[list[Deployed], dict[str, str] | None]:
    """Gate → bundle → live, of what was sliced already; ``yes`` answers what a notebook would ask. See :func:`publish`.

    ``lock``: with a Python of its own that has the exact versions of this one.
    """
    notebook = built if isinstance(built, NotebookProject) else None
    if notebook is not None:
        notebook.refuse(yes=yes)
    project = notebook.project if notebook else built
    assert isinstance(project, Project)
    client.ensure_up(progress)
    if lock:
        project = locking.locked(project, checked_specs(project), provenance.distributions([*project.files, *_notebook_sources(project)]))
    with ThreadPoolExecutor(1) as beside:
        # Reading the metadata of all that is installed takes 0.3 s, and the gate's process leaves this one idle.
        made_with = beside.submit(provenance.distributions, [*project.files, *_notebook_sources(project)])
        here = client.environment.name == LOCAL
        passed = run_gate(project, notebook, progress, client.settings, always=notebook is not None, here=here) if check else {}
        try:
            deployed = client.publish(project, confirm=confirm, progress=progress, distributions=made_with.result(), **options)
        except CortexError as error:
            _keep_reports(client, error.deployed, passed)
            raise
    _keep_reports(client, deployed, passed)
    return deployed, sample_to_paste(samples_of(project, notebook)) if check else None


def _keep_reports(client: Client, deployed: Iterable[Deployed], passed: dict[str, Any]) -> None:
    for one in deployed:
        if one.api in passed and passed[one.api].report:
            try:
                client.put_report(one.api, one.version, passed[one.api].report)
            except (CortexError, ValueError) as error:  # the API is live already
                one.warnings.append(f"the report of the checks was not kept: {error}")


def samples_of(project: Project, notebook: NotebookProject | None) -> list[samples.Sample]:
    """Those that a deploy is checked with. Raises ProjectError."""
    return samples.of_notebook(samples.load(project.root), project.root, notebook.notebook.path if notebook else None)


def _notebook_sources(project: Project) -> list[ProjectFile]:
    """The code of notebook handlers as modules, for what they import; lines of magics and shell commands are none of Python's."""
    found: list[ProjectFile] = []
    if not any(file.path.endswith(".ipynb") for file in project.files):
        return found
    for spec in checked_specs(project):
        file = next((file for file in project.files if file.path == spec.handler.path), None)
        if spec.handler.type == "notebook" and file is not None:
            # What is no notebook is refused by the gateway, in better words.
            with suppress(OSError, ValueError, KeyError, TypeError):
                cells = code_cells(json.loads(file.read()))
                lines = (line for cell in cells for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!")))
                found.append(ProjectFile.made(f"{spec.handler.path}.py", "\n".join(lines).encode("utf-8", "replace")))
    return found


def _agreed(door: Door, built: NotebookProject) -> bool:
    """Ask about cells that were edited after they ran, and training that stays behind, where somebody can be asked and nothing else is in the way."""
    asking = [row for row in built.surprises if row.asks]
    if not asking or any(row.blocks for row in built.surprises):
        return False
    edited = ", ".join(row.place for row in asking if row.kind == "edited")
    others = "; ".join(f"{row.place}: {row.message}" for row in asking if row.kind != "edited")
    if edited and not door.ask(f"{edited} edited after running: publish what ran?"):
        return False
    return not others or bool(door.ask(f"{others}: publish it as it is?"))


def check(door: Door, target: str | None, name: str | None, pairs: tuple[str, ...], progress: Progress, *, gated: bool = True) -> dict[str, Any]:
    """Slice and gate without deploying: surprises, samples and the first thing that fails, if any. Raises what makes checking impossible."""
    progress("slicing" if door.in_cell or (target and is_notebook(target)) else "reading the project")
    return check_built(from_target(door, target, name, pairs), progress, gated=gated, settings=door.settings)


def check_built(built: NotebookProject | Project, progress: Progress, *, gated: bool = True, settings: Settings | None = None) -> dict[str, Any]:
    """The same for what was sliced already."""
    notebook = built if isinstance(built, NotebookProject) else None
    project = notebook.project if notebook else built
    assert isinstance(project, Project)
    rows = [surprise_row(row) for row in notebook.surprises] if notebook else []
    answer: dict[str, Any] = {"name": project.documents[0].get("name"), "surprises": rows, "samples": [], "error": None, "ok": True}
    if any(row["blocks"] for row in rows):
        return {**answer, "ok": False}
    try:
        if gated:
            passed = run_gate(project, notebook, progress, settings or Settings.read(), always=True)
            answer["samples"] = sorted({sample for one in passed.values() for sample in one.samples})
    except CortexError as error:
        details = {key: value for key, value in error.details.items() if key != "report"}
        answer |= {"ok": False, "error": {"kind": error.code, "message": error.message, "details": details}}
    return answer
