"""The outcome of a run as text."""

from __future__ import annotations

from statistics import median

from .faults import GOALS
from .run import Outcome


def lines(outcome: Outcome) -> list[str]:
    counts = outcome.ledger.counts
    said = [
        f"chaos, seed {outcome.seed}: {len(outcome.ledger.accepted)} workloads accepted, {outcome.faults.total()} faults, {outcome.seconds:.0f} s; "
        f"{counts['answers']} answers, {counts['answers 503']} of them 503, {counts['connections broken']} connections broken; "
        f"{counts['replicas that ended']} replicas ended",
        "",
        f"| {'must be 0':<48} | count |",
        f"|{'-' * 50}|------:|",
        *(f"| {kind:<48} | {number:>5} |" for kind, number in outcome.zero.items()),
        "",
        f"| {'from the fault to full service':<40} |   n | median s |  max s |  goal s |",
        f"|{'-' * 42}|----:|---------:|-------:|--------:|",
    ]
    for what, times in sorted(outcome.times.seen.items()):
        goal = GOALS.get(what, GOALS["store"] if what.startswith("store") and not what.endswith("in all") else None)
        said.append(f"| {what:<40} | {len(times):>3} | {median(times):>8.3f} | {max(times):>6.3f} | {f'≤ {goal}' if goal else '–':>7} |")
    said += [f"not done: {reason}" for reason in dict.fromkeys(outcome.skipped)]
    for kind, number in outcome.zero.items():
        if number:
            said += ["", f"{kind}: {number}", *(f"  {example}" for example in outcome.ledger.examples[kind])]
    return said
