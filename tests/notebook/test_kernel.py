"""The kernel `cortex`, over jupyter_client as a front end speaks to it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ..conftest import Environment, wait_until
from .conftest import KernelMaker, write_notebook

HANDLER = "class Handler:\n    def handle_async(self, payload):\n        return {'got': payload}"


def test_the_kernel_comes_with_the_magics_and_with_the_project_s_variables(kernel: KernelMaker, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GREETING=hello there\n")
    one = kernel()
    assert one.value("__import__('os').environ['GREETING']") == "hello there"
    one.run(HANDLER)
    ran = one.run("%%cortex payload -t application/json\n[1]")
    assert "completed" in ran.text
    assert "What arrives" in ran.html


def test_loading_it_imports_nothing_heavy(kernel: KernelMaker) -> None:
    heavy = ["pydantic", "yaml", "httpx", "redis", "papermill", "nbformat", "ipywidgets", "click", "rich", "dramatiq", "fastapi"]
    assert kernel().value(f"[name for name in {heavy!r} if name in __import__('sys').modules]") == []


def test_verbs_options_and_deployed_names_complete(kernel: KernelMaker, environment: Environment, tmp_path: Path) -> None:
    one = kernel()

    def completed(code: str) -> list[str]:
        asked = one.client.complete(code, len(code))
        while True:  # the answers to earlier cells wait in the same channel
            answer = one.client.get_shell_msg(timeout=60)
            if answer["parent_header"]["msg_id"] == asked:
                return list(answer["content"]["matches"])

    one.run(HANDLER)
    one.run("%cortex deploy completed-name --no-check")
    assert "deploy" in completed("%cortex dep")
    assert "--take-over" in completed("%cortex deploy --ta")
    assert "completed-name" in completed("%cortex logs completed-")


def test_chaining_names_resolve_in_the_kernel(kernel: KernelMaker) -> None:
    one = kernel()
    one.run(HANDLER)
    one.run("%cortex deploy chained --no-check")
    ran = one.run(
        "from urllib.request import ProxyHandler, Request, build_opener\n"
        "said = build_opener(ProxyHandler({})).open(Request('http://api-chained:8888/', b'hi', {'Content-Type': 'text/plain'}))\n"
        "print(said.status)"
    )
    assert ran.stdout.strip() == "200"


def test_an_interrupt_ends_a_long_verb_and_the_kernel_goes_on(kernel: KernelMaker) -> None:
    one = kernel()
    one.run("class Handler:\n    def __init__(self, config):\n        import time\n        time.sleep(600)\n    def handle_async(self): return {}")
    message = one.client.execute("%cortex deploy sleeper")

    def checking() -> bool:
        shown = one.client.get_iopub_msg(timeout=60)
        return "construct" in json.dumps(shown["content"], default=str)

    wait_until(checking, "the check constructs the Handler")
    one.manager.interrupt_kernel()
    ran = one.collect(message)
    assert ran.error_name == "KeyboardInterrupt"
    assert "interrupted" in ran.traceback
    assert one.value("1 + 1") == 2
    assert "sleeper" not in one.run("%cortex get").text


def test_two_kernels_two_notebooks_two_projects_at_once(kernel: KernelMaker, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / ".env").write_text(f"WHO={name}\n")
        (directory / "cortex.yaml").write_text(f"- name: project-{name}\n  kind: AsyncAPI\n  handler: {{type: python, path: handler.py}}\n")
        made.append(kernel(directory, write_notebook(directory / f"{name}.ipynb", HANDLER)))
    for one in made:
        one.run("import os\nclass Handler:\n    def handle_async(self, payload):\n        return {'who': os.environ['WHO'], 'got': payload}")
        one.run("%cortex deploy")
    for one, name in zip(made, ("one", "two"), strict=True):
        assert f'"who": "{name}"' in one.run(f"%cortex submit project-{name} hello").text


def test_a_workload_is_followed_to_its_end_with_its_log_lines(kernel: KernelMaker) -> None:
    one = kernel()
    one.run(
        "import time\nclass Handler:\n    def handle_async(self, payload):\n        print('working on it')\n        time.sleep(0.3)\n        return {'done': payload}"
    )
    one.run("%cortex deploy followed --no-check")
    ran = one.run("%cortex submit followed slow")
    assert '"done": "slow"' in ran.text
    assert "completed" in ran.html
    wait_until(lambda: "working on it" in one.run("%cortex logs followed").text, "the line is shipped")


def test_a_cell_s_seconds_and_the_line_of_its_error_are_recorded(kernel: KernelMaker) -> None:
    one = kernel()
    one.run("import time; time.sleep(0.2)")
    one.run("a = 1\nb = 1 / 0\nc = 2", check=False)
    one.run("not = python", check=False)
    runs = "[(r.failed_line, r.seconds) for r in get_ipython().cortex_session.recorder.runs if not r.running]"
    recorded = one.value(runs)
    assert [line for line, _ in recorded] == [None, 2, 0]
    assert recorded[0][1] >= 0.2


def test_what_ran_is_published_and_an_edit_since_is_asked_about(kernel: KernelMaker, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "greeting.ipynb", "WORD = 'hello'", HANDLER.replace("payload}", "WORD}"))
    one = kernel(notebook=path)
    one.run("WORD = 'hello'", cell_id="cell-0")
    one.run(HANDLER.replace("payload}", "WORD}"), cell_id="cell-1")
    one.run("%cortex deploy --no-check", cell_id="cell-9")
    write_notebook(path, "WORD = 'goodbye'", HANDLER.replace("payload}", "WORD}"))
    os.utime(path, (time.time() + 1, time.time() + 1))  # saved after it ran, whatever the file system's clock resolves
    refused = one.run("%cortex deploy --no-check", check=False)
    assert refused.error_name == "NotebookError"
    assert "cell 1: it was edited after it ran" in refused.error
    assert "--yes" in refused.error
    one.run("%cortex deploy --no-check --yes")
    assert '"got": "hello"' in one.run("%cortex submit greeting x").text
    one.run("WORD = 'goodbye'", cell_id="cell-0")
    one.run("%cortex deploy --no-check")
    assert '"got": "goodbye"' in one.run("%cortex submit greeting x").text


def test_a_deleted_cell_s_name_travels_and_is_pointed_out(kernel: KernelMaker, tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "ghost.ipynb", HANDLER)
    one = kernel(notebook=path)
    one.run("LABEL = 'from a cell that is gone'", cell_id="gone")
    one.run(HANDLER.replace("payload}", "LABEL}"), cell_id="cell-0")
    write_notebook(path, HANDLER.replace("payload}", "LABEL}"))
    shown = one.run("%cortex show ghost --no-diff")
    assert "LABEL = 'from a cell that is gone'" in shown.text
    assert "`LABEL` comes from a cell that is not in the notebook any more" in shown.text


def test_json_mode_prints_json_and_nothing_else(kernel: KernelMaker) -> None:
    one = kernel()
    one.run(HANDLER)
    for line in ("check as-json", "deploy as-json", "submit as-json hello", "get as-json"):
        ran = one.run(f"%cortex {line} -o json")
        assert not ran.displays, line
        json.loads(ran.stdout)


def test_an_interrupted_payload_is_an_interrupt(kernel: KernelMaker, tmp_path: Path) -> None:
    one = kernel()
    one.run(
        "import time\nclass Handler:\n    def handle_async(self):\n        open('begun', 'w').close()\n        time.sleep(600)\n        return {}"
    )
    message = one.client.execute("%%cortex payload -t text/plain\nx")
    wait_until((tmp_path / "begun").exists, "the handler runs")
    one.manager.interrupt_kernel()
    assert one.collect(message).error_name == "KeyboardInterrupt"
    assert one.value("1 + 1") == 2


def test_a_cell_deletes_only_with_yes(kernel: KernelMaker) -> None:
    one = kernel()
    one.run(HANDLER)
    one.run("%cortex deploy kept-api --no-check")
    assert "--yes" in one.run("%cortex delete kept-api", check=False).error
    assert "kept-api" in one.run("%cortex get").text
    one.run("%cortex delete kept-api --yes")


def test_the_line_of_an_error_below_a_cell_magic_is_the_cell_s(kernel: KernelMaker) -> None:
    one = kernel()
    one.run("\n%%capture\n\nt = 0.9\n1 / 0\nt = 0.1", check=False)
    one.run("%%time\n\nt = 0.8\n1 / 0\nt = 0.2", check=False)
    one.run("%%capture\nu = 1")
    assert one.value("[r.failed_line for r in get_ipython().cortex_session.recorder.runs if not r.running]") == [5, 4, None]
