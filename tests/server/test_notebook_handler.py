"""A notebook as a handler: each request is one run of it, in a fresh kernel that was warm before."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_cortex.client import Client
from jupyter_cortex.core.errors import NotebookGone, SpecError, TooManyPages, WorkloadNotFound
from jupyter_cortex.gateway import notebooks
from jupyter_cortex.store import keys
from tests.conftest import Environment, runs, wait_until

from .reports import document, write_report
from .test_redacted import whole

CELLS = (
    "# parameters\nhow = 'fine'\nx = 1\npayload = None\nconfig = {}\nrequest_id = ''\nuntil = ''",
    "%md # Prepare\nsome words",
    "import os, time\nimport helper\nfrom cortex_internal.lib.log import logger\nfrom jupyter_cortex import glue, progress",
    "print('printed', x)\nlogger.warning('logged', extra={'x': x})\nassert 'left' not in globals(), 'a state has leaked'\nleft = x",
    "%md ## The work",
    """

if how == 'raise':
    helper.divide(x, 0)
if how == 'nan':
    glue(bad=[1.0, float('nan')])
if how == 'die':
    os.kill(os.getpid(), 9)
if how == 'wait':
    open(until, 'w').write(str(os.getpid()))
    time.sleep(600)
if how == 'child':
    os.system('sleep 600 & echo $! > ' + until)
if how == 'large':
    print('y' * 9_000_000)""",
    "if payload is not None:\n    glue(kind=type(payload).__name__, size=len(payload), text=str(payload)[:20])\n"
    "elif how == 'fine':\n    progress(0.5, 'half')\n    glue({'double': x * 2})\n    glue(unit=config['unit'], id=request_id, where=os.getcwd())",
)
HELPER = "def divide(a, b):\n    return a / b\n"


@pytest.fixture(scope="module")
def api(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One notebook handler that all tests here call."""
    config = write_report(
        tmp_path_factory.mktemp("report"),
        "reporting",
        *CELLS,
        handler=", config: {unit: m}",
        spec="  cancel_grace: 1s\n",
        files={"helper.py": HELPER},
    )
    with environment.client() as client:
        client.deploy(config)
        yield "reporting"
        client.delete("reporting")


@pytest.fixture
def client(environment: Environment) -> Iterator[Client]:
    with environment.client() as made:
        yield made


def run(client: Client, api: str, payload: Any, **options: Any) -> tuple[str, Any]:
    request_id = client.submit(api, payload, **options)
    return request_id, client.result(api, request_id, wait=60)


def cells_of(data: bytes) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(data)["cells"] if cell["cell_type"] == "code"]


def test_the_payload_s_members_are_parameters_and_what_is_glued_is_the_result(client: Client, api: str) -> None:
    request_id, done = run(client, api, {"x": 21})
    assert done.status == "completed", done
    assert list(done.result)[:3] == ["double", "unit", "id"]
    assert (done.result["double"], done.result["unit"], done.result["id"]) == (42, "m", request_id)
    assert done.result["where"].endswith("/project")


def test_each_request_has_a_namespace_of_its_own(client: Client, api: str) -> None:
    ids = [client.submit(api, {"x": at}) for at in range(4)]
    assert [client.result(api, one, wait=60).result["double"] for one in ids] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("body", "content_type", "kind"),
    [(b'a\nb "q" \xc3\xa9', "text/plain", "str"), (bytes(range(256)), "application/octet-stream", "bytes"), (b"[1, 2]", "application/json", "list")],
)
def test_another_payload_is_the_parameter_payload(client: Client, api: str, body: bytes, content_type: str, kind: str) -> None:
    _, done = run(client, api, body, content_type=content_type)
    assert done.result["kind"] == kind
    assert done.result["size"] == {"str": 9, "bytes": 256, "list": 2}[kind]


def test_a_notebook_that_glues_nothing_has_the_result_null(client: Client, api: str) -> None:
    _, done = run(client, api, {"how": "nothing"})
    assert (done.status, done.result) == ("completed", None)


def test_a_member_that_is_no_name_fails_its_request_with_the_name(client: Client, api: str) -> None:
    _, done = run(client, api, {"not a name": 1})
    assert done.status == "failed"
    assert '"not a name" cannot be a parameter' in done.error["message"]
    _, done = run(client, api, {"config": {"unit": "km"}})
    assert '"config" is what this notebook gets from its API' in done.error["message"]


def test_a_failing_cell_is_told_with_its_line_and_its_notebook_is_kept(client: Client, api: str) -> None:
    request_id, done = run(client, api, {"how": "raise"})
    assert (done.status, done.error["type"]) == ("failed", "ZeroDivisionError")
    details = client.workload(api, request_id)
    assert "cell 4, line 4" in details["failure"]["traceback"]
    assert 'File "helper.py", line 2, in divide' in details["failure"]["traceback"]
    assert [(frame["place"], frame["file"]) for frame in details["frames"]] == [("cell 4, line 4", ""), ("", "helper.py")]
    assert any('"logged"' in line for line in details["failure"]["logs"])
    again, _ = run(client, api, {"how": "raise", "x": 7})
    assert client.workload(api, again)["fingerprint"] == details["fingerprint"]
    errors = [output for cell in cells_of(client.notebook(api, request_id)) for output in cell["outputs"] if output["output_type"] == "error"]
    assert errors[0]["ename"] == "ZeroDivisionError"


def test_a_value_that_json_does_not_have_fails_as_a_handler_s_result_does(client: Client, api: str) -> None:
    request_id, done = run(client, api, {"how": "nan"})
    assert done.error["type"] == "ResultError"
    assert 'result["bad"][1] is NaN' in done.error["message"]
    assert "cell 4, line 6" in client.workload(api, request_id)["failure"]["traceback"]


def test_prints_and_log_records_come_with_their_request(client: Client, api: str) -> None:
    request_id, _ = run(client, api, {"x": 5})
    lines = wait_until(lambda: [line for line in client.workload_log(api, request_id) if line["message"] in ("printed 5", "logged")][1:], "the log")
    assert {line["request_id"] for line in lines} == {request_id}
    logged = next(line for line in client.workload_log(api, request_id) if line["message"] == "logged")
    assert (logged["levelname"], logged["x"]) == ("WARNING", 5)


def test_progress_tells_the_cell_and_its_title(client: Client, api: str, tmp_path: Path) -> None:
    request_id = client.submit(api, {"how": "wait", "until": str(tmp_path / "here")})

    def told() -> bool:
        said = client.result(api, request_id).progress or {}
        return (said.get("text"), said.get("fraction")) == ("cell 4 of 5: The work", 0.6)

    try:
        wait_until(told, "the cell that waits is told")
    finally:
        client.cancel(api, request_id)


def test_a_cancelled_run_is_interrupted_and_its_kernel_is_gone(client: Client, api: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    request_id = client.submit(api, {"how": "wait", "until": str(here)})
    pid = int(wait_until(lambda: here.exists() and here.read_text(), "the cell waits"))
    assert client.cancel(api, request_id).status == "cancelled"
    wait_until(lambda: not runs(pid), "the kernel has ended")
    assert run(client, api, {"x": 1})[1].status == "completed"
    errors = [
        output["ename"] for cell in cells_of(client.notebook(api, request_id)) for output in cell["outputs"] if output["output_type"] == "error"
    ]
    assert errors == ["KeyboardInterrupt"]


def test_past_its_time_a_run_fails_and_says_where_it_was(client: Client, api: str, environment: Environment, tmp_path: Path) -> None:
    with environment.http() as http:
        sent = http.post("/reporting", json={"how": "wait", "until": str(tmp_path / "here")}, headers={"cortex-timeout": "1"})
    request_id = sent.json()["id"]
    done = client.result(api, request_id, wait=60)
    assert (done.status, done.error["type"]) == ("failed", "DeadlineExceeded")
    assert "cell 4, line 11" in client.workload(api, request_id)["failure"]["traceback"]


def test_a_kernel_that_dies_fails_its_request_and_no_other(client: Client, api: str) -> None:
    _, done = run(client, api, {"how": "die"})
    assert done.status == "failed"
    assert "the kernel ended in cell 4 of 5 (killed by SIGKILL" in done.error["message"]
    assert run(client, api, {"x": 2})[1].result["double"] == 4


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process in this way")
def test_a_cell_that_needs_more_memory_fails_its_request_and_says_so(client: Client, tmp_path: Path) -> None:
    cells = ("# parameters\nmb = 1", "import numpy\ntaken = bytearray(b'x') * (mb << 20)", "from jupyter_cortex import glue\nglue(mb=mb)")
    client.deploy(write_report(tmp_path, "frugal", *cells, spec="  compute: {mem: 256Mi}\n"))
    assert run(client, "frugal", {"mb": 30})[1].result == {"mb": 30}
    failed = run(client, "frugal", {"mb": 700})[1]
    assert (failed.status, failed.error["type"]) == ("failed", "MemoryError")
    assert "it needs more than the 256Mi of compute.mem" in failed.error["message"]
    assert run(client, "frugal", {"mb": 1})[1].status == "completed"


def test_what_a_cell_has_started_ends_with_its_run(client: Client, api: str, tmp_path: Path) -> None:
    run(client, api, {"how": "child", "until": str(tmp_path / "pid")})
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not runs(pid), "the child has ended")


def test_the_executed_notebook_comes_as_a_file_and_as_a_page_in_which_nothing_runs(client: Client, api: str, environment: Environment) -> None:
    request_id, _ = run(client, api, {"x": 3})
    sources = [cell["source"] for cell in cells_of(client.notebook(api, request_id))]
    assert "x = 3" in sources[1]
    assert client.workload(api, request_id)["notebook"] > 1000
    with environment.http() as http:
        page = http.get(f"/reporting/{request_id}/notebook.html")
        assert "The work" in page.text
        assert page.headers["content-type"].startswith("text/html")
        assert "sandbox;" in page.headers["content-security-policy"]
        assert "allow-scripts" not in page.headers["content-security-policy"]
        file = http.get(f"/reporting/{request_id}/notebook.ipynb")
        assert file.headers["content-disposition"].startswith("attachment")
        assert http.post(f"/reporting/{request_id}/notebook.ipynb").status_code == 405
        assert http.get("/reporting/nobody/notebook.html").json()["code"] == "workload_not_found"
        control = http.get(
            f"/_cortex/v1/apis/reporting/workloads/{request_id}/notebook.ipynb", headers={"authorization": f"Bearer {environment.token}"}
        )
        assert control.content == file.content
    assert f"/reporting/{request_id}/notebook.html" in environment.cortex("result", api, request_id).stdout


def test_an_output_that_is_too_large_gives_way_to_a_note(client: Client, api: str) -> None:
    request_id, _ = run(client, api, {"how": "large"})
    text = client.notebook(api, request_id).decode()
    assert len(text) < 9_000_000
    assert "was left out: at most" in text


def test_it_is_kept_as_long_as_its_record_and_goes_with_a_requeue(client: Client, api: str, environment: Environment) -> None:
    request_id, _ = run(client, api, {"how": "raise"})
    with environment.redis() as store:
        left, record = store.ttl(keys.notebook(api, request_id)), store.ttl(keys.record(api, request_id))
        assert abs(left - record) <= 5
        before = store.get(keys.notebook(api, request_id))
        client.requeue(api, [request_id])
        client.result(api, request_id, wait=60)
        assert store.get(keys.notebook(api, request_id)) not in (None, before)


def test_what_the_spec_redacts_is_in_no_executed_notebook(client: Client, environment: Environment, tmp_path: Path) -> None:
    secret = "hunter22-of-the-caller"
    config = write_report(
        tmp_path,
        "secretive",
        "# parameters\npin = ''\nshort = ''\npayload = None",
        "print('pin is', pin)\n{'pin': pin}",
        "raise ValueError(pin)",
        spec="  retain: {payload: always, redact: [$.pin, $.short]}\n",
    )
    client.deploy(config)
    request_id, done = run(client, "secretive", {"pin": secret, "short": "7", "open": "seen"})
    assert done.status == "failed"
    text = client.notebook("secretive", request_id).decode()
    assert secret not in text
    injected = cells_of(client.notebook("secretive", request_id))[1]["source"]
    assert 'pin = "***"' in injected
    assert 'short = "***"' in injected
    assert 'open = "seen"' in injected
    other, _ = run(client, "secretive", secret, content_type="text/plain")
    assert "it is not shown" in cells_of(client.notebook("secretive", other))[1]["source"]
    with environment.redis() as store:
        assert secret.encode() not in whole(store)
        client.delete("secretive")
        wait_until(lambda: not store.exists(keys.notebook("secretive", request_id)), "it goes with its API")
    with pytest.raises(Exception, match="secretive"):
        client.notebook("secretive", request_id)


def test_kernels_die_with_their_replica(client: Client, api: str, environment: Environment) -> None:
    run(client, api, {"x": 1})
    replica = next(p for p in psutil.process_iter(["cmdline", "environ"]) if _is_replica(p, environment))
    family = replica.children(recursive=True)
    assert len(family) >= 2  # the nursery and a warm kernel
    directories = {one.environ()["IPYTHONDIR"].rpartition("/")[0] for one in family}
    os.kill(replica.pid, signal.SIGKILL)
    wait_until(lambda: not any(runs(one.pid) for one in family), "its kernels have ended")
    assert not any(Path(directory).exists() for directory in directories)
    assert run(client, api, {"x": 4})[1].result["double"] == 8


def _is_replica(process: psutil.Process, environment: Environment) -> bool:
    line = " ".join(process.info["cmdline"] or [])
    if "jupyter_cortex.serving.replica" not in line:
        return False
    return "/reporting-v" in (process.info["environ"] or {}).get("CORTEX_PROJECT_DIR", "") and str(environment.home) in process.cwd()


def test_two_threads_run_two_notebooks_at_once_and_a_cell_calls_an_api_by_its_name(client: Client, api: str, tmp_path: Path) -> None:
    cells = (
        "# parameters\nx = 0\nmine = ''\nother = ''",
        "import json, pathlib, time\nfrom urllib.request import ProxyHandler, Request, build_opener\nfrom jupyter_cortex import glue\n"
        "call = build_opener(ProxyHandler({})).open",
        # Each goes on when it sees that the other one runs.
        "pathlib.Path(mine).touch()\nwhile not pathlib.Path(other).exists():\n    time.sleep(0.01)",
        "base = 'http://api-reporting:8888/'\nrequest = Request(base, json.dumps({'x': x}).encode(), {'Content-Type': 'application/json'})\n"
        "where = base + json.load(call(request))['id']\nglue(json.load(call(where + '?wait=50'))['result'])",
    )
    client.deploy(write_report(tmp_path / "project", "pairs", *cells, handler=", threads_per_process: 2"))
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    ids = [client.submit("pairs", {"x": 3, "mine": one, "other": two}), client.submit("pairs", {"x": 4, "mine": two, "other": one})]
    done = [client.result("pairs", request_id, wait=60) for request_id in ids]
    assert [each.result["double"] for each in done] == [6, 8], done
    client.delete("pairs")


def test_what_is_no_notebook_of_python_is_refused_before_anything_starts(client: Client, tmp_path: Path) -> None:
    config = write_report(tmp_path, "refused", "1")
    (tmp_path / "report.ipynb").write_text(json.dumps(document("1", language="R")))
    with pytest.raises(SpecError, match=r"report\.ipynb: its kernel is for R"):
        client.deploy(config)
    (tmp_path / "report.ipynb").write_text("hello")
    with pytest.raises(SpecError, match="it is not a notebook"):
        client.deploy(config)
    (tmp_path / "report.ipynb").unlink()
    with pytest.raises(SpecError, match="not among the project's files"):
        client.deploy(config)


def test_a_handler_leaves_no_notebook(client: Client, project: Any) -> None:
    made = project("plainly")
    client.deploy(made.directory / "cortex.yaml")
    request_id, _ = run(client, "plainly", {"a": 1})
    with pytest.raises(NotebookGone, match="no notebook handler"):
        client.notebook("plainly", request_id)
    with pytest.raises(WorkloadNotFound):
        client.notebook("plainly", "nobody")
    client.delete("plainly")


def test_the_next_notebook_is_rehearsed_with_the_requests_that_the_live_one_had(client: Client, tmp_path: Path) -> None:
    cells = ("# parameters\nx = 1", "from jupyter_cortex import glue\nglue(y=10 / x)")
    spec = "  retain: {payload: always}\n  rehearse: true\n"
    client.deploy(write_report(tmp_path, "rehearsed", *cells, spec=spec))
    ids = [run(client, "rehearsed", {"x": x})[0] for x in (5, 0, 2)]
    wait_until(lambda: all(client.workload("rehearsed", one)["status"] != "in_progress" for one in ids), "all ends are committed")
    after = (cells[0], "from jupyter_cortex import glue\nif x == 2:\n    raise KeyError('two')\nglue(y=10 / (x or 1))")
    (made,) = client.deploy(write_report(tmp_path, "rehearsed", *after, spec=spec), rehearse=10)
    report = client.rehearsal("rehearsed", made.version)
    assert {row["id"]: row["verdict"] for row in report["rows"]} == dict(zip(ids, ("same_result", "fixed", "fails_here"), strict=True))
    (fails,) = [row["here"] for row in report["rows"] if row["verdict"] == "fails_here"]
    assert (fails["error"]["type"], fails["place"]) == ("KeyError", "cell 2, line 3")
    assert client.workload("rehearsed", ids[1])["status"] == "failed", "the shadow's result is nobody's answer"
    assert client.get_api("rehearsed")["live"] == 1
    client.promote("rehearsed", made.version)
    wait_until(lambda: client.get_api("rehearsed")["live"] == made.version, "it is live")
    assert run(client, "rehearsed", {"x": 0})[1].result == {"y": 10.0}
    client.delete("rehearsed")


def test_no_more_notebooks_wait_to_be_made_pages_than_may() -> None:
    async def crowd() -> list[str]:
        free, said = asyncio.Event(), []

        async def one() -> None:
            try:
                async with notebooks._slot():
                    await free.wait()
                    said.append("made")
            except TooManyPages as error:
                said.append(error.code)

        tasks = [asyncio.create_task(one()) for _ in range(notebooks.AT_ONCE + notebooks.WAITING + 3)]
        while len(said) < 3:
            await asyncio.sleep(0)
        free.set()
        await asyncio.gather(*tasks)
        return said

    said = asyncio.run(crowd())
    assert said == ["too_many_pages"] * 3 + ["made"] * (notebooks.AT_ONCE + notebooks.WAITING)
