"""The verbs that need a kernel: `payload`, `try`, `sample`, `save`."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import click

from .. import commands
from ..commands import failures, publishing
from ..commands.completing import complete_api
from ..commands.verbs import config_option, verb
from ..core.errors import BadRequest, CortexError, NotebookError
from ..project import from_notebook, objects, samples
from ..project.from_notebook import ARTIFACT_BYTES, CONFIG
from ..project.samples import Sample
from .door import CellDoor, bundle
from .session import ID_HEADER, Session, Tried

#: Image bytes above this are not drawn.
IMAGE_BYTES = 2 * 1024 * 1024
#: Characters of a payload's repr that are shown.
REPR = 4000
_IMAGES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}

content_type_option = click.option(
    "--content-type", "-t", help="Default: by the file's name; application/json for text that is JSON, else text/plain."
)
file_option = click.option("--file", "-f", "file", help="A file's bytes as the body.")
api_option = click.option("--name", "api", help="The API of cortex.yaml that this notebook is; default: the one that was shown or deployed last.")
header_option = click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="An extra header; may be repeated.")


@verb
@content_type_option
@file_option
@header_option
@config_option
@api_option
def payload(door: CellDoor, content_type: str | None, file: str | None, headers: tuple[str, ...], pairs: tuple[str, ...], api: str | None) -> None:
    """Send the cell's body through parse → handle_async → JSON, here in this kernel, exactly as a replica does."""
    if (door.body is None) == (file is None):
        raise BadRequest("write the body below `%%cortex payload`, or name a file: `%cortex payload --file photo.png`")
    given, content_type = read_headers(headers, content_type)
    # The newline that ends the cell's last line is the editor's, not the payload's.
    body, kind = _body(None if door.body is None else door.body.removesuffix("\n"), file, content_type)
    config = door.session.config(publishing.read_settings(pairs), api)
    with door.drawing() as watcher:
        tried = door.session.try_(body, kind, config, given, watcher)
    door.show("tried", tried_row(tried))


def _body(text: str | None, file: str | None, content_type: str | None) -> tuple[bytes, str]:
    if file is not None:
        try:
            return Path(file).expanduser().read_bytes(), commands.guessed_type(file) if content_type is None else content_type
        except OSError as error:
            raise BadRequest(f"cannot read {file}: {error.strerror}") from None
    assert text is not None
    body = text.encode("utf-8", "surrogatepass")
    if content_type is not None:
        return body, content_type
    return body, "application/json" if commands.is_json(text) else "text/plain; charset=utf-8"


def read_headers(given: tuple[str, ...], content_type: str | None) -> tuple[dict[str, str], str | None]:
    """Headers by their names in lower case, and the Content-Type, which may be one of them. Raises BadRequest."""
    headers = {}
    for header in given:
        name, colon, value = header.partition(":")
        if not colon:
            raise BadRequest(f"--header {header!r}: write NAME:VALUE")
        headers[name.strip().lower()] = value.strip()
    written = headers.pop("content-type", None)
    if written is not None and content_type is not None and written != content_type:
        raise BadRequest(f"the Content-Type is given twice, as {content_type!r} and as the header {written!r}; give one of them")
    return headers, written if content_type is None else content_type  # an empty one is one, which a gateway refuses


def tried_row(tried: Tried) -> dict[str, Any]:
    """One try as plain data, for the view ``tried``."""
    outcome = tried.outcome
    details = json.loads(outcome.details) if outcome and outcome.details else {}
    return {
        "content_type": tried.content_type,
        "bytes": len(tried.body),
        "refusal": tried.refusal,
        "ignored": sorted(set(tried.headers) - {ID_HEADER}),
        "payload": arrived(tried.payload) if not tried.refusal else None,
        "status": outcome.status if outcome else "refused",
        "result": json.loads(outcome.result) if outcome and outcome.result else None,
        "error": json.loads(outcome.error) if outcome and outcome.error else None,
        "traceback": details.get("traceback", ""),
        "records": commands.own_records(tried.records()),
        "run_ms": round(outcome.run_ms, 2) if outcome else 0.0,
    }


def arrived(payload: Any) -> dict[str, Any]:
    """What ``handle_async`` gets, for people: its type, size, text, and the picture if it is one."""
    size = f"{len(payload):,} {'bytes' if isinstance(payload, bytes) else 'characters'}" if isinstance(payload, (bytes, str)) else ""
    image = ""
    if isinstance(payload, bytes) and len(payload) <= IMAGE_BYTES:
        kind = next((kind for magic, kind in _IMAGES.items() if payload.startswith(magic)), "")
        image = f"data:{kind};base64,{base64.b64encode(payload).decode()}" if kind else ""
    text = repr(payload)
    shown = text if len(text) <= REPR else f"{text[:REPR]}… ({len(text):,} characters)"
    return {"type": type(payload).__name__, "size": size, "repr": shown, "image": image, "json": _plain(payload)}


def _plain(payload: Any) -> Any:
    """The value for a tree; None where a tree says no more than its text, or JSON has no form for it (NaN)."""
    if not isinstance(payload, (dict, list)) or not payload:
        return None
    try:
        return payload if len(json.dumps(payload, allow_nan=False)) <= 200_000 else None
    except (ValueError, RecursionError):
        return None


@verb
@click.argument("payload", required=False)
@content_type_option
@file_option
@header_option
@config_option
@api_option
def try_(
    door: CellDoor,
    payload: str | None,
    content_type: str | None,
    file: str | None,
    headers: tuple[str, ...],
    pairs: tuple[str, ...],
    api: str | None,
) -> None:
    """Open the payload workbench; with a payload (or samples) it has run one already."""
    if payload is not None and file is not None:
        raise BadRequest("give the payload as an argument or a file with --file, one of them")
    session = door.session
    config = session.config(publishing.read_settings(pairs), api)
    given, content_type = read_headers(headers, content_type)
    recorded = samples.of_notebook(samples.load(session.root), session.root, session.path)
    first: tuple[bytes, str] | None = None
    if payload is not None or file is not None:
        first = _body(payload, file, content_type)
    elif recorded:
        first = recorded[0].body, recorded[0].content_type
    tried = session.try_(*first, config, given) if first else None
    data = tried_row(tried) if tried else None
    if not door.live or door.json:
        _show_without_widgets(door, data)
        return
    from ..widgets.views import show_widget
    from ..widgets.workbench import Workbench

    def run(body: bytes, kind: str, extra: dict[str, str], watcher: logging.Handler) -> dict[str, Any]:
        nonlocal tried
        tried = session.try_(body, kind, config, extra, watcher)
        return tried_row(tried)

    def keep(name: str, expect: bool) -> str:
        # What the page shows: cells may have tried something else since.
        return str(keep_sample(session, tried, name, expect=expect).relative_to(session.root))

    bench = Workbench(run, keep, {sample.name: (sample.content_type, sample.body) for sample in recorded})
    bench.headers.value = "\n".join(f"{name}: {value}" for name, value in given.items())
    if first and data:
        from ..widgets import pages

        bench.load(first[1], first[0])
        bench.result.value = pages.tried(data)
        bench.keep.disabled = bool(data["refusal"])
    session.workbench = bench  # the front end's clicks find it as long as the cell's output is there
    show_widget(bench.view, bundle("tried", data) if data else bundle("said", {"message": HINT}))


HINT = "the payload workbench needs a notebook front end with widgets; `%%cortex payload` sends a cell's body through this notebook's Handler"


def _show_without_widgets(door: CellDoor, data: dict[str, Any] | None) -> None:
    if data is None:
        door.show("said", {"message": HINT})
    else:
        door.show("tried", data)


@verb
@click.argument("name", required=False)
@click.option(
    "--from",
    "request_id",
    metavar="ID",
    shell_complete=failures.complete_kept,
    help="Keep the payload of a request of production; one that failed has no expected result.",
)
@click.option("--name", "api", shell_complete=complete_api, help="The API of that request; default: the one that this notebook is.")
@click.option("--expect/--no-expect", default=True, help="Keep the result as what the sample must give from now on.")
def sample(door: CellDoor, name: str | None, request_id: str | None, api: str | None, expect: bool) -> None:
    """Keep the payload that was tried last as a sample: the checks before each deploy run it. Without NAME and --from: list them."""
    root = door.session.root
    if request_id is not None:
        notebook = door.session.path
        kept, note = failures.keep_workload(door.client(), failures.api_of(door, api), request_id, root, name, expect=expect, notebook=notebook)
        door.show("said", {"file": str(kept), "message": f"kept {kept.relative_to(root)}: {note}"})
        return
    if name is None:
        door.show("samples", failures.sample_rows(root))
        return
    path = keep_sample(door.session, door.session.last, name, expect=expect)
    door.show("said", {"file": str(path), "message": f"kept {path.relative_to(root)}"})


def keep_sample(session: Session, tried: Tried | None, name: str, *, expect: bool) -> Path:
    """Write a try as a sample. Raises ProjectError, BadRequest."""
    if tried is None:
        raise BadRequest(
            "nothing was tried yet, or the last could not run: send a payload with `%%cortex payload` or `%cortex try` first; "
            "`%cortex sample --from ID` keeps that of a request of production"
        )
    if tried.refusal:
        raise BadRequest("the last payload was refused before the Handler saw it; a sample must be one that arrives")
    completed = tried.outcome is not None and tried.outcome.status == "completed"
    if expect and not completed:
        raise BadRequest("the last payload failed, so there is no result to expect; mend it first, or keep it with --no-expect")
    expected = json.loads(tried.outcome.result) if expect and tried.outcome else None
    root, notebook = session.root, session.path
    kept = Sample(name or samples.free_name(root, "sample"), tried.content_type, tried.body, expected, notebook.name if notebook else None)
    return samples.save(root, kept)


@verb
@click.argument("objects_", metavar="NAME[=OBJECT]…", nargs=-1, required=True)
@click.option("--artifact/--no-artifact", default=None, help="Store it outside the bundle; default: when it is larger than 8 MiB.")
@click.option("--force", is_flag=True, help="Replace a file that `%cortex save` did not write, or wrote for another notebook.")
def save(door: CellDoor, objects_: tuple[str, ...], artifact: bool | None, force: bool) -> None:
    """Write objects of this kernel to files that the Handler can load, and show the line that loads each."""
    rows = []
    for word in objects_:
        with door.working(f"saving {word}"):
            rows.append(_save(door.session, word, artifact, force=force))
    door.show("saved", rows)


def _save(session: Session, word: str, artifact: bool | None, *, force: bool) -> dict[str, Any]:
    name, equals, source = word.partition("=")
    name, source = name.strip(), (source.strip() if equals else name.strip())
    if not name.isidentifier():
        raise BadRequest(f"{name!r} cannot name an object: write NAME, or NAME=EXPRESSION")
    space = session.shell.user_ns
    try:
        value = eval(source, session.shell.user_global_ns, space)
    except Exception as error:
        raise NotebookError(f"`{source}` cannot be saved: {type(error).__name__}: {error}", kind="unsavable") from None
    notebook = session.path.name if session.path else None
    saved = objects.save(session.root, name, value, saved_target(name, source), force=force, notebook=notebook)
    session.saved[name, saved_target(name, source)] = saved.line
    large = [] if artifact is False else objects.files_above(saved, -1 if artifact else ARTIFACT_BYTES)
    warning = saved.warning
    notes = [_as_artifact(session.root, file) for file in large]
    if note := "; ".join(filter(None, notes)):
        warning = f"{warning}; {note}" if warning else note
    return {"name": name, "file": saved.path.name, "bytes": saved.size, "line": saved.line, "warning": warning, "artifact": bool(large)}


def saved_target(name: str, source: str) -> str:
    """The variable that a loading line sets: the one that was saved, else the name of the file."""
    return source if source.isidentifier() else name


def _as_artifact(root: Path, file: str) -> str:
    """Name the file under `artifacts` of the one API in cortex.yaml; without a cortex.yaml, deploy does it by itself. What is left to do, else ""."""
    path = root / CONFIG
    if not path.is_file():
        return ""
    todo = f"add `artifacts: [{file}]` to the API in {CONFIG}: it is too large for the bundle"
    try:
        documents = from_notebook.config_file.load(path)
        if len(documents) == 1 and objects.add_artifact(path, str(documents[0].get("name")), file):
            return ""
    except (CortexError, OSError):
        return todo
    return todo


CELL_VERBS = {command.name: command for command in (payload, try_, sample, save) if command.name}
