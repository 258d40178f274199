"""``from cortex_internal.lib.log import logger``, as handlers written for Cortex say it."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAMES = ("cortex_internal", "cortex_internal.lib", "cortex_internal.lib.log")


def install() -> None:
    """Put the three modules into ``sys.modules``; a second call changes nothing.

    A package of that name that is really installed is covered up: its logger reads a configuration file that exists
    only in its own container image, and its lines would never reach the request they belong to.
    """
    from . import logs

    parent: ModuleType | None = None
    for name in _NAMES:
        module = sys.modules.get(name)
        if module is None or not hasattr(module, "__cortex_shim__"):
            module = ModuleType(name, "Stand-in of the Cortex runtime's module; see jupyter_cortex.handler.shim.")
            is_package = not name.endswith(".log")
            module.__spec__ = ModuleSpec(name, None, is_package=is_package)
            if is_package:
                module.__path__ = []
            module.__dict__["__cortex_shim__"] = True
            sys.modules[name] = module
        if parent is not None:
            setattr(parent, name.rpartition(".")[2], module)
        parent = module
    assert parent is not None
    parent.__dict__["logger"] = logs.logger
