"""From a notebook to a project that can be published: the module, the files that travel with it, the map back to the cells."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.checks import NAME, NAME_LIMIT, is_portable
from ..core.errors import NotebookError, SpecError
from ..core.readers import printable
from ..handler import origin
from . import artifacts, config_file, files, models, objects
from .files import Confirm, ProjectFile
from .installation import requirements
from .installation.lock import LOCK
from .notebook import cells
from .notebook import module as modules
from .notebook.cells import Notebook, snapshot
from .notebook.references import MAX_ENTRIES, references
from .notebook.slicing import Slice, slice_timeline
from .notebook.steps import timeline
from .notebook.surprises import Surprise, surprises
from .project import Project
from .signatures import check_source

CONFIG = "cortex.yaml"
#: The module's name where no cortex.yaml says another.
MODULE = "handler.py"
#: What travels from the notebook's directory though no code names it.
REQUIREMENTS = ("requirements.txt", "conda-packages.txt", "dependencies.sh", "cortex.lock")
#: Without a cortex.yaml, a named file above this travels as an artifact: outside the bundle and its 32 MiB.
ARTIFACT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Travels:
    """One file that travels, and why."""

    path: str
    size: int
    why: str


@dataclass(frozen=True)
class NotebookProject:
    """What would be published: the module with a reason for each statement, what would surprise, what travels."""

    name: str
    notebook: Notebook
    found: Slice
    source: str
    reasons: list[dict[str, Any]]
    surprises: list[Surprise]
    document: dict[str, Any]
    has_config: bool
    project: Project
    travels: list[Travels] = field(default_factory=list)

    @property
    def module(self) -> str:
        return str(self.document["handler"]["path"])

    def refuse(self, *, yes: bool = False) -> None:
        """Raise NotebookError with everything that keeps this from being published; ``yes`` answers what is only asked."""
        blocking = [row for row in self.surprises if row.blocks or (row.asks and not yes)]
        if blocking:
            more = f" (and {len(blocking) - 1} more; `show` lists them)" if len(blocking) > 1 else ""
            raise NotebookError(
                f"{blocking[0]}{more}",
                kind=blocking[0].kind,
                place=blocking[0].place,
                all=[str(row) for row in blocking],
                asks=not blocking[0].blocks,
            )


def read(path: Path) -> Notebook:
    """A saved notebook, with the files that its `%cortex save` lines wrote beside it. Raises ProjectError."""
    return replace(cells.read(path), loading=objects.loading_from(path.absolute().parent))


def build(
    notebook: Notebook,
    root: Path,
    *,
    name: str | None = None,
    config: dict[str, Any] | None = None,
    only_config: dict[str, Any] | None = None,
    replicas: int | None = None,
    source: str = "",
    target: str = "Handler",
    document: dict[str, Any] | None = None,
    confirm: Confirm | None = None,
) -> NotebookProject:
    """Slice the notebook and gather what travels with it from ``root``, its directory.

    ``name``: the API's, default the one of cortex.yaml or of the notebook. ``config`` is laid over ``handler.config``;
    ``only_config`` takes its place. ``replicas``: the least number of them. ``document``: a spec to use instead of cortex.yaml.

    Raises SpecError, ProjectError, NotebookError (a name that cannot be found). What is wrong with the slice is not raised but listed in
    ``surprises``: see :meth:`NotebookProject.refuse`.
    """
    has_config = document is None and (root / CONFIG).is_file()
    document = models.with_files([_document(notebook, root, name, document)], root)[0]
    section = document["handler"]
    if only_config is not None:
        section["config"] = only_config
    if replicas is not None:
        _keep_replicas(document, replicas)
    if config:
        section["config"] = {**(section.get("config") or {}), **config}
    found = slice_timeline(timeline(notebook), lambda asked: star_names(asked, root), target)
    text, placed = modules.write(found)
    if target != "Handler":
        text += f"\n\nHandler = {target}\n"
    rows = modules.reasons(found, placed)
    told = surprises(found, notebook, _required(root, section.get("dependencies") or {}))
    told = [*_signatures(found, target, section), *told, *_unsaved(found)]
    meta = {
        origin.LINE_MAP: modules.line_map(placed, notebook.name),
        "reasons.json": json.dumps(rows).encode(),
        "notebook.ipynb": snapshot(notebook),
    }
    source = source or (str(notebook.path) if notebook.path else f"{root}/(unsaved notebook)")
    path = str(section["path"]).removeprefix("./")
    module = ProjectFile.made(path, text.encode("utf-8", "surrogatepass"))
    if has_config:
        project, travels = _with_config(notebook, root, document, module, source, meta, confirm)
    else:
        project, travels, outside = _without_config(notebook, root, document, module, source, meta)
        told += outside
    return NotebookProject(document["name"], notebook, found, text, rows, told, document, has_config, project, travels)


def _required(root: Path, dependencies: dict[str, Any]) -> str | None:
    """What the directory's files say is to be installed, as lines of one requirements file; None where it has none."""
    named = requirements.files_below(root, str(dependencies.get("pip") or "requirements.txt"), constraints=False)
    if not named:
        return None
    parts = [(root / name).read_text("utf-8-sig", "replace") for name in [*named, *([LOCK] if (root / LOCK).is_file() else [])]]
    conda = root / str(dependencies.get("conda") or "conda-packages.txt")
    if conda.is_file():  # `conda-forge::numpy=2.1` is numpy
        parts += re.findall(r"(?m)^\s*(?:[\w./-]+::)?([A-Za-z0-9][\w.-]*)", conda.read_text("utf-8", "replace"))
    return "\n".join(parts)


def _unsaved(found: Slice) -> list[Surprise]:
    """`%cortex save` lines whose file is not there: replicas would make the object again."""
    return [
        Surprise(
            "unsaved",
            f"{cell.label}, line {line.line}",
            f"`{line.text}` has written no file here",
            "run the notebook once, so that the file is there",
        )
        for cell, line in found.timeline.dropped
        if line.text.startswith("%cortex save")
    ]


def _signatures(found: Slice, target: str, section: dict[str, Any]) -> list[Surprise]:
    """A constructor or a handle_async that no replica could call."""
    if found.handler is None:
        return []
    classes = [step.node for step in found.order if isinstance(step.node, ast.ClassDef)]
    error = check_source(classes, target, handler_type=str(section["type"]), path=str(section["path"]))
    if error is None:
        return []
    sentence = error.message.removeprefix(f"error in {section['path']}: ")
    message, _, remedy = sentence.partition("; ")
    return [Surprise("signature", found.handler.place, message, remedy or "correct its arguments", blocks=True)]


# The spec -----------------------------------------------------------------------------------------------------------------------------------


def entry_of(root: Path, name: str | None) -> dict[str, Any]:
    """The entry of the cortex.yaml in ``root`` that a notebook is: the one of that name, else the only one; {} without the file.

    Raises SpecError, and NotebookError (kind ``which_api``) when that cannot be told.
    """
    return _choose(config_file.load(root / CONFIG), name) if (root / CONFIG).is_file() else {}


def _document(notebook: Notebook, root: Path, name: str | None, given: dict[str, Any] | None) -> dict[str, Any]:
    if given is not None:
        document = json.loads(json.dumps(given))
    elif (root / CONFIG).is_file():
        document = _choose(config_file.load(root / CONFIG), name)
    else:
        document = {"name": name or default_name(notebook)}
    document.setdefault("kind", "AsyncAPI")
    section = document.setdefault("handler", {})
    if not isinstance(section, dict):
        raise SpecError(f"{CONFIG}: handler must be a map; write its keys below it", path="handler", kind="type")
    section.setdefault("type", "python")
    section.setdefault("path", MODULE)
    path = section["path"].removeprefix("./") if isinstance(section["path"], str) else ""
    if not path.endswith(".py") or not is_portable(path):
        raise SpecError(
            f"{CONFIG}: handler.path must be a path below the project that ends in .py: it is the module that is made from the notebook",
            path="handler.path",
            kind="value",
        )
    for key in ("config", "env", "dependencies"):
        if not isinstance(section.get(key) or {}, dict):
            raise SpecError(f"{CONFIG}: handler.{key} must be a map; write one key per line below it", path=f"handler.{key}", kind="type")
    return document


def _keep_replicas(document: dict[str, Any], least: int) -> None:
    """``autoscaling.min_replicas`` of a spec, and what would contradict it with it. Raises SpecError."""
    section = document.setdefault("autoscaling", {})
    if not isinstance(section, dict):
        raise SpecError(f"{CONFIG}: autoscaling must be a map; write its keys below it", path="autoscaling", kind="type")
    section["min_replicas"] = least
    for key in ("max_replicas", "init_replicas"):
        if isinstance(section.get(key), int):
            section[key] = max(section[key], least)


def replicas_of(document: dict[str, Any]) -> int:
    """How many replicas a spec keeps at least."""
    section = document.get("autoscaling")
    least = section.get("min_replicas") if isinstance(section, dict) else None
    return least if isinstance(least, int) else 1


def _choose(documents: list[dict[str, Any]], name: str | None) -> dict[str, Any]:
    names = [str(document.get("name")) for document in documents]
    if name is None and len(documents) == 1:
        return documents[0]
    if name is None:
        raise NotebookError(
            f"{CONFIG} has {len(names)} APIs ({', '.join(map(printable, names))}); say which one this notebook is: "
            "`%cortex deploy NAME`, elsewhere `--name NAME`",
            kind="which_api",
        )
    if name not in names:
        raise NotebookError(
            f"{CONFIG} has no API {printable(name)}; it has {', '.join(map(printable, names))}. Say --name with one of them, or add an entry",
            kind="which_api",
        )
    return documents[names.index(name)]


def default_name(notebook: Notebook) -> str:
    """An API's name made from the notebook's file name. Raises NotebookError where there is none."""
    stem = notebook.path.name.removesuffix(".ipynb") if notebook.path else ""
    made = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    made = re.sub(r"^[^a-z]+", "", made)[:NAME_LIMIT].strip("-")
    if not NAME.fullmatch(made) or made.startswith("b-"):
        raise NotebookError(
            "the notebook has no file name that could name the API; give one: `%cortex deploy my-api` in a cell, `--name my-api` in a shell",
            kind="unnamed",
        )
    return made


# What travels -------------------------------------------------------------------------------------------------------------------------------


def _with_config(
    notebook: Notebook, root: Path, document: dict[str, Any], module: ProjectFile, source: str, meta: dict[str, bytes], confirm: Confirm | None
) -> tuple[Project, list[Travels]]:
    """Beside a cortex.yaml: the project's files by its rules, with the module in the place of ``handler.path`` and without the notebook itself."""
    warnings = config_file.doubled(root / CONFIG)
    own = {module.path} | ({notebook.path.name} if notebook.path and notebook.path.parent == root else set())
    apart = artifacts.paths_of([document])
    shipped = files.list_files(root / CONFIG, confirm=confirm, warnings=warnings, apart=own | apart)
    if (root / module.path).is_file() and not _is_ours(root / module.path):
        warnings.append(f"{module.path} of the directory is not used: the module made from the notebook takes its place")
    travels = [Travels(file.path, file.size, "a file of the project") for file in shipped]
    travels += [Travels(path, _size(root / path), "an artifact of the spec") for path in sorted(apart)]
    project = Project(root, [document], [module, *shipped], source, CONFIG, meta=meta, warnings=warnings)
    return project, [Travels(module.path, module.size, "made from the notebook"), *travels]


def _without_config(
    notebook: Notebook, root: Path, document: dict[str, Any], module: ProjectFile, source: str, meta: dict[str, bytes]
) -> tuple[Project, list[Travels], list[Surprise]]:
    """Without one: the module, the local modules it imports and the files it names. Nothing else of the directory is even looked at."""
    own = {module.path} | ({notebook.path.name} if notebook.path and notebook.path.parent == root else set())
    apart = artifacts.paths_of([document])
    named = references((module.content or b"").decode("utf-8", "replace"), root, skip=frozenset(own | apart))
    shipped, large = [module], []
    travels = [Travels(module.path, module.size, "made from the notebook")]
    travels += [Travels(path, _size(root / path), "an artifact of the spec") for path in sorted(apart)]
    for path, why in named.files.items():
        size = _size(root / path)
        if size > ARTIFACT_BYTES:
            large.append(path)
            travels.append(Travels(path, size, f"{why}; large, so it is stored as an artifact"))
        else:
            shipped.append(ProjectFile(path, size, root / path))
            travels.append(Travels(path, size, why))
    if large:
        document["artifacts"] = [*document.get("artifacts", []), *(path for path in large if path not in artifacts.paths_of([document]))]
    for name in dict.fromkeys([*REQUIREMENTS, *requirements.files_below(root, REQUIREMENTS[0])]):
        if (root / name).is_file() and name not in named.files and name != module.path:
            shipped.append(ProjectFile(name, _size(root / name), root / name))
            travels.append(Travels(name, _size(root / name), "what the notebook's directory requires"))
    env = files.env_file(root)
    travels += [Travels(file.path, file.size, "the project's variables; apart from the bundle, masked in logs") for file in env]
    outside = [
        Surprise("outside", f"{module.path}, line {line}", f"{value!r} is not below the notebook's directory and does not travel", "copy it there")
        for value, line in named.outside
    ]
    outside += [
        Surprise("cut", module.path, f"{directory}/ has more than {MAX_ENTRIES:,} files and is cut short", "write a cortex.yaml: then it does")
        for directory in sorted(named.cut)
    ]
    return Project(root, [document], [*shipped, *env], source, "the notebook's spec", meta=meta), travels, outside


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(modules.HEADER)) == modules.HEADER.encode()


# Star imports -------------------------------------------------------------------------------------------------------------------------------


def star_names(module: str, root: Path, asked: frozenset[str] = frozenset()) -> set[str] | None:
    """What ``from module import *`` brings, without importing anything: a loaded module's names, else its source's. None when unknown.

    ``asked``: the modules whose star imports led here; what a circle of them brings is unknown.
    """
    if module in asked:
        return None
    if (loaded := sys.modules.get(module)) is not None:
        return set(getattr(loaded, "__all__", None) or [name for name in vars(loaded) if not name.startswith("_")])
    file = _source_of(module, root)
    if file is None:
        return None
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    return _public_names(tree, module if file.name == "__init__.py" else module.rpartition(".")[0], root, asked | {module})


def _source_of(module: str, root: Path) -> Path | None:
    path = root / module.lstrip(".").replace(".", "/")
    for local in (path.with_suffix(".py"), path / "__init__.py"):
        if local.is_file():
            return local
    if module.startswith(".") or "." in module:
        return None  # finding a submodule would import its package
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _public_names(tree: ast.Module, package: str, root: Path, asked: frozenset[str]) -> set[str] | None:
    """``package``: what the relative imports of these statements start from."""
    from .notebook.names import bound_in
    from .notebook.references import absolute

    found = set(bound_in(tree.body))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            try:
                return set(map(str, ast.literal_eval(node.value)))
            except (ValueError, TypeError):
                return None
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            inner = star_names(absolute(node, package.split(".") if package else []), root, asked)
            if inner is None:
                return None
            found |= inner
    return {name for name in found if not name.startswith("_")}
