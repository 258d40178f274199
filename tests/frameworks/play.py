"""Runs one notebook where it lies, with the interpreter that runs this, against an environment of its own; says what it left behind.

``python play.py NOTEBOOK``, with JUPYTER_CORTEX_HOME set. Prints one line of JSON: ``error`` (empty when all went well).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jupyter_cortex.core.errors import CortexError
from jupyter_cortex.core.settings import Settings
from jupyter_cortex.operator import local
from jupyter_cortex.project import run_notebook


def play(notebook: Path) -> str:
    """Why it is not as it should be, "" when it is."""
    settings = Settings.read()
    try:
        run_notebook.run(notebook, {})
        return left_behind(settings)
    except CortexError as error:
        return error.message
    finally:
        local.down(settings, grace=5.0)


def left_behind(settings: Settings) -> str:
    from jupyter_cortex.client import Client
    from jupyter_cortex.environments import Environments

    if local.find(settings) is None:
        return ""
    apis = Client(Environments(settings).find("local"), settings).list_apis()
    return f"its last cells leave {', '.join(api['name'] for api in apis)} behind" if apis else ""


if __name__ == "__main__":
    print(json.dumps({"error": play(Path(sys.argv[1]))}))
