"""Reading workloads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from ..core.errors import WorkloadNotFound
from ..core.workload import Status
from . import keys
from .connection import store_errors, text
from .scripts import READ

#: What a Record is made of, in this order.
FIELDS: tuple[str, ...] = (
    *("status", "type", "digest", "size", "accepted", "started", "finished", "attempts", "deaths", "run", "replica", "version", "error"),
)
#: ... and of what only some have.
FIELDS += ("fingerprint", "redacted", "progress", "timeout", "due", "notebook")
#: Runs before the present one of which lua/requeue.lua keeps a note.
RUNS = 20
#: How far into a queue the place of a workload is looked for: 0.2 ms of the store's time.
PLACES = 10_000
#: Ids that one call of lua/read.lua reads: 2 ms of the store's time, which those behind it hardly notice.
IDS_AT_ONCE = 250


@dataclass(frozen=True)
class Record:
    """One workload as the store knows it. Times are ms since the epoch, None when not reached; after a requeue, those of the present run.

    ``fingerprint``: of a failure, "" else. ``redacted``: the payload that is kept is not the caller's any more.
    """

    id: str
    status: Status
    content_type: str
    digest: str
    size: int
    accepted: int
    started: int | None
    finished: int | None
    attempts: int
    deaths: int
    run: int
    replica: str
    version: int | None
    error: dict[str, str] | None
    fingerprint: str = ""
    redacted: bool = False
    progress: dict[str, Any] | None = None  #: {"fraction", "text", "at"} as its handler said last
    timeout: float | None = None  #: seconds that its caller gives it to run
    due: int | None = None  #: until when it must have begun
    notebook: int | None = None  #: bytes of the executed notebook that is kept

    def public(self) -> dict[str, Any]:
        shown = {name: value for name, value in vars(self).items() if value is not None or name not in ("progress", "timeout", "due", "notebook")}
        shown["wait_ms"] = self.started - self.accepted if self.started else None
        shown["run_ms"] = self.finished - self.started if self.started and self.finished else None
        return shown


def _number(raw: bytes | None) -> int | None:
    return None if raw is None else int(raw)


def record_of(request_id: str, raw: Sequence[bytes | None]) -> Record:
    """A record from the values of FIELDS; the first, its status, is there."""
    status, content_type, digest, size, accepted, started, finished, attempts, deaths, run, replica, version, error = raw[:13]
    mark, redacted, progress, timeout, due, notebook = raw[13:]
    return Record(
        id=request_id,
        status=Status(text(status)),
        # As it came in a header: any byte is a character.
        content_type=(content_type or b"").decode("latin-1"),
        digest=text(digest or b""),
        size=int(size or 0),
        accepted=int(accepted or 0),
        started=_number(started),
        finished=_number(finished),
        attempts=int(attempts or 0),
        deaths=int(deaths or 0),
        run=int(run or 1),
        replica=text(replica or b""),
        version=_number(version),
        error=json.loads(error) if error else None,
        fingerprint=text(mark or b""),
        redacted=redacted is not None,
        progress={key: value for key, value in json.loads(progress).items() if key != "partial"} if progress else None,
        timeout=int(timeout) / 1000 if timeout else None,
        due=_number(due),
        notebook=_number(notebook),
    )


class Records:
    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def get(self, api: str, request_id: str) -> Record:
        with store_errors():
            raw: Any = self.client.hmget(keys.record(api, request_id), FIELDS)
        if raw[0] is None:
            raise not_found(api, request_id)
        return record_of(request_id, raw)

    def read(self, wanted: Mapping[str, Sequence[str]], fields: Sequence[str] = FIELDS) -> dict[str, dict[str, Sequence[bytes | None]]]:
        """The values of ``fields`` (the first is the status) by API and id, of records that are there, in one round trip.

        `record_of` makes records of FIELDS.
        """
        calls = [(api, ids[at : at + IDS_AT_ONCE]) for api, ids in wanted.items() for at in range(0, len(ids), IDS_AT_ONCE)]
        found: dict[str, dict[str, Sequence[bytes | None]]] = {api: {} for api in wanted}
        with store_errors():
            replies = READ.many(self.client, [(api, len(fields), *fields, *ids) for api, ids in calls]) if calls else []
        for (api, ids), rows in zip(calls, replies, strict=True):
            found[api].update((request_id, raw) for request_id, raw in zip(ids, rows, strict=True) if raw[0] is not None)
        return found

    def details(self, api: str, request_id: str, *, logs: bool = True) -> dict[str, Any]:
        """The record with result, failure details, earlier runs (the last one first) and whether the payload is still there.

        ``logs``: with a failure's own lines, of which there may be 1 MB.
        """
        record = self.get(api, request_id)
        with store_errors():
            pipe = self.client.pipeline(transaction=False)
            pipe.get(keys.result(api, request_id))
            pipe.get(keys.failure(api, request_id))
            pipe.exists(keys.body(api, request_id))
            pipe.get(keys.partial(api, request_id))
            pipe.lpos(keys.queue(api), request_id, maxlen=PLACES)
            if record.run > 1:
                pipe.hmget(keys.record(api, request_id), [f"requeue:{run}" for run in range(record.run - 1, max(0, record.run - 1 - RUNS), -1)])
            result, failure, kept, partial, place, *earlier = pipe.execute()
        shown = record.public()
        shown["result"] = json.loads(result) if result is not None else None
        shown["failure"] = json.loads(failure if logs else _without_logs(failure)) if failure is not None else None
        shown["frames"] = (shown["failure"] or {}).get("frames", [])
        shown["requeues"] = [json.loads(raw) for raw in earlier[0] if raw] if earlier else []
        shown["payload_kept"] = bool(kept)
        if not record.status.final:
            shown["partial"] = json.loads(partial) if partial is not None else None
            shown["position"] = place if record.status is Status.IN_QUEUE else None
        return shown

    def payload(self, api: str, request_id: str) -> tuple[Record, bytes | None]:
        """The record and its body, None when that is not kept any more. Raises WorkloadNotFound."""
        with store_errors():
            pipe = self.client.pipeline(transaction=True)
            pipe.hmget(keys.record(api, request_id), FIELDS)
            pipe.get(keys.body(api, request_id))
            raw, body = pipe.execute()
        if raw[0] is None:
            raise not_found(api, request_id)
        return record_of(request_id, raw), body


def _without_logs(failure: bytes) -> bytes:
    """A failure's JSON without its lines, which stand last (see `handler.execution.details`). Within a text each quote would have a backslash."""
    begin = failure.find(b', "logs": [')
    return failure if begin < 0 else failure[:begin] + b"}"


def not_found(api: str, request_id: str) -> WorkloadNotFound:
    return WorkloadNotFound(
        f"id {request_id} not found: {api} never had it, or it finished longer ago than results are kept (7 days, or `retain.days` of the spec)"
    )
