"""A replica: one process, one Handler, started by a worker (supervisor) and living no longer than it.

Started as ``python -P -m jupyter_cortex.serving.replica <control fd> <status fd> <records fd> <supervisor's pid>``. The control pipe brings one line
of JSON (what to serve), then the words ``go``, ``drain`` and ``cancel <id>``; its end means that the supervisor is gone. The status pipe takes one
line of JSON per event: ``ready``, ``failed``, ``metrics``, ``drained``. Log records have a pipe of their own; what comes past the logger arrives on
stdout and stderr.

With one thread (the default) the constructor and every call run on the main thread, as in a notebook: Dramatiq's worker loop is run there.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.worker import Worker, WorkerThread

from ..core.errors import CortexError, HandlerError
from ..core.parent import die_with
from ..core.scalars import parse_quantity
from ..core.workload import stays
from ..handler import chaining, execution, loading, logs, memory, metrics, origin, result, shim
from ..handler import instance as instances
from ..handler.live import Progress, Stage
from ..handler.redaction import Redaction
from .board import Board
from .broker import CortexBroker, Delivery, Terms, Workload
from .interrupting import Interrupter, too_long

#: Seconds between two reports: the metrics client's numbers, and how many log lines were dropped.
REPORT_S = 2.0


class _Fifo(queue.SimpleQueue[Workload | None]):
    """Dramatiq's work queue. All workloads have one priority, and ordering 256 of them in a heap took as long as running two. None: stop."""

    def task_done(self) -> None:
        pass

    def take_back(self) -> list[Delivery]:
        """Everything that no thread has begun."""
        deliveries: list[Delivery] = []
        while True:
            try:
                workload = self.get_nowait()
            except queue.Empty:
                return deliveries
            if workload is None:
                self.put(None)
                return deliveries
            deliveries.append(workload.args[0])


class _Runner(WorkerThread):
    """Dramatiq's worker thread without its one-second polling: it blocks until a workload or the stop mark comes."""

    def run(self) -> None:
        self.running = True
        waiting: Any = self.work_queue
        while (workload := waiting.get()) is not None:
            self.process_message(workload)


class _Worker(Worker):
    """Dramatiq's worker; with one thread the runner is not started but run by the main thread."""

    def __init__(self, broker: dramatiq.Broker, *, work_queue: _Fifo, worker_threads: int) -> None:
        super().__init__(broker, worker_threads=worker_threads)
        self.work_queue = work_queue  # type: ignore[assignment]

    def _add_worker(self) -> None:
        runner = _Runner(broker=self.broker, consumers=self.consumers, work_queue=self.work_queue, worker_timeout=self.worker_timeout)
        self.workers.append(runner)
        if self.worker_threads > 1:
            runner.start()

    def run(self, until: threading.Event) -> None:
        """Work until `until` is set and the runners have stopped."""
        threading.Thread(target=self._stop_when, args=(until,), daemon=True).start()
        if self.worker_threads == 1:
            self.workers[0].run()
        else:
            for runner in self.workers:
                runner.join()

    def _stop_when(self, until: threading.Event) -> None:
        until.wait()
        for _ in self.workers:
            self.work_queue.put(None)  # type: ignore[arg-type]


class Execution:
    """From a delivery to its end, with the notebook's own `execute`; the board says what is inside the handler.

    ``retain``: the spec's; ``timeout``: seconds that the API gives a workload, 0 = any time.
    """

    def __init__(
        self, handler: instances.Instance, board: Board, project_dir: str, retain: dict[str, Any], interrupter: Interrupter, timeout: float
    ) -> None:
        self._handler, self._board, self._project_dir, self._retain = handler, board, project_dir, retain
        self._redaction = Redaction(retain["redact"]) if retain["redact"] else None
        self._interrupter, self._timeout, self._expected = interrupter, timeout, interrupter.expected
        #: Where the executed notebooks of a notebook handler are fetched, None for a Handler.
        self._notebooks: Callable[[str], bytes] | None = getattr(handler, "take_executed", None)
        self._own = threading.local()
        self._next_slot = iter(range(100)).__next__
        self.began: Callable[[Delivery], None] = lambda delivery: None
        self.tell: Callable[[str, Progress], None] = lambda request_id, progress: None
        self.exhausted: Callable[[], None] = lambda: None

    def __call__(self, delivery: Delivery) -> None:
        try:
            slot, stage = self._own.place
        except AttributeError:
            slot, stage = self._own.place = self._next_slot(), self._interrupter.stage(lambda *said: self.tell(*said))
        if delivery.timeout or self._timeout or stage.deadline:
            self._limit(delivery, slot, stage)
        self._board.post(slot, delivery.id)
        if self._expected and self._interrupter.is_cancelled(delivery.id):
            delivery.status = "cancelled"  # the store knows already
            self._board.clear(slot)
            return
        delivery.began = time.perf_counter()
        if not delivery.marked:
            self.began(delivery)
        outcome = execution.execute(
            self._handler,
            delivery.body,
            delivery.content_type,
            delivery.id,
            self._project_dir,
            run=delivery.run,
            redaction=self._redaction,
            stage=stage,
        )
        delivery.status, delivery.result, delivery.run_ms = outcome.status, outcome.result, outcome.run_ms
        delivery.error, delivery.details = outcome.error, outcome.details
        if self._notebooks is not None:
            delivery.notebook = self._notebooks(delivery.id)
        if self._redaction is not None and stays(self._retain, outcome.status, len(delivery.body)):
            kept = self._redaction.applied(delivery.body, delivery.content_type)
            delivery.kept = b"" if kept is delivery.body else kept
        self._board.clear(slot)
        if outcome.exception is not None and memory.note(outcome.exception):
            del outcome  # with what the handler's frames held
            gc.collect()
            if memory.full():
                self.exhausted()

    def _limit(self, delivery: Delivery, slot: int, stage: Stage) -> None:
        """Say until when it may run. A caller may ask for less than the API gives, not for more."""
        seconds, whose = self._timeout, "the API's timeout"
        if delivery.timeout and (not seconds or delivery.timeout < seconds):
            seconds, whose = delivery.timeout, "Cortex-Timeout"
        stage.deadline = 0.0
        if seconds:
            stage.limit = too_long(seconds, whose)
            self._interrupter.limit(stage, seconds)
        self._board.limit(slot, stage.deadline and stage.deadline + self._interrupter.patience)


class Status:
    """The status pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def tell(self, event: str, **facts: Any) -> None:
        line = (json.dumps({"event": event, **facts}) + "\n").encode()
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
            except OSError:
                pass  # the supervisor is gone; the control pipe's end stops us


class Replica:
    """Holds the process together: configuration, control words, life and end."""

    def __init__(self, control: int, status: Status, records: int) -> None:
        self._control, self._status, self._records = control, status, records
        self._buffer = b""
        self._go = threading.Event()
        self._drain: Callable[[], None] | None = None
        self._draining = threading.Event()
        self._looks = os.pipe()
        os.set_blocking(self._looks[1], False)
        self.registry = metrics.Registry()

    def run(self) -> int:
        config = json.loads(self._read_line())
        spec = config["spec"]
        os.chdir(config["project_dir"])
        self._start_logging(config, spec["handler"]["log_level"])
        result.limit(config["limits"]["max_result_bytes"])
        board = Board(Path(config["board"]))
        interrupter = self._interrupter = Interrupter(spec.get("cancel_grace", 1.0), config["project_dir"], self._look)
        interrupter.install()
        threading.Thread(target=self._listen, name="cortex-control", daemon=True).start()
        try:
            handler = self._construct(config, spec)
        except CortexError as error:
            # Its details reach who deploys; of a version that was live before, this line is all that its author gets.
            logs.logger.error(error.message, exc_info=error.__cause__, extra={"code": error.code})
            self._status.tell("failed", message=error.message, details=error.details)
            return 1
        self._status.tell("ready", pid=os.getpid())
        # After "ready": reading metadata takes milliseconds that nobody needs to wait for.
        if config["distributions"]:
            from ..project.drift import drift

            if moved := drift(config["distributions"]):
                self._status.tell("drift", moved=moved)
        self._go.wait()
        self._serve(config, spec, Execution(handler, board, config["project_dir"], spec["retain"], interrupter, spec.get("timeout") or 0.0))
        handler.close()
        self._report()
        self._status.tell("drained")
        return 0

    def _start_logging(self, config: dict[str, Any], level: str) -> None:
        def write(line: str) -> None:
            data = (line.rstrip("\n") + "\n").encode("utf-8", "backslashreplace")
            while data:
                data = data[os.write(self._records, data) :]

        logs.setup_worker(write, labels=config["labels"], level=level, rate=config["limits"]["log_rate"])
        logs.mask(config["secrets"])
        logs.capture_prints()
        shim.install()
        if chain := config["chain"]:
            chaining.install(chain["address"], chain["port"])

    def _construct(self, config: dict[str, Any], spec: dict[str, Any]) -> instances.Instance:
        section = spec["handler"]
        if mem := spec["compute"].get("mem"):
            memory.begin(mem, int(parse_quantity(mem)))
            threading.excepthook = self._thread_failed
        logs.logger.debug("loading the handler from %s", section["path"])
        origin.use_map(Path(config["project_dir"]), section["path"])
        if section["type"] == "notebook":
            return self._construct_notebook(config, spec)
        cls = loading.load_class(Path(config["project_dir"]), section["path"], section.get("python_path"))
        loading.check_class(cls, handler_type=section["type"], path=section["path"])
        handler = instances.Instance(
            cls,
            config=section["config"],
            metrics_client=metrics.MetricsClient(self.registry),
            handler_type=section["type"],
            tensorflow_client=instances.tensorflow_client(section, Path(config["project_dir"])),
            path=section["path"],
        )
        if trouble := memory.settle():
            raise HandlerError(f"error in {section['path']}: {cls.__name__}.__init__: {trouble}", stage="init", kind="memory", path=section["path"])
        return handler

    @staticmethod
    def _construct_notebook(config: dict[str, Any], spec: dict[str, Any]) -> Any:
        from ..handler.notebook.report import Report

        section, mem = spec["handler"], spec["compute"].get("mem")
        return Report(
            Path(config["project_dir"]),
            section["path"],
            config=section["config"],
            python_path=section.get("python_path"),
            log_level=section["log_level"],
            threads=section["threads_per_process"],
            redact=spec["retain"]["redact"],
            mem=(mem, int(parse_quantity(mem))) if mem else None,
        )

    def _serve(self, config: dict[str, Any], spec: dict[str, Any], execution: Execution) -> None:
        # 1 ms instead of 5: quick requests beside a pure-Python loop wait 3.8 ms instead of 11.4; it costs the drain nothing.
        sys.setswitchinterval(0.001)
        threads = spec["handler"]["threads_per_process"]
        retain = spec["retain"]
        # What a spec redacts goes before it is kept: only what this process has seen to stays.
        word, most = ("replaced", -1) if retain["redact"] else (retain["payload"], retain["max_bytes"])
        terms = Terms(config["api"], config["replica"], config["version"], word, most, retain["days"] * 86400)
        work_queue = _Fifo()
        broker = CortexBroker(config["redis_url"], terms, threads, work_queue.put, work_queue.take_back)
        execution.began, execution.tell, execution.exhausted = broker.consumer.began, broker.consumer.tell, self._make_way
        dramatiq.actor(actor_name="handle", queue_name=config["api"], broker=broker)(execution.__call__)
        worker = _Worker(broker, work_queue=work_queue, worker_threads=threads)
        self._drain = broker.consumer.drain
        if self._draining.is_set():
            broker.consumer.drain()
        worker.start()
        worker.run(broker.consumer.drained)
        for consumer in worker.consumers.values():
            consumer.stop()
        broker.consumer.poke()
        for consumer in worker.consumers.values():
            consumer.join(5)
        broker.consumer.close()

    # The control thread ------------------------------------------------------------------------------------------------------------------

    def _read_line(self) -> bytes:
        while b"\n" not in self._buffer:
            data = os.read(self._control, 65536)
            if not data:
                os._exit(1)
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _listen(self) -> None:
        report_at = time.monotonic() + REPORT_S
        while True:
            due = min(self._interrupter.step(), report_at - time.monotonic())
            ready = [] if b"\n" in self._buffer else select.select([self._control, self._looks[0]], [], [], max(0.0, due))[0]
            if self._looks[0] in ready:
                os.read(self._looks[0], 4096)
            if time.monotonic() >= report_at:
                self._report()
                report_at = time.monotonic() + REPORT_S
            if b"\n" not in self._buffer and self._control not in ready:
                continue
            word = self._read_line()
            if word == b"go":
                self._go.set()
            elif word == b"drain":
                self.drain()
            elif word.startswith(b"cancel "):
                self._interrupter.cancel(word[7:].decode())
            else:
                self._hear(word)

    def _hear(self, word: bytes) -> None:
        """What a shadow is told beside this."""

    def _look(self) -> None:
        """Wake the control thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._looks[1], b"!")

    def drain(self, *_: Any) -> None:
        self._draining.set()
        self._go.set()
        if self._drain is not None:
            self._drain()

    def _make_way(self) -> None:
        """The handler keeps so much that the next workloads would fail, too: end what runs, and let a fresh replica take over."""
        if not self._draining.is_set():
            logs.logger.warning("this replica holds nearly all of its compute.mem, and makes way for a fresh one")
            self.drain()

    def _thread_failed(self, failure: Any) -> None:
        """A thread of ours that had no memory would leave a replica that only seems to work."""
        sys.excepthook(failure.exc_type, failure.exc_value, failure.exc_traceback)
        if memory.ran_out(failure.exc_value):
            self._status.tell("failed", message=f"out of memory: {memory.note(failure.exc_value)}", details={})
            os._exit(1)

    def _report(self) -> None:
        memory.settle()
        logs.tell_dropped()
        if delta := self.registry.drain():
            self._status.tell("metrics", delta=delta)


def main(kind: type[Replica] = Replica) -> None:
    control, status_fd, records, parent = map(int, sys.argv[1:5])
    for fd in (control, status_fd, records):
        os.set_inheritable(fd, False)
    die_with(parent)
    status = Status(status_fd)
    replica = kind(control, status, records)
    signal.signal(signal.SIGTERM, replica.drain)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = replica.run()
    except HandlerError as error:
        status.tell("failed", message=error.message, details=error.details)
        code = 1
    sys.stdout.flush()
    # Threads that the author's libraries left behind must not keep a drained replica alive.
    os._exit(code)


if __name__ == "__main__":
    main()
