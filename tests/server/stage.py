"""APIs that nobody serves: their workloads begin and end by the test's hand, through the engine's own scripts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.store import keys
from jupyter_cortex.store.scripts import CANCEL, COMMIT, RESYNC, SUBMIT
from tests.conftest import Environment, wait_until

REPLICA = "staged-v1-0001"


def spec_of(name: str, **more: Any) -> dict[str, Any]:
    document = {"name": name, "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}, **more}
    return check_specs([document], ["handler.py"])[0].resolved()


class Staged:
    """One API in a store."""

    def __init__(self, store: redis.Redis, name: str, **spec: Any) -> None:
        self.store, self.name = store, name
        self._numbers = itertools.count()
        self.spec = spec_of(name, **spec)
        fields: dict[Any, Any] = {"spec": json.dumps(self.spec), "endpoint": f"/{name}", "gate": "open", "source": "a test", "created": 1}
        store.hset(keys.api(name), mapping=fields)
        store.sadd(keys.APIS, name)
        store.incr(keys.REGISTRY_VERSION)

    def submit(self, request_id: str = "", body: bytes = b"{}", content_type: str = "application/json") -> str:
        # In the order of time, also within one ms.
        request_id = request_id or f"w{next(self._numbers):06}"
        assert SUBMIT.run(self.store, self.name, request_id, content_type, "d", len(body), body) == b"ok"
        return request_id

    def commit(
        self,
        start: Sequence[str] = (),
        finish: Sequence[tuple[str, str, str, str, str]] = (),
        take: int = 0,
        run_ms: float = 3.0,
        run: int = 1,
        began: int = 0,
    ) -> Any:
        """``finish``: (id, status, result, error, details). ``began``: 1 when their start is not marked yet."""
        ended = [part for one in finish for part in (*one, run_ms, began if run == 1 else f"{began} {run}")]
        retain = self.spec["retain"]
        terms = (REPLICA, 1, retain["days"] * 86400, retain["payload"], retain["max_bytes"])
        return COMMIT.run(self.store, self.name, *terms, "queue", take, 0, len(start), len(finish), 0, *start, *ended)

    def complete(self, *ids: str, run_ms: float = 3.0) -> None:
        """In one script, hence in one ms."""
        self.commit(finish=[(one, "completed", "{}", "", "") for one in ids], run_ms=run_ms)

    def fail(self, *ids: str, error: dict[str, str] | None = None, lines: Sequence[str] = ()) -> None:
        said = json.dumps(error or {"type": "ValueError", "message": "staged"})
        details = json.dumps({"traceback": "", "logs": list(lines)})
        self.commit(finish=[(one, "failed", "", said, details) for one in ids])

    def resync(self, *known: str) -> int:
        return int(RESYNC.run(self.store, self.name, REPLICA, *known))

    def cancel(self, request_id: str) -> None:
        CANCEL.run(self.store, self.name, request_id, 604800, 0)


def known(environment: Environment, api: str) -> None:
    """Until the gateway has heard of an API that was staged behind its back."""
    with environment.http() as web:
        wait_until(lambda: web.get(f"/{api}/x").json()["code"] == "workload_not_found", f"the gateway knows {api}")


@contextmanager
def staged(environment: Environment, name: str, **spec: Any) -> Iterator[Staged]:
    """An API in a running environment, deleted in the end."""
    with environment.redis() as store:
        made = Staged(store, name, **spec)
        known(environment, name)
        yield made
        with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as control:
            control.delete(f"/_cortex/v1/apis/{name}")
        wait_until(lambda: not store.exists(keys.events(name)), f"{name} is purged")
