"""The buttons: a notebook is looked at, checked and published by its own kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..conftest import Environment, children, wait_until
from .conftest import Kernel, KernelMaker, Lab, LabMaker, Told, model

HANDLER = "class Handler:\n    def handle_async(self, payload):\n        return {'said': WORD, 'got': payload}"
#: What a notebook's author could look at: the namespace, the inputs and outputs, the counter, the history, the variables of the process.
TRACES = (
    "{'names': sorted(name for name in globals() if name not in get_ipython().user_ns_hidden),"
    " 'hidden': sorted(name for name in get_ipython().user_ns_hidden if not name.strip('_i').isdigit()),"
    " 'out': sorted(Out), 'last': repr(_), 'environ': sorted(__import__('os').environ.items()),"
    " 'history': list(get_ipython().history_manager.input_hist_raw), 'cwd': __import__('os').getcwd(), 'path': __import__('sys').path}"
)


def started(lab: Lab, kernel: KernelMaker, path: str, *cells: str) -> tuple[Kernel, dict[str, Any]]:
    """A kernel in which the notebook's cells have run, and the notebook."""
    notebook = lab.notebook(path, *cells)
    one = kernel(directory=str(Path(path).parent))
    one.run_all(*cells)
    return one, notebook


def seen_busy(lab: Lab, one: Kernel) -> None:
    """Wait until the server knows that a cell is running: what is asked before it does goes to the kernel, which queues it."""
    with lab.http() as client:
        wait_until(lambda: client.get(f"/api/kernels/{one.id}").json()["execution_state"] == "busy", "the server knows that the kernel is busy")


def while_asking(lab: Lab, verb: str, one: Kernel, path: str, notebook: dict[str, Any], **options: Any) -> tuple[threading.Thread, list[Told]]:
    told: list[Told] = []
    asking = threading.Thread(target=lambda: told.append(lab.ask(verb, one, path, notebook, **options)))
    asking.start()
    return asking, told


# What is told ---------------------------------------------------------------------------------------------------------------------------------


def test_what_ran_is_shown_checked_and_published(lab: Lab, kernel: KernelMaker, environment: Environment) -> None:
    one, notebook = started(lab, kernel, "lab-greeting.ipynb", "WORD = 'hello'", HANDLER)
    shown = lab.ask("show", one, "lab-greeting.ipynb", notebook).worked()
    assert (shown["name"], shown["executed"], shown["recorded"], shown["live"]) == ("lab-greeting", True, True, None)
    assert "WORD = 'hello'" in shown["source"]
    assert shown["cells"] == {"cell 1": "cell-0", "cell 2": "cell-1"}
    assert (shown["config"], shown["replicas"], shown["python"]) == ({}, 1, sys.executable)
    assert lab.ask("check", one, "lab-greeting.ipynb", notebook).worked()["ok"]
    told = lab.ask("deploy", one, "lab-greeting.ipynb", notebook)
    deployed = told.worked()["deployed"][0]
    assert (deployed["api"], deployed["outcome"], deployed["version"]) == ("lab-greeting", "created", 1)
    assert deployed["url"] in told.result["curl"]
    assert told.said[0] == "slicing"
    assert told.said[-1] == "lab-greeting is live"
    assert [step["done"] for step in told.steps if "done" in step] == sorted(step["done"] for step in told.steps if "done" in step)
    client = environment.client()
    assert client.result("lab-greeting", client.submit("lab-greeting", [1]), wait=30).result == {"said": "hello", "got": [1]}
    live = lab.ask("show", one, "lab-greeting.ipynb", notebook).worked()["live"]
    assert live == {"version": 1, "diff": [], "keeps_payloads": False}
    source = client.get_api("lab-greeting")["source"]
    assert source.endswith(f":{lab.root}/lab-greeting.ipynb"), "as `%cortex deploy` in a cell says it: the API belongs to one source, whichever way"


def test_samples_are_steps_with_their_names(lab: Lab, kernel: KernelMaker) -> None:
    one, notebook = started(lab, kernel, "sampled/sampled.ipynb", "WORD = 'hi'", HANDLER)
    one.run("%%cortex payload\n[1]")
    one.run("%cortex sample good")
    one.run("%%cortex payload\n[2]")
    one.run("%cortex sample bad")
    checked = lab.ask("check", one, "sampled/sampled.ipynb", notebook)
    assert checked.worked()["samples"] == ["bad", "good"]
    assert [(step["sample"], step["state"]) for step in checked.steps if "sample" in step] == [
        ("bad", "running"),
        ("bad", "passed"),
        ("good", "running"),
        ("good", "passed"),
    ]
    one.run("WORD = 'another'", "cell-0")
    refused = lab.ask("deploy", one, "sampled/sampled.ipynb", model("WORD = 'another'", HANDLER))
    assert (refused.problem["code"], refused.problem["sample"]) == ("gate_failed", "bad")
    assert "report" not in refused.problem
    assert [(step["sample"], step["state"]) for step in refused.steps if "sample" in step] == [("bad", "running")]


def test_a_config_and_a_number_of_replicas_given_by_hand_take_the_place_of_the_file_s(lab: Lab, kernel: KernelMaker) -> None:
    (lab.root / "byhand").mkdir()
    (lab.root / "byhand" / "cortex.yaml").write_text(
        "- name: by-hand\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: handler.py\n    config: {a: 1, b: 2}\n"
        "  autoscaling: {min_replicas: 1, max_replicas: 2, init_replicas: 1}\n"
    )
    one, notebook = started(lab, kernel, "byhand/n.ipynb", HANDLER.replace("WORD", "'x'"))
    shown = lab.ask("show", one, "byhand/n.ipynb", notebook).worked()
    assert (shown["config"], shown["replicas"], shown["has_config"]) == ({"a": 1, "b": 2}, 1, True)
    given = lab.ask("show", one, "byhand/n.ipynb", notebook, config={"b": 3}, replicas=3).worked()
    assert (given["config"], given["replicas"], given["has_config"]) == ({"b": 3}, 3, True)
    assert given["document"]["autoscaling"] == {"min_replicas": 3, "max_replicas": 3, "init_replicas": 3}
    assert lab.ask("show", one, "byhand/n.ipynb", notebook, config={}).worked()["config"] == {}
    assert lab.ask("show", one, "byhand/n.ipynb", notebook, name="other").problem["kind"] == "which_api"


def test_a_name_given_by_hand_is_the_api_s(lab: Lab, kernel: KernelMaker) -> None:
    one, notebook = started(lab, kernel, "Untitled 1.ipynb", HANDLER.replace("WORD", "'x'"))
    assert lab.ask("show", one, "Untitled 1.ipynb", notebook).worked()["name"] == "untitled-1"
    assert lab.ask("deploy", one, "Untitled 1.ipynb", notebook, name="named-by-hand").worked()["deployed"][0]["api"] == "named-by-hand"
    refused = lab.ask("deploy", one, "Untitled 1.ipynb", notebook, name="Not A Name")
    assert refused.problem["code"] == "invalid_spec"


# What ran against what stands there -------------------------------------------------------------------------------------------------------------


def test_an_edit_since_the_run_is_asked_about_though_it_was_never_saved(lab: Lab, kernel: KernelMaker) -> None:
    one, _ = started(lab, kernel, "edited.ipynb", "WORD = 'hello'", HANDLER)
    unsaved = model("WORD = 'goodbye'", HANDLER)
    rows = lab.ask("show", one, "edited.ipynb", unsaved).worked()["surprises"]
    assert [(row["kind"], row["place"], row["asks"]) for row in rows if row["asks"]] == [("edited", "cell 1", True)]
    refused = lab.ask("deploy", one, "edited.ipynb", unsaved)
    assert (refused.problem["code"], refused.problem["asks"]) == ("invalid_notebook", True)
    deployed = lab.ask("deploy", one, "edited.ipynb", unsaved, yes=True).worked()
    assert any("cell 1" in warning for warning in deployed["warnings"])
    assert lab.post("run/edited", json=1).status_code == 200
    assert "WORD = 'hello'" in lab.ask("show", one, "edited.ipynb", unsaved).worked()["source"]


def test_a_cell_that_was_deleted_after_it_ran_and_one_that_never_ran(lab: Lab, kernel: KernelMaker) -> None:
    one, _ = started(lab, kernel, "deleted.ipynb", "WORD = 'hello'", HANDLER)
    left = model("WORD = 'hello'", HANDLER, "LATER = 1")
    del left["cells"][0]
    shown = lab.ask("show", one, "deleted.ipynb", left).worked()
    assert "WORD = 'hello'" in shown["source"]
    assert any("not in the notebook" in row["message"] or "deleted" in row["message"] for row in shown["surprises"]), shown["surprises"]
    assert "LATER" not in shown["source"]


def test_a_handler_that_did_not_run_yet_says_so(lab: Lab, kernel: KernelMaker) -> None:
    notebook = lab.notebook("notyet.ipynb", "WORD = 'hello'", HANDLER)
    one = kernel()
    one.run("WORD = 'hello'", "cell-0")
    rows = lab.ask("show", one, "notyet.ipynb", notebook).worked()["surprises"]
    assert (rows[0]["kind"], rows[0]["place"], rows[0]["blocks"]) == ("no_handler", "cell 2", True)
    checked = lab.ask("check", one, "notyet.ipynb", notebook).worked()
    assert not checked["ok"]


def test_a_notebook_without_ids_is_matched_by_its_texts(lab: Lab, kernel: KernelMaker) -> None:
    """Format 4.4 as JupyterLab sends it: the model has no ids, the requests of its cells have."""
    one, notebook = started(lab, kernel, "old.ipynb", "WORD = 'hello'", HANDLER)
    notebook["nbformat_minor"] = 4
    for cell in notebook["cells"]:
        del cell["id"]
    shown = lab.ask("show", one, "old.ipynb", notebook).worked()
    assert not any(row["blocks"] or row["asks"] for row in shown["surprises"]), shown["surprises"]
    assert {row["cell"] for row in shown["reasons"]} == {"cell 1", "cell 2"}


def test_without_the_extension_the_notebook_is_taken_as_it_stands(lab: Lab, kernel: KernelMaker) -> None:
    notebook = lab.notebook("plain.ipynb", "WORD = 'as written'", HANDLER)
    one = kernel("plain")
    one.run("WORD = 'as run'", "cell-0")
    shown = lab.ask("show", one, "plain.ipynb", notebook).worked()
    assert (shown["recorded"], shown["executed"]) == (False, False)
    assert "as written" in shown["source"]
    assert lab.ask("deploy", one, "plain.ipynb", notebook).worked()["deployed"][0]["api"] == "plain"
    assert "cortex_internal" not in one.value("list(__import__('sys').modules)")


# What it leaves behind --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cortex", "plain"])
def test_it_leaves_no_trace_in_the_kernel(lab: Lab, kernel: KernelMaker, environment: Environment, name: str) -> None:
    cells = ("WORD = 'hello'", HANDLER, "40 + 2")
    notebook = lab.notebook(f"traces-{name}.ipynb", *cells)
    one = kernel(name)
    one.run_all(*cells)
    one.run("import sys, gc", "cell-9")
    before = one.value(TRACES)
    for verb in ("show", "check", "deploy"):
        assert not lab.ask(verb, one, f"traces-{name}.ipynb", notebook).problem
    after = one.value(TRACES)
    for key in ("names", "hidden", "out", "last", "environ", "cwd", "path"):
        assert after[key] == before[key], key
    assert len(after["history"]) == len(before["history"]) + 1, "this very look is the one that is new"
    if name == "cortex":
        runs = one.value("[[run.source, run.count] for run in get_ipython().cortex_session.recorder.runs]")
        assert [count for _, count in runs] == list(range(1, len(runs) + 1))
        assert all(source in after["history"] or "recorder.runs" in source for source, _ in runs)
    assert before["last"] == "42"
    # In two halves: this look is source, too.
    token = f"({environment.token[:10]!r} + {environment.token[10:]!r})"
    assert one.value(f"[name for name, lines in __import__('linecache').cache.items() if {token} in str(lines)]") == []
    texts = f"[value for value in list(one.values()) if isinstance(value, str) and {token} in value]"
    assert one.value(f"[sorted(map(str, one)) for one in gc.get_objects() if isinstance(one, dict) and {texts}]") == []
    # The request itself is what the kernel keeps until the next one: looked at from beside it, as the next one has not come yet.
    looking = f"seen.append({token} in str(get_ipython().kernel.get_parent('shell')))"
    one.run(f"seen, going = [], [1]\ndef look():\n    while going: {looking}; time.sleep(0.005)")
    one.run("import threading, time; threading.Thread(target=look).start()")
    lab.ask("show", one, f"traces-{name}.ipynb", notebook).worked()
    time.sleep(0.5)
    assert not any(one.value("(going.clear(), seen[-40:])")[1])


def test_many_requests_leave_nothing_open_in_the_server(lab: Lab, kernel: KernelMaker) -> None:
    one, notebook = started(lab, kernel, "open.ipynb", "WORD = 'hello'", HANDLER)
    server = psutil.Process(lab.process.pid)
    lab.ask("show", one, "open.ipynb", notebook).worked()
    before = server.num_fds(), server.num_threads()
    for _ in range(15):
        lab.ask("show", one, "open.ipynb", notebook).worked()
    wait_until(lambda: server.num_fds() <= before[0] + 3 and server.num_threads() <= before[1] + 1, f"sockets and threads are gone again ({before})")


# While something else happens --------------------------------------------------------------------------------------------------------------------


def test_while_a_cell_is_running_it_waits_and_says_so(lab: Lab, kernel: KernelMaker) -> None:
    one, notebook = started(lab, kernel, "busy.ipynb", "WORD = 'hello'", HANDLER)
    running = one.send("import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)", "cell-2")
    seen_busy(lab, one)
    asking, told = while_asking(lab, "show", one, "busy.ipynb", notebook)
    time.sleep(1.5)
    assert asking.is_alive()
    (lab.root / "go").touch()
    one.collect(running)
    asking.join(60)
    assert told[0].said == ["waiting: the kernel is running a cell", "slicing"]
    assert told[0].worked()["name"] == "busy"
    (lab.root / "go").unlink()


def test_who_gives_up_waiting_has_asked_for_nothing(lab: Lab, kernel: KernelMaker, environment: Environment) -> None:
    one, notebook = started(lab, kernel, "gaveup.ipynb", "WORD = 'hello'", HANDLER)
    running = one.send("import pathlib, time\nwhile not pathlib.Path('go-on').exists(): time.sleep(0.01)", "cell-2")
    seen_busy(lab, one)
    body = {"path": "gaveup.ipynb", "kernel_id": one.id, "model": notebook}
    with lab.http() as client, client.stream("POST", "/cortex/notebook/deploy", json=body) as answer:
        port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        assert json.loads(next(answer.iter_lines()))["step"].startswith("waiting")
    server = psutil.Process(lab.process.pid)
    wait_until(lambda: all(one.raddr.port != port for one in server.net_connections() if one.raddr), "the server has seen it go")
    (lab.root / "go-on").touch()
    one.collect(running)
    assert one.value("1") == 1
    assert lab.ask("show", one, "gaveup.ipynb", notebook).worked()["live"] is None
    assert "gaveup" not in {api["name"] for api in environment.client().list_apis()}


def test_a_request_behind_a_cell_that_fails_is_asked_again(lab: Lab, kernel: KernelMaker) -> None:
    """What waits in the queue when a cell fails is sent back by the kernel; here the request is in it already when the cell begins to run."""
    one, notebook = started(lab, kernel, "behind.ipynb", "WORD = 'hello'", HANDLER)
    for _ in range(8):
        sent = [one.send("import time; time.sleep(0.05)"), one.send("1 / 0"), one.send("WORD"), one.send("WORD")]
        assert lab.ask("show", one, "behind.ipynb", notebook).worked()["name"] == "behind"
        for request in sent[:2]:
            one.collect(request)


def test_an_interrupt_ends_it_and_the_kernel_goes_on(lab: Lab, kernel: KernelMaker, environment: Environment) -> None:
    slow = "class Handler:\n    def __init__(self, config):\n        import time\n        time.sleep(600)\n    def handle_async(self): return {}"
    one, notebook = started(lab, kernel, "slow.ipynb", slow)
    body = {"path": "slow.ipynb", "kernel_id": one.id, "model": notebook}
    said: list[dict[str, Any]] = []
    with lab.http() as client, client.stream("POST", "/cortex/notebook/deploy", json=body) as answer:
        for line in answer.iter_lines():
            said.append(json.loads(line))
            if "construct" in said[-1].get("step", ""):
                with lab.http() as other:
                    assert other.post(f"/api/kernels/{one.id}/interrupt").status_code == 204
    assert said[-1]["problem"]["code"] == "interrupted"
    assert one.value("1 + 1") == 2
    assert "slow" not in {api["name"] for api in environment.client().list_apis()}


@pytest.mark.parametrize("how", ["kill", "restart", "shutdown"])
def test_a_kernel_that_ends_in_the_middle_is_told(lab: Lab, kernel: KernelMaker, how: str) -> None:
    slow = "class Handler:\n    def __init__(self, config):\n        import time\n        time.sleep(600)\n    def handle_async(self): return {}"
    one, notebook = started(lab, kernel, f"ends-{how}.ipynb", slow)
    pid = one.value("__import__('os').getpid()")
    asking, told = while_asking(lab, "deploy", one, f"ends-{how}.ipynb", notebook)
    wait_until(lambda: "construct" in _children(pid), "the check runs")
    with lab.http() as client:
        if how == "kill":
            os.kill(pid, signal.SIGKILL)
        elif how == "restart":
            client.post(f"/api/kernels/{one.id}/restart")
        else:
            client.delete(f"/api/kernels/{one.id}")
    asking.join(60)
    # Jupyter interrupts a kernel before it restarts it or shuts it down: one that is quick enough says that itself.
    ends = {"kernel_ended"} if how == "kill" else {"kernel_ended", "interrupted"}
    assert told[0].problem["code"] in ends, told[0].lines


def _children(pid: int) -> str:
    """ "construct" once the kernel has a child: the clean process of the checks."""
    return "construct" if children(pid, "gate_process") else ""


def test_two_deploys_at_once_come_one_after_the_other(lab: Lab, kernel: KernelMaker) -> None:
    one, notebook = started(lab, kernel, "twice.ipynb", "WORD = 'hello'", HANDLER)
    asked = [while_asking(lab, "deploy", one, "twice.ipynb", notebook) for _ in range(2)]
    for asking, _ in asked:
        asking.join(90)
    outcomes = sorted(told[0].worked()["deployed"][0]["outcome"] for _, told in asked)
    assert outcomes == ["created", "up_to_date"]


def test_a_page_that_is_closed_in_the_middle_of_a_deploy_ends_nothing(lab: Lab, kernel: KernelMaker, environment: Environment) -> None:
    one, notebook = started(lab, kernel, "closed.ipynb", "WORD = 'hello'", HANDLER)
    body = {"path": "closed.ipynb", "kernel_id": one.id, "model": notebook}
    with lab.http() as client, client.stream("POST", "/cortex/notebook/deploy", json=body) as answer:
        for line in answer.iter_lines():
            if "checking" in line:
                break
    client = environment.client()
    wait_until(lambda: any(api["name"] == "closed" and api["live"] for api in client.list_apis()), "it went live all the same")
    assert one.value("1") == 1
    assert "[E " not in lab.log.read_text(), "the server takes it as it is"


def test_a_long_step_is_told_again_before_a_proxy_takes_it_for_dead(environment: Environment, own_lab: LabMaker, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text("import jupyter_cortex.extension.notebook as notebook\nnotebook.QUIET_S = 0.3\n")
    own = own_lab(environment.home, f"--config={config}")
    cells = ("class Handler:\n    def __init__(self, config):\n        import time\n        time.sleep(2)\n    def handle_async(self): return {}",)
    notebook = own.notebook("long.ipynb", *cells)
    one = own.kernel()
    one.run_all(*cells)
    told = own.ask("check", one, "long.ipynb", notebook)
    assert told.worked()["ok"]
    assert told.said.count("checking: import the module and construct Handler") > 3


# Kernels that cannot ------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with ipykernel and without jupyter-cortex: this one's packages, less ours, by links."""
    home = tmp_path_factory.mktemp("bare", numbered=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    theirs = next(home.glob("lib/python*/site-packages"))
    for path in map(Path, sys.path):
        if path.name == "site-packages":
            for entry in path.iterdir():
                if (
                    not entry.name.lower().replace("-", "_").startswith(("jupyter_cortex", "_jupyter_cortex", "_editable", "__editable"))
                    and entry.suffix != ".pth"
                ):
                    target = theirs / entry.name
                    if not target.exists():
                        target.symlink_to(entry)
    return str(home / "bin" / "python")


def test_a_kernel_whose_python_lacks_jupyter_cortex_says_how_to_get_it(bare: str, environment: Environment, own_lab: LabMaker) -> None:
    own = own_lab(environment.home, interpreters={"bare": bare}, PYTHONPATH="")
    notebook = own.notebook("n.ipynb", HANDLER)
    one = own.kernel("bare")
    before = one.value(TRACES)
    told = own.ask("deploy", one, "n.ipynb", notebook)
    assert (told.problem["code"], told.problem["python"]) == ("kernel_lacks_cortex", bare)
    assert "%pip install jupyter-cortex" in told.problem["detail"]
    after = one.value(TRACES)
    assert {**after, "history": 0} == {**before, "history": 0}
    assert one.value("hasattr(__import__('sys'), 'last_value')") is False


def test_kernels_that_are_none_of_ours_are_refused_at_once(lab: Lab, kernel: KernelMaker) -> None:
    notebook = lab.notebook("refused.ipynb", HANDLER)
    none = lab.ask("show", None, "refused.ipynb", notebook)
    assert (none.status, none.problem["code"]) == (409, "no_kernel")
    other = lab.ask("show", kernel("other"), "refused.ipynb", notebook)
    assert (other.status, other.problem["code"], other.problem["kind"]) == (409, "kernel_problem", "not_python")
    assert "runs R" in other.problem["detail"]


def test_a_notebook_that_cannot_be_read_is_refused_in_one_sentence(lab: Lab, kernel: KernelMaker) -> None:
    lab.notebook("odd.ipynb", HANDLER)
    one = kernel()
    old = lab.ask("show", one, "odd.ipynb", {"worksheets": [], "nbformat": 3})
    assert (old.problem["code"], "too old" in old.problem["detail"]) == ("invalid_project", True)
    foreign = lab.ask("show", one, "odd.ipynb", model(HANDLER, language_info={"name": "julia"}))
    assert "julia" in foreign.problem["detail"]
    odd = [
        {"cells": [1, None, {"cell_type": "code"}, {"cell_type": "code", "source": 5, "metadata": 7}]},
        {"cells": []},
        {"cells": [[]], "metadata": []},
    ]
    for document in odd:
        told = lab.ask("show", one, "odd.ipynb", document)
        assert told.status == 200
        assert told.result or told.problem["status"] < 500, told.lines


def test_a_notebook_of_two_megabytes(lab: Lab, kernel: KernelMaker) -> None:
    data = "\n".join(f"    '{at:07}': '{'x' * 100}'," for at in range(18_000))
    cells = (f"TABLE = {{\n{data}\n}}", "class Handler:\n    def handle_async(self, payload):\n        return {'found': TABLE[payload]}")
    assert len(cells[0]) > 2_000_000
    one, notebook = started(lab, kernel, "large.ipynb", *cells)
    shown = lab.ask("show", one, "large.ipynb", notebook).worked()
    assert len(shown["source"]) > 2_000_000
    assert lab.ask("deploy", one, "large.ipynb", notebook).worked()["deployed"][0]["outcome"] == "created"


def test_what_json_has_no_form_for_is_shown_as_text(lab: Lab, kernel: KernelMaker) -> None:
    (lab.root / "nan").mkdir()
    (lab.root / "nan" / "cortex.yaml").write_text("- name: nan\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py, config: {x: .nan}}\n")
    one, notebook = started(lab, kernel, "nan/n.ipynb", HANDLER.replace("WORD", "'\\ud800'"))
    told = lab.ask("show", one, "nan/n.ipynb", notebook)
    assert told.worked()["config"] == {"x": "nan"}
    assert "NaN" not in told.lines[-1]
    assert lab.ask("deploy", one, "nan/n.ipynb", notebook).problem["code"] == "invalid_spec"
