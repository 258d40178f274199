"""Progress in the notebook: of a Handler in this kernel, and of a workload that is followed; and cancelling it from there."""

from __future__ import annotations

from typing import Any

from jupyter_cortex import cancelled, progress
from jupyter_cortex.client import Client
from jupyter_cortex.handler import execution, log_context
from jupyter_cortex.handler.instance import Instance
from jupyter_cortex.handler.live import Progress, Stage
from jupyter_cortex.widgets import follow

from ..conftest import Environment, ProjectMaker, wait_until
from .conftest import KernelMaker, Shell
from .test_widgets import FrontEnd, open_workbench, shown

HANDLER = """
import os, time
from jupyter_cortex import progress
from cortex_internal.lib.log import logger

class Handler:
    def handle_async(self, payload):
        for step in range(4):
            progress(step / 4, f"step {step}", partial={"done": step})
            logger.info(f"line {step}")
            time.sleep(0.15)
        while isinstance(payload, dict) and payload.get("hold"):
            time.sleep(0.05)
        return {"steps": 4}
"""

HOLDS = """
import time

class Handler:
    def handle_async(self, payload):
        while True:
            time.sleep(0.05)
"""


def bars(front: FrontEnd) -> list[float]:
    return [value for state in front.states.values() if state.get("_model_name") == "FloatProgressModel" for value in state.get("value_seen", [])]


def test_the_workbench_draws_the_progress_of_the_handler_that_it_runs(kernel: KernelMaker) -> None:
    front = FrontEnd(kernel())
    front.run(HANDLER)
    bench = open_workbench(front)
    front.change(bench["body"], value="{}")
    front.click(bench["run"])
    seen = "".join(value for state in front.states.values() for value in state.get("value_seen", []) if isinstance(value, str))
    assert '<progress value="0.2500" max="1"></progress> 25% <span class=dim>step 1</span>' in seen
    assert "the result so far" in seen
    assert "<progress" not in shown(front)
    assert "the result so far" not in shown(front)


def test_a_payload_cell_draws_it_too_and_leaves_the_result(kernel: KernelMaker) -> None:
    one = kernel()
    one.run(HANDLER)
    ran = one.run("%%cortex payload\n{}")
    assert '"steps": 4' in ran.text
    assert "<progress" not in ran.html


def test_a_followed_workload_has_a_bar_and_its_log_lines(kernel: KernelMaker) -> None:
    front = FrontEnd(kernel())
    front.run(HANDLER)
    front.run("%cortex deploy bars --no-check")
    front.states.clear()  # the deploy has a bar of its own
    front.run("%cortex submit bars {}")
    assert bars(front) == sorted(bars(front))
    assert {0.25, 0.5, 0.75} <= set(bars(front))
    logged = "".join(value for state in front.states.values() for value in state.get("value_seen", []) if isinstance(value, str))
    assert "line 0" in logged
    assert "the result so far" in logged


def test_an_interrupt_stops_following_and_a_button_cancels(kernel: KernelMaker, environment: Environment) -> None:
    one = kernel()
    front = FrontEnd(one)
    front.run(HANDLER)
    front.run("%cortex deploy holds --no-check")
    front.states.clear()  # the deploy has a bar of its own
    client = environment.client()
    message = one.client.execute("%cortex submit holds '{\"hold\": 1}' --id held --wait 600")

    def runs() -> bool:
        return any(row["id"] == "held" and row["status"] == "in_progress" for row in client.workloads("holds"))

    wait_until(runs, "it runs")
    front.read_until(lambda: bars(front) != [])  # and the cell follows it
    one.manager.interrupt_kernel()
    front._until_idle(message)
    assert client.result("holds", "held").status == "in_progress", "an interrupt is no cancel"
    front.click(front.find("ButtonModel", description="Cancel"))
    assert client.result("holds", "held", wait=60).status == "cancelled"


def test_an_interrupt_of_a_submit_says_what_goes_on(shell: Shell, environment: Environment, project: ProjectMaker, monkeypatch: Any) -> None:
    project("begun").deploy(environment)
    send = Client.submit

    def interrupted(*arguments: Any, **options: Any) -> str:
        send(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "submit", interrupted)
    failed = shell.run("%cortex submit begun {} --id sent", check=False).error_in_exec
    assert isinstance(failed, KeyboardInterrupt)
    assert "a request that was sent already goes on by itself; `%cortex requests API` lists it" in str(failed)
    assert environment.client().result("begun", "sent", wait=60).status == "completed"


def test_an_interrupt_before_anything_is_drawn_still_leaves_the_button(
    shell: Shell, environment: Environment, project: ProjectMaker, monkeypatch: Any
) -> None:
    project("early", HOLDS).deploy(environment)
    client, view, made = environment.client(), follow._View, []
    request_id = client.submit("early", {})

    def late(*about: Any) -> Any:
        made.append(about)
        if len(made) == 1:
            raise KeyboardInterrupt
        return view(*about)

    monkeypatch.setattr(follow, "_View", late)
    data = follow.follow(client, "early", request_id, 60, live=True)
    assert data["status"] in ("in_queue", "in_progress")
    assert len(made) == 2
    client.cancel("early", request_id)


class Echo:
    def handle_async(self, payload: Any) -> dict[str, Any]:
        progress(payload["fraction"], payload.get("text", ""), partial=payload.get("partial"))
        return {"cancelled": cancelled()}


def tell(payload: dict[str, Any]) -> tuple[Any, list[Progress]]:
    import json

    told: list[Progress] = []
    with Instance(Echo) as instance:
        outcome = execution.execute(
            instance, json.dumps(payload).encode(), "application/json", "id", "/", stage=Stage(lambda _, said: told.append(said))
        )
    return outcome, told


def test_what_is_told_is_within_its_limits() -> None:
    outcome, (said,) = tell({"fraction": 1.5, "text": "x" * 1000, "partial": {"a": 1}})
    assert (outcome.status, said.fraction, len(said.text), said.partial) == ("completed", 1.0, 500, b'{"a":1}')
    outcome, told = tell({"fraction": "half"})
    assert (outcome.status, told) == ("failed", [])
    assert "ValueError" in outcome.error
    outcome, told = tell({"fraction": 0.5, "partial": {"a": "x" * (2 << 20)}})
    assert (outcome.status, told) == ("failed", [])
    assert "at most 1048576 are told" in outcome.error


def test_outside_of_a_request_nothing_happens() -> None:
    progress(0.5, "nobody hears")
    assert cancelled() is False
    assert log_context.current() is None


def test_threads_with_a_copied_context_belong_to_their_request() -> None:
    import contextvars
    import threading

    class Threads:
        def handle_async(self, payload: Any) -> dict[str, Any]:
            thread = threading.Thread(target=contextvars.copy_context().run, args=(progress, 0.3, "from a thread"))
            thread.start()
            thread.join()
            return {}

    told: list[Progress] = []
    with Instance(Threads) as instance:
        execution.execute(instance, b"{}", "application/json", "id", "/", stage=Stage(lambda _, said: told.append(said)))
    assert [said.text for said in told] == ["from a thread"]
