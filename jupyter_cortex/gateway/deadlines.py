"""A caller's deadlines: the headers ``Cortex-Timeout`` and ``Cortex-Queue-Timeout``, in seconds."""

from __future__ import annotations

import re

from ..core.errors import BadRequest
from ..serving.intake import Limits

#: More is taken for this: what nobody has begun, or ended, in a day is not waited for.
LONGEST_S = 86_400.0
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{0,9})?|\.[0-9]{1,9}")
_NAMES = {"cortex-timeout": "Cortex-Timeout", "cortex-queue-timeout": "Cortex-Queue-Timeout"}


def limits_of(headers: dict[str, str] | None, queue_timeout: float | None) -> Limits:
    """Queue timeout and timeout in ms. A caller may ask for less than the API's ``queue_timeout``, not for more; so with the timeout, which replicas
    compare themselves. Raises BadRequest."""
    given = {name: _seconds(_NAMES[name], value) for name, value in (headers or {}).items()}
    waits = [seconds for seconds in (given.get("cortex-queue-timeout"), queue_timeout) if seconds]
    return _ms(min(waits, default=0.0)), _ms(given.get("cortex-timeout", 0.0))


def _seconds(name: str, value: str) -> float:
    seconds = float(value) if _NUMBER.fullmatch(value.strip()) else 0.0
    if seconds <= 0:
        raise BadRequest(f"{name} must be a number of seconds above 0, as in `{name}: 30`; leave it out for none", header=name)
    return min(seconds, LONGEST_S)


def _ms(seconds: float) -> int:
    """At least one, for 0 means none."""
    return max(1, round(seconds * 1000)) if seconds else 0
