"""What the fuzzers share: an environment of their own, so that nothing they leave behind disturbs another test."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.conftest import Environment, Project, _end, wait_until
from tests.server.stage import Staged, staged

HANDLER = """
class Handler:
    def handle_async(self, payload):
        if payload == "fail":
            raise ValueError("as told")
        return {}
"""


class Watched:
    """A gateway under fire: which process it is, and what its store has accepted."""

    def __init__(self, environment: Environment, api: Staged) -> None:
        self.environment, self.api = environment, api
        self.url, self.token = environment.url, environment.token
        self.pid = environment.slot("gateway").pid()
        self._log = environment.home / "logs" / "gateway.log"
        self._logged = self._log.stat().st_size

    def accepted(self) -> tuple[int, int]:
        """Workloads of the resting API that were counted as accepted, and that wait in its queue."""
        prefix = f"cx:{{{self.api.name}}}"
        counted = sum(int(self.api.store.hget(key, "accepted") or 0) for key in self.api.store.scan_iter(f"{prefix}:m:*", count=1000))
        return counted, int(self.api.store.llen(f"{prefix}:queue"))

    def check_alive(self) -> None:
        """The same process, that answers, and wrote of no mistake of its own."""
        assert self.environment.slot("gateway").pid() == self.pid, "the gateway died"
        with self.environment.http() as web:
            assert web.get("/readyz").status_code == 200
        said = self._log.read_bytes()[self._logged :].decode(errors="replace")
        # uvicorn notices only at its next write that the sender of several requests at once has gone; nobody waits for those answers.
        mistakes = [part for part in said.split(" ERROR ") if "Traceback" in part and "the handler is closed" not in part]
        assert not mistakes, mistakes[0][:3000]


@pytest.fixture(scope="session")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Environment(tmp_path_factory.mktemp("fuzzed") / "cortex", {"JUPYTER_CORTEX_PORT": str(port)}).up()
    yield made
    _end(made)


@pytest.fixture
def watched(fuzzed: Environment) -> Iterator[Watched]:
    """An API that takes payloads and that nobody serves."""
    with staged(fuzzed, "resting", networking={"allow_origins": ["https://friend.example"]}) as api:

        def routed() -> bool:
            with fuzzed.http() as web:
                return web.get("/resting/nothing").json()["code"] == "workload_not_found"

        wait_until(routed, "the gateway knows the API")
        yield Watched(fuzzed, api)


@pytest.fixture(scope="module")
def deployed(fuzzed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An API that is served and has workloads of every final state, ``done`` and ``failed`` among them."""
    directory = tmp_path_factory.mktemp("deployed")
    (directory / "cortex.yaml").write_text("- name: served\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: handler.py\n")
    Project(directory, "served").write(HANDLER).deploy(fuzzed)
    client = fuzzed.client()
    with fuzzed.http() as web:
        for request_id, payload in (("done", "well"), ("failed", "fail")):
            assert web.post("/served", json=payload, headers={"x-request-id": request_id}).status_code == 200
            client.result("served", request_id, wait=20)
    yield "served"
    client.delete("served")
