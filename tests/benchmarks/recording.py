"""What it costs a drain that failures are recorded with fingerprint, frames, traceback and log lines, and filed in groups.

The same queue of no-ops is drained with recording on and off, in turn, and the medians are compared: one in a hundred fails (a bad day in production),
none fails (what everybody pays), each fails (what a failure itself costs, for information). "Off" is this release with the recording taken out by
the handler's module; error type, message and the log line stay.
"""

from __future__ import annotations

import statistics

import filling
from figures import Figure
from stage import Stage, until

from jupyter_cortex.store import keys

NAME = "recording"
HANDLER = """
    class Handler:
        def __init__(self, config):
            self.every, self.count = config["every"], 0
            if not config["recording"]:
                from jupyter_cortex.handler import execution, fingerprint

                fingerprint.explain = lambda *about: ("", [])
                execution.details = lambda *about: ""

        def handle_async(self, payload):
            self.count += 1
            if self.every and self.count % self.every == 0:
                return {"ok": payload["missing"]}
            return {"ok": 1}
"""
#: What recording may take of the throughput.
SHARE = 0.95
ROUNDS = 3


def run(stage: Stage, quick: bool) -> list[Figure]:
    figures = []
    for every, name in ((0, "none of which fails"), (100, "one in a hundred of which fails"), (1, "each of which fails")):
        count = (2_000 if quick else 10_000) // (5 if every == 1 else 1)
        rates: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(1 if quick else ROUNDS):
            for recording in (True, False):
                rates[recording].append(_drain(stage, count, every, recording))
        on, off = statistics.median(rates[True]), statistics.median(rates[False])
        title = f"drain of {count:,} queued no-ops, {name}; peer: failures not recorded"
        figures.append(Figure(title, on, "/s", off, more_is_better=True, ratio=None if every == 1 else SHARE))
    return figures


def _drain(stage: Stage, count: int, every: int, recording: bool) -> float:
    stage.deploy(NAME, HANDLER, {"every": every, "recording": recording})
    stage.stop(NAME)
    filling.submit(stage, NAME, [f"n{number}" for number in range(count)])
    indexes = [keys.index(NAME, status) for status in ("completed", "failed")]
    stage.client.start(NAME)
    until(lambda: sum(stage.redis.zcard(index) for index in indexes) >= count, "the queue is drained")
    failed = stage.redis.zcard(indexes[1])
    if failed != (count // every if every else 0):
        raise RuntimeError(f"{failed} of {count} workloads failed")
    ends = [score for index in indexes for place in (0, -1) for _, score in stage.redis.zrange(index, place, place, withscores=True)]
    stage.delete(NAME)
    return (count - 1) / ((max(ends) - min(ends)) / 1000)
