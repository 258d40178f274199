"""The memory that a replica may hold, ``compute.mem``, and what it looks like when that is not enough.

Linux's limit on data (RLIMIT_DATA) is what holds: it counts what a process may write to, at the moment it asks for it, so that one allocation fails
where it is made, with its line, and the replica lives. A limit on addresses (RLIMIT_AS) would count what CUDA, TensorFlow and memory-mapped models
reserve or map and never use; looking at the size now and then would see a quick allocation too late, and could only kill.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from pathlib import Path

#: Counted by the limit and never used: the stacks (8 MB each) of threads that start later, and what allocators keep in hand.
IN_HAND = 64 << 20
#: What is left of the limit when a replica is to be replaced: something in it keeps what it was refused more of.
FULL = 0.9
#: How libraries say it that do not raise MemoryError: C++, PyTorch, ONNX Runtime, TensorFlow, the loader of shared libraries.
_SAID = re.compile(r"bad_alloc|can(no|')t allocate memory|failed to allocate memory|OOM when allocating|unable to allocate", re.IGNORECASE)

_limit = ""


def limit(mem: str, size: int) -> None:
    """Keep this process to ``size`` bytes beside what it has reserved by now; ``mem`` is how the spec says it. On Linux only."""
    global _limit
    if sys.platform != "linux":
        return
    import resource

    data, resident = _sizes()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = size + max(0, data - resident) + IN_HAND
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    _limit = mem


def note(error: BaseException) -> str:
    """What an exception's message lacks when this process has a limit and the exception comes from it; else ""."""
    return f"it needs more than the {_limit} of compute.mem: raise that, or hold less at once" if _limit and ran_out(error) else ""


def ran_out(error: BaseException) -> bool:
    """Whether the exception, or one that it was raised from, says that there was no memory."""
    return any(_says_so(one) for one in _chain(error))


def full() -> bool:
    """Whether what the limit leaves is nearly all in use, so that the next workloads will fail, too."""
    if not _limit:
        return False
    import resource

    return _sizes()[0] > FULL * resource.getrlimit(resource.RLIMIT_DATA)[0]


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
