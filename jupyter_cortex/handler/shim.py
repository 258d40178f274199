"""``from cortex_internal.lib.log import logger``, and ``.lib.exceptions``, as handlers written for Cortex say it."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

_PACKAGES = ("cortex_internal", "cortex_internal.lib")
_NAMES = (*_PACKAGES, "cortex_internal.lib.exceptions", "cortex_internal.lib.log")


def install() -> None:
    """Put the modules into ``sys.modules``; a second call changes nothing.

    A package of that name that is really installed is covered up: its logger reads a configuration file that exists
    only in its own container image, and its lines would never reach the request they belong to.
    """
    from . import exceptions, logs

    for name in _NAMES:
        module = sys.modules.get(name)
        if module is None or not hasattr(module, "__cortex_shim__"):
            module = ModuleType(name, "Stand-in of the Cortex runtime's module; see jupyter_cortex.handler.shim.")
            is_package = name in _PACKAGES
            module.__spec__ = ModuleSpec(name, None, is_package=is_package)
            if is_package:
                module.__path__ = []
            module.__dict__["__cortex_shim__"] = True
            sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    sys.modules["cortex_internal.lib.log"].__dict__["logger"] = logs.logger
    for raised in (exceptions.CortexException, exceptions.UserException, exceptions.UserRuntimeException):
        sys.modules["cortex_internal.lib.exceptions"].__dict__[raised.__name__] = raised
