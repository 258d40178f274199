"""A new version is rehearsed on production's requests, looked at and promoted, in the browser alone."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from labextension import bundle

from . import views
from .conftest import Shots, TabMaker
from .greeter import HANDLER, Greeter
from .test_looks import Inspection

YAML = """
- name: rehearsed
  kind: AsyncAPI
  handler: {type: python, path: handler.py}
  retain: {payload: always}
  rehearse: true
"""
#: Says another thing to Eve, fails for Bob, and forgives who gives no name; Ada hears the same.
NEXT = """class Handler:
    def handle_async(self, payload, request_id):
        name = payload.get("name", "stranger")
        if name == "Bob":
            raise LookupError("nobody greets Bob")
        text = f"hello, {name}"
        return {"text": text.upper() if name == "Eve" else text}
"""
PLACE = "cell 2, line 5"
EDIT = """source => {
    const { content } = window.jupyterapp.shell.currentWidget;
    content.widgets[1].model.sharedModel.setSource(source);
}"""


def test_a_version_is_rehearsed_looked_at_and_promoted_in_the_browser(tab: TabMaker, shot: Shots) -> None:
    bundle.install()
    one = tab()
    api = Greeter(one.jupyter, "rehearsed").write(HANDLER)
    (one.jupyter.root / api.name / "cortex.yaml").write_text(YAML)
    api.deploy("--no-check")
    ada, eve, bob, nobody = api.post(name="Ada"), api.post(name="Eve"), api.post(name="Bob"), api.post(n=1)
    for identity in (ada, eve, bob, nobody):
        api.ended(identity)
    page = one.lab(api.notebook)
    page.evaluate(EDIT, NEXT)
    one.run("notebook:run-all-cells")
    views.deploy_button(page).click()
    dialog = views.deploy_dialog(page)
    dialog.get_by_role("checkbox", name="Rehearse first").check()
    dialog.get_by_label("Requests to rehearse with").fill("10")
    shot(page, "rehearsal-dialog")
    dialog.get_by_role("button", name="Rehearse new version").click()
    dialog.get_by_role("button", name="Show rehearsal").click()

    region = page.get_by_role("region", name=f"API {api.name}", exact=True)
    expect(region.get_by_role("tab", name="Rehearsal")).to_have_attribute("aria-selected", "true")
    counts = region.get_by_role("list", name="What came of them")
    table = region.get_by_role("table", name="Requests that did not end as before")
    expect(table.get_by_role("row")).to_have_count(4)
    for words in ("1new error", "1changed result", "1fixed error", "1same result"):
        expect(counts).to_contain_text(words)
    expect(table).to_contain_text('result.text before: "hello, Eve" → now: "HELLO, EVE"')
    expect(table).to_contain_text("LookupError nobody greets Bob")
    expect(table.get_by_role("button", name=PLACE)).to_be_visible()
    expect(region.get_by_role("table", name=re.compile("How long a request took"))).to_contain_text("p95")
    found: list[str] = []
    for theme in ("Dark", "Light"):
        one.run("apputils:change-theme", f"{{ theme: 'JupyterLab {theme}' }}")
        expect(page.locator("body")).to_have_attribute("data-jp-theme-name", f"JupyterLab {theme}")
        looking = Inspection(page, shot, theme.lower())
        looking.look("rehearsal")
        found += looking.found
    assert not found, "\n".join(found)
    page.set_viewport_size({"width": 760, "height": 900})
    expect(table).to_contain_text("nobody greets Bob")
    shot(page, "rehearsal-narrow")
    page.set_viewport_size({"width": 1400, "height": 900})

    # The request that would fail, as production answered it; the way back is said above every tab.
    table.get_by_role("button", name=f"Open workload {bob}").click()
    inspector = region.get_by_role("region", name=f"Workload {bob}")
    expect(inspector.get_by_role("group", name="Result")).to_contain_text("hello, Bob")
    expect(region.get_by_role("status").filter(has_text="Version 2 was rehearsed with 4 requests: 1 new error")).to_be_visible()
    shot(page, "rehearsal-note")
    region.get_by_role("button", name="Show rehearsal").click()
    region.get_by_role("button", name="Make version 2 live").click()
    dialog = page.get_by_role("dialog").filter(has_text="Make version 2 of rehearsed live?")
    expect(dialog).to_contain_text("1 new error, 1 changed result, 1 fixed error")
    dialog.get_by_role("button", name="Promote").click()
    expect(region.get_by_text("Nothing is rehearsed")).to_be_visible()
    expect(region.get_by_text("version 2", exact=True)).to_be_visible()
    assert api.ended(api.post(name="Eve"))["result"] == {"text": "HELLO, EVE"}
    api.delete()
