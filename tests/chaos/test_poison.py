"""A workload that kills its replica each time ends failed, and says what it did."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_cortex.serving.memory import Kills, counter

from ..conftest import Environment, ProjectMaker, missing

POISON = """
import os
import resource

class Handler:
    def __init__(self, config):
        self.group = config.get("group")

    def handle_async(self, payload):
        if payload["do"] == "exit":
            os._exit(7)
        if payload["do"] == "limit":
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        if payload["do"] == "memory":
            with open(self.group, "w") as file:
                file.write(str(os.getpid()))
        if payload["do"] in ("memory", "limit"):
            held = [bytearray(os.urandom(1 << 20)) * 64 for _ in range(64)]
        os.kill(os.getpid(), payload["do"])
"""


def ended(environment: Environment, api: str, do: object) -> dict[str, object]:
    client = environment.client()
    request_id = client.submit(api, {"do": do})
    assert client.result(api, request_id, wait=50).status == "failed"
    return dict(client.workload(api, request_id))


@pytest.mark.parametrize(
    ("do", "reason"),
    [(9, "killed by SIGKILL"), (11, "killed by SIGSEGV"), (6, "killed by SIGABRT"), (40, "killed by signal 40"), ("exit", "exit status 7")],
    ids=str,
)
def test_poison_ends_failed_after_three_kills_with_the_signal_s_name(
    do: object, reason: str, environment: Environment, project: ProjectMaker
) -> None:
    project("poison", POISON).deploy(environment, take_over=True)
    workload = ended(environment, "poison", do)
    assert workload["deaths"] == 3
    error = workload["error"]
    assert isinstance(error, dict)
    assert (error["type"], error["message"]) == ("ReplicaDied", f"the replica died 3 times while it ran this workload (last: {reason})")


def test_a_handler_that_reaches_its_own_limit_fails_with_memory_error_and_kills_nobody(environment: Environment, project: ProjectMaker) -> None:
    project("poison", POISON).deploy(environment, take_over=True)
    workload = ended(environment, "poison", "limit")
    assert (workload["deaths"], workload["error"]["type"].rpartition(".")[2]) == (0, "MemoryError")  # type: ignore[index]


@pytest.fixture
def small_group() -> Iterator[Path]:
    """The file that puts a process into a control group of 64 MB. Making one takes root."""
    for root, limit in ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max")):
        group = root / f"cortex-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(64 << 20))
            yield group / "cgroup.procs"
            return
        except OSError:
            continue
        finally:
            subprocess.run(["rmdir", str(group)], check=False, capture_output=True)
    missing("no control group can be made here: it takes root and /sys/fs/cgroup")


def test_a_kill_for_want_of_memory_is_called_that(small_group: Path, own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    project("hungry", POISON, handler_spec=f"config: {{group: {small_group}}}").deploy(environment)
    workload = ended(environment, "hungry", "memory")
    assert "(last: killed by SIGKILL: out of memory)" in workload["error"]["message"]  # type: ignore[index]


def test_kills_are_read_from_our_own_control_group_before_the_machine_s(tmp_path: Path) -> None:
    for name in ("proc/self", "sys/fs/cgroup/mine"):
        (tmp_path / name).mkdir(parents=True)
    assert counter(tmp_path) is None
    assert Kills(tmp_path).lately() is None
    machine, ours = tmp_path / "proc/vmstat", tmp_path / "sys/fs/cgroup/mine/memory.events"
    machine.write_text("nr_free_pages 5\noom_kill 3\n")
    kills = Kills(tmp_path)
    assert kills.lately() is False
    machine.write_text("nr_free_pages 5\noom_kill 4\n")
    assert kills.lately() is True
    (tmp_path / "proc/self/cgroup").write_text("0::/mine\n")
    ours.write_text("low 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n")
    kills = Kills(tmp_path)
    machine.write_text("oom_kill 9\n")
    assert kills.lately() is False
    ours.write_text("oom 2\noom_kill 2\n")
    assert kills.lately() is True
