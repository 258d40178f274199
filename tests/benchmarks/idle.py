"""What an API with 4 replicas costs that nobody calls: commands of the store, and time on a core.

The environment is looked at without the API and then with it; the goals are for the difference. All processes of the environment count: operator,
gateway, store, worker, replicas.
"""

from __future__ import annotations

import threading
import time

import processes
from figures import Figure
from stage import ECHO, Stage, until

NAME = "idle"
REPLICAS = 4
SETTLE_S = 5.0
OVER = "the benchmark has seen enough"


def run(stage: Stage, quick: bool) -> list[Figure]:
    seconds = 5.0 if quick else 30.0
    without = _cost(stage, seconds)
    stage.deploy(NAME, ECHO, autoscaling={"min_replicas": REPLICAS, "max_replicas": REPLICAS})
    until(lambda: stage.client.get_api(NAME)["ready"] == REPLICAS, f"{REPLICAS} replicas serve")
    with_it = _cost(stage, seconds)
    stage.delete(NAME)
    sent, inside, core = (after - before for after, before in zip(with_it, without, strict=True))
    what = f"idle API with {REPLICAS} replicas"
    return [
        Figure(f"{what}: commands to the store", sent, "/s", most=10),
        Figure(f"{what}: the same with those inside of scripts", inside, "/s"),
        Figure(f"{what}: of a core", core, "%", most=0.5),
        Figure("the whole environment with it: commands to the store", with_it[0], "/s"),
        Figure("the whole environment with it: of a core", with_it[2], "%"),
    ]


def _cost(stage: Stage, seconds: float) -> tuple[float, float, float]:
    """Commands a second as processes send them, the same with those that scripts call, and percent of a core."""
    time.sleep(SETTLE_S)
    ours = processes.all_of_ours(stage)
    cpu, began = processes.cpu_s(ours), time.monotonic()
    time.sleep(seconds)
    core = (processes.cpu_s(ours) - cpu) / (time.monotonic() - began) * 100
    # Apart, for being watched costs the store some time.
    sent, inside = _commands(stage, seconds)
    return sent / seconds, (sent + inside) / seconds, core


def _commands(stage: Stage, seconds: float) -> tuple[int, int]:
    """How many commands the store was sent meanwhile, and how many more it ran inside of scripts. Its counters do not tell them apart."""
    sent = inside = 0
    over = threading.Timer(seconds, lambda: stage.redis.echo(OVER))
    with stage.redis.monitor() as monitor:
        over.start()
        while OVER not in (command := monitor.next_command())["command"]:
            if command["client_type"] == "lua":
                inside += 1
            else:
                sent += 1
    return sent, inside
