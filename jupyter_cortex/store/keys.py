"""The one maker of keys.

Every key of an API begins with ``cx:{<api>}``: the braces are a Redis Cluster hash tag, so that everything of one API lives in one slot and a
script may touch all of it. Scripts get that prefix as their only key and build the rest with the same names (``lua/prelude.lua``).

What lies below the prefix (``<id>`` is a request id, ``<n>`` a version):

=================  =======  ==================================================================
``:api``           hash     the registry entry: spec of the live version, gate, live, wanted
``:dep:<n>``       hash     one deployment
``:active``        set      versions that are not stopped or failed
``:bundle:<d>``    string   the archive with digest ``<d>``
``:report:<n>``    string   the check notebook of one deployment, compressed
``:rehearsal:<n>`` string   what one deployment did with kept workloads, compressed; expires with them
``:w:<id>``        hash     a workload's record
``:b:<id>``        string   its payload (body)
``:u:<id>:<t>``    string   the pieces so far of a large body that is coming in; ``<t>`` is random
``:r:<id>``        string   its result, JSON text
``:e:<id>``        string   what a failed one keeps: traceback and log lines, JSON text
``:x:<id>``        string   the notebook that was executed for it (ipynb, compressed), of a notebook handler
``:p:<id>``        string   a partial result while it runs, JSON text
``:queue``         list     waiting ids, next one first
``:suspects``      list     ids to run alone on a fresh replica: their last chance
``:wake``          list     at most 64 tokens; an idle replica blocks on it
``:held:<rid>``    set      ids that replica ``<rid>`` holds
``:ending``        hash     cancelled id -> the replica that still holds it
``:due``           zset     ids with a queue timeout -> when it is over (ms)
``:beats``         zset     replica id -> last heartbeat (ms)
``:workers``       hash     worker id -> what it last said of itself
``:open``          zset     ids in a non-final state by acceptance time
``:completed`` …   zset     ids in that final state by finish time
``:f:<mark>``      zset     ids of the failures with one fingerprint by finish time
``:groups``        zset     "<fingerprint> <version>" -> when that was last seen (ms), at most 1,000
``:audit``         list     who requeued, rolled back or promoted what, the last 200 entries, JSON text
``:events``        stream   every move of every workload and deployment, capped
``:logs``          stream   batches of JSON log lines, capped
``:m:<minute>``    hash     counters and latency histograms of one minute
``:t:<ten>``       hash     the same of ten minutes
``:h:<hour>``      hash     the same of an hour
``:metrics``       string   the metrics client's merged totals, JSON text
``:bundles``       set      digests of the archives kept
``:exits``         list     the last 50 ends of replicas, JSON text
``:deleting``      string   a delete is under way; nothing may be deployed under this name yet
=================  =======  ==================================================================
"""

from __future__ import annotations

#: Names of all APIs of this store; the only keys outside an API's slot.
APIS = "cx:apis"
#: Artifacts: zset, sha256 -> when somebody last had a use for it (ms).
ARTIFACTS = "cx:artifacts"
#: Tokens that wake the operator.
OPERATOR_WAKE = "cx:operator:wake"
#: Changes with every change of the registry: gateways watch it to refresh their routes.
REGISTRY_VERSION = "cx:registry"
#: What the operator last said of itself and the processes it runs.
STATUS = "cx:status"
#: Written to see whether the store takes a write; gone after a second.
READY = "cx:ready"
#: The layout of this file; a newer store is not touched by older code.
SCHEMA = "cx:schema"
SCHEMA_VERSION = 1


def prefix(api: str) -> str:
    return f"cx:{{{api}}}"


def api(name: str) -> str:
    return f"{prefix(name)}:api"


def deployment(name: str, version: int) -> str:
    return f"{prefix(name)}:dep:{version}"


def active(name: str) -> str:
    return f"{prefix(name)}:active"


def bundle(name: str, digest: str) -> str:
    return f"{prefix(name)}:bundle:{digest}"


def report(name: str, version: int) -> str:
    return f"{prefix(name)}:report:{version}"


def rehearsal(name: str, version: int) -> str:
    return f"{prefix(name)}:rehearsal:{version}"


def record(name: str, request_id: str) -> str:
    return f"{prefix(name)}:w:{request_id}"


def body(name: str, request_id: str) -> str:
    return f"{prefix(name)}:b:{request_id}"


def upload(name: str, request_id: str, token: str) -> str:
    return f"{prefix(name)}:u:{request_id}:{token}"


def result(name: str, request_id: str) -> str:
    return f"{prefix(name)}:r:{request_id}"


def failure(name: str, request_id: str) -> str:
    return f"{prefix(name)}:e:{request_id}"


def notebook(name: str, request_id: str) -> str:
    return f"{prefix(name)}:x:{request_id}"


def partial(name: str, request_id: str) -> str:
    return f"{prefix(name)}:p:{request_id}"


def queue(name: str) -> str:
    return f"{prefix(name)}:queue"


def wake(name: str) -> str:
    return f"{prefix(name)}:wake"


def held(name: str, replica: str) -> str:
    return f"{prefix(name)}:held:{replica}"


def beats(name: str) -> str:
    return f"{prefix(name)}:beats"


def workers(name: str) -> str:
    return f"{prefix(name)}:workers"


def index(name: str, status: str) -> str:
    """The index of a final status, or of ``open``."""
    return f"{prefix(name)}:{status}"


def alike(name: str, fingerprint: str) -> str:
    """The failures with one fingerprint."""
    return f"{prefix(name)}:f:{fingerprint}"


def groups(name: str) -> str:
    return f"{prefix(name)}:groups"


def audit(name: str) -> str:
    return f"{prefix(name)}:audit"


def events(name: str) -> str:
    return f"{prefix(name)}:events"


def logs(name: str) -> str:
    return f"{prefix(name)}:logs"


def minute(name: str, number: int) -> str:
    return f"{prefix(name)}:m:{number}"


def ten_minutes(name: str, number: int) -> str:
    return f"{prefix(name)}:t:{number}"


def hour(name: str, number: int) -> str:
    return f"{prefix(name)}:h:{number}"


def metrics(name: str) -> str:
    return f"{prefix(name)}:metrics"


def bundles(name: str) -> str:
    return f"{prefix(name)}:bundles"


def exits(name: str) -> str:
    return f"{prefix(name)}:exits"


def deleting(name: str) -> str:
    return f"{prefix(name)}:deleting"


def due(name: str) -> str:
    return f"{prefix(name)}:due"


def ends_channel(name: str) -> str:
    """The pub/sub channel on which workers hear that something in a replica's hands was cancelled."""
    return f"{prefix(name)}:ends"


def news_channel(name: str, request_id: str) -> str:
    """The pub/sub channel on which one workload's progress is told, and its start when somebody watches it."""
    return f"{prefix(name)}:n:{request_id}"


def done_channel(name: str, request_id: str) -> str:
    """The pub/sub channel on which one workload's end is told."""
    return f"{prefix(name)}:d:{request_id}"
