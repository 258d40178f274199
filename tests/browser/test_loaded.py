"""The extension comes with the wheel: nothing is to be enabled, in Lab and in Notebook 7."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from .conftest import TabMaker

NOTEBOOK = "iris-classifier.ipynb"
ACTIVE = "() => window.jupyterapp.isPluginActivated('jupyter-cortex:plugin')"


def test_lab_loads_the_extension(tab: TabMaker) -> None:
    one = tab()
    page = one.lab(NOTEBOOK)
    page.wait_for_function(ACTIVE)
    expect(page.get_by_role("button", name=re.compile("^Deploy"))).to_be_visible()


def test_notebook_7_loads_the_extension(tab: TabMaker) -> None:
    one = tab()
    page = one.notebook7(NOTEBOOK)
    page.wait_for_function(ACTIVE)
    expect(page.get_by_role("button", name=re.compile("^Deploy"))).to_be_visible()
