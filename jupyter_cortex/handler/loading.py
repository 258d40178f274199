"""From a project directory to the author's class, the same way in kernel, gate and replica."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any, NoReturn

from jupyter_cortex.core.errors import HandlerError

from . import origin, shim
from .errors_text import describe, line_in
from .signature import check_class

__all__ = ["MODULE", "check_class", "load_class", "set_import_path"]

#: The handler module's name in sys.modules: pickles of its classes, dataclasses and typing look it up there.
MODULE = "cortex_async_handler"


def load_class(project_dir: Path, path: str, python_path: str | None = None) -> type:
    """Import ``path`` (a ``.py`` file with a class ``Handler``, or a ``.pickle`` of a class) below ``project_dir``.

    Puts the project root and ``python_path`` in front of ``sys.path`` and makes ``cortex_internal.lib.log``
    importable. The working directory is the caller's matter: a replica stands in the project root already.
    Raises :class:`HandlerError` with stage ``load`` and kind ``import``, ``exit``, ``pickle``, ``class_missing`` or
    ``not_a_class``; for a failing import ``line`` and ``traceback`` as well.
    """
    root = Path(project_dir).resolve()
    file = root / path
    if not file.is_file():
        _fail(path, "import", f"error in {path}: there is no such file in the project; check handler.path")
    set_import_path(root, python_path)
    shim.install()
    found = _unpickle(root, file, path) if file.suffix == ".pickle" else _imported(root, file, path)
    if not isinstance(found, type):
        what = f"it is {type(found).__name__}, not a class"
        _fail(path, "not_a_class", f"error in {path}: Handler class is not defined: {what}; give the class itself")
    return found


def set_import_path(root: Path, python_path: str | None = None) -> None:
    """Put the project root first on ``sys.path``, then ``python_path`` (relative to the root)."""
    wanted = [str(root)]
    if python_path:
        wanted.append(str((root / python_path).resolve()))
    sys.path[:] = list(dict.fromkeys(wanted)) + [entry for entry in sys.path if entry not in wanted]
    # Files written within the file system's time stamp (a fresh bundle, an edited notebook) must be seen.
    importlib.invalidate_caches()


class _FreshLoader(SourceFileLoader):
    """Always compiles the file. Cached bytecode is keyed by seconds and size, and a notebook edits faster than that."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _imported(root: Path, file: Path, path: str) -> Any:
    loader = _FreshLoader(MODULE, str(file))
    spec = importlib.util.spec_from_file_location(MODULE, file, loader=loader)
    assert spec is not None  # a loader was given, so there always is one
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(MODULE)
    sys.modules[MODULE] = module  # before it runs: dataclasses look their own module up while it executes
    try:
        loader.exec_module(module)
    except BaseException as exc:  # SystemExit at import must not end the process that asked
        if before is None:
            sys.modules.pop(MODULE, None)
        else:
            sys.modules[MODULE] = before
        _fail_import(root, file, path, exc)
    namespace = vars(module)
    if "Handler" not in namespace:
        own = [name for name, value in namespace.items() if isinstance(value, type) and value.__module__ == MODULE]
        hint = f"rename class {own[0]} to Handler" if len(own) == 1 else "name your class Handler"
        _fail(path, "class_missing", f"error in {path}: Handler class is not defined; {hint}")
    return namespace["Handler"]


def _unpickle(root: Path, file: Path, path: str) -> Any:
    try:
        import dill
    except ImportError:
        _fail(path, "pickle", f"error in {path}: a pickled class needs the package dill; add it to requirements.txt")
    try:
        with file.open("rb") as stream:
            return dill.load(stream)
    except Exception as exc:
        text = describe(exc, root)
        _fail(
            path,
            "pickle",
            f"error in {path}: {text['type']}: {text['message']}; pickle the class again with this Python "
            f"({sys.version_info.major}.{sys.version_info.minor}) and this dill, or publish a .py file",
            exc,
            traceback=text["traceback"],
        )
    except BaseException as exc:
        _fail_import(root, file, path, exc)


def _fail_import(root: Path, file: Path, path: str, exc: BaseException) -> NoReturn:
    text = describe(exc, root)
    line = line_in(exc, str(file))
    where = f"{path}, line {line}{origin.beside(path, line)}" if line else path
    if not isinstance(exc, Exception):
        what = f"{text['type']} while it was imported; a handler must not exit"
        _fail(path, "exit", f"error in {where}: {what}", exc, line=line, traceback=text["traceback"])
    message = text["message"]
    if isinstance(exc, SyntaxError) and line is not None:
        message = str(exc.msg)  # without "(handler.py, line 3)", which is said already
    sentence = f"error in {where}: {text['type']}: {message}"
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        missing = exc.name.partition(".")[0]
        into = f"`{sys.executable} -m pip install ...`"
        sentence += f"; add {missing} to requirements.txt, which installs it for replicas ({into} does here), or put the module into the project"
    _fail(path, "import", sentence, exc, line=line, traceback=text["traceback"])


def _fail(path: str, kind: str, message: str, cause: BaseException | None = None, **details: Any) -> NoReturn:
    raise HandlerError(message, stage="load", kind=kind, path=path, **details) from cause
