"""What it costs a drain that failures are recorded with fingerprint, frames, traceback and log lines, and filed in groups.

One queue of no-ops is drained while recording is on for one block of them and off for the next, and so on: neighbours of the same tenth of a second
are compared, a hundred pairs of them. On a shared machine one block takes a quarter more or less than the next, so that fewer would tell of the
neighbours' luck. None fails (what everybody pays), one in a hundred fails (a bad day in production), each fails (what a failure itself costs, for
information). "Off" is this release with the recording taken out by the handler's module; error type, message and the log line stay.
"""

from __future__ import annotations

import itertools
import statistics

import filling
from figures import Figure
from stage import Stage, until

from jupyter_cortex.store import keys

NAME = "recording"
HANDLER = """
    from jupyter_cortex.handler import execution, fingerprint

    ON = fingerprint.explain, execution.details
    OFF = lambda *about: ("", []), lambda *about: ""

    class Handler:
        def __init__(self, config):
            self.every, self.block, self.count = config["every"], config["block"], 0

        def handle_async(self, payload):
            if self.count % self.block == 0:
                fingerprint.explain, execution.details = OFF if self.count // self.block % 2 else ON
            self.count += 1
            if self.every and self.count % self.every == 0:
                return {"ok": payload["missing"]}
            return {"ok": 1}
"""
#: What recording may take of the throughput.
SHARE = 0.95


def run(stage: Stage, quick: bool) -> list[Figure]:
    figures = []
    for every, name, block, blocks in (
        (0, "none of which fails", 1000, 200),
        (100, "one in a hundred of which fails", 1000, 200),
        (1, "each of which fails", 200, 20),
    ):
        on, off = _drain(stage, every, block, 6 if quick else blocks)
        title = f"drain of queued no-ops, {name}; peer: failures not recorded"
        figures.append(Figure(title, on, "/s", off, more_is_better=True, ratio=None if every == 1 else SHARE))
    return figures


def _drain(stage: Stage, every: int, block: int, blocks: int) -> tuple[float, float]:
    """The rates with recording and without: the median of the latter's blocks, and the median ratio of neighbours. The first two blocks warm up."""
    count = block * (blocks + 2)
    stage.deploy(NAME, HANDLER, {"every": every, "block": block})
    stage.stop(NAME)
    ids = [f"n{number}" for number in range(count)]
    with filling.without_disk(stage):
        filling.submit(stage, NAME, ids)
    indexes = [keys.index(NAME, status) for status in ("completed", "failed")]
    stage.client.start(NAME)
    until(lambda: sum(stage.redis.zcard(index) for index in indexes) >= count, "the queue is drained")
    if (failed := stage.redis.zcard(indexes[1])) != (count // every if every else 0):
        raise RuntimeError(f"{failed} of {count} workloads failed")
    ended = {name.decode(): ms for index in indexes for name, ms in stage.redis.zrange(index, 0, -1, withscores=True)}
    stage.delete(NAME)
    edges = [ended[ids[at - 1]] for at in range(2 * block, count + 1, block)]
    rates = [block / ((end - begin) / 1000) for begin, end in itertools.pairwise(edges)]
    on, off = rates[0::2], rates[1::2]
    without = statistics.median(off)
    return without * statistics.median(ours / theirs for ours, theirs in zip(on, off, strict=True)), without
