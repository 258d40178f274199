"""What it costs a drain that failures are recorded with fingerprint, frames, traceback and log lines, and filed in groups.

One queue of no-ops is drained while recording is on for one block of them and off for the next, and so on: neighbours of the same tenth of a second
are compared. On a shared machine one block takes a quarter more or less than the next: the median of a hundred pairs strays by 2 %, that of two
hundred by 1.3 %. None fails (a hundred pairs; both sides run the same: how far the machine strays), one in a hundred fails (two hundred: a bad day
in production), each fails (forty: what a failure itself costs). "Off" is this release with the recording taken out by the handler's module; error
type, message and the log line stay.

A hundredth of what a failure costs is less than the machine strays. Where each fails, that cost is most of what is measured; the last row says how
much it takes of the time that a drain has for a hundred workloads.
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
#: What recording may take of the throughput, when so many workloads have one failure among them.
SHARE, EVERY = 0.95, 100


def run(stage: Stage, quick: bool) -> list[Figure]:
    rates, figures = {}, []
    for every, name, block, blocks in (
        (0, "none of which fails", 1000, 200),
        (EVERY, "one in a hundred of which fails", 1000, 400),
        (1, "each of which fails", 500, 80),
    ):
        on, off = rates[every] = _drain(stage, every, block, 6 if quick else blocks)
        title = f"drain of queued no-ops, {name}; peer: failures not recorded"
        figures.append(Figure(title, on, "/s", off, more_is_better=True, ratio=SHARE if every == EVERY else None))
    on, off = rates[1]
    recording, hundred = 1 / on - 1 / off, EVERY / rates[0][1]
    title = "recording one failure, as a share of a drain's time for a hundred workloads"
    figures.append(Figure(title, 100 * recording / (hundred + recording), "%", most=100 * (1 - SHARE)))
    return figures


def _drain(stage: Stage, every: int, block: int, blocks: int) -> tuple[float, float]:
    """The rates with recording and without: the median of the latter's blocks, and the median ratio of neighbours. The first two blocks warm up."""
    count = block * (blocks + 2)
    # One replica, also when the queue stays long for a minute: blocks are counted by the handler.
    stage.deploy(NAME, HANDLER, {"every": every, "block": block}, autoscaling={"max_replicas": 1})
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
