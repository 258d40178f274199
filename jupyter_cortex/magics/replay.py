"""`%cortex replay`: a workload of production in this kernel, with the notebook's Handler or a deployed version's, beside production's answer."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from .. import commands
from ..client import Client
from ..commands import publishing
from ..commands.completing import complete_api
from ..commands.failures import api_of, complete_failed, complete_version, find_group, redaction_note
from ..commands.verbs import config_option, verb
from ..core.errors import BadRequest, CortexError, PayloadGone
from ..core.variables import variables
from ..core.workload import REPLICA_DIED
from ..handler import masking
from ..project.deployed import Deployed
from ..project.difference import difference, verdict
from ..project.drift import drift
from .door import CellDoor, bundle
from .session import Session, Tried
from .surroundings import CONFIG, standing_in
from .verbs import tried_row

#: True in ``config`` while a payload of production is replayed: what has side effects can look.
GUARD = "cortex_replay"
#: (body, content type, request id, watcher of its log records) -> what happened here.
Run = Callable[[bytes, str, str, logging.Handler | None], Tried]


@dataclass
class Version:
    """A deployed version as far as a replay needs it. ``deployed`` is None, and ``why`` says so, where its files are not kept any more."""

    number: int
    facts: dict[str, Any]
    deployed: Deployed | None
    why: str = ""

    def close(self) -> None:
        if self.deployed is not None:
            self.deployed.close()


def fetch(session: Session, client: Client, api: str, number: int) -> Version:
    """A version, its files fetched once per kernel. Raises DeploymentNotFound for one that there never was."""
    key = (client.environment.url, api, number)
    facts = client.deployment(api, number)
    known: Version | None = session.versions.get(key)
    if known is not None:
        # After a delete the versions of an API that has the same name begin at 1 again.
        if (known.facts["digest"], known.facts["times"]["created"]) == (facts["digest"], facts["times"]["created"]):
            known.facts = facts
            return known
        del session.versions[key]
        known.close()
    try:
        made = session.versions[key] = Version(number, facts, Deployed(client.bundle(api, number), facts["spec"]))
    except CortexError as error:
        return Version(number, facts, None, error.message)
    return made


# Who runs it --------------------------------------------------------------------------------------------------------------------------------


def config_for(session: Session, api: str, version: Version | None, pairs: tuple[str, ...]) -> dict[str, Any]:
    """What a replay's Handler gets: the config of cortex.yaml, without that file production's, with the line's and the guard over it."""
    own = (session.root / CONFIG).is_file() or version is None
    base = session.config({}, api) if own else dict(version.facts["spec"]["handler"]["config"] or {})  # type: ignore[union-attr]
    return {**base, **publishing.read_settings(pairs), GUARD: True}


@contextmanager
def this_handler(session: Session, config: dict[str, Any], version: Version | None) -> Iterator[Run]:
    """The notebook's current Handler. Without a cortex.yaml the version's environment variables are those of its spec."""
    env = {} if version is None or (session.root / CONFIG).is_file() else version.facts["spec"]["handler"]["env"]
    with variables(env):
        yield lambda body, content_type, request_id, watcher: session.run(body, content_type, config, {"x-request-id": request_id}, watcher)


@contextmanager
def deployed_handler(session: Session, config: dict[str, Any], version: Version) -> Iterator[Run]:
    """The module of a version with the files that were deployed, none of which the notebook's namespace sees."""
    from ..handler import logs, metrics
    from ..handler.instance import Instance, tensorflow_client

    deployed = version.deployed
    if deployed is None:
        raise BadRequest(f"version {version.number} cannot be run here: {version.why}")
    session.surroundings.apply(session.root, session.api)
    deployed.link_artifacts(session.root)

    def running(instance: Any) -> Run:
        def run(body: bytes, content_type: str, request_id: str, watcher: logging.Handler | None) -> Tried:
            tried = session.arriving(body, content_type, {"x-request-id": request_id})
            if not tried.refusal:
                session.execute(instance, tried, deployed.project, watcher)
            return tried

        return run

    section = deployed.spec["handler"]
    if section["type"] == "notebook":
        from ..handler.notebook.report import Report

        path, level = section.get("python_path"), section["log_level"]
        # Its kernels inherit this process's variables as they are when it is made.
        with (
            standing_in(deployed.project),
            variables(section["env"] or {}),
            Report(deployed.project, deployed.module, config=config, python_path=path, log_level=level) as report,
        ):
            yield running(report)
        return
    with standing_in(deployed.project), deployed.imported() as cls:
        with logs.capture_prints():
            instance = Instance(
                cls,
                config=config,
                metrics_client=metrics.MetricsClient(metrics.Registry()),
                handler_type=section["type"],
                tensorflow_client=tensorflow_client(section, deployed.project),
                path=f"{deployed.module} of that version",
            )
        with instance:
            yield running(instance)


# What it shows ------------------------------------------------------------------------------------------------------------------------------


def drifted(version: Version) -> list[str]:
    """What of Python and its packages is not here as the version was made with, each in a sentence."""
    then, now = version.facts["python_version"], platform.python_version()
    told = [f"production runs on Python {then}, this kernel is Python {now}"] if then not in ("", now) else []
    moved = drift(version.facts["distributions"]).items()
    return told + [f"{name} was {then} in version {version.number} and is {now} here" for name, (then, now) in moved]


def changed(session: Session, version: Version, config: dict[str, Any]) -> list[str]:
    """What of the project is not as in the version: config, variables, files. The values of `.env` never travel, so they cannot be compared."""
    section, number, told = version.facts["spec"]["handler"], version.number, []
    for key in sorted({*section["config"], *config} - {GUARD}):
        was, now = (json.dumps(values[key], default=str)[:100] if key in values else "not there" for values in (section["config"], config))
        if was != now:
            told.append(masking.masked(f"config {key} was {was} in version {number} and is {now} here"))
    told += [f"the variable {name} is another one in version {number}" for name, value in section["env"].items() if os.environ.get(name) != value]
    if version.deployed is None:
        return [*told, f"its files cannot be compared: {version.why}"]
    return told + version.deployed.differing(session.root)


def production_row(record: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What production answered, in the words of a try; ``lines``: its log records."""
    error = record.get("error")
    return {
        "status": record["status"],
        "result": record.get("result"),
        "error": error,
        "fingerprint": record.get("fingerprint") or "",
        "traceback": (record.get("failure") or {}).get("traceback") or "",
        "records": commands.own_records(lines),
        "run_ms": record.get("run_ms"),
        "attempts": record.get("attempts"),
        "run": record.get("run"),
        "replica": record.get("replica"),
        "version": record.get("version"),
        "finished": record.get("finished"),
    }


def compared_row(record: dict[str, Any], tried: Tried, lines: list[dict[str, Any]], redacted: str = "") -> dict[str, Any]:
    """Production's answer and this one's, with the verdict, for the view ``replayed``; ``redacted``: that the payload is not as it came."""
    production = production_row(record, lines)
    here = {**tried_row(tried), "fingerprint": tried.outcome.fingerprint if tried.outcome else ""}
    both = production["status"] == here["status"] == "completed"
    compared = difference(production["result"], here["result"]) if both else None
    kind, sentence = verdict(production, here, compared)
    return {
        "id": record["id"],
        "production": production,
        "here": here,
        "difference": compared,
        "verdict": {"kind": kind, "text": sentence},
        "redacted": redacted,
        "requeues": record["status"] == "failed" and not record.get("redacted"),
    }


# The verb -----------------------------------------------------------------------------------------------------------------------------------


class Replaying:
    """One `replay`: whose workloads, with which Handler."""

    def __init__(self, door: CellDoor, api: str, number: int | None, pairs: tuple[str, ...], *, anyway: bool = False) -> None:
        self.door, self.session, self.client, self.api = door, door.session, door.client(), api
        self._number, self._pairs, self._anyway = number, pairs, anyway
        self.name = f"version {number}" if number is not None else "this notebook"

    def one(self, request_id: str, watcher: logging.Handler | None) -> dict[str, Any]:
        """Raises PayloadGone, WorkloadNotFound, and what keeps the Handler from being made."""
        record = self.client.workload(self.api, request_id)
        self._refuse_deadly(f"request {request_id}", record.get("error"), f"%cortex replay {request_id}")
        try:
            content_type, body = self.client.payload(self.api, request_id)
        except PayloadGone:
            if not self.door.json:  # what production did with it is there all the same
                self.door.show("workload", commands.result(self.client, self.api, request_id), name=self.api, command=self.door.command)
            raise
        with self._runner(record["version"]) as (run, drifts):
            return self._shown(record, run(body, content_type, request_id, watcher), drifts)

    def _refuse_deadly(self, what: str, error: Mapping[str, Any] | None, line: str) -> None:
        """What ended its replica would end this kernel in the same way. Raises BadRequest."""
        if self._anyway or not error or error.get("type") != REPLICA_DIED:
            return
        raise BadRequest(
            f"{what} ended its replicas ({error['message']}), and would end this kernel with all that it holds. `%cortex get {self.api}` lists how "
            f"replicas ended; after a change of the Handler `{line} --anyway` runs it here"
        )

    def group(self, fingerprint: str, limit: int) -> dict[str, Any]:
        """The newest ``limit`` workloads of a group, one after the other."""
        group = find_group(self.client, self.api, fingerprint)
        self._refuse_deadly(f"each of group {group['fingerprint']}", group, f"%cortex replay --group {group['fingerprint']}")
        listed = self.client.workloads(self.api, status="failed", limit=limit, fingerprint=group["fingerprint"])
        rows = []
        with self.door.working("replaying") as progress, self._runner(listed[0]["version"] if listed else None) as (run, drifts):
            for at, workload in enumerate(listed, 1):
                progress(f"replaying {at:,} of {len(listed):,}")
                rows.append(self._of_group(workload["id"], run))
        succeeded = sum(row["status"] == "completed" for row in rows)
        return {
            "api": self.api,
            "ran": self.name,
            "group": group,
            "rows": rows,
            "succeeded": succeeded,
            "redacted": sum(bool(row["redacted"]) for row in rows),
            "requeues": any(row["requeues"] for row in rows),
            "drift": drifts,
            "fixed": bool(rows) and succeeded == sum(row["status"] != "gone" for row in rows) > 0,
        }

    def _of_group(self, request_id: str, run: Run) -> dict[str, Any]:
        try:
            record = self.client.workload(self.api, request_id)
            content_type, body = self.client.payload(self.api, request_id)
        except PayloadGone as error:
            return {
                "id": request_id,
                "status": "gone",
                "verdict": error.message,
                "error": None,
                "run_ms": None,
                "redacted": "",
                "requeues": False,
            }
        redacted = redaction_note(self.client, self.api, record, content_type, body)
        row = compared_row(record, run(body, content_type, request_id, None), [], redacted)
        here = row["here"]
        return {
            "id": request_id,
            "status": here["status"],
            "verdict": row["verdict"]["text"],
            "error": here["error"],
            "run_ms": here["run_ms"],
            "redacted": redacted,
            "requeues": row["requeues"],
        }

    @contextmanager
    def _runner(self, number: int | None) -> Iterator[tuple[Run, list[str]]]:
        """What runs payloads, and what differs from the version that ran them in production."""
        then = None
        if number is not None:
            with contextlib.suppress(CortexError):  # a version that is not known any more leaves nothing to compare with
                then = fetch(self.session, self.client, self.api, number)
        if self._number is not None:
            asked = fetch(self.session, self.client, self.api, self._number)
            config = {**asked.facts["spec"]["handler"]["config"], **publishing.read_settings(self._pairs), GUARD: True}
            with deployed_handler(self.session, config, asked) as run:
                yield run, drifted(asked)
            return
        config = config_for(self.session, self.api, then, self._pairs)
        self.session.surroundings.apply(self.session.root, self.session.api)
        with this_handler(self.session, config, then) as run:
            yield run, [*drifted(then), *changed(self.session, then, config)] if then else []

    def _shown(self, record: dict[str, Any], tried: Tried, drifts: list[str]) -> dict[str, Any]:
        lines = self.client.workload_log(self.api, record["id"])
        redacted = redaction_note(self.client, self.api, record, tried.content_type, tried.body)
        return {"api": self.api, "ran": self.name, **compared_row(record, tried, lines, redacted), "drift": drifts}


@verb
@click.argument("request_id", required=False, metavar="[ID]", shell_complete=complete_failed)
@click.option("--group", metavar="FINGERPRINT", shell_complete=complete_failed, help="Replay every kept payload of a group of failures.")
@click.option("--limit", default=20, show_default=True, help="At most so many of the group, the newest first.")
@click.option(
    "--in",
    "number",
    type=int,
    metavar="VERSION",
    shell_complete=complete_version,
    help="Run that deployed version's module instead of this notebook's Handler.",
)
@click.option("--name", "api", shell_complete=complete_api, help="The API; default: the one that this notebook is.")
@click.option("--anyway", is_flag=True, help="Also what ended its replicas in production: it may end this kernel.")
@config_option
def replay(
    door: CellDoor,
    request_id: str | None,
    group: str | None,
    limit: int,
    number: int | None,
    api: str | None,
    anyway: bool,
    pairs: tuple[str, ...],
) -> None:
    """Run a request of production here, with this notebook's current Handler, beside what production answered.

    `%debug` then enters the failing frame. The Handler is constructed for it with `config["cortex_replay"]` set to True, so that what has side
    effects can look.
    """
    if bool(request_id) == bool(group):
        raise BadRequest("give the id of a request, or --group FINGERPRINT, one of them; `%cortex requests` lists both")
    replaying = Replaying(door, api_of(door, api), number, pairs, anyway=anyway)
    if group:
        data = replaying.group(group, limit)
        show(door, replaying, "replays", data, data["rows"][0]["id"] if data["rows"] else "", data["group"], fixed=data["fixed"])
        return
    assert request_id is not None
    with door.drawing() as watcher:
        data = replaying.one(request_id, watcher)
    production = data["production"]
    about = {"fingerprint": production["fingerprint"], "versions": [production["version"]]} if production["fingerprint"] else None
    show(door, replaying, "replayed", data, request_id, about, fixed=data["verdict"]["kind"] == "fixed")


def show(
    door: CellDoor, replaying: Replaying, view: str, data: dict[str, Any], request_id: str, group: dict[str, Any] | None, *, fixed: bool
) -> None:
    """The page, with buttons where a front end has them."""
    if not door.live or door.json:
        door.show(view, data)
        return
    from ..widgets.replaying import Actions

    session, shown = door.session, bundle(view, data)
    session.replayed = Actions(
        replaying.client, replaying.api, session.root, session.path, door.source(), request_id, group, fixed=fixed, requeues=data["requeues"]
    )
    session.replayed.show(shown)
