"""What a person sees and does in the extension, by role and name."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect


def panel(page: Page) -> Locator:
    """The sidebar with all APIs; opened where it is not."""
    region = page.get_by_role("region", name="Cortex APIs")
    if not region.is_visible():
        page.evaluate("() => window.jupyterapp.commands.execute('cortex:show-apis')")
    region.wait_for()
    return region


def deploy_button(page: Page) -> Locator:
    """The toolbar's button; its name says how the notebook's API is."""
    return page.get_by_role("button", name=re.compile("^Deploy: "))


def deploy_dialog(page: Page) -> Locator:
    return page.get_by_role("dialog").filter(has_text="Deploy ")


def deploy(page: Page, label: str = "Deploy") -> Locator:
    """Press Deploy in the toolbar and in the dialog, and wait until the API is live; the dialog."""
    deploy_button(page).click()
    dialog = deploy_dialog(page)
    dialog.get_by_role("button", name=label, exact=True).click()
    expect(dialog.get_by_role("status").filter(has_text=re.compile("is live"))).to_be_visible()
    return dialog


def api_page(page: Page, name: str, tab: str = "") -> Locator:
    """An API's page, opened by its name in the sidebar."""
    region = page.get_by_role("region", name=f"API {name}", exact=True)
    if not region.is_visible():
        panel(page).get_by_role("button", name=name, exact=True).click()
    region.wait_for()
    if tab:
        region.get_by_role("tab", name=tab, exact=True).click()
    return region


def workload(region: Locator, identity: str) -> Locator:
    """A row of the Workloads tab."""
    return region.get_by_role("grid", name="Workloads").get_by_role("row").filter(has_text=identity)


def failures(region: Locator) -> Locator:
    """The groups of the Failures tab."""
    return region.get_by_role("list", name="Groups of failures").get_by_role("listitem")


def replays(page: Page) -> Locator:
    """The notebook's cells that replay one request."""
    return page.locator(".jp-Notebook:visible .jp-CodeCell").filter(has_text=re.compile(r"^\W*\d*\W*%cortex replay [0-9a-f-]+ --name"))


def replayed(page: Page) -> Locator:
    """What the replay cell shows."""
    return replays(page).locator(".jp-Cell-outputArea")
