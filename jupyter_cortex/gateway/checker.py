"""The checker: a process that parses large bodies for the gateway, which has others to answer meanwhile.

``json.loads`` holds the interpreter's lock from its first byte to its last: in the gateway's own process, in whatever thread, 10 MB of JSON kept
every other caller waiting for 0.35 s.

Started as ``python -P -m jupyter_cortex.gateway.checker <gateway's pid>`` with a socket as its standard input. On it come, again and again, a line
of JSON (``size`` in bytes, ``content_type``) and behind it the body. Each is answered by a line of JSON: what the body is refused with (``message``
and the details of a `PayloadError`), or ``null``. The socket's end is its end.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
from typing import Any, BinaryIO

from ..core.errors import PayloadError
from ..core.parent import die_with
from ..handler import payload


def refusal(body: bytes, content_type: str | None) -> dict[str, Any] | None:
    """What `PayloadError` is made of, None when there is nothing to say against the body."""
    try:
        payload.parse(body, content_type)
    except PayloadError as error:
        return {"message": error.message, **error.details}
    return None


def serve(bodies: BinaryIO, answers: int) -> None:
    while head := bodies.readline():
        about = json.loads(head)
        body = bodies.read(about["size"])
        if len(body) < about["size"]:
            return
        said = json.dumps(refusal(body, about["content_type"])).encode() + b"\n"
        while said:
            said = said[os.write(answers, said) :]
        del body  # it may be long until the next one
        gc.collect()


def _go_first() -> None:
    """Where memory ends, the kernel is to end this process (Linux): the gateway and the store have others to serve, and this one is replaced."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(int(sys.argv[1]))
    _go_first()
    # Looking for cycles among a million objects that are still being made was half of what 10 MB of JSON took.
    gc.disable()
    with open(0, "rb", closefd=False) as bodies:
        try:
            serve(bodies, 0)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the gateway is gone


if __name__ == "__main__":
    main()
