"""`%cortex save`: an object of the kernel as a file that the Handler can load, and the line that loads it."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ProjectError
from ..core.readers import printable
from .files import megabytes
from .notebook.lines import Loading


@dataclass(frozen=True)
class Format:
    """``write(object, path)``; ``line`` loads it, with ``{target}`` and ``{path}`` filled in."""

    suffix: str
    line: str
    write: Callable[[Any, Path], None]


@dataclass(frozen=True)
class Saved:
    """``line`` is what loads the object; ``warning``: what the file is tied to."""

    name: str
    path: Path
    size: int
    line: str
    warning: str = ""


def _joblib(value: Any, path: Path) -> None:
    import joblib

    joblib.dump(value, path)


def _torch_state(value: Any, path: Path) -> None:
    import torch

    torch.save(value.state_dict(), path)


def _torch_tensors(value: Any, path: Path) -> None:
    import torch

    torch.save(value, path)


def _numpy(value: Any, path: Path) -> None:
    import numpy

    with path.open("wb") as file:  # np.save adds a suffix of its own to a name
        numpy.save(file, value, allow_pickle=False)


def _parquet(value: Any, path: Path) -> None:
    value.to_parquet(path)


def _json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), "utf-8")


def _cloudpickle(value: Any, path: Path) -> None:
    import cloudpickle

    with path.open("wb") as file:
        cloudpickle.dump(value, file)


#: By suffix, the most specific first: a file tells from its name how it is loaded.
FORMATS = {
    "torch_state": Format(
        ".state.pt",
        'import torch; {target}.load_state_dict(torch.load("{path}", weights_only=True, map_location="cpu")); {target}.eval()',
        _torch_state,
    ),
    "torch_tensors": Format(".pt", 'import torch; {target} = torch.load("{path}", weights_only=True, map_location="cpu")', _torch_tensors),
    "joblib": Format(".joblib", 'import joblib; {target} = joblib.load("{path}")', _joblib),
    "parquet": Format(".parquet", 'import pandas; {target} = pandas.read_parquet("{path}")', _parquet),
    "numpy": Format(".npy", 'import numpy; {target} = numpy.load("{path}")', _numpy),
    "json": Format(".json", 'import json; {target} = json.loads(open("{path}", encoding="utf-8").read())', _json),
    "cloudpickle": Format(".pkl", 'import pickle; {target} = pickle.loads(open("{path}", "rb").read())', _cloudpickle),
}


def save(root: Path, name: str, value: Any, target: str, *, force: bool = False) -> Saved:
    """Write ``value`` to ``<name>.<suffix>`` in ``root``. A file that an earlier save wrote is replaced in one step, anybody else's only with
    ``force``.

    Raises ProjectError (kind ``unsavable``, ``unwritable`` or ``exists``).
    """
    chosen = choose(value)
    form = FORMATS[chosen]
    path = root / f"{name}{form.suffix}"
    ours = _Ours(root)
    if path.exists() and not force and not ours.wrote(path):
        raise ProjectError(
            f"{printable(path.name)} is there already and was not written by `%cortex save`; choose another name, or replace it with --force",
            kind="exists",
            path=path.name,
        )
    temporary = root / f".{name}{form.suffix}.{os.getpid()}"
    try:
        form.write(value, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise ProjectError(f"{printable(path.name)} cannot be written: {error.strerror}; choose another directory", kind="unwritable") from None
    except Exception as error:
        raise ProjectError(
            f"{printable(name)} cannot be saved ({type(error).__name__}: {error}); save what can be written, and make the rest in the Handler",
            kind="unsavable",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    ours.forget_others(name, path)
    ours.remember(path)
    line = form.line.format(target=target or name, path=path.name)
    if chosen == "torch_state" and value.training:
        line = line.removesuffix(f"; {target or name}.eval()")  # what runs here is what runs in production
    return Saved(name, path, path.stat().st_size, line, _tied(chosen, value))


def choose(value: Any) -> str:
    """The format for an object, by what it is; nothing is imported that the kernel has not imported."""
    torch, numpy, pandas = (sys.modules.get(name) for name in ("torch", "numpy", "pandas"))
    if torch is not None and isinstance(value, torch.nn.Module):
        return "torch_state"
    if torch is not None and (isinstance(value, torch.Tensor) or _holds_tensors(value, torch)):
        return "torch_tensors"
    engine = any(importlib.util.find_spec(name) for name in ("pyarrow", "fastparquet"))
    if pandas is not None and engine and isinstance(value, pandas.DataFrame) and all(isinstance(column, str) for column in value.columns):
        return "parquet"
    if numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject:
        return "numpy"
    with suppress(RecursionError):  # a list that holds itself
        if _is_json(value):
            return "json"
    estimator = any(cls.__module__.partition(".")[0] == "sklearn" for cls in type(value).__mro__)
    if estimator and importlib.util.find_spec("joblib") and not _needs_the_notebook(value):
        return "joblib"
    return "cloudpickle"


class _Sink:
    """Takes bytes and keeps none."""

    def write(self, data: Any) -> int:
        return len(data)


class _Looking(pickle.Pickler):
    """Pickles into nothing, to see whether a class or function of the notebook is in it: another process could not import it by name."""

    found = False

    def reducer_override(self, value: Any) -> Any:
        self.found = self.found or getattr(value, "__module__", None) == "__main__"
        return NotImplemented


def _needs_the_notebook(value: Any) -> bool:
    looking = _Looking(_Sink(), protocol=5, buffer_callback=lambda buffer: False)  # type: ignore[arg-type]
    with suppress(Exception):  # what cannot be pickled is told when it is written
        looking.dump(value)
    return looking.found


def _holds_tensors(value: Any, torch: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(item, torch.Tensor) for item in value.values())


def _is_json(value: Any) -> bool:
    """Whether JSON brings back the very same value; a tuple or a key that is no text does not come back."""
    if value is None or type(value) in (bool, int, str):
        return True
    if type(value) is float:
        return value == value and abs(value) != float("inf")
    if type(value) is list:
        return all(map(_is_json, value))
    return type(value) is dict and all(type(key) is str for key in value) and all(map(_is_json, value.values()))


def _tied(chosen: str, value: Any) -> str:
    if chosen == "cloudpickle":
        package = type(value).__module__.partition(".")[0]
        beside = "" if package in ("builtins", "__main__") else f" and to this version of {package}"
        return f"a pickle is tied to Python {platform.python_version()}{beside}: replicas that have another may not load it"
    if chosen == "torch_state":
        mode = ", and it is in training mode: call .eval() and save again, unless replicas should drop out, too" if value.training else ""
        return f"only the weights are saved: the class stays code, so the statement that constructs it travels in the module{mode}"
    return ""


class _Ours:
    """Which files `%cortex save` wrote, in a hidden file beside them: nobody else's may be replaced or removed."""

    def __init__(self, root: Path) -> None:
        self._root, self._path = root, root / ".cortex-saved.json"
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, list[int]] = known if isinstance(known, dict) else {}

    def wrote(self, path: Path) -> bool:
        """Whether the file is as a save left it."""
        try:
            return self._known.get(path.name) == _stamp(path)
        except OSError:
            return False

    def forget_others(self, name: str, kept: Path) -> None:
        """Remove what an earlier save of the same object wrote in another format: it would be found instead."""
        for form in FORMATS.values():
            other = self._root / f"{name}{form.suffix}"
            if other != kept and other.is_file() and self.wrote(other):
                other.unlink(missing_ok=True)
                del self._known[other.name]

    def remember(self, path: Path) -> None:
        self._known[path.name] = _stamp(path)
        with suppress(OSError):  # then the next save asks for --force
            self._path.write_text(json.dumps(self._known))


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def loading_from(root: Path) -> Loading:
    """Finds the file of a saved object in ``root``, the newest when there are several, and the line that loads it."""

    def line(name: str, target: str) -> str:
        found = [(root / f"{name}{form.suffix}", form) for form in FORMATS.values() if (root / f"{name}{form.suffix}").is_file()]
        if not found:
            return ""
        path, form = max(found, key=lambda pair: pair[0].stat().st_mtime)
        return form.line.format(target=target, path=path.name)

    return line


def add_artifact(config: Path, name: str, path: str) -> bool:
    """Name a large file under ``artifacts`` of the API ``name`` in a cortex.yaml, leaving everything else as the author wrote it.

    False when the text is not of a shape that can be edited safely; then the author has to do it. Raises nothing for that.
    """
    import yaml

    text = config.read_text("utf-8")
    before = yaml.safe_load(text)
    node = yaml.compose(text)
    if not isinstance(node, yaml.SequenceNode) or not isinstance(before, list):
        return False
    at = next((index for index, entry in enumerate(before) if isinstance(entry, dict) and entry.get("name") == name), None)
    entry = node.value[at] if at is not None else None
    if at is None or not isinstance(entry, yaml.MappingNode) or entry.flow_style:
        return False
    known = before[at].get("artifacts") or []
    if path in known or any(isinstance(one, dict) and one.get("path") == path for one in known):
        return True
    lines = text.split("\n")
    found = next((pair for pair in entry.value if pair[0].value == "artifacts"), None)
    indent = " " * entry.start_mark.column
    if found is None:
        new, where = [f"{indent}artifacts:", f"{indent}  - {path}"], _end_of(entry, lines)
    elif isinstance(found[1], yaml.SequenceNode) and found[1].value and not found[1].flow_style:
        new, where = [f"{' ' * found[1].start_mark.column}- {path}"], _end_of(found[1], lines)
    else:
        return False
    changed = "\n".join([*lines[:where], *new, *lines[where:]])
    wanted = json.loads(json.dumps(before, default=str))
    wanted[at].setdefault("artifacts", []).append(path)
    try:
        if json.loads(json.dumps(yaml.safe_load(changed), default=str)) != wanted:
            return False
    except yaml.YAMLError:
        return False
    config.write_text(changed, "utf-8")
    return True


def _end_of(node: Any, lines: list[str]) -> int:
    """The line behind a node, without the blank lines and comments that YAML counts to it."""
    end = node.end_mark.line + (1 if node.end_mark.column else 0)
    while end > 0 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    return end


def describe(saved: Saved) -> str:
    return f"{saved.path.name}, {megabytes(saved.size)}"
