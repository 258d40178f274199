"""``jupyter_cortex.glue``: what a notebook gives as its result."""

from __future__ import annotations

import sys
from typing import Any

from jupyter_cortex.core.errors import ResultError
from jupyter_cortex.handler import result

#: Under this type the value travels from the kernel; a front end shows the text beside it.
MIME = "application/vnd.jupyter-cortex.glue+json"
#: Characters of the value that the notebook shows.
SHOWN = 2000


def glue(value: dict[str, Any] | None = None, /, **named: Any) -> None:
    """Make a dict, or values by name, the result of the request that this notebook runs for: ``glue({"score": 0.5})`` or ``glue(score=0.5)``.

    Glued again, names are added, and a name that is there already gets the new value. A notebook that glues nothing has the result null. Where a
    notebook runs by hand the value is only shown.

    Raises ResultError for what JSON has no form for, saying where in the value it is.
    """
    if value is not None and not isinstance(value, dict):
        raise ResultError(f"glue: a result is a dict, and this is {type(value).__name__}; give it a name, as in glue(value=...)", kind="not_a_dict")
    encoded = result.encode({**(value or {}), **named}).decode()
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        return
    text = encoded if len(encoded) <= SHOWN else f"{encoded[:SHOWN]}… ({len(encoded):,} characters)"
    # As text within JSON: no encoder on its way changes an order, a number or half a character.
    shell.display_pub.publish({MIME: {"json": encoded}, "text/plain": f"glued: {text}"})
