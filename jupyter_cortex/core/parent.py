"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import signal
import sys


def die_with(parent: int) -> None:
    """Linux: be killed when the process ``parent``, which has started this one, dies: also while foreign code holds the GIL and sees no pipe's end.

    The kernel means the thread that has started this process: it must be one that lives as long as the parent does.

    Elsewhere nothing: there the end of a pipe, or the parent itself, must see to it.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
