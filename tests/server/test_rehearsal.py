"""A version runs real workloads before it is live, and nobody but its author learns of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from jupyter_cortex.core.errors import CortexError, StoreUnavailable
from jupyter_cortex.serving.rehearsal import Rehearsal
from jupyter_cortex.store import keys
from jupyter_cortex.store.connection import connect
from jupyter_cortex.store.rehearsals import UNDECIDED_S
from tests.conftest import Environment, ProjectMaker, wait_until

#: Production: doubles, and fails for a missing key.
BEFORE = """
    class Handler:
        def handle_async(self, payload):
            return {"twice": payload["n"] * 2, "kept": "x"}
"""
#: The next one: forgives the missing key, fails for 3, says something else for 4, and ends its process for 5.
AFTER = """
    import logging
    import os

    class Handler:
        def __init__(self, config, metrics_client):
            self.config, self.metrics = config, metrics_client

        def handle_async(self, payload, request_id):
            self.metrics.increment("seen")
            logging.getLogger("cortex").info("shadowed " + request_id)
            n = payload.get("n", 0)
            if n == 3:
                raise ValueError("three")
            if n == 5:
                os._exit(7)
            assert self.config["cortex_rehearsal"] is True or os.environ.get("LIVE")
            return {"twice": 9 if n == 4 else n * 2, "kept": "x"}
"""
KEPT = "retain: {payload: always}"
BOTH = f"{KEPT}\nrehearse: true"


def public_state(store: redis.Redis, name: str) -> dict[bytes, Any]:
    """All of an API's keys but those that deployments, logs and processes have."""
    inner = (":dep:", ":bundle", ":active", ":rehearsal:", ":events", ":logs", ":api", ":workers", ":beats", ":report:")
    found: dict[bytes, Any] = {}
    for key in sorted(store.scan_iter(f"{keys.prefix(name)}:*", count=1000)):
        if not any(key.decode().removeprefix(keys.prefix(name)).startswith(part) for part in inner):
            found[key] = store.dump(key)
    return found


def moves(store: redis.Redis, name: str) -> list[bytes]:
    """The moves of workloads, as events tell them."""
    told = [fields[b"m"] for _, fields in store.xrange(keys.events(name)) if b"m" in fields]  # type: ignore[union-attr]
    return [one for one in told if not one.startswith(b"deployment")]


def produced(environment: Environment, project: ProjectMaker, name: str, payloads: list[Any], handler: str = BEFORE, spec: str = KEPT) -> list[str]:
    """An API with these requests behind it; their ids."""
    project(name, handler, spec).deploy(environment)
    with environment.client() as client:
        ids = [client.submit(name, payload) for payload in payloads]
        for request_id in ids:
            assert client.result(name, request_id, wait=30).status in ("completed", "failed")
    return ids


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {row["id"]: row["verdict"] for row in report["rows"]}


def rehearse(environment: Environment, project: ProjectMaker, name: str, handler: str, count: int, spec: str = BOTH, **options: Any) -> int:
    """The version that was rehearsed."""
    return project(name, handler, spec).deploy(environment, rehearse=count, **options).version


def test_a_rehearsal_tells_truly_what_would_change_and_changes_nothing_public(environment: Environment, project: ProjectMaker) -> None:
    name = "re-truly"
    ids = produced(environment, project, name, [{"n": 1}, {}, {"n": 3}, {"n": 4}, {"n": 5}, {"n": 6}])
    store = environment.redis()
    with environment.client() as client:
        wait_until(lambda: all(client.workload(name, one)["status"] != "in_progress" for one in ids), "all ends are committed")
        before, moved = public_state(store, name), moves(store, name)
        answers, logs = [client.result(name, one) for one in ids], [client.workload_log(name, one) for one in ids]
        version = rehearse(environment, project, name, AFTER, 10)
        report = client.rehearsal(name, version)

        said = ["same_result", "fixed", "fails_here", "changed", "fails_here", "same_result"]
        assert verdicts(report) == dict(zip(ids, said, strict=True))
        assert (report["same"], report["live"], report["redacted"]) == (False, 1, 0)
        assert report["counts"] == {"same_result": 2, "fixed": 1, "fails_here": 2, "changed": 1}
        rows = {row["id"]: row for row in report["rows"]}
        fixed, fails, changed, died = (rows[ids[at]] for at in (1, 2, 3, 4))
        assert fixed["production"]["error"]["type"] == "KeyError"
        assert (fails["here"]["error"], fails["here"]["place"]) == ({"type": "ValueError", "message": "three"}, "handler.py, line 14")
        assert len(fails["here"]["fingerprint"]) == 12
        assert [(row["path"], row["then"], row["now"]) for row in changed["difference"]["rows"]] == [("result.twice", "8", "9")]
        assert died["here"]["error"]["type"] == "ReplicaDied"
        assert "exit status 7" in died["here"]["error"]["message"]
        assert set(report["speed"]) == {"production", "here"}
        assert all(times["p95"] >= times["median"] >= 0 for times in report["speed"].values())

        assert public_state(store, name) == before, "records, indexes, results, payloads, counters, the metrics client's totals"
        assert moves(store, name) == moved
        assert [client.result(name, one) for one in ids] == answers
        assert [client.workload_log(name, one) for one in ids] == logs
        api = client.get_api(name)
        assert (api["live"], api["wanted"], api["status"], api["stale"]) == (1, 1, "live", 0)
        told = api["rehearsal"]
        assert (told["version"], told["state"], told["live"], told["total"], told["done"]) == (version, "rehearsed", 1, 6, 6)
        assert told["counts"] == report["counts"]
        assert "cortex_metric_seen" not in environment.http().get("/metrics", headers={"authorization": f"Bearer {environment.token}"}).text

        def shadowed() -> list[dict[str, Any]]:
            return [line for line in client.logs(name, 10_000) if "shadowed" in line.get("message", "")]

        wait_until(lambda: {line["rehearsed_id"] for line in shadowed()} == set(ids), "a line of each is shipped")
        assert {line["rehearsal"] for line in shadowed()} == {version}
        assert all("request_id" not in line for line in shadowed())
        assert store.ttl(keys.rehearsal(name, version)) > 0
        client.delete(name)
        wait_until(lambda: not store.exists(keys.events(name)), "it is purged")
        assert list(store.scan_iter(f"{keys.prefix(name)}:*", count=1000)) in ([], [f"{keys.prefix(name)}:deleting".encode()])


SLOW = """
    import os
    import time

    class Handler:
        def handle_async(self, payload):
            while payload.get("until") and not os.path.exists(payload["until"]):
                time.sleep(0.01)
            return {"by": %d}
"""


def test_what_was_promoted_is_live_as_a_deploy_would_be_and_what_runs_is_finished(
    environment: Environment, project: ProjectMaker, tmp_path: Path
) -> None:
    name, door = "re-promote", tmp_path / "door"
    produced(environment, project, name, [{"n": 1}], SLOW % 1)
    with environment.client() as client:
        version = rehearse(environment, project, name, SLOW % 2, 5)
        running = client.submit(name, {"until": str(door)})
        wait_until(lambda: client.result(name, running).status == "in_progress", "it runs")
        waiting = [client.submit(name, {}) for _ in range(5)]
        assert client.promote(name, version, source="here.ipynb").version == version
        assert client.get_api(name)["rehearsal"] is None, "it is decided"
        assert [client.result(name, one, wait=30).result for one in waiting] == [{"by": 2}] * 5
        door.touch()
        assert client.result(name, running, wait=30).result == {"by": 1}
        assert client.get_api(name)["live"] == version
        (entry,) = client.audit(name)
        assert (entry["what"], entry["version"], entry["source"]) == ("promote", version, "here.ipynb")
        assert client.rehearsal(name, version)["counts"] == {"changed": 1}, "the report stays"
        for decide in (client.promote, client.drop):
            with pytest.raises(CortexError) as caught:
                decide(name, version)
            assert caught.value.status == 409
        assert client.rollback(name).version == version + 1, "and back"
        client.delete(name)


def gone(environment: Environment, name: str, version: int) -> bool:
    """Nothing of a rehearsal is left."""
    home, store = environment.home, environment.redis()
    left = [*home.glob(f"run/rehearsal-{name}-*"), *home.glob(f"projects/{name}-v{version}-*"), *home.glob(f"run/worker-{name}-{version}.lock")]
    reports = store.exists(keys.rehearsal(name, version), keys.report(name, version))
    return not left and not reports and not store.sismember(keys.active(name), str(version))


def test_dropped_while_it_runs_it_ends_at_once_and_leaves_nothing(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    name, pids = "re-drop", tmp_path / "pids"
    produced(environment, project, name, [{"n": 1}, {"n": 2}])
    hangs = f"""
        import os
        import time

        class Handler:
            def handle_async(self, payload):
                with open({str(pids)!r}, "a") as file:
                    file.write(f"{{os.getpid()}}\\n")
                time.sleep(3600)
    """
    version = rehearse(environment, project, name, hangs, 2, wait=False)
    wait_until(lambda: environment.processes("rehearsal", name), "it is among the processes of the environment")
    with environment.client() as client:
        pid = int(wait_until(lambda: pids.exists() and pids.read_text().strip(), "it runs the first one"))
        assert client.deployment(name, version)["state"] == client.get_api(name)["rehearsal"]["state"] == "rehearsing"
        client.drop(name, version)
        assert client.get_api(name)["rehearsal"] is None
        assert client.deployment(name, version)["state"] == "stopped"
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the shadow is gone")
        wait_until(lambda: gone(environment, name, version), "all of it is gone")
        with pytest.raises(CortexError, match="no report"):
            client.rehearsal(name, version)
        with pytest.raises(CortexError, match="never became live"):
            client.rollback(name, version)
        client.delete(name)


def test_undecided_it_is_dropped_after_a_day_and_at_once_for_the_next(environment: Environment, project: ProjectMaker) -> None:
    name = "re-day"
    produced(environment, project, name, [{"n": 1}])
    store = environment.redis()
    with environment.client() as client:
        first = rehearse(environment, project, name, BEFORE, 1)
        second = rehearse(environment, project, name, BEFORE, 1)
        assert (client.deployment(name, first)["state"], client.deployment(name, second)["state"]) == ("stopped", "rehearsed")
        assert client.rehearsal(name, second)["same"]
        client.put_report(name, second, json.dumps({"cells": []}).encode())
        yesterday = int((time.time() - UNDECIDED_S - 60) * 1000)
        store.hset(keys.deployment(name, second), mapping={"created": yesterday, "rehearsed_at": yesterday})
        wait_until(lambda: client.deployment(name, second)["state"] == "stopped", "it is dropped")
        wait_until(lambda: gone(environment, name, second), "nothing of it is left")
        client.delete(name)


def test_a_version_that_cannot_start_fails_its_rehearsal_and_says_why(environment: Environment, project: ProjectMaker) -> None:
    name = "re-broken"
    produced(environment, project, name, [{"n": 1}])
    with pytest.raises(CortexError, match=r"version 2 did not start: .*no such model"):
        rehearse(environment, project, name, "raise RuntimeError('no such model')\nclass Handler:\n    def handle_async(self): return {}\n", 1)
    with environment.client() as client:
        api = client.get_api(name)
        assert (api["status"], api["message"], api["rehearsal"]["state"]) == ("live", "", "failed")
        assert "no such model" in api["rehearsal"]["message"]
        project(name, BEFORE, f"{BOTH}\ndrain_timeout: 60s").deploy(environment)
        assert client.get_api(name)["rehearsal"] is None, "a deploy after it makes it history"
        assert client.result(name, client.submit(name, {"n": 2}), wait=30).result == {"twice": 4, "kept": "x"}
        client.delete(name)


def test_a_rehearsal_whose_own_process_is_killed_begins_anew(environment: Environment, project: ProjectMaker, tmp_path: Path) -> None:
    name, door = "re-killed", tmp_path / "door"
    produced(environment, project, name, [{"n": 1}])
    waits = f"""
        import os
        import time

        class Handler:
            def handle_async(self, payload):
                while not os.path.exists({str(door)!r}):
                    time.sleep(0.01)
                return {{"twice": 2, "kept": "x"}}
    """
    version = rehearse(environment, project, name, waits, 1, wait=False)
    slot = environment.slot(f"worker-{name}-{version}")
    # Until it is started, its slot says who starts it.
    operator = environment.slot("operator").pid()
    pid = wait_until(lambda: None if slot.pid() == operator else slot.pid(), "it runs")
    os.kill(pid, 9)
    wait_until(lambda: slot.pid() not in (None, pid), "another one runs")
    door.touch()
    with environment.client() as client:
        client.wait_rehearsed(name, version)
        assert client.rehearsal(name, version)["counts"] == {"same_result": 1}
        client.delete(name)


def test_the_specs_timeout_ends_what_takes_too_long_also_in_the_shadow(environment: Environment, project: ProjectMaker) -> None:
    name = "re-timeout"
    ids = produced(environment, project, name, [{"n": 1}, {"n": 2}])
    slow = """
        import time

        class Handler:
            def handle_async(self, payload):
                if payload["n"] == 1:
                    time.sleep(3600)
                return {"twice": 4, "kept": "x"}
    """
    version = rehearse(environment, project, name, slow, 2, f"{BOTH}\ntimeout: 300ms\ncancel_grace: 100ms")
    with environment.client() as client:
        rows = {row["id"]: row for row in client.rehearsal(name, version)["rows"]}
        first, second = rows[ids[0]], rows[ids[1]]
        assert (first["verdict"], first["here"]["error"]["type"]) == ("fails_here", "DeadlineExceeded")
        assert second["verdict"] == "same_result"
        client.delete(name)


def refused(deploy: Callable[[], Any], *words: str) -> None:
    with pytest.raises(CortexError) as caught:
        deploy()
    assert caught.value.status == 409
    for word in words:
        assert word in caught.value.message


def test_without_payloads_or_the_specs_consent_it_is_refused_with_place_and_remedy(environment: Environment, project: ProjectMaker) -> None:
    name = "re-refused"

    def attempt(spec: str) -> Callable[[], Any]:
        return lambda: rehearse(environment, project, name, BEFORE, 5, spec)

    with pytest.raises(CortexError, match="re-refused is not deployed"):
        attempt(BOTH)()
    produced(environment, project, name, [{"n": 1}], spec="")
    consent = ("`rehearse: true` in the cortex.yaml of what is deployed", "cortex_rehearsal")
    payloads = ("`retain: {payload: always}` in the cortex.yaml of version 1, which is live",)
    refused(attempt(""), *consent, *payloads)
    refused(attempt("rehearse: true"), *payloads)
    assert project(name, BEFORE, KEPT).deploy(environment).version == 2
    refused(attempt(KEPT), *consent)
    refused(attempt(BOTH), "no ended request whose payload is kept")
    with environment.client() as client:
        assert [one["version"] for one in client.get_api(name)["api_versions"]] == [2, 1], "a refusal leaves no version behind"
        client.delete(name)


def test_what_the_spec_redacts_is_rehearsed_redacted_and_counted(environment: Environment, project: ProjectMaker) -> None:
    name, secret = "re-redact", "4000-1234-5678"
    echo = 'class Handler:\n    def handle_async(self, payload):\n        raise ValueError(f\'card {payload["card"]} of {payload["n"]}\')\n'
    redact = 'retain: {payload: always, redact: ["$.card"]}'
    produced(environment, project, name, [{"card": secret, "n": 1}, {"n": 2, "card": None}], echo, redact)
    version = rehearse(environment, project, name, echo, 5, f"{redact}\nrehearse: true")
    with environment.client() as client:
        report = client.rehearsal(name, version)
        assert report["redacted"] == sum(row["redacted"] for row in report["rows"]) >= 1
        assert report["counts"] == {"same_failure": 2}
        assert secret not in json.dumps(report)
        store = environment.redis()
        for key in store.scan_iter(f"{keys.prefix(name)}:*", count=1000):
            assert secret.encode() not in (store.dump(key) or b"")
        client.delete(name)


def test_the_shell_shows_the_report_and_promotes_only_what_is_the_same(environment: Environment, project: ProjectMaker) -> None:
    name = "re-shell"
    (request_id,) = produced(environment, project, name, [{"n": 4}])
    made = project(name, AFTER, BOTH)
    config = str(made.directory / "cortex.yaml")
    done = environment.cortex("deploy", config, "--rehearse", "9", "--promote-if-same", check=False)
    assert done.returncode == 1
    assert "version 2 of re-shell ran 1 requests of production, beside version 1" in done.stdout
    assert f"{request_id}" in done.stdout
    assert "result.twice: 8 → 9" in done.stdout
    assert "`cortex promote re-shell 2` makes it live" in done.stdout
    assert "result.twice: 8 → 9" in environment.cortex("get", name, "--rehearsal", "2").stdout
    assert environment.cortex("drop", name).stdout.strip() == "dropped version 2 of re-shell"
    project(name, BEFORE, BOTH)
    same = environment.cortex("deploy", config, "--rehearse", "9", "--promote-if-same").stdout
    assert "re-shell is live (version 3)" in same
    report = json.loads(environment.cortex("deploy", config, "--rehearse", "1", "-o", "json").stdout)
    assert (report["version"], report["counts"], report["promoted"]) == (4, {"same_result": 1}, False)
    assert "re-shell is live (version 4)" in environment.cortex("promote", name).stdout
    environment.client().delete(name)


def test_of_several_apis_those_that_were_rehearsed_have_their_reports_shown(environment: Environment, project: ProjectMaker) -> None:
    one, other = "re-shown", "re-refused"
    produced(environment, project, one, [{"n": 4}])
    project(other).deploy(environment)
    config = project(one, AFTER, BOTH).directory / "cortex.yaml"
    config.write_text(config.read_text() + config.read_text().replace(one, other))
    done = environment.cortex("deploy", str(config), "--rehearse", "9", "--promote-if-same", check=False)
    assert done.returncode == 1
    assert "result.twice: 8 → 9" in done.stdout
    assert f"{other}: " in done.stderr
    assert "Rehearsed all the same: re-shown (version 2)." in done.stderr
    with environment.client() as client:
        assert client.get_api(one)["live"] == 1, "what is refused in part promotes nothing"
        for name in (one, other):
            client.delete(name)


def test_a_store_that_is_away_makes_no_workload_gone() -> None:
    rehearsal = object.__new__(Rehearsal)
    rehearsal.api, rehearsal.client = "any", connect("redis://127.0.0.1:9")
    with pytest.raises(StoreUnavailable):
        rehearsal._one("some-id", None)
