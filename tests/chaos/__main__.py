"""``python -m tests.chaos [--seed N] [--workloads N] [--minutes M] [--short]``: the long run and its table; exit status 1 when a count is not 0."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from .run import SHORT, Size, run
from .table import lines


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16), help="what decides the payloads and the order of the faults")
    parser.add_argument("--workloads", type=int, help=f"how many ({Size().workloads})")
    parser.add_argument("--minutes", type=float, help=f"no fault and no workload after so many ({Size().minutes:.0f})")
    parser.add_argument("--short", action="store_true", help="the size that pytest runs")
    asked = parser.parse_args()
    size = SHORT if asked.short else Size()
    size = replace(size, **{name: value for name in ("workloads", "minutes") if (value := getattr(asked, name))})
    # Whatever ends this process by a signal ends all that it started.
    signal.signal(signal.SIGTERM, interrupted)
    with tempfile.TemporaryDirectory(prefix="cortex-chaos-") as directory:
        outcome = run(Path(directory), asked.seed, size, lambda line: print(line, file=sys.stderr, flush=True))
    print("\n".join(lines(outcome)))
    return 1 if any(outcome.zero.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
