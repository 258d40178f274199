"""Write a ``Handler`` in a notebook, publish it as an asynchronous HTTP API.

Importing this package is light on purpose (a kernel and a replica both pay for it): the rooms open when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Client", "__version__", "cancelled", "client", "env_delete", "env_list", "glue", "new_client", "progress"]

if TYPE_CHECKING:
    from .client import Client, client, env_delete, env_list, new_client
    from .handler.live import cancelled, progress
    from .handler.notebook.glue import glue


#: What opens when it is asked for, and where it is.
_DOORS = {
    "Client": ".client",
    "client": ".client",
    "new_client": ".client",
    "env_list": ".client",
    "env_delete": ".client",
    "progress": ".handler.live",
    "cancelled": ".handler.live",
    "glue": ".handler.notebook.glue",
}


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        # `import_module` rather than `from . import`: the submodule and the function share the name "client".
        from importlib import import_module

        module = import_module(_DOORS[name], __name__)
        value = getattr(module, name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext jupyter_cortex``: the magic ``%cortex``, the logger's import path and the project's variables."""
    from importlib import import_module

    import_module(".magics", __name__).load(shell)


def unload_ipython_extension(shell: Any) -> None:
    from importlib import import_module

    import_module(".magics", __name__).unload(shell)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where a Jupyter server finds the routes of JupyterLab's part; only there is jupyter_server imported."""
    from importlib import import_module

    return [{"module": "jupyter_cortex.extension", "app": import_module(".extension", __name__).CortexExtension}]
