"""``%cortex`` in a real IPython shell: the shell's verbs, payloads, samples, saved objects, refusals in one line."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_cortex import __version__
from jupyter_cortex.cli import main
from jupyter_cortex.commands.verbs import KERNEL_VERBS, SHELL_VERBS, VERBS
from jupyter_cortex.core.errors import BadRequest, CortexError, EnvFileError, HandlerError, NotebookError
from jupyter_cortex.magics.completion import complete
from jupyter_cortex.magics.door import text
from jupyter_cortex.magics.words import words
from jupyter_cortex.render import apis
from jupyter_cortex.widgets import pages

from ..conftest import Environment, ProjectMaker
from .conftest import Shell, write_notebook

HANDLER = """
from cortex_internal.lib.log import logger

class Handler:
    def __init__(self, config):
        self.greeting = config.get("greeting", "hello")

    def handle_async(self, payload, request_id):
        logger.info("greeting", extra={"who": str(payload)})
        print("printed")
        return {"said": f"{self.greeting} {payload}", "kind": type(payload).__name__, "id": request_id}
"""


def tried(shell: Shell, cell: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The data of one ``payload`` cell."""
    capsys.readouterr()
    shell.run(cell)
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def refused(shell: Shell, cell: str) -> CortexError:
    """The refusal of a cell: one line, and at most the author's own frames."""
    result = shell.run(cell, check=False)
    error = result.error_in_exec
    assert isinstance(error, CortexError), error
    assert "site-packages" not in (shown := "\n".join(error._render_traceback_()))  # type: ignore[attr-defined]
    assert "jupyter_cortex/" not in shown
    return error


# Words --------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deploy iris --yes", ["deploy", "iris", "--yes"]),
        ("submit iris 'a text' \"another one\"", ["submit", "iris", "a text", "another one"]),
        ('submit iris {"a": 1, "b": [1, 2]}', ["submit", "iris", '{"a": 1, "b": [1, 2]}']),
        ("submit iris '{\"x\":1}'", ["submit", "iris", '{"x":1}']),
        ("submit iris [1, 2]", ["submit", "iris", "[1, 2]"]),
        ("submit $name text", ["submit", "iris", "text"]),
        ("submit {name} text", ["submit", "iris", "text"]),
        ("submit {name.upper()} text", ["submit", "IRIS", "text"]),
        ("submit {name + '-2'} text", ["submit", "iris-2", "text"]),
        ("submit iris $flower", ["submit", "iris", '{"petal": 1.5}']),
        ("submit iris {flower['petal'] * 2}", ["submit", "iris", "3.0"]),
        ("submit iris {unknown_name}", ["submit", "iris", "{unknown_name}"]),
        ("submit iris '$name'", ["submit", "iris", "iris"]),
        ("deploy --config greeting=$name", ["deploy", "--config", "greeting=iris"]),
        ("save model labels=list(range(3))", ["save", "model", "labels=list(range(3))"]),
        ('submit iris "it is {name} here"', ["submit", "iris", "it is iris here"]),
        ('submit iris "it is $name here"', ["submit", "iris", "it is iris here"]),
        ("submit iris 'it is {name} here'", ["submit", "iris", "it is {name} here"]),
        ('deploy -c "greeting=hello {name}"', ["deploy", "-c", "greeting=hello iris"]),
        ('deploy -c greeting="hello {name}"', ["deploy", "-c", "greeting=hello iris"]),
        ("deploy -c greeting='hello {name}'", ["deploy", "-c", "greeting=hello {name}"]),
        (r'submit iris "{\"a\":1}"', ["submit", "iris", '{"a":1}']),
        ('deploy -c labels=["a", "b"] --yes', ["deploy", "-c", 'labels=["a", "b"]', "--yes"]),
        ('deploy -c limits={"a": 1, "b": "}"} --yes', ["deploy", "-c", 'limits={"a": 1, "b": "}"}', "--yes"]),
        ("deploy {name}-{flower['petal']}", ["deploy", "iris-1.5"]),
        ("deploy prefix-{name + '-2'} '' \"\"", ["deploy", "prefix-iris-2", "", ""]),
        ("deploy v-{[1, 2][0] + 1}", ["deploy", "v-2"]),
        ('save petal=flower["petal"]', ["save", 'petal=flower["petal"]']),
        (r"submit iris \{name\}", ["submit", "iris", "{name}"]),
        ("submit iris '{\"a\": \"'$name'\"}'", ["submit", "iris", '{"a": "iris"}']),
        ("", []),
    ],
)
def test_a_line_s_words_are_quoted_as_in_a_shell_and_expanded_as_in_ipython(shell: Shell, line: str, expected: list[str]) -> None:
    shell.run("name = 'iris'; flower = {'petal': 1.5}")
    assert words(line, shell.shell) == expected


@pytest.mark.parametrize("line", ["submit iris 'oops", 'submit iris "oops', 'submit iris {"a": 1', "deploy -c labels=[1, 2"])
def test_a_quote_or_a_brace_that_never_closes_is_said_and_not_guessed(shell: Shell, line: str) -> None:
    assert "never closed" in str(shell.run(f"%cortex {line}", check=False).error_in_exec)


def test_a_continued_line_is_one_line(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(HANDLER)
    shell.run('%cortex try "you" \\\n    --content-type text/plain \\\n    -o json')
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["result"]["said"] == "hello you"


# The verbs ----------------------------------------------------------------------------------------------------------------------------------


def test_status_names_what_runs_another_version_and_how_it_starts_anew(
    shell: Shell, environment: Environment, project: ProjectMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("upgraded").deploy(environment)
    shell.run("%cortex status")
    for said in (shell.text, shell.html):
        assert "while this is" not in said
    monkeypatch.setattr("jupyter_cortex.render.apis.__version__", "99.0")
    shell.run("%cortex status")
    for said in (shell.text, shell.html):
        assert f"of version {__version__}, while this is 99.0: " in said
        assert "operator" in said
        assert "%cortex down" in said


def test_an_environment_starts_and_ends_from_a_cell(
    shell: Shell, own_environment: Callable[..., Environment], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = own_environment()
    monkeypatch.setenv("JUPYTER_CORTEX_HOME", str(own.home))
    shell.run("%cortex status")
    assert own.url in shell.text
    shell.run("%cortex down")
    assert not any(own.slot(role).pid() for role in ("operator", "gateway", "store"))
    assert "`%cortex up`" in refused(shell, "%cortex status").message
    capsys.readouterr()
    shell.run("%cortex up")
    assert own.url in capsys.readouterr().out + shell.text
    shell.run("%cortex status")
    assert all(role in shell.text for role in ("operator", "gateway"))


def test_after_the_operator_only_the_apis_of_old_workers_are_refreshed(environment: Environment, project: ProjectMaker) -> None:
    project("upgraded-since").deploy(environment)
    status = environment.client().status()
    for process in status["processes"]:
        process.pop("code", None)
        if process["api"] == "upgraded-since":
            process["code"] = "0.1"
    note = apis.outdated(status, command="%cortex", local=True)
    assert note.startswith(f"of version 0.1, while this is {__version__}: replica, worker; `%cortex refresh upgraded-since`")
    status["code"] = "0.1"
    assert "`%cortex down`" in apis.outdated(status, command="%cortex", local=True)
    assert f"anew on {status['host']}" in apis.outdated(status, command="%cortex", local=False)


def test_an_api_s_page_says_of_its_workers_what_its_text_says(environment: Environment, project: ProjectMaker) -> None:
    project("two-machines").deploy(environment)
    api = environment.client().get_api("two-machines")
    (worker,) = api["workers"].values()
    python = {"kind": "layered", "digest": "abc123"}
    api["workers"] = {"one": {**worker, "python": python}, "two": {**worker, "host": "another-machine"}}
    for shown in (text("api", [api]), pages.api([api])):
        assert "another-machine" in shown
        assert "version 1 runs on a Python of its own (layered, abc123)" in shown


def test_a_check_names_its_samples_in_text_and_page(shell: Shell) -> None:
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'double': payload * 2}")
    shell.run("%%cortex payload\n4")
    shell.run("%cortex sample four")
    shell.run("%cortex check checked")
    for said in (shell.text, shell.html):
        assert "four" in said


def test_the_verbs_are_the_shell_s_own_and_those_that_need_a_kernel(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run("%cortex --help")
    listed = set(re.findall(r"^  (\w+)\s", capsys.readouterr().out.split("Commands:")[1], re.MULTILINE))
    assert set(VERBS) <= set(main.commands)
    assert listed == set(VERBS) | {"payload", "try", "sample", "save", "replay"}
    for name in VERBS:
        assert main.commands[name] is VERBS[name]


@pytest.mark.parametrize("verb", [*VERBS, "payload", "try", "sample", "save", "replay"])
def test_each_verb_has_its_own_help(shell: Shell, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(f"%cortex {verb} --help")
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: %cortex {verb}")
    assert "--help" in said


def test_a_wrong_option_is_one_line_with_the_way_to_the_help(shell: Shell) -> None:
    error = shell.run("%cortex deploy --fast", check=False).error_in_exec
    assert type(error).__name__ == "UsageError"
    assert "--fast" in str(error)
    assert "%cortex deploy --help" in str(error)


@pytest.mark.parametrize("verb", SHELL_VERBS)
def test_a_verb_that_needs_a_shell_says_so_in_a_cell(shell: Shell, verb: str) -> None:
    assert verb in main.commands
    said = str(shell.run(f"%cortex {verb} list", check=False).error_in_exec)
    assert f"`{verb}` needs a shell: write `cortex {verb}` in a terminal, or `!cortex {verb}` in a cell" in said


def test_every_verb_is_one_for_shells_or_for_kernels_or_for_both() -> None:
    assert set(main.commands) == {*VERBS, "sample", *SHELL_VERBS}
    assert not set(main.commands) & set(KERNEL_VERBS)


def test_a_line_that_a_refusal_names_is_one_that_a_cell_takes(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "`%cortex get`" in refused(shell, "%cortex get unknown-api").message
    monkeypatch.setenv("JUPYTER_CORTEX_HOME", str(tmp_path / "nowhere"))
    down = refused(shell, "%cortex get")
    assert "start it with `%cortex up`" in down.message
    assert "`%cortex up`" in "\n".join(down._render_traceback_())  # type: ignore[attr-defined]
    assert "`cortex env add elsewhere" in refused(shell, "%cortex get -e elsewhere").message, "what needs a shell stays"


def test_only_payload_takes_a_body(shell: Shell) -> None:
    assert "%cortex deploy" in str(shell.run("%%cortex deploy\nbody", check=False).error_in_exec)


def test_verbs_and_options_complete(shell: Shell) -> None:
    assert "deploy" in complete(shell.session, "%cortex de")
    assert complete(shell.session, "%cortex depl") == ["deploy"]
    assert "--no-check" in complete(shell.session, "%cortex deploy --no")
    assert {"payload", "try"} <= set(complete(shell.session, "%%cortex "))
    assert "deploy" in shell.shell.complete("de", "%cortex de --yes", len("%cortex de"))[1], "what stands behind the cursor does not count"


def test_loading_twice_changes_nothing_and_unloading_takes_everything_back(shell: Shell) -> None:
    session = shell.session
    shell.shell.run_line_magic("reload_ext", "jupyter_cortex")
    assert shell.session is not None
    shell.shell.run_line_magic("unload_ext", "jupyter_cortex")
    assert getattr(shell.shell, "cortex_session", None) is None
    assert "cortex" not in shell.shell.magics_manager.magics["line"]
    assert session.recorder._begin not in shell.shell.events.callbacks["pre_run_cell"]


# Payloads -----------------------------------------------------------------------------------------------------------------------------------


def test_a_payload_goes_through_parse_handle_and_json(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(HANDLER)
    row = tried(shell, '%%cortex payload -t application/json -o json\n{"a": 1}', capsys)
    assert (row["status"], row["payload"]["type"], row["result"]["kind"]) == ("completed", "dict", "dict")
    assert [record["message"] for record in row["records"]] == ["greeting", "printed"]
    assert row["records"][0]["who"] == "{'a': 1}"


def test_the_newline_that_ends_the_cell_is_not_part_of_the_payload(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(HANDLER)
    assert tried(shell, "%%cortex payload -t text/plain -o json\nline one\nline two", capsys)["result"]["said"] == "hello line one\nline two"
    assert tried(shell, "%%cortex payload -t text/plain -o json\nends empty\n\n", capsys)["result"]["said"].endswith("ends empty\n")


def test_a_file_s_bytes_and_headers_are_sent(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    Path("flower.bin").write_bytes(b"\x00\xff")
    shell.run(HANDLER)
    row = tried(shell, "%cortex payload --file flower.bin -H x-request-id:mine -o json", capsys)
    assert (row["result"]["kind"], row["result"]["id"]) == ("bytes", "mine")


def test_the_content_type_may_be_a_header_and_headers_without_effect_are_named(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(HANDLER)
    row = tried(shell, '%%cortex payload -H "Content-Type: text/plain" -H Accept:text/html -o json\n{"a": 1}', capsys)
    assert (row["content_type"], row["payload"]["type"], row["ignored"]) == ("text/plain", "str", ["accept"])
    shell.run('%cortex try you -H "content-type: text/plain" -H Accept:text/html')
    for shown in (shell.text, shell.html):
        assert "without effect here: accept; " in shown
        assert "hello you" in shown
    assert "given twice" in refused(shell, "%%cortex payload -t text/plain -H Content-Type:text/csv\nx").message


def test_an_id_that_the_gateway_would_refuse_is_refused(shell: Shell) -> None:
    shell.run(HANDLER)
    shell.run("%%cortex payload -t text/plain -H 'X-Request-ID: no id'\nyou")
    for shown in (shell.text, shell.html):
        assert "refused with 400" in shown
        assert "x-request-id must be 1 to 128 letters" in shown


def test_a_payload_and_a_file_are_not_both_tried(shell: Shell) -> None:
    Path("a.txt").write_text("from a file")
    shell.run(HANDLER)
    assert "one of them" in refused(shell, "%cortex try you --file a.txt").message


def test_what_cannot_be_parsed_is_refused_in_the_gateway_s_own_words(shell: Shell) -> None:
    shell.run(HANDLER)
    shell.run("%%cortex payload -t application/json\n{'a': 1}")
    for shown in (shell.text, shell.html):
        assert "refused with 400" in shown
        assert "double quotes" in shown


def test_a_failing_handler_shows_its_cell_and_line_and_debug_lands_there(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run("def helper(x):\n    return 1 / x")
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'x': helper(payload)}")
    row = tried(shell, "%%cortex payload -t application/json -o json\n0", capsys)
    assert (row["status"], row["error"]["type"]) == ("failed", "ZeroDivisionError")
    assert "In [1], line 2" in row["traceback"]
    assert "In [2], line 3" in row["traceback"]
    assert "jupyter_cortex" not in row["traceback"]
    assert sys.version_info < (3, 12) or isinstance(sys.last_exc, ZeroDivisionError), "IPython's debugger asks for this one there"
    frame = sys.last_traceback
    while frame.tb_next:  # type: ignore[union-attr]
        frame = frame.tb_next  # type: ignore[union-attr]
    assert frame.tb_frame.f_locals["x"] == 0  # type: ignore[union-attr]


def test_a_result_that_is_no_json_fails_as_it_would_in_production(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'when': {1, 2}}")
    row = tried(shell, "%%cortex payload -t text/plain -o json\nx", capsys)
    assert (row["status"], row["error"]["type"]) == ("failed", "ResultError")
    assert "result.when" in row["error"]["message"] or "when" in row["error"]["message"]


def test_the_handler_is_made_anew_when_its_cell_ran_again_and_kept_otherwise(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    source = "made = globals().get('made', [])\nclass Handler:\n    def __init__(self, config):\n        made.append(1)\n    def handle_async(self):\n        return {'made': len(made)}"
    cell = "%%cortex payload -t text/plain -o json\nx"
    shell.run(source)
    assert [tried(shell, cell, capsys)["result"]["made"] for _ in range(2)] == [1, 1]
    shell.run(source)
    assert tried(shell, cell, capsys)["result"]["made"] == 2


def test_config_comes_from_cortex_yaml_and_from_the_line_over_it(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cortex.yaml").write_text("- name: greeter\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py, config: {greeting: hi}}\n")
    shell.run(HANDLER)
    assert tried(shell, "%%cortex payload -t text/plain -o json\nyou", capsys)["result"]["said"] == "hi you"
    assert tried(shell, "%%cortex payload -t text/plain --config greeting=hey -o json\nyou", capsys)["result"]["said"] == "hey you"


def test_the_log_lines_of_a_payload_are_in_its_display_and_nowhere_else(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(HANDLER)
    capsys.readouterr()
    shell.run("%%cortex payload -t text/plain\nyou")
    assert "greeting" not in capsys.readouterr().out
    assert "greeting" in shell.text
    assert "printed" in shell.html


def test_a_log_line_outside_of_a_payload_is_readable_in_the_cell(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    shell.run("from cortex_internal.lib.log import logger\nlogger.warning('careful', extra={'n': 1})")
    assert re.search(r"WARNING careful  n=1", capsys.readouterr().out)


def test_an_image_is_drawn_and_html_in_a_payload_is_not(shell: Shell) -> None:
    import base64

    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'n': len(payload)}")
    png = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
    Path("dot.png").write_bytes(png)
    shell.run("%cortex payload --file dot.png")
    assert '<img alt="the payload as an image" src="data:image/png;base64,' in shell.html
    shell.run("%%cortex payload -t text/plain\n<img src=x onerror=alert(1)>")
    assert "<img src=x" not in shell.html


# The project's variables --------------------------------------------------------------------------------------------------------------------


def test_env_and_dotenv_are_set_as_in_a_replica_masked_and_taken_back(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("cortex.yaml").write_text("- name: a\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py, env: {REGION: north, MODE: slow}}\n")
    Path(".env").write_text("MODE=fast\nPASSPHRASE=open-sesame-7\n")
    shell.run(
        "import os\nclass Handler:\n    def handle_async(self):\n        print(os.environ['PASSPHRASE'])\n        return {name: os.environ[name] for name in ('REGION', 'MODE')}"
    )
    row = tried(shell, "%%cortex payload -t text/plain -o json\nx", capsys)
    assert row["result"] == {"REGION": "north", "MODE": "fast"}
    assert "open-sesame-7" not in json.dumps(row)
    assert "***" in row["records"][0]["message"]
    shell.shell.run_line_magic("unload_ext", "jupyter_cortex")
    assert "PASSPHRASE" not in os.environ


def test_a_broken_dotenv_is_said_at_each_payload_until_it_is_mended(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_text("NO EQUALS\n")
    shell.run(HANDLER)
    for _ in range(2):
        assert ".env, line 1" in refused(shell, "%%cortex payload -t text/plain\nyou").message
    Path(".env").write_text("YES=equals\n")
    assert tried(shell, "%%cortex payload -t text/plain -o json\nyou", capsys)["status"] == "completed"
    Path("cortex.yaml").write_text("- name: a\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py, env: {FLAG: true}}\n")
    assert "handler.env" in refused(shell, "%%cortex payload -t text/plain\nyou").message


def test_a_changed_dotenv_makes_the_handler_anew(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(
        "import os\nclass Handler:\n    def __init__(self, config):\n        self.word = os.environ.get('WORD')\n    def handle_async(self):\n        return {'word': self.word}"
    )
    cell = "%%cortex payload -t text/plain -o json\nx"
    assert tried(shell, cell, capsys)["result"] == {"word": None}
    Path(".env").write_text("WORD=said\n")
    assert tried(shell, cell, capsys)["result"]["word"] == "said"


def test_of_several_apis_the_notebook_s_own_gives_config_and_env(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        f"- name: {name}\n  kind: AsyncAPI\n  handler: {{type: python, path: handler.py, config: {{who: {name}}}, env: {{WHO: {name}}}}}\n"
        for name in ("one", "two")
    ]
    Path("cortex.yaml").write_text("".join(entries))
    shell.run(
        "import os\nclass Handler:\n    def __init__(self, config):\n        self.who = config['who']\n    def handle_async(self):\n        return {'config': self.who, 'env': os.environ['WHO']}"
    )
    assert "one, two" in refused(shell, "%%cortex payload -t text/plain\nx").message
    assert tried(shell, "%%cortex payload --name two -t text/plain -o json\nx", capsys)["result"] == {"config": "two", "env": "two"}
    shell.run("%cortex show one --no-diff")
    assert tried(shell, "%%cortex payload -t text/plain -o json\nx", capsys)["result"] == {"config": "one", "env": "one"}


def test_the_api_that_the_notebook_was_said_to_be_is_the_one_that_is_shown_and_deployed(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    entry = "- name: {}\n  kind: AsyncAPI\n  handler: {{type: python, path: handler.py}}\n"
    Path("cortex.yaml").write_text(entry.format("one") + entry.format("two"))
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {}")

    def named() -> str:
        capsys.readouterr()
        shell.run("%cortex show --no-diff -o json")
        return str(json.loads(capsys.readouterr().out)["name"])

    assert "`%cortex deploy NAME`, elsewhere `--name NAME`" in refused(shell, "%cortex show --no-diff").message
    shell.run("%%cortex payload --name two\n{}")
    assert named() == "two"
    Path("cortex.yaml").write_text(entry.format("one"))
    assert named() == "one", "an entry that is gone is not meant any more"
    Path("cortex.yaml").unlink()
    shell.run("%cortex show three --no-diff")
    assert named() == "three"


def test_a_payload_runs_in_the_project_s_root_with_its_import_path(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("lib").mkdir()
    Path("lib/only_in_lib.py").write_text("X = 7\n")
    Path("cortex.yaml").write_text("- name: a\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py, python_path: lib, log_level: error}\n")
    shell.run(HANDLER.replace("def handle_async", "def other(self): pass\n    def handle_async"))
    shell.run(
        "class Handler:\n    def handle_async(self):\n        import os, only_in_lib\n        from cortex_internal.lib.log import logger\n        logger.info('hidden')\n        return {'x': only_in_lib.X, 'here': os.listdir('.')}"
    )
    row = tried(shell, "%%cortex payload -t text/plain -o json\nx", capsys)
    assert row["result"]["x"] == 7
    assert "cortex.yaml" in row["result"]["here"]
    assert row["records"] == []


def test_a_module_of_the_root_wins_over_one_of_python_path_as_in_a_replica(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("lib").mkdir()
    Path("lib/in_both_directories.py").write_text("WHERE = 'python_path'\n")
    Path("in_both_directories.py").write_text("WHERE = 'root'\n")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    Path("cortex.yaml").write_text("- name: a\n  kind: AsyncAPI\n  handler: {type: python, path: handler.py, python_path: lib}\n")
    shell.run("class Handler:\n    def handle_async(self):\n        import in_both_directories\n        return {'where': in_both_directories.WHERE}")
    assert tried(shell, "%%cortex payload -t text/plain -o json\nx", capsys)["result"] == {"where": "root"}


def test_what_a_handler_s_own_thread_prints_is_in_the_log(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(
        "import threading\nclass Handler:\n    def handle_async(self):\n        t = threading.Thread(target=print, args=('from a thread',))\n        t.start(); t.join()\n        return {}"
    )
    row = tried(shell, "%%cortex payload -t text/plain -o json\nx", capsys)
    assert [record["message"] for record in row["records"]] == ["from a thread"]


def test_the_variables_of_a_function_are_filled_in(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run(HANDLER)
    shell.run(
        "def send(word):\n    get_ipython().run_line_magic('cortex', 'try {word} -o json')\n    get_ipython().run_line_magic('cortex', 'try x-$word -o json')"
    )
    capsys.readouterr()
    shell.run("send('local')")
    said = [json.loads(line)["result"]["said"] for line in capsys.readouterr().out.strip().splitlines()]
    assert said == ["hello local", "hello x-local"]


def test_json_beyond_utf_8_and_very_deep_or_large_values_are_shown(shell: Shell) -> None:
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'back': payload}")
    shell.run('%%cortex payload -t application/json\n{"t": "\\ud800"}')
    assert "completed" in shell.text
    shell.run("%%cortex payload -t application/json\n" + "[" * 400 + "]" * 400)
    assert "completed" in shell.html
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'many': list(range(payload))}")
    shell.run("%%cortex payload -t application/json\n100000")
    assert "characters in all" in shell.text
    assert len(shell.text) < 100_000


# Samples ------------------------------------------------------------------------------------------------------------------------------------


def test_the_last_payload_is_kept_with_its_result(shell: Shell) -> None:
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'double': payload * 2}")
    shell.run("%%cortex payload -t application/json\n4")
    shell.run("%cortex sample four")
    assert yaml.safe_load(Path("samples/four.yaml").read_text()) == {"content_type": "application/json", "body": "4", "expected": {"double": 8}}
    shell.run("%cortex sample")
    assert "four" in shell.text
    assert "double" in shell.html


def test_a_payload_that_could_not_run_is_not_mistaken_for_the_one_before_it(shell: Shell) -> None:
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'double': payload * 2}")
    shell.run("%%cortex payload\n4")
    shell.run(
        "class Handler:\n    def __init__(self, config):\n        self.rate = config['rate']\n    def handle_async(self, payload):\n        return {}"
    )
    refused(shell, "%%cortex payload\n5")
    assert "the last could not run" in refused(shell, "%cortex sample five").message


def test_a_sample_says_which_notebook_it_was_kept_from(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one.ipynb", "two.ipynb"):
        Path(name).write_text("{}")
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'double': payload * 2}")
    shell.run("%%cortex payload -t application/json\n4")
    monkeypatch.setenv("JPY_SESSION_NAME", str(Path("one.ipynb").absolute()))
    shell.run("%cortex sample four")
    assert yaml.safe_load(Path("samples/four.yaml").read_text())["notebook"] == "one.ipynb"
    shell.run("%cortex sample")
    assert "one.ipynb" in shell.text
    assert "one.ipynb" in shell.html
    monkeypatch.setenv("JPY_SESSION_NAME", str(Path("two.ipynb").absolute()))
    assert "there is a sample four of one.ipynb; choose another name" in str(refused(shell, "%cortex sample four"))
    Path("samples/broken.yaml").write_text("[")
    shell.run("%cortex sample other --no-expect")
    Path("samples/broken.yaml").unlink()
    Path("one.ipynb").unlink()
    shell.run("%cortex sample four")
    assert yaml.safe_load(Path("samples/four.yaml").read_text())["notebook"] == "two.ipynb"


def test_a_binary_payload_is_kept_beside_its_sample(shell: Shell) -> None:
    Path("b.bin").write_bytes(b"\x00\xff\x00")
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'n': len(payload)}")
    shell.run("%cortex payload --file b.bin -t application/octet-stream")
    shell.run("%cortex sample bytes --no-expect")
    assert yaml.safe_load(Path("samples/bytes.yaml").read_text()) == {"content_type": "application/octet-stream", "body_file": "bytes.body"}
    assert Path("samples/bytes.body").read_bytes() == b"\x00\xff\x00"


def test_what_is_no_sample_is_not_kept(shell: Shell) -> None:
    assert isinstance(refused(shell, "%cortex sample none"), BadRequest)
    shell.run(HANDLER)
    shell.run("%%cortex payload -t application/json\n{broken")
    assert "refused" in refused(shell, "%cortex sample broken").message
    shell.run("class Handler:\n    def handle_async(self, payload):\n        raise ValueError('no')")
    shell.run("%%cortex payload -t text/plain\nx")
    assert "--no-expect" in refused(shell, "%cortex sample failing").message
    assert "letters" in refused(shell, "%cortex sample ../up --no-expect").message
    assert not Path("samples").exists()


# Objects ------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "suffix", "same"),
    [
        ("obj = {'a': [1, 2.5, None, True], 'ä': 'ö'}", ".json", "loaded == obj"),
        ("obj = {1: 'a', (1, 2): 'b'}", ".pkl", "loaded == obj"),
        ("import numpy\nobj = numpy.arange(6, dtype='float32').reshape(2, 3)", ".npy", "(loaded == obj).all() and loaded.dtype == obj.dtype"),
        (
            "from sklearn.linear_model import LinearRegression\nobj = LinearRegression().fit([[1], [2]], [1, 2])",
            ".joblib",
            "abs(loaded.predict([[3]])[0] - 3) < 1e-9",
        ),
        ("class Own:\n    def __init__(self): self.x = 5\nobj = Own()", ".pkl", "loaded.x == 5"),
        ("obj = lambda x: x + 1", ".pkl", "loaded(1) == 2"),
    ],
)
def test_an_object_is_saved_in_its_format_and_the_shown_line_loads_it(shell: Shell, source: str, suffix: str, same: str) -> None:
    shell.run(source)
    shell.run("%cortex save obj")
    assert Path(f"obj{suffix}").is_file()
    line = next(line.strip() for line in shell.text.splitlines() if "obj = " in line)
    assert line in shell.html.replace("&quot;", '"')
    space = dict(shell.shell.user_ns)
    exec(line.replace("obj = ", "loaded = ", 1), space)
    assert eval(same, space)


def test_a_pickle_says_what_it_ties_to(shell: Shell) -> None:
    shell.run("obj = {1, 2}")
    shell.run("%cortex save obj")
    assert "tied to Python" in shell.text


def test_a_file_that_somebody_else_wrote_is_neither_replaced_nor_removed(shell: Shell) -> None:
    Path("config.json").write_text('{"mine": 1}')
    Path("train.parquet").write_bytes(b"data")
    shell.run("config = {'theirs': 2}\ntrain = {1: 2}")
    assert "--force" in refused(shell, "%cortex save config").message
    shell.run("%cortex save train")
    assert json.loads(Path("config.json").read_text()) == {"mine": 1}
    assert Path("train.parquet").read_bytes() == b"data"
    shell.run("%cortex save config --force")
    shell.run("config = {'third': 3}\n%cortex save config")
    assert json.loads(Path("config.json").read_text()) == {"third": 3}
    shell.run("config = {3: 3}\n%cortex save config")
    assert not Path("config.json").exists(), "our own file in another format would be found instead"


def test_what_another_notebook_of_the_directory_has_saved_is_replaced_only_with_force(shell: Shell) -> None:
    def within(notebook: str) -> None:
        shell.shell.user_ns["__vsc_ipynb_file__"] = str(write_notebook(Path(notebook).absolute(), "pass")) if notebook else ""

    def kept() -> dict[str, Any]:
        return {path.name: path.read_bytes() for path in Path.cwd().glob("model.*")}

    within("one.ipynb")
    shell.run("model = {'one': 1}\n%cortex save model")
    shell.run("model = {'one': 2}\n%cortex save model")
    before = kept()
    assert json.loads(before["model.json"]) == {"one": 2}
    within("two.ipynb")
    for value in ("{'two': 2}", "{2: 2}"):  # in the same format, and in one whose file would be found instead
        error = refused(shell, f"model = {value}\n%cortex save model")
        for said in ("model.json", "one.ipynb", "%cortex save NAME=OBJECT", "--force"):
            assert said in error.message
        assert kept() == before
    shell.run("%cortex save other=model")
    assert Path("other.pkl").is_file()
    assert any("model = " in line and "other.pkl" in line for line in shell.text.splitlines())
    shell.run("model = {'two': 3}\n%cortex save model --force")
    assert json.loads(kept()["model.json"]) == {"two": 3}
    within("one.ipynb")
    assert "two.ipynb" in refused(shell, "%cortex save model").message
    # One whose name nobody says replaces it, and leaves it whose it was.
    within("")
    shell.run("model = {'nobody': 1}\n%cortex save model")
    within("one.ipynb")
    assert "two.ipynb" in refused(shell, "%cortex save model").message
    Path("two.ipynb").unlink()
    shell.run("model = {'one': 4}\n%cortex save model")
    assert json.loads(kept()["model.json"]) == {"one": 4}


def test_an_estimator_of_a_class_of_the_notebook_is_saved_with_its_class(shell: Shell) -> None:
    shell.run("from sklearn.linear_model import LinearRegression\nclass Mine(LinearRegression):\n    pass\nmodel = Mine().fit([[1], [2]], [1, 2])")
    shell.run("%cortex save model")
    assert Path("model.pkl").is_file()
    code = "import pickle; print(round(float(pickle.loads(open('model.pkl', 'rb').read()).predict([[3]])[0])))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "3"


def test_what_is_saved_takes_the_place_of_the_training_in_the_module(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run("from sklearn.linear_model import LinearRegression\nmodel = LinearRegression().fit([[1], [2]], [1, 2])")
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'y': float(model.predict([[payload]])[0])}")
    shell.run("%cortex show lines --no-diff -o json")
    shown = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert "fit(" in shown["source"]
    assert any(row["kind"] == "training" and "%cortex save model" in row["remedy"] for row in shown["surprises"])
    shell.run("%cortex save model")
    shell.run("%cortex show lines --no-diff -o json")
    shown = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert "fit(" not in shown["source"]
    assert 'model = joblib.load("model.joblib")' in shown["source"]
    assert [row["path"] for row in shown["travels"]] == ["handler.py", "model.joblib"]
    assert not [row for row in shown["surprises"] if row["kind"] == "training"]


def test_the_hint_to_save_says_which_file_of_its_framework_an_object_becomes(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run("Model = type('Model', (), {'__module__': 'keras', 'fit': lambda self: self})\nmodel = Model().fit()")
    shell.run("class Handler:\n    def handle_async(self, payload):\n        return {'y': str(model)}")
    shell.run("%cortex show lines --no-diff -o json")
    shown = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    remedy = next(row["remedy"] for row in shown["surprises"] if row["kind"] == "training")
    assert remedy == "save what it makes with `%cortex save model`: replicas then load model.keras"


def test_what_cannot_be_saved_is_refused_and_nothing_is_left_behind(shell: Shell) -> None:
    assert isinstance(refused(shell, "%cortex save nothing_here"), NotebookError)
    shell.run("import threading\nlock = threading.Lock()")
    assert "lock" in refused(shell, "%cortex save lock").message
    assert "NAME" in refused(shell, "%cortex save 1abc").message
    assert [path.name for path in Path().iterdir() if "lock" in path.name] == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_large_object_is_named_in_cortex_yaml_which_stays_as_it_was_written(shell: Shell, end: str) -> None:
    text = "# mine\n- name: big\n  kind: AsyncAPI  # a comment\n  handler:\n    type: python\n    path: handler.py\n\n# the end\n".replace("\n", end)
    Path("cortex.yaml").write_bytes(text.encode())
    Path("cortex.yaml").chmod(0o640)
    shell.run("import numpy\nweights = numpy.zeros(3_000_000)")
    shell.run("%cortex save weights")
    changed = Path("cortex.yaml").read_bytes().decode()
    assert yaml.safe_load(changed)[0]["artifacts"] == ["weights.npy"]
    assert changed.replace(f"  artifacts:{end}    - weights.npy{end}", "") == text
    assert Path("cortex.yaml").stat().st_mode & 0o777 == 0o640
    assert not list(Path().glob(".cortex.yaml*"))
    assert "artifact" in shell.text
    # Where its last line has no end, it gets one of the same kind.
    Path("cortex.yaml").write_bytes(text.partition("\n#" if end == "\n" else "\r\n#")[0].rstrip().encode())
    shell.run("%cortex save weights --force")
    assert Path("cortex.yaml").read_bytes().decode().endswith(f"path: handler.py{end}  artifacts:{end}    - weights.npy{end}")


# Refusals -----------------------------------------------------------------------------------------------------------------------------------


def test_without_a_handler_every_verb_says_which_cell_is_missing(shell: Shell) -> None:
    assert "class Handler" in refused(shell, "%%cortex payload -t text/plain\nx").message
    assert "class Handler" in refused(shell, "%cortex deploy my-api").message
    shell.run("%cortex show my-api --no-diff")
    assert "no cell defines a class Handler" in shell.text


def test_a_constructor_that_raises_names_its_cell(shell: Shell) -> None:
    shell.run("class Handler:\n    def __init__(self, config):\n        config['missing']\n    def handle_async(self): return {}")
    error = refused(shell, "%%cortex payload -t text/plain\nx")
    assert isinstance(error, HandlerError)
    assert "In [1], line 3" in error.message + str(error.details)


def test_a_signature_that_no_replica_could_call_is_said_before_anything_runs(shell: Shell) -> None:
    shell.run("class Handler:\n    def __init__(self, config, extra): pass\n    def handle_async(self): return {}")
    error = refused(shell, "%cortex deploy my-api")
    assert "extra" in error.message
    assert "In [1]" in error.message


def test_a_name_that_no_cell_defines_is_named_with_the_way_out(shell: Shell) -> None:
    shell.shell.user_ns["ghost"] = 5
    shell.run("class Handler:\n    def handle_async(self): return {'g': ghost}")
    error = refused(shell, "%cortex deploy my-api")
    assert "`ghost`" in error.message
    assert "%cortex save ghost" in error.message


def test_an_environment_that_is_down_is_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JUPYTER_CORTEX_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("JUPYTER_CORTEX_TOKEN", "t")
    assert "127.0.0.1:9" in refused(shell, "%cortex get").message


def test_an_unsaved_notebook_needs_a_name_and_says_so(shell: Shell) -> None:
    shell.run("class Handler:\n    def handle_async(self): return {}")
    assert "give one" in refused(shell, "%cortex deploy").message


def test_init_writes_a_cortex_yaml_once(shell: Shell) -> None:
    shell.run("%cortex init flowers")
    assert yaml.safe_load(Path("cortex.yaml").read_text())[0]["name"] == "flowers"
    assert "class Handler" in shell.text
    assert "--force" in refused(shell, "%cortex init flowers").message


@pytest.mark.parametrize(("name", "why"), [("b-x", "cannot start with 'b-'"), ("a" * 43, "42"), ("Iris", "lower-case"), ("iris-", "does not end")])
def test_init_refuses_a_name_that_a_deploy_would_refuse(shell: Shell, name: str, why: str) -> None:
    said = refused(shell, f"%cortex init {name}").message
    assert f"{name} cannot name an API: " in said
    assert why in said
    assert "`%cortex init NAME`" in said
    assert not Path("cortex.yaml").exists()


def test_yes_says_in_a_cell_what_it_means_there(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run("%cortex deploy --help")
    assert "although cells were edited after they ran" in " ".join(capsys.readouterr().out.split())


def test_a_slip_in_a_json_payload_is_refused_with_its_line_and_column(shell: Shell) -> None:
    shell.run(HANDLER)
    said = refused(shell, '%%cortex payload\n{\n  "a": 1,\n}').message
    assert "begins like JSON and is none (line 3, column 1: " in said
    assert "-t text/plain" in said


def test_a_name_that_no_api_can_have_is_not_the_notebook_s_from_then_on(shell: Shell) -> None:
    shell.run(HANDLER)
    shell.run("%cortex check Bad_Name", check=False)
    shell.run("%cortex init")
    assert yaml.safe_load(Path("cortex.yaml").read_text())[0]["name"] != "Bad_Name"


def test_a_directory_that_cannot_be_written_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", no)
    assert "cannot be written" in refused(shell, "%cortex init flowers").message


def test_nothing_of_the_extension_stays_on_the_logger_of_the_process(shell: Shell) -> None:
    shell.run(HANDLER)
    before = list(logging.getLogger("cortex").handlers)
    shell.run("%%cortex payload -t text/plain\nx")
    assert logging.getLogger("cortex").handlers == before


def test_requirements_that_are_given_stand_for_those_beside_the_notebook(shell: Shell) -> None:
    shell.run(HANDLER)
    Path("requirements.txt").write_text("numpy\n")
    shell.run("from jupyter_cortex.project import from_class\nproject = from_class.build({'name': 'given'}, Handler, ['pandas'], None)")
    files = [file for file in shell.shell.user_ns["project"].files if file.path == "requirements.txt"]
    assert [file.content for file in files] == [b"pandas\n"]


def test_a_dotenv_that_cannot_be_read_is_told_with_each_payload_and_the_magic_works(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text("A=b\n")
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == ".env":
            raise PermissionError(13, "Permission denied")
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refused)
        shell.run("%reload_ext jupyter_cortex")
        assert "cannot be read: Permission denied; make it readable for you" in capsys.readouterr().out
        shell.run(HANDLER)
        for _ in range(2):
            with pytest.raises(EnvFileError, match="cannot be read: Permission denied"):
                shell.run("%%cortex payload -t text/plain\nx")
    os.utime(".env", (1, 1))
    assert tried(shell, "%%cortex payload -t text/plain -o json\nx", capsys)["status"] == "completed"
