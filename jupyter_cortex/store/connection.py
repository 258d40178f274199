"""Connecting to the store, and turning its troubles into one sentence with one remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..core.errors import EnvironmentProblem, StoreUnavailable

#: Seconds. redis-py's own defaults (5 s with 10 retries) would hold a caller for up to a minute; we say "away" and let it retry.
CONNECT_TIMEOUT = 2.0
CALL_TIMEOUT = 10.0

#: Errors of a server that is there but cannot serve now: full, loading, read-only, failing to write its log. The first word of the reply (`word_of`).
TEMPORARY = ("LOADING", "OOM", "READONLY", "MISCONF", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "NOSCRIPT")


#: redis-py makes a class of the first word of these, and takes it out of the text.
_CLASSES: dict[type[redis.RedisError], str] = {
    redis.BusyLoadingError: "LOADING",
    redis.OutOfMemoryError: "OOM",
    redis.ReadOnlyError: "READONLY",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.TryAgainError: "TRYAGAIN",
    redis.exceptions.NoScriptError: "NOSCRIPT",
}
#: What redis-py puts before the text of an error within a pipeline.
_IN_PIPELINE = " of pipeline caused error: "
#: How Redis before 7 says what a command within a script was refused with: ``ERR Error running script (…): @user_script:4: @user_script: 4: -OOM …``.
_IN_SCRIPT = re.compile(r"^ERR .*@user_script: ?\d+: -?([A-Z]+) ")


def word_of(error: BaseException) -> str:
    """The first word of an error reply, as the server said it."""
    for kind, word in _CLASSES.items():
        if isinstance(error, kind):
            return word
    said = str(error).rpartition(_IN_PIPELINE)[2]
    if in_script := _IN_SCRIPT.search(said):
        return in_script[1]
    return said.split(" ", 1)[0]


def connect(url: str, *, timeout: float | None = CALL_TIMEOUT) -> redis.Redis:
    """A client that never retries by itself and answers bytes.

    ``url``: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user and password where needed. ``timeout``: seconds per call, None to block.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=CONNECT_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        decode_responses=False,
    )


#: The oldest server that knows every command of the scripts.
OLDEST = (6, 2)


def check(url: str) -> list[str]:
    """See that a store answers at the URL that the user has set, and that it keeps what it is given; :func:`risks` of it.

    Raises EnvironmentProblem, which shows its address without user and password.
    """
    setting = "JUPYTER_CORTEX_REDIS_URL"
    try:
        parts = urlsplit(url)
        address = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
        client = connect(url, timeout=CALL_TIMEOUT)
    except ValueError:
        raise EnvironmentProblem(f"{setting} is no store's URL; write redis://HOST:PORT/0, rediss://… for TLS, or unix:///PATH") from None
    try:
        client.ping()
        return risks(client)
    except (redis.RedisError, OSError) as error:
        if word_of(error) in TEMPORARY:  # it is there, and will take calls
            return []
        raise EnvironmentProblem(f"{explain(error)} at {address}, which {setting} names: start it there, or set the right URL") from error
    finally:
        client.close()


def risks(client: redis.Redis) -> list[str]:
    """What this server may lose of what was accepted, by its own settings: a sentence with the remedy for each.

    Raises EnvironmentProblem for one that cannot serve: too old, or made to forget when its memory is full.
    """
    unseen = "see that it has appendonly yes, appendfsync always and maxmemory-policy noeviction"
    try:
        about: dict[str, Any] = client.info()  # type: ignore[assignment]
    except redis.ResponseError as error:
        if word_of(error) in TEMPORARY:
            raise
        return [f"what the store keeps cannot be seen from here (it allows no INFO): {unseen}"]
    version = tuple(int(part) for part in str(about.get("redis_version", "")).split(".")[:2] if part.isdigit())
    if version and version < OLDEST:
        raise EnvironmentProblem(f"the store is Redis {about['redis_version']}, and 6.2 is the oldest that will do; take a newer one, or Valkey")
    policy = str(about.get("maxmemory_policy", "noeviction"))
    if about.get("maxmemory") and policy != "noeviction":
        raise EnvironmentProblem(
            f"the store forgets requests when its memory is full (maxmemory-policy {policy}); set it to noeviction: then submits are refused instead"
        )
    if about.get("aof_enabled", 1) == 0:
        remedy = "`CONFIG SET appendonly yes` and `CONFIG SET appendfsync always`, in its configuration file, too"
        return [f"the store keeps no log of its writes (appendonly no): what was accepted is lost when it ends; {remedy}"]
    try:
        fsync = text(next(iter(client.config_get("appendfsync").values()), ""))  # type: ignore[union-attr]
    except redis.ResponseError:
        return [f"whether the store syncs each write cannot be seen from here (it allows no CONFIG): {unseen}"]
    if fsync == "always":
        return []
    remedy = "`CONFIG SET appendfsync always`, in its configuration file, too, if that must not be"
    return [f"the store does not sync each write (appendfsync {fsync}): the last seconds before a power cut may be lost; {remedy}"]


def explain(error: BaseException) -> str:
    """Why the store did not answer, without its address or credentials."""
    word = word_of(error)
    reasons = {
        "LOADING": "it is reading its data from disk",
        "OOM": "its memory is full",
        "READONLY": "it only takes reads (it is a replica)",
        "MISCONF": "it cannot write to its disk",
        "BUSY": "a long script holds it",
        "NOAUTH": "it wants a password",
        "WRONGPASS": "it refused the user or password",
    }
    if word in reasons:
        return f"the store does not take this now: {reasons[word]}"
    if isinstance(error, redis.AuthenticationError):
        return "the store refused the user or password"
    if isinstance(error, (redis.TimeoutError, TimeoutError)):
        return "the store did not answer in time"
    return "the store cannot be reached"


def is_temporary(error: BaseException) -> bool:
    """Whether waiting may help: no connection, no answer, or a server that says so itself."""
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError, EOFError)):
        return True
    return isinstance(error, redis.ResponseError) and word_of(error) in TEMPORARY


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn redis-py's errors into StoreUnavailable where waiting may help; others (our own mistakes) pass."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        if not is_temporary(error):
            raise
        # Only who was refused knows that nothing happened: after a lost connection or a timeout it may have.
        refused = isinstance(error, redis.ResponseError)
        raise StoreUnavailable(f"{explain(error)}; {'nothing was changed, ' if refused else ''}try again", retry_after=1) from error


def text(value: Any) -> Any:
    """Bytes of a reply as str, None and numbers as they are."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def pairs(reply: Any) -> dict[str, str]:
    """A HGETALL reply as a dict of str."""
    return {text(key): text(value) for key, value in reply.items()}
