"""The faults, each with the time from it to full service. They come one after another, in an order that the seed decides."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import redis

from jupyter_cortex.core.errors import DeployFailed
from jupyter_cortex.store import keys

from .stage import APIS, HANDLER, PULSE, Broken, Stage, until

#: Goals of the table, in seconds from the fault to full service (for the store: from when it answers again).
GOALS = {"replica": 0.2, "gateway": 2.0, "operator": 2.0, "store": 3.0}


class Skipped(Exception):
    """This fault cannot be made on this machine; says what is missing."""


class Spared(Exception):
    """There was nobody whom this fault could hit."""


@dataclass
class Times:
    """Seconds to full service, by what was done."""

    seen: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def until_service(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.note(what, time.monotonic() - begun)

    def note(self, what: str, seconds: float) -> None:
        self.seen.setdefault(what, []).append(seconds)


class Faults:
    """``pause``: how long the store is paused or full, in seconds."""

    def __init__(self, stage: Stage, dice: random.Random, pause: float) -> None:
        self.stage, self.dice, self.pause = stage, dice, pause
        self.times = Times()
        self._deploys = 0

    def all(self) -> list[Callable[[], None]]:
        """One round, shuffled."""
        once = [
            *(self.worker, self.gateway, self.operator, self.store_killed, self.store_stopped, self.store_paused, self.disk, self.memory),
            *(self.clock_forward, self.clock_back, self.deploy, self.bad_deploy, self.rollback, self.stuck, self.connections),
            *(self.gateway_while_paused, self.operator_and_gateway, self.gateway_and_store),
        ]
        round_ = [*once, *[self.replica] * 3, *[self.busy_replica] * 3, self.operator]
        self.dice.shuffle(round_)
        return round_

    # Processes ---------------------------------------------------------------------------------------------------------------------------

    def replica(self) -> None:
        """kill -9 in the middle of a workload, until the same one runs on the other replica, and until there are two again."""
        stage = self.stage
        two = lambda: len(stage.replicas(PULSE, "serving")) == 2  # noqa: E731
        until(two, "two replicas serve")
        notes = stage.directory / "notes"
        notes.write_text("")
        request_id = stage.post({"note": str(notes)})

        def entries() -> list[list[str]]:
            return [line.split() for line in notes.read_text().splitlines() if line.startswith(f"{request_id} ")]

        first = until(entries, f"{request_id} runs")[0]
        with self.times.until_service("replica, all of them serve again"):
            killed = time.time()
            stage.kill(int(first[2]))
            second = until(lambda: entries()[1:], f"{request_id} runs again", pause=0.001)[0]
            gone = lambda: all(replica["pid"] != int(first[2]) for replica in stage.replicas(PULSE))  # noqa: E731
            until(lambda: gone() and two(), "two replicas serve again", pause=0.005)
        self.times.note("replica", float(second[1]) - killed)

    def busy_replica(self) -> None:
        """kill -9 of a replica with the callers' work in it. Raises Spared where none had any for 2 s."""

        def busy() -> int:
            inside = {replica: ids for api in APIS for replica, ids in self.stage.inside(api).items() if ids}
            pids = [replica["pid"] for api in APIS for replica in self.stage.replicas(api) if replica["id"] in inside]
            return self.dice.choice(pids) if pids else 0

        try:
            self.stage.kill(until(busy, "a replica is busy", 2))
        except (Broken, ProcessLookupError) as error:  # what it runs may have ended it just now
            raise Spared(str(error)) from error
        finally:
            self.stage.serves()

    def worker(self) -> None:
        """The supervisor; its replicas go with it."""
        self._kill("worker", lambda: self.stage.worker(PULSE), self.stage.serves)
        self._kill("worker with the callers' work", lambda: self.stage.worker(self.dice.choice(list(APIS))), self.stage.serves)

    def gateway(self) -> None:
        self._kill("gateway", lambda: self.stage.pid("gateway"), lambda: self.stage.post({"n": 0}))

    def operator(self) -> None:
        """Until the next one has looked at everything and said so."""

        def looked(killed: int) -> bool:
            import json

            with suppress(redis.RedisError, OSError):
                said = json.loads(self.stage.redis.get(keys.STATUS) or "{}")  # type: ignore[arg-type]
                return any(process["role"] == "operator" and process["pid"] != killed for process in said.get("processes", []))
            return False

        victim = until(lambda: self.stage.pid("operator"), "there is an operator")
        with self.times.until_service("operator"):
            self.stage.kill(victim)
            until(lambda: looked(victim), "an operator has looked at everything")

    def operator_and_gateway(self) -> None:
        """Who would start each other again, at once: replicas go on, and `cortex up` starts both."""
        both = [until(lambda role=role: self.stage.pid(role), f"there is a {role}") for role in ("operator", "gateway")]
        for victim in both:
            self.stage.kill(victim)
        with self.times.until_service("operator and gateway, from `cortex up`"):
            self.stage.environment.up()
            self.stage.serves()

    def gateway_and_store(self) -> None:
        """At once, with answers under way."""
        both = [until(lambda role=role: self.stage.pid(role), f"there is a {role}") for role in ("gateway", "store")]
        with self.times.until_service("gateway and store"):
            for victim in both:
                self.stage.kill(victim)
            self.stage.serves()

    def _kill(self, what: str, pid: Callable[[], int], back: Callable[[], object]) -> None:
        victim = until(pid, f"there is a {what}")
        with self.times.until_service(what):
            self.stage.kill(victim)
            back()

    # The store ---------------------------------------------------------------------------------------------------------------------------

    def store_killed(self) -> None:
        self._end_store("store, killed", signal.SIGKILL)

    def store_stopped(self) -> None:
        self._end_store("store, stopped", signal.SIGTERM)

    def _end_store(self, what: str, number: signal.Signals) -> None:
        victim = until(lambda: self.stage.pid("store"), "there is a store")
        with self.times.until_service(f"{what}, in all"):
            os.kill(victim, number)
            until(lambda: self.stage.pid("store") not in (0, victim) and self.stage.store_answers(), "the store answers again", pause=0.002)
            with self.times.until_service(what):
                self.stage.serves()

    @contextmanager
    def _paused(self) -> Iterator[None]:
        victim = until(lambda: self.stage.pid("store"), "there is a store")
        os.kill(victim, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGCONT)

    def store_paused(self) -> None:
        with self._paused():
            time.sleep(self.pause)
        with self.times.until_service("store, paused"):
            self.stage.serves()

    def gateway_while_paused(self) -> None:
        """The operator must see to the gateway, whatever it waits for itself."""

        def answers() -> bool:
            answer = self.stage.ask("GET", "/healthz", 2)
            return answer is not None and answer.status_code == 200

        with self._paused():
            time.sleep(0.5)
            self._kill("gateway while the store is paused", lambda: self.stage.pid("gateway"), lambda: until(answers, "a gateway answers"))
        self.stage.serves()

    def connections(self) -> None:
        """Every connection to the store is cut, a few times."""
        for _ in range(3):
            self.stage.redis.client_kill_filter(_type="normal", skipme=True)
            self.stage.redis.client_kill_filter(_type="pubsub", skipme=True)
            time.sleep(0.2)
        self.stage.serves()

    def disk(self) -> None:
        victim = until(lambda: self.stage.pid("store"), "there is a store")
        with self.stage.disk.full(victim):
            time.sleep(self.pause)
        with self.times.until_service("store, disk full and freed"):
            self.stage.serves()

    def memory(self) -> None:
        """No write that needs memory is taken."""
        store = self.stage.redis
        before = store.config_get("maxmemory")["maxmemory"]
        store.config_set("maxmemory", "1")
        time.sleep(self.pause)
        store.config_set("maxmemory", before)
        with self.times.until_service("store, memory full and freed"):
            self.stage.serves()

    def clock_forward(self) -> None:
        self._step(3 * 3600)

    def clock_back(self) -> None:
        self._step(-3 * 3600)

    def _step(self, seconds: int) -> None:
        if not self.stage.clock.library:
            raise Skipped("libfaketime is not there: `apt-get install faketime`")
        for to in (seconds, 0):
            self.stage.clock.step(to)
            time.sleep(1.5)  # it reads its setting once a second
            self.stage.serves()

    # Versions ----------------------------------------------------------------------------------------------------------------------------

    def deploy(self) -> None:
        self._deploys += 1
        for name, shape in APIS.items():
            with self.times.until_service("deploy"):
                self.stage.deploy(name, source=f"{HANDLER.read_text()}\n# version {self._deploys}\n", **shape)
        self.stage.serves()

    def rollback(self) -> None:
        """To the version that was live before, once there is one."""
        if not self._deploys:
            self.deploy()
        with self.stage.environment.client() as client:
            for name in APIS:
                with self.times.until_service("rollback"):
                    client.rollback(name)
        self.stage.serves()

    def bad_deploy(self) -> None:
        """A version that cannot start: the one before it serves."""
        name = self.dice.choice(list(APIS))
        try:
            self.stage.deploy(name, source="raise RuntimeError('not today')\n", **APIS[name])
        except DeployFailed as error:
            if "not today" not in str(error):
                raise Broken(f"it was refused for another reason: {error}") from error
            self.stage.serves()
        else:
            raise Broken("a version that cannot start went live")

    def stuck(self) -> None:
        """A handler that never ends is taken back, and its replica ended."""
        request_id = self.stage.post({"do": "stuck", "n": 0})

        def holder() -> int:
            inside = self.stage.inside(PULSE)
            return next((replica["pid"] for replica in self.stage.replicas(PULSE) if request_id in inside.get(replica["id"], ())), 0)

        victim = until(holder, "it runs")
        cancelled = lambda: getattr(self.stage.ask("DELETE", f"/{PULSE}/{request_id}", 10), "status_code", 0) == 200  # noqa: E731
        until(cancelled, "it was taken back")
        self.stage.kill(victim)
        self.stage.serves()
