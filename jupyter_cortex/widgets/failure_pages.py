"""The pages of `requests`, `replay`, `requeue` and rehearsals: data in, HTML out. Their text views are in ``render/``."""

from __future__ import annotations

from typing import Any

from ..render.common import local_time
from ..render.rehearsals import OUTCOMES, REHEARSED_ROWS, rehearsal_end, rehearsal_head, rehearsal_rows, rehearsal_speed
from ..render.replays import group_redaction, next_words
from ..render.requests import newest
from .style import badge, box, copyable, esc, page, pre, table, ticks, tree

#: A verdict's kind -> the box that it stands in.
VERDICTS = {"fixed": "good", "same_result": "good", "same_failure": "bad", "another_failure": "bad", "fails_here": "bad", "changed": "warn"}
SIGNS = {"added": ("plus", "+"), "removed": ("minus", "-"), "changed": ("warn", "≠"), "close": ("dim", "≈")}


def requests(data: dict[str, Any], *, command: str = "%cortex", grouped: bool = False) -> str:
    parts = [f"<p>requests of <b>{esc(data['api'])}</b></p>"]
    if data["groups"]:
        parts.append(f"<h4>Failures, by where and how</h4>{_groups(data['groups'])}")
    elif grouped:
        parts.append('<p class="good">no failures</p>')
    if data["workloads"]:
        parts.append(f"<h4>The newest</h4>{_workloads(data['workloads'])}")
        if data["more"]:
            parts.append(f'<p class="dim">{esc(newest(data))}</p>')
    elif not grouped:
        parts.append('<p class="dim">no requests</p>')
    return page(*parts)


def _groups(groups: list[dict[str, Any]]) -> str:
    rows = []
    for group in groups:
        place = f"<br><span class=dim>{esc(group['place'])}</span>" if group["place"] else ""
        rows.append(
            [
                f"<b>{group['count']}</b>",
                f"<b>{esc(group['type'])}</b>: {esc(_short(group['message']))}{place}",
                _when(group["first"]),
                _when(group["last"]),
                esc(", ".join(map(str, group["versions"]))),
                copyable(group["next"]),
            ]
        )
    return table(["count", "failure", "first", "last", "versions", "next"], rows)


def _workloads(rows: list[dict[str, Any]]) -> str:
    shown = []
    for row in rows:
        error = row["error"]
        said = f"<b>{esc(error['type'])}</b>: {esc(_short(error['message']))}" if error else ""
        run_ms = f"{row['run_ms']:,} ms" if row["run_ms"] is not None else ""
        shown.append([_when(row["accepted"]), badge(row["status"]), said, esc(row["version"] or ""), run_ms, copyable(row["next"])])
    return table(["accepted", "status", "error", "version", "ran", "next"], shown)


def _short(text: str) -> str:
    line = text.split("\n", 1)[0]
    return line if len(line) <= 160 else f"{line[:160]}…"


def _when(ms: int | None) -> str:
    return f'<span class="mono" style="white-space:nowrap">{esc(local_time(ms))}</span>'


def replayed(data: dict[str, Any]) -> str:
    """One request: production's answer beside this one."""
    from .pages import arrived_part, log_table

    production, here, verdict = data["production"], data["here"], data["verdict"]
    version = f"version {production['version']}" if production["version"] else ""
    parts = [
        f"<p>request <span class=mono>{esc(data['id'])}</span> of <b>{esc(data['api'])}</b></p>",
        box(VERDICTS.get(verdict["kind"], "warn"), f"<p><b>{esc(verdict['text'])}</b></p>"),
    ]
    if data["redacted"]:
        parts.append(box("warn", f"<p>the payload is not as it came: {esc(data['redacted'])}</p>"))
    if here["payload"]:
        parts.append(arrived_part(here["payload"]))
    left = f"<h4>Production {badge(production['status'])} <span class=dim>{version} {_took(production['run_ms'])}</span></h4>"
    right = f"<h4>Here, {esc(data['ran'])} {badge(here['status'])} <span class=dim>{_took(here['run_ms'])}</span></h4>"
    parts.append(f'<div class="two"><div>{left}{_answer(production)}</div><div>{right}{_answer(here)}</div></div>')
    parts += [_difference(data["difference"]), drift(data["drift"], production["version"])]
    logs = [
        (name, log_table(records)) for name, records in (("production's log", production["records"]), ("the log here", here["records"])) if records
    ]
    if logs:
        inner = "".join(f"<div><h4>{esc(name[0].upper() + name[1:])}</h4>{shown}</div>" for name, shown in logs)
        parts.append(f'<div class="two">{inner}</div>')
    return page(*parts, _next(data, failed=here["status"] == "failed"))


def _took(run_ms: float | None) -> str:
    return f"{run_ms:,.1f} ms" if run_ms is not None else ""


def _answer(row: dict[str, Any]) -> str:
    if row.get("refusal"):
        return f"<p>{esc(row['refusal'])}</p>"
    if row["error"]:
        trace = pre(row["traceback"]) if row["traceback"] else ""
        return box("bad", f"<p><b>{esc(row['error']['type'])}</b>: {esc(row['error']['message'])}</p>", trace)
    return tree(row["result"], "result") if row["status"] == "completed" else ""


def _difference(compared: dict[str, Any] | None) -> str:
    if not compared or not compared["rows"]:
        return ""
    rows = []
    for row in compared["rows"]:
        kind, sign = SIGNS[row["kind"]]
        values = [f"<span class=mono>{esc(value)}</span>" if value is not None else "" for value in (row["then"], row["now"])]
        rows.append([f'<span class="{kind}">{sign} {row["kind"]}</span>', f"<code>{esc(row['path'])}</code>", *values])
    more = f"<p class=dim>and {compared['more']:,} more</p>" if compared["more"] else ""
    close = f"<p class=dim>≈: within {compared['tolerance']:g} of each other</p>" if any(row["kind"] == "close" for row in compared["rows"]) else ""
    return f"<h4>Difference</h4>{table(['', 'where', 'production', 'here'], rows)}{more}{close}"


def drift(sentences: list[str], version: int | None) -> str:
    if not sentences:
        return ""
    shown = "".join(f"<div>{esc(sentence)}</div>" for sentence in sentences[:20])
    more = f"<div class=dim>and {len(sentences) - 20} more</div>" if len(sentences) > 20 else ""
    return box("warn", f"<p><b>Not as in production{f' (version {version})' if version else ''}:</b></p>{shown}{more}")


def _next(data: dict[str, Any], *, failed: bool) -> str:
    return f"<p class=dim>{ticks(next_words(data, failed=failed))}</p>"


def replays(data: dict[str, Any]) -> str:
    """A group, request by request."""
    group, rows = data["group"], data["rows"]
    shown = [
        [
            f"<span class=mono>{esc(row['id'])}</span>",
            badge(row["status"]),
            esc(row["verdict"]),
            f"<b>{esc(row['error']['type'])}</b>: {esc(_short(row['error']['message']))}" if row["error"] else "",
            _took(row["run_ms"]),
        ]
        for row in rows
    ]
    kind = "good" if data["fixed"] else "bad"
    head = f"<p>{group['count']} requests failed with <b>{esc(group['type'])}</b>: {esc(_short(group['message']))}</p>"
    said = box(kind, f"<p><b>{data['succeeded']} of {len(rows)} succeed here</b> ({esc(data['ran'])})</p>")
    if note := group_redaction(data):
        said += box("warn", f"<p>{esc(note)}</p>")
    rows_shown = table(["request", "here", "beside production", "error", "ran"], shown)
    return page(head, said, drift(data["drift"], None), rows_shown, _next(data, failed=not data["fixed"]))


def requeued(data: dict[str, Any], *, command: str = "%cortex") -> str:
    done, refused = data["requeued"], data["refused"]
    parts = [box("good" if done else "warn", f"<p><b>{len(done)}</b> of {esc(data['api'])} requeued, under their ids</p>")]
    if done:
        parts.append(f"<p class=dim>look one up: <code>{esc(command)} result {esc(data['api'])} {esc(done[0])} --wait 30</code></p>")
    if refused:
        rows = [[f"<span class=mono>{esc(row['id'])}</span>", esc(row["reason"])] for row in refused[:100]]
        parts.append(f"<h4>{len(refused)} refused</h4>{table(['request', 'why'], rows)}")
    return page(*parts)


def rehearsed(data: dict[str, Any], *, command: str = "%cortex") -> str:
    """What a version did with requests of production before it is live."""
    counts = [[str(data["counts"][kind]), esc(words)] for kind, (words, _) in OUTCOMES.items() if kind in data["counts"]]
    parts = [box("good" if data["same"] else "warn", f"<p>{esc(rehearsal_head(data))}</p>"), table(["requests", ""], counts)]
    rows = rehearsal_rows(data)
    if rows:
        shown = [[f"<span class=mono>{esc(one)}</span>", esc(OUTCOMES[kind][0]), esc(what)] for one, kind, what in rows[:REHEARSED_ROWS]]
        parts.append(table(["id", "verdict", "what"], shown))
    if len(rows) > REHEARSED_ROWS:
        parts.append(f"<p class=dim>and {len(rows) - REHEARSED_ROWS} more</p>")
    if speed := rehearsal_speed(data):
        parts.append(table(["ms", "median", "p95"], [[esc(cell) for cell in row] for row in speed]))
    parts += [f"<p class=dim>{esc(warning)}</p>" for warning in data.get("warnings", [])]
    if end := rehearsal_end(data, command):
        parts.append(f"<p class=dim>{esc(end)}</p>")
    return page(*parts)
