"""The verbs, once, for every door that people type into. Each takes plain values and returns plain data, as `-o json` prints it."""

from __future__ import annotations

import contextlib
import json
import mimetypes
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..client import Client, Deployed, Progress
from ..core.errors import ApiNotFound, BadRequest, CortexError
from ..core.workload import FINAL, Status
from ..project.samples import Sample


def deploy(
    client: Client,
    config: str,
    *,
    force: bool = False,
    take_over: bool = False,
    wait: bool = True,
    confirm: Callable[[str], bool] | None = None,
    progress: Progress = lambda step: None,
) -> list[dict[str, Any]]:
    """One row per API: ``{"api", "message", "error"}`` and what the next step needs."""
    client.ensure_up(progress)
    deployed = client.deploy(config, force=force, take_over=take_over, wait=wait, confirm=confirm, progress=progress)
    return [deployed_row(one) for one in deployed]


def deployed_row(one: Deployed) -> dict[str, Any]:
    return {
        "api": {"name": one.api, "version": one.version, "endpoint": one.endpoint, "url": one.url, "guarded": one.guarded},
        "outcome": one.outcome,
        "message": one.message,
        "warnings": one.warnings,
        "error": None,
    }


#: How objects and lists begin, Python's way of writing them included.
_MEANT_AS_JSON = re.compile(r"""\s*(\{\s*["'}]|\[\s*[\[{"'\d\]-])""")


def get(client: Client, name: str | None = None, *, whole: bool = False) -> list[dict[str, Any]]:
    """A list of APIs, or of the one with its versions; ``whole``: of each with its spec and its versions."""
    if name:
        return [client.get_api(name)]
    found = []
    for row in client.list_apis():
        with contextlib.suppress(ApiNotFound):  # it was deleted just now
            found.append(client.get_api(row["name"]) if whole else row)
    return found


def read_payload(payload: str | None, file: str | None, content_type: str | None) -> tuple[Any, str | None]:
    """What the user gave as body, and its content type: a file's by its name, text that is JSON as JSON, other text as text/plain."""
    if (payload is None) == (file is None):
        raise BadRequest("give the payload as an argument or a file with --file (- for standard input), one of them")
    if file is not None:
        import sys

        try:
            body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        except OSError as error:
            raise BadRequest(f"cannot read {file}: {error.strerror}") from None
        return body, content_type or guessed_type(file)
    assert payload is not None
    return payload, content_type or ("application/json" if is_json(payload) else None)


def guessed_type(file: str) -> str:
    """The Content-Type of a file by its name. What is compressed is bytes: `rows.json.gz` is no JSON."""
    kind, encoding = mimetypes.guess_type(file)
    return kind if kind and not encoding else "application/octet-stream"


def is_json(text: str) -> bool:
    """Whether the Content-Type of a text whose author named none is application/json. Raises BadRequest for a slip in what was meant as JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if not _MEANT_AS_JSON.match(text):
            return False
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise BadRequest(f"the payload begins like JSON and is none ({where}); correct it, or send it as it is with -t text/plain") from None
    except (ValueError, RecursionError):
        pass  # numbers of too many digits, too deep: what is wrong with such JSON, an API says best
    return True


def submit(client: Client, name: str, payload: Any, content_type: str | None, request_id: str | None, wait: float) -> dict[str, Any]:
    """``{"id"}``, and with ``wait`` the workload as it then stands."""
    submitted = client.submit(name, payload, content_type, request_id)
    return result(client, name, submitted, wait) if wait else {"id": submitted}


def result(client: Client, name: str, request_id: str, wait: float = 0) -> dict[str, Any]:
    """The answer of GET, without the keys that are not there; who has the control token is told more of what failed (``failure``)."""
    workload = client.result(name, request_id, wait)
    shown: dict[str, Any] = {"id": workload.id, "status": workload.status}
    for key in ("result", "timestamp", "error", "progress", "partial"):
        if (value := getattr(workload, key)) is not None:
            shown[key] = value
    # Who may only call is told neither of notebooks nor of tracebacks.
    if workload.status in FINAL and client.environment.token:
        with contextlib.suppress(CortexError):
            record = client.workload(name, request_id)
            if record.get("notebook"):
                shown["notebook"] = f"{client.url(name)}/{request_id}/notebook"
            if record["status"] == workload.status == Status.FAILED:
                shown["failure"] = failure(record, client.workload_log(name, request_id))
    return shown


def failure(record: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What a failed workload says of itself: where, on what, when, its traceback and its own log records (``lines``)."""
    times = {key: record[key] for key in ("accepted", "started", "finished", "wait_ms", "run_ms")}
    return {
        "place": place_of(record.get("frames") or []),
        "traceback": (record["failure"] or {}).get("traceback") or "",
        **{key: record[key] for key in ("version", "replica", "attempts", "run", "fingerprint")},
        "payload_kept": bool(record.get("payload_kept")),
        **times,
        "records": own_records(lines),
    }


def place_of(frames: list[dict[str, Any]]) -> str:
    """Where it happened, in words: the author's last line."""
    last = next((frame for frame in reversed(frames) if frame["user"]), frames[-1] if frames else None)
    return str(last["place"] or f"{last['file']}, line {last['line']}") if last else ""


def own_records(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log records without the line that only repeats the traceback."""
    return [line for line in lines if line.get("message") != "failed to process workload"]


def write_report(client: Client, name: str, file: str) -> dict[str, str]:
    """The check notebook of the live version, written to a file. Raises DeploymentNotFound, BadRequest."""
    version = client.get_api(name)["live"]
    data = client.report(name, version)
    try:
        Path(file).write_bytes(data)
    except OSError as error:
        raise BadRequest(f"cannot write {file}: {error.strerror}") from None
    return {"file": file, "message": f"wrote the checks of version {version} to {file}"}


#: A longer sample is no line to paste.
CURL_BYTES = 300


def curl_line(url: str, sample: dict[str, str] | None = None, *, guarded: bool = False) -> str:
    """A line to paste: it sends a sample (``content_type``, ``body``), else the empty JSON object.

    ``guarded``: with the call token, by the variable that holds it.
    """
    kind, body = (sample["content_type"], sample["body"]) if sample else ("application/json", "{}")
    token = ' -H "Authorization: Bearer $JUPYTER_CORTEX_CALL_TOKEN"' if guarded else ""
    return f"curl -X POST {url}{token} -H {shlex.quote(f'Content-Type: {kind}')} -d {shlex.quote(body)}"


def sample_to_paste(found: list[Sample]) -> dict[str, str] | None:
    """The first sample that a shell line can hold, None for none."""
    for sample in found:
        try:
            body = sample.body.decode()
        except UnicodeDecodeError:
            continue
        if 0 < len(sample.body) <= CURL_BYTES and body.isprintable() and not body.startswith("@"):
            return {"content_type": sample.content_type, "body": body}
    return None


def error_row(error: CortexError) -> dict[str, Any]:
    return {"kind": error.code, "message": error.message, **({"details": error.details} if error.details else {})}
