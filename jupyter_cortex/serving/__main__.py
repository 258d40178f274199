"""``python -m jupyter_cortex.serving <api> <version>``: a worker, as the operator starts it.

What it must know of the machine comes as JSON in ``JUPYTER_CORTEX_WORKER`` (readable by this user only, as all of a process's environment), not in
arguments, which everybody on the machine can list.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from ..core.errors import CortexError
from ..core.workload import DeploymentState
from ..project.installation.pythons import Pythons
from ..store.connection import connect
from ..store.registry import Registry
from . import rehearsal, worker
from .artifacts import Artifacts


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    facts = json.loads(os.environ.pop("JUPYTER_CORTEX_WORKER"))
    artifacts = Artifacts(Path(facts["artifacts_dir"]), facts["artifacts_url"])
    # An operator that runs since before this version does not name the place and the time.
    pythons = Pythons(Path(facts.get("pythons_dir") or Path(facts["projects_dir"]).parent / "pythons"), facts.get("install_timeout", 1800.0))
    machine = worker.Machine(facts["redis_url"], Path(facts["run_dir"]), Path(facts["projects_dir"]), artifacts, facts["limits"], pythons)
    api, version = sys.argv[1], int(sys.argv[2])
    try:
        registry = Registry(connect(machine.redis_url, timeout=5.0))
        if worker.patiently(lambda: registry.deployment(api, version)).state is DeploymentState.REHEARSING:
            return rehearsal.run(machine, api, version)
        return worker.run(machine, api, version, facts.get("replicas"))
    except CortexError as error:
        logging.error("%s", error.message)
        return 1


if __name__ == "__main__":
    sys.exit(main())
