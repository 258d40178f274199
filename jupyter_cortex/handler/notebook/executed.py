"""The executed notebook as it is kept: masked, within its limit, without what travels elsewhere."""

from __future__ import annotations

import json
from typing import Any

from .. import masking
from . import source

#: Bytes of an executed notebook that is kept. The largest outputs of a larger one give way to a note.
MAX_BYTES = 8 * 1024 * 1024
#: Characters of the injected cell that are kept: a payload of megabytes is kept as payloads are, not once more.
INJECTED = 100_000
#: What is no text, so that a value in it would be chance.
_BINARY = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")
#: What makes a notebook a notebook; left alone, also where .env has such a word as a value.
_STRUCTURE = frozenset({"cell_type", "output_type", "name", "id", "tags", "kernelspec", "language_info", "nbformat", "nbformat_minor", "execution"})
HIDDEN = "# The payload is no JSON, and the spec has `retain.redact`: it is not shown."


def kept(nb: Any, shown: str | None) -> bytes:
    """The notebook's JSON. ``shown``: what stands in the injected cell instead of the values that ran, None for those."""
    document = json.loads(json.dumps(nb))
    document["metadata"]["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for cell in document["cells"]:
        if source.is_injected(cell):
            cell["source"] = _injected(cell["source"] if shown is None else shown)
    document = _masked(document)
    return _within(document)


def coalesced(outputs: list[Any]) -> list[Any]:
    """One output for what a stream wrote in pieces; a line that was rewritten with carriage returns counts as its last state.

    nbclient's own way takes the square of a long line's length: 9 MB without a newline would never end.
    """
    found: list[Any] = []
    for output in outputs:
        if output["output_type"] == "stream" and found and found[-1].get("name") == output["name"]:
            found[-1]["text"] += output["text"]
        else:
            found.append(output)
    for output in found:
        if output["output_type"] == "stream" and "\r" in output["text"]:
            lines = (line.rstrip("\r").rpartition("\r")[2] for line in output["text"].split("\n"))
            output["text"] = "\n".join(lines)
    return found


def _injected(text: str) -> str:
    if len(text) <= INJECTED:
        return text
    lines = [line if len(line) <= 1000 else f"{line[:200]}  # … ({len(line):,} characters)" for line in text.splitlines()]
    return "\n".join(lines)[:INJECTED]


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item if key in _STRUCTURE or key in _BINARY else _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return masking.masked(value) if isinstance(value, str) else value


def _within(document: dict[str, Any]) -> bytes:
    data = json.dumps(document).encode()
    if len(data) <= MAX_BYTES:
        return data
    outputs = [(len(json.dumps(output)), cell, at) for cell in document["cells"] for at, output in enumerate(cell.get("outputs", []))]
    excess = len(data) - MAX_BYTES
    for size, cell, at in sorted(outputs, key=lambda one: -one[0]):
        note = f"[an output of {size:,} bytes was left out: at most {MAX_BYTES:,} bytes of an executed notebook are kept]\n"
        cell["outputs"][at] = {"output_type": "stream", "name": "stderr", "text": note}
        excess -= size - len(note) - 60
        if excess <= 0:
            break
    data = json.dumps(document).encode()
    return data if len(data) <= MAX_BYTES else b""
