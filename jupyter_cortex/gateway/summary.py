"""What lists say of an API."""

from __future__ import annotations

import time
from typing import Any

from ..core.workload import DeploymentState
from ..store.glance import Glance
from ..store.rehearsals import UNDECIDED_S


def summary(api: Glance, *, recent: bool = False) -> dict[str, Any]:
    """An API and how it is, as it goes out; ``recent``: with the counters of the minutes that were looked at. Times are ms, ``minute`` is seconds."""
    status, why = api_status(api)
    shown = api.live or api.wanted
    # Replicas of a version that failed are on their way out; the live one's are not stale because of it.
    newest = api.live_version if api.wanted is None or api.wanted.state is DeploymentState.FAILED else api.wanted_version
    return {
        "name": api.name,
        "status": status,
        "message": why,
        "endpoint": api.endpoint,
        "live": api.live_version,
        "wanted": api.wanted_version,
        "stopped": api.stopped,
        "source": api.source,
        "digest": api.live.digest if api.live else "",
        "requested": shown.replicas if shown else 0,
        "ready": ready(api),
        "up_to_date": sum(worker["ready"] for worker in api.workers if worker["version"] in (newest, api.wanted_version)),
        "stale": sum(worker["ready"] for worker in api.workers if worker["version"] not in (newest, api.wanted_version)),
        "capped": shown.capped if shown else "",
        "drift": next((worker["drift"] for worker in api.workers if worker["version"] == api.live_version and worker["drift"]), {}),
        "created": api.created,
        "updated": api.updated,
        "workloads": api.counts,
        "failed_hour": api.failed_hour,
        "rehearsal": rehearsal(api),
        "minute": api.minutes[-1],
        **({"recent": api.minutes} if recent else {}),
    }


def rehearsal(api: Glance) -> dict[str, Any] | None:
    """``{"version", "state", "message", "live", "total", "done", "counts", "who"}`` of a version that is rehearsing, waits for a decision, or did not
    start to be rehearsed, for a day or until the next deploy; else None."""
    found = api.rehearsed
    undecided = found is not None and found.state in (DeploymentState.REHEARSING, DeploymentState.REHEARSED)
    failed = found is not None and found.state is DeploymentState.FAILED and max(api.updated, (time.time() - UNDECIDED_S) * 1000) < found.failed_at
    if found is None or not (undecided or failed):
        return None
    told = {"live": 0, "total": 0, "done": 0, "counts": {}, "who": "", **found.progress}
    return {"version": found.version, "state": str(found.state), "message": str(found.error.get("message", "")), **told}


def ready(api: Glance) -> int:
    """Replicas of the live version that take workloads."""
    return sum(worker["ready"] for worker in api.workers if worker["version"] == api.live_version)


def stuck(api: Glance) -> str:
    """What was cancelled and does not end, in a sentence; "" when nothing is so."""
    ids = [request_id for worker in api.workers for row in worker.get("replicas", ()) for request_id in row.get("stuck", ())]
    if not ids:
        return ""
    more = f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""
    return f"{ids[0]}{more} was cancelled and does not end, so its replica is busy with it; `cancel: kill` in the spec replaces such a replica"


def installing(api: Glance) -> str:
    """What installs the requirements of a version that starts, in its own words; "" when nothing does."""
    return next((f"installing: {said}" for worker in api.workers if (said := worker.get("installing"))), "")


def api_status(api: Glance) -> tuple[str, str]:
    """(live | updating | error | stopped, why). The last deploy's failure is said even while the version before it serves.

    Live with min_replicas ready, however many the autoscaler is about to add; a replica that keeps ending is said in any case.
    """
    live, wanted = api.live, api.wanted
    failed = wanted is not None and wanted.state is DeploymentState.FAILED
    why = str(wanted.error.get("message", "")) if failed and wanted else ""
    if api.stopped:
        return "stopped", f"started again by `cortex start {api.name}`"
    if live is None:
        return ("error", why) if failed else ("updating", installing(api))
    if failed and wanted:
        why = f"version {wanted.version} did not start, version {live.version} still serves: {why}"
    there = ready(api)
    trouble = next((worker["trouble"] for worker in api.workers if worker["version"] == live.version and worker["trouble"]), "")
    why = why or trouble or stuck(api) or installing(api)
    # One that is capped may never have its min_replicas.
    least = max(1, min(live.least, live.replicas))
    if trouble and there < least:
        return "error", why
    updating = wanted is not None and wanted.state in (DeploymentState.PENDING, DeploymentState.STARTING)
    return ("live" if there >= least and not updating else "updating"), why
