"""An interruption hits the author's code and nothing else: tried some thousand times at the edges of a handler, on the main thread and on others."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jupyter_cortex.handler import execution, log_context
from jupyter_cortex.handler.instance import Instance
from jupyter_cortex.handler.live import Cancelled, Stage
from jupyter_cortex.serving.interrupting import SIGNAL, Interrupter

ROUNDS = 1500


class Spinning:
    """Computes for a moment; some of the time in a `finally` and behind an ``except Exception``."""

    def handle_async(self, payload: Any, request_id: str) -> dict[str, Any]:
        end = time.perf_counter() + payload["seconds"]
        try:
            while time.perf_counter() < end:
                pass
        except Exception:
            return {"swallowed": True}
        finally:
            sum(range(50))
        return {"whole": True}


@pytest.fixture
def handler() -> Iterator[Instance]:
    with Instance(Spinning) as made:
        yield made


@pytest.fixture
def interrupter() -> Iterator[Interrupter]:
    before = signal.getsignal(SIGNAL)
    made = Interrupter(0.0, "/", lambda: None)
    made.install()
    yield made
    signal.signal(SIGNAL, before)


def _work(interrupter: Interrupter, handler: Instance, current: dict[str, str], name: str, ends: Counter[str]) -> None:
    """What a replica's thread does, without its store. Raises what should never come here."""
    stage = interrupter.stage(lambda *said: None)
    dice = random.Random(name)
    for number in range(ROUNDS):
        request_id = f"{name}-{number}"
        current[name] = request_id
        if interrupter.expected and interrupter.is_cancelled(request_id):
            ends["not begun"] += 1
            continue
        body = f'{{"seconds": {dice.random() * 0.0006}}}'.encode()
        outcome = execution.execute(handler, body, "application/json", request_id, "/", stage=stage)
        assert outcome.status in ("completed", "cancelled"), outcome.error
        assert outcome.result in (b'{"whole":true}', b"")
        ends[f"{outcome.status} {type(outcome.exception).__name__}"] += 1
        # Ours, and no handler's: nothing may be raised here any more.
        for _ in range(20):
            assert stage.request is None
    current.pop(name)


def _disturb(interrupter: Interrupter, current: dict[str, str], over: Callable[[], bool]) -> None:
    dice = random.Random(1)
    while not over():
        for request_id in list(current.values()):
            interrupter.cancel(request_id)
        for _ in range(3):
            interrupter.step()
            time.sleep(dice.random() * 0.0004)


@contextlib.contextmanager
def disturbed(interrupter: Interrupter, *, every: float) -> Iterator[Stage]:
    """A stage on which whatever runs is cancelled, and interrupted again after so many seconds."""
    stage = interrupter.stage(lambda *said: None)
    over = threading.Event()

    def disturb() -> None:
        while not over.wait(every):
            if stage.request is not None:
                interrupter.cancel(stage.request.request_id)
            interrupter.step()

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        yield stage
    finally:
        over.set()
        disturbing.join()


def test_on_the_main_thread(interrupter: Interrupter, handler: Instance) -> None:
    current: dict[str, str] = {}
    ends: Counter[str] = Counter()
    over = threading.Event()
    disturbing = threading.Thread(target=_disturb, args=(interrupter, current, over.is_set))
    disturbing.start()
    try:
        _work(interrupter, handler, current, "main", ends)
    finally:
        over.set()
        disturbing.join()
    print(dict(ends))
    assert ends["cancelled Cancelled"], "nothing was interrupted: the test has tried nothing"


def test_on_four_threads(interrupter: Interrupter, handler: Instance) -> None:
    current: dict[str, str] = {}
    ends: Counter[str] = Counter()
    broken: list[BaseException] = []

    def run(name: str) -> None:
        try:
            _work(interrupter, handler, current, name, ends)
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=run, args=(f"thread{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    _disturb(interrupter, current, lambda: not any(thread.is_alive() for thread in threads))
    print(dict(ends))
    assert broken == []
    assert ends["cancelled Cancelled"], "nothing was interrupted: the test has tried nothing"
    assert sum(ends.values()) == 4 * ROUNDS


def test_a_log_line_is_written_whole(interrupter: Interrupter) -> None:
    """While a handler writes one it is left alone: half a line would be lost, and the next one with it."""
    from jupyter_cortex.handler import logs

    class Writing:
        def handle_async(self, request_id: str) -> dict[str, Any]:
            while True:
                logs.logger.info("x" * 200)

    lines: list[str] = []

    def write(line: str) -> None:
        lines.append(line[:10])
        time.sleep(0.0005)
        lines[-1] = line

    logs.setup_worker(write, labels={})
    try:
        with disturbed(interrupter, every=0.0003) as stage, Instance(Writing) as handler:
            ends = [execution.execute(handler, b"", "text/plain", f"w{number}", "/", stage=stage) for number in range(60)]
    finally:
        for one in [one for one in logs.logger.handlers if isinstance(one, logs.LineHandler)]:
            logs.logger.removeHandler(one)
    assert {type(end.exception) for end in ends} == {Cancelled}
    assert all(line.endswith("}") for line in lines)


def test_one_that_swallows_an_interruption_is_interrupted_again(interrupter: Interrupter) -> None:
    class Swallowing:
        def handle_async(self, request_id: str) -> dict[str, Any]:
            for _ in range(3):
                with contextlib.suppress(BaseException):
                    time.sleep(600)
            return {}

    with disturbed(interrupter, every=0.005) as stage, Instance(Swallowing) as handler:
        assert execution.execute(handler, b"", "text/plain", "one", "/", stage=stage).status == "cancelled"


def test_a_cancel_that_comes_between_the_last_look_and_the_handler_is_not_lost(interrupter: Interrupter) -> None:
    stage = interrupter.stage(lambda *said: None)
    assert not interrupter.expected, "the thread has looked: nobody is expected"
    interrupter.cancel("late")
    stage.request = request = log_context.Request("late")
    interrupter.step()
    assert request.ending is Cancelled
    assert not interrupter.expected
