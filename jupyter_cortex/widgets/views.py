"""Showing a widget with its fall-back: the same as HTML and text, for where widgets cannot be drawn."""

from __future__ import annotations

from typing import Any

from IPython.display import DisplayHandle, display

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def show_widget(widget: Any, fallback: dict[str, str]) -> DisplayHandle:
    """Display a widget; ``fallback`` (mime type -> content) is what exports, papermill and plain front ends keep of it."""
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return display({**fallback, WIDGET_VIEW: view}, raw=True, display_id=True)  # type: ignore[return-value]
