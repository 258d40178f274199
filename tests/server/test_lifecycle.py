"""Deploying, redeploying, failing, draining, scaling: what an API goes through."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_cortex.core.errors import Conflict, DeployFailed
from jupyter_cortex.store import keys

from ..conftest import ECHO, Environment, ProjectMaker, wait_until

VERSIONED = """
import os, time

class Handler:
    def __init__(self, config):
        self.config = config

    def handle_async(self, payload, request_id):
        time.sleep((payload or {}).get("sleep", 0))
        return {"config": self.config, "pid": os.getpid()}
"""


def ask(environment: Environment, name: str, payload: object = None) -> dict:
    client = environment.client()
    workload = client.result(name, client.submit(name, payload), wait=60)
    assert workload.status == "completed", workload
    return dict(workload.result)


def test_an_unchanged_project_is_up_to_date(environment: Environment, project: ProjectMaker) -> None:
    made = project("same")
    assert made.deploy(environment).outcome == "created"
    again = made.deploy(environment)
    assert (again.outcome, again.version, again.message) == ("up_to_date", 1, "same (AsyncAPI) is up to date")


def test_a_deploy_right_after_a_delete_begins_anew_as_soon_as_that_is_over(environment: Environment, project: ProjectMaker) -> None:
    made = project("anew", VERSIONED, handler_spec="config: {v: 1}")
    for _ in range(3):
        assert made.deploy(environment).outcome == "created", "the same bundle as the one that goes"
        assert ask(environment, "anew")["config"] == {"v": 1}
        environment.client().delete("anew")


def test_a_changed_project_is_live_before_the_old_one_drains_and_what_runs_is_finished(environment: Environment, project: ProjectMaker) -> None:
    made = project("roll", VERSIONED, handler_spec="config: {v: 1}")
    made.deploy(environment)
    client = environment.client()
    running = client.submit("roll", {"sleep": 3})
    wait_until(lambda: client.result("roll", running).status == "in_progress", "it runs")
    assert project("roll", VERSIONED, handler_spec="config: {v: 2}").deploy(environment).outcome == "updating"
    assert ask(environment, "roll")["config"] == {"v": 2}
    old = client.result("roll", running, wait=60)
    assert (old.status, old.result["config"]) == ("completed", {"v": 1})
    assert client.workload("roll", running)["attempts"] == 1
    wait_until(lambda: [v["state"] for v in client.get_api("roll")["api_versions"]] == ["live", "stopped"], "the old version is stopped")


def test_a_version_that_cannot_start_leaves_the_old_one_serving_and_says_why(environment: Environment, project: ProjectMaker) -> None:
    project("keeps", VERSIONED, handler_spec="config: {v: 1}").deploy(environment)
    broken = project(
        "keeps",
        "class Handler:\n    def __init__(self, config):\n        raise ValueError('no model at /nowhere')\n"
        "    def handle_async(self):\n        return {}\n",
    )
    with pytest.raises(DeployFailed, match="no model at /nowhere") as failed:
        broken.deploy(environment)
    assert "handler.py" in failed.value.details["traceback"]
    assert ask(environment, "keeps")["config"] == {"v": 1}
    api = environment.client().get_api("keeps")
    assert (api["live"], api["api_versions"][0]["state"]) == (1, "failed")
    assert "version 1 still serves" in api["message"]


def test_a_live_api_whose_replicas_cannot_start_any_more_says_why_and_recovers(
    environment: Environment, project: ProjectMaker, tmp_path: Path
) -> None:
    handler = """
        class Handler:
            def __init__(self, config):
                self.weights = open(config["weights"]).read()
            def handle_async(self):
                return {"weights": self.weights}
    """
    weights = tmp_path / "weights"
    weights.write_text("w1")
    project("fragile", textwrap.dedent(handler), handler_spec=f"config: {{weights: {weights}}}").deploy(environment)
    client = environment.client()
    weights.unlink()
    replica = next(iter(client.get_api("fragile")["workers"].values()))["replicas"][0]["pid"]
    os.kill(replica, 9)

    def says_why() -> bool:
        api = client.get_api("fragile")
        return bool(api["status"] == "error" and "No such file or directory" in api["message"])

    wait_until(says_why, "the API says that it cannot start, and why")
    shipped = '    self.weights = open(config["weights"]).read()'
    wait_until(lambda: any(shipped in str(record.get("exc_info")) for record in client.logs("fragile", 1000)), "its log has the author's own line")
    request_id = client.submit("fragile", {})
    weights.write_text("w2")
    assert client.result("fragile", request_id, wait=60).result == {"weights": "w2"}
    assert client.get_api("fragile")["status"] == "live"


def test_the_deployment_says_where_it_comes_from(environment: Environment, project: ProjectMaker) -> None:
    made = project("origin", "import numpy\n" + ECHO)
    made.deploy(environment)
    version = environment.client().get_api("origin")["api_versions"][0]
    assert version["interpreter"] == sys.executable
    assert version["python_version"] == platform.python_version()
    assert version["source"].endswith(str(made.directory / "cortex.yaml"))
    assert list(version["distributions"]) == ["numpy"]


def test_a_package_that_moved_since_the_deploy_is_named(environment: Environment, project: ProjectMaker) -> None:
    project("drifts", "import numpy\n" + ECHO).deploy(environment)
    client = environment.client()
    assert client.get_api("drifts")["drift"] == {}
    store = environment.redis()
    recorded = json.loads(store.hget(keys.deployment("drifts", 1), "distributions"))
    store.hset(keys.deployment("drifts", 1), "distributions", json.dumps({**recorded, "numpy": "1.0.0", "gone-package": "3.1"}))
    client.refresh("drifts")  # carries the record over to fresh replicas
    moved = wait_until(lambda: client.get_api("drifts")["drift"], "the drift is noticed")
    assert moved["numpy"][0] == "1.0.0"
    assert moved["gone-package"] == ["3.1", "missing"]
    assert "gone-package was 3.1 when it was deployed and is missing now" in environment.cortex("get", "drifts").stdout


def test_another_source_needs_take_over(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    made = project("owned")
    made.deploy(environment)
    moved = tmp_path / "elsewhere"
    made.directory.rename(moved)
    client = environment.client()
    with pytest.raises(Conflict, match="--take-over"):
        client.deploy(moved / "cortex.yaml")
    assert client.deploy(moved / "cortex.yaml", take_over=True)[0].outcome in ("up_to_date", "changed", "updating")


def test_the_handlers_environment_has_the_specs_variables_and_dotenv_and_nothing_of_the_shells(
    environment: Environment, project: ProjectMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL_SECRET", "x")
    handler = "import os\nclass Handler:\n    def handle_async(self):\n        return dict(os.environ)\n"
    spec = "env: {MODE: dev, ROOT: /srv}\nlog_level: warning"
    project("vars", handler, handler_spec=spec, files={".env": "MODE=prod\nDATA=${ROOT}/data\n"}).deploy(environment)
    variables = ask(environment, "vars")
    assert (variables["MODE"], variables["ROOT"], variables["DATA"]) == ("prod", "/srv", "/srv/data")
    assert (variables["CORTEX_LOG_LEVEL"], variables["CORTEX_KIND"]) == ("WARNING", "AsyncAPI")
    assert variables["CORTEX_PROJECT_DIR"].endswith("/project")
    assert not [name for name in variables if name in ("SHELL_SECRET", "PYTEST_CURRENT_TEST") or name.startswith("JUPYTER_CORTEX")]


def test_the_working_directory_is_the_project_and_its_files_are_there(environment: Environment, project: ProjectMaker) -> None:
    handler = "import lib\nclass Handler:\n    def handle_async(self):\n        return {'values': open('values.json').read(), 'lib': lib.NAME}\n"
    files = {"values.json": "[1, 2]", "src/lib.py": "NAME = 'src'"}
    project("files", handler, handler_spec="python_path: src", files=files).deploy(environment)
    assert ask(environment, "files") == {"values": "[1, 2]", "lib": "src"}


def test_one_thread_runs_constructor_and_calls_on_the_main_thread(environment: Environment, project: ProjectMaker) -> None:
    handler = """
        import threading
        class Handler:
            def __init__(self, config):
                self.made_in = threading.current_thread() is threading.main_thread()
            def handle_async(self):
                return {"init": self.made_in, "call": threading.current_thread() is threading.main_thread()}
    """
    project("main-thread", textwrap.dedent(handler)).deploy(environment)
    assert ask(environment, "main-thread") == {"init": True, "call": True}


def test_a_replica_s_dramatiq_has_no_middleware_of_its_own_and_threads_take_turns_every_millisecond(
    environment: Environment, project: ProjectMaker
) -> None:
    """Dramatiq's own list retries for days and ends what takes ten minutes; 5 ms, Python's own interval, make quick requests wait thrice as long."""
    source = """
import gc
import sys

class Handler:
    def handle_async(self):
        import dramatiq
        (broker,) = [one for one in gc.get_objects() if isinstance(one, dramatiq.Broker) and one.actors]
        return {"middleware": [type(one).__name__ for one in broker.middleware], "interval": sys.getswitchinterval()}
"""
    project("engine", source).deploy(environment)
    client = environment.client()
    told = client.result("engine", client.submit("engine", {}), wait=60).result
    # Dramatiq's worker adds the one by which it tells its threads of the end.
    assert told == {"middleware": ["_WorkerMiddleware"], "interval": pytest.approx(0.001)}


def test_threads_per_process_run_that_many_workloads_at_once(environment: Environment, project: ProjectMaker) -> None:
    handler = """
        import threading
        class Handler:
            def __init__(self, config):
                self.together = threading.Barrier(3, timeout=60)
            def handle_async(self):
                self.together.wait()
                return {"met": True}
    """
    project("threads", textwrap.dedent(handler), handler_spec="threads_per_process: 3").deploy(environment)
    client = environment.client()
    ids = [client.submit("threads", {}) for _ in range(3)]
    assert [client.result("threads", request_id, wait=60).result for request_id in ids] == [{"met": True}] * 3


def test_an_async_handler_keeps_its_loop_between_requests(environment: Environment, project: ProjectMaker) -> None:
    handler = """
        import asyncio
        class Handler:
            loop = None
            async def handle_async(self, payload):
                await asyncio.sleep(0)
                first = Handler.loop is None
                Handler.loop = Handler.loop or asyncio.get_running_loop()
                return {"first": first, "same": Handler.loop is asyncio.get_running_loop()}
    """
    project("aloop", textwrap.dedent(handler)).deploy(environment)
    assert [ask(environment, "aloop") for _ in range(2)] == [{"first": True, "same": True}, {"first": False, "same": True}]


def test_the_number_of_replicas_follows_the_spec_and_is_capped_with_the_reason(
    own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    environment = own_environment(replicas_per_cpu="1")
    project("wide", spec="autoscaling: {min_replicas: 90}").deploy(environment)
    cpus = len(os.sched_getaffinity(0))
    client = environment.client()
    wait_until(lambda: client.get_api("wide")["ready"] == cpus, f"{cpus} replicas are ready")
    assert f"wanted 90, capped at {cpus}: {cpus} CPU" in client.get_api("wide")["capped"]


def test_a_stopped_api_says_so_and_starts_again(environment: Environment, project: ProjectMaker) -> None:
    project("nap").deploy(environment)
    client = environment.client()
    client.stop("nap")
    wait_until(lambda: client.get_api("nap")["status"] == "stopped" and client.get_api("nap")["ready"] == 0, "it is stopped")
    client.start("nap")
    wait_until(lambda: client.get_api("nap")["status"] == "live", "it is live again")


def test_up_right_after_operator_and_gateway_were_killed_starts_both(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    """Who is killed holds its lock until it is gone: a look that comes before says that an operator runs."""
    environment = own_environment()
    project("goes-on").deploy(environment)
    client = environment.client()
    killed = [environment.slot(role).pid() for role in ("operator", "gateway")]
    for pid in killed:
        os.kill(pid or 0, signal.SIGKILL)
    environment.up()
    assert client.result("goes-on", client.submit("goes-on", {"n": 1}), wait=60).status == "completed"
    wait_until(lambda: environment.slot("operator").pid() not in (None, killed[0]), "an operator runs")


def test_an_environment_outlives_the_process_that_started_it(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    """Whoever runs `cortex up` (a kernel, a Jupyter server, a terminal) may end with its whole process group; the APIs go on."""
    environment = own_environment()
    environment.down()
    script = tmp_path / "starter.py"
    script.write_text(
        "import sys, time\nfrom jupyter_cortex.client import client\n"
        "cx = client()\ncx.ensure_up()\ncx.deploy(sys.argv[1])\nprint('deployed', flush=True)\ntime.sleep(600)\n"
    )
    made = project("outlive")
    env = {**os.environ, "JUPYTER_CORTEX_HOME": str(environment.home)}
    starter = subprocess.Popen(
        [sys.executable, str(script), str(made.directory / "cortex.yaml")], env=env, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == "deployed\n"
    os.killpg(starter.pid, 9)
    starter.wait()
    # Its pipe is closed on our side and nobody else holds it: the environment has not inherited it.
    assert starter.stdout.read() == ""
    starter.stdout.close()
    assert ask(environment, "outlive", {"still": "here"})["payload"] == {"still": "here"}


def test_a_redeploy_under_load_fails_no_request(environment: Environment, project: ProjectMaker) -> None:
    project("busy", VERSIONED, handler_spec="config: {v: 0}").deploy(environment)
    stop, answers, ids = threading.Event(), [], []

    def load() -> None:
        with environment.http() as http:
            while not stop.is_set():
                answer = http.post("/busy", json={})
                answers.append(answer.status_code)
                ids.append(answer.json()["id"])

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in (1, 2):
        project("busy", VERSIONED, handler_spec=f"config: {{v: {version}}}").deploy(environment)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) == {200}
    client = environment.client()
    assert {client.result("busy", request_id, wait=60).status for request_id in ids} == {"completed"}


def test_a_queue_makes_the_autoscaler_add_replicas(environment: Environment, project: ProjectMaker) -> None:
    scaling = "autoscaling: {max_replicas: 2, window: 10s, upscale_stabilization_period: 0s}"
    project("grow", VERSIONED, spec=scaling).deploy(environment)
    client = environment.client()
    ids = [client.submit("grow", {"sleep": 30}) for _ in range(4)]
    wait_until(lambda: client.get_api("grow")["ready"] == 2, "a second replica was added")
    for request_id in ids:
        client.cancel("grow", request_id)
    client.delete("grow")


def test_a_python_without_the_package_is_named_with_the_one_line_that_helps(
    environment: Environment, project: ProjectMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel's environment that lost the package since: replicas run on that interpreter, and on no other."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    bare = str(tmp_path / "bare" / "bin" / "python")
    from jupyter_cortex.project import provenance

    monkeypatch.setattr(
        provenance, "interpreter", lambda: {"interpreter": bare, "python_version": platform.python_version(), "host": platform.node()}
    )
    with pytest.raises(DeployFailed) as caught:
        project("bare-python").deploy(environment)
    assert f"{bare} -m pip install jupyter-cortex" in caught.value.message
