"""``python -m jupyter_cortex.operator``: this machine's operator, as `cortex up` starts it."""

from __future__ import annotations

import logging
import sys

from ..core.settings import Settings
from .service import run

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sys.exit(run(Settings.read()))
