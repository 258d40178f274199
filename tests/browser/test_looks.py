"""Every view in the light and the dark theme: a screenshot of it, and no serious or critical finding of axe-core in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from labextension import bundle

from . import views
from .conftest import GreeterMaker, Shots, TabMaker

AXE = bundle.HERE / "node_modules" / "axe-core" / "axe.min.js"
#: What is ours in Lab's page.
OURS = [".cx", ".cx-deploy-button", ".cx-status", ".cx-deploy-dialog"]
RUN = """async ours => {
    const include = ours.filter(one => [...document.querySelectorAll(one)].some(node => node.offsetParent !== null));
    const found = await axe.run({ include }, { resultTypes: ['violations'] });
    const why = node => (node.any[0] ?? node.all[0] ?? node.none[0])?.message;
    return found.violations.map(({ id, impact, help, nodes }) =>
        ({ id, impact, help, nodes: nodes.slice(0, 5).map(node => `${node.html.slice(0, 200)}  ${why(node)}`) }));
}"""
#: Colours that are on their way from one theme or state to the next say nothing; a spinner goes on for ever.
STILL = """() => document.getAnimations().every(
    one => one.playState !== 'running' || one.effect.getTiming().iterations === Infinity
)"""


@dataclass
class Inspection:
    page: Page
    shot: Shots
    theme: str
    found: list[str] = field(default_factory=list)

    def look(self, view: str) -> None:
        self.page.wait_for_function(STILL)
        self.shot(self.page, f"{view}-{self.theme}")
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(AXE.read_text())
        violations: list[dict[str, Any]] = self.page.evaluate(RUN, OURS)
        for one in violations:
            said = f"{view}: {one['id']} ({one['impact']}): {one['help']}\n    " + "\n    ".join(one["nodes"])
            if one["impact"] in ("serious", "critical"):
                self.found.append(said)
            else:
                print(said)


@pytest.fixture(scope="module", autouse=True)
def _axe() -> None:
    bundle.install()


@pytest.fixture(params=["Light", "Dark"])
def inspection(request: pytest.FixtureRequest, tab: TabMaker, shot: Shots, greeter: GreeterMaker) -> Iterator[Inspection]:
    theme = f"JupyterLab {request.param}"
    one = tab()
    one.lab()
    one.run("apputils:change-theme", f"{{ theme: '{theme}' }}")
    expect(one.page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    yield Inspection(one.page, shot, request.param.lower())
    one.run("apputils:change-theme", "{ theme: 'JupyterLab Light' }")


def test_the_views_of_an_api(inspection: Inspection, greeter: GreeterMaker) -> None:
    api = greeter("looks")
    page = inspection.page
    many = [api.post(name=f"n{at}") for at in range(40)]
    good, bad = api.post(name="Ada"), api.post(nobody=1)
    for identity in (*many, good, bad):
        api.ended(identity)
    panel = views.panel(page)
    expect(panel.get_by_role("listitem").filter(has_text=api.name)).to_contain_text("1 failed in the last hour")
    inspection.look("sidebar")
    region = views.api_page(page, api.name)
    expect(region.get_by_role("figure")).to_have_count(4)
    inspection.look("overview")
    region.get_by_role("tab", name="Workloads").click()
    expect(views.workload(region, good)).to_contain_text("completed")
    inspection.look("workloads")
    views.workload(region, good).click()
    expect(region.get_by_role("region", name=f"Workload {good}").get_by_role("table")).to_contain_text("greeting Ada")
    inspection.look("workload-completed")
    views.workload(region, bad).click()
    expect(region.get_by_role("region", name=f"Workload {bad}").get_by_role("group", name="Error")).to_contain_text("KeyError")
    expect(region.get_by_role("region", name=f"Workload {bad}").get_by_role("table")).to_contain_text("greeting")
    inspection.look("workload-failed")
    region.get_by_role("button", name=re.compile("^Open the group of failures")).click()
    expect(views.failures(region).get_by_role("button", name=f"Open workload {bad}")).to_be_visible()
    inspection.look("failures")
    region.get_by_role("button", name=re.compile("^Requeue 1 request")).click()
    dialog = page.get_by_role("dialog").filter(has_text="Requeue requests of looks")
    expect(dialog.get_by_role("note")).to_contain_text("deploy the fix first")
    inspection.look("requeue")
    dialog.get_by_role("button", name="Requeue", exact=True).click()
    expect(dialog.get_by_role("status")).to_have_text("1 requeued.")
    inspection.look("requeued")
    page.keyboard.press("Escape")
    region.get_by_role("tab", name="Logs").click()
    expect(region.get_by_role("log")).to_contain_text("greeting n39")
    inspection.look("logs")
    region.get_by_role("tab", name="Versions").click()
    expect(region.get_by_role("table").last).to_contain_text("class Handler")
    inspection.look("versions")
    region.get_by_role("tab", name="Test").click()
    region.get_by_label("Body").fill('{"name": "Barbara"}')
    region.get_by_role("button", name="Send", exact=True).click()
    expect(region.get_by_role("article")).to_contain_text("hello, Barbara")
    inspection.look("test")
    assert not inspection.found, "\n".join(inspection.found)


def test_the_deploy_dialog(inspection: Inspection, greeter: GreeterMaker) -> None:
    api = greeter("dialog")
    page = inspection.page
    page.evaluate("path => window.jupyterapp.commands.execute('docmanager:open', { path })", api.notebook)
    page.wait_for_function("() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    expect(views.deploy_button(page)).to_have_accessible_name(re.compile("dialog is live, version 1"))
    views.deploy_button(page).click()
    dialog = views.deploy_dialog(page)
    expect(dialog.get_by_role("button", name="Check only")).to_be_enabled()
    expect(dialog.get_by_role("button", name="Deploy new version")).to_be_focused()
    inspection.look("deploy-ready")
    dialog.get_by_label("New key").fill("greeting")
    dialog.get_by_role("button", name="Add").click()
    dialog.get_by_role("textbox", name="greeting").fill("good morning")
    dialog.get_by_text("The generated module").click()
    inspection.look("deploy-module")
    dialog.get_by_role("button", name="Check only").press("Enter")
    expect(dialog.get_by_text("All checks passed.")).to_be_visible()
    expect(dialog.get_by_role("button", name="Check only")).to_be_focused()
    inspection.look("deploy-checked")
    dialog.get_by_role("button", name="Deploy new version").press("Enter")
    expect(dialog.get_by_role("button", name="Working…")).to_be_focused()
    expect(dialog.get_by_role("status").filter(has_text="version 2 is live")).to_be_visible()
    inspection.look("deploy-live")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert not inspection.found, "\n".join(inspection.found)
