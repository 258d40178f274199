"""`cortex deploy` as a person feels it: from the command to its end, when the API is live."""

from __future__ import annotations

import statistics
import time

from figures import Figure
from stage import Stage

ROUNDS = 5
GOAL_S = 1.5


def run(stage: Stage, quick: bool) -> list[Figure]:
    first, again = [], []
    for number in range(ROUNDS):
        name = f"deploy-{number}"
        first.append(_deploy(stage, name, 1))
        again.append(_deploy(stage, name, 2))
        stage.delete(name)
    return [
        Figure("cortex deploy, first deploy live", statistics.median(first), "s", most=GOAL_S),
        Figure("cortex deploy, changed handler live", statistics.median(again), "s", most=GOAL_S),
    ]


def _deploy(stage: Stage, name: str, revision: int) -> float:
    config = stage.write(name, f"class Handler:\n    def handle_async(self, payload):\n        return {{'revision': {revision}}}\n")
    began = time.perf_counter()
    stage.cortex("deploy", str(config))
    took = time.perf_counter() - began
    request_id = stage.client.submit(name, {})
    answer = stage.client.result(name, request_id, wait=30)
    if answer.result != {"revision": revision}:
        raise RuntimeError(f"{name} is said to be live, and answers {answer}")
    return took
