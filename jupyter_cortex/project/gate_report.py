"""The check notebook before and after it ran: its cells, and what a reader of the report may see of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ..core.readers import printable
from ..handler import masking

#: Bytes of a report that are kept; the outputs of a longer one are cut.
MAX_REPORT_BYTES = 2 * 1024 * 1024
#: A value that is nested deeper than this is shown down to here.
MAX_DEPTH = 100
LEFT_OUT = "\n... more was left out ...\n"
#: What makes a notebook a notebook: left alone, also where .env has such a word as a value.
_STRUCTURE = frozenset({"cell_type", "output_type", "name", "id", "tags", "kernelspec", "language_info"})


class Masking:
    """The values of one ``.env``, kept out of one check's texts. Nothing of it is process-wide: a kernel's own masks stay what they are."""

    def __init__(self, values: Iterable[str]) -> None:
        parts = {part for value in values for part in (value, *value.splitlines()) if len(part.strip()) >= masking.SHORTEST}
        forms = {form for part in parts for form in masking.spellings(part)}
        forms |= {json.dumps(form, ensure_ascii=escaped)[1:-1] for form in forms for escaped in (True, False)}
        # Longest first: with "abcd" and "abcdef" known, the longer one must not leave "ef" behind.
        self._pattern = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None

    def text(self, text: str) -> str:
        """``text`` without the values, and without what UTF-8 cannot carry."""
        text = text.encode("utf-8", "backslashreplace").decode()
        return self._pattern.sub(masking.STARS, text) if self._pattern else text

    def value(self, value: Any, depth: int = 0) -> Any:
        """A JSON value without them: keys, texts, and numbers that were made from one."""
        if depth > MAX_DEPTH:
            return "..."
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.value(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, depth + 1) for item in value]
        if isinstance(value, int | float) and self.text(as_text := json.dumps(value)) != as_text:
            return masking.STARS
        return value


def check_notebook(name: str, samples: list[str]) -> dict[str, Any]:
    """The notebook that papermill executes: parameters, load, one cell per sample. Raises nothing."""

    def code(source: str, identity: str, **metadata: Any) -> dict[str, Any]:
        return {"cell_type": "code", "id": identity, "metadata": metadata, "source": source, "outputs": [], "execution_count": None}

    cells: list[dict[str, Any]] = [
        {
            "cell_type": "markdown",
            "id": "title",
            "metadata": {},
            "source": f"# Checks before the deploy of `{name}`\n\nEverything below ran in a process of its own.",
        },
        code('project_dir = ""\napi = ""\nmodule = ""\nsamples = []', "defaults", tags=["parameters"]),
        code(
            "from jupyter_cortex.project.check_cells import Checked\n\n"
            "# As a replica does: import the module, check the class, construct Handler(config).\nchecked = Checked(project_dir)",
            "load",
            step="construct",
            title="import the module and construct Handler",
        ),
    ]
    for index, sample in enumerate(map(printable, samples)):
        cells.append(code(f"checked.run(samples[{index}])  # {sample}", f"sample-{index}", step="sample", title=f"sample {sample}"))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


def finished(data: bytes, masks: Masking) -> bytes:
    """The executed notebook as it is kept: masked, and cut to :data:`MAX_REPORT_BYTES`. Nothing, when the process ended while it wrote it."""
    try:
        document = _shown(json.loads(data), masks)
    except (ValueError, RecursionError):
        return b""
    for longest in (None, 20_000, 1_000, 0):
        if longest is not None:
            _cut(document["cells"], longest)
        text = json.dumps(document).encode()
        if len(text) <= MAX_REPORT_BYTES:
            return text
    return b""


def _shown(value: Any, masks: Masking) -> Any:
    """Texts only: the keys and numbers of a report (times, counts) are papermill's and ours."""
    if isinstance(value, dict):
        whole = {key: "".join(item) if key in ("source", "text") and isinstance(item, list) else item for key, item in value.items()}
        return {key: item if key in _STRUCTURE else _shown(item, masks) for key, item in whole.items()}
    if isinstance(value, list):
        return [_shown(item, masks) for item in value]
    return masks.text(value) if isinstance(value, str) else value


def _cut(cells: list[dict[str, Any]], longest: int) -> None:
    for cell in cells:
        if cell.get("outputs") and not longest:
            cell["outputs"] = []
        for output in cell.get("outputs", []):
            if len(text := output.get("text", "")) > longest:
                output["text"] = text[:longest] + LEFT_OUT
            if len(text := "\n".join(output.get("traceback", []))) > longest:
                output["traceback"] = (text[:longest] + LEFT_OUT).splitlines()
