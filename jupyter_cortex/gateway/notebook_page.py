"""``python -m jupyter_cortex.gateway.notebook_page``: a notebook on standard input, its page on standard output."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

# See project/gate_process.py: 2.2 s for the formats of web addresses, which notebooks do not have.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def page(text: str) -> str:
    """HTML that fetches nothing: the scripts which nbconvert would name are left out."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="")
    return str(exporter.from_notebook_node(nbformat.reads(text, as_version=4))[0])


def find_templates() -> None:
    """nbconvert looks for its templates below the prefix of the Python that runs; in one that is layered over another they lie below that one's."""
    for file in importlib.metadata.files("nbconvert") or ():
        if file.match("share/jupyter/nbconvert/templates/lab/conf.json"):
            data = str(Path(str(file.locate())).resolve().parents[3])
            os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [os.environ.get("JUPYTER_PATH"), data]))
            return


if __name__ == "__main__":
    find_templates()
    sys.stdout.buffer.write(page(sys.stdin.buffer.read().decode()).encode("utf-8", "replace"))
