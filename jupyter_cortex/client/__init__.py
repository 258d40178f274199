"""The one Python API, over HTTP: publish, call, look up, look after.

import jupyter_cortex as cortex
cx = cortex.client()
cx.deploy("cortex.yaml")
request_id = cx.submit("iris", {"sepal_length": 5.2})
print(cx.result("iris", request_id, wait=30).result)
"""

from __future__ import annotations

import getpass
import json
import math
import platform
import sys
import time
import types
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from ..core.errors import (
    BadRequest,
    Conflict,
    CortexError,
    EnvironmentDown,
    EnvironmentProblem,
    StoreUnavailable,
)
from ..core.levels import Level
from ..core.settings import Settings
from ..core.spec import check_specs
from ..core.workload import FINAL
from ..environments import LOCAL, SETTINGS, Environment, Environments, start_local
from ..project import artifacts, bundle, dotenv, files, from_class, provenance
from ..project import project as projects
from ..project.installation import lock as locking
from ..project.project import Project
from .outcomes import NOT_OF_ONE, Deployed, Event, Workload, did_not_start, gathered, of_several, workload_of
from .wire import EVENTS_TIMEOUT, RECONNECT_S, Absence, body_of, document_of, error_of, quoted, record_of, seconds_since

Progress = Callable[[str], None]
#: Seconds a single HTTP call may take to connect, and to answer.
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
#: The same for an artifact: after its last byte the gateway may have to take it to a bucket first.
UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
#: How often an upload says how far it is; a multiple of the pieces in which it is read.
REPORT_BYTES = 16 * artifacts.CHUNK
#: The longest wait of one long poll; longer waits are made of several.
POLL_S = 20.0
#: Groups of failures that are kept at most.
GROUPS = 1000
#: Ids that one call requeues.
REQUEUED_AT_ONCE = 1000
#: Seconds that the path of an API is remembered.
ENDPOINT_S = 30.0
#: Seconds between two looks at a deployment that starts.
LOOK_S = 0.05
#: The same for a rehearsal, which tells twice a second how far it is.
REHEARSAL_LOOK_S = 0.2


class _Callable(types.ModuleType):
    """`jupyter_cortex.client` is this module once anything has imported it, and the function before: calling either is the same."""

    def __call__(self, env: str | None = None) -> Client:
        return client(env)


sys.modules[__name__].__class__ = _Callable


def client(env: str | None = None) -> Client:
    """A client for the named environment, else the one in use, else the local one."""
    settings = Settings.read()
    return Client(Environments(settings).find(env), settings)


def new_client(name: str, operator_endpoint: str, token: str = "") -> Client:
    """Remember a gateway's URL (and its token) as an environment, and a client for it: Cortex's name for `cortex env add`.

    Raises EnvironmentProblem for a name or URL that cannot be used.
    """
    Environments(Settings.read()).add(name, operator_endpoint, token)
    return client(name)


def env_list() -> list[dict[str, Any]]:
    """``{"name", "url", "used"}`` of each environment."""
    return Environments(Settings.read()).list()


def env_delete(name: str) -> None:
    """Forget an environment; nothing happens to its gateway. Raises EnvironmentProblem for one that is not there, and for the local one."""
    Environments(Settings.read()).remove(name)


class Client:
    """Talks to one environment. Every method raises members of the CortexError family; nothing else for what a user can cause."""

    def __init__(self, environment: Environment | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.read()
        self.environment = environment or Environments(self.settings).find()
        #: Of a single call; whoever cannot wait as long sets it before the first one.
        self.patience: httpx.Timeout | float = TIMEOUT
        self._http: httpx.Client | None = None
        self._endpoints: dict[str, tuple[str, float]] = {}  # and when each was looked up
        self._answered = False

    # The wire ----------------------------------------------------------------------------------------------------------------------------

    def _connection(self) -> httpx.Client:
        if self._http is None:
            url = self.environment.url
            if not url:
                raise EnvironmentDown("no local environment runs; start it with `cortex up`")
            try:
                # A proxy for the outside world must not see calls to this machine.
                direct = self.environment.name == LOCAL or httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
                self._http = httpx.Client(base_url=url, timeout=self.patience, trust_env=not direct)
            except (ImportError, ValueError, OSError) as error:  # a proxy of a kind that httpx does not know, certificates that are not there
                raise EnvironmentProblem(
                    f"{url} cannot be asked with the proxy or certificates that this shell names ({error}); look at HTTP_PROXY, HTTPS_PROXY, "
                    "ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR, or set NO_PROXY for it"
                ) from None
            except httpx.InvalidURL as error:
                where = "JUPYTER_CORTEX_URL" if self.environment.name == SETTINGS else f"the URL of the environment {self.environment.name}"
                raise EnvironmentProblem(f"{where} is no URL of a gateway ({error}); it looks like https://host:port") from None
        return self._http

    def _call(self, method: str, path: str, *, token: str = "", **options: Any) -> httpx.Response:
        headers = {**options.pop("headers", {})}
        if token:
            headers["authorization"] = f"Bearer {token}"
        try:
            answer = self._connection().request(method, path, headers=headers, **options)
        except (httpx.LocalProtocolError, UnicodeEncodeError):
            # Its own words repeat the header, which may be the token.
            raise BadRequest("this cannot be sent: the Content-Type, the request id or the token has a character that HTTP does not carry") from None
        except httpx.TransportError as error:
            if self.environment.name == LOCAL and isinstance(error, httpx.ConnectError):
                raise EnvironmentDown(f"the local environment ({self.environment.url}) is not running; start it with `cortex up`") from error
            hint = "start it with `cortex up`" if self.environment.name == LOCAL else "check its URL with `cortex env list`"
            raise EnvironmentDown(f"{self.environment.url} does not answer ({type(error).__name__}); {hint}") from error
        self._answered = True
        if not answer.is_success:
            raise error_of(answer)
        return answer

    def _control(self, method: str, path: str, **options: Any) -> Any:
        return document_of(self._call(method, f"/_cortex/v1{path}", token=self.environment.token, **options))

    def ensure_up(self, progress: Progress = lambda step: None) -> None:
        """Start the local environment if this client points there and it does not answer."""
        if self.environment.name != LOCAL:
            return
        if self.environment.url:
            try:
                self.status()
                return
            except CortexError:
                pass
        progress("starting the local environment")
        start_local()
        self.close()
        self.environment = Environments(self.settings).find(LOCAL)

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Publishing --------------------------------------------------------------------------------------------------------------------------

    def deploy(
        self,
        config: str | Path | dict[str, Any] = "cortex.yaml",
        project_dir: str | Path = ".",
        *,
        force: bool = False,
        wait: bool = True,
        take_over: bool = False,
        confirm: Callable[[str], bool] | None = None,
        progress: Progress = lambda step: None,
        source: str = "",
        rehearse: int | None = None,
        lock: bool = False,
    ) -> list[Deployed]:
        """Publish the APIs of a ``cortex.yaml``, or one API given as a dict together with ``project_dir``.

        ``wait``: return when the new version is live (raises DeployFailed when it does not start; the version before it keeps serving).
        ``source`` says where it comes from (default: the file's path, or the directory's for a dict); an API belongs to its source, and another
        one needs ``take_over``. ``confirm`` is asked about unusually large projects; without it they are only mentioned in ``warnings``. The
        caller's dict is not changed. ``lock``: replicas get a Python of their own with the exact versions that this one has of what the project
        requires and imports; without it they share this one's packages, with those that requirements.txt asks for besides.
        """
        progress("bundling")
        if isinstance(config, dict):
            project = projects.from_directory(config, Path(project_dir), source=source, confirm=confirm)
        else:
            project = projects.from_config(Path(config), source=source, confirm=confirm)
        options: dict[str, Any] = {"force": force, "wait": wait, "take_over": take_over, "confirm": confirm, "rehearse": rehearse, "lock": lock}
        return self.publish(project, progress=progress, **options)

    def publish(
        self,
        project: Project,
        *,
        force: bool = False,
        wait: bool = True,
        take_over: bool = False,
        confirm: Callable[[str], bool] | None = None,
        progress: Progress = lambda step: None,
        distributions: dict[str, str] | None = None,
        rehearse: int | None = None,
        lock: bool = False,
    ) -> list[Deployed]:
        """Publish a project that is a value already; see :meth:`deploy` for the rest.

        Of several APIs each is tried: what is raised then names those that were refused, and has the others as ``deployed``.
        ``distributions``: what `provenance.distributions` says of its files, where that was asked already. ``rehearse``: run so many of the last
        kept requests first, in the shadow (see :meth:`rehearsal`); the version then waits for `promote` or `drop`.
        """
        progress("bundling")
        warnings = list(project.warnings)
        made_with = provenance.distributions(project.files) if distributions is None else distributions
        if lock:
            project = locking.locked(project, check_specs(project.documents, [file.path for file in project.files], project.config_name), made_with)
        packed = bundle.pack(project.files, meta=project.meta)
        files.confirm_bundle(len(packed.data), len(project.files), confirm=confirm, warnings=warnings)
        specs = check_specs(project.documents, packed.names, project.config_name)
        env_file = _read_env(project.files, specs)
        contents = artifacts.read(project.documents, project.artifact_sources(), self.settings.home / "digests.json")
        for spec in specs:
            provenance.check_surroundings(project, spec, here=self.environment.name == LOCAL)
        deployed: list[Deployed] = []
        refused: dict[str, CortexError] = {}
        for document, spec in zip(project.documents, specs, strict=True):
            unlimited = provenance.unlimited(spec, here=self.environment.name == LOCAL)
            notes = [*warnings, *spec.warnings, *unlimited, *provenance.undeclared(project, spec, made_with)]
            if any(isinstance(one, NOT_OF_ONE) for one in refused.values()):
                break  # it would be the same with the next
            with gathered(spec.name, refused):
                self._upload_artifacts([artifact.path for artifact in spec.artifacts], contents, progress)
                sent = artifacts.sent(document, contents)
                deployed.append(self._deploy_one(sent, spec.name, project, packed, env_file, made_with, force, take_over, notes, progress, rehearse))
        for one in deployed if wait else ():
            with gathered(one.api, refused):
                (self.wait_rehearsed if rehearse else self.wait_live)(one.api, one.version, progress)
        if refused:
            done = [one for one in deployed if one.api not in refused]
            raise of_several(refused, done, [spec.name for spec in specs], "Rehearsed" if rehearse else "Deployed")
        return deployed

    def _deploy_one(
        self,
        document: dict[str, Any],
        name: str,
        project: Project,
        packed: bundle.Bundle,
        env_file: str,
        distributions: dict[str, str],
        force: bool,
        take_over: bool,
        notes: list[str],
        progress: Progress,
        rehearse: int | None,
    ) -> Deployed:
        if not self._control("GET", f"/apis/{quoted(name)}/bundles/{packed.digest}")["present"]:
            progress(f"uploading {files.megabytes(len(packed.data))}")
            self._control("PUT", f"/apis/{quoted(name)}/bundles/{packed.digest}", content=packed.data)
        body = {
            "spec": document,
            "digest": packed.digest,
            "dotenv": env_file,
            "source": f"{_user()}@{platform.node()}:{project.source}",
            "distributions": distributions,
            "force": force,
            "take_over": take_over,
            **({"rehearse": rehearse, "who": whoami()} if rehearse else {}),
            **provenance.interpreter(),
        }
        said = self._control("PUT", f"/apis/{quoted(name)}", json=body)
        self._endpoints.pop(name, None)  # it may get another one, once it is live
        if said.get("stopped"):
            notes.append(f"{name} is stopped: requests are accepted and wait until `cortex start {name}`")
        return Deployed(
            name,
            said["outcome"],
            said["version"],
            said["message"],
            said["endpoint"],
            self.environment.url + said["endpoint"],
            notes,
            said.get("guarded", False),
        )

    def _upload_artifacts(self, paths: list[str], contents: dict[str, artifacts.Content], progress: Progress) -> None:
        """Send what the gateway does not have, straight from the disk."""
        for path in paths:
            content = contents.get(path)
            if content is None or self._control("GET", f"/artifacts/{content.sha256}")["present"]:
                continue
            pieces = _reported(content, path, progress)
            headers = {"content-length": str(content.size), "content-type": "application/octet-stream"}
            self._control("PUT", f"/artifacts/{content.sha256}", content=pieces, headers=headers, timeout=UPLOAD_TIMEOUT)

    def deploy_async_api(
        self,
        api_spec: dict[str, Any],
        handler: type,
        requirements: list[str] | None = None,
        conda_packages: list[str] | None = None,
        force: bool = True,
        **options: Any,
    ) -> Deployed:
        """Publish a class: one of this notebook through its slice (`show` shows it), one of an importable file with the whole file.

        Raises ProjectError when the class has neither, NotebookError when the notebook cannot be published.
        """
        project = from_class.build(api_spec, handler, requirements, conda_packages)
        return self.publish(project, force=force, **options)[0]

    def wait_live(self, name: str, version: int, progress: Progress = lambda step: None) -> None:
        """Until the version is live (or a newer one took its place).

        Raises DeployFailed with the reason and the last log lines, Conflict when another deploy, or a delete, ended it before it was live.
        """
        progress(f"starting {name}")
        absence = Absence()
        while True:
            deployment = self._deployment_awaited(name, version, absence)
            state = deployment["state"]
            if state == "live" or (state in ("draining", "stopped") and deployment["times"].get("live_at")):
                progress(f"{name} is live")
                return
            if state in ("draining", "stopped"):
                raise Conflict(f"version {version} of {name} was replaced before it was live; `cortex get {name}` says by what")
            if state == "failed":
                raise did_not_start(name, version, deployment["error"])
            if deployment.get("installing"):
                progress(f"installing: {deployment['installing']}")
            time.sleep(LOOK_S)

    def _deployment_awaited(self, name: str, version: int, absence: Absence) -> dict[str, Any]:
        """How it stands. A gateway or store that is away for a moment ends nothing; raises EnvironmentDown or StoreUnavailable with what goes on."""
        while True:
            try:
                found = self._control("GET", f"/apis/{quoted(name)}/deployments/{version}")
            except (EnvironmentDown, StoreUnavailable) as error:
                try:
                    absence.bear(error)
                except CortexError:
                    error.message += f". Version {version} of {name} was accepted and starts without us; `cortex get {name}` says what became of it"
                    raise error from None
                continue
            absence.over()
            return dict(found)

    # Rehearsals --------------------------------------------------------------------------------------------------------------------------

    def wait_rehearsed(self, name: str, version: int, progress: Progress = lambda step: None) -> None:
        """Until the rehearsal's report is there. Raises DeployFailed when the version does not start, Conflict when it was dropped."""
        absence = Absence()
        while True:
            deployment = self._deployment_awaited(name, version, absence)
            if deployment["state"] == "failed":
                raise did_not_start(name, version, deployment["error"])
            if deployment["state"] == "stopped":
                raise Conflict(f"the rehearsal of {name} version {version} was dropped")
            said = deployment["rehearsal"]
            progress(f"rehearsing {name}: {said['done']:,} of {said['total']:,} requests")
            if deployment["state"] != "rehearsing":
                return
            time.sleep(REHEARSAL_LOOK_S)

    def rehearsal(self, name: str, version: int) -> dict[str, Any]:
        """What a version did with the last kept requests in the shadow, beside production's answers.

        ``{"rows", "counts", "same", "redacted", "speed", "live", …}``; a row is ``{"id", "verdict", "text", "production", "here",
        "difference"}`` with the verdicts same_result, same_failure, changed, fails_here, another_failure, fixed and gone (its
        payload). Raises DeploymentNotFound.
        """
        return dict(self._control("GET", f"/apis/{quoted(name)}/deployments/{version}/rehearsal"))

    def promote(
        self, name: str, version: int, force: bool = False, wait: bool = True, source: str | None = None, progress: Progress = lambda step: None
    ) -> Deployed:
        """Make a rehearsed version live, as a deploy would. Raises Conflict for one that is not rehearsed."""
        body = {"force": force, "who": whoami(), "source": (source or "")[:1000]}
        return self._again(self._control("POST", f"/apis/{quoted(name)}/deployments/{version}/promote", json=body), wait, progress)

    def drop(self, name: str, version: int) -> dict[str, str]:
        """End a rehearsal, or what was rehearsed, for good. Raises Conflict for a version in another state."""
        return dict(self._control("POST", f"/apis/{quoted(name)}/deployments/{version}/drop"))

    def patch(self, api_spec: dict[str, Any], force: bool = False, wait: bool = True) -> Deployed:
        """Another spec for the project that is deployed already."""
        name = str(api_spec.get("name", ""))
        return self._again(self._control("PATCH", f"/apis/{quoted(name)}", json={"spec": api_spec, "force": force}), wait)

    def refresh(self, name: str, force: bool = False, wait: bool = True) -> Deployed:
        """Fresh replicas of what is deployed, the new ones live before the old ones drain."""
        return self._again(self._control("POST", f"/apis/{quoted(name)}/refresh", params={"force": force}), wait)

    def rollback(
        self,
        name: str,
        version: int | None = None,
        force: bool = False,
        wait: bool = True,
        source: str | None = None,
        progress: Progress = lambda step: None,
    ) -> Deployed:
        """Make what an earlier version was (bundle, spec, `.env`) live again, as a new version; without ``version``, the one live before.

        It goes live as a deploy does: what runs goes on, what waits is kept. Raises Conflict for one that cannot come back: it never was live, is
        live now, or its bundle is gone. ``source`` (a notebook's path, say) is noted with user and machine.
        """
        body = {"version": version, "force": force, "who": whoami(), "source": (source or "")[:1000]}
        return self._again(self._control("POST", f"/apis/{quoted(name)}/rollback", json=body), wait, progress)

    def _again(self, said: dict[str, Any], wait: bool, progress: Progress = lambda step: None) -> Deployed:
        url, guarded = self.environment.url + said["endpoint"], said.get("guarded", False)
        deployed = Deployed(said["api"], said["outcome"], said["version"], said["message"], said["endpoint"], url, guarded=guarded)
        self._endpoints.pop(deployed.api, None)
        if wait:
            self.wait_live(deployed.api, deployed.version, progress)
        return deployed

    def delete(self, name: str, keep_cache: bool = False) -> dict[str, str]:
        """The API, its queue and its results. ``keep_cache`` is accepted for old callers and changes nothing: there is no cache."""
        self._endpoints.pop(name, None)
        return dict(self._control("DELETE", f"/apis/{quoted(name)}"))

    def stop(self, name: str) -> dict[str, str]:
        """Stop the replicas; requests are still accepted and wait."""
        return dict(self._control("POST", f"/apis/{quoted(name)}/stop"))

    def start(self, name: str) -> dict[str, str]:
        return dict(self._control("POST", f"/apis/{quoted(name)}/start"))

    # Looking -----------------------------------------------------------------------------------------------------------------------------

    def get_api(self, name: str) -> dict[str, Any]:
        return dict(self._control("GET", f"/apis/{quoted(name)}"))

    def module(self, name: str, version: int) -> dict[str, Any]:
        """``{"path", "source", "reasons", "notebook", "cells"}`` of a deployment's handler module; ``reasons`` says why each statement is in it."""
        return dict(self._control("GET", f"/apis/{quoted(name)}/deployments/{version}/module"))

    def deployment(self, name: str, version: int) -> dict[str, Any]:
        """One version: its spec, state, interpreter and the distributions it was made with. Raises DeploymentNotFound."""
        return dict(self._control("GET", f"/apis/{quoted(name)}/deployments/{version}"))

    def written_spec(self, name: str, version: int) -> dict[str, Any]:
        """The entry of cortex.yaml that a version was deployed with, as its author wrote it. Raises DeploymentNotFound."""
        return dict(self._control("GET", f"/apis/{quoted(name)}/deployments/{version}/spec")["spec"])

    def bundle(self, name: str, version: int) -> bytes:
        """The archive of a version, as `project.bundle` packs it. Raises DeploymentNotFound when it is not kept any more."""
        return self._call("GET", f"/_cortex/v1/apis/{quoted(name)}/deployments/{version}/bundle", token=self.environment.token).content

    def report(self, name: str, version: int) -> bytes:
        """The check notebook (ipynb) that ran before a deployment."""
        return self._call("GET", f"/_cortex/v1/apis/{quoted(name)}/deployments/{version}/report", token=self.environment.token).content

    def put_report(self, name: str, version: int, data: bytes) -> None:
        """Keep a deployment's check notebook."""
        self._control("PUT", f"/apis/{quoted(name)}/deployments/{version}/report", content=data)

    def list_apis(self) -> list[dict[str, Any]]:
        return list(self._control("GET", "/apis"))

    def status(self) -> dict[str, Any]:
        return dict(self._control("GET", "/status"))

    def workloads(self, name: str, status: str | None = None, limit: int = 50, fingerprint: str | None = None) -> list[dict[str, Any]]:
        """The newest workloads, newest first; with ``fingerprint``, of one group of failures."""
        params: dict[str, Any] = {"limit": limit, **({"status": status} if status else {}), **({"fingerprint": fingerprint} if fingerprint else {})}
        return list(self._control("GET", f"/apis/{quoted(name)}/workloads", params=params)["workloads"])

    def workload(self, name: str, request_id: str) -> dict[str, Any]:
        """Everything kept of one workload: times, attempts, replica, version, result or failure with its frames, and earlier runs (``requeues``)."""
        return dict(self._control("GET", f"/apis/{quoted(name)}/workloads/{quoted(request_id)}"))

    def workload_log(self, name: str, request_id: str) -> list[dict[str, Any]]:
        """The log records of one workload, as far as the API's log still has them."""
        return list(self._control("GET", f"/apis/{quoted(name)}/workloads/{quoted(request_id)}/logs")["records"])

    def payload(self, name: str, request_id: str) -> tuple[str, bytes]:
        """(Content-Type, body) of a workload, as its caller sent them. Raises PayloadGone when they are not kept any more."""
        path = f"/_cortex/v1/apis/{quoted(name)}/workloads/{quoted(request_id)}/payload"
        answer = self._call("GET", path, token=self.environment.token)
        return unquote(answer.headers["x-payload-content-type"]), answer.content

    def notebook(self, name: str, request_id: str, *, html: bool = False) -> bytes:
        """The notebook that a notebook handler has executed for a workload (ipynb, or as a page), also of one that failed. Raises NotebookGone."""
        path = f"{self._path(name)}/{quoted(request_id)}/notebook.{'html' if html else 'ipynb'}"
        return self._call("GET", path, token=self.environment.caller).content

    def failures(self, name: str, since: int | None = None) -> list[dict[str, Any]]:
        """Failed workloads as groups of one fingerprint, the one that failed last first: count, first and last time, versions, frames of the newest.

        ``since``: in ms since the epoch, as the times of workloads are; without it, all that are kept.
        """
        params = {"limit": GROUPS, **({} if since is None else {"since": seconds_since(since)})}
        return list(self._control("GET", f"/apis/{quoted(name)}/failures", params=params)["groups"])

    def requeue(
        self,
        name: str,
        ids: Iterable[str] | None = None,
        fingerprint: str | None = None,
        since: int | None = None,
        source: str | None = None,
        progress: Progress = lambda step: None,
    ) -> dict[str, Any]:
        """Put failed workloads back into the queue under their old ids: those named, or a group's (those since a time in ms).

        ``{"requeued": [ids], "refused": [{"id", "reason"}]}``. Safe to repeat: what is not failed any more is refused. ``source`` (a notebook's
        path, say) is noted with user and machine. ``progress`` is told after each batch.
        """
        about: dict[str, Any] = {"who": whoami(), "source": (source or "")[:1000]}
        path = f"/apis/{quoted(name)}/requeue"
        done: dict[str, Any] = {"requeued": [], "refused": []}
        if ids is not None:
            wanted = list(dict.fromkeys(ids))
            bodies: Iterator[dict[str, Any]] = ({"ids": wanted[at : at + REQUEUED_AT_ONCE]} for at in range(0, len(wanted), REQUEUED_AT_ONCE))
        else:
            bodies = iter([{"fingerprint": fingerprint, **({} if since is None else {"since": seconds_since(since)})}])
        body = next(bodies, None)
        while body is not None:
            try:
                said = self._control("POST", path, json={**body, **about})
            except CortexError as error:
                if done["requeued"]:
                    error.message += f". {len(done['requeued']):,} were requeued before that; asking again for all of them is safe"
                    error.details["requeued"] = done["requeued"]
                raise
            done = {key: done[key] + said[key] for key in done}
            looked_at = len(done["requeued"]) + len(done["refused"])
            total = looked_at + said["remaining"] if ids is None else len(wanted)
            progress(f"{len(done['requeued']):,} requeued, {looked_at:,} of {total:,} looked at")
            body = {**body, "next": said["next"]} if said["next"] else next(bodies, None)
        return done

    def audit(self, name: str) -> list[dict[str, Any]]:
        """Who requeued, rolled back or promoted what, newest first."""
        return list(self._control("GET", f"/apis/{quoted(name)}/audit")["entries"])

    def logs(self, name: str, lines: int = 200, search: str = "", level: Level = "DEBUG") -> list[dict[str, Any]]:
        """The newest log records of all replicas that show ``search``, of ``level`` and above, oldest first."""
        params = {"lines": lines, "q": search, "level": level}
        text = self._call("GET", f"/_cortex/v1/apis/{quoted(name)}/logs", token=self.environment.token, params=params).text
        return [record_of(line) for line in text.splitlines() if line]

    def stream_api_logs(self, name: str, lines: int = 200, search: str = "", level: Level = "DEBUG") -> Iterator[dict[str, Any]]:
        """Log records as they come, as `logs` chooses them, until the caller stops or the API is deleted."""
        params: dict[str, str | int] = {"lines": lines, "follow": True, "q": search, "level": level}
        headers = {"authorization": f"Bearer {self.environment.token}"}
        path = f"/_cortex/v1/apis/{quoted(name)}/logs"
        try:
            with self._connection().stream("GET", path, params=params, headers=headers, timeout=httpx.Timeout(30.0)) as answer:
                if answer.is_error:
                    answer.read()
                    raise error_of(answer)
                for line in answer.iter_lines():
                    if line:
                        yield record_of(line)
        except httpx.TransportError as error:
            raise EnvironmentDown(f"{self.environment.url} does not answer any more ({type(error).__name__})") from error

    # Calling -----------------------------------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        """Where it is published. Not remembered for long: somebody may publish it elsewhere, and another API in its place."""
        endpoint, at = self._endpoints.get(name, ("", 0.0))
        if not endpoint or time.monotonic() - at > ENDPOINT_S:
            endpoint = self.get_api(name)["endpoint"]
            self._endpoints[name] = endpoint, time.monotonic()
        return endpoint

    def url(self, name: str) -> str:
        """Where callers post to."""
        return self.environment.url + self._path(name)

    def submit(
        self,
        name: str,
        payload: Any,
        content_type: str | None = None,
        request_id: str | None = None,
        *,
        timeout: float | None = None,
        queue_timeout: float | None = None,
    ) -> str:
        """Send a payload; its request id. Bytes and str go as they are, anything else as JSON, unless ``content_type`` says what they are.

        ``timeout``: seconds that it may run, ``queue_timeout``: that it may wait; past them it fails with that reason.
        Raises PayloadError for what is neither bytes nor text nor JSON.
        """
        body, default = body_of(payload)
        headers: dict[str, str | bytes] = {"content-type": (content_type or default).encode("utf-8", "replace")}
        # With an id of ours it is accepted once, however often a lost answer has it sent. (What is wrong with a given one the gateway says.)
        headers["x-request-id"] = (str(uuid.uuid4()) if request_id is None else request_id).encode("utf-8", "replace")
        for header, seconds in (("cortex-timeout", timeout), ("cortex-queue-timeout", queue_timeout)):
            if seconds is not None:
                headers[header] = f"{seconds:f}"
        path, sent, away = self._path(name), False, Absence()
        while True:
            try:
                answer = self._call("POST", path, token=self.environment.caller, content=body, headers=headers)
                return str(document_of(answer, "id")["id"])
            except EnvironmentDown as error:
                # One that never heard of it is told so at once; where the answer was lost, the gateway is perhaps being started anew.
                sent = sent or not isinstance(error.__cause__, (httpx.ConnectError, httpx.ConnectTimeout))
                if not sent:
                    raise
                away.bear(error)

    def result(self, name: str, request_id: str, wait: float = 0) -> Workload:
        """Status and result; with ``wait``, not before the workload has ended or the seconds are over.

        While it waits, a gateway or a store that goes away is borne for 10 s. Raises BadRequest for a wait that is no number of seconds.
        """
        if not math.isfinite(wait):
            raise BadRequest(f"a wait is a number of seconds, not {wait}")
        deadline, away = time.monotonic() + wait, Absence()
        while True:
            left = max(0.0, deadline - time.monotonic())
            params = {"wait": min(left, POLL_S)} if left else {}
            try:
                answer = self._call("GET", f"{self._path(name)}/{quoted(request_id)}", token=self.environment.caller, params=params)
            except (EnvironmentDown, StoreUnavailable) as error:
                if not self._answered or not left:
                    raise
                away.bear(error)
                continue
            away.over()
            workload = workload_of(document_of(answer, "id", "status"))
            if workload.status not in ("in_queue", "in_progress") or time.monotonic() >= deadline:
                return workload
            # Too many wait there already: it was answered at once.
            time.sleep(min(float(answer.headers.get("retry-after", 0)), max(0.0, deadline - time.monotonic())))

    def events(self, name: str, request_id: str, *, logs: bool = False, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """What happens to a workload, as it happens, to its end; over lost connections without a gap and nothing twice.

        ``logs``: its log lines, too (wants the environment's token). ``stop`` is asked whenever the gateway says anything, at least every 15 s.
        Raises WorkloadNotFound, and EnvironmentDown or StoreUnavailable when gateway or store stay away for longer than 10 s.
        """
        last, away = "", Absence()
        while not stop():
            try:
                for event in self._events_after(name, request_id, last, logs, stop, away.over):
                    yield event
                    last = event.id
                    if event.kind in FINAL:
                        return
                if not stop():
                    time.sleep(RECONNECT_S)
            except httpx.TransportError as error:
                away.bear(EnvironmentDown(f"{self.environment.url} does not answer any more ({type(error).__name__})"))
            except (EnvironmentDown, StoreUnavailable) as error:
                if not self._answered:
                    raise
                away.bear(error)

    def _events_after(
        self, name: str, request_id: str, last: str, logs: bool, stop: Callable[[], bool], opened: Callable[[], None]
    ) -> Iterator[Event]:
        token = self.environment.token if logs else self.environment.caller
        headers = {**({"authorization": f"Bearer {token}"} if token else {}), **({"last-event-id": last} if last else {})}
        path, params = f"{self._path(name)}/{quoted(request_id)}/events", {"logs": "true"} if logs else {}
        with self._connection().stream("GET", path, headers=headers, params=params, timeout=EVENTS_TIMEOUT) as answer:
            self._answered = True
            if answer.is_error:
                answer.read()
                raise error_of(answer)
            opened()
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if stop():
                    return
                name_of_field, _, value = line.partition(": ")
                if name_of_field:
                    fields[name_of_field] = value
                    continue
                if "event" in fields:
                    yield Event(fields["id"], fields["event"], json.loads(fields["data"]))
                fields = {}

    def cancel(self, name: str, request_id: str) -> Workload:
        """Take a workload back; what it had ended as, when it was over already."""
        answer = self._call("DELETE", f"{self._path(name)}/{quoted(request_id)}", token=self.environment.caller)
        return workload_of(document_of(answer, "id", "status"))


def _reported(content: artifacts.Content, path: str, progress: Progress) -> Iterator[bytes]:
    """The content's pieces; says how far it is with each 16 MiB."""
    done, total = 0, content.size / 2**20
    for piece in content.pieces():
        if done % REPORT_BYTES == 0:
            progress(f"uploading {path} {done / 2**20:.0f} of {total:.0f} MiB")
        done += len(piece)
        yield piece


def whoami() -> str:
    """``user@machine``, for the records of who did what."""
    return f"{_user()}@{platform.node()}"[:200]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _read_env(shipped: list[files.ProjectFile], specs: list[Any]) -> str:
    """The text of ``.env``, checked against every API's env. Raises EnvFileError."""
    env = next((file for file in shipped if file.is_env), None)
    if env is None:
        return ""
    data = env.read()
    for spec in specs:
        dotenv.parse(data, spec.handler.env)
    return data.decode("utf-8-sig")
