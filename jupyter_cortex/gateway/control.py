"""What the control API does: deploy, delete, and say how things are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import redis
from pydantic import AfterValidator, BaseModel, Field

from ..core.errors import ApiNotFound, Conflict, SpecError
from ..core.models import not_come_along, with_kept
from ..core.readers import printable
from ..core.spec import check_specs
from ..handler.notebook.source import problem_of
from ..project import bundle, dotenv
from ..serving import metrics_store
from ..store import keys, rehearsals
from ..store.connection import store_errors
from ..store.glance import glances
from ..store.records import Records
from ..store.registry import Api, Deployment, Registry
from .artifact_routes import Shelf
from .routes import check_endpoint
from .summary import ready as replicas_ready
from .summary import summary


def _is_text(value: str) -> str:
    """A lone surrogate is valid JSON, but no text that could be stored."""
    value.encode()
    return value


Line = Annotated[str, AfterValidator(_is_text)]


def _shown(value: str) -> str:
    """Who and where, as one line of a list."""
    return "".join(char for char in value if char.isprintable())


Said = Annotated[Line, AfterValidator(_shown)]


class DeployRequest(BaseModel):
    """The body of PUT /apis/{name}: one entry of cortex.yaml as written, and what it was made with."""

    spec: dict[str, Any]
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    dotenv: Line = ""
    source: Line = Field(min_length=1, max_length=1000)
    interpreter: Line = ""
    python_version: Line = ""
    host: Line = ""
    distributions: dict[Line, Line] = {}
    take_over: bool = False
    force: bool = False
    #: So many of the last kept workloads are run first, in the shadow; it does not go live by itself.
    rehearse: Annotated[int, Field(ge=1, le=rehearsals.MOST)] | None = None
    who: Annotated[Said, Field(max_length=200)] = ""


class PatchRequest(BaseModel):
    spec: dict[str, Any]
    force: bool = False


class RollbackRequest(BaseModel):
    """The body of POST rollback. Without ``version``: the one live before the present one. ``who`` and ``source`` (a notebook) are noted."""

    version: int | None = Field(None, ge=1, le=999_999_999)
    force: bool = False
    who: Said = Field("", max_length=200)
    source: Said = Field("", max_length=1000)


class DecisionRequest(BaseModel):
    """The body of POST promote. ``who`` and ``source`` are noted."""

    force: bool = False
    who: Said = Field("", max_length=200)
    source: Said = Field("", max_length=1000)


class Control:
    """The routes' common ground: the store, the registry, and what changes routes. ``guarded``: public routes want a token."""

    def __init__(self, client: redis.Redis, shelf: Shelf, changed: Callable[[], None], *, guarded: bool = False) -> None:
        self.client, self.shelf, self.guarded = client, shelf, guarded
        self.registry = Registry(client)
        self.records = Records(client)
        self._changed = changed

    def names_in(self, name: str, digest: str) -> list[str]:
        return bundle.names(self.registry.bundle(name, digest))

    def check(self, name: str, raw: dict[str, Any], digest: str, dotenv_text: str, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """The resolved spec, or a refusal. The same function as the client's; the server does not take its word. ``before``: the spec it replaces."""
        names = self.names_in(name, digest)
        spec = check_specs([with_kept(raw, before)], names)[0]
        if spec.name != name:
            raise SpecError(f"the spec names {spec.name}, the request {name}", path="name")
        models = spec.handler.models.model_dump() if spec.handler.models else None
        if wanting := not_come_along(models, [*names, *(artifact.path for artifact in spec.artifacts)]):
            sentence = f"no file of {printable(wanting[1])} came along; deploy from the project's directory, which uploads it."
            raise SpecError(f"cortex.yaml: [0].{wanting[0]} ({name}): {sentence}", api=0, path=wanting[0], kind="model_missing")
        if spec.handler.type == "notebook":
            self._check_notebook(name, spec.handler.path, digest)
        if dotenv_text:
            dotenv.parse(dotenv_text.encode(), spec.handler.env)
        resolved = spec.resolved()
        resolved["artifacts"] = self.shelf.resolve(name, spec.artifacts, (before or {}).get("artifacts", []))
        check_endpoint(self.registry, name, resolved)
        return resolved

    def _check_notebook(self, name: str, path: str, digest: str) -> None:
        """Raises SpecError for a file that is no notebook, or not one of Python."""
        if problem := problem_of(bundle.read(self.registry.bundle(name, digest), path)):
            raise SpecError(f"cortex.yaml: [0].handler.path ({name}): {path}: {problem}", path="handler.path", kind="notebook")

    def deploy(self, name: str, request: DeployRequest) -> dict[str, Any]:
        resolved = self.check(name, request.spec, request.digest, request.dotenv)
        return self._rehearse(name, request, resolved) if request.rehearse else self._record(name, request, resolved)

    def _rehearse(self, name: str, request: DeployRequest, resolved: dict[str, Any]) -> dict[str, Any]:
        """Raises Conflict where it must not be, or cannot."""
        api = self.registry.get(name)
        check_rehearsal(api, resolved)
        ids = rehearsals.choose(self.client, name, request.rehearse or 0)
        if not ids:
            raise Conflict(f"{name} has no ended request whose payload is kept: there is nothing to rehearse with yet")
        told = {"live": api.live, "total": len(ids), "done": 0, "counts": {}, "who": request.who}
        facts = {**_facts(request), "rehearsal": json.dumps(told), "rehearsal_ids": json.dumps(ids)}
        version = self.registry.rehearse(
            name,
            resolved,
            request.digest,
            dotenv=request.dotenv,
            source=request.source,
            interpreter=request.interpreter,
            facts=facts,
            take_over=request.take_over,
        )
        said = f"rehearsing {name} version {version} with the last {len(ids)} request{'s' * (len(ids) != 1)}"
        return self._told(name, "rehearsing", version, said, resolved["networking"]["endpoint"])

    def promote(self, name: str, version: int, request: DecisionRequest) -> dict[str, Any]:
        """Send what was rehearsed on its way to live. Raises Conflict, DeploymentNotFound."""
        self.registry.get(name)
        spec = self.registry.deployment(name, version).spec
        check_endpoint(self.registry, name, spec)
        audit = {"what": "promote", "who": request.who, "source": request.source}
        self.registry.choose(name, version, audit, force=request.force)
        self._changed()
        said = f"promoting version {version} of {name}"
        return self._told(name, "updating", version, said, spec["networking"]["endpoint"])

    def drop(self, name: str, version: int) -> dict[str, Any]:
        """Raises Conflict, DeploymentNotFound."""
        self.registry.get(name)
        self.registry.drop(name, version)
        return {"message": f"dropped version {version} of {name}"}

    def again(self, name: str, *, raw_spec: dict[str, Any] | None, force: bool, anew: bool = False) -> dict[str, Any]:
        """Deploy what is there once more: with another spec (patch), or as it is (refresh: ``anew``)."""
        api = self.registry.get(name)
        return self._again(api, self.registry.deployment(name, api.live or api.wanted), raw_spec, force=force, anew=anew)

    def written_spec(self, name: str, version: int) -> dict[str, Any]:
        """Raises DeploymentNotFound."""
        self.registry.deployment(name, version)
        with store_errors():
            raw = self.client.hget(keys.deployment(name, version), "raw_spec")
        found: dict[str, Any] = json.loads(raw or b"{}")  # type: ignore[arg-type]
        return found

    def _again(self, api: Api, last: Deployment, raw_spec: dict[str, Any] | None, *, force: bool, **options: Any) -> dict[str, Any]:
        """Deploy what a version was, its `.env` with it."""
        name = api.name
        if raw_spec is None:
            raw_spec = self.written_spec(name, last.version)
        request = DeployRequest(
            spec=raw_spec or {},
            digest=last.digest,
            dotenv=last.dotenv,
            source=api.source,
            interpreter=last.interpreter,
            python_version=last.python_version,
            host=last.host,
            distributions=last.distributions,
            force=force,
        )
        return self._record(name, request, self.check(name, request.spec, last.digest, last.dotenv, last.spec), **options)

    def rollback(self, name: str, request: RollbackRequest) -> dict[str, Any]:
        """Make what an earlier version was live again, as a new version. Raises Conflict, DeploymentNotFound."""
        api = self.registry.get(name)
        version = request.version or (self.registry.live_before(name, api.live) if api.live else 0)
        if not version:
            raise Conflict(
                f"no version of {name} was live before {f'version {api.live}' if api.live else 'this one'}: there is nothing to roll back to"
            )
        target = self.registry.deployment(name, version)
        self._check_target(api, target)
        by = {"who": request.who, "source": request.source}
        done = self._again(
            api,
            target,
            None,
            force=request.force,
            anew=True,
            # The deployment tells where its handler came from; the API stays whose it is.
            more={"source": target.source, "rollback": json.dumps({"to": version, **by})},
            audit={"what": "rollback", **by, "to": version},
        )
        return {**done, "message": f"rolling {name} back to version {version}, as version {done['version']}"}

    def _check_target(self, api: Api, target: Deployment) -> None:
        """Raises Conflict for a version that cannot, or need not, be live again."""
        name, version = api.name, target.version
        if version == api.live:
            raise Conflict(f"version {version} of {name} is the live one; `cortex refresh {name}` starts fresh replicas of it")
        live = self.registry.find_deployment(name, api.live) if api.live else None
        if live is not None and live.rollback.get("to") == version and live.spec_hash == target.spec_hash:
            raise Conflict(f"version {version} of {name} is live already, as version {live.version}, a rollback to it")
        if "live_at" not in target.times:
            raise Conflict(f"version {version} of {name} never became live ({target.state}); roll back to one that did")
        if not self.registry.has_bundle(name, target.digest):
            raise Conflict(f"version {version} of {name} is too old: its bundle is not kept any more. Deploy it again from its project")

    def _record(
        self,
        name: str,
        request: DeployRequest,
        resolved: dict[str, Any],
        *,
        anew: bool = False,
        more: dict[str, str] | None = None,
        audit: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        facts = {**_facts(request), **(more or {})}
        outcome, version = self.registry.deploy(
            name,
            resolved,
            request.digest,
            dotenv=request.dotenv,
            source=request.source,
            interpreter=request.interpreter,
            facts=facts,
            take_over=request.take_over,
            force=request.force,
            anew=anew,
            audit=audit,
        )
        self._changed()
        endpoint = resolved["networking"]["endpoint"]
        api = self.registry.find(name)
        said = message(outcome, name)
        outcome = outcome.removeprefix("already_")  # the same version is on its way, and may yet fail
        return {**self._told(name, outcome, version, said, endpoint), "stopped": api is not None and api.stopped}

    def _told(self, name: str, outcome: str, version: int, said: str, endpoint: str) -> dict[str, Any]:
        return {"api": name, "outcome": outcome, "version": version, "message": said, "endpoint": endpoint, "guarded": self.guarded}

    def delete(self, name: str) -> dict[str, str]:
        self.registry.delete(name)
        self._changed()
        return {"message": f"deleting {name}"}

    def summaries(self, recent: int = 0) -> list[dict[str, Any]]:
        """All APIs by name, with ``recent`` minutes of counters where asked for; two round trips for any number of them."""
        return [summary(api, recent=bool(recent)) for api in glances(self.client, self.registry.names(), max(1, recent))]

    def detail(self, name: str) -> dict[str, Any]:
        api = self.registry.get(name)
        found = glances(self.client, [name])
        if not found:
            raise ApiNotFound(f"{name} was deleted just now")
        with store_errors():
            exits = [json.loads(raw) for raw in self.client.lrange(keys.exits(name), 0, 9)]  # type: ignore[union-attr]
        return {
            **summary(found[0]),
            "guarded": self.guarded,
            "spec": api.spec,
            "api_versions": [deployment.public() for deployment in self.registry.deployments(name)],
            "workers": self.registry.workers(name),
            "exits": exits,
        }

    def status(self) -> dict[str, Any]:
        with store_errors():
            raw = self.client.get(keys.STATUS)
        return {**(json.loads(raw) if raw else {"processes": []}), "guarded": self.guarded}  # type: ignore[arg-type]

    def metrics(self) -> str:
        """Prometheus text of everything."""
        from ..handler import metrics as client_metrics

        lines = ["# TYPE cortex_async_queue_length gauge"]
        ready = ["# TYPE cortex_replicas_ready gauge"]
        custom: list[tuple[dict[str, Any], dict[str, str]]] = []
        for api in glances(self.client, self.registry.names()):
            # There is no other kind.
            labels = f'{{api_name="{api.name}",api_kind="AsyncAPI"}}'
            lines.append(f"cortex_async_queue_length{labels} {api.counts['in_queue'] + api.counts['in_progress']}")
            ready.append(f"cortex_replicas_ready{labels} {replicas_ready(api)}")
            custom.append((metrics_store.totals(self.client, api.name), {"api_name": api.name}))
        return "\n".join([*lines, *ready, client_metrics.render_all(custom)])


def _facts(request: DeployRequest) -> dict[str, str]:
    return {
        "python_version": request.python_version,
        "host": request.host,
        "distributions": json.dumps(request.distributions),
        "raw_spec": json.dumps(request.spec),
    }


def check_rehearsal(api: Api, spec: dict[str, Any]) -> None:
    """Whether the payloads are kept, and their author agrees that they run again. Raises Conflict that says all that is missing."""
    if not api.live:
        raise Conflict(f"no version of {api.name} is live yet: there is nothing to rehearse with; deploy it without --rehearse")
    missing = []
    if api.spec.get("retain", {}).get("payload") != "always":
        missing.append(
            f"`retain: {{payload: always}}` in the cortex.yaml of version {api.live}, which is live: it keeps the payloads that a rehearsal needs. "
            "Deploy with it; what comes in from then on can be rehearsed"
        )
    if not spec["rehearse"]:
        missing.append(
            "`rehearse: true` in the cortex.yaml of what is deployed: a rehearsal runs real requests a second time, with all that its handler does "
            'beside answering; `config["cortex_rehearsal"]` is true then'
        )
    if missing:
        raise Conflict(f"{api.name} cannot be rehearsed. Missing is " + "; and ".join(missing), missing=missing)


def message(outcome: str, name: str) -> str:
    sentences = {
        "created": "creating {}",
        "updating": "updating {}",
        "changed": "updating {}",
        "up_to_date": "{} is up to date",
        "already_updating": "{} is already updating",
    }
    return sentences[outcome].format(f"{name} (AsyncAPI)")
