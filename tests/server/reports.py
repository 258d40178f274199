"""Notebook handlers of tests: small notebooks in project directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def document(*cells: str, language: str = "python") -> dict[str, Any]:
    """A notebook of these cells: ``# parameters`` tags one, ``%md`` makes Markdown."""

    def cell(at: int, text: str) -> dict[str, Any]:
        if text.startswith("%md "):
            return {"cell_type": "markdown", "id": f"md-{at}", "metadata": {}, "source": text.removeprefix("%md ")}
        tags = ["parameters"] if text.startswith("# parameters") else []
        return {"cell_type": "code", "id": f"co-{at}", "metadata": {"tags": tags}, "source": text, "outputs": [], "execution_count": None}

    kernel = {"name": "any", "display_name": "Any", "language": language}
    return {"cells": [cell(*one) for one in enumerate(cells)], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def write_report(directory: Path, name: str, *cells: str, handler: str = "", spec: str = "", files: dict[str, str] | None = None) -> Path:
    """A project with the notebook ``report.ipynb``; the path of its cortex.yaml."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.ipynb").write_text(json.dumps(document(*cells)))
    for path, text in (files or {}).items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
    config = directory / "cortex.yaml"
    config.write_text(f"- name: {name}\n  kind: AsyncAPI\n  handler: {{type: notebook, path: report.ipynb{handler}}}\n{spec}")
    return config
