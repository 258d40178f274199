"""What a list says of an API, by what is known of its deployments and workers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jupyter_cortex.core.workload import DeploymentState
from jupyter_cortex.gateway.summary import api_status, summary
from jupyter_cortex.store.glance import Glance, Glimpse


def worker(version: int, ready: int, trouble: str = "") -> dict[str, Any]:
    return {"version": version, "ready": ready, "trouble": trouble, "drift": {}}


def glance(workers: list[dict[str, Any]], replicas: int = 1, least: int = 1, wanted: Glimpse | None = None) -> Glance:
    live = Glimpse(1, DeploymentState.LIVE, replicas, least, "", "", {})
    versions = {"live_version": 1, "wanted_version": wanted.version if wanted else 1}
    counts = dict.fromkeys(("in_queue", "in_progress", "completed", "failed", "cancelled"), 0)
    return Glance(
        name="an-api",
        endpoint="/an-api",
        source="here",
        live=live,
        wanted=wanted or live,
        stopped=False,
        created=0,
        updated=0,
        workers=workers,
        counts=counts,
        failed_hour=0,
        minutes=[{"minute": 0}],
        **versions,
    )


STARTING = Glimpse(2, DeploymentState.STARTING, 2, 2, "", "", {})


@pytest.mark.parametrize(
    ("given", "status", "why"),
    [
        (glance([worker(1, 1)]), "live", ""),
        (glance([worker(1, 0)]), "updating", ""),
        (glance([worker(1, 0, "no model")]), "error", "no model"),
        (glance([worker(1, 1, "port in use")], replicas=2, least=2), "error", "port in use"),
        # What the autoscaler adds is no update, and a replica too few of those is said.
        (glance([worker(1, 4)], replicas=5), "live", ""),
        (glance([worker(1, 4, "killed by signal 9")], replicas=5), "live", "killed by signal 9"),
        # A cap of the machine's below min_replicas.
        (glance([worker(1, 2)], replicas=2, least=8), "live", ""),
        (glance([worker(1, 2), worker(2, 0)], replicas=2, least=2, wanted=STARTING), "updating", ""),
    ],
)
def test_an_api_is_live_with_its_min_replicas_and_a_replica_that_keeps_ending_is_said(given: Glance, status: str, why: str) -> None:
    assert api_status(given) == (status, why)


def test_up_to_date_counts_the_new_versions_replicas_and_stale_the_others() -> None:
    given = glance([worker(1, 2), worker(2, 1)], replicas=2, wanted=STARTING)
    said = summary(given)
    assert (said["ready"], said["up_to_date"], said["stale"]) == (2, 1, 2)
    failed = replace(STARTING, state=DeploymentState.FAILED)
    said = summary(glance([worker(1, 2)], replicas=2, wanted=failed))
    assert (said["up_to_date"], said["stale"]) == (2, 0)
