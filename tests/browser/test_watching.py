"""An API at work, watched from its page: requests appear and end, a failure leads to its line, logs follow."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from ..conftest import wait_until
from ..server.reports import write_report
from . import views
from .conftest import GreeterMaker, TabMaker
from .greeter import FAILS, HANDLER


def test_a_request_appears_and_completes_without_a_reload(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("appears")
    page = tab().lab()
    region = views.api_page(page, api.name, "Workloads")
    expect(region.get_by_text("No requests yet")).to_be_visible()
    identity = api.post(name="Ada", seconds=1.5)
    row = views.workload(region, identity)
    expect(row).to_contain_text("in progress")
    expect(row).to_contain_text("completed")
    expect(views.panel(page).get_by_role("listitem").filter(has_text=api.name)).to_contain_text("1 replica · 0 in queue · 0 in progress")


@pytest.mark.parametrize("opened", ["lab", "lab with the notebook", "notebook7"])
def test_a_failed_request_leads_to_the_line_that_raised(tab: TabMaker, greeter: GreeterMaker, opened: str) -> None:
    api = greeter("raises")
    one = tab()
    app, _, notebook = opened.partition(" ")
    page = one.notebook7(api.notebook) if app == "notebook7" else one.lab(api.notebook if notebook else "")
    one.run("cortex:open-api", f"{{ name: '{api.name}' }}")
    region = views.api_page(page, api.name, "Workloads")
    identity = api.post(nobody=1)
    row = views.workload(region, identity)
    expect(row).to_contain_text("failed")
    row.click()
    inspector = region.get_by_role("region", name=f"Workload {identity}")
    error = inspector.get_by_role("group", name="Error")
    expect(error).to_contain_text("KeyError")
    expect(inspector.get_by_role("group", name="Payload")).to_contain_text('"nobody"')
    error.get_by_role("button", name=FAILS).last.click()
    where = page.wait_for_function(
        """() => {
            const panels = [...window.jupyterapp.shell.widgets('main')].filter(one => one.isVisible && one.context?.path.endsWith('.ipynb'));
            const cell = panels[0]?.content.activeCell;
            return cell?.editor?.hasFocus() && [cell.model.id, cell.editor.getCursorPosition().line + 1].join(':');
        }"""
    )
    assert where.json_value() == "cell-1:8"
    assert len(page.context.pages) == 1


def test_a_failure_of_a_notebook_handler_leads_to_its_cell(tab: TabMaker) -> None:
    one = tab()
    jupyter = one.jupyter
    config = write_report(jupyter.root / "reports", "report-fails", "# parameters\nn = 1", "x = 2\nn / 0")
    notebook = config.with_name("report.ipynb")
    notebook.write_text(notebook.read_text().replace('"name": "any"', '"name": "cortex"'))  # which JupyterLab starts without asking
    client = jupyter.environment.client()
    client.deploy(config)
    identity = client.submit("report-fails", {"n": 1})
    page = one.lab()
    region = views.api_page(page, "report-fails", "Workloads")
    expect(region.get_by_role("button", name="Open reports/report.ipynb")).to_be_visible()
    row = views.workload(region, identity)
    expect(row).to_contain_text("failed", timeout=60_000)
    row.click()
    inspector = region.get_by_role("region", name=f"Workload {identity}")
    inspector.get_by_role("group", name="Error").get_by_role("button", name="cell 2, line 2").last.click()
    where = page.wait_for_function(
        """() => {
            const panels = [...window.jupyterapp.shell.widgets('main')].filter(one => one.isVisible && one.context?.path.endsWith('report.ipynb'));
            const cell = panels[0]?.content.activeCell;
            return cell?.editor?.hasFocus() && [cell.model.id, cell.editor.getCursorPosition().line + 1].join(':');
        }"""
    )
    assert where.json_value() == "co-1:2"
    views.api_page(page, "report-fails")
    inspector.get_by_role("button", name="Replay in notebook").click()
    expect(page.get_by_text("runs report.ipynb as a whole for each request").first).to_be_visible()
    client.delete("report-fails")


def test_the_table_is_filtered_and_walked_with_the_keyboard(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("filtered")
    good, bad = [api.post(name=f"n{at}") for at in range(3)], api.post(nobody=1)
    for identity in [*good, bad]:
        api.ended(identity)
    page = tab().lab()
    region = views.api_page(page, api.name, "Workloads")
    rows = region.get_by_role("grid").get_by_role("row").filter(has=page.get_by_role("gridcell"))
    expect(rows).to_have_count(4)
    region.get_by_role("combobox", name="Status").select_option("failed")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(bad)
    region.get_by_role("combobox", name="Status").select_option("")
    region.get_by_role("searchbox", name="Text or id").fill(good[1][:13])
    expect(rows).to_have_count(1)
    region.get_by_role("searchbox", name="Text or id").fill("nothing like it")
    expect(region.get_by_text("Nothing matches")).to_be_visible()
    region.get_by_role("searchbox", name="Text or id").fill("")
    expect(rows).to_have_count(4)
    region.get_by_role("grid").focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    inspector = region.get_by_role("region", name=f"Workload {good[0]}")
    expect(inspector.get_by_role("group", name="Result")).to_contain_text("hello, n0")
    page.keyboard.press("Escape")
    expect(inspector).to_have_count(0)


def test_a_waiting_request_is_cancelled(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("cancelled")
    page = tab().lab()
    region = views.api_page(page, api.name, "Workloads")
    running, waiting = api.post(name="first", seconds=60), api.post(name="second")
    row = views.workload(region, waiting)
    expect(row).to_contain_text("in queue")
    row.click()
    region.get_by_role("region", name=f"Workload {waiting}").get_by_role("button", name="Cancel this workload").click()
    expect(row).to_contain_text("cancelled")
    expect(views.workload(region, running)).to_contain_text("in progress")


def test_logs_follow_and_lead_to_their_request(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("logs")
    page = tab().lab()
    region = views.api_page(page, api.name, "Logs")
    identity = api.post(name="Grace")
    lines = region.get_by_role("log", name="Log lines")
    expect(lines).to_contain_text("greeting Grace")
    lines.get_by_role("button", name=f"Open workload {identity}").first.click()
    expect(region.get_by_role("region", name=f"Workload {identity}")).to_be_visible()
    expect(region.get_by_role("tab", name="Workloads")).to_have_attribute("aria-selected", "true")


def test_who_reads_older_lines_by_keyboard_is_left_there_until_he_goes_to_the_end(tab: TabMaker, greeter: GreeterMaker) -> None:
    talks = "        for at in range(payload.get('lines', 1)):\n            print('line', at)\n"
    api = greeter("reading").write(HANDLER.replace("        time.sleep", f"{talks}        time.sleep"))
    api.deploy("--no-check")
    api.ended(api.post(name="Ada", lines=300))
    page = tab().lab()
    region = views.api_page(page, api.name, "Logs")
    lines = region.get_by_role("log", name="Log lines")
    follow = region.get_by_role("checkbox", name="Follow")
    expect(lines.get_by_text(re.compile(r"line 299\D"))).to_be_in_viewport()
    lines.focus()
    page.keyboard.press("Home")
    expect(lines.get_by_text(re.compile(r"line 0\D"))).to_be_in_viewport()
    expect(follow).not_to_be_checked()
    api.ended(api.post(name="Grace"))
    expect(region.get_by_role("status")).to_have_text(re.compile(r"^30[2-9] lines$"))
    expect(lines.get_by_text(re.compile(r"line 0\D")).first).to_be_in_viewport()
    page.keyboard.press("End")
    expect(follow).to_be_checked()
    api.ended(api.post(name="Katherine"))
    expect(lines.get_by_text("greeting Katherine")).to_be_in_viewport()
    expect(follow).to_be_checked()


def test_the_log_of_a_request_goes_on_while_it_runs(tab: TabMaker, greeter: GreeterMaker) -> None:
    twice = "        print('slept')\n        time.sleep(payload.get('seconds', 0))\n"
    api = greeter("speaking").write(HANDLER.replace("        return", f"{twice}        return"))
    api.deploy("--no-check")
    identity = api.post(name="Ada", seconds=8)
    page = tab().lab()
    region = views.api_page(page, api.name, "Workloads")
    views.workload(region, identity).click()
    inspector = region.get_by_role("region", name=f"Workload {identity}")
    expect(inspector.get_by_role("table")).to_contain_text("slept", timeout=30_000)
    expect(inspector.get_by_role("heading").first).to_contain_text("in progress")
    api.ended(identity)


def test_a_long_log_of_a_request_opens_at_its_end_and_is_searched_whole(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("verbose").write(
        HANDLER.replace("        time.sleep", "        for at in range(1000):\n            print('line', at)\n        time.sleep")
    )
    api.deploy("--no-check")
    identity = api.post(lines=True)
    api.ended(identity)
    page = tab().lab()
    region = views.api_page(page, api.name, "Workloads")
    views.workload(region, identity).click()
    group = region.get_by_role("group", name="Log", exact=True)
    log = group.get_by_role("table", name="This workload's log")
    log.scroll_into_view_if_needed()
    expect(log.get_by_text("failed to process workload")).to_be_in_viewport()
    log.focus()
    page.keyboard.press("Home")
    expect(log.get_by_role("row").filter(has_text=re.compile(r"line 0\D"))).to_be_in_viewport()
    expect(log.get_by_role("row").filter(has_text="line 999")).to_have_count(0)
    group.get_by_role("searchbox").fill("LINE 77")
    expect(group.get_by_role("status")).to_have_text("11 found")
    expect(log.get_by_role("row")).to_have_count(12)  # and a head
    expect(log).to_contain_text("line 779")


def test_a_request_is_sent_from_the_page(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("sent")
    page = tab().lab()
    region = views.api_page(page, api.name, "Test")
    form = region.get_by_role("form", name="Request")
    form.get_by_label("Body").fill('{"name": "Barbara"}')
    form.get_by_role("button", name="Send", exact=True).click()
    answer = region.get_by_role("article")
    expect(answer).to_contain_text("completed")
    expect(answer).to_contain_text("hello, Barbara")
    form.get_by_label("Body").fill('{"name": ')
    form.get_by_role("button", name="Send", exact=True).click()
    expect(region.get_by_role("alert")).to_contain_text(re.compile("JSON", re.IGNORECASE))


def test_versions_show_what_changed_and_open_their_report(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("versions")
    api.write(HANDLER.replace("hello", "good day")).deploy()
    page = tab().lab()
    region = views.api_page(page, api.name, "Versions")
    expect(region.get_by_role("button", name="Show version 2")).to_have_attribute("aria-pressed", "true")
    region.get_by_role("tab", name="Changes since version 1").click()
    expect(region.get_by_label("Difference")).to_contain_text('+        self.greeting = config.get("greeting", "good day")')
    region.get_by_role("button", name="Open the check report of version 2").click()
    expect(page.get_by_role("tab", name="versions-v2-checks.ipynb")).to_be_visible()


def test_an_earlier_version_is_live_again_in_one_step(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("back")
    api.write(HANDLER.replace("hello", "good day")).deploy("--no-check")
    page = tab().lab()
    region = views.api_page(page, api.name, "Versions")
    region.get_by_role("button", name="Make version 1 live again").click()
    page.get_by_role("dialog").get_by_role("button", name="Make live again").click()
    expect(region.get_by_role("row").filter(has_text="a rollback to 1")).to_contain_text("live")
    assert api.ended(api.post(name="Ada"))["result"] == {"text": "hello, Ada"}
    (entry,) = (one for one in api.jupyter.environment.client().audit(api.name) if one["what"] == "rollback")
    assert (entry["to"], entry["source"], "@" in entry["who"]) == (1, api.notebook, True)


def test_stop_start_and_delete(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("deleted")
    page = tab().lab()
    region = views.api_page(page, api.name)
    region.get_by_role("button", name=f"Stop {api.name}").click()
    listed = views.panel(page).get_by_role("listitem").filter(has_text=api.name)
    expect(listed).to_contain_text("stopped")
    region.get_by_role("button", name=f"Start {api.name}").click()
    expect(listed).to_contain_text("live")
    region.get_by_role("button", name=f"Delete {api.name}").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(listed).to_have_count(0)
    expect(region).to_have_count(0)


def test_a_reload_brings_back_the_page_its_tab_and_the_open_request(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("reloaded")
    one = tab()
    page = one.lab(workspace="reloaded")
    region = views.api_page(page, api.name, "Workloads")
    identity = api.post(name="Ada")
    row = views.workload(region, identity)
    expect(row).to_contain_text("completed")
    row.click()
    inspector = region.get_by_role("region", name=f"Workload {identity}")
    expect(inspector).to_be_visible()
    with one.jupyter.http() as http:  # Lab writes down what is open once nothing has changed for a moment
        wait_until(lambda: identity in http.get("/lab/api/workspaces/reloaded").text, "the server knows what is open")
    page.goto(f"{one.jupyter.url}/lab/workspaces/reloaded")
    region = page.get_by_role("region", name=f"API {api.name}", exact=True)
    expect(region.get_by_role("tab", name="Workloads", exact=True)).to_have_attribute("aria-selected", "true")
    expect(region.get_by_role("region", name=f"Workload {identity}").get_by_role("group", name="Result")).to_contain_text("Ada")


def test_what_a_payload_says_is_shown_and_never_run(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("inert")
    page = tab().lab()
    region = views.api_page(page, api.name, "Workloads")
    for sent, shown in (
        ("<img src=x onerror=window.hit=1>", "<img src=x onerror=window.hit=1>"),
        ("[a](javascript:window.hit=1)", "[a](javascript:window.hit=1)"),
        ("\x1b[31mred\x1b[0m", "red"),
    ):
        identity = api.post(name=sent)
        expect(views.workload(region, identity)).to_contain_text("completed")
        views.workload(region, identity).click()
        inspector = region.get_by_role("region", name=f"Workload {identity}")
        expect(inspector.get_by_role("group", name="Result")).to_contain_text(shown)
        expect(inspector.get_by_role("table")).to_contain_text(f"greeting {shown}")
    assert page.evaluate("() => window.hit") is None
