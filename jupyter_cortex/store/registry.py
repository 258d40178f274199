"""The registry: which APIs exist, which deployments they have, and the moves between their states."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

import redis

from ..core.errors import ApiNotFound, Conflict, DeploymentNotFound, EnvironmentProblem
from ..core.workload import DeploymentState
from . import keys
from .connection import pairs, store_errors, text
from .scripts import CHOOSE, DELETE, DEPLOY, MOVE, PROMOTE, PURGE, REHEARSE, REPLICAS, STOP

#: Seconds for which a deploy waits for the delete before it. Workers that are told to end now take about one.
DELETE_S = 10.0
#: Of so many newest versions these are kept: what a rollback needs, what its check said, and what it was at all.
BUNDLES_KEPT, REPORTS_KEPT, RECORDS_KEPT = 10, 10, 100
#: What others are to look at must be said while the store's memory is full, too: a script may write once its first write was one that needs none.
COUNT_UP = "redis.call('PERSIST', KEYS[1]) return redis.call('INCR', KEYS[1])"
SAY = "redis.call('PERSIST', KEYS[1]) return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])"
WAKE = "redis.call('PERSIST', KEYS[1]) redis.call('LPUSH', KEYS[1], '1') return redis.call('LTRIM', KEYS[1], 0, 15)"


@dataclass(frozen=True)
class Api:
    """One registry entry. ``live`` and ``wanted`` are versions; 0 = none."""

    name: str
    spec: dict[str, Any]
    endpoint: str
    gate: str
    live: int
    wanted: int
    source: str
    stopped: bool
    created: int
    updated: int


@dataclass(frozen=True)
class Deployment:
    """One bundle + spec of one API. Times are ms since the epoch; ``dotenv`` is secret and never leaves the server tower.

    ``rollback``: ``{"to", "who", "source"}`` of one that brought an earlier version back, else empty.
    ``rehearsal``: how far one is: ``{"live", "total", "done", "counts", "who"}``, else empty.
    """

    api: str
    version: int
    state: DeploymentState
    spec: dict[str, Any]
    digest: str
    handler_hash: str
    spec_hash: str
    source: str
    replicas: int
    wanted_replicas: int
    capped: str
    interpreter: str
    python_version: str
    host: str
    distributions: dict[str, str]
    dotenv: str = field(repr=False)
    error: dict[str, Any]
    rollback: dict[str, Any]
    rehearsal: dict[str, Any]
    times: dict[str, int]

    def public(self) -> dict[str, Any]:
        """What the control API shows of it."""
        shown = (
            "version",
            "digest",
            "source",
            "replicas",
            "capped",
            "interpreter",
            "python_version",
            "host",
            "distributions",
            "error",
            "rollback",
            "rehearsal",
            "times",
        )
        return {"state": str(self.state), "spec": self.spec, **{name: getattr(self, name) for name in shown}}


def _json(raw: str | None, default: Any) -> Any:
    return json.loads(raw) if raw else default


def _unknown(name: str) -> ApiNotFound:
    return ApiNotFound(f"{name} is not deployed; `cortex get` lists what is")


def _api(name: str, raw: dict[str, str]) -> Api:
    return Api(
        name=name,
        spec=_json(raw.get("spec"), {}),
        endpoint=raw.get("endpoint", ""),
        gate=raw.get("gate", "closed"),
        live=int(raw.get("live", 0)),
        wanted=int(raw.get("wanted", 0)),
        source=raw.get("source", ""),
        stopped=raw.get("stopped") == "1",
        created=int(raw.get("created", 0)),
        updated=int(raw.get("updated", 0)),
    )


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def hash_of(*parts: Any) -> str:
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


#: Sections of the spec whose change needs no new replicas.
IN_PLACE = ("networking", "autoscaling", "update_strategy", "drain_timeout", "queue_timeout", "rehearse")


def _fields(spec: dict[str, Any], digest: str, dotenv: str, interpreter: str, facts: dict[str, str]) -> list[Any]:
    """Field, value, field, value… of a deployment's record."""
    least = spec["autoscaling"]["min_replicas"]
    fields = {"digest": digest, "dotenv": dotenv, "interpreter": interpreter, "min_replicas": least, **facts}
    return [part for item in fields.items() for part in item]


def hashes(spec: dict[str, Any], digest: str, dotenv: str, interpreter: str) -> tuple[str, str]:
    """(spec hash, handler hash): equal spec hashes mean nothing to do, equal handler hashes mean nothing to restart."""
    running = {key: value for key, value in spec.items() if key not in IN_PLACE}
    handler = hash_of(running, digest, dotenv, interpreter)
    return hash_of(handler, spec), handler


class Registry:
    """Reads and moves; every method may raise StoreUnavailable."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    # APIs --------------------------------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        with store_errors():
            return sorted(text(name) for name in self.client.smembers(keys.APIS))  # type: ignore[union-attr]

    def find(self, name: str) -> Api | None:
        with store_errors():
            raw = pairs(self.client.hgetall(keys.api(name)))
        return _api(name, raw) if raw else None

    def get(self, name: str) -> Api:
        api = self.find(name)
        if api is None:
            raise _unknown(name)
        return api

    def all(self) -> list[Api]:
        """Every API, in two round trips."""
        names = self.names()
        with store_errors():
            pipe = self.client.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(keys.api(name))
            raws = pipe.execute()
        return [_api(name, pairs(raw)) for name, raw in zip(names, raws, strict=True) if raw]

    def owner_of(self, endpoint: str, name: str, *, coming: bool = False) -> str:
        """The API other than ``name`` that is live at this endpoint, "" for none; ``coming``: or that is on its way there."""
        for other in self.all():
            if other.name == name:
                continue
            taken = [other.endpoint] if other.live else []
            if coming and other.wanted != other.live:
                new = self.find_deployment(other.name, other.wanted)
                # One that failed or was stopped never came there.
                taken += [new.spec["networking"]["endpoint"]] if new and new.state not in (DeploymentState.FAILED, DeploymentState.STOPPED) else []
            if endpoint.strip("/") in (one.strip("/") for one in taken):
                return other.name
        return ""

    def set_stopped(self, name: str, stopped: bool) -> None:
        """Raises ApiNotFound."""
        with store_errors():
            known = STOP.run(self.client, name, int(stopped))
        if not known:
            raise _unknown(name)
        self.wake_operator()

    # Bundles -----------------------------------------------------------------------------------------------------------------------------

    def has_bundle(self, name: str, digest: str) -> bool:
        with store_errors():
            return bool(self.client.exists(keys.bundle(name, digest)))

    def put_bundle(self, name: str, digest: str, data: bytes) -> None:
        with store_errors():
            # For good only once it is deployed; one that is there may be, and holds the same.
            self.client.set(keys.bundle(name, digest), data, ex=86400, nx=True)

    def prune(self, name: str) -> None:
        """Forget what neither the newest versions nor running ones need: archives of up to 32 MiB, reports, and with old records their ``.env``."""
        with store_errors():  # first: one that a deploy records meanwhile is not among them
            kept = {text(digest) for digest in self.client.smembers(keys.bundles(name))}  # type: ignore[union-attr]
        active = set(self.active(name))
        needed = {deployment.digest for deployment in self.deployments(name, BUNDLES_KEPT)}
        needed |= {found.digest for version in active if (found := self.find_deployment(name, version))}
        last = self._next(name)
        with store_errors():
            pipe = self.client.pipeline(transaction=False)
            for digest in kept - needed:
                pipe.unlink(keys.bundle(name, digest))
                pipe.srem(keys.bundles(name), digest)
            for version in range(1, last - REPORTS_KEPT + 1):
                if version not in active:
                    pipe.unlink(keys.report(name, version), *([keys.deployment(name, version)] if version <= last - RECORDS_KEPT else []))
            pipe.execute()

    def bundle(self, name: str, digest: str) -> bytes:
        with store_errors():
            data = self.client.get(keys.bundle(name, digest))
        if data is None:
            raise DeploymentNotFound(f"{name}: the bundle {digest[:12]} is not in the store; deploy again")
        return data  # type: ignore[return-value]

    # Deployments -------------------------------------------------------------------------------------------------------------------------

    def deploy(
        self,
        name: str,
        spec: dict[str, Any],
        digest: str,
        *,
        dotenv: str,
        source: str,
        interpreter: str,
        facts: dict[str, str],
        take_over: bool = False,
        force: bool = False,
        anew: bool = False,
        audit: dict[str, Any] | None = None,
    ) -> tuple[str, int]:
        """Record a deployment. Returns (created|updating|changed|up_to_date|already_updating, version); raises Conflict.

        ``audit``: what is noted beside time and version of one that is no deploy of its own.
        """
        spec_hash, handler_hash = hashes(spec, digest, dotenv, interpreter)
        replicas = self._replicas_for(name, spec["autoscaling"])
        fields = _fields(spec, digest, dotenv, interpreter, facts)
        with store_errors():
            self.client.sadd(keys.APIS, name)
            outcome, version, detail = DEPLOY.run(
                self.client,
                name,
                canonical(spec),
                spec_hash,
                handler_hash,
                source,
                int(take_over),
                1 if force else 2 if anew else 0,
                spec["networking"]["endpoint"],
                replicas,
                "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in (audit or {}).items()),
                *fields,
            )
        outcome = self._recorded(name, text(outcome), text(detail), source, digest)
        return outcome, int(version)

    def _recorded(self, name: str, outcome: str, detail: str, source: str, digest: str) -> str:
        """What comes after recording a deployment. Raises what the outcome means."""
        if outcome == "source":
            raise Conflict(
                f"{name} was deployed from {detail}; this is {source}. Use --take-over to publish from here, or another name", source=detail
            )
        if outcome == "busy":
            raise Conflict(f"{name} is updating (override with --force)")
        if outcome == "deleting":
            raise Conflict(f"{name} is being deleted; try again in a moment")
        if outcome == "unknown":
            raise _unknown(name)
        if outcome in ("created", "updating", "rehearsing"):
            with store_errors():
                self.client.persist(keys.bundle(name, digest))
                self.client.sadd(keys.bundles(name), digest)
                # Once more: the end of a delete may have taken it away in the meantime.
                self.client.sadd(keys.APIS, name)
        self.wake_operator()
        return "already_updating" if outcome == "up_to_date" and detail in (DeploymentState.PENDING, DeploymentState.STARTING) else outcome

    # Rehearsals --------------------------------------------------------------------------------------------------------------------------

    def rehearse(
        self, name: str, spec: dict[str, Any], digest: str, *, dotenv: str, source: str, interpreter: str, facts: dict[str, str], take_over: bool
    ) -> int:
        """Record a deployment that runs kept workloads in the shadow; the version. Raises Conflict, ApiNotFound."""
        spec_hash, handler_hash = hashes(spec, digest, dotenv, interpreter)
        fields = _fields(spec, digest, dotenv, interpreter, facts)
        terms = (canonical(spec), spec_hash, handler_hash, source, int(take_over), self._replicas_for(name, spec["autoscaling"]))
        with store_errors():
            outcome, version, detail = REHEARSE.run(self.client, name, *terms, *fields)
        self._recorded(name, text(outcome), text(detail), source, digest)
        return int(version)

    def choose(self, name: str, version: int, audit: dict[str, Any], *, force: bool) -> None:
        """Send a rehearsed version on its way to live. Raises Conflict for one that is in another state, or while the API is updating."""
        note = "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in audit.items())
        replicas = self._replicas_for(name, self.deployment(name, version).spec["autoscaling"])
        with store_errors():
            word, detail = map(text, CHOOSE.run(self.client, name, version, int(force), replicas, note))
        if word == "busy":
            raise Conflict(f"{name} is updating (override with --force)")
        if word == "state":
            raise Conflict(f"version {version} of {name} is {detail}, not rehearsed: there is nothing to promote")
        self.wake_operator()

    def drop(self, name: str, version: int) -> None:
        """End a rehearsal, or what was rehearsed, for good. Raises Conflict for a version in another state."""
        dropped = self.deployment(name, version)
        if not self.move(name, version, (DeploymentState.REHEARSING, DeploymentState.REHEARSED), DeploymentState.STOPPED):
            raise Conflict(f"version {version} of {name} is {dropped.state}: only a rehearsal can be dropped")
        others = [*self.deployments(name), *filter(None, (self.find_deployment(name, one) for one in self.active(name)))]
        with store_errors():
            self.client.unlink(keys.rehearsal(name, version), keys.report(name, version))
            if all(one.digest != dropped.digest or one.version == version for one in others):
                # As one that was sent and never deployed: a deploy that has just found it there keeps it.
                self.client.expire(keys.bundle(name, dropped.digest), 86400)
                self.client.srem(keys.bundles(name), dropped.digest)
        self.wake_operator()

    def _replicas_for(self, name: str, limits: dict[str, Any]) -> int:
        """An update keeps the current count within the new limits; init_replicas counts at creation only."""
        api = self.find(name)
        live = self.find_deployment(name, api.live) if api and api.live else None
        if live is None:
            return int(limits["init_replicas"])
        return int(min(max(live.wanted_replicas, limits["min_replicas"]), limits["max_replicas"]))

    def find_deployment(self, name: str, version: int) -> Deployment | None:
        with store_errors():
            raw = pairs(self.client.hgetall(keys.deployment(name, version)))
        if not raw:
            return None
        times: dict[str, int] = {
            str(key): int(raw[key])
            for key in ("created", "changed", "rehearsed_at", "live_at", "draining_at", "stopped_at", "failed_at")
            if key in raw
        }
        return Deployment(
            api=name,
            version=version,
            state=DeploymentState(raw["state"]),
            spec=_json(raw.get("spec"), {}),
            digest=raw.get("digest", ""),
            handler_hash=raw.get("handler_hash", ""),
            spec_hash=raw.get("spec_hash", ""),
            source=raw.get("source", ""),
            replicas=int(raw.get("replicas", 1)),
            wanted_replicas=int(raw.get("wanted_replicas", raw.get("replicas", 1))),
            capped=raw.get("capped", ""),
            interpreter=raw.get("interpreter", ""),
            python_version=raw.get("python_version", ""),
            host=raw.get("host", ""),
            distributions=_json(raw.get("distributions"), {}),
            dotenv=raw.get("dotenv", ""),
            error=_json(raw.get("error"), {}),
            rollback=_json(raw.get("rollback"), {}),
            rehearsal=_json(raw.get("rehearsal"), {}),
            times=times,
        )

    def deployment(self, name: str, version: int) -> Deployment:
        found = self.find_deployment(name, version)
        if found is None:
            forgotten = f" any more; the newest {RECORDS_KEPT} are kept" if 0 < version < self._next(name) else ""
            raise DeploymentNotFound(f"{name} has no version {version}{forgotten}")
        return found

    def deployments(self, name: str, newest: int = 10) -> list[Deployment]:
        """The newest deployments, newest first."""
        last = self._next(name)
        found = (self.find_deployment(name, version) for version in range(last, max(0, last - newest), -1))
        return [deployment for deployment in found if deployment]

    def _next(self, name: str) -> int:
        """The number of the newest version."""
        with store_errors():
            return int(self.client.hget(keys.api(name), "next") or 0)  # type: ignore[arg-type]

    def live_before(self, name: str, version: int) -> int:
        """The version that was live before this one became it; 0 for none."""
        at = self.deployment(name, version).times.get("live_at", 0)
        last = self._next(name)
        with store_errors():
            pipe = self.client.pipeline(transaction=False)
            kept = range(max(1, min(version, last) - RECORDS_KEPT), last + 1)
            for one in kept:
                pipe.hget(keys.deployment(name, one), "live_at")
            went_live = [(int(raw), one) for one, raw in zip(kept, pipe.execute(), strict=True) if raw]
        return max(((when, one) for when, one in went_live if (when, one) < (at, version)), default=(0, 0))[1]

    def active(self, name: str) -> list[int]:
        with store_errors():
            return sorted(int(version) for version in self.client.smembers(keys.active(name)))  # type: ignore[union-attr]

    def forget_active(self, name: str, version: int) -> None:
        with store_errors():
            self.client.srem(keys.active(name), version)

    def set_replicas(self, name: str, version: int, replicas: int, wanted: int, capped: str) -> None:
        with store_errors():
            REPLICAS.run(self.client, name, version, replicas, wanted, capped)

    def move(self, name: str, version: int, allowed: tuple[DeploymentState, ...], to: DeploymentState, **facts: Any) -> bool:
        flat = [part for key, value in facts.items() for part in (key, value if isinstance(value, (str, int)) else json.dumps(value))]
        with store_errors():
            moved = MOVE.run(self.client, name, version, ",".join(allowed), str(to), *flat)
            self._count_up()
        return bool(moved)

    def promote(self, name: str, version: int, endpoint: str) -> int:
        """Make a starting deployment live. Returns the version that now drains, 0 for none, -1 when it was not starting any more."""
        with store_errors():
            before = int(PROMOTE.run(self.client, name, version, endpoint))
            self._count_up()
        return before

    def delete(self, name: str) -> None:
        """Close the API at once; its remains are removed by `purge`. Raises ApiNotFound."""
        with store_errors():
            known = DELETE.run(self.client, name)
            self._count_up()
        if not known:
            raise _unknown(name)
        self.wake_operator()

    def purge(self, name: str) -> None:
        with store_errors():
            while PURGE.run(self.client, name):
                pass

            def forget(pipe: Any) -> None:
                # A deploy of the same name may come at any moment: what it brings must not be forgotten with the old one.
                there = pipe.exists(keys.api(name))
                pipe.multi()
                if not there:
                    pipe.srem(keys.APIS, name)

            self.client.transaction(forget, keys.api(name))

    def being_deleted(self, name: str) -> bool:
        with store_errors():
            return bool(self.client.exists(keys.deleting(name)))

    def await_delete(self, name: str) -> None:
        """Wait until a delete of this name has come to its end, 10 s at most. A new deploy begins with this: what it brings must not go with the rest
        of the old one."""
        deadline = time.monotonic() + DELETE_S
        while self.being_deleted(name) and time.monotonic() < deadline:
            time.sleep(0.05)

    # Signals -----------------------------------------------------------------------------------------------------------------------------

    def wake_operator(self) -> None:
        """The registry changed: gateways look again, the operator wakes."""
        with store_errors():
            pipe = self.client.pipeline(transaction=False)
            pipe.eval(COUNT_UP, 1, keys.REGISTRY_VERSION)
            pipe.eval(WAKE, 1, keys.OPERATOR_WAKE)
            pipe.execute()

    def _count_up(self) -> None:
        self.client.eval(COUNT_UP, 1, keys.REGISTRY_VERSION)

    def say_status(self, document: str) -> None:
        """What the operator says of itself and its processes, for an hour."""
        with store_errors():
            self.client.eval(SAY, 1, keys.STATUS, document, 3600)

    def forget_status(self) -> None:
        """Nothing runs any more that could say anything of itself."""
        with store_errors():
            self.client.delete(keys.STATUS)

    def version(self) -> int:
        with store_errors():
            return int(self.client.get(keys.REGISTRY_VERSION) or 0)  # type: ignore[arg-type]

    def workers(self, name: str) -> dict[str, dict[str, Any]]:
        """What each worker of this API last said of itself, by worker id."""
        with store_errors():
            return {key: json.loads(value) for key, value in pairs(self.client.hgetall(keys.workers(name))).items()}

    def forget_worker(self, name: str, worker: str) -> None:
        with store_errors():
            pipe = self.client.pipeline(transaction=True)
            pipe.hdel(keys.workers(name), worker)
            pipe.zrem(keys.beats(name), f"worker:{worker}")
            pipe.execute()
            self._count_up()

    def check_schema(self) -> None:
        """Refuse a store written by a newer version; mark a fresh one as ours. Raises EnvironmentProblem."""
        with store_errors():
            self.client.set(keys.SCHEMA, keys.SCHEMA_VERSION, nx=True)
            found = int(self.client.get(keys.SCHEMA) or 0)  # type: ignore[arg-type]
        if found > keys.SCHEMA_VERSION:
            raise EnvironmentProblem(
                f"this store was written by a newer jupyter-cortex (schema {found}; this one knows {keys.SCHEMA_VERSION}). Upgrade with "
                "`pip install -U jupyter-cortex`, or use another JUPYTER_CORTEX_HOME"
            )
