"""The short run of the suite: everything is killed, filled, paused and set back while requests flow. Its counts are asserted, its times shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.conftest import CI

from .run import SHORT, run
from .table import lines

#: The same run each time; JUPYTER_CORTEX_CHAOS_SEED makes another one.
SEED = 5


def test_nothing_accepted_is_lost_doubled_or_mixed_up_whatever_dies(tmp_path: Path, show: Callable[[str], None]) -> None:
    outcome = run(tmp_path, int(os.environ.get("JUPYTER_CORTEX_CHAOS_SEED", SEED)), SHORT, print)
    show("\n".join(lines(outcome)))
    assert outcome.zero == dict.fromkeys(outcome.zero, 0), outcome.ledger.examples
    # Each of them is in the first third, which also a slow machine comes through before the time is over.
    skipped = {said.partition(":")[0] for said in outcome.skipped}
    assert set(outcome.kinds) - set(outcome.faults) == skipped
    # Poison ends replicas in every run: none would mean that the log says it in other words than are looked for.
    assert outcome.ledger.counts["replicas that ended"]
    assert len(outcome.ledger.accepted) >= SHORT.workloads / SHORT.rounds
    assert not (CI and skipped), outcome.skipped
