"""From a notebook to an API that answers, and from a failure in production to its fix, in the browser alone."""

from __future__ import annotations

import re
import shutil
import time
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from . import views
from .conftest import Shots, Tab, TabMaker

NOTEBOOK = "iris-classifier.ipynb"
FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


@pytest.mark.parametrize("app", ["lab", "notebook7"])
def test_the_example_notebook_becomes_an_api(tab: TabMaker, shot: Shots, app: str) -> None:
    one = tab()
    page = getattr(one, app)(NOTEBOOK)
    one.run("notebook:run-all-cells")
    dialog = views.deploy(page)
    shot(page, f"deployed-{app}")
    url = dialog.get_by_label("the endpoint", exact=True).inner_text().strip()
    assert url.endswith("/iris-classifier")
    expect(views.deploy_button(page)).to_have_accessible_name(re.compile("iris-classifier is live, version"))
    dialog.get_by_role("button", name="Open API").click()

    region = views.api_page(page, "iris-classifier", "Workloads")
    expect(region.get_by_text("No requests yet")).to_be_visible()
    identity = httpx.post(url, json=FLOWER, trust_env=False).json()["id"]
    row = views.workload(region, identity)
    expect(row).to_contain_text("completed")
    row.click()
    inspector = page.get_by_role("region", name=f"Workload {identity}")
    expect(inspector.get_by_role("group", name="Result")).to_contain_text("setosa")
    expect(inspector.get_by_role("table")).to_contain_text("classified")
    shot(page, f"workload-{app}")
    one.jupyter.environment.client().delete("iris-classifier")
    expect(region.get_by_text("iris-classifier is not deployed")).to_be_visible()


#: The flower without a petal width, which `measurements` stumbles over, and how it is mended.
BROKEN = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0}
RAISES = "float(payload[field])"
MENDED = "float(payload.get(field, 1.2))"
#: Where it raises: the cell of `measurements`.
PLACE = "cell 4, line 12"
MEND = """([wrong, right]) => {
    const { content } = window.jupyterapp.shell.currentWidget;
    const at = content.widgets.findIndex(cell => cell.model.sharedModel.getSource().includes(wrong));
    content.activeCellIndex = at;
    content.widgets[at].model.sharedModel.setSource(content.widgets[at].model.sharedModel.getSource().replace(wrong, right));
}"""


def post(url: str, payload: dict[str, Any]) -> str:
    return str(httpx.post(url, json=payload, trust_env=False).json()["id"])


def published(one: Tab, directory: str) -> str:
    """The iris notebook in a directory of its own, run and published; where its API is called."""
    (one.jupyter.root / directory).mkdir(exist_ok=True)
    shutil.copy(one.jupyter.root / NOTEBOOK, one.jupyter.root / directory / NOTEBOOK)
    page = one.lab(f"{directory}/{NOTEBOOK}")
    one.run("notebook:run-all-cells")
    dialog = views.deploy(page)
    url = dialog.get_by_label("the endpoint", exact=True).inner_text().strip()
    dialog.get_by_role("button", name="Open API").click()
    return url


def test_a_failure_in_production_is_mended_without_leaving_the_browser(tab: TabMaker, shot: Shots) -> None:
    one = tab()
    url = published(one, "story")
    page = one.page

    # Somebody sends what nobody thought of.
    identity = post(url, BROKEN)
    region = views.api_page(page, "iris-classifier", "Failures")
    group = views.failures(region).filter(has_text="KeyError")
    expect(group).to_contain_text("'petal_width'")
    expect(group).to_contain_text(PLACE)
    group.get_by_role("button", name=re.compile("^KeyError")).click()
    expect(group.get_by_role("table", name=re.compile("way to the exception"))).to_contain_text(RAISES)
    expect(group.get_by_role("button", name=f"Open workload {identity}")).to_be_visible()
    shot(page, "story-1-failures")

    # It comes back into its notebook, and fails there the same way.
    begun = time.monotonic()
    group.get_by_role("button", name="Replay the newest KeyError in its notebook").click()
    answer = views.replayed(page)
    expect(answer).to_contain_text("the same failure as in production")
    print(f"click on Replay -> the failing frame in the notebook: {time.monotonic() - begun:.2f} s")
    expect(answer).to_contain_text(PLACE)
    shot(page, "story-2-replayed")

    # The cell is mended, and the same cell replays it again.
    page.evaluate(MEND, [RAISES, MENDED])
    one.run("notebook:run-cell")
    one.wait_for_idle_kernel()
    views.api_page(page, "iris-classifier", "Failures")
    group.get_by_role("button", name="Replay the newest KeyError in its notebook").click()
    expect(answer).to_contain_text("it failed in production and succeeds here")
    expect(views.replays(page)).to_have_count(1)
    shot(page, "story-3-mended")

    # What failed is a sample from now on, and the checks of the next deploy run it.
    views.api_page(page, "iris-classifier", "Failures")
    group.get_by_role("button", name="Keep the newest payload as a sample").click()
    expect(page.get_by_text(re.compile(r"Kept samples/failed-\w+\.yaml beside story/"))).to_be_visible()
    page.get_by_role("tab", name=NOTEBOOK).click()
    dialog = views.deploy(page, "Deploy new version")
    dialog.get_by_text(re.compile(r"^\d+ steps$")).click()
    expect(dialog.get_by_text(re.compile(r"checking: sample failed-\w+"))).to_be_visible()
    dialog.get_by_role("button", name="Open API").click()

    # The caller who still polls the old id gets his result.
    region = views.api_page(page, "iris-classifier", "Failures")
    group.get_by_role("button", name=re.compile("^Requeue")).click()
    dialog = page.get_by_role("dialog").filter(has_text="Requeue requests of iris-classifier")
    expect(dialog).to_contain_text("on version 2")
    shot(page, "story-4-requeue")
    dialog.get_by_role("button", name="Requeue", exact=True).click()
    expect(dialog.get_by_role("status")).to_have_text("1 requeued.")
    dialog.get_by_role("button", name="Close", exact=True).last.click()
    expect(region.get_by_text("Nothing failed")).to_be_visible()
    told = httpx.get(f"{url}/{identity}", params={"wait": 30}, trust_env=False, timeout=40).json()
    assert (told["status"], told["result"]["label"]) == ("completed", "virginica")
    region.get_by_role("tab", name="Workloads").click()
    views.workload(region, identity).click()
    inspector = region.get_by_role("region", name=f"Workload {identity}")
    expect(inspector.get_by_role("group", name="Earlier runs")).to_contain_text(f"from story/{NOTEBOOK}")
    expect(inspector.get_by_role("group", name="Result")).to_contain_text("virginica")
    shot(page, "story-5-completed")
    one.jupyter.environment.client().delete("iris-classifier")
