"""The benchmarks: ``python tests/benchmarks/run.py [--quick] [--only NAME ...] [--environments DIR] [--json FILE]``.

Starts an environment of its own, measures ours and the peers side by side, and prints one table: medians of three runs (maxima and failures: the
worst of them), except for rows that say "one run". On a machine with anything else to do the figures say little. All of it takes about 50 minutes,
``--quick`` a quarter of that.

The peers (stock Dramatiq, huey, celery, saq, taskiq, rq) live in environments of their own, which the first run makes with pip and later ones use
again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import deploy
import drain
import growth
import idle
import kill
import lab
import large
import load
import longpoll
import memory
import notebook
import peer
import pickup
import recording
import redeploy
import throughput
import uneven
from figures import Figure, document, joined, machine, table
from stage import Stage

BENCHMARKS = {
    "pickup": pickup.run,
    "drain": drain.run,
    "recording": recording.run,
    "throughput": throughput.run,
    "longpoll": longpoll.run,
    "kill": kill.run,
    "uneven": uneven.run,
    "large": large.run,
    "memory": memory.run,
    "growth": growth.run,
    "idle": idle.run,
    "deploy": deploy.run,
    "redeploy": redeploy.run,
    "notebook": notebook.run,
    "lab": lab.run,
}
#: More runs would say the same again, or take minutes each.
ONCE = {"memory", "growth", "idle"}
#: Those that need the peers' environments.
WITH_PEERS = {"pickup", "drain"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure jupyter-cortex beside the hand-written way.")
    parser.add_argument("--quick", action="store_true", help="one smaller run of each instead of three")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), metavar="NAME", help="of: %(choices)s")
    parser.add_argument(
        "--environments",
        type=Path,
        default=peer.CACHE,
        metavar="DIR",
        help="where the peers' environments are kept (remove it for newer peers): %(default)s",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser.parse_args()


def measure(stage: Stage, name: str, runs: int, quick: bool) -> list[Figure]:
    results = []
    once = name in ONCE and runs > 1
    for number in range(1 if once else runs):
        began = time.monotonic()
        results.append(BENCHMARKS[name](stage, quick))
        print(f"{name}, run {number + 1} of {1 if once else runs}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    figures = [joined(figures) for figures in zip(*results, strict=True)]
    return [dataclasses.replace(figure, name=f"{figure.name} (one run)") for figure in figures] if once else figures


def main() -> int:
    wanted = arguments()
    runs = 1 if wanted.quick else 3
    figures: list[Figure] = []
    broken: dict[str, str] = {}
    peers: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="cx-bench-", ignore_cleanup_errors=True) as directory,
        Stage(Path(directory), wanted.environments) as stage,
    ):
        about = machine(stage.redis.info("server"), load.generator(), runs)
        for name in wanted.only:
            try:
                if name in WITH_PEERS and not peers:
                    peers = peer.versions(wanted.environments)
                figures += measure(stage, name, runs, wanted.quick)
            except Exception as error:
                traceback.print_exc()
                broken[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
    print(table(figures, about))
    if peers:
        print(f"\nPeers, each with a store like ours that writes to disk before it answers: {'; '.join(peers)}.")
    for name, why in broken.items():
        print(f"\n**{name} broke**: {why}")
    if wanted.json:
        wanted.json.write_text(json.dumps(document(figures, {**about, "peers": peers}, broken), indent=2) + "\n")
    return 1 if broken or any(figure.reached is False for figure in figures) else 0


if __name__ == "__main__":
    # A terminated run still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
