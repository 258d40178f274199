"""Model directories: which versions one has, and whether each is a whole SavedModel.

A directory is a SavedModel itself, which counts as version 1, or has one directory per version, named by an integer.
"""

from __future__ import annotations

import re
from pathlib import Path

#: What every SavedModel has beside its ``saved_model.pb``.
_INDEX, _DATA = "variables/variables.index", "variables/variables.data-00000-of-*"
_VERSION = re.compile(r"[0-9]+", re.ASCII)
_GRAPH = "saved_model.pb"
#: The model of a spec that names just one, by ``path``.
SINGLE = "_cortex_default"


class ModelProblem(Exception):
    """A directory that is no model, in a sentence with the remedy."""


def versions(directory: Path, shown: str) -> dict[str, Path]:
    """Version -> its SavedModel. ``shown``: how the directory is called in errors. Raises ModelProblem."""
    names = _entries(directory, shown)
    numbered = [name for name in names if _VERSION.fullmatch(name) and (directory / name).is_dir()]
    if not numbered:
        if _GRAPH not in names:
            raise ModelProblem(
                f"{shown} is no model: it has neither {_GRAPH} nor directories named by a version (1, 2, …); export a SavedModel there, for "
                f'instance with `model.export("{shown.rstrip("/")}/1")`'
            )
        _check(directory, shown)
        return {"1": directory}
    others = [name for name in names if name not in numbered]
    if others:
        raise ModelProblem(
            f"{shown} mixes versions with other things: {_few(others)} beside {_few(numbered)}; keep only directories named by an integer there, or "
            "only the files of one SavedModel"
        )
    found: dict[str, Path] = {}
    for name in sorted(numbered, key=int):
        version = str(int(name))
        if version in found:
            raise ModelProblem(f"{shown} has version {version} twice: {found[version].name} and {name}; remove one of the two")
        _check(directory / name, f"{shown.rstrip('/')}/{name}")
        found[version] = directory / name
    return found


def models_in(directory: Path, shown: str) -> dict[str, dict[str, Path]]:
    """Name -> versions of every model below ``directory``, one directory each. Raises ModelProblem."""
    names = [name for name in _entries(directory, shown) if (directory / name).is_dir()]
    if not names:
        raise ModelProblem(f"{shown} holds no model; put one directory per model there, named as the model")
    return {name: versions(directory / name, f"{shown.rstrip('/')}/{name}") for name in names}


def _entries(directory: Path, shown: str) -> list[str]:
    """Names in order, without hidden ones (of a file system, of an editor, of a copy that is on its way)."""
    try:
        return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    except NotADirectoryError:
        raise ModelProblem(f"{shown} is a file; name the directory that holds the SavedModel") from None
    except FileNotFoundError:
        raise ModelProblem(f"{shown} is not there ({directory}); export the model to it, or correct the path") from None
    except OSError as error:
        raise ModelProblem(f"{shown} cannot be read: {error.strerror}") from None


def _check(directory: Path, shown: str) -> None:
    wanting = [name for name in (_GRAPH, _INDEX) if not (directory / name).is_file()]
    if not any(directory.glob(_DATA)):
        wanting.append(_DATA.replace("*", "…"))
    if wanting:
        raise ModelProblem(f"{shown} is no whole SavedModel: {' and '.join(wanting)} {'is' if len(wanting) == 1 else 'are'} missing; export it again")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
