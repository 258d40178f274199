"""The ``tensorflow_client`` of this kernel: the one that a replica's Handler gets, made of the cortex.yaml beside the notebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class KernelClient:
    """Keeps the client, and so the loaded models, until the spec or a model's files change: a Handler is constructed anew with every edit."""

    def __init__(self) -> None:
        self._section: tuple[Any, dict[str, Any]] = (None, {"type": "python"})
        self._made: tuple[str, Any] = ("", None)

    def section(self, root: Path, api: str | None, generation: int) -> dict[str, Any]:
        """``handler`` of the spec as a replica gets it, for a tensorflow handler; for another one only its type. Raises SpecError.

        ``generation`` counts the readings of cortex.yaml.
        """
        if self._section[0] != (root, api, generation):
            self._section = ((root, api, generation), _read(root, api))
        return self._section[1]

    def key(self, section: dict[str, Any], root: Path) -> str:
        """Changes when the client must; "" for a python handler."""
        if section["type"] != "tensorflow":
            return ""
        from ..handler.tensorflow import stamp

        return json.dumps([str(root), section["models"], stamp(section, root)])

    def client(self, section: dict[str, Any], root: Path) -> Any:
        """Raises HandlerError when its models cannot be had."""
        from ..handler.instance import tensorflow_client

        key = self.key(section, root)
        if self._made[0] != key:
            self._made = ("", None)  # what was loaded before goes first
            self._made = (key, tensorflow_client(section, root))
        return self._made[1]


def _read(root: Path, api: str | None) -> dict[str, Any]:
    from ..core.spec import APISpec
    from ..project import from_notebook

    entry = from_notebook.entry_of(root, api)
    section = entry.get("handler")
    if not isinstance(section, dict) or section.get("type") != "tensorflow":
        return {"type": "python"}
    section.setdefault("path", from_notebook.MODULE)
    entry.setdefault("kind", "AsyncAPI")
    return dict(APISpec.from_resolved(entry, from_notebook.CONFIG).resolved()["handler"])
