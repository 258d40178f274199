"""The autoscaler: every case of the contract on a clock of the test's own."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.operator.autoscaler import Autoscaler, Policy, average, cap

CONTRACT = yaml.safe_load((Path(__file__).parents[1] / "contract" / "autoscale.yaml").read_text("utf-8"))
CASES, AVERAGES = CONTRACT["cases"], CONTRACT["average_cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_autoscaling_case_of_the_contract_holds(case: dict[str, Any]) -> None:
    autoscaler = Autoscaler(Policy(**case.get("params", {})), case["initial_replicas"])
    for tick in case["ticks"]:
        replicas = autoscaler.tick(tick["t"], tick["in_flight"])
        assert (tick["t"], autoscaler.recommendation, replicas) == (tick["t"], tick["recommendation"], tick["replicas"])
        assert autoscaler.current == replicas


@pytest.mark.parametrize("case", AVERAGES, ids=[case["id"] for case in AVERAGES])
def test_every_average_case_of_the_contract_holds(case: dict[str, Any]) -> None:
    samples = case.get("samples", [case.get("waiting", 0) + case.get("in_progress", 0)])
    assert average(samples) == case["average"]


@pytest.mark.parametrize(
    ("current", "load", "changed", "recommendation"),
    [
        (1, 0.7, {}, 1),
        (1, 5, {}, 2),
        (4, 30, {}, 6),
        (10, 2, {}, 8),
        (20, 20.6, {}, 20),
        (20, 21, {}, 21),
        (20, 18.7, {}, 19),
        (4, 13, {"target_replica_concurrency": 2.5}, 6),
        (5, 40, {"max_replicas": 6}, 6),
        (4, 0, {"min_replicas": 3}, 3),
        (3, 25, {"max_upscale_factor": 10}, 25),
        (9, 1, {"max_downscale_factor": 0.5}, 5),
    ],
)
def test_the_worked_examples_hold(current: int, load: float, changed: dict[str, Any], recommendation: int) -> None:
    autoscaler = Autoscaler(Policy(**changed), current)
    autoscaler.tick(0, load)
    assert autoscaler.recommendation == recommendation


def test_the_stabilized_sequence_of_the_contract_holds() -> None:
    autoscaler = Autoscaler(Policy(), 1)
    assert [autoscaler.tick(t, 3) for t in range(0, 140, 10)] == [1] * 6 + [2] * 7 + [3]


def test_a_dip_does_not_turn_an_upscale_into_a_downscale() -> None:
    autoscaler = Autoscaler(Policy(downscale_stabilization_period=0), 4)
    autoscaler.tick(0, 4)
    for t in range(10, 70, 10):
        autoscaler.tick(t, 4)
    autoscaler.current = 6  # as if a person had scaled it by hand
    assert autoscaler.tick(70, 9) == 6


def test_no_load_takes_it_out_of_its_limits_or_brings_out_an_error() -> None:
    chance = random.Random(3)
    loads = [None, 0, 0.001, 1, 7.5, 1e3, 1e18, 1e308, math.inf, math.nan, -1]
    for _ in range(300):
        low, high = sorted((chance.randint(1, 9), chance.randint(1, 9)))
        policy = Policy(
            min_replicas=low,
            max_replicas=high,
            target_replica_concurrency=chance.choice([1e-300, 0.5, 1, 100]),
            max_upscale_factor=chance.choice([1.01, 2, 1e308]),
            max_downscale_factor=chance.choice([0, 0.5, 0.99]),
            upscale_stabilization_period=chance.choice([0, 20]),
            downscale_stabilization_period=chance.choice([0, 30]),
        )
        autoscaler = Autoscaler(policy, chance.randint(low, high))
        for t in range(0, 200, 10):
            assert low <= autoscaler.tick(t, chance.choice(loads)) <= high


def test_memory_of_the_past_does_not_grow() -> None:
    autoscaler = Autoscaler(Policy(), 1)
    for t in range(0, 100_000, 10):
        autoscaler.tick(t, 1)
    assert len(autoscaler._past) <= 31


def test_the_policy_comes_from_the_spec() -> None:
    document = {
        "name": "a",
        "kind": "AsyncAPI",
        "handler": {"type": "python", "path": "h.py", "threads_per_process": 3},
    }
    document["autoscaling"] = {"max_replicas": 7, "upscale_stabilization_period": "30s"}
    policy = Policy.from_spec(check_specs([document], ["h.py"])[0].autoscaling)
    assert policy == Policy(max_replicas=7, upscale_stabilization_period=30.0, target_replica_concurrency=3.0)


@pytest.mark.parametrize(
    ("wanted", "machine", "expected"),
    [
        (40, {"cpus": 2, "memory_available": 10**12, "replica_memory": None}, (4, "wanted 40, capped at 4: 2 CPUs")),
        (4, {"cpus": 2, "memory_available": 0, "replica_memory": None}, (4, None)),
        (9, {"cpus": 1, "memory_available": 0, "replica_memory": None}, (2, "wanted 9, capped at 2: 1 CPU")),
        (
            5,
            {"cpus": 8, "memory_available": 1_200_000_000, "replica_memory": 400_000_000},
            (3, "wanted 5, capped at 3: 1.2 GB of memory free"),
        ),
        (
            3,
            {"cpus": 8, "memory_available": 50_000_000, "replica_memory": 400_000_000},
            (1, "wanted 3, capped at 1: 50 MB of memory free"),
        ),
        (1, {"cpus": 1, "memory_available": -5, "replica_memory": 10**9}, (1, None)),
        (0, {"cpus": 1, "memory_available": 0, "replica_memory": 0}, (1, None)),
        (
            9,
            {"cpus": 2, "memory_available": 0, "replica_memory": None, "per_cpu": 1},
            (2, "wanted 9, capped at 2: 2 CPUs"),
        ),
        (
            9,
            {"cpus": 4, "memory_available": 0, "replica_memory": None, "replica_cpus": Fraction(3, 2)},
            (2, "wanted 9, capped at 2: 4 CPUs, 1.5 for each"),
        ),
        (
            2,
            {"cpus": 2, "memory_available": 0, "replica_memory": None, "replica_cpus": Fraction(4)},
            (1, "wanted 2, capped at 1: 2 CPUs, 4 for each"),
        ),
        (9, {"cpus": 2, "memory_available": 0, "replica_memory": None, "replica_cpus": Fraction(1, 10)}, (4, "wanted 9, capped at 4: 2 CPUs")),
        (
            4,
            {"cpus": 8, "memory_available": 0, "replica_memory": None, "gpus": 3, "replica_gpus": 2},
            (1, "wanted 4, capped at 1: 3 GPUs, 2 for each"),
        ),
    ],
)
def test_the_machine_caps_what_is_wanted_and_says_why(wanted: int, machine: dict[str, Any], expected: Any) -> None:
    assert cap(wanted, **machine) == expected
