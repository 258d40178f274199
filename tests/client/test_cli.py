"""The shell's door: every verb, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_cortex.cli import main

from ..conftest import Environment, ProjectMaker, wait_until

FAILING = "class Handler:\n    def handle_async(self, payload):\n        raise ValueError('bad measurement')\n"


def data_of(environment: Environment, *arguments: str, **options: object) -> object:
    return json.loads(environment.cortex(*arguments, "-o", "json", **options).stdout)  # type: ignore[arg-type]


def test_deploy_prints_the_endpoint_and_a_curl_line_that_works(environment: Environment, project: ProjectMaker) -> None:
    made = project("cli-echo")
    said = environment.cortex("deploy", cwd=made.directory).stdout
    assert "creating cli-echo (AsyncAPI)" in said
    assert f"endpoint: {environment.url}/cli-echo" in said
    line = next(line.strip() for line in said.splitlines() if line.strip().startswith("curl"))
    answer = subprocess.run(["bash", "-c", f"{line} --silent --noproxy '*'"], capture_output=True, text=True, check=True).stdout
    request_id = json.loads(answer)["id"]
    assert data_of(environment, "result", "cli-echo", request_id, "--wait", "30")["result"]["payload"] == {}  # type: ignore[index]
    assert "cli-echo (AsyncAPI) is up to date" in environment.cortex("deploy", cwd=made.directory).stdout


def test_the_json_shapes_are_those_that_programs_know(environment: Environment, project: ProjectMaker) -> None:
    made = project("cli-json")
    rows = data_of(environment, "deploy", str(made.directory / "cortex.yaml"))
    assert [(row["message"], row["error"]) for row in rows] == [("creating cli-json (AsyncAPI)", None)]  # type: ignore[union-attr, index]
    apis = data_of(environment, "get")
    assert "cli-json" in [api["name"] for api in apis]  # type: ignore[union-attr]
    assert all({"spec", "status", "endpoint", "api_versions"} <= set(api) for api in apis)  # type: ignore[union-attr, arg-type]
    one = data_of(environment, "get", "cli-json")[0]  # type: ignore[index]
    assert {"spec", "status", "endpoint", "api_versions"} <= set(one)
    submitted = data_of(environment, "submit", "cli-json", '{"a": 1}')
    assert set(submitted) == {"id"}  # type: ignore[arg-type]
    done = data_of(environment, "result", "cli-json", submitted["id"], "--wait", "30")  # type: ignore[index]
    assert list(done) == ["id", "status", "result", "timestamp"]  # type: ignore[call-overload]
    assert data_of(environment, "delete", "cli-json", "--yes") == {"message": "deleting cli-json"}


def test_status_lists_every_process_with_role_pid_api_and_state(environment: Environment, project: ProjectMaker) -> None:
    project("cli-status").deploy(environment)
    status = wait_until(
        lambda: (
            (said := data_of(environment, "status")) and any(p["api"] == "cli-status" and p["role"] == "replica" for p in said["processes"]) and said
        ),  # type: ignore[index, call-overload]
        "the replica is listed",
    )
    assert status["gateway"] == environment.url
    assert status["redis"]
    roles = {process["role"] for process in status["processes"]}
    assert roles == {"operator", "gateway", "store", "worker", "replica"}
    assert all({"role", "pid", "api", "state"} <= set(process) for process in status["processes"])


def test_submit_takes_json_text_and_files(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    handler = "class Handler:\n    def handle_async(self, payload):\n        return {'type': type(payload).__name__}\n"
    project("cli-types", handler).deploy(environment)
    image = tmp_path / "a.png"
    image.write_bytes(b"\x89PNG")

    def kind(*arguments: str) -> str:
        return str(data_of(environment, "submit", "cli-types", *arguments, "--wait", "30")["result"]["type"])  # type: ignore[index]

    assert kind('{"a": 1}') == "dict"
    assert kind("not json") == "str"
    assert kind("--file", str(image)) == "bytes"
    assert kind("[1]", "--content-type", "text/plain") == "str"


def test_logs_show_messages_and_tracebacks(environment: Environment, project: ProjectMaker) -> None:
    project("cli-logs", FAILING).deploy(environment)
    assert environment.cortex("submit", "cli-logs", "{}", "--wait", "30", check=False).returncode == 1, "failed is not done"
    shown = wait_until(lambda: "ValueError" in (text := environment.cortex("logs", "cli-logs").stdout) and text, "the log has arrived")
    assert "failed to process workload" in shown
    assert "bad measurement" in shown
    assert '{"asctime"' not in shown
    assert environment.cortex("logs", "cli-logs", "--raw").stdout.startswith('{"asctime"')
    assert "bad measurement" in environment.cortex("logs", "cli-logs", "--search", "VALUEERROR", "--level", "error").stdout
    assert environment.cortex("logs", "cli-logs", "--search", "nowhere").stdout == "no line that is kept has this text and level\n"


def test_lines_that_are_on_their_way_are_waited_for(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUPYTER_CORTEX_HOME", str(environment.home))
    answers = [[], [{"message": "here it is", "levelname": "INFO"}]]
    monkeypatch.setattr("jupyter_cortex.client.Client.logs", lambda *_: answers.pop(0))
    with pytest.raises(SystemExit, match="0"):
        main(["logs", "any"])
    assert "here it is" in capsys.readouterr().out
    assert not answers


def test_logs_show_what_the_author_added_and_whose_line_it_is(environment: Environment, project: ProjectMaker) -> None:
    handler = "from cortex_internal.lib.log import logger\nclass Handler:\n    def handle_async(self):\n"
    handler += "        logger.info('scored', extra={'score': 0.5})\n        return {}\n"
    project("cli-extra", handler).deploy(environment)
    data_of(environment, "submit", "cli-extra", "{}", "--id", "request-4711", "--wait", "30")
    shown = wait_until(lambda: "scored" in (text := environment.cortex("logs", "cli-extra").stdout) and text, "the log has arrived")
    assert "scored  score=0.5  request-" in shown


def test_one_project_is_one_source_however_its_path_is_written(environment: Environment, project: ProjectMaker) -> None:
    made, other = project("cli-here"), project("cli-there")
    environment.cortex("deploy", cwd=made.directory)
    said = environment.cortex("deploy", f"../{made.directory.name}", cwd=other.directory).stdout
    assert "cli-here (AsyncAPI) is up to date" in said
    environment.cortex("delete", "cli-here", "--yes")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://user:s3cret@127.0.0.1:1/0", "the store cannot be reached at redis://127.0.0.1:1/0, which JUPYTER_CORTEX_REDIS_URL names"),
        ("http://store.example.com", "JUPYTER_CORTEX_REDIS_URL is no store's URL; write redis://HOST:PORT/0"),
    ],
)
def test_a_store_that_is_not_there_is_named_with_the_setting_and_nothing_is_started(tmp_path: Path, url: str, said: str) -> None:
    environment = Environment(tmp_path / "home", {"JUPYTER_CORTEX_REDIS_URL": url})
    for command in (["up"], ["worker", "any"]):
        done = environment.cortex(*command, check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert "s3cret" not in done.stderr + done.stdout
    assert environment.slot("operator").pid() is None


def test_delete_without_yes_keeps_an_api_that_has_unfinished_requests(environment: Environment, project: ProjectMaker) -> None:
    made = project("cli-keep")
    made.deploy(environment)
    client = environment.client()
    client.stop("cli-keep")
    wait_until(lambda: not environment.processes("replica", "cli-keep"), "the replica is gone")
    client.submit("cli-keep", {})
    done = environment.cortex("delete", "cli-keep", check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "0 running and 1 waiting requests and 0 results; repeat with --yes" in done.stderr
    assert environment.cortex("delete", "cli-keep", "-o", "json", check=False).returncode != 0, "who asks for JSON has not agreed"
    assert "stopped: requests are accepted and wait until `cortex start cli-keep`" in environment.cortex("deploy", cwd=made.directory).stdout
    assert client.get_api("cli-keep")["workloads"]["in_queue"] == 1
    client.start("cli-keep")
    wait_until(lambda: client.get_api("cli-keep")["workloads"]["completed"] == 1, "it has a result")
    done = environment.cortex("delete", "cli-keep", check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 1, "a result is kept for 7 days"
    assert "0 running and 0 waiting requests and 1 results; repeat with --yes" in done.stderr
    environment.cortex("delete", "cli-keep", "--yes")


def test_delete_takes_the_flag_that_cortex_has_for_it(environment: Environment, project: ProjectMaker) -> None:
    for flag in ("-f", "--force"):
        project("cli-forced").deploy(environment)
        environment.cortex("submit", "cli-forced", "{}", "--wait", "30")
        assert environment.cortex("delete", "cli-forced", flag).stdout == "deleting cli-forced\n"


def test_a_slip_in_a_json_payload_is_not_sent_as_text(environment: Environment, project: ProjectMaker) -> None:
    project("cli-slip").deploy(environment)
    for payload in ('{"a": 1,}', "{'a': 1}", "[1, 2", '{"a": 1} b'):
        done = environment.cortex("submit", "cli-slip", payload, check=False)
        assert done.returncode == 1
        assert "begins like JSON and is none (line 1, column " in done.stderr
    assert not any(environment.client().get_api("cli-slip")["workloads"].values())
    for payload in ("{'a': 1}", "[INFO] a line"):
        kind = ("-t", "text/plain") if payload[0] == "{" else ()
        assert environment.cortex("submit", "cli-slip", payload, *kind, "--wait", "30").returncode == 0


def test_a_number_of_log_lines_that_makes_no_sense_names_its_option(environment: Environment) -> None:
    assert "Invalid value for '-n'" in environment.cortex("logs", "any", "--lines", "-5", check=False).stderr


def test_following_logs_shows_new_lines_that_are_sought_as_they_come(environment: Environment, project: ProjectMaker) -> None:
    handler = "class Handler:\n    def handle_async(self, payload):\n        print('noise')\n        print('saw', payload)\n        return {}\n"
    project("cli-follow", handler).deploy(environment)
    env = {"PATH": "/usr/bin:/bin", "JUPYTER_CORTEX_HOME": str(environment.home), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "jupyter_cortex.cli", "logs", "-f", "cli-follow", "--search", "Saw"]
    following = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert following.stdout is not None
    try:
        client = environment.client()
        client.submit("cli-follow", "first", "text/plain")
        assert "saw first" in next(line for line in following.stdout if line.strip())
        client.submit("cli-follow", "second", "text/plain")
        assert "saw second" in next(line for line in following.stdout if line.strip())
    finally:
        following.kill()
        following.wait()
        following.stdout.close()


def test_a_refusal_is_one_line_with_the_place_and_exit_status_1(environment: Environment, project: ProjectMaker) -> None:
    made = project("cli-bad", handler_spec="log_level: loud")
    done = environment.cortex("deploy", cwd=made.directory, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: cortex.yaml: [0].handler.log_level (cli-bad): ")
    assert "Traceback" not in done.stderr
    done = environment.cortex("deploy", "-o", "json", cwd=made.directory, check=False)
    assert done.returncode == 1
    assert "handler.log_level" in json.loads(done.stdout)[0]["error"]


def test_a_deploy_that_does_not_start_shows_the_authors_traceback(environment: Environment, project: ProjectMaker) -> None:
    made = project("cli-broken", "import no_such_module\n")
    done = environment.cortex("deploy", cwd=made.directory, check=False)
    assert done.returncode == 1
    assert "No module named 'no_such_module'" in done.stderr
    assert "handler.py" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("get", "nobody"), 1, "nobody is not deployed"),
        (("result", "nobody", "x"), 1, "nobody is not deployed"),
        (("deploy", "nowhere.yaml"), 1, "nowhere.yaml"),
        (("env", "use", "nobody"), 1, "there is no environment nobody"),
        (("submit", "nobody"), 1, "give the payload"),
        (("frobnicate",), 2, "No such command"),
        (("get", "--frobnicate"), 2, "No such option"),
        (("s",), 2, "may mean"),
    ],
)
def test_wrong_use_is_explained(environment: Environment, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = environment.cortex(*arguments, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert said in done.stderr


def test_without_an_environment_verbs_say_how_to_start_one(tmp_path: Path) -> None:
    done = Environment(tmp_path / "empty").cortex("get", check=False)
    assert done.returncode == 1
    assert "cortex up" in done.stderr


def test_verbs_may_be_shortened(environment: Environment) -> None:
    assert environment.cortex("stat").stdout == environment.cortex("status").stdout


def test_other_environments_are_added_used_and_removed(environment: Environment, tmp_path: Path) -> None:
    elsewhere = Environment(tmp_path / "client-only")
    elsewhere.cortex("env", "add", "team", environment.url, "--token", environment.token)
    elsewhere.cortex("env", "use", "team")
    assert data_of(elsewhere, "status")["gateway"] == environment.url  # type: ignore[index]
    rows = data_of(elsewhere, "env", "list")
    assert [(row["name"], row["used"]) for row in rows] == [("local", False), ("team", True)]  # type: ignore[union-attr, index]
    assert environment.token not in elsewhere.cortex("env", "list").stdout
    assert (elsewhere.home / "environments.json").stat().st_mode & 0o077 == 0
    elsewhere.cortex("env", "remove", "team")
    assert [row["name"] for row in data_of(elsewhere, "env", "list")] == ["local"]  # type: ignore[union-attr, index]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_completion_script(shell: str, environment: Environment) -> None:
    assert "_CORTEX_COMPLETE" in environment.cortex("completion", shell).stdout


def test_every_verb_explains_itself() -> None:
    assert [name for name, command in main.commands.items() if not (command.help or "").strip()] == []


def test_the_demo_runs_the_iris_notebook_and_leaves_its_api_running(environment: Environment, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    told = data_of(environment, "demo", "--dir", str(tmp_path / "iris"))
    assert told["api"]["status"] == "live"  # type: ignore[index, call-overload]
    client = environment.client()
    for body, content_type in (
        (b'{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}', "application/json"),
        (b"5.1,3.5,1.4,0.2", "text/plain"),
    ):
        request_id = client.submit("iris-classifier", body, content_type)
        assert client.result("iris-classifier", request_id, wait=60).result["label"] == "setosa"
    notebook = json.loads((tmp_path / "iris" / "iris-classifier.ipynb").read_text())
    assert all(cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    again = environment.cortex("demo", "--dir", str(tmp_path / "iris")).stdout
    assert "found" in again
    assert "goes on running" in again
    # From another directory: what is there stays, and both ways on are such as this command can take.
    refused = environment.cortex("demo", "--dir", str(tmp_path / "other"), check=False)
    assert refused.returncode == 1
    said = " ".join(refused.stderr.split())
    assert "cortex delete iris-classifier" in said
    assert f"cortex demo --dir {tmp_path / 'iris'}`" in said
    assert "--take-over" not in said
    environment.cortex("delete", "iris-classifier", "--yes")
    assert "goes on running" in environment.cortex("demo", "--dir", str(tmp_path / "other")).stdout


def test_the_demo_leaves_a_strangers_directory_alone(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    done = environment.cortex("demo", "--dir", str(tmp_path), check=False)
    assert (done.returncode, [path.name for path in tmp_path.iterdir()]) == (1, ["thesis.tex"])


LIVE = """
import time
from jupyter_cortex import progress

class Handler:
    def handle_async(self, payload):
        for step in range(payload["steps"]):
            print("working", step)
            progress(step / payload["steps"], f"step {step}")
            time.sleep(0.1)
        return {"steps": payload["steps"]}
"""


def test_on_a_terminal_waiting_shows_progress_and_log_lines_and_ctrl_c_asks_to_cancel(environment: Environment, project: ProjectMaker) -> None:
    pexpect = pytest.importorskip("pexpect")
    project("cli-live", LIVE).deploy(environment)
    env = {**os.environ, "JUPYTER_CORTEX_HOME": str(environment.home), "TERM": "xterm", "COLUMNS": "150"}
    argv = ["-m", "jupyter_cortex.cli", "submit", "cli-live"]
    short = pexpect.spawn(sys.executable, [*argv, '{"steps": 8}', "--wait", "60"], env=env, encoding="utf-8", timeout=60)
    short.expect("step 3")
    short.expect("working 7")
    short.expect("completed")
    short.expect('"steps"')
    short.expect(pexpect.EOF)
    long = pexpect.spawn(sys.executable, [*argv, '{"steps": 6000}', "--id", "long", "--wait", "600"], env=env, encoding="utf-8", timeout=60)
    long.expect("step 3")
    long.sendintr()
    long.expect("cancel long?")
    long.sendline("y")
    long.expect("cancelled")
    long.expect(pexpect.EOF)
    assert environment.client().result("cli-live", "long").status == "cancelled"


def test_deadlines_are_options_of_submit(environment: Environment, project: ProjectMaker) -> None:
    project("cli-limits", LIVE, spec="cancel_grace: 0s").deploy(environment)
    done = environment.cortex("submit", "cli-limits", '{"steps": 6000}', "--timeout", "0.3", "--wait", "60", check=False)
    assert done.returncode == 1
    assert "DeadlineExceeded: the workload has run for longer than 0.3 s (Cortex-Timeout)" in done.stdout
    assert environment.cortex("submit", "cli-limits", '{"steps": 1}', "--queue-timeout", "60", "--wait", "60").returncode == 0
    refused = environment.cortex("submit", "cli-limits", "{}", "--timeout", "-1", check=False)
    assert "Cortex-Timeout must be a number of seconds above 0" in refused.stdout + refused.stderr
