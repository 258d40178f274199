"""The benchmarks: ``python tests/benchmarks/run.py [--quick] [--only NAME ...] [--json FILE]``.

Starts an environment of its own, measures ours and the peers side by side, and prints one table: medians of three runs (maxima and
failures: the worst of them). On a machine with anything else to do the figures say little.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import deploy
import drain
import kill
import lab
import load
import notebook
import pickup
import redeploy
import throughput
from figures import Figure, document, joined, machine, table
from stage import Stage

BENCHMARKS = {
    "pickup": pickup.run,
    "kill": kill.run,
    "throughput": throughput.run,
    "drain": drain.run,
    "deploy": deploy.run,
    "redeploy": redeploy.run,
    "notebook": notebook.run,
    "lab": lab.run,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure jupyter-cortex beside the hand-written way.")
    parser.add_argument("--quick", action="store_true", help="one smaller run of each instead of three")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME", help="of: %(choices)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser.parse_args()


def measure(stage: Stage, name: str, runs: int, quick: bool) -> list[Figure]:
    results = []
    for number in range(runs):
        print(f"{name}, run {number + 1} of {runs}", file=sys.stderr, flush=True)
        results.append(BENCHMARKS[name](stage, quick))
    return [joined(figures) for figures in zip(*results, strict=True)]


def main() -> int:
    wanted = arguments()
    runs = 1 if wanted.quick else 3
    figures: list[Figure] = []
    broken: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="cx-bench-", ignore_cleanup_errors=True) as directory, Stage(Path(directory)) as stage:
        about = machine(stage.redis.info("server"), load.generator(), runs)
        for name in wanted.only:
            try:
                figures += measure(stage, name, runs, wanted.quick)
            except Exception as error:
                traceback.print_exc()
                broken[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
    print(table(figures, about))
    for name, why in broken.items():
        print(f"\n**{name} broke**: {why}")
    if wanted.json:
        wanted.json.write_text(json.dumps(document(figures, about, broken), indent=2) + "\n")
    return 1 if broken or any(figure.reached is False for figure in figures) else 0


if __name__ == "__main__":
    # A terminated run still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
