"""From what failed in production back to work: `requests` shows it, `requeue` runs it again under its old ids, `sample --from` keeps it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from ..client import Client
from ..core import json_paths
from ..core.errors import BadRequest, CortexError, DeploymentNotFound, PayloadError
from ..core.readers import FieldError
from ..core.workload import FINAL, stays
from ..handler import payload
from ..handler.masking import STARS
from ..project import from_notebook, samples
from ..project.samples import Sample
from .completing import IDS, complete_api, completer, quick_client
from .door import Door
from .verbs import shared, verb

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Characters of a fingerprint or an id that name a sample.
IN_A_NAME = 8


def read_since(text: str | None) -> float | None:
    """``1h``, ``30m``, ``2d`` in seconds, None for None. Raises BadRequest."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip())
    if not found or len(found[1]) > 9:
        raise BadRequest(f"--since {text[:40]}: write a number and s, m, h or d, as in `--since 1h`")
    return float(found[1]) * _SECONDS[found[2]]


def moment(seconds: float | None) -> int | None:
    """So long ago, in ms since the epoch."""
    return None if seconds is None else int((time.time() - seconds) * 1000)


def own_api(door: Door) -> str | None:
    """The API that is meant where none is named: the notebook's own, or the only one of the directory's cortex.yaml; None where that is not known."""
    if remembered := door.remembered():
        return remembered
    with contextlib.suppress(CortexError):
        if name := from_notebook.entry_of(door.root(), None).get("name"):
            return str(name)
        if door.in_cell:
            return from_notebook.default_name(door.notebook(None))
    return None


def api_of(door: Door, given: str | None, spelled: str = "--name API") -> str:
    """The API of that name, else the one that is meant here; ``spelled``: how a name is given. Raises BadRequest."""
    if found := given or own_api(door):
        return found
    raise BadRequest(f"say which API: there is no cortex.yaml here with one entry; give its name (`{spelled}`)")


def _asked_api(door: Door, ctx: click.Context) -> str:
    """The API of a line that is being typed, whose option --name sets ``api`` or ``name``."""
    option = next(one for one in ctx.command.params if "--name" in one.opts)
    return api_of(door, ctx.params.get(str(option.name)))


@completer
def complete_failed(door: Door, ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """Ids of the newest failures, or the groups' fingerprints."""
    api = _asked_api(door, ctx)
    if param.name == "group":
        return [group["fingerprint"] for group in quick_client(door).failures(api)]
    return [row["id"] for row in quick_client(door).workloads(api, "failed", limit=IDS)]


@completer
def complete_kept(door: Door, ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    """Ids of the newest requests whose payload is still there."""
    api, client = _asked_api(door, ctx), quick_client(door)
    kept = _Retained(client, api)
    return [row["id"] for row in client.workloads(api, limit=IDS) if stays(kept.by(row["version"]), row["status"], row["size"])]


@completer
def complete_version(door: Door, ctx: click.Context, param: click.Parameter) -> Iterable[str]:
    return [str(one["version"]) for one in quick_client(door).get_api(_asked_api(door, ctx))["api_versions"]]


def name_words(door: Door, api: str) -> str:
    """What a line for a notebook needs to mean this API: nothing where it is the notebook's own."""
    return "" if door.in_cell and own_api(door) == api else f" --name {api}"


def find_group(client: Client, api: str, given: str) -> dict[str, Any]:
    """The group of that fingerprint or of what it begins with. Raises BadRequest for none and for several."""
    found = [group for group in client.failures(api) if group["fingerprint"].startswith(given)]
    exact = [group for group in found if group["fingerprint"] == given]
    if len(exact or found) == 1:
        return (exact or found)[0]
    several = "is the beginning of several groups" if found else "is no group of failures"
    raise BadRequest(f"{given} {several} of {api}; `cortex requests {api} --group` lists them")


# Looking ------------------------------------------------------------------------------------------------------------------------------------


def look(client: Client, api: str, command: str, words: str, *, failed: bool, seconds: float | None, group: bool, limit: int) -> dict[str, Any]:
    """What `requests` shows: ``{"api", "workloads", "groups", "more"}``; each row has the next line to type in ``next``.

    ``command`` and ``words``: how lines begin here, and what those for a notebook need behind them. ``seconds``: back from now. ``more``: whether
    there may be older ones that were asked for.
    """
    listed = [] if group else client.workloads(api, status="failed" if failed else None, limit=limit)
    after = moment(seconds)
    rows = [row for row in listed if after is None or (row["finished"] or row["accepted"]) >= after]
    groups = client.failures(api, since=after)
    kept = _Retained(client, api)
    for row in rows:
        if row["status"] not in FINAL:
            row["next"] = f"{command} result {api} {row['id']} --wait 30"
        elif stays(kept.by(row["version"]), row["status"], row["size"]):
            row["next"] = f"%cortex replay {row['id']}{words}"
        else:
            row["next"] = f"{command} result {api} {row['id']}"
    for one in groups:
        if any(kept.by(version)["payload"] != "never" for version in one["versions"] or [None]):
            one["next"] = f"%cortex replay --group {one['fingerprint']}{words}"
        else:
            one["next"] = f"{command} result {api} {one['newest']}"
    return {"api": api, "workloads": rows, "groups": groups, "more": bool(rows) and len(rows) == limit}


class _Retained:
    """``retain`` of the versions that a table names, each asked for once."""

    def __init__(self, client: Client, api: str) -> None:
        self._client, self._api = client, api
        self._known: dict[int | None, dict[str, Any]] = {}

    def by(self, version: int | None) -> dict[str, Any]:
        if version not in self._known:
            self._known[version] = retention(self._client, self._api, version)
        return self._known[version]


@shared
@click.argument("name", required=False, metavar="[API]", shell_complete=complete_api)
@click.option("--failed", is_flag=True, help="Only those that failed.")
@click.option("--since", metavar="AGE", help="Only the last 30m, 1h, 2d.")
@click.option("--group", is_flag=True, help="Only the groups of failures.")
@click.option("--limit", "-n", default=50, show_default=True, help="How many of the newest requests.")
@click.option("-w", "--watch", is_flag=True, help="Look again every 2 seconds, until interrupted.")
def requests(door: Door, name: str | None, failed: bool, since: str | None, group: bool, limit: int, watch: bool) -> None:
    """The newest requests, and what failed, grouped by where and how; each with the line that replays it in a notebook."""
    api, seconds = api_of(door, name, "requests API"), read_since(since)
    # A table that refreshes itself asks from a thread of its own, which must not look into the notebook.
    client, words = door.client(), name_words(door, api)

    def now() -> tuple[str, Any, dict[str, Any]]:
        data = look(client, api, door.command, words, failed=failed, seconds=seconds, group=group, limit=limit)
        return "requests", data, {"command": door.command, "grouped": group}

    if watch and not door.json:
        door.watch(now)
    else:
        door.glance(now)


# Running again ------------------------------------------------------------------------------------------------------------------------------


def still_failing(client: Client, api: str, versions: list[int]) -> str:
    """A note when what is live is what they failed on, else "": running them again would fail them again."""
    live = client.get_api(api)["live"]
    return f"version {live}, on which they failed, is still live" if live in versions else ""


@shared
@click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=complete_failed)
@click.option(
    "--group",
    metavar="FINGERPRINT",
    shell_complete=complete_failed,
    help="All failed requests of a group (see `requests --group`); the beginning of it is enough.",
)
@click.option("--since", metavar="AGE", help="Of the group, only those of the last 30m, 1h, 2d.")
@click.option("--name", "name", shell_complete=complete_api, help="The API; default: the notebook's own, or the only one of cortex.yaml here.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing.")
def requeue(door: Door, ids: tuple[str, ...], group: str | None, since: str | None, name: str | None, yes: bool) -> None:
    """Run failed requests again on what is live now, under their old ids: who polls them gets the new result."""
    if bool(ids) == bool(group):
        raise BadRequest("give ids, or --group FINGERPRINT, one of them")
    if ids and since:
        raise BadRequest("--since is for --group: ids say themselves which requests are meant")
    api, seconds = api_of(door, name), read_since(since)
    client, after = door.client(), moment(seconds)
    found = find_group(client, api, group) if group else None
    if found and after is not None:
        since_then = {one["fingerprint"]: one for one in client.failures(api, since=after)}
        if found["fingerprint"] not in since_then and not (yes or door.json):
            raise BadRequest(f"no request of group {found['fingerprint']} has failed in the last {since}; leave --since out for all of them")
        found = since_then.get(found["fingerprint"], {**found, "count": 0})
    if not yes and not door.json:
        _ask(door, client, api, found, ids, f" in the last {since}" if since else "")
    with door.working(f"putting failed requests of {api} back") as progress:
        done = client.requeue(
            api,
            ids=list(ids) or None,
            fingerprint=found["fingerprint"] if found else None,
            since=after,
            source=door.source(),
            progress=progress,
        )
    door.show("requeued", {"api": api, **done}, command=door.command)
    if done["refused"] and not done["requeued"] and not door.in_cell:
        raise click.exceptions.Exit(1)


def _ask(door: Door, client: Client, api: str, group: dict[str, Any] | None, ids: tuple[str, ...], when: str) -> None:
    """``when``: of which time those of the group are. Raises Abort for a no, BadRequest where nobody can be asked."""
    count = group["count"] if group else len(ids)
    what = f"{count:,} request{'s' * (count != 1)}" + (f" that failed with {group['type']}{when}" if group else "")
    versions = group["versions"] if group else [client.workload(api, one)["version"] for one in ids]
    note = still_failing(client, api, versions)
    question = f"run {what} of {api} again, under their ids{f' ({note})' if note else ''}"
    answer = door.ask(f"{question}?")
    if answer is False:
        raise click.Abort
    if answer is None:
        raise BadRequest(f"this would {question}; repeat with --yes")


# Keeping ------------------------------------------------------------------------------------------------------------------------------------


def keep_workload(
    client: Client, api: str, request_id: str, root: Path, name: str | None = None, *, expect: bool = True, notebook: Path | None = None
) -> tuple[Path, str]:
    """Keep the payload of a request as a sample of the project in ``root``: its file, and what to know about it.

    A failed one has no expected result: the checks then demand that it fails no more. ``notebook``: the one in ``root`` whose sample it is; None =
    everybody's there. Raises PayloadGone; BadRequest for what is kept already.
    """
    record = client.workload(api, request_id)
    content_type, body = client.payload(api, request_id)
    known = samples.load(root)
    mine = samples.of_notebook(known, root, notebook)
    if same := next((one for one in mine if (one.content_type, one.body) == (content_type, body)), None):
        raise BadRequest(f"this payload is kept already: sample {same.name}")
    if name and name in {one.name for one in known}:
        raise BadRequest(f"there is a sample {name} already; choose another name")
    if record["status"] not in FINAL:
        raise BadRequest(f"{request_id} has not ended yet ({record['status']}); keep it once it has a result, or has failed")
    failed = record["status"] == "failed"
    made = samples.free_name(
        root, f"failed-{(record.get('fingerprint') or request_id)[:IN_A_NAME]}" if failed else f"request-{request_id[:IN_A_NAME]}"
    )
    redacted = redaction_note(client, api, record, content_type, body)
    # Production's result is that of the payload as it came: the checks could never get it from this one.
    expected = record["result"] if expect and record["status"] == "completed" and not redacted else None
    path = samples.save(root, Sample(name or made, content_type, body, expected, notebook.name if notebook else None))
    if failed:
        note = "it must not fail any more; no result is expected"
    elif redacted and expect:
        note = "any result will do, as production's is that of the payload before it was redacted"
    else:
        note = "with production's result" if expected is not None else "any result will do"
    return path, f"{note}; {redacted}: write a value there that the Handler can take" if redacted else note


def retention(client: Client, api: str, version: int | None) -> dict[str, Any]:
    """``retain`` of the spec with which a workload ran: of its version, or of the API where that is not known any more."""
    if version is not None:
        with contextlib.suppress(DeploymentNotFound):
            return dict(client.deployment(api, version)["spec"]["retain"])
    return dict(client.get_api(api)["spec"]["retain"])


def redaction_note(client: Client, api: str, record: dict[str, Any], content_type: str, body: bytes) -> str:
    """That a payload is not as it came, in words; "" when it is. One that has not ended is redacted on its way here."""
    told = []
    with contextlib.suppress(PayloadError):
        arrived = payload.parse(body, content_type)
        for path in retention(client, api, record["version"])["redact"]:
            with contextlib.suppress(FieldError):  # one that an earlier release could read
                if STARS in _values(arrived, path):
                    told.append(path)
    return f"redacted by the spec: {', '.join(told)}" if told else "redacted by the spec of then" if record.get("redacted") else ""


def _values(document: Any, path: str) -> list[Any]:
    """What a path names in a document, which stays as it is. Raises FieldError."""
    found: list[Any] = []

    def seen(value: Any) -> Any:
        found.append(value)
        return value

    json_paths.replace(document, json_paths.parse(path), seen)
    return found


@verb
@click.argument("name", required=False)
@click.option(
    "--from",
    "request_id",
    metavar="ID",
    shell_complete=complete_kept,
    help="A request of production whose payload is kept; without it the samples are listed.",
)
@click.option("--name", "api", shell_complete=complete_api, help="The API of the request; default: the only one of cortex.yaml here.")
@click.option("--dir", "directory", default=".", help="The project's directory.")
@click.option("--expect/--no-expect", default=True, help="Keep the result of a completed request as what the sample must give.")
def sample(door: Door, name: str | None, request_id: str | None, api: str | None, directory: str, expect: bool) -> None:
    """Keep a request of production as a sample of a project: the checks before each deploy run it."""
    root = Path(directory).absolute()
    if request_id is None and name is not None:
        raise BadRequest(
            f"`cortex sample {name} --from ID` keeps a request of production; in a cell, `%cortex sample {name}` keeps what was tried last"
        )
    if request_id is None:
        door.show("samples", sample_rows(root))
        return
    path, note = keep_workload(door.client(), api_of(door, api), request_id, root, name, expect=expect)
    door.show("said", {"file": str(path), "message": f"kept {path.relative_to(root)}: {note}"})


def sample_rows(root: Path) -> list[dict[str, Any]]:
    found = samples.load(root)
    return [
        {"name": one.name, "content_type": one.content_type, "bytes": len(one.body), "expected": one.expected, "notebook": one.notebook}
        for one in found
    ]
