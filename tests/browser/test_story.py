"""From a notebook to an API that answers, in the browser alone; the same in Lab and in Notebook 7."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import expect

from . import views
from .conftest import Shots, TabMaker

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
