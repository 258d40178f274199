"""The views of the verbs as HTML: data in, a page out. The same data has a text view in ``render/``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from ..commands import curl_line
from ..render.apis import MACHINE_COLUMNS, by_machine, outdated, own_pythons, rolled_back
from ..render.common import age
from ..render.logs import STANDARD_KEYS, nothing
from ..render.notebooks import ignored
from ..render.requests import failure_facts, failure_hint
from . import failure_pages
from .style import badge, box, copyable, esc, highlighted, page, pre, table, ticks, tree

#: Characters of a partial result that are drawn while it grows.
PARTIAL_CHARACTERS = 20_000
LEVELS = {"ERROR": "bad", "CRITICAL": "bad", "WARNING": "warn", "DEBUG": "dim"}


def apis(data: list[dict[str, Any]], *, env: str = "local", command: str = "%cortex") -> str:
    if not data:
        return page("<p>No APIs are deployed. <code>%cortex deploy</code> publishes this notebook's Handler.</p>")
    rows = []
    for api in sorted(data, key=lambda one: one["name"]):
        counts = api["workloads"]
        numbers = [api["ready"], api["requested"], counts["in_queue"], counts["in_progress"], counts["completed"], counts["failed"]]
        rows.append([f"<b>{esc(api['name'])}</b>", badge(api["status"]), *map(str, numbers), age(api["updated"])])
    head = ["API", "status", "ready", "wanted", "in queue", "in progress", "completed", "failed", "updated"]
    return page(table(head, rows), *_notes(data))


def _notes(data: list[dict[str, Any]]) -> list[str]:
    notes = []
    for api in data:
        notes += [f"{api['name']}: {note}" for note in (api["message"], api["capped"]) if note]
        notes += [f"{api['name']}: {package} was {then} when it was deployed and is {now} now" for package, (then, now) in api["drift"].items()]
    return [box("warn", f"<p>{esc(note)}</p>") for note in notes]


def api(data: list[dict[str, Any]], *, url: str = "", verbose: bool = False) -> str:
    one = data[0]
    counts = one["workloads"]
    numbers = [one["ready"], one["requested"], counts["in_queue"], counts["in_progress"], counts["completed"], counts["failed"]]
    parts = [
        f"<p><b>{esc(one['name'])}</b> {badge(one['status'])}</p>",
        table(["ready", "wanted", "in queue", "in progress", "completed", "failed"], [list(map(str, numbers))]),
        *_notes(data),
        copyable(url + one["endpoint"]),
        copyable(curl_line(url + one["endpoint"], guarded=one.get("guarded", False))),
    ]
    versions = [
        [
            str(row["version"]),
            badge(row["state"]),
            f"<span class=mono>{esc(row['digest'][:12])}</span>",
            esc(row["python_version"]),
            age(row["times"]["created"]) + rolled_back(row),
        ]
        for row in one["api_versions"]
    ]
    parts.append(table(["version", "state", "digest", "Python", "age"], versions))
    if machines := by_machine(one):
        parts.append(table(list(MACHINE_COLUMNS), [list(map(esc, row)) for row in machines]))
    parts += [f"<p>{esc(line)}</p>" for line in own_pythons(one)]
    parts += [f'<p class="dim">{age(row["at"])} ago: {esc(row["replica"])} ended: {esc(row["reason"])}</p>' for row in one["exits"][:3]]
    if verbose:
        parts.append(tree(one["spec"], "spec"))
    return page(*parts)


def deployed(data: list[dict[str, Any]], *, live: bool = True, command: str = "%cortex") -> str:
    parts = []
    for row in data:
        one = row["api"]
        head = f"<b>{esc(one['name'])}</b> version {one['version']}"
        state = badge("live") if live else '<span class="dim">starting</span>'
        said = "is up to date" if row["outcome"] == "up_to_date" else ""
        line = curl_line(one["url"], row.get("sample"), guarded=one["guarded"])
        parts.append(box("good", f"<p>{head} {said} {state}</p>", copyable(one["url"]), copyable(line)))
        if row.get("travels"):
            files = ", ".join(f"<code>{esc(file['path'])}</code> ({file['bytes']:,} bytes)" for file in row["travels"][:8])
            parts.append(f'<p class="dim">travelled: {files}</p>')
        if row["warnings"]:
            parts.append(box("warn", *(f"<p>{esc(warning)}</p>" for warning in row["warnings"])))
        name = esc(one["name"])
        parts.append(
            f'<p class="dim">next: <code>%cortex submit {name} …</code> · <code>%cortex get {name}</code> · <code>%cortex logs {name}</code></p>'
        )
    return page(*parts)


def module(data: dict[str, Any]) -> str:
    how = "as executed in this kernel" if data["executed"] else "as saved"
    head = f"<p><b>{esc(data['module'])}</b> of <b>{esc(data['name'])}</b> <span class=dim>({how})</span></p>"
    parts = [head, surprise_boxes(data["surprises"]), _code(data)]
    rows = [[f"<code>{esc(row['path'])}</code>", f"{row['bytes']:,}", f'<span class="dim">{esc(row["why"])}</span>'] for row in data["travels"][:30]]
    parts.append(f"<h4>What travels</h4>{table(['file', 'bytes', 'why'], rows)}")
    if (live := data.get("live")) is not None:
        if live["diff"]:
            lines = "\n".join(f'<span class="{_kind(line)}">{esc(line)}</span>' for line in live["diff"][:300])
            parts.append(f"<h4>Different from version {live['version']}, which is live</h4><pre>{lines}</pre>")
        else:
            parts.append(f'<p class="good">The same as version {live["version"]}, which is live.</p>')
    return page(*parts)


def _kind(line: str) -> str:
    return "plus" if line.startswith("+") else "minus" if line.startswith("-") else "dim"


def _code(data: dict[str, Any]) -> str:
    """The module statement by statement, and beside each the cell it came from and why it is in."""
    lines = highlighted(data["source"].rstrip("\n"))
    rows = {row["module_line"]: row for row in data["reasons"]}
    starts = sorted({1, *rows, len(lines) + 1})
    parts = []
    for first, behind in itertools.pairwise(starts):
        block = lines[first - 1 : behind - 1]
        while block and not block[-1]:
            block.pop()
        numbered = "\n".join(f'<span class="no">{number:3} </span>{line}' for number, line in enumerate(block, first))
        parts.append(f'<pre>{numbered}</pre><div class="why">{_why(rows[first]) if first in rows else ""}</div>')
    return f'<div class="code">{"".join(parts)}</div>'


def _why(row: dict[str, Any]) -> str:
    more = f" (+{len(row['reasons']) - 1})" if len(row["reasons"]) > 1 else ""
    title = esc("; ".join(row["reasons"]))
    return f'<span title="{title}"><b>{esc(row["cell"])}</b>: {ticks(row["reasons"][0])}{more}</span>'


def surprise_boxes(rows: list[dict[str, Any]]) -> str:
    shown = []
    for row in rows:
        kind = "bad" if row["blocks"] else "warn"
        word = "stops a deploy" if row["blocks"] else "asks" if row["asks"] else "note"
        place = f"<b>{esc(row['place'])}</b>: " if row["place"] else ""
        shown.append(box(kind, f'<p><span class="{kind}">{word}</span> {place}{ticks(row["message"])}</p><p class="dim">{ticks(row["remedy"])}</p>'))
    return "".join(shown)


def checked(data: dict[str, Any]) -> str:
    parts = [surprise_boxes(data["surprises"])]
    if data["error"]:
        details = data["error"]["details"]
        lines = details.get("traceback") or "\n".join(map(str, details.get("logs") or ()))
        parts.append(box("bad", f"<p><span class=bad>failed</span> {ticks(data['error']['message'])}</p>", pre(lines) if lines else ""))
    elif data["ok"]:
        samples = ", ".join(map(esc, data["samples"])) or "none yet; <code>%cortex sample NAME</code> keeps the last payload you tried"
        parts.append(box("good", f"<p><span class=good>ok</span> {esc(data['name'])}: imports, Handler(config) constructs. Samples: {samples}</p>"))
    return page(*parts)


def logs(data: list[dict[str, Any]], *, raw: bool = False, sought: bool = False) -> str:
    if not data:
        return page(f'<p class="dim">{nothing(sought)}</p>')
    if raw:
        return page(pre("\n".join(json.dumps(record) for record in data)))
    return page(log_table(data))


def log_table(records: list[dict[str, Any]]) -> str:
    rows = []
    for record in records[-500:]:
        level = str(record.get("levelname", ""))
        extras = {key: value for key, value in record.items() if key not in STANDARD_KEYS}
        shown = " ".join(
            f"<span class=key>{esc(key)}</span>={esc(value if isinstance(value, str) else json.dumps(value))}" for key, value in extras.items()
        )
        text = f"{esc(record.get('message', ''))}{pre(record['exc_info']) if record.get('exc_info') else ''}"
        rows.append(
            [
                f"<span class=dim>{esc(str(record.get('asctime', ''))[11:19])}</span>",
                f'<span class="{LEVELS.get(level, "")}">{esc(level.lower())}</span>',
                text,
                f"<span class=mono>{shown}</span>",
                f"<span class=dim>{esc(str(record.get('request_id', ''))[:8])}</span>",
            ]
        )
    return table(["time", "level", "message", "extra", "request"], rows)


def progress_bar(fraction: float, text: str) -> str:
    """How far a request is, as its Handler said last."""
    return f'<p><progress value="{fraction:.4f}" max="1"></progress> {fraction:.0%} <span class=dim>{esc(text)}</span></p>'


def so_far(partial: Any) -> str:
    """What there is of a result. It is drawn again with each news, so that a large one is only said."""
    size = len(json.dumps(partial))
    if size > PARTIAL_CHARACTERS:
        return f"<p class=dim>the result so far: {size:,} characters of JSON</p>"
    return tree(partial, "the result so far")


def executed(url: str) -> str:
    """The links to what a notebook handler has executed."""
    links = (f'<a href="{esc(url)}.{end}" target="_blank" rel="noopener">{end}</a>' for end in ("html", "ipynb"))
    return f"<p>executed notebook: {' · '.join(links)}</p>"


def workload(data: dict[str, Any], *, name: str = "", command: str = "%cortex") -> str:
    parts = [f"<p><span class=mono>{esc(data['id'])}</span> {badge(data['status']) if 'status' in data else ''}</p>"]
    if "progress" in data:
        parts.append(progress_bar(data["progress"]["fraction"], data["progress"]["text"]))
    if "partial" in data:
        parts.append(tree(data["partial"], "the result so far"))
    if "result" in data:
        parts.append(tree(data["result"], "result"))
    if "error" in data:
        hint = f"<p class=dim>{ticks(failure_hint(data, name, command))}</p>"
        told = data.get("failure")
        facts = f"<p class=dim>{esc(failure_facts(told))}</p>" if told else ""
        trace = pre(told["traceback"]) if told and told["traceback"] else ""
        parts.append(box("bad", f"<p><b>{esc(data['error']['type'])}</b>: {esc(data['error']['message'])}</p>", facts, trace, hint))
        if told and told["records"]:
            parts.append(f"<h4>Its log</h4>{log_table(told['records'])}")
    if "notebook" in data:
        parts.append(executed(data["notebook"]))
    if data.get("status") in (None, "in_queue", "in_progress"):
        parts.append(f"<p class=dim>look it up with <code>%cortex result {esc(name)} {esc(data['id'])} --wait 30</code></p>")
    return page(*parts)


def tried(data: dict[str, Any]) -> str:
    """One payload through this notebook's Handler: what arrives, what comes out, what was logged."""
    parts = []
    if data["refusal"]:
        parts.append(
            box(
                "bad",
                f"<p><span class=bad>refused with 400</span> {esc(data['refusal'])}</p><p class=dim>nothing is queued; the Handler does not see it</p>",
            )
        )
        return page(*parts)
    if note := ignored(data):
        parts.append(box("warn", f"<p>{esc(note)}</p>"))
    parts.append(arrived_part(data["payload"]))
    parts.append(f"<h4>{badge(data['status'])} <span class=dim>{data['run_ms']:.1f} ms</span></h4>")
    if data["status"] == "completed":
        parts.append(tree(data["result"], "result"))
    else:
        error = data["error"]
        parts.append(box("bad", f"<p><b>{esc(error['type'])}</b>: {esc(error['message'])}</p>", pre(data["traceback"]) if data["traceback"] else ""))
    if data["records"]:
        parts.append(f"<h4>Log</h4>{log_table(data['records'])}")
    return page(*parts)


def arrived_part(arrived: dict[str, Any]) -> str:
    """What ``handle_async`` gets."""
    image = f'<p><img alt="the payload as an image" src="{esc_url(arrived["image"])}"></p>' if arrived["image"] else ""
    head = f"<h4>What arrives in <code>handle_async</code></h4><p><b>{esc(arrived['type'])}</b> <span class=dim>{esc(arrived['size'])}</span></p>"
    return f"{head}{image}{tree(arrived['json']) if arrived['json'] is not None else pre(arrived['repr'])}"


def esc_url(uri: str) -> str:
    return uri if uri.startswith("data:image/") and '"' not in uri else ""


def processes(data: dict[str, Any], *, command: str = "%cortex", local: bool = True) -> str:
    keys = ("role", "pid", "api", "version", "state", "code")
    rows = [[esc(process.get(key) or "") for key in keys] for process in data["processes"]]
    head = f"<p>gateway <b>{esc(data['gateway'])}</b> <span class=dim>store {esc(data['redis'])}</span></p>"
    notes = [box("warn", f"<p>{esc(note)}</p>") for note in data.get("notes", [])]
    note = outdated(data, command=command, local=local)
    return page(head, table(list(keys), rows), *notes, box("warn", f"<p>{ticks(note)}</p>") if note else "")


def said(data: dict[str, Any], *, text: str = "") -> str:
    return page(f"<p>{esc(text or data.get('message', ''))}</p>".replace("\n", "<br>"))


def init(data: dict[str, Any]) -> str:
    code = "\n".join(highlighted(data["handler"].rstrip("\n")))
    return page(f"<p>wrote <code>{esc(data['file'])}</code> for the API <b>{esc(data['name'])}</b>; a Handler to start from:</p><pre>{code}</pre>")


def samples(data: list[dict[str, Any]]) -> str:
    if not data:
        return page("<p>No samples yet. Try a payload, then <code>%cortex sample NAME</code> keeps it with its result.</p>")
    rows = [
        [
            f"<b>{esc(row['name'])}</b>",
            esc(row["content_type"]),
            f"{row['bytes']:,}",
            esc(json.dumps(row["expected"])) if row["expected"] is not None else "any result",
            esc(row["notebook"] or "all"),
        ]
        for row in data
    ]
    return page(table(["sample", "Content-Type", "bytes", "expected", "notebook"], rows))


def saved(data: list[dict[str, Any]]) -> str:
    parts = []
    for row in data:
        warning = f'<p class="warn">{esc(row["warning"])}</p>' if row["warning"] else ""
        where = "an artifact: outside the bundle" if row["artifact"] else "a file of the project"
        parts.append(
            box("good", f"<p><b>{esc(row['file'])}</b> <span class=dim>{row['bytes']:,} bytes, {where}</span></p>", copyable(row["line"]), warning)
        )
    note = "The slice puts this line in the place of the cells that made the object; in the Handler you can also load the file yourself."
    return page(*parts, f"<p class=dim>{note}</p>")


VIEWS: dict[str, Callable[..., str]] = {
    "apis": apis,
    "api": api,
    "checked": checked,
    "deployed": deployed,
    "init": init,
    "logs": logs,
    "module": module,
    "processes": processes,
    "replayed": failure_pages.replayed,
    "replays": failure_pages.replays,
    "requests": failure_pages.requests,
    "requeued": failure_pages.requeued,
    "rehearsed": failure_pages.rehearsed,
    "said": said,
    "samples": samples,
    "saved": saved,
    "tried": tried,
    "workload": workload,
    "written": said,
}
