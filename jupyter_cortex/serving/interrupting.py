"""Ending what runs in this replica: asked first, then interrupted. What does not end then is the supervisor's to end (``enforcement.py``).

Asking: `cancelled` is true from then on, `progress` raises, and the task of an ``async`` handler is cancelled.
Interrupting raises in the handler's thread: by a signal on the main thread, which also ends ``time.sleep`` and ``subprocess.run``; by an asynchronous
exception on others, which comes with their next line of Python. Nothing here costs a workload that is not to end more than a comparison.
"""

from __future__ import annotations

import ctypes
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..handler import errors_text, log_context
from ..handler.live import Cancelled, DeadlineExceeded, Interrupted, Progress, Stage

#: Ignored where nobody handles it, so that a stray one ends nothing; no library of ours or of the usual ones uses it in Python.
SIGNAL = signal.SIGURG
#: How soon it is looked whether a signal has come.
AGAIN_S = 0.01
#: Ids that were cancelled and have not come to a handler. They are in this process, or on their way to it, or were given back.
EXPECTED_MAX = 10_000
#: Seconds after a cancel in which a thread may still be between its look at `expected` and the handler: it passes in microseconds, or writes a start
#: mark into a pipe on the way. Looked for so often.
ENTERING_S, ENTERING_STEP_S = 2.0, 0.02


def patience(grace: float) -> float:
    """Seconds after which a request that was asked to end is taken for one that does not."""
    return 2 * grace + 0.5


def _raise_in(ident: int, kind: type[Interrupted] | None) -> None:
    """Put an asynchronous exception into a thread; None takes back one that has not come yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None if kind is None else ctypes.py_object(kind))


def too_long(seconds: float, whose: str) -> str:
    """The message of a workload that ran for longer than it may."""
    return f"the workload has run for longer than {seconds:g} s ({whose})"


class Interrupter:
    """``grace``: seconds between asking and interrupting. ``wake``: makes the control thread, which calls `step`, look at once.

    `stage` and `is_cancelled` are called by the threads that run handlers, `cancel` and `step` by the control thread.
    """

    def __init__(self, grace: float, project_dir: str, wake: Callable[[], None]) -> None:
        self._grace, self._project_dir, self._wake = grace, project_dir, wake
        self._stages: list[Stage] = []
        #: What was cancelled and must not begin; empty, mostly, and then nobody asks `is_cancelled`.
        self.expected: dict[str, None] = {}
        #: When (monotonic) to interrupt, by the request that has been asked to end.
        self._due: dict[log_context.Request, float] = {}
        #: The request that the signal has interrupted, and the same once that is known here.
        self._hit: log_context.Request | None = None
        self._landed: log_context.Request | None = None
        self._looks_at = 0.0
        self._entering_until = 0.0
        self._main = threading.main_thread().ident

    @property
    def patience(self) -> float:
        """Seconds after the end of a request's time in which it should have ended: it is asked, interrupted, and given time to clean up."""
        return patience(self._grace)

    def install(self) -> None:
        """On the main thread."""
        signal.signal(SIGNAL, self._on_signal)

    # Threads that run handlers -----------------------------------------------------------------------------------------------------------

    def stage(self, tell: Callable[[str, Progress], None]) -> Stage:
        """A stage for the calling thread."""
        made = Stage(tell, lambda ident: _raise_in(ident, None))
        self._stages.append(made)
        return made

    def is_cancelled(self, request_id: str) -> bool:
        """Whether this workload must not begin. Asked when something was cancelled at all."""
        return self.expected.pop(request_id, self) is None

    def limit(self, stage: Stage, seconds: float) -> None:
        """The request that enters next has so many seconds."""
        stage.deadline = time.monotonic() + seconds
        if stage.deadline < self._looks_at:
            self._wake()

    def _on_signal(self, *_: Any) -> None:
        """On the main thread, between two of its instructions: what is true here is true when it raises."""
        for stage in self._stages:
            request = stage.request
            if stage.ident == self._main and request is not None and request.ending is not None and request in self._due:
                if request is self._hit:
                    return
                self._hit = request
                if log_context.guard.busy:
                    log_context.guard.after = request.ending  # half a line would be lost, and the next one with it
                    return
                raise request.ending()

    # The control thread ------------------------------------------------------------------------------------------------------------------

    def cancel(self, request_id: str) -> None:
        """Its caller has taken it back: it ends, or does not begin."""
        # Before the look: a thread that enters it now is seen here or by the next steps, or sees this.
        self.expected[request_id] = None
        self._entering_until = time.monotonic() + ENTERING_S
        while len(self.expected) > EXPECTED_MAX:
            self.expected.pop(next(iter(self.expected)), None)
        for stage in self._stages:
            request = stage.request
            if request is not None and request.request_id == request_id:
                self.expected.pop(request_id, None)
                self._ask(request, Cancelled, stage)

    def step(self) -> float:
        """Do what is due; the seconds until something may be due again."""
        now = time.monotonic()
        inside = {stage.request for stage in self._stages}
        for gone in [request for request in self._due if request not in inside]:
            del self._due[gone]
        due = math.inf
        if self.expected and now < self._entering_until:
            due = now + ENTERING_STEP_S
            for stage in self._stages:
                request = stage.request
                if request is not None and self.is_cancelled(request.request_id):
                    self._ask(request, Cancelled, stage)
        for stage in self._stages:
            request = stage.request
            if request is None:
                if stage.deadline > now:
                    due = min(due, stage.deadline)  # it is about to enter
                continue
            if request.ending is None and stage.deadline:
                if now >= stage.deadline and request is stage.request:
                    self._ask(request, DeadlineExceeded, stage)
                else:
                    due = min(due, stage.deadline)
            if (at := self._due.get(request)) is not None:
                if now >= at:
                    at = self._due[request] = now + self._interrupt(stage, request)
                due = min(due, at)
        self._looks_at = due
        return due - now

    def _ask(self, request: log_context.Request, kind: type[Interrupted], stage: Stage) -> None:
        if request.ending is not None:
            return
        if kind is DeadlineExceeded:
            request.where = self._where(stage, request)
        request.ending = kind
        self._cancel_task(request)
        self._due[request] = time.monotonic() + self._grace

    def _where(self, stage: Stage, request: log_context.Request) -> str:
        if request.task is None:
            return errors_text.stack_text(sys._current_frames().get(stage.ident), self._project_dir)
        coroutine, frames = request.task.get_coro(), []
        while getattr(coroutine, "cr_frame", None) is not None:
            frames.append(coroutine.cr_frame)
            coroutine = coroutine.cr_await
        return errors_text.stack_text(None, self._project_dir, frames)

    @staticmethod
    def _cancel_task(request: log_context.Request) -> bool:
        task = request.task
        if task is None:
            return False
        try:
            task.get_loop().call_soon_threadsafe(task.cancel)
        except RuntimeError:
            pass  # the loop is closed
        return True

    def _interrupt(self, stage: Stage, request: log_context.Request) -> float:
        """Interrupt it once more; in how many seconds again, should it still be inside: a bare ``except`` may have swallowed this one."""
        again = max(self._grace, 0.5)
        if self._cancel_task(request):
            return again  # its coroutine shares a thread with others, which must not be hit
        if stage.ident == self._main:
            if self._hit is request and self._landed is not request:
                self._landed = request
                return again
            if self._hit is request:
                self._hit = self._landed = None
            signal.pthread_kill(stage.ident, SIGNAL)
            return AGAIN_S
        with stage.lock:
            stage.pending = True
            if stage.request is request and request.ending is not None:
                _raise_in(stage.ident, request.ending)
        return again
