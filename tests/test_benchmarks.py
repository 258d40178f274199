"""What the benchmarks say must be right before it is measured: goals, waits, and what their peers ask for."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
PEERS = sorted((BENCHMARKS / "peers").glob("on_*.py"))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports one of the benchmarks' modules, which find each other as scripts of one directory do."""
    import importlib

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.parametrize(
    ("goal", "ours", "peer", "reached"),
    [
        ({"ratio": 10, "more_is_better": True}, 1000, 100, True),
        ({"ratio": 10, "more_is_better": True}, 999, 100, False),
        ({"ratio": 100}, 1, 100, True),
        ({"ratio": 100}, 1.1, 100, False),
        ({"within": 1.2}, 1.2, 1.0, True),
        ({"within": 1.2}, 1.3, 1.0, False),
        ({"within": 1.2}, 0.0, 1.0, True),
        ({"within": 1.2}, 1.0, None, False),
        ({"most": 3}, 3, None, True),
        ({"most": 3}, 3.1, None, False),
        ({}, 3, 1, None),
    ],
)
def test_a_goal_is_reached_or_not(benchmark: Any, goal: dict[str, Any], ours: float, peer: float | None, reached: bool | None) -> None:
    assert benchmark("figures").Figure("a figure", ours, "ms", peer, **goal).reached is reached


def test_of_several_runs_the_median_counts_and_of_maxima_the_worst(benchmark: Any) -> None:
    figures = benchmark("figures")
    runs = [figures.Figure("a figure", ours, "ms", peer) for ours, peer in ((1, 10), (5, 30), (2, 20))]
    assert (figures.joined(runs).ours, figures.joined(runs).peer) == (2, 20)
    assert figures.joined([figures.Figure("a maximum", ours, "ms", worst=True) for ours in (1, 5, 2)]).ours == 5


def test_only_the_part_of_a_wait_in_which_another_replica_was_idle_counts(benchmark: Any) -> None:
    uneven = benchmark("uneven")
    ran = [
        uneven.Ran(accepted=0.0, entered=0.0, left=2.0, replica=1),  # a slow one
        uneven.Ran(accepted=0.0, entered=0.0, left=0.5, replica=2),
        uneven.Ran(accepted=0.25, entered=2.0, left=2.1, replica=1),  # behind the slow one, while 2 was free from 0.5 to 1.0 and from 1.5 on
        uneven.Ran(accepted=1.0, entered=1.0, left=1.5, replica=2),
        uneven.Ran(accepted=1.25, entered=1.505, left=1.505, replica=2),  # both were busy
        uneven.Ran(accepted=1.25, entered=2.11, left=2.2, replica=1),  # a pause of 5 ms is no idleness
    ]
    assert uneven.waits_beside_idle(ran) == [0.0, 0.0, pytest.approx(0.995), 0.0, 0.0, pytest.approx(0.605)]


def test_uneven_work_comes_at_the_rate_that_was_meant(benchmark: Any) -> None:
    uneven = benchmark("uneven")
    plan = uneven.schedule(400)
    work = sum(takes for _, takes in plan)
    assert sum(takes == uneven.SLOW_S for _, takes in plan) == 400
    assert work / (uneven.REPLICAS * plan[-1][0]) == pytest.approx(uneven.LOAD, rel=0.15)


@pytest.mark.parametrize("path", PEERS, ids=lambda path: path.stem)
def test_a_peer_s_file_says_what_it_needs_and_how_its_worker_starts(benchmark: Any, path: Path) -> None:
    wanted = benchmark("peer").dependencies(path)
    assert wanted or path.stem == "on_cortex"
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert any(isinstance(called, ast.Name) and called.id == "serve" for called in calls)


def test_the_peers_are_those_that_were_promised() -> None:
    assert {"dramatiq", "huey", "celery", "saq", "taskiq", "rq"} <= {path.stem.removeprefix("on_") for path in PEERS}
