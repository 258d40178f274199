"""What the page shows of the environment and the server, and how it comes back by itself."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from ..conftest import Environment
from . import views
from .conftest import GreeterMaker, TabMaker
from .jupyter import Jupyter


def test_an_environment_that_is_down_is_started_from_the_sidebar(
    tab: TabMaker, own_environment: Callable[..., Environment], own_jupyter: Callable[..., Jupyter]
) -> None:
    environment = own_environment()
    environment.down()
    page = tab(own_jupyter(environment)).lab()
    panel = views.panel(page)
    expect(panel.get_by_text("The local environment is not running")).to_be_visible()
    panel.get_by_role("button", name="Start the local environment").click()
    expect(panel.get_by_text("No APIs yet")).to_be_visible()
    assert environment.client().status()


def test_an_environment_that_goes_and_comes_back_is_told_without_a_reload(
    tab: TabMaker, own_jupyter: Callable[..., Jupyter], greeter: GreeterMaker
) -> None:
    jupyter = own_jupyter()
    api = greeter("restarted", jupyter)
    page = tab(jupyter).lab()
    region = views.api_page(page, api.name, "Workloads")
    jupyter.environment.down()
    expect(region.get_by_text("The local environment is not running")).to_be_visible()
    jupyter.environment.up()
    identity = api.post(name="again")
    expect(views.workload(region, identity)).to_contain_text("completed")
    expect(region.get_by_text("The local environment is not running")).to_have_count(0)


def test_two_tabs_agree(tab: TabMaker, greeter: GreeterMaker) -> None:
    api = greeter("agreed")
    pages = [tab().lab(workspace=name) for name in ("one", "two")]
    regions = [views.api_page(page, api.name, "Workloads") for page in pages]
    identity = api.post(name="both")
    for region in regions:
        expect(views.workload(region, identity)).to_contain_text("completed")
    regions[0].get_by_role("button", name=f"Stop {api.name}").click()
    expect(regions[1].get_by_role("button", name=f"Start {api.name}")).to_be_visible()
    regions[1].get_by_role("button", name=f"Start {api.name}").click()
    expect(regions[0].get_by_role("button", name=f"Stop {api.name}")).to_be_visible()


def test_a_lost_server_is_found_again_and_the_page_catches_up(tab: TabMaker, own_jupyter: Callable[..., Jupyter], greeter: GreeterMaker) -> None:
    jupyter = own_jupyter()
    api = greeter("lost", jupyter)
    before = api.post(name="before")
    one = tab(jupyter)
    one.expected = ("Failed to fetch",)  # Lab saves its layout meanwhile
    page = one.lab()
    region = views.api_page(page, api.name, "Workloads")
    expect(views.workload(region, before)).to_contain_text("completed")
    page.evaluate("() => { window.kept = true; }")
    jupyter.stop()
    expect(region.get_by_text("Reconnecting")).to_be_visible()
    missed = [api.post(name=f"missed {at}") for at in range(5)]
    for identity in missed:
        api.ended(identity)
    jupyter.start()
    # Lab's own dialog about its server lies over the page; what is behind it is kept true all the same.
    for identity in [before, *missed]:
        expect(views.workload(region, identity)).to_contain_text("completed")
    expect(region.get_by_text("Reconnecting")).to_have_count(0)
    after = api.post(name="after")
    expect(views.workload(region, after)).to_contain_text("completed")
    assert page.evaluate("() => window.kept")
