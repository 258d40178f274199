"""The look: JupyterLab's own colours, with a fall-back where its theme is not (nbconvert, VS Code)."""

from __future__ import annotations

import html
from typing import Any

STYLE = """<style>
.cx{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;color:var(--jp-ui-font-color1,#222);line-height:1.45;max-width:1100px}
.cx h4{margin:10px 0 4px;font-size:13px;font-weight:600}.cx p{margin:4px 0}.cx a{color:var(--jp-content-link-color,#0b6bcb)}
.cx tr{background:none!important}.cx table{border-collapse:collapse;margin:6px 0;font-size:12px;border:0}
.cx th{text-align:left!important;font-weight:600;border-bottom:1px solid var(--jp-border-color1,#bbb);padding:3px 14px 3px 0;background:none}
.cx td{text-align:left!important;vertical-align:top;padding:2px 14px 2px 0;border:0;background:none;white-space:normal}
.cx pre,.cx code{font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:12px;color:inherit}
.cx pre{margin:4px 0;padding:6px 10px;background:var(--jp-layout-color2,#f3f3f3);border-radius:3px;overflow-x:auto;white-space:pre}
.cx code{background:var(--jp-layout-color2,#f3f3f3);padding:0 3px;border-radius:2px}
.cx .dim{color:var(--jp-ui-font-color2,#666)}.cx .mono{font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:12px}
.cx .good{color:var(--jp-success-color0,#1a7f37)}.cx .bad{color:var(--jp-error-color0,#c0201b)}.cx .warn{color:var(--jp-warn-color0,#9a5b00)}
.cx .badge{display:inline-block;padding:0 7px;border-radius:9px;font-size:11px;font-weight:600;border:1px solid currentColor}
.cx .box{border-left:3px solid var(--jp-border-color1,#bbb);padding:2px 0 2px 10px;margin:6px 0}
.cx .box.bad{border-color:var(--jp-error-color1,#d32f2f);color:inherit}.cx .box.good{border-color:var(--jp-success-color1,#388e3c);color:inherit}
.cx .box.warn{border-color:var(--jp-warn-color1,#f57c00);color:inherit}
.cx details{margin-left:14px}.cx details>summary{margin-left:-14px;cursor:pointer}
.cx .leaf{margin-left:14px}.cx .key{color:var(--jp-mirror-editor-attribute-color,#00c)}
.cx .str,.cx .s{color:var(--jp-mirror-editor-string-color,#a11)}.cx .num,.cx .m{color:var(--jp-mirror-editor-number-color,#164)}
.cx .lit,.cx .k{color:var(--jp-mirror-editor-keyword-color,#080)}.cx .c{color:var(--jp-mirror-editor-comment-color,#6a737d);font-style:italic}
.cx .f{color:var(--jp-mirror-editor-def-color,#00f)}
.cx div.code{display:grid;grid-template-columns:minmax(0,1fr) minmax(160px,230px);margin:6px 0;background:var(--jp-layout-color2,#f5f5f5);border-radius:3px}
.cx div.code pre{margin:0;padding:3px 8px;background:none;border-radius:0}.cx div.code .no{color:var(--jp-ui-font-color3,#999);user-select:none}
.cx div.code .why{padding:3px 8px;color:var(--jp-ui-font-color2,#666);border-left:1px solid var(--jp-border-color2,#ddd);font-size:12px}
.cx .two{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:4px 18px}.cx .two>div{min-width:0;overflow-x:auto}
.cx .plus{color:var(--jp-success-color0,#1a7f37)}.cx .minus{color:var(--jp-error-color0,#c0201b)}
.cx .bar{height:6px;background:var(--jp-layout-color3,#ddd);border-radius:3px;overflow:hidden;max-width:420px;margin:6px 0}
.cx .bar>div{height:100%;background:var(--jp-brand-color1,#1976d2);transition:width .2s}
.cx .copy{font-size:11px;padding:1px 8px;margin-left:8px;cursor:pointer;border:1px solid var(--jp-border-color1,#bbb);border-radius:3px;background:none;color:inherit}
.cx img{max-width:320px;max-height:240px;border:1px solid var(--jp-border-color2,#ddd)}
</style>"""
#: Longer texts are cut in a page; the whole is in the object itself.
MAX_TEXT = 20_000
#: Items of one container that a tree shows.
MAX_ITEMS = 200
#: Levels of a value that a tree shows.
MAX_DEPTH = 40
#: Values that a tree shows in all: about 200 kB of page. 3 x 224 x 224 numbers were 11 MB, which stayed in the notebook.
MAX_VALUES = 2000

BADGES = {"live": "good", "completed": "good", "updating": "warn", "in_progress": "warn", "in_queue": "dim", "error": "bad", "failed": "bad"}


def page(*parts: str) -> str:
    return f'{STYLE}<div class="cx">{"".join(parts)}</div>'


def esc(value: Any) -> str:
    text = str(value)
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}… ({len(text):,} characters)"
    return html.escape(text)


def badge(status: str) -> str:
    return f'<span class="badge {BADGES.get(status, "dim")}">{esc(status)}</span>'


def box(kind: str, *parts: str) -> str:
    return f'<div class="box {kind}">{"".join(parts)}</div>'


def pre(text: Any, kind: str = "") -> str:
    return f'<pre class="{kind}">{esc(text)}</pre>'


def table(head: list[str], rows: list[list[str]]) -> str:
    """Cells are HTML already."""
    top = "".join(f"<th>{esc(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def copyable(text: str) -> str:
    """A line of code with a button that copies it; without JavaScript it is just the line."""
    script = "navigator.clipboard&&navigator.clipboard.writeText(this.previousSibling.textContent);this.textContent='copied'"
    return f'<p><code>{esc(text)}</code><button class="copy" onclick="{html.escape(script)}">copy</button></p>'


def tree(value: Any, key: str = "", *, depth: int = 0, room: list[int] | None = None) -> str:
    """A JSON value as a tree that opens and closes. ``room``: how many more values the whole may show."""
    room = [MAX_VALUES] if room is None else room
    room[0] -= 1
    label = f'<span class="key">{esc(key)}</span>: ' if key else ""
    if depth > MAX_DEPTH:
        return '<div class="leaf dim">… deeper</div>'
    if isinstance(value, (dict, list)) and value:
        items = list(value.items()) if isinstance(value, dict) else [(str(at), item) for at, item in enumerate(value)]
        shown: list[str] = []
        for name, item in items[:MAX_ITEMS]:
            if room[0] <= 0:
                break
            shown.append(tree(item, str(name), depth=depth + 1, room=room))
        inner, left = "".join(shown), len(items) - len(shown)
        more = f'<div class="leaf dim">… {left:,} more</div>' if left else ""
        size = f"{len(items)} {'key' if isinstance(value, dict) else 'item'}{'s' * (len(items) != 1)}"
        brackets = "{…}" if isinstance(value, dict) else "[…]"
        return f'<details{" open" if depth < 2 else ""}><summary>{label}<span class="dim">{brackets} {size}</span></summary>{inner}{more}</details>'
    return f'<div class="leaf mono">{label}{scalar(value)}</div>'


def scalar(value: Any) -> str:
    import json

    kind = "str" if isinstance(value, str) else "lit" if value is None or isinstance(value, bool) else "num"
    return f'<span class="{kind}">{esc(json.dumps(value, ensure_ascii=False))}</span>'


def highlighted(source: str) -> list[str]:
    """Python as HTML, one item per line, in the editor's own colours."""
    from pygments.lexers import PythonLexer
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    classes = (
        (Comment, "c"),
        (Keyword, "k"),
        (Operator.Word, "k"),
        (String, "s"),
        (Number, "m"),
        (Name.Function, "f"),
        (Name.Class, "f"),
        (Name.Decorator, "f"),
    )
    lines = [""]
    for token, text in PythonLexer(stripnl=False).get_tokens(source):
        kind = next((name for parent, name in classes if token in parent), "")
        for at, piece in enumerate(text.split("\n")):
            if at:
                lines.append("")
            if piece:
                lines[-1] += f'<span class="{kind}">{html.escape(piece)}</span>' if kind else html.escape(piece)
    return lines


def ticks(text: str) -> str:
    """`name` in backquotes as code."""
    pieces = esc(text).split("`")
    return "".join(f"<code>{piece}</code>" if at % 2 and at < len(pieces) - 1 else piece for at, piece in enumerate(pieces))
