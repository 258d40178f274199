"""Processes that outlive whoever started them: who looks, who is told, and what ends nobody."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.operator.processes import Slot, Watch
from jupyter_cortex.serving.board import Board
from jupyter_cortex.serving.worker import choose_interpreter
from jupyter_cortex.store.registry import Registry

from ..conftest import Environment, ProjectMaker, wait_until


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EMFILE])
def test_where_ends_cannot_be_seen_they_are_polled_for_and_nobody_runs_in_circles(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    watch = Watch(lambda: told.append(1))

    def refused(pid: int, flags: int = 0) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refused, raising=False)
    watch.add(os.getpid())
    assert (told, watch.sees) == ([], False)


def test_those_who_look_at_an_empty_slot_at_once_all_see_it_empty(tmp_path: Path) -> None:
    slot = Slot(tmp_path, "role")
    fd = slot.take()
    assert fd is not None
    os.close(fd)  # its id stays in the file
    with ThreadPoolExecutor(8) as lookers:
        assert set(lookers.map(lambda _: slot.pid(), range(4000))) == {None}


def test_who_starts_a_process_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looked in that moment, and sent a signal, ended the operator instead of a worker."""
    slot, seen = Slot(tmp_path, "role"), []
    start = subprocess.Popen

    def slow(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        with ThreadPoolExecutor(1) as looker:
            looking = looker.submit(slot.pid)
            with pytest.raises(TimeoutError):
                looking.result(timeout=0.2)  # it waits
            process = start(*arguments, **options)
            looker.submit(lambda: seen.append(looking.result()))
            # As spawn does next.
            with slot.path.open("r+b") as file:
                file.write(f"{process.pid:<16}".encode())
            return process

    monkeypatch.setattr(subprocess, "Popen", slow)
    process = slot.spawn([sys.executable, "-c", "import time; time.sleep(60)"], {}, None, tmp_path)
    assert process
    assert seen == [process.pid]
    assert slot.pid() == process.pid
    process.kill()
    process.wait()
    assert slot.pid() is None


def test_one_whose_starter_was_killed_just_then_is_found_by_its_lock(tmp_path: Path) -> None:
    slot = Slot(tmp_path, "role")
    process = slot.spawn([sys.executable, "-c", "import time; time.sleep(60)"], {}, None, tmp_path)
    assert process
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    slot.path.write_text(f"{gone.pid}+".ljust(16))
    assert slot.pid() == process.pid
    assert slot.path.read_text().strip() == str(process.pid), "and said from then on"
    slot.path.write_text(f"{os.getpid()}+".ljust(16))
    assert not slot.signal(signal.SIGTERM), "a slow start: the starter is not meant"
    process.kill()
    process.wait()
    assert slot.pid() is None


def test_a_worker_that_is_told_to_look_while_it_imports_lives_on(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    project("imports").deploy(environment)
    slot = environment.slot("worker-imports-1")
    before = slot.pid()
    assert before
    os.kill(before, signal.SIGKILL)
    born = wait_until(lambda: (pid := slot.pid()) not in (None, before) and pid, "another one is there")
    for _ in range(20):
        os.kill(born, signal.SIGUSR1)
    client = environment.client()
    wait_until(lambda: [worker["pid"] for worker in client.get_api("imports")["workers"].values() if worker["ready"]] == [born], "it serves")


def test_a_machine_with_another_name_keeps_the_interpreter_that_a_version_was_made_with(environment: Environment, project: ProjectMaker) -> None:
    """A container has another host name each time it starts."""
    project("renamed").deploy(environment)
    with environment.redis() as store:
        deployment = Registry(store).deployment("renamed", 1)
    linked = environment.home / "another-python"
    linked.symlink_to(deployment.interpreter)
    renamed = replace(deployment, host="as-it-was-called-before", interpreter=str(linked))
    # Through the link it is the base interpreter, which lacks this package and so does not serve.
    assert choose_interpreter(renamed, at_home=True) != str(linked)
    renamed = replace(renamed, interpreter=deployment.interpreter)
    assert choose_interpreter(renamed, at_home=True) == deployment.interpreter
    environment.client().delete("renamed")


def test_a_board_that_cannot_be_made_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> mmap.mmap:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(OSError, match="No space left"):
        Board(tmp_path / "a-v1-00000000.board")
    assert not list(tmp_path.iterdir())
