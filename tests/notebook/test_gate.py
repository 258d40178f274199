"""The gate: in a clean process, papermill runs the check notebook; what fails names the cell, the line and the sample."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_cortex.client import Deployed
from jupyter_cortex.commands import publishing
from jupyter_cortex.core.errors import BodyTooLarge, CortexError, EnvFileError, GateFailed, ProjectError
from jupyter_cortex.core.settings import Settings
from jupyter_cortex.core.spec import check_specs
from jupyter_cortex.handler import masking
from jupyter_cortex.project import from_notebook, gate, samples
from jupyter_cortex.project.check_cells import differs
from jupyter_cortex.project.files import ProjectFile
from jupyter_cortex.project.gate_report import MAX_REPORT_BYTES, Masking, finished
from jupyter_cortex.project.gate_watch import Heard
from jupyter_cortex.project.notebook.cells import read
from jupyter_cortex.project.project import Project
from jupyter_cortex.project.samples import Sample

from ..conftest import wait_until
from .conftest import write_notebook

GOOD = "class Handler:\n    def __init__(self, config):\n        self.add = config.get('add', 0)\n    def handle_async(self, payload):\n        print('got', payload)\n        return {'y': payload + self.add}"


def run(tmp_path: Path, *cells: str, recorded: list[Sample] | None = None, config: dict[str, Any] | None = None) -> gate.Passed:
    built = from_notebook.build(read(write_notebook(tmp_path / "n.ipynb", *cells)), tmp_path, name="gated", config=config)
    spec = check_specs(built.project.documents, [file.path for file in built.project.files])[0]
    return gate.run(built.project, spec, recorded or [])


def failed(tmp_path: Path, *cells: str, recorded: list[Sample] | None = None) -> GateFailed:
    with pytest.raises(GateFailed) as caught:
        run(tmp_path, *cells, recorded=recorded)
    return caught.value


def ends(check: Callable[[], Any]) -> Any:
    """What the check gives, which must not wait for anything that never ends: the limit only bounds a broken run."""
    given: list[Any] = []
    threading.Thread(target=lambda: given.append(check()), daemon=True).start()
    wait_until(lambda: given, "the check has ended")
    return given[0]


def sample(body: str, expected: dict[str, Any] | None = None, content_type: str = "application/json") -> Sample:
    return Sample("mine", content_type, body.encode(), expected)


def test_what_passes_leaves_a_report_that_papermill_executed(tmp_path: Path) -> None:
    passed = run(tmp_path, GOOD, recorded=[sample("1", {"y": 3})], config={"add": 2})
    report = json.loads(passed.report)
    assert passed.samples == ["mine"]
    assert "papermill" in report["metadata"]
    assert any("parameters" in "".join(cell["metadata"].get("tags", [])) for cell in report["cells"])
    text = json.dumps(report)
    for said in ("constructed Handler", "payload: int 1", "result after"):
        assert said in text
    assert any("parameters" in cell["metadata"].get("tags", []) and "project_dir" in "".join(cell["source"]) for cell in report["cells"])


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["import no_such_module_anywhere\n" + GOOD.replace("payload + self.add", "no_such_module_anywhere.x")], "no_such_module_anywhere"),
        (["VALUE = open('not-there.txt').read()", GOOD.replace("payload + self.add", "VALUE")], "(cell 1, line 1)"),
        (["class Handler:\n    def __init__(self, config):\n        config['missing']\n    def handle_async(self): return {}"], "(cell 1, line 3)"),
        (["class Handler:\n    def __init__(self, config):\n        raise SystemExit(3)\n    def handle_async(self): return {}"], "SystemExit"),
    ],
)
def test_what_cannot_be_imported_or_constructed_names_its_cell(tmp_path: Path, cells: list[str], said: str) -> None:
    error = failed(tmp_path, *cells)
    assert said in error.message + str(error.details.get("traceback"))
    assert "report" in error.details


@pytest.mark.parametrize(
    ("body", "expected", "cell", "said"),
    [
        ("1", {"y": 2}, GOOD, "result.y was 2 and is 1"),
        ("1", {"y": 1, "z": 0}, GOOD, "result.z is missing"),
        ("1", None, GOOD.replace("{'y'", "{'new': {1}, 'y'"), "new"),
        ('"text"', None, GOOD, "TypeError"),
        ("{broken", None, GOOD, "not valid JSON"),
        ("1", None, GOOD.replace("{'y': payload + self.add}", "[1]"), "must return a dict"),
    ],
)
def test_a_sample_that_does_not_give_its_result_fails(tmp_path: Path, body: str, expected: dict[str, Any] | None, cell: str, said: str) -> None:
    error = failed(tmp_path, cell, recorded=[sample(body, expected)])
    assert said in error.message
    assert "sample mine" in error.message


def test_a_failing_sample_names_the_cell_and_line_of_the_handler(tmp_path: Path) -> None:
    error = failed(
        tmp_path,
        "def helper(x):\n    return 1 / x",
        "class Handler:\n    def handle_async(self, payload):\n        return {'y': helper(payload)}",
        recorded=[sample("0")],
    )
    assert error.message.endswith("division by zero (cell 1, line 2)")
    assert "cell 2, line 3" in error.details["traceback"]


@pytest.mark.parametrize(
    ("source", "said"), [("import os\nos._exit(7)", "exit status 7"), ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV")]
)
def test_a_handler_that_takes_its_process_down_is_told_from_one_that_fails(tmp_path: Path, source: str, said: str) -> None:
    body = "\n        ".join(source.split("\n"))
    error = failed(tmp_path, f"class Handler:\n    def handle_async(self):\n        {body}\n        return {{}}", recorded=[sample("1")])
    assert said in error.message
    assert "sample mine" in error.message


def test_hidden_state_of_the_kernel_is_not_there(tmp_path: Path) -> None:
    """A module that is only importable because the kernel changed its path."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "hidden_helper.py").write_text("X = 1\n")
    source = "import hidden_helper\n" + GOOD.replace("payload + self.add", "hidden_helper.X")
    assert "hidden_helper" in failed(tmp_path, source).message


def test_secrets_are_masked_in_the_report_and_in_the_refusal(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PHRASE=sesame-street-9\n")
    source = "import os\nclass Handler:\n    def handle_async(self, payload):\n        print('it is', os.environ['PHRASE'])\n        raise ValueError(os.environ['PHRASE'])"
    error = failed(tmp_path, source, recorded=[sample("1")])
    assert "sesame-street-9" not in error.message + json.dumps(error.details)
    assert "***" in error.message


def test_the_check_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    write_notebook(
        tmp_path / "n.ipynb",
        "class Handler:\n    def __init__(self, config):\n        import os, subprocess, time\n        child = subprocess.Popen(['sleep', '600']).pid\n"
        f"        open({str(tmp_path / 'pid')!r}, 'w').write(f'{{child}} ')\n        time.sleep(600)\n    def handle_async(self): return {{}}",
    )
    script = (
        "from pathlib import Path\nfrom jupyter_cortex.core.spec import check_specs\nfrom jupyter_cortex.project import from_notebook, gate\n"
        "from jupyter_cortex.project.notebook.cells import read\nroot = Path('.').absolute()\n"
        "built = from_notebook.build(read(root / 'n.ipynb'), root, name='x')\n"
        "gate.run(built.project, check_specs(built.project.documents, ['handler.py'])[0], [], lambda said: print(said, flush=True))\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert asking.stdout is not None
    while "construct" not in asking.stdout.readline():
        assert asking.poll() is None
    child = wait_until(lambda: psutil.Process(asking.pid).children(), "the check runs")[0]
    wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text().endswith(" "), "the handler has started a child")
    directory = Path(child.cwd()).parent
    assert (directory / "job.json").stat().st_mode & 0o777 == 0o600
    asking.kill()
    asking.wait()
    wait_until(lambda: not directory.exists(), "nothing of it is left")
    wait_until(lambda: not alive(child.pid), "the check has ended, too")
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())), "and what the handler started")


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": 1}, {"a": 1.0}, ""),
        ({"a": 0.1 + 0.2}, {"a": 0.3}, ""),
        ({"a": 1.0}, {"a": 1.001}, "result.a was 1.0 and is 1.001"),
        ({"a": True}, {"a": 1}, "result.a was true and is 1"),
        ({"a": [1, 2]}, {"a": [1]}, "result.a had 2 items and has 1"),
        ({"a": [{"b": "x"}]}, {"a": [{"b": "y"}]}, 'result.a[0].b was "x" and is "y"'),
        ({"a": 1}, {"a": 1, "b": 2}, "result.b is new"),
        ({"a": None}, {"a": 0}, "result.a was null and is 0"),
    ],
)
def test_two_results_differ_in_words(expected: Any, found: Any, said: str) -> None:
    assert differs(expected, found) == said


# What must not leave the check ---------------------------------------------------------------------------------------------------------------


def handler(call: str, *, construct: str = "pass", before: str = "import os, subprocess, sys, time") -> str:
    """A cell with a Handler of these bodies."""
    lines = [before, "class Handler:", "    def __init__(self, config):", *(f"        {line}" for line in construct.split("\n"))]
    return "\n".join([*lines, "    def handle_async(self, payload):", *(f"        {line}" for line in call.split("\n"))])


def everything(error: CortexError) -> str:
    return error.message + json.dumps(error.details) + json.dumps(error.details, ensure_ascii=False)


@pytest.mark.parametrize("place", ["files", "meta"])
@pytest.mark.parametrize("above", [True, False])
def test_a_path_that_leaves_the_project_is_refused_and_nothing_is_written(tmp_path: Path, place: str, above: bool) -> None:
    victim = tmp_path / "victim.py"
    victim.write_text("mine")
    path = f"../../../../../../../../..{victim}" if above else str(victim)
    module = ProjectFile.made("handler.py", b"class Handler:\n    def handle_async(self): return {}\n")
    files = [module, ProjectFile.made(path, b"x")] if place == "files" else [module]
    document = {"name": "a", "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}}
    project = Project(tmp_path, [document], files, "here", meta={path: b"x"} if place == "meta" else {})
    with pytest.raises(ProjectError, match=re.escape(path[:40])):
        gate.run(project, check_specs([document], ["handler.py"])[0], [])
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("kind", ["missing", "in the way", "too long"])
def test_a_file_that_cannot_be_copied_is_named_in_one_sentence(tmp_path: Path, kind: str) -> None:
    bad = {
        "missing": ProjectFile("gone.txt", 1, tmp_path / "gone.txt"),
        "in the way": ProjectFile.made("handler.py/more", b""),
        "too long": ProjectFile.made("x" * 300, b""),
    }[kind]
    module = ProjectFile.made("handler.py", b"class Handler:\n    def handle_async(self): return {}\n")
    document = {"name": "a", "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}}
    with pytest.raises(ProjectError, match=bad.path[:10]):
        gate.run(Project(tmp_path, [document], [module, bad], "here"), check_specs([document], ["handler.py"])[0], [])


@pytest.mark.parametrize("value", ["sesame-street-9", '"quo\'te\\d"-ü'])
def test_what_was_written_past_the_streams_is_masked(tmp_path: Path, value: str) -> None:
    (tmp_path / ".env").write_text(f"TOK='{value}'\n" if "'" not in value else 'TOK="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"\n')
    call = "import json\ntok = os.environ['TOK']\nos.write(1, f'{tok} {tok!r} {json.dumps(tok)}\\nend'.encode())\nos._exit(3)"
    error = failed(tmp_path, handler(call), recorded=[sample("1")])
    assert error.details["logs"][-1] == "end"
    assert "***" in error.details["logs"][-2]
    for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1]):
        assert form not in everything(error)
    assert masking.masked(value) == value, "this process has masks of its own, and these are not among them"


def test_a_value_that_was_cut_in_half_is_not_shown() -> None:
    heard = Heard()
    heard.printed(b"x" * (400 * 1024) + b"sesame-street-9")
    heard.printed(b"y" * (256 * 1024 - 6) + b"\nlast line")
    assert heard.lines(Masking(["sesame-street-9"])) == ["last line"]


def test_details_of_a_failing_sample_are_masked(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PHRASE=sesame-street-9\nPIN=471147\nSHORT=abc\n")
    call = "phrase = os.environ['PHRASE']\nreturn {phrase: [phrase, {'kind': phrase}], 'pin': int(os.environ['PIN']), 'short': os.environ['SHORT']}"
    error = failed(tmp_path, handler(call), recorded=[sample("1", {"y": 1})])
    assert error.details["result"] == {"***": ["***", {"kind": "***"}], "pin": "***", "short": "abc"}
    assert "sesame-street-9" not in everything(error)


def test_a_value_with_a_reference_is_masked_as_the_handler_gets_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DSN=abc${HOME}def\n")
    error = failed(tmp_path, handler("print(os.environ['DSN'])\nraise ValueError(os.environ['DSN'])"), recorded=[sample("1")])
    assert error.message.startswith("sample mine: ValueError: ***")
    assert f"abc{os.environ['HOME']}def" not in everything(error)


def test_a_report_holds_no_value_of_samples_or_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PHRASE=sesame-street-9\n")
    (tmp_path / "cortex.yaml").write_text(
        "- name: gated\n  kind: AsyncAPI\n  handler:\n    type: python\n    path: handler.py\n    env: {KEY: key-of-the-spec}\n    config: {c: config-value}\n"
    )
    body = json.dumps({"token": "sesame-street-9", "filler": "f" * 1990, "tail": "sesame-street-9"})
    recorded = [sample(body, {"y": "sesame-street-9", "n": "expected-only"})]
    source = handler("print(payload)\nreturn {'y': payload['token'], 'n': 'expected-only'}")
    report = run(tmp_path, source, recorded=recorded).report.decode()
    for value in ("sesame", "key-of-the-spec", "config-value"):
        assert value not in report
    parameters = json.loads(report)["metadata"]["papermill"]["parameters"]
    assert parameters["api"] == "gated"
    assert parameters["samples"] == [{"sample": "mine", "content_type": "application/json", "bytes": len(body)}]


def test_words_of_a_notebook_may_be_values_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=code\nB=cells\nC=stdout\nD=stream\nE=parameters\nF=metadata\nG=sample\n")
    from nbformat import reads, validate

    report = run(tmp_path, GOOD, recorded=[sample("1")]).report.decode()
    validate(reads(report, as_version=4))


@pytest.mark.parametrize("size", [3_000_000, 100])
def test_a_report_does_not_grow_with_its_samples(tmp_path: Path, size: int) -> None:
    recorded = [sample(json.dumps("x" * size), {"y": "x" * size})]
    passed = run(tmp_path, handler("return {'y': payload}"), recorded=recorded)
    assert len(passed.report) < 20_000


def test_a_report_of_too_much_is_cut_and_still_a_notebook() -> None:
    from nbformat import reads, v4, validate

    cells = [v4.new_markdown_cell("# title")]
    for _ in range(60):
        cells.append(v4.new_code_cell("1", outputs=[v4.new_output("stream", name="stdout", text="y" * 100_000)]))
    report = finished(json.dumps(v4.new_notebook(cells=cells)).encode(), Masking([]))
    assert 0 < len(report) <= MAX_REPORT_BYTES
    document = reads(report.decode(), as_version=4)
    validate(document)
    assert "more was left out" in document.cells[1].outputs[0].text
    assert finished(report[:1000], Masking([])) == b"", "a kill cut it off"


def test_a_report_that_cannot_be_kept_is_a_note_beside_what_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else of a publication is not looked at here."""
    (tmp_path / "cortex.yaml").write_text("- name: noted\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py}\n")
    (tmp_path / "handler.py").write_text(GOOD)

    def refuse(*_: Any) -> None:
        raise BodyTooLarge("a report may have at most 2 bytes")

    live = Deployed("noted", "created", 1, "noted is live", "/noted", "http://x/noted")
    where = types.SimpleNamespace(name="local")
    client = types.SimpleNamespace(
        ensure_up=lambda *_: None, publish=lambda *_, **__: [live], put_report=refuse, environment=where, settings=Settings.read()
    )
    monkeypatch.setattr(publishing, "run_gate", lambda *_, **__: {"noted": gate.Passed(b"{}")})
    door = types.SimpleNamespace(in_cell=False)
    config = str(tmp_path / "cortex.yaml")
    deployed, _, _ = publishing.publish(door, client, config, None, (), yes=False, check=True, progress=lambda step: None)  # type: ignore[arg-type]
    assert deployed[0].warnings == ["the report of the checks was not kept: a report may have at most 2 bytes"]


def test_an_env_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe\n")
    with pytest.raises(EnvFileError, match="UTF-8"):
        run(tmp_path, GOOD)


# What keeps a check from ending --------------------------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "start",
    [
        "child = subprocess.Popen(['sleep', '600']).pid",
        "child = os.fork()\nif child == 0:\n    time.sleep(600)\n    os._exit(0)",
        "import multiprocessing\np = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))\np.start()\nchild = p.pid",
        "child = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)']).pid",
    ],
)
@pytest.mark.parametrize("crash", [False, True])
def test_a_child_that_the_handler_starts_neither_holds_up_the_check_nor_outlives_it(tmp_path: Path, start: str, crash: bool) -> None:
    note = tmp_path / "pid"
    construct = f"{start}\nopen({str(note)!r}, 'w').write(str(child))\n" + ("os._exit(3)" if crash else "")
    cell = handler("return {}", construct=construct.strip())
    if crash:
        assert "exit status 3" in ends(lambda: failed(tmp_path, cell, recorded=[sample("1")])).message
    else:
        assert ends(lambda: run(tmp_path, cell, recorded=[sample("1")])).samples == ["mine"]
    wait_until(lambda: not alive(int(note.read_text())), "the child has ended, too")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a terminal: what a shell runs in the background begins with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_the_check_with_its_children(tmp_path: Path, interruptible: None) -> None:
    note = tmp_path / "pid"
    construct = f"child = subprocess.Popen(['sleep', '41']).pid\nopen({str(note)!r}, 'w').write(f'{{os.getpid()}} {{child}} ')\ntime.sleep(41)"
    threading.Thread(
        target=lambda: (wait_until(lambda: note.is_file() and note.read_text().endswith(" "), "it runs"), os.kill(os.getpid(), signal.SIGINT))
    ).start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, handler("return {}", construct=construct))
    wait_until(lambda: not any(alive(int(pid)) for pid in note.read_text().split()), "both have ended")


@pytest.mark.parametrize("write", ["os.write(1, b'z' * 5_000_000)", "subprocess.run([sys.executable, '-c', 'print(5_000_000 * chr(122))'])"])
def test_much_output_past_the_streams_does_not_stop_the_handler(tmp_path: Path, write: str) -> None:
    assert ends(lambda: run(tmp_path, handler(f"{write}\nreturn {{}}"), recorded=[sample("1")])).samples == ["mine"]


def test_a_handler_that_asks_gets_no_answer_as_in_a_replica(tmp_path: Path) -> None:
    assert "EOFError" in failed(tmp_path, handler("return {'y': input()}"), recorded=[sample("1")]).message


def test_streams_of_the_check_can_do_what_a_replicas_can(tmp_path: Path) -> None:
    construct = "import logging\nlogging.basicConfig(stream=sys.stderr, level='INFO')\nsys.stdout.buffer.write(b'bytes of it')\nsubprocess.run(['true'], stdout=sys.stdout)"
    report = run(tmp_path, handler("print('lone \\ud800')\nreturn {}", construct=construct), recorded=[sample("1")]).report.decode()
    assert "bytes of it" in report


def test_a_module_that_exits_with_0_has_not_passed(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    error = failed(tmp_path, "import leaves\n" + GOOD.replace("payload + self.add", "leaves.x"))
    assert "must not exit" in error.message


def test_an_exit_in_a_cell_of_the_checks_themselves_is_no_pass(tmp_path: Path) -> None:
    """papermill takes SystemExit(0) for the end of a notebook that wants to end."""
    source = "class Odd(type):\n    def __getattribute__(cls, name):\n        raise SystemExit(0)\nclass Handler(metaclass=Odd):\n    def handle_async(self, payload):\n        return {}"
    assert "SystemExit" in failed(tmp_path, source, recorded=[sample("1")]).message


def test_a_check_that_papermill_cannot_run_says_so(tmp_path: Path) -> None:
    """Here because the handler took the report's place."""
    construct = "os.mkdir(os.path.join(os.path.dirname(os.getcwd()), 'report.ipynb'))"
    error = failed(tmp_path, handler("return {}", construct=construct), recorded=[sample("1")])
    assert "the checks themselves failed: IsADirectoryError" in error.message
    assert error.details["traceback"]


def test_a_large_result_that_has_changed_does_not_travel_with_the_refusal(tmp_path: Path) -> None:
    error = failed(tmp_path, handler("return {'y': payload * 5_000_000}"), recorded=[sample('"a"', {"y": "b"})])
    assert 'result.y was "b" and is "aaaa' in error.message
    assert len(everything(error)) < 50_000


def test_two_hundred_samples_all_run(tmp_path: Path) -> None:
    """In 0.9 s where one takes 0.8; papermill's way, the whole notebook written twice a cell, made it 15."""
    recorded = [Sample(f"s{at}", "application/json", b"1", {"y": 1}) for at in range(200)]
    assert len(run(tmp_path, GOOD, recorded=recorded).samples) == 200


def test_an_event_that_a_kill_cut_off_is_none() -> None:
    heard, steps = Heard(), []
    heard.tell(b'{"name": "one"}\n{"name": "tw', steps.append)
    heard.tell(b'o"}\n{"ended": "pas', steps.append)
    assert heard.last == {"name": "two"}
    assert steps == ["checking: one", "checking: two"]


def test_a_result_that_no_float_holds_differs_in_words() -> None:
    assert differs({"a": 10**400}, {"a": 1.5}).startswith("result.a was 1000")
    assert "sesame" not in differs({"a": "sesame-street-9" + "x" * 60}, {"a": "x" * 50 + "sesame-street-9"}, masks=Masking(["sesame-street-9"]))


# Samples as files ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain",
        b'{"a": 1}',
        "größe\nzwei".encode(),
        b"\r\nwindows\r\n",
        b"\x00\xff",
        b" leading and trailing ",
        b"x" * 40_000,
        b"'quotes\" # and: colons",
        b"- list\n- like",
    ],
)
def test_a_sample_comes_back_byte_for_byte(tmp_path: Path, body: bytes) -> None:
    samples.save(tmp_path, Sample("one", "text/plain; charset=utf-8", body, {"a": [1, None, "ü"]}))
    assert samples.load(tmp_path) == [Sample("one", "text/plain; charset=utf-8", body, {"a": [1, None, "ü"]})]
    samples.save(tmp_path, Sample("one", "text/plain; charset=utf-8", body, notebook="größe 1.ipynb"))
    assert samples.load(tmp_path) == [Sample("one", "text/plain; charset=utf-8", body, None, "größe 1.ipynb")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("body: x\n", "content_type"),
        ("content_type: text/plain\n", "body (text) or body_file"),
        ("content_type: text/plain\nbody: x\nbody_file: y\n", "one of them"),
        ("content_type: text/plain\nbody: 4\n", "quotes"),
        ("content_type: text/plain\nbody_file: ../../etc/passwd\n", "name of a file in samples/"),
        ("content_type: text/plain\nbody_file: missing\n", "cannot be read"),
        ("content_type: text/plain\nbody: x\nexpected: [1]\n", "a map"),
        ("content_type: text/plain\nbody: x\nexpect: {a: 1}\n", "expect is no key"),
        ("content_type: text/plain\nbody: x\nnotebook: ../other.ipynb\n", "name of a notebook"),
        ("content_type: text/plain\nbody: x\nnotebook: [a]\n", "name of a notebook"),
        ("content_type: [\n", "samples/bad.yaml"),
    ],
)
def test_a_sample_that_cannot_be_used_names_its_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "bad.yaml").write_text(text)
    with pytest.raises(Exception, match=r"samples/bad\.yaml") as caught:
        samples.load(tmp_path)
    assert said in str(caught.value)


def test_every_text_comes_back_from_a_sample(tmp_path: Path) -> None:
    """What YAML 1.1 and the config file's rules take for numbers, dates, booleans, merges; and texts made of what they are made of."""
    texts = "1e5 -.5 1e-7 1E5 .5 5. 1_000 0x1F 0o17 017 0b1 1:30 2024-01-01 ~ null yes on off no true = << .inf -.inf .nan + - . .. --- ... ? : ! & * # % @ ` | >".split()
    texts += [
        "",
        " ",
        "\t",
        "\n",
        "\n\n",
        " x",
        "x ",
        "x\n",
        "\nx",
        "a: b",
        "- a",
        "a #b",
        "'",
        '"',
        "\\",
        "\x85",
        "\u2028",
        "\ufeff",
        "a\x85b",
        "é" * 200,
        "😀",
        "\x7f",
    ]
    texts += ["\xa0", "\u200b", "\ufffe", "word " * 60, "  indented\n   more\n", "x\n  \ny", "\r", "a\rb", "{{}}", "!!str x", "%TAG", "\ud800"]
    chosen = random.Random(7)
    letters = "0123456789eE+-._:xob \n\t'\"#&*!|>%@`{}[],?~=<\\\x85\u2028\xa0\ufeffäz"
    texts += ["".join(chosen.choices(letters, k=chosen.randrange(1, 12))) for _ in range(1500)]
    for at in range(0, len(texts), 50):
        some = texts[at : at + 50]
        whole = Sample(
            "s", "text/plain", b"x", {"values": some, "keys": dict.fromkeys(some, 1), "n": [1e-7, 1e22, -0.0, 1.0, 1, 10**30, True, None, 5e-324]}
        )
        samples.save(tmp_path, whole)
        assert repr(samples.load(tmp_path)) == repr([whole])
    for text in texts:
        if "\ud800" not in text:
            samples.save(tmp_path, Sample("s", text, text.encode()))
            assert samples.load(tmp_path) == [Sample("s", text, text.encode())]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("body: x\nexpected: {a: !!timestamp 2024-01-01}\n", "expected has a date"),
        ("body: x\nexpected: {a: !!set {b}}\n", "expected has a set"),
        ("body: x\nexpected: {a: !!binary aGk=}\n", "expected has a bytes"),
        ("body: x\nexpected: {a: !!omap [b: 1]}\n", "expected has a tuple"),
        ("body: x\nexpected: {a: .nan}\n", "JSON has no such number"),
        ("body: x\nexpected: &a {b: *a}\n", "holds itself"),
        ("body: x\nexpected: &a {b: [*a]}\n", "holds itself"),
        ("body: x\nexpected: {1: a}\n", "the key 1"),
        ("body: x\nexpected: {a: {yes: a}}\n", "the key True"),
        ("body: x\n1: a\n", "1 is no key"),
        ('body: "\\ud800"\n', "surrogate"),
        ('body_file: "x\\0y"\n', "name of a file"),
        ('body_file: "x\\ud800y"\n', "name of a file"),
        ("body_file: .\n", "name of a file"),
        ("body_file: {}\n", "name of a file"),
        ("body_file: pipe\n", "not a file"),
        ("body_file: loop\n", "cannot be read"),
        ("body_file: outside\n", "name of a file"),
        ("body: x\nexpected: {a: " + "[" * 120 + "]" * 120 + "}\n", "deep"),
        (
            "body: x\nexpected:\n  a: &a [1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"  {b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
            "values",
        ),
    ],
)
def test_a_sample_that_somebody_wrote_by_hand_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    directory = tmp_path / "samples"
    directory.mkdir()
    os.mkfifo(directory / "pipe")
    (directory / "loop").symlink_to("loop")
    (tmp_path / "elsewhere").write_text("x")
    (directory / "outside").symlink_to(tmp_path / "elsewhere")
    (directory / "bad.yaml").write_text("content_type: text/plain\n" + text)
    with pytest.raises(ProjectError, match=r"samples/bad\.yaml") as caught:
        samples.load(tmp_path)
    assert said in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["a\nimport os.yaml", "größe.yaml", "with space.yml", "x" * 101 + ".yaml", "_.yaml"])
def test_a_file_whose_name_cannot_name_a_sample_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / name).write_text("content_type: text/plain\nbody: x\n")
    with pytest.raises(ProjectError, match="rename the file") as caught:
        samples.load(tmp_path)
    assert "\n" not in caught.value.message


def test_a_name_never_becomes_code_of_the_checks(tmp_path: Path) -> None:
    passed = run(tmp_path, GOOD, recorded=[Sample("a\nraise Exception('ran')", "application/json", b"1")])
    assert len(passed.samples) == 1


def test_a_sample_replaces_the_file_that_is_there_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "s.yml").write_text("content_type: text/plain\nbody: old\n")
    (tmp_path / "samples" / ".#s.yml").write_text("an editor's")
    assert samples.save(tmp_path, Sample("s", "text/plain", b"new")).name == "s.yml"
    assert samples.load(tmp_path) == [Sample("s", "text/plain", b"new")]
    (tmp_path / "samples" / "s.yaml").write_text("content_type: text/plain\nbody: old\n")
    with pytest.raises(ProjectError, match=r"samples/s\.yml: there is s\.yaml, too"):
        samples.load(tmp_path)
    with pytest.raises(ProjectError, match=r"s\.yml"):
        samples.save(tmp_path, Sample("s", "text/plain", b"newer"))


def test_a_sample_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "mine").write_text("mine")
    for name in ("s.yaml", "s.body"):
        (tmp_path / "samples" / name).symlink_to(tmp_path / "mine")
    samples.save(tmp_path, Sample("s", "text/plain", b"\x00\xff"))
    assert (tmp_path / "mine").read_text() == "mine"
    assert samples.load(tmp_path) == [Sample("s", "text/plain", b"\x00\xff")]


@pytest.mark.parametrize("kind", ["a pipe", "a directory", "a dangling link", "a link to itself"])
def test_a_sample_that_is_no_readable_file_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "samples" / "odd.yaml"
    path.parent.mkdir()
    {"a pipe": os.mkfifo, "a directory": os.mkdir}.get(kind, lambda path: path.symlink_to(path if "itself" in kind else "nowhere"))(path)
    with pytest.raises(ProjectError, match=r"samples/odd\.yaml: it (is not a file|cannot be read)"):
        samples.load(tmp_path)


@pytest.mark.parametrize("kind", ["a file", "a dangling link", "a link to itself"])
def test_samples_that_are_no_directory_are_none_and_none_can_be_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "samples"
    if kind == "a file":
        path.write_text("data of the project")
    else:
        path.symlink_to(path if "itself" in kind else "nowhere")
    assert samples.load(tmp_path) == []
    with pytest.raises(ProjectError, match="is not a directory"):
        samples.save(tmp_path, Sample("s", "text/plain", b"x"))


def test_a_directory_of_samples_that_cannot_be_listed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "samples").mkdir()
    monkeypatch.setattr(samples.os, "listdir", refuse)
    for ask in (samples.load, lambda root: samples.free_name(root, "x"), lambda root: samples.save(root, Sample("s", "text/plain", b"x"))):
        with pytest.raises(ProjectError, match="samples/ cannot be read: Permission denied"):
            ask(tmp_path)


def test_a_result_that_no_file_brings_back_is_not_kept(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}
    for expected, said in ((deep, "deeper"), ({"a": float("nan")}, "nan"), ({"a": 10**5000}, "cannot be written")):
        with pytest.raises(ProjectError, match=said):
            samples.save(tmp_path, Sample("s", "text/plain", b"x", expected))
    assert samples.load(tmp_path) == []


def test_a_free_name_does_not_replace_a_sample(tmp_path: Path) -> None:
    assert samples.free_name(tmp_path, "My sample!") == "My-sample"
    samples.save(tmp_path, Sample("My-sample", "text/plain", b"x"))
    assert samples.free_name(tmp_path, "My sample!") == "My-sample-2"
    assert samples.free_name(tmp_path, "_x" * 100)[0] == "x"
    samples.save(tmp_path, Sample(samples.free_name(tmp_path, "_x" * 100), "text/plain", b"x"))
