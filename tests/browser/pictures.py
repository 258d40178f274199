"""Makes README's pictures of JupyterLab from the iris notebook: ``python -m tests.browser.pictures [DIRECTORY]``; wants Chromium on PATH."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect, sync_playwright

from ..conftest import Environment
from . import views
from .conftest import Tab, launch, new_context
from .jupyter import ROOT, Jupyter

PICTURES = ROOT / ".github"
NOTEBOOK = "iris-classifier.ipynb"
SIZE = {"width": 1280, "height": 860}
#: Where this run's files lie says nothing to a reader.
RENAME = """renamed => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        for (const [from, to] of renamed) {
            if (node.data.includes(from)) {
                node.data = node.data.replaceAll(from, to);
            }
        }
    }
}"""


def take(page: Page, path: Path, renamed: list[tuple[str, str]]) -> None:
    page.evaluate(RENAME, renamed)
    page.screenshot(path=path)


def main(target: Path = PICTURES) -> None:
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        directory = Path(name)
        environment = Environment(directory / "home").up()
        jupyter = Jupyter(directory, environment).start()
        browser = launch(playwright)
        renamed = [(sys.executable, "~/.venv/bin/python"), (name, "~"), (str(jupyter.port), "8888")]
        try:
            tab = Tab(new_context(browser).new_page(), jupyter)
            page = tab.page
            page.set_viewport_size(SIZE)  # type: ignore[arg-type]
            tab.lab(NOTEBOOK)
            tab.run("notebook:run-all-cells")
            views.deploy_button(page).click()
            dialog = views.deploy_dialog(page)
            dialog.get_by_role("button", name="Check only").click()
            expect(dialog.get_by_text("All checks passed.")).to_be_visible()
            dialog.get_by_text("The generated module").click()
            take(page, target / "lab-deploy.png", renamed)
            dialog.get_by_role("button", name="Deploy", exact=True).click()
            dialog.get_by_role("button", name="Open API").click()
            region = views.api_page(page, "iris-classifier", "Workloads")
            views.panel(page)
            url = f"{environment.url}/iris-classifier"
            flowers = [{"sepal_length": 5.1 + at / 10, "sepal_width": 3.5, "petal_length": 1.4 + at / 3, "petal_width": 0.2} for at in range(18)]
            for flower in flowers:
                httpx.post(url, json=flower, trust_env=False)
            for broken in ("5.1,3.5,,0.2", "6.3,3.3,six,2.5"):
                httpx.post(url, content=broken, headers={"content-type": "text/plain"}, trust_env=False)
            httpx.post(url, json={"sepal_length": 5.9, "sepal_width": 3.0, "petal_length": 5.1}, trust_env=False)
            failed = httpx.post(url, json={"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0}, trust_env=False).json()["id"]
            for flower in flowers[:3]:
                httpx.post(url, json=flower, trust_env=False)
            views.workload(region, failed).click()
            expect(region.get_by_role("group", name="Error")).to_contain_text("KeyError")
            expect(region.get_by_role("region", name=f"Workload {failed}").get_by_role("table")).to_contain_text("Traceback")
            take(page, target / "lab-workload.png", renamed)
            region.get_by_role("button", name=re.compile("^Open the group of failures")).click()
            group = views.failures(region).filter(has_text="KeyError")
            expect(group.get_by_role("button", name=f"Open workload {failed}")).to_be_visible()
            take(page, target / "lab-failures.png", renamed)
            group.get_by_role("button", name="Replay the newest KeyError in its notebook").click()
            expect(views.replayed(page)).to_contain_text("the same failure as in production")
            page.wait_for_timeout(1000)
            take(page, target / "lab-replay.png", renamed)
        finally:
            browser.close()
            jupyter.stop()
            environment.down()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
