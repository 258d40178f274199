"""A request of production in a kernel: replayed beside what production answered, debugged, kept as a sample, put back into the queue."""

from __future__ import annotations

import json
import queue
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from jupyter_cortex.magics import replay

from ..conftest import Environment, ProjectMaker, wait_until
from .conftest import WAIT_S, Kernel, KernelMaker, Ran, Shell
from .test_widgets import FrontEnd

HANDLER = """
from cortex_internal.lib.log import logger

LABELS = {"a": 1.0}


def look_up(payload):
    word = payload["word"]
    return LABELS[word]


class Handler:
    def __init__(self, config):
        self.config = config

    def handle_async(self, payload, request_id):
        logger.info("looking", extra={"replayed": self.config.get("cortex_replay", False)})
        return {"value": look_up(payload), "factor": self.config.get("factor", 1)}
"""
FIXED = HANDLER.replace('payload["word"]', 'payload.get("word", "a")')
SPEC = "- name: {name}\n  kind: AsyncAPI\n  handler: {{type: python, path: handler.py, config: {{factor: 2}}}}\n  retain: {{payload: always}}\n"
GOOD, BAD, OTHER = {"word": "a"}, {"wort": "a"}, {"word": "b"}


class Story:
    """A notebook in a kernel whose Handler is deployed, and its environment."""

    def __init__(self, kernel: Kernel, environment: Environment, name: str, root: Path) -> None:
        self.kernel, self.environment, self.client, self.name, self.root = kernel, environment, environment.client(), name, root

    def sent(self, *payloads: Any) -> list[str]:
        """Ids of requests that have ended, each sent when the one before had: those of one millisecond are listed in any order."""
        ids = []
        for payload in payloads:
            ids.append(self.client.submit(self.name, payload))
            assert self.client.result(self.name, ids[-1], wait=60).status in ("completed", "failed")
        return ids

    def run(self, line: str, **options: Any) -> Ran:
        return self.kernel.run(line, **options)

    def data(self, line: str) -> Any:
        return json.loads(self.run(f"{line} -o json").stdout.strip().splitlines()[-1])

    def refused(self, line: str) -> str:
        ran = self.run(line, check=False)
        assert ran.error_name, ran
        assert "site-packages" not in ran.traceback
        assert "jupyter_cortex/" not in ran.traceback
        return ran.error

    def group(self) -> dict[str, Any]:
        found = self.client.failures(self.name)
        assert len(found) == 1, found
        return found[0]


StoryMaker = Callable[..., Story]


@pytest.fixture
def story(kernel: KernelMaker, environment: Environment, tmp_path: Path) -> StoryMaker:
    def make(name: str, handler: str = HANDLER, spec: str = SPEC) -> Story:
        (tmp_path / "project").mkdir()
        root = tmp_path / "project"
        if spec:
            (root / "cortex.yaml").write_text(spec.format(name=name))
        made = Story(kernel(root), environment, name, root)
        made.run(handler)
        if "class Handler" in handler:
            made.run(f"%cortex deploy {name} --no-check")
        return made

    return make


# Replay -------------------------------------------------------------------------------------------------------------------------------------


def test_a_failure_of_production_fails_here_the_same_way_and_its_fix_is_seen(story: StoryMaker) -> None:
    one = story("replay-fix")
    bad, other = one.sent(BAD, OTHER)
    shown = one.run(f"%cortex replay {bad}")
    for text in (shown.text, shown.html):
        assert "the same failure as in production" in text
        assert "KeyError" in text
        assert "In [1], line 8, in look_up" in text, "the place here, and the same in production's traceback"
        assert "version 1" in text
        assert "looking" in text
    assert one.data(f"%cortex replay {other}")["verdict"]["kind"] == "same_failure"
    one.run(HANDLER.replace('payload["word"]', 'payload.strip("word")'))
    assert one.data(f"%cortex replay {bad}")["verdict"] == {"kind": "another_failure", "text": "it fails here, too, but otherwise"}
    one.run(FIXED)
    row = one.data(f"%cortex replay {bad}")
    assert row["verdict"]["kind"] == "fixed"
    assert row["here"]["result"] == {"value": 1.0, "factor": 2}
    assert row["production"]["error"] == {"type": "KeyError", "message": "'word'"}


def test_a_failure_stays_the_same_one_when_its_lines_move(story: StoryMaker) -> None:
    one = story("replay-moved")
    (bad,) = one.sent(BAD)
    one.run("# a cell between\n" + HANDLER.replace("def look_up", "# moved\n# down\ndef look_up"))
    assert one.data(f"%cortex replay {bad}")["verdict"]["kind"] == "same_failure"


def test_a_failure_in_a_module_of_the_project_under_an_async_handler_is_the_same_one_here(story: StoryMaker) -> None:
    handler = "import helper\n\nclass Handler:\n    async def handle_async(self, payload):\n        return {'x': await helper.look(payload)}\n"
    one = story("replay-async", handler="pass", spec="")
    (one.root / "helper.py").write_text("async def look(payload):\n    return payload['word']\n")
    one.run(handler)
    one.run("%cortex deploy replay-async --no-check")
    (bad,) = one.sent(BAD)
    row = one.data(f"%cortex replay {bad}")
    assert row["verdict"]["kind"] == "same_failure"
    assert "helper.py" in row["here"]["traceback"]
    assert one.data(f"%cortex replay {bad} --in 1")["verdict"]["kind"] == "same_failure"
    (one.root / "helper.py").write_text("async def look(payload):\n    return payload.get('word')\n")
    assert "helper.py differs" in one.data(f"%cortex replay {bad}")["drift"]
    assert one.data(f"%cortex replay {bad} --in 1")["verdict"]["kind"] == "same_failure", "with the files that were deployed"


def test_a_name_that_is_refused_is_not_the_notebook_s_from_then_on(story: StoryMaker) -> None:
    one = story("replay-name")
    (good,) = one.sent(GOOD)
    assert "cortex.yaml has no API elsewhere" in one.refused("%cortex payload --name elsewhere --file cortex.yaml")
    assert one.data(f"%cortex replay {good}")["verdict"]["kind"] == "same_result"


def test_what_ended_its_replicas_does_not_end_the_kernel_unasked(story: StoryMaker) -> None:
    deadly = HANDLER.replace("        logger.info", "        import os\n        payload.get('exit') and os._exit(9)\n        logger.info")
    one = story("replay-deadly", deadly)
    (request_id,) = one.sent({"exit": True})
    group = one.group()["fingerprint"]
    for line in (f"%cortex replay {request_id}", f"%cortex replay --group {group}", f"%cortex replay {request_id} --in 1"):
        said = one.refused(line)
        assert "would end this kernel" in said
        assert "exit status 9" in said
        assert "--anyway` runs it here" in said
    shown = one.run(f"%cortex result {one.name} {request_id}")
    for text in (shown.text, shown.html):
        assert "traceback is in" not in text, "there is none"
        assert f"`%cortex replay {request_id} --name {one.name} --anyway`" in text.replace("<code>", "`").replace("</code>", "`")
    one.run(FIXED)
    assert one.data(f"%cortex replay {request_id} --anyway")["here"]["error"] is None


def test_results_are_compared_by_path(story: StoryMaker) -> None:
    one = story("replay-result")
    (good,) = one.sent(GOOD)
    assert one.data(f"%cortex replay {good}")["verdict"]["text"] == "the same result as in production"
    one.run(HANDLER.replace('"factor": self', '"more": [1], "Factor": self').replace("1.0}", "1.0000000001}"))
    row = one.data(f"%cortex replay {good}")
    assert row["verdict"] == {"kind": "changed", "text": "another result than in production: 4 differences"}
    assert [(found["kind"], found["path"]) for found in row["difference"]["rows"]] == [
        ("close", "result.value"),
        ("removed", "result.factor"),
        ("added", "result.more"),
        ("added", "result.Factor"),
    ]
    shown = one.run(f"%cortex replay {good}")
    for text in (shown.text, shown.html):
        assert "result.factor" in text
        assert "1e-06" in text
    one.run(HANDLER.replace("1.0}", "1.0000000001}"))
    assert one.data(f"%cortex replay {good}")["verdict"]["text"] == "the same result as in production (numbers within 1e-06)"
    one.run(HANDLER.replace("1.0}", "}").replace('"a": ', ""))
    assert one.data(f"%cortex replay {good}")["verdict"]["text"] == "it succeeded in production and fails here"


def test_a_handler_can_tell_that_it_is_replayed(story: StoryMaker) -> None:
    one = story("replay-guard")
    (good,) = one.sent(GOOD)
    row = one.data(f"%cortex replay {good}")
    assert [record["replayed"] for record in row["here"]["records"]] == [True]
    wait_until(lambda: one.data(f"%cortex replay {good}")["production"]["records"], "production's log lines have arrived")
    row = one.data(f"%cortex replay {good}")
    assert [record["replayed"] for record in row["production"]["records"]] == [False]
    row = json.loads(one.run('%%cortex payload -t application/json -o json\n{"word": "a"}').stdout.splitlines()[-1])
    assert [record["replayed"] for record in row["records"]] == [False]


def test_a_deployed_version_runs_beside_the_notebook_which_it_leaves_alone(story: StoryMaker) -> None:
    one = story("replay-in")
    bad, good = one.sent(BAD, GOOD)
    one.run(FIXED.replace("1.0}", "7.0}"))
    assert one.data(f"%cortex replay {bad}")["verdict"]["kind"] == "fixed"
    row = one.data(f"%cortex replay {bad} --in 1")
    assert (row["ran"], row["verdict"]["kind"]) == ("version 1", "same_failure")
    assert 'File "handler.py", line' in row["here"]["traceback"]
    assert "(In [1], line 8)" in row["here"]["traceback"]
    assert one.data(f"%cortex replay {good} --in 1")["verdict"]["kind"] == "same_result"
    assert one.kernel.value("LABELS") == {"a": 7.0}
    assert one.kernel.value("[name for name in __import__('sys').modules if name == 'cortex_async_handler']") == []
    assert one.data(f"%cortex replay {good}")["verdict"]["kind"] == "changed"
    assert "version 1" in one.run(f"%cortex replay {bad} --in 1").html
    assert "has no version 9" in one.refused(f"%cortex replay {bad} --in 9")


def debugged(kernel: Kernel, code: str, *answers: str) -> str:
    """Run a cell that asks, as a person at the prompt does; what it printed."""
    answers_left = [*answers, "q"]
    parent = kernel.client.execute(code, allow_stdin=True)
    printed = ""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            kernel.client.get_stdin_msg(timeout=0.05)
            kernel.client.input(answers_left.pop(0))
        except queue.Empty:
            pass
        try:
            message = kernel.client.get_iopub_msg(timeout=0.05)
        except queue.Empty:
            continue
        if message["parent_header"].get("msg_id") != parent:
            continue
        if message["msg_type"] == "stream":
            printed += message["content"]["text"]
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return re.sub(r"\x1b\[[0-9;]*m", "", printed)
    pytest.fail(f"the debugger did not end: {printed}")


def test_debug_enters_the_failing_frame(story: StoryMaker) -> None:
    one = story("replay-debug")
    (bad,) = one.sent(BAD)
    one.run("1 / 0", check=False)
    began = time.monotonic()
    one.run(f"%cortex replay {bad}")
    said = debugged(one.kernel, "%debug", "p 'keys', sorted(payload)", "up", "p request_id")
    print(f"replay and the failing frame: {time.monotonic() - began:.2f} s")
    assert "('keys', ['wort'])" in said
    assert bad in said
    one.run("1 / 0", check=False)
    one.run(f"%cortex replay {bad} --in 1")
    said = debugged(one.kernel, "%debug", "p 'keys', sorted(payload)", "l")
    assert "('keys', ['wort'])" in said
    assert 'word = payload["word"]' in said, "the version's own source is there to read"


def test_what_is_not_as_in_production_is_named(story: StoryMaker) -> None:
    one = story("replay-drift")
    assert one.data(f"%cortex replay {one.sent(GOOD)[0]}")["drift"] == []
    (one.root / "labels.txt").write_text("a\n")
    (one.root / "gone.txt").write_text("a\n")
    one.run("import yaml")
    one.run(HANDLER.replace("LABELS =", "YAML = yaml.__version__\nLABELS =") + "    def used(self):\n        return YAML\n")
    one.run("%cortex deploy replay-drift --no-check")
    (good,) = one.sent(GOOD)
    (one.root / "labels.txt").write_text("b\n")
    (one.root / "gone.txt").unlink()
    (one.root / "cortex.yaml").write_text(SPEC.format(name="replay-drift").replace("factor: 2", "factor: 3"))
    one.run("import importlib.metadata, platform\nplatform.python_version = lambda: '3.1.4'")
    one.run("_version = importlib.metadata.version\nimportlib.metadata.version = lambda name: '0.1' if name == 'PyYAML' else _version(name)")
    row = one.data(f"%cortex replay {good}")
    told = "\n".join(row["drift"])
    assert "this kernel is Python 3.1.4" in told
    assert "and is 0.1 here" in told
    assert "config factor was 2 in version 2 and is 3 here" in told
    assert "labels.txt differs" in told
    assert "gone.txt of that version is not here" in told
    assert [found["path"] for found in row["difference"]["rows"]] == ["result.factor"]
    shown = one.run(f"%cortex replay {good}")
    assert "labels.txt differs" in shown.text
    assert "labels.txt differs" in shown.html


def test_without_a_cortex_yaml_the_config_is_production_s(story: StoryMaker) -> None:
    one = story("replay-config", spec="")
    one.run("%cortex deploy replay-config --no-check --config factor=5")
    (bad,) = one.sent(BAD)
    one.run(FIXED)
    assert one.data(f"%cortex replay {bad}")["here"]["result"] == {"value": 1.0, "factor": 5}
    assert one.data(f"%cortex replay {bad} --config factor=6")["here"]["result"] == {"value": 1.0, "factor": 6}


def test_a_group_is_replayed_as_a_whole_and_bounded(story: StoryMaker) -> None:
    one = story("replay-group")
    one.sent(BAD, BAD, BAD)
    mark = one.group()["fingerprint"]
    data = one.data(f"%cortex replay --group {mark}")
    assert [row["verdict"] for row in data["rows"]] == ["the same failure as in production"] * 3
    assert (data["succeeded"], data["fixed"]) == (0, False)
    one.run(FIXED)
    data = one.data(f"%cortex replay --group {mark[:6]} --limit 2")
    assert ([row["status"] for row in data["rows"]], data["fixed"]) == (["completed"] * 2, True)
    shown = one.run(f"%cortex replay --group {mark}")
    for text in (shown.text, shown.html):
        assert "3 of 3 succeed here" in text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%cortex replay", "give the id of a request, or --group"),
        ("%cortex replay x --group y", "one of them"),
        ("%cortex replay no-such-id", "no-such-id"),
        ("%cortex replay --group ffff", "is no group of failures"),
        ("%cortex requests --since yesterday", "--since 1h"),
        ("%cortex requeue", "give ids, or --group"),
        ("%cortex requeue --group ffff --yes", "is no group of failures"),
        ("%cortex sample --from no-such-id", "no-such-id"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(environment: Environment, kernel_of_refusals: Story, line: str, said: str) -> None:
    assert said in kernel_of_refusals.refused(line)


@pytest.fixture(scope="module")
def kernel_of_refusals(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import os

    root = tmp_path_factory.mktemp("refusals")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER_CORTEX_", "JPY_"))}
    one = Kernel(root, {**environ, "JUPYTER_CORTEX_HOME": str(environment.home), "IPYTHONDIR": str(root / ".ipython")})
    one.run(HANDLER)
    one.run("%cortex deploy replay-refusals --no-check")
    yield Story(one, environment, "replay-refusals", root)
    one.stop()


def test_a_payload_that_is_gone_is_refused_with_the_reason(story: StoryMaker) -> None:
    one = story("replay-gone", spec="")
    (good,) = one.sent(GOOD)
    assert "was deleted when the workload ended (completed)" in one.refused(f"%cortex replay {good}")
    assert "retain: {payload: always}" in one.refused(f"%cortex sample --from {good}")


def test_a_request_that_still_waits_is_replayed_and_production_has_no_answer_yet(story: StoryMaker) -> None:
    one = story("replay-waits")
    one.client.stop(one.name)
    wait_until(lambda: not one.environment.processes("replica", one.name), "the replica is gone")
    row = one.data(f"%cortex replay {one.client.submit(one.name, GOOD)}")
    assert row["verdict"] == {"kind": "unfinished", "text": "production has no answer (in_queue); here it completes"}
    assert row["here"]["result"] == {"value": 1.0, "factor": 2}


def test_a_group_whose_payloads_are_gone_says_so_of_each(story: StoryMaker) -> None:
    one = story("replay-none", spec=SPEC.replace("always", "never"))
    (bad,) = one.sent(BAD)
    one.run(FIXED)
    data = one.data(f"%cortex replay --group {one.group()['fingerprint']}")
    assert (data["succeeded"], data["fixed"]) == (0, False)
    assert [(row["id"], row["status"]) for row in data["rows"]] == [(bad, "gone")]
    assert "was deleted when the workload ended" in data["rows"][0]["verdict"]
    listed = one.data("%cortex requests")
    assert [row["next"] for row in (*listed["groups"], *listed["workloads"])] == [f"%cortex result {one.name} {bad}"] * 2, "no replay is offered"


def test_a_failed_request_explains_itself_also_where_its_payload_is_gone(story: StoryMaker) -> None:
    one = story("replay-explains", spec=SPEC.replace("always", "never"))
    (bad,) = one.sent(BAD)
    looked_up = one.run(f"%cortex result {one.name} {bad}")
    waited = one.run(f"%cortex result {one.name} {bad} --wait 30")
    submitted = one.run(f"%cortex submit {one.name} '{json.dumps(BAD)}' --wait 60")
    shell = one.environment.cortex("result", one.name, bad).stdout
    replayed = one.run(f"%cortex replay {bad}", check=False)
    assert "was deleted when the workload ended (failed)" in replayed.error
    for text in (looked_up.text, looked_up.html, waited.text, waited.html, submitted.text, submitted.html, shell, replayed.text, replayed.html):
        assert "KeyError" in text
        assert "In [1], line 8" in text
        assert re.search(r'word = payload\[("|&quot;)word("|&quot;)\]', text), "the traceback"
        assert "version 1" in text
        assert "accepted 20" in text
        assert text.count("looking") == 1, "its own log line, once"
        assert "%cortex replay" not in text, "no line that would be refused"
    told = one.data(f"%cortex result {one.name} {bad}")["failure"]
    assert (told["place"], told["version"], told["attempts"], told["run"], told["payload_kept"]) == ("In [1], line 8", 1, 1, 1, False)
    assert [record["message"] for record in told["records"]] == ["looking"]
    assert told["replica"]
    assert told["accepted"] <= told["started"] <= told["finished"]


def test_ids_and_fingerprints_of_failures_complete(story: StoryMaker) -> None:
    one = story("replay-complete")
    bad, _ = one.sent(BAD, GOOD)
    lines = "__import__('jupyter_cortex.magics.completion').magics.completion.complete(get_ipython().cortex_session, {!r})"
    assert one.kernel.value(lines.format("%cortex replay ")) == [bad]
    assert one.kernel.value(lines.format(f"%cortex replay {bad[:4]}")) == [bad]
    mark = one.group()["fingerprint"]
    assert one.kernel.value(lines.format("%cortex replay --group ")) == [mark]
    good = one.client.workloads(one.name, "completed")[0]["id"]
    one.client.stop(one.name)
    wait_until(lambda: not one.environment.processes("replica", one.name), "the replica is gone")
    waiting = one.client.submit(one.name, GOOD)
    for line, found in (
        ("requeue ", [bad]),
        (f"requeue --name {one.name} ", [bad]),
        ("requeue --group ", [mark]),
        ("sample --from ", [waiting, good, bad]),
        (f"result {one.name} ", [waiting, good, bad]),
        (f"cancel {one.name} ", [waiting]),
        ("replay --in ", ["1"]),
        ("get -e lo", ["local"]),
        (f"deploy --name {one.name[:-1]}", [one.name]),
    ):
        assert one.kernel.value(lines.format(f"%cortex {line}")) == found, line


def test_a_payload_that_the_spec_redacts_arrives_redacted_and_says_so(story: StoryMaker) -> None:
    spec = SPEC.replace("payload: always}}", "payload: always, redact: [$.pin]}}")
    one = story("replay-redacted", spec=spec)
    (bad,) = one.sent({"wort": "a", "pin": "4711-0815"})
    shown = one.run(f"%cortex replay {bad}")
    for text in (shown.text, shown.html):
        assert "redacted by the spec: $.pin" in text
        assert "4711-0815" not in text
    assert "redacted by the spec: $.pin" in one.run(f"%cortex sample --from {bad}").text
    assert "4711-0815" not in "".join(path.read_text() for path in (one.root / "samples").iterdir())
    one.client.stop(one.name)
    wait_until(lambda: not one.environment.processes("replica", one.name), "the replica is gone")
    waiting = one.run(f"%cortex replay {one.client.submit(one.name, {'wort': 'a', 'pin': '4711-0815'})}")
    assert "redacted by the spec: $.pin" in waiting.text, "one that still waits, too"
    assert "4711-0815" not in waiting.text + waiting.html


REDACTING = SPEC.replace("payload: always}}", "payload: always, redact: [$.pin]}}")


def test_a_group_with_redacted_payloads_says_so_and_offers_no_requeue_that_is_refused(front: Any) -> None:
    one, seen = front("replay-stars", REDACTING)
    (bad,) = one.sent({"wort": "a", "pin": "4711-0815"})
    mark = one.group()["fingerprint"]
    one.run(FIXED)
    data = one.data(f"%cortex replay --group {mark}")
    assert (data["redacted"], data["requeues"], data["rows"][0]["redacted"]) == (1, False, "redacted by the spec: $.pin")
    for line in (f"%cortex replay --group {mark}", f"%cortex replay {bad}"):
        seen.states.clear()
        displays = seen.run(line)
        for text in ("\n".join(one["text/plain"] for one in displays), shown_by(seen)):
            assert "redacted by the spec: $.pin" in text
            assert "%cortex requeue" not in text
        again = seen.states[seen.find("ButtonModel", description="Requeue group")]
        assert (again["disabled"], "redacted" in again["tooltip"]) == (True, True)
    assert "redacted" in one.client.requeue(one.name, ids=[bad])["refused"][0]["reason"]


def test_a_redacted_payload_is_kept_without_the_result_that_it_could_not_give(story: StoryMaker) -> None:
    one = story("replay-stars-kept", FIXED, REDACTING)
    (good,) = one.sent({"word": "a", "pin": "4711-0815"})
    said = one.run(f"%cortex sample stars --from {good}").text
    assert "any result will do, as production's is that of the payload before it was redacted" in said
    assert "redacted by the spec: $.pin: write a value there" in said
    assert "expected" not in yaml.safe_load((one.root / "samples" / "stars.yaml").read_text())


# What follows -------------------------------------------------------------------------------------------------------------------------------


def test_a_failure_is_kept_as_a_sample_that_the_gate_then_demands(story: StoryMaker) -> None:
    one = story("replay-sample")
    bad, good = one.sent(BAD, GOOD)
    mark = one.group()["fingerprint"]
    assert f"kept samples/failed-{mark[:8]}.yaml: it must not fail any more" in one.run(f"%cortex sample --from {bad}").text
    kept = yaml.safe_load((one.root / "samples" / f"failed-{mark[:8]}.yaml").read_text())
    assert (kept["content_type"], json.loads(kept["body"]), "expected" in kept) == ("application/json", BAD, False)
    assert f"kept already: sample failed-{mark[:8]}" in one.refused(f"%cortex sample --from {bad}")
    assert f"kept already: sample failed-{mark[:8]}" in one.refused(f"%cortex sample again --from {bad}")
    assert "with production's result" in one.run(f"%cortex sample fine --from {good}").text
    assert yaml.safe_load((one.root / "samples" / "fine.yaml").read_text())["expected"] == {"value": 1.0, "factor": 2}
    assert "choose another name" in one.refused(f"%cortex sample fine --from {one.sent(OTHER)[0]}")
    assert f"sample failed-{mark[:8]}: KeyError" in one.refused("%cortex deploy replay-sample")
    one.run(FIXED)
    assert "is live" in one.run("%cortex deploy replay-sample").text


def test_a_replay_is_not_what_was_tried_last(story: StoryMaker) -> None:
    one = story("replay-tried")
    (good,) = one.sent(GOOD)
    one.run(FIXED)
    one.run('%%cortex payload\n{"tried": 1}')
    for line in (f"%cortex replay {good} --in 1", f"%cortex replay {good}"):
        one.run(line)
    one.run("%cortex sample mine")
    kept = yaml.safe_load((one.root / "samples" / "mine.yaml").read_text())
    assert (json.loads(kept["body"]), kept["expected"]) == ({"tried": 1}, {"value": 1.0, "factor": 2})


def test_failed_requests_get_their_results_under_their_old_ids(story: StoryMaker) -> None:
    one = story("replay-requeue")
    bad, second, good = one.sent(BAD, BAD, GOOD)
    mark = one.group()["fingerprint"]
    refusal = one.refused(f"%cortex requeue --group {mark}")
    assert "2 requests that failed with KeyError" in refusal
    assert "version 1, on which they failed, is still live" in refusal
    assert "repeat with --yes" in refusal
    one.run(FIXED)
    one.run("%cortex deploy replay-requeue")
    assert "still live" not in one.refused(f"%cortex requeue --group {mark}")
    shown = one.run(f"%cortex requeue --group {mark} --yes")
    for text in (shown.text, shown.html):
        assert "of replay-requeue requeued, under their ids" in text
    for one_id in (bad, second):
        assert one.client.result(one.name, one_id, wait=60).status == "completed"
    assert any(record.get("exc_info") and record["request_id"] == bad for record in one.client.logs(one.name)), "its first run's line is in the log"
    shown = one.run(f"%cortex result {one.name} {bad}")
    for text in (shown.text, shown.html):
        assert "completed" in text
        assert "KeyError" not in text, "the lines below a result are its run's"
    data = one.data(f"%cortex requeue {good} nobody-has-this --yes")
    assert data["requeued"] == []
    assert {row["id"] for row in data["refused"]} == {good, "nobody-has-this"}
    assert all(row["reason"] for row in data["refused"])
    assert all(row["id"] in one.run(f"%cortex requeue {good} nobody-has-this --yes").text for row in data["refused"])
    details = one.client.workload(one.name, bad)
    assert details["run"] == 2
    assert str(one.root) in json.dumps(details["requeues"]), "who asked for it is in the record"


def test_requeue_asks_about_those_since_then_alone(story: StoryMaker) -> None:
    one = story("replay-since")
    one.sent(BAD)
    mark = one.group()["fingerprint"]
    line = f"%cortex requeue --group {mark} --since 8s"
    wait_until(lambda: "has failed in the last 8s" in one.refused(line), "the first one is older")
    (second,) = one.sent(BAD)
    assert "1 request that failed with KeyError in the last 8s" in one.refused(line)
    assert one.data(f"{line} --yes")["requeued"] == [second]
    assert "--since is for --group" in one.refused(f"%cortex requeue {second} --since 1h")


def test_requests_shows_failures_by_group_with_the_next_line_to_type(story: StoryMaker) -> None:
    one = story("replay-requests")
    bad, other, good = one.sent(BAD, OTHER, GOOD)
    data = one.data("%cortex requests")
    assert [row["id"] for row in data["workloads"]] == [good, other, bad]
    assert {group["count"] for group in data["groups"]} == {1}
    assert len(data["groups"]) == 2
    assert data["workloads"][2]["next"] == f"%cortex replay {bad}"
    assert [row["id"] for row in one.data("%cortex requests --failed --limit 1")["workloads"]] == [other]
    assert one.data("%cortex requests --group")["workloads"] == []
    assert one.data("%cortex requests --since 1h") == data
    assert one.data("%cortex requests --since 0s")["workloads"] == []
    shown = one.run("%cortex requests")
    offset = one.kernel.value("__import__('datetime').datetime.now().astimezone().strftime('%z')")
    for text in (shown.text, shown.html):
        assert f"%cortex replay {bad}" in text
        assert f"%cortex replay --group {data['groups'][0]['fingerprint']}" in text
        assert "In [1], line 8" in text
        assert "In [1], line 9" in text
        assert f" {offset[:3]}:{offset[3:]}" in text


def test_a_list_of_requests_that_ends_where_it_was_told_to_says_so(story: StoryMaker) -> None:
    one = story("replay-many")
    one.sent(GOOD, GOOD)
    for line, more in (("requests --limit 1 --since 1h", True), ("requests --limit 2", True), ("requests --limit 3", False)):
        shown = one.run(f"%cortex {line}")
        assert ["there may be more" in text for text in (shown.text, shown.html)] == [more, more]


def test_requests_offers_a_replay_only_where_the_payload_was_kept(story: StoryMaker) -> None:
    one = story("replay-offers", spec=SPEC.replace("payload: always}}", "payload: failed, max_bytes: 100}}"))
    bad, large, good = one.sent(BAD, {**BAD, "more": "x" * 100}, GOOD)
    data = one.data("%cortex requests")
    assert [row["next"] for row in data["workloads"]] == [
        f"%cortex result {one.name} {good}",
        f"%cortex result {one.name} {large}",
        f"%cortex replay {bad}",
    ]
    assert data["groups"][0]["next"] == f"%cortex replay --group {one.group()['fingerprint']}"
    for row in data["workloads"]:
        one.run(row["next"])


def test_a_group_s_replay_says_how_far_it_is(front: Any) -> None:
    one, seen = front("replay-far")
    one.sent(BAD, BAD)
    seen.run(f"%cortex replay --group {one.group()['fingerprint']}")
    drawn = [value for state in seen.states.values() for value in state.get("value_seen", []) if isinstance(value, str)]
    for said in ("replaying 1 of 2", "replaying 2 of 2"):
        assert any(said in page for page in drawn) or said in shown_by(seen)
    assert not any("replaying 1 of 2" in page and "replaying 2 of 2" in page for page in drawn), "one line that counts"


# Widgets ------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def front(story: StoryMaker) -> Callable[..., tuple[Story, FrontEnd]]:
    def make(name: str, spec: str = SPEC) -> tuple[Story, FrontEnd]:
        one = story(name, spec=spec)
        return one, FrontEnd(one.kernel)

    return make


def shown_by(front: FrontEnd) -> str:
    return "\n".join(str(state.get("value", "")) for state in front.states.values() if state.get("_model_name") == "HTMLModel")


def test_the_table_of_requests_refreshes_itself_in_its_place(front: Any) -> None:
    one, seen = front("replay-live")
    displays = seen.run("%cortex requests")
    assert "no requests" in displays[-1]["text/plain"]
    (bad,) = one.sent(BAD)

    def drawn() -> bool:
        seen.run("pass")
        return bad in shown_by(seen)

    wait_until(drawn, "the new request is in the table")
    button = seen.find("ButtonModel", icon="refresh")
    seen.click(button)
    assert seen.states[button]["description"] == "Refresh"
    assert one.kernel.value("[t.name for t in __import__('threading').enumerate() if t.name == 'cortex-refreshing' and not t.daemon]") == []
    seen.run("%cortex requests")
    seen.run("%cortex requests")
    wait_until(
        lambda: one.kernel.value("sum(t.name == 'cortex-refreshing' for t in __import__('threading').enumerate())") == 1, "one table asks, not three"
    )


def test_a_replay_s_buttons_keep_the_payload_and_put_the_group_back(front: Any) -> None:
    one, seen = front("replay-buttons")
    (bad,) = one.sent(BAD)
    seen.run(f"%cortex replay {bad}")
    keep, again = (seen.find("ButtonModel", description=text) for text in ("Keep as sample", "Requeue group"))
    assert (seen.states[keep]["disabled"], seen.states[again]["disabled"]) == (False, True)
    seen.click(keep)
    assert "it must not fail any more" in shown_by(seen)
    seen.click(keep)
    assert "kept already" in shown_by(seen)
    seen.states.clear()
    seen.run(FIXED)
    seen.run(f"%cortex replay {bad}")
    again = seen.find("ButtonModel", description="Requeue group")
    assert seen.states[again]["disabled"] is False
    seen.click(again)
    assert "version 1, on which they failed, is still live" in shown_by(seen)
    assert one.client.result(one.name, bad).status == "failed"
    one.run("%cortex deploy replay-buttons")
    seen.click(again)
    assert "1 requeued" in shown_by(seen)
    assert one.client.result(one.name, bad, wait=60).status == "completed"


def test_a_terminal_shows_the_same_as_text(shell: Shell, environment: Environment) -> None:
    shell.run(HANDLER)
    shell.run("%cortex deploy replay-terminal --no-check")
    client = environment.client()
    bad = client.submit("replay-terminal", BAD)
    assert client.result("replay-terminal", bad, wait=60).status == "failed"
    shell.run("%cortex requests")
    assert f"%cortex replay {bad}" in shell.text
    shell.run(f"%cortex replay {bad}")
    for said in (shell.text, shell.html):
        assert "the same failure as in production" in said
    shell.run(f"%cortex replay --group {client.failures('replay-terminal')[0]['fingerprint']}")
    assert "0 of 1 succeed here" in shell.text
    for said in (shell.text, shell.html):
        assert "KeyError" in said.split("beside production")[1], "each row has its error"
    assert sys.last_traceback.tb_frame.f_locals["payload"] == BAD  # type: ignore[union-attr]


# The shell ----------------------------------------------------------------------------------------------------------------------------------


def test_the_shell_looks_keeps_and_requeues_too(story: StoryMaker) -> None:
    one = story("replay-shell")
    bad, good = one.sent(BAD, GOOD)
    mark = one.group()["fingerprint"]
    cortex = one.environment.cortex
    said = cortex("requests", one.name).stdout
    assert f"%cortex replay --group {mark} --name {one.name}" in said
    assert f"%cortex replay {bad} --name {one.name}" in said
    assert cortex("requests", cwd=one.root).stdout == said, "the only API of this directory's cortex.yaml"
    assert good not in cortex("requests", one.name, "--failed").stdout
    assert "say which API" in cortex("requests", check=False, cwd=one.root.parent).stderr
    assert "needs a notebook's kernel" in cortex("replay", bad, check=False).stderr
    assert f"kept samples/failed-{mark[:8]}.yaml" in cortex("sample", "--from", bad, "--name", one.name, "--dir", str(one.root)).stdout
    assert f"failed-{mark[:8]}" in cortex("sample", cwd=one.root).stdout
    assert "--from ID" in cortex("sample", "mine", cwd=one.root, check=False).stderr
    assert "kept already" in cortex("sample", "--from", bad, cwd=one.root, check=False).stderr
    one.run(FIXED)
    one.run("%cortex deploy replay-shell")
    assert "repeat with --yes" in cortex("requeue", "--group", mark, cwd=one.root, check=False, stdin=-3).stderr
    assert "1 of replay-shell requeued" in cortex("requeue", "--group", mark, "--yes", cwd=one.root).stdout
    assert one.client.result(one.name, bad, wait=60).status == "completed"
    refused = cortex("requeue", good, "--yes", cwd=one.root, check=False)
    assert (refused.returncode, "refused:" in refused.stdout) == (1, True)


def test_a_version_of_an_api_that_was_deleted_is_not_taken_for_that_of_its_successor(environment: Environment, project: ProjectMaker) -> None:
    session = SimpleNamespace(versions={})
    client = environment.client()
    for life in ("first", "second"):
        project("two-lives", f"class Handler:\n    def handle_async(self, payload):\n        return {{'life': '{life}'}}").deploy(environment)
        version = replay.fetch(session, client, "two-lives", 1)  # type: ignore[arg-type]
        assert version is replay.fetch(session, client, "two-lives", 1)  # type: ignore[arg-type]
        assert version.deployed
        assert f"'{life}'" in (version.deployed.project / "handler.py").read_text()
        client.delete("two-lives")
    session.versions.popitem()[1].close()
