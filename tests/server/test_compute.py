"""``compute`` of the spec on one machine: threads for a share of the cores, a limit of memory, GPUs of one's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import DeployFailed
from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.operator import machine
from jupyter_cortex.project import provenance
from jupyter_cortex.project.environment import THREADS, threads
from jupyter_cortex.serving import gpus

from ..conftest import Environment, ProjectMaker, wait_until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process in this way")
#: Says where it runs; takes `mb` for a moment, or for good.
HUNGRY = """
import os, resource

class Handler:
    def __init__(self, config):
        self.kept = [b"x" * (config.get("mb", 0) << 20)]

    def handle_async(self, payload):
        if payload.get("abort"):
            os.abort()
        taken = bytearray(b"x") * (payload.get("mb", 0) << 20)
        if payload.get("keep"):
            self.kept.append(taken)
        return {"pid": os.getpid(), "env": dict(os.environ), "limit": resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY}
"""


def ask(environment: Environment, name: str, payload: Any = None) -> Any:
    client = environment.client()
    return client.result(name, client.submit(name, payload or {}), wait=60)


# Threads ------------------------------------------------------------------------------------------------------------------------------------


def test_the_default_share_limits_nothing(environment: Environment, project: ProjectMaker) -> None:
    project("plain-compute", HUNGRY).deploy(environment)
    found = ask(environment, "plain-compute").result
    assert not set(THREADS) & set(found["env"])
    assert found["limit"], "no limit of memory, either"
    assert "CUDA_DEVICE_ORDER" not in found["env"]


def test_a_share_of_the_cores_rounded_up_is_the_number_of_threads_unless_the_spec_says_another(
    environment: Environment, project: ProjectMaker
) -> None:
    project("shared-cores", HUNGRY, "compute: {cpu: 1500m}", handler_spec="env: {MKL_NUM_THREADS: '7'}").deploy(environment)
    found = ask(environment, "shared-cores").result["env"]
    assert {name: found[name] for name in THREADS} == {**dict.fromkeys(THREADS, str(min(2, machine.cpus()))), "MKL_NUM_THREADS": "7"}


def test_a_share_larger_than_the_machine_is_the_machine() -> None:
    assert set(threads({"cpu": "1000"}).values()) == {str(machine.cpus())}
    assert set(threads({"cpu": "100m"}).values()) == {"1"}
    assert threads({"cpu": None}) == threads({"cpu": "0.2"}) == threads({}) == {}


# Memory -------------------------------------------------------------------------------------------------------------------------------------


@LINUX
def test_a_request_that_needs_more_memory_fails_and_says_so_and_its_replica_goes_on(environment: Environment, project: ProjectMaker) -> None:
    project("hungry", HUNGRY, "compute: {mem: 128Mi}").deploy(environment)
    before = ask(environment, "hungry", {"mb": 100})
    assert before.status == "completed", before
    failed = ask(environment, "hungry", {"mb": 400})
    assert failed.status == "failed"
    assert failed.error["type"] == "MemoryError"
    assert "it needs more than the 128Mi of compute.mem" in failed.error["message"]
    assert environment.client().workload("hungry", failed.id)["attempts"] == 1
    assert ask(environment, "hungry", {"mb": 100}).result["pid"] == before.result["pid"]


@LINUX
def test_a_replica_that_keeps_all_its_memory_makes_way_for_a_fresh_one(environment: Environment, project: ProjectMaker) -> None:
    project("keeping", HUNGRY, "compute: {mem: 128Mi}").deploy(environment)
    first = ask(environment, "keeping", {"mb": 1, "keep": True}).result["pid"]
    answers = [ask(environment, "keeping", {"mb": 10, "keep": True}) for _ in range(30)]
    assert {answer.status for answer in answers} == {"completed", "failed"}
    assert all("128Mi" in answer.error["message"] for answer in answers if answer.status == "failed")
    assert wait_until(lambda: ask(environment, "keeping").result["pid"] != first, "another replica answers")


@LINUX
def test_a_handler_that_cannot_start_within_its_memory_leaves_the_old_one_serving(environment: Environment, project: ProjectMaker) -> None:
    project("grows", HUNGRY, "compute: {mem: 128Mi}").deploy(environment)
    with pytest.raises(DeployFailed, match=r"it holds \d+ MiB, more than the 128Mi of compute\.mem: raise that, or load less"):
        project("grows", HUNGRY, "compute: {mem: 128Mi}", handler_spec="config: {mb: 400}").deploy(environment)
    assert ask(environment, "grows").status == "completed"


@LINUX
def test_native_code_that_cannot_bear_it_leaves_a_reason_that_points_at_the_memory(environment: Environment, project: ProjectMaker) -> None:
    project("aborting", HUNGRY, "compute: {mem: 128Mi}\nmax_deliveries: 1").deploy(environment)
    failed = ask(environment, "aborting", {"abort": True})
    assert "killed by SIGABRT; perhaps it needs more than the 128Mi of compute.mem" in failed.error["message"]


# GPUs ---------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``cards(2)``: an nvidia-smi first on PATH that knows two GPUs."""

    def install(count: int) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        tool = tmp_path / "bin" / "nvidia-smi"
        rows = "\n".join(f"{index}, GPU-{index}abc" for index in range(count))
        tool.write_text(f"#!/bin/sh\ncat <<'ROWS'\n{rows}\nROWS\n" if count else "#!/bin/sh\necho 'No devices were found'\nexit 6\n")
        tool.chmod(0o755)

    import os

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "no-driver")
    return install


@pytest.mark.parametrize(
    ("visible", "found"),
    [(None, ["0", "1", "2"]), ("2,0", ["2", "0"]), ("GPU-1abc", ["GPU-1abc"]), ("1,7,0", ["1"]), ("", []), ("-1", [])],
)
def test_the_gpus_are_those_that_the_tool_lists_and_the_environment_leaves(
    cards: Callable[[int], None], visible: str | None, found: list[str]
) -> None:
    cards(3)
    assert gpus.listed({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == found


def test_each_replica_has_gpus_of_its_own_and_too_many_are_refused(
    cards: Callable[[int], None], own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    cards(2)
    environment = own_environment()
    two = "compute: {gpu: 1}\nautoscaling: {min_replicas: 2}"
    with pytest.raises(DeployFailed, match=r"compute.gpu is 3, and this machine has 2 GPUs; make it smaller"):
        project("many", HUNGRY, "compute: {gpu: 3}").deploy(environment)
    project("pair", HUNGRY, two).deploy(environment)
    assert held(environment, "pair", 2) == {"0", "1"}
    with pytest.raises(DeployFailed, match=r"compute.gpu is 1, and of this machine's 2 GPUs 0 are free: pair has the others"):
        project("late", HUNGRY, "compute: {gpu: 1}").deploy(environment)
    # Nothing would ever be replaced if the next version had to wait for cards of its own.
    project("pair", HUNGRY + "\n# changed\n", two).deploy(environment)
    assert held(environment, "pair", 2) == {"0", "1"}
    environment.client().delete("pair")
    project("late", HUNGRY + "\n# again\n", "compute: {gpu: 2}\nautoscaling: {min_replicas: 2}").deploy(environment)
    assert ask(environment, "late").result["env"]["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "capped at 1: 2 GPUs, 2 for each" in str(environment.client().get_api("late"))


def held(environment: Environment, name: str, replicas: int) -> set[str]:
    """What the replicas of the live version see, each of them something else."""
    client = environment.client()

    def look() -> dict[int, str]:
        results = [client.result(name, client.submit(name, {}), wait=30).result for _ in range(8)]
        return {result["pid"]: result["env"]["CUDA_VISIBLE_DEVICES"] for result in results if result["env"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"}

    seen = wait_until(lambda: found if len(found := look()) == replicas else None, f"{replicas} replicas answer")
    assert len(set(seen.values())) == replicas
    return set(seen.values())


def test_a_machine_without_gpus_refuses_a_version_that_wants_one(
    cards: Callable[[int], None], own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    cards(0)
    with pytest.raises(DeployFailed, match=r"this machine has no GPU that nvidia-smi knows; remove compute\.gpu"):
        project("cardless", HUNGRY, "compute: {gpu: 1}").deploy(own_environment())


def test_where_memory_cannot_be_limited_a_deploy_says_so() -> None:
    document = {"name": "an-api", "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}}
    plain, limited = (check_specs([{**document, "compute": compute}], ["handler.py"])[0] for compute in ({}, {"mem": "128Mi"}))
    assert provenance.unlimited(limited, here=True, system="darwin")[0].startswith("compute.mem is ignored: only Linux")
    assert not provenance.unlimited(limited, here=True, system="linux")
    assert not provenance.unlimited(limited, here=False, system="darwin")
    assert not provenance.unlimited(plain, here=True, system="darwin")
