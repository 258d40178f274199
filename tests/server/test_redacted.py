"""What a spec redacts is found nowhere in the store, whatever happened to the workload, and in no answer."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from jupyter_cortex.client import Client
from jupyter_cortex.core.errors import PayloadGone
from jupyter_cortex.store import keys
from tests.conftest import Environment, ProjectMaker, children, runs, wait_until

SECRET = "hunter22-of-the-caller"
NUMBER = 4929123412341234
SPEC = """
    max_deliveries: 1
    retain: {payload: %s, redact: [$.card, $..pin, "$.list[*].pin"]}
"""
LEAKY = """
    import json, logging, os, subprocess, sys, threading, time

    logger = logging.getLogger("cortex")

    class Handler:
        def handle_async(self, payload, request_id):
            if isinstance(payload, (str, bytes)):
                raise ValueError("cannot read this")
            pin = payload["pin"]
            print("printed", pin, json.dumps(payload))
            logger.warning("logged %r", payload, extra={"pin": pin, "number": payload["card"]["number"]})
            os.write(1, f"past the logger: {pin}\\n".encode())
            subprocess.run([sys.executable, "-c", f"print('a child: {pin}')"], check=True)
            thread = threading.Thread(target=lambda: print("a thread:", pin))
            thread.start()
            thread.join()
            how = payload["how"]
            if how == "die":
                os.write(2, f"last words {pin}\\n".encode())
                os.kill(os.getpid(), 9)
            if how == "wait":
                while not os.path.exists(payload["until"]):
                    time.sleep(0.02)
            if how == "complete":
                return {"fine": True}
            try:
                {}[pin]
            except KeyError as error:
                raise RuntimeError(f"cannot charge {payload['card']['number']} with {pin!r}") from error
"""


@pytest.fixture
def client(environment: Environment) -> Iterator[Client]:
    with environment.client() as made:
        yield made


def whole(store: redis.Redis) -> bytes:
    """Everything that the store holds, of every type."""
    found = []
    for key in store.scan_iter(count=10_000):
        found.append(key)
        kind = store.type(key)
        if kind == b"string":
            found.append(store.get(key))
        elif kind == b"hash":
            found += [part for pair in store.hgetall(key).items() for part in pair]
        elif kind == b"list":
            found += store.lrange(key, 0, -1)
        elif kind == b"set":
            found += store.smembers(key)
        elif kind == b"zset":
            found += store.zrange(key, 0, -1)
        elif kind != b"none":  # one that went in between, as tokens that wake a replica do
            assert kind == b"stream", kind
            found += [part for _, fields in store.xrange(key) for pair in fields.items() for part in pair]
    return b"\n".join(found)


def payload(how: str, **more: str) -> dict[str, object]:
    return {"how": how, "pin": SECRET, "card": {"number": NUMBER, "name": "N. N."}, "list": [{"pin": SECRET}], **more}


@pytest.mark.parametrize("retain", ["failed", "always"])
def test_no_store_no_log_and_no_answer_shows_it(
    environment: Environment, client: Client, project: ProjectMaker, retain: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, door = f"redacted-{retain}", tmp_path_factory.mktemp("door") / "open"
    project(name, LEAKY, SPEC % retain).deploy(environment)
    ids = {how: client.submit(name, payload(how), request_id=f"{name}-{how}") for how in ("raise", "complete", "die")}
    ids["wait"] = client.submit(name, payload("wait", until=str(door)))
    ids["text"] = client.submit(name, f"pin={SECRET}")
    for how in ("raise", "complete", "die"):
        assert client.result(name, ids[how], wait=60).status in ("failed", "completed"), how
    with environment.redis() as store:
        wait_until(lambda: client.workload(name, ids["wait"])["status"] == "in_progress", "it runs")
        assert SECRET.encode() not in client.payload(name, ids["wait"])[1], "nor while it runs"
        client.cancel(name, ids["wait"])
        door.touch()
        assert client.result(name, ids["text"], wait=60).status == "failed"
        # A line that is shipped after all others: then they are there, too.
        last = client.submit(name, payload("raise"), request_id=f"{name}-last")
        client.result(name, last, wait=60)
        wait_until(lambda: any(line.get("request_id") == last and "exc_info" in line for line in client.logs(name)), "the last line is shipped")
        wait_until(lambda: any("past the logger" in str(line["message"]) for line in client.logs(name, 1000)), "what is left out is said")
        shown = whole(store)
        for secret in (SECRET, str(NUMBER), SECRET[:15]):
            assert secret.encode() not in shown
        assert b"***" in shown
    _check_answers(client, name, ids, retain)


def _check_answers(client: Client, name: str, ids: dict[str, str], retain: str) -> None:
    answers = [client.logs(name, 1000), client.failures(name), client.workloads(name), *(client.workload(name, one) for one in ids.values())]
    answers += [vars(client.result(name, one)) for one in ids.values()]
    assert SECRET not in json.dumps(answers, default=str)
    for how in ("raise", "die", *(["complete"] if retain == "always" else [])):
        kept = json.loads(client.payload(name, ids[how])[1])
        assert kept == {"how": how, "pin": "***", "card": "***", "list": [{"pin": "***"}]}, how
        assert client.workload(name, ids[how])["redacted"]
    for how in ("text", "wait"):
        with pytest.raises(PayloadGone, match="redact" if how == "text" or retain == "always" else "deleted"):
            client.payload(name, ids[how])
    failed = client.workload(name, ids["raise"])
    assert failed["error"]["message"] == "cannot charge *** with '***'"
    assert "KeyError" in failed["failure"]["traceback"], "the rest is there"
    refused = client.requeue(name, [ids["raise"]])["refused"][0]["reason"]
    assert "redacted" in refused


def test_a_payload_without_what_is_redacted_runs_again(environment: Environment, client: Client, project: ProjectMaker) -> None:
    handler = "class Handler:\n    def handle_async(self, payload):\n        return {'n': 1 / payload['n']}\n"
    project("redacted-not", handler, SPEC % "failed").deploy(environment)
    failed = client.submit("redacted-not", {"n": 0})
    assert client.result("redacted-not", failed, wait=60).status == "failed"
    assert not client.workload("redacted-not", failed)["redacted"]
    assert client.requeue("redacted-not", [failed])["requeued"] == [failed]


def test_a_payload_that_waits_is_shown_without_it(environment: Environment, client: Client, project: ProjectMaker) -> None:
    project("redacted-queue", spec=SPEC % "failed").deploy(environment)
    client.stop("redacted-queue")
    wait_until(lambda: not any(worker["replicas"] for worker in client.get_api("redacted-queue")["workers"].values()), "nobody takes it")
    waiting = client.submit("redacted-queue", payload("complete"))
    assert json.loads(client.payload("redacted-queue", waiting)[1])["pin"] == "***"
    text = client.submit("redacted-queue", "no json")
    with pytest.raises(PayloadGone, match=r"no JSON"):
        client.payload("redacted-queue", text)
    with environment.redis() as store:
        assert SECRET.encode() in store.get(keys.body("redacted-queue", waiting)), "its replica will need it"


def test_a_result_is_the_author_s_answer_as_it_is(environment: Environment, client: Client, project: ProjectMaker) -> None:
    project("redacted-echo", spec=SPEC % "always").deploy(environment)
    echoed = client.submit("redacted-echo", payload("complete"))
    assert client.result("redacted-echo", echoed, wait=60).result["payload"]["pin"] == SECRET


UNTIL = """
import os, time

class Handler:
    def handle_async(self, payload):
        while not os.path.exists(payload["until"]):
            time.sleep(0.01)
        return {}
"""


def test_a_replica_that_dies_while_the_store_is_paused_takes_no_worker_with_it(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    environment = own_environment()
    project("paused", UNTIL, spec="retain: {payload: failed, redact: [$.secret]}").deploy(environment)
    client = environment.client()
    request_id = client.submit("paused", {"until": str(tmp_path / "now"), "secret": "x"})
    wait_until(lambda: client.result("paused", request_id).status == "in_progress", "it runs")
    (replica,) = environment.processes("replica", "paused")
    worker, store = environment.slot("worker-paused-1").pid(), environment.slot("store").pid()
    assert worker
    assert store
    os.kill(store, signal.SIGSTOP)
    try:
        os.kill(replica["pid"], signal.SIGKILL)
        # It looks for the payload, is not answered, and looks again: the dead one's successor is there by then, or the worker is gone.
        wait_until(lambda: not runs(worker) or another(worker, replica["pid"]), "another replica is started")
    finally:
        os.kill(store, signal.SIGCONT)
    (tmp_path / "now").touch()
    assert client.result("paused", request_id, wait=60).status == "completed"
    assert client.workload("paused", request_id)["deaths"] == 1
    assert environment.slot("worker-paused-1").pid() == worker


def another(worker: int, than: int) -> list[int]:
    return [child.pid for child in children(worker, "jupyter_cortex.serving.replica") if child.pid != than]
