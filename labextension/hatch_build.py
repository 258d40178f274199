"""Builds the JupyterLab extension before a wheel or a source archive is packed, unless it is there already."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_spec = importlib.util.spec_from_file_location("labextension_bundle", Path(__file__).with_name("bundle.py"))
assert _spec is not None
assert _spec.loader is not None
bundle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bundle)


class LabExtension(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return [] if bundle.is_fresh() or bundle.has_node() else [bundle.NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            bundle.ensure()
        except bundle.BuildFailed as failed:
            # One message instead of a traceback through the build's machinery.
            raise SystemExit(f"\n{failed}") from None
