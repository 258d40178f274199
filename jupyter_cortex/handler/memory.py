"""The memory that a replica may hold, ``compute.mem``, and what it looks like when that is not enough.

Linux's limit on data (RLIMIT_DATA) is what holds: it counts what a process may write to, at the moment it asks for it, so that one allocation fails
where it is made, with its line, and the replica lives. A limit on addresses (RLIMIT_AS) would count what CUDA, TensorFlow and memory-mapped models
reserve or map and never use (TensorFlow: 1.6 GB of them for 265 MB of data; scikit-learn hangs where it finds none); looking at the size now and then
would see a quick allocation too late, and could only kill. What is reserved and not used counts here, too (stacks of threads, buffers of OpenBLAS:
190 MB of 300 in scikit-learn): so the limit lies above that, and moves with it.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

#: What may be reserved between two looks: the stacks (8 MB each) of threads that start, and what allocators keep in hand.
IN_HAND = 64 << 20
#: The same for a notebook's cells, which import their libraries under the limit: OpenBLAS alone takes 40 MB for each core at once.
IN_CELLS = max(256, 48 * (os.cpu_count() or 1)) << 20
#: What may be reserved while a handler is imported and constructed; after that it is known what of it is in use.
AT_START = 512 << 20
#: The share of its memory in use from which a replica that was refused more is replaced: something in it keeps what the next workloads need.
FULL = 0.9
#: How libraries say it that do not raise MemoryError: C++, PyTorch, ONNX Runtime, TensorFlow, the loader of shared libraries.
_SAID = re.compile(r"bad_alloc|can(no|')t allocate memory|failed to allocate memory|OOM when allocating|unable to allocate", re.IGNORECASE)

_limit, _size = "", 0


def begin(mem: str, size: int) -> None:
    """From now on this process may hold ``size`` bytes, which the spec calls ``mem``; loosely until `settle`. On Linux only."""
    global _limit, _size
    if sys.platform == "linux":
        _limit, _size = mem, size
        _allow(2 * size + AT_START)


def settle(in_hand: int = IN_HAND) -> str:
    """Move the limit above what is reserved and not in use by now. What is wrong if more is in use than may be, else ""."""
    if not _limit:
        return ""
    data, resident = _sizes()
    _allow(_size + max(0, data - resident) + in_hand)
    return f"it holds {resident >> 20} MiB, more than the {_limit} of compute.mem: raise that, or load less" if resident > _size else ""


def _allow(size: int) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def note(error: BaseException) -> str:
    """What an exception's message lacks when this process has a limit and the exception comes from it; else ""."""
    return f"it needs more than the {_limit} of compute.mem: raise that, or hold less at once" if _limit and ran_out(error) else ""


def ran_out(error: BaseException) -> bool:
    """Whether the exception, or one that it was raised from, says that there was no memory."""
    return any(_says_so(one) for one in _chain(error))


def full() -> bool:
    """Whether nearly all that this process may hold is in use, so that the next workloads will fail, too."""
    return bool(_limit) and _sizes()[1] > FULL * _size


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    try:
        return not isinstance(error, Warning) and bool(_SAID.search(str(error)[:4000]))
    except BaseException:  # an author's __str__ may raise anything
        return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        step = step.__cause__ or step.__context__


def _sizes() -> tuple[int, int]:
    """Bytes that this process may write to, and those of them that are in memory."""
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    data, resident = (int(said[key].split()[0]) * 1024 for key in ("VmData", "RssAnon"))
    return data, resident
