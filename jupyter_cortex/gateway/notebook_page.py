"""``python -m jupyter_cortex.gateway.notebook_page``: a notebook on standard input, its page on standard output."""

from __future__ import annotations

import sys

# See project/gate_process.py: 2.2 s for the formats of web addresses, which notebooks do not have.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def page(text: str) -> str:
    """HTML that fetches nothing: the scripts which nbconvert would name are left out."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="")
    return str(exporter.from_notebook_node(nbformat.reads(text, as_version=4))[0])


if __name__ == "__main__":
    sys.stdout.buffer.write(page(sys.stdin.buffer.read().decode()).encode("utf-8", "replace"))
