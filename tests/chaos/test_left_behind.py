"""When it is over, it is over: no process, file, socket or key is left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from jupyter_cortex.operator.embedded import EmbeddedStore
from jupyter_cortex.operator.home import Home, _reserved
from jupyter_cortex.serving.board import SLOT, SLOTS, Board
from jupyter_cortex.store import keys

from ..conftest import Environment, ProjectMaker, runs, wait_until
from .means import processes_of
from .test_alive import elsewhere

PARENT = """
import os
import subprocess

class Handler:
    def handle_async(self, payload):
        if payload == "child":
            return {"pid": subprocess.Popen(["sleep", "600"]).pid}
        if payload == "daemon":
            return {"pid": subprocess.Popen(["sleep", "600"], start_new_session=True).pid}
        if payload == "clone":
            pid = os.fork()
            return {"pid": pid or os.getpid()}
        return {"pid": os.getpid()}
"""


#: The inheritor of orphans, as a container's program is, and it reaps none: what is ended stays as a zombie.
INHERITS = """
import ctypes, os, subprocess, sys
from pathlib import Path

import psutil

from jupyter_cortex.operator.machine import end_left_by_handlers

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
projects = Path(sys.argv[1])
env = {**os.environ, "CORTEX_PROJECT_DIR": str(projects / "left-v1-0123abcd" / "project")}
leaves = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid)"
left = psutil.Process(int(subprocess.check_output([sys.executable, "-c", leaves], env=env)))
end_left_by_handlers(projects, patience=3600)
print(left.ppid() == os.getpid(), left.status())
"""


def started(environment: Environment, *how: str) -> list[int]:
    client = environment.client()
    return [client.result("parent", client.submit("parent", one), wait=30).result["pid"] for one in how]


def running(pids: list[int]) -> list[int]:
    return [pid for pid in pids if runs(pid)]


def temporary() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob(f"cortex-{os.getuid()}-*")}


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux hands orphans to somebody else than init")
def test_what_handlers_left_is_over_when_it_is_a_zombie_whoever_should_reap_it(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-c", INHERITS, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (said.stdout, said.stderr) == ("True zombie\n", "")


def test_down_leaves_no_process_socket_or_file(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    before = temporary()
    environment = own_environment()
    port = urlsplit(environment.url).port
    project("parent", PARENT, spec="autoscaling: {min_replicas: 2}").deploy(environment)
    pids = started(environment, "child", "daemon", "clone", "self")
    assert running(pids) == pids
    # Whom a crash left behind counts, too.
    os.kill(environment.slot("worker-parent-1").pid() or 0, signal.SIGKILL)
    pids += started(environment, "daemon")
    environment.down()
    assert running(pids) == []
    assert processes_of(environment.home) == []
    left = [path for path in environment.home.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert left == []
    run = {path.name for path in Home(environment.home).run.iterdir()}
    assert run - {"operator.lock", "gateway.lock", "store.lock", "worker-parent-1.lock", "chain.json"} == set()
    assert all(environment.slot(name.removesuffix(".lock")).pid() is None for name in run if name.endswith(".lock"))
    # The port that it keeps stays noted, so that no other environment chooses it meanwhile.
    assert temporary() - before <= {f"cortex-{os.getuid()}-port-{port}"}


def test_down_right_after_a_worker_s_death_leaves_nothing_of_it(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    project("parent", PARENT, spec="autoscaling: {min_replicas: 2}").deploy(environment)
    run = Home(environment.home).run
    os.kill(environment.slot("worker-parent-1").pid() or 0, signal.SIGKILL)
    wait_until(lambda: list(run.glob("*.buried")), "its replicas' boards are kept for a second look")
    environment.down()
    assert [path.name for path in run.iterdir() if path.suffix in (".buried", ".board")] == []


def test_a_replica_s_children_end_with_it(environment: Environment, project: ProjectMaker) -> None:
    project("parent", PARENT).deploy(environment, take_over=True)
    child, clone, replica = started(environment, "child", "clone", "self")
    os.kill(replica, signal.SIGKILL)
    wait_until(lambda: replica not in running([replica]), "the replica is gone")
    wait_until(lambda: not running([child, clone]), "they are gone")
    assert started(environment, "self") != [replica], "another replica serves, without them"
    assert running([child, clone]) == []
    environment.client().delete("parent")


def test_a_deleted_api_leaves_no_key_and_others_only_keys_that_expire(environment: Environment, project: ProjectMaker) -> None:
    project("gone", PARENT, spec="autoscaling: {min_replicas: 2}").deploy(environment)
    client = environment.client()
    with environment.redis() as store:
        ids = [client.submit("gone", "self") for _ in range(20)]
        assert {client.result("gone", one, wait=30).status for one in ids} == {"completed"}
        os.kill(environment.processes("replica", "gone")[0]["pid"], signal.SIGKILL)
        for kind in "wre":
            for key in store.scan_iter(f"{keys.prefix('gone')}:{kind}:*"):
                assert store.ttl(key) > 0, key
        client.delete("gone")
        left: Callable[[], list[bytes]] = lambda: sorted(store.scan_iter(f"{keys.prefix('gone')}:*"))  # noqa: E731
        wait_until(lambda: not left() and not store.sismember(keys.APIS, "gone"), "its keys are gone")
        # Nor does anybody who was on the way write one again.
        time.sleep(2)
        assert left() == []


def test_no_other_environment_chooses_the_port_of_one_that_is_down(tmp_path: Path) -> None:
    first, second = Home(tmp_path / "first"), Home(tmp_path / "second")
    for home in (first, second):
        home.make()
    port = first.config().port
    marker = Path(tempfile.gettempdir()) / f"cortex-{os.getuid()}-port-{port}"
    # Long ago.
    os.utime(marker, (1, 1))
    assert second.config().port != port
    # An environment that is no more keeps none.
    (first.path / "config.json").unlink()
    assert _reserved(port, tmp_path / "third")


def test_a_worker_elsewhere_writes_no_key_of_an_api_that_was_deleted(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    counting = PARENT.replace(
        "class Handler:", "class Handler:\n    def __init__(self, config, metrics_client):\n        self.metrics = metrics_client\n"
    )
    counting = counting.replace(
        '        if payload == "child"', "        self.metrics.increment('calls')\n        print('called')\n        if payload == \"child\""
    )
    project("farewell", counting).deploy(environment)
    client = environment.client()
    here = environment.processes("replica", "farewell")[0]["pid"]

    def answered() -> int:
        return int(client.result("farewell", client.submit("farewell", "self"), wait=60).result["pid"])

    with elsewhere(environment, "farewell", tmp_path / "elsewhere"), environment.redis() as store:
        wait_until(lambda: answered() != here, "the one elsewhere has worked")
        client.delete("farewell")
        wait_until(lambda: not store.sismember(keys.APIS, "farewell"), "it is gone")
        time.sleep(2)
        assert list(store.scan_iter(f"{keys.prefix('farewell')}:*")) == []


# A full disk --------------------------------------------------------------------------------------------------------------------------


def test_a_store_whose_disk_was_full_starts_again(tmp_path: Path) -> None:
    """A full disk leaves the note of who wrote the data empty."""
    home = Home(tmp_path / "home")
    home.make()
    (home.store / "server-version").write_text("")
    store = EmbeddedStore(home)
    store.start()
    store.wait()
    try:
        assert (home.store / "server-version").read_text().split()[0] in ("valkey", "redis")
    finally:
        assert store.stop()
    assert not home.socket.exists()


def test_a_board_takes_its_room_when_it_is_made(tmp_path: Path) -> None:
    board = Board(tmp_path / "board")
    assert board.path.stat().st_blocks * 512 >= SLOT * SLOTS, "a hole: posting into it on a full disk would kill the replica"
    board.remove()


def test_the_child_that_rewrites_a_killed_store_s_file_does_not_keep_the_next_one_out(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    store = EmbeddedStore(home)
    store.start()
    store.wait()
    with redis.Redis.from_url(home.redis_url()) as client:
        # Slow enough that the child lives when its parent dies.
        client.config_set("rdb-key-save-delay", 1_000_000)
        client.mset({f"k{number}": number for number in range(100)})
        client.bgrewriteaof()
        parent = store.pid()
        assert parent
        child = wait_until(lambda: psutil.Process(parent).children(), "it rewrites its file")[0]
    os.kill(parent, signal.SIGKILL)
    # All of its threads, too: until then it counts as one that runs.
    wait_until(lambda: store.child is None or store.child.poll() is not None, "it is dead")
    try:
        store.start()
        store.wait()
        assert store.pid() != parent
        wait_until(lambda: running([child.pid]) == [], "the child is gone")
        with redis.Redis.from_url(home.redis_url()) as client:
            assert client.get("k99") == b"99"
    finally:
        store.stop()


@pytest.mark.parametrize("role", ["operator", "gateway"])
def test_who_keeps_the_others_running_is_started_again(role: str, own_environment: Callable[..., Environment]) -> None:
    environment = own_environment()
    for _ in range(2):
        killed = wait_until(lambda: environment.slot(role).pid(), f"there is a {role}")
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda killed=killed: environment.slot(role).pid() not in (None, killed), f"another {role} runs")
    assert environment.slot(role).pid() is not None
