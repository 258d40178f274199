"""A rehearsal: a version that is not live runs the last kept workloads in the shadow, and a report says how its answers stand to production's.

It is no worker of the API: it does not beat, takes nothing from the queue and writes neither records, counters nor results. Of the store it reads
payloads and answers, and writes its report, how far it is, and log lines that say what they are. The author's code runs in a process of its own
(``shadow.py``) that has payloads as files and no store; when it dies, that is what came of the workload in it, and the next one takes its place.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import statistics
import time
from collections import Counter
from typing import Any

import redis

from ..core.errors import CortexError, EnvironmentProblem, WorkloadNotFound
from ..core.workload import REPLICA_DIED, DeploymentState, Status
from ..handler import fingerprint, masking
from ..handler.redaction import Redaction
from ..project import difference, environment
from ..store import keys, rehearsals
from ..store.connection import connect, store_errors
from ..store.failures import place_of
from ..store.records import Records
from ..store.registry import Registry
from .gpus import Gpus
from .installing import Installing
from .memory import Kills
from .preparation import Preparation
from .process import ReplicaProcess
from .shipper import Shipper
from .signals import HURRY
from .worker import START_DEATHS, STORE_S, Machine, choose_interpreter

#: Seconds between two looks whether it is still wanted, and between two words of how far it is.
LOOK_S, TELL_S = 1.0, 0.5
#: Differences of one result that the report lists.
DIFFERENCES = 20
#: Characters of the end of a traceback that it keeps.
TRACEBACK = 5000
SAME = frozenset({"same_result", "same_failure"})


class NotWanted(Exception):
    """It was dropped, or this process is to end."""


class Rehearsal:
    def __init__(self, machine: Machine, api: str, version: int) -> None:
        self.machine, self.api, self.version = machine, api, version
        self.client = connect(machine.redis_url, timeout=5.0)
        self.registry = Registry(self.client)
        self.deployment = self.registry.deployment(api, version)
        self._interpreter = choose_interpreter(self.deployment, at_home=True)
        self._unpacked = machine.projects_dir / f"{api}-v{version}-{self.deployment.digest[:12]}"
        self._files = machine.run_dir / f"rehearsal-{api}-{version}"
        self._shipper = Shipper(machine.redis_url, api)
        self._installing = Installing(machine.pythons, self.deployment, self._interpreter, self._log)
        self._selector = selectors.DefaultSelector()
        self._kills = Kills()
        self._gpus = Gpus(machine.run_dir, api, version, self.deployment.spec["compute"].get("gpu", 0))
        self._shadow: ReplicaProcess | None = None
        self._deaths = 0
        self._stopped = False
        self._look_at = self._tell_at = 0.0
        self.rows: list[dict[str, Any]] = []

    def run(self) -> int:
        """Until the report is there, or nobody wants it. Returns an exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, HURRY):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGUSR1, self._on_poke)
        shutil.rmtree(self._files, ignore_errors=True)
        self._files.mkdir(mode=0o700)
        try:
            self._prepare()
            self._rehearse()
        except NotWanted:
            pass
        finally:
            self._installing.abandon()
            self._end_shadow()
            self._shipper.close()
            shutil.rmtree(self._files, ignore_errors=True)
            shutil.rmtree(self._unpacked, ignore_errors=True)
        self.registry.wake_operator()
        return 0

    def _on_stop(self, *_: Any) -> None:
        self._stopped = True

    def _on_poke(self, *_: Any) -> None:
        self._look_at = 0.0

    def _check(self) -> None:
        """Raises NotWanted."""
        if self._stopped:
            raise NotWanted
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            with store_errors():
                state = self.client.hget(keys.deployment(self.api, self.version), "state")
            if state != DeploymentState.REHEARSING.encode():
                raise NotWanted

    def _fail(self, failure: dict[str, Any]) -> None:
        self.registry.move(self.api, self.version, (DeploymentState.REHEARSING,), DeploymentState.FAILED, error=failure)
        raise NotWanted

    def _prepare(self) -> None:
        preparation = Preparation(self.registry, self.machine.artifacts, self.deployment, self._unpacked, self._installing)
        while not preparation.done:
            self._check()
            preparation.step(time.monotonic(), self.deployment.state)
            if preparation.failure:
                self._fail(preparation.failure)
            if not preparation.done:
                time.sleep(0.05)

    # The workloads -----------------------------------------------------------------------------------------------------------------------

    def _rehearse(self) -> None:
        began, ids = int(time.time() * 1000), rehearsals.ids(self.client, self.api, self.version)
        paths = {path for spec in (self.deployment.spec, self.registry.get(self.api).spec) for path in spec["retain"].get("redact", [])}
        redaction = Redaction(sorted(paths)) if paths else None
        self._ready()
        for request_id in ids:
            self._check()
            self.rows.append(self._one(request_id, redaction))
            self._tell(len(ids))
        facts = {"api": self.api, "version": self.version, "live": self.deployment.rehearsal.get("live", 0), "began": began}
        report = {**facts, "ended": int(time.time() * 1000), **summed_up(self.rows)}
        rehearsals.put(self.client, self.api, self.version, report, self.deployment.spec["retain"]["days"])
        told = {"rehearsal": self._progress(len(ids))}
        if not self.registry.move(self.api, self.version, (DeploymentState.REHEARSING,), DeploymentState.REHEARSED, **told):
            with store_errors():
                self.client.unlink(keys.rehearsal(self.api, self.version))

    def _progress(self, total: int) -> dict[str, Any]:
        counts = Counter(row["verdict"] for row in self.rows)
        return {**self.deployment.rehearsal, "total": total, "done": len(self.rows), "counts": dict(counts)}

    def _tell(self, total: int) -> None:
        if time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + TELL_S
            state = DeploymentState.REHEARSING
            self.registry.move(self.api, self.version, (state,), state, rehearsal=self._progress(total))

    def _one(self, request_id: str, redaction: Redaction | None) -> dict[str, Any]:
        """A row of the report."""
        try:
            record, body = Records(self.client).payload(self.api, request_id)
        except WorkloadNotFound as error:
            return {"id": request_id, "verdict": "gone", "text": error.message}
        shown = redaction.applied(body, record.content_type) if redaction and body is not None else body
        if shown is None or record.status not in (Status.COMPLETED, Status.FAILED):
            return {"id": request_id, "verdict": "gone", "text": "its payload is not kept any more, or it runs again"}
        with store_errors():
            result: Any = self.client.get(keys.result(self.api, request_id))
            details: Any = self.client.get(keys.failure(self.api, request_id))
        then = _answer(str(record.status), result, json.dumps(record.error), details, record.public()["run_ms"])
        now = self._run(request_id, record.content_type, shown, record.run)
        both = then["status"] == now["status"] == "completed"
        compared = difference.difference(then.pop("result"), now.pop("result")) if both else None
        kind, sentence = difference.verdict({**then, "fingerprint": then["fingerprint"] or record.fingerprint}, now, compared)
        return {
            "id": request_id,
            "verdict": kind,
            "text": sentence,
            "redacted": record.redacted or shown is not body,
            "production": {**_brief(then, ""), "version": record.version},
            "here": _brief(now, "" if kind == "same_failure" else now["traceback"][-TRACEBACK:]),
            "difference": {**compared, "rows": compared["rows"][:DIFFERENCES]} if compared and compared["rows"] else None,
        }

    def _run(self, request_id: str, content_type: str, body: bytes, run: int) -> dict[str, Any]:
        """What the shadow makes of it."""
        shadow = self._ready()
        source, target = self._files / "body", self._files / "answer"
        source.write_bytes(body)
        job = {"id": request_id, "content_type": content_type, "run": run, "body": str(source), "answer": str(target)}
        shadow.tell("run " + json.dumps(job))
        said = self._hear("ran", late=True)
        if said is None:
            why = f"the process that ran it ended: {shadow.why(self._kills.lately())}"
            self._end_shadow()
            error = json.dumps({"type": REPLICA_DIED, "message": why})
            return {**_answer("failed", None, error, None, None), "fingerprint": fingerprint.of_reason(REPLICA_DIED, why)}
        answer = target.read_bytes()
        completed = said["status"] == "completed"
        return _answer(said["status"], answer if completed else None, said["error"], None if completed else answer, said["run_ms"])

    # The shadow --------------------------------------------------------------------------------------------------------------------------

    def _ready(self) -> ReplicaProcess:
        """The shadow, started anew where the one before has died. Raises NotWanted, also when it does not start."""
        while self._shadow is None:
            shadow = self._start()
            said = self._hear("ready")
            if said is not None:
                shadow.go()  # from now on payloads are there: what comes past its logger is withheld where the spec redacts
                shadow.tell("go")
                self._deaths = 0
                break
            lines = [json.loads(line).get("message", "") for line in list(shadow.tail)[-20:]]
            failure, self._deaths = shadow.failure, self._deaths + 1
            why = shadow.why(self._kills.lately())
            self._end_shadow()
            if failure is not None:
                self._fail({**failure, "logs": lines})
            if self._deaths >= START_DEATHS:
                self._fail({"message": f"the replica died {self._deaths} times before it was ready (last: {why})", "logs": lines})
        assert self._shadow is not None
        return self._shadow

    def _start(self) -> ReplicaProcess:
        deployment, project_dir = self.deployment, self._unpacked / "project"
        env, secret = environment.for_replica(deployment.spec, deployment.dotenv, project_dir, self.registry.names())
        masking.mask(secret)
        config = {
            "api": self.api,
            "version": self.version,
            "spec": deployment.spec,
            "project_dir": str(project_dir),
            "secrets": secret,
            "distributions": {},
            "chain": self.machine.chain(),
            "limits": self.machine.limits,
            "labels": {"apiName": self.api, "apiKind": deployment.spec["kind"], "apiID": f"{self.version}-{deployment.digest[:12]}"},
        }
        program = self._installing.program
        argv = [program, "-P", "-m", "jupyter_cortex.serving.shadow"]
        locks: list[int] = []
        try:
            devices, locks = self._gpus.take()
            shadow = ReplicaProcess(argv, self._installing.environ({**env, **devices}), project_dir, self._files, config, self._log, locks)
        except EnvironmentProblem as error:
            self._fail({"message": error.message, "details": error.details})
            raise
        except OSError as error:
            self._fail({"message": f"cannot start {program}: {error.strerror}", "details": {}})
            raise
        finally:
            for fd in locks:
                os.close(fd)
        for pipe, read in ((shadow.out, shadow.read_output), (shadow.records, shadow.read_records), (shadow.status, None)):
            self._selector.register(pipe, selectors.EVENT_READ, read)
        self._shadow = shadow
        return shadow

    def _hear(self, event: str, *, late: bool = False) -> dict[str, Any] | None:
        """Wait for this event of the shadow; None when it died instead. ``late``: it is ended when what runs in it should have ended."""
        shadow = self._shadow
        assert shadow is not None
        heard: list[dict[str, Any]] = []
        while True:
            self._check()
            ended = shadow.process.poll() is not None
            for key, _ in self._selector.select(0.0 if ended else 0.2):
                if key.data is None:
                    lines = shadow.status.lines()
                    heard += [json.loads(line) for line in lines or ()]
                    if lines is None:
                        self._selector.unregister(shadow.status)
                elif not key.data():
                    self._selector.unregister(key.fileobj)
            for said in heard:
                if said["event"] == "failed":
                    shadow.failure = {key: value for key, value in said.items() if key != "event"}
                elif said["event"] == event:
                    return said
            heard.clear()
            if ended:
                return None
            if late and shadow.board.overdue(time.monotonic()):
                shadow.kill()

    def _end_shadow(self) -> None:
        if (shadow := self._shadow) is None:
            return
        self._shadow = None
        shadow.kill()
        shadow.process.wait()
        for pipe in (shadow.out, shadow.records, shadow.status):
            if pipe.fd in self._selector.get_map():
                self._selector.unregister(pipe)
        shadow.read_records()
        shadow.read_output(last=True)
        shadow.end_group()
        shadow.close()
        shadow.board.remove()

    def _log(self, line: str) -> None:
        """Its lines stand in the API's log, marked, and in no workload's own one."""
        record = json.loads(line)
        if "request_id" in record:
            record["rehearsed_id"] = record.pop("request_id")
        self._shipper.put(json.dumps({**record, "rehearsal": self.version}))


def _answer(status: str, result: bytes | None, error: str, details: bytes | None, run_ms: float | None) -> dict[str, Any]:
    """How a workload ended, there or here, in the same words."""
    told = json.loads(details) if details else {}
    return {
        "status": status,
        "result": json.loads(result) if result is not None else None,
        "error": (json.loads(error) if error else None) if status == "failed" else None,
        "fingerprint": told.get("fingerprint", ""),
        "place": place_of(told.get("frames", [])),
        "traceback": told.get("traceback", ""),
        "run_ms": run_ms,
    }


def _brief(answer: dict[str, Any], traceback: str) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "result"} | {"traceback": traceback}


def summed_up(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows say together. ``same``: every workload that ran ended as in production, and at least one did."""
    ran = [row for row in rows if row["verdict"] != "gone"]
    timed = [row for row in ran if row["production"]["run_ms"] is not None and row["here"]["run_ms"] is not None]
    return {
        "rows": rows,
        "counts": dict(Counter(row["verdict"] for row in rows)),
        "redacted": sum(row["redacted"] for row in ran),
        "same": bool(ran) and all(row["verdict"] in SAME for row in ran),
        "speed": {side: _speed([row[side]["run_ms"] for row in timed]) for side in ("production", "here")} if timed else None,
    }


def _speed(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"median": statistics.median(ordered), "p95": ordered[max(0, -(-95 * len(ordered) // 100) - 1)]}


def run(machine: Machine, api: str, version: int) -> int:
    """Rehearse one deployment. Raises DeploymentNotFound, EnvironmentProblem or StoreUnavailable."""
    deadline = time.monotonic() + STORE_S
    while True:
        try:
            return Rehearsal(machine, api, version).run()
        except (redis.RedisError, OSError, CortexError) as error:
            # It begins anew when the store is back; what it has run so far is run again.
            if getattr(error, "code", "") != "store_unavailable" or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
