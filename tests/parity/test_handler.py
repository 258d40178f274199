"""Loading, checking, constructing and calling the author's class: the contract's vectors, and the loop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyter_cortex.core.errors import HandlerError, ResultError
from jupyter_cortex.handler import loading, logs, result, shim
from jupyter_cortex.handler.errors_text import describe
from jupyter_cortex.handler.instance import Instance
from jupyter_cortex.handler.metrics import MetricsClient, Registry

CASES = yaml.safe_load((Path(__file__).parents[1] / "contract" / "handler.yaml").read_text())["cases"]
Project = Callable[..., Path]


def build(root: Path, path: str = "handler.py", python_path: str | None = None, **options: Any) -> Instance:
    cls = loading.load_class(root, path, python_path)
    loading.check_class(cls, handler_type=options.get("handler_type", "python"), path=path)
    return Instance(cls, metrics_client=MetricsClient(Registry()), path=path, **{"config": {}, **options})


def refusal(root: Path, **options: Any) -> HandlerError:
    with pytest.raises(HandlerError) as caught:
        build(root, **options)
    return caught.value


def outcome(instance: Instance, call: dict[str, Any]) -> dict[str, Any]:
    """What a replica would record: the result as the client reads it, or the kind of failure."""
    try:
        value = instance.call(call["payload"], call.get("request_id", "req-1"))
        return {"result": json.loads(result.encode(value))}
    except ResultError as error:
        return {"failed": error.details["kind"]}
    except BaseException:
        return {"failed": "raised"}


def pickle_class(source: str, target: Path) -> None:
    """Pickle OBJ in a ``__main__`` without ``__file__``, as a notebook's kernel is one."""
    code = f"{source}\nimport dill\nwith open({str(target)!r}, 'wb') as stream:\n    dill.dump(OBJ, stream)\n"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_contract_vector(case: dict[str, Any], project: Project) -> None:
    root, path = project(**case["files"]), case.get("path", "handler.py")
    if "pickle_of" in case:
        pickle_class(case["pickle_of"], root / path)
    options = {
        "path": path,
        "python_path": case.get("python_path"),
        "config": case.get("config", {}),
        "handler_type": case.get("type", "python"),
        "tensorflow_client": object(),
    }
    if case["expect"] != "ok":
        error, wanted = refusal(root, **options), case["expect"]["error"]
        assert (error.details["stage"], error.details["kind"]) == (wanted["stage"], wanted["kind"])
        return
    with build(root, **options) as instance:
        for call in case["calls"]:
            assert outcome(instance, call) == {k: v for k, v in call.items() if k in ("result", "failed")}


def test_a_syntax_error_names_file_and_line(project: Project) -> None:
    error = refusal(project("x = 1\nclass Handler\n    pass\n"))
    assert (error.details["path"], error.details["line"]) == ("handler.py", 2)
    assert "handler.py, line 2" in error.message


def test_a_failing_import_keeps_the_authors_frames_and_drops_ours(project: Project) -> None:
    root = project("import breaking\n", **{"breaking.py": "def f():\n    1 / 0\nf()\n"})
    error = refusal(root)
    trace = error.details["traceback"]
    assert error.details["line"] == 1
    assert 'File "breaking.py", line 2, in f' in trace
    assert "jupyter_cortex" not in trace
    assert str(root) not in trace
    assert "importlib" not in trace


def test_a_missing_package_is_named_with_its_remedy(project: Project) -> None:
    assert "add no_such_package_here to requirements.txt" in refusal(project("import no_such_package_here.sub")).message


@pytest.mark.parametrize("statement", ["raise SystemExit(3)", "import sys; sys.exit()", "raise KeyboardInterrupt"])
def test_an_exit_at_import_is_a_load_error(project: Project, statement: str) -> None:
    error = refusal(project(statement))
    assert (error.details["stage"], error.details["kind"]) == ("load", "exit")


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"handler.py": "Handler = 5"}, "not_a_class"),
        ({"handler.py": "class Handle:\n    pass"}, "class_missing"),
        ({"handler.py": "\x00"}, "import"),
        ({"handler.py": "# -*- coding: nonsense -*-"}, "import"),
        ({"other.py": ""}, "class_missing"),
    ],
)
def test_odd_files_are_refused_with_a_kind(project: Project, files: dict[str, str], kind: str) -> None:
    assert refusal(project(**files)).details["kind"] == kind


def test_a_class_of_another_name_is_suggested(project: Project) -> None:
    assert "rename class Handle to Handler" in refusal(project("class Handle:\n    pass\n")).message


@pytest.mark.parametrize("path", ["absent.py", "pkg", "a\x00b.py"])
def test_a_path_that_is_no_file_is_refused(project: Project, path: str) -> None:
    assert refusal(project(**{"pkg/x.py": ""}), path=path).details["kind"] == "import"


@pytest.mark.parametrize(("content", "kind"), [(b"junk", "pickle"), (b"", "pickle"), (b"\x80\x04K\x05.", "not_a_class")])
def test_a_pickle_that_is_no_class_is_refused(project: Project, content: bytes, kind: str) -> None:
    root = project()
    (root / "handler.pickle").write_bytes(content)
    assert refusal(root, path="handler.pickle").details["kind"] == kind


def test_an_edit_within_the_same_second_and_size_is_seen(project: Project) -> None:
    source = "class Handler:\n    def handle_async(self):\n        return {'v': 1}\n"
    root = project(source)
    assert build(root).call(None, "r") == {"v": 1}
    (root / "handler.py").write_text(source.replace("1}", "2}"))
    assert build(root).call(None, "r") == {"v": 2}


def test_a_failed_load_leaves_the_module_before_it_in_place(project: Project) -> None:
    root = project("class Handler:\n    def handle_async(self):\n        return {}\n")
    cls = loading.load_class(root, "handler.py")
    (root / "handler.py").write_text("1 / 0")
    refusal(root)
    assert sys.modules[loading.MODULE].Handler is cls


def test_the_project_root_comes_first_and_python_path_second(project: Project) -> None:
    root = project("class Handler:\n    pass\n", **{"src/x.py": ""})
    loading.load_class(root, "handler.py", "src")
    loading.load_class(root, "handler.py", "src")
    assert sys.path[:2] == [str(root.resolve()), str((root / "src").resolve())]
    assert sys.path.count(str(root.resolve())) == 1


@pytest.mark.parametrize(
    ("methods", "kind"),
    [
        ("def handle_async(this, payload): ...", "self_missing"),
        ("def handle_async(payload, self): ...", "self_not_first"),
        ("@staticmethod\ndef handle_async(self, payload): ...", "self_missing"),
        ("handle_async = property(lambda self: 1)", "not_a_method"),
        ("handle_async = len", "self_missing"),
        ("def __init__(self, config): ...\nhandle_async = 0", "method_missing"),
        ("def handle_async(self, payload, *, headers=None): ...", "arg_unsupported"),
        ("__init__ = None\ndef handle_async(self): ...", "method_missing"),
    ],
)
def test_odd_methods_are_refused_with_a_kind(project: Project, methods: str, kind: str) -> None:
    root = project("class Handler:\n" + textwrap.indent(methods, "    "))
    assert refusal(root).details["kind"] == kind


@pytest.mark.parametrize("base", ["dict", "threading.local", "typing.Protocol", "typing.Generic[T]", "abc.ABC"])
def test_a_constructor_that_nobody_wrote_is_not_asked_for_config(project: Project, base: str) -> None:
    root = project(
        "import abc, threading, typing\nT = typing.TypeVar('T')\n"
        f"class Base({base}):\n    pass\n"
        "class Handler(Base):\n    def handle_async(self, payload):\n        return {'p': payload}\n"
    )
    assert build(root, config={"a": 1}).call(1, "r") == {"p": 1}


def test_a_constructor_written_as_new_gets_what_it_declares(project: Project) -> None:
    root = project(
        "class Handler:\n    def __new__(cls, config):\n        self = object.__new__(cls)\n"
        "        self.c = config\n        return self\n    def handle_async(self):\n        return {'c': self.c}\n"
    )
    assert build(root, config={"a": 1}).call(1, "r") == {"c": {"a": 1}}


def test_wrapped_methods_are_seen_through_functools_wraps(project: Project) -> None:
    root = project(
        "import functools\n"
        "def timed(f):\n    @functools.wraps(f)\n    def inner(*a, **k):\n        return f(*a, **k)\n    return inner\n"
        "class Handler:\n    @timed\n    def handle_async(self, request_id):\n        return {'r': request_id}\n"
    )
    assert build(root).call(1, "abc") == {"r": "abc"}


def test_a_signature_error_shows_the_signature_the_argument_and_the_line(project: Project) -> None:
    error = refusal(project("class Handler:\n    def handle_async(self, payload, headers):\n        ...\n"))
    assert '"handle_async(self, payload, headers)"' in error.message
    assert '"headers" is not supported' in error.message
    assert error.details["line"] == 2


def test_the_handler_changes_a_copy_of_the_config(project: Project) -> None:
    root = project(
        "class Handler:\n    def __init__(self, config):\n        config['list'].append(1)\n    def handle_async(self):\n        return {}\n"
    )
    config: dict[str, Any] = {"list": []}
    build(root, config=config)
    assert config == {"list": []}


def test_a_raising_constructor_keeps_line_traceback_and_cause(project: Project) -> None:
    error = refusal(project("class Handler:\n    def __init__(self, config):\n        config['x']\n    def handle_async(self): ..."))
    assert error.details["line"] == 3
    assert 'File "handler.py", line 3, in __init__' in error.details["traceback"]
    assert "jupyter_cortex" not in error.details["traceback"]
    assert isinstance(error.__cause__, KeyError)


ASYNC = """
import asyncio
class Handler:
    def __init__(self, config):
        self.loop = asyncio.get_running_loop()
        self.queue = asyncio.Queue()
    async def handle_async(self, payload, request_id):
        assert asyncio.get_running_loop() is self.loop
        if payload == "exit":
            raise SystemExit(1)
        if payload == "stop":
            raise StopIteration("odd")
        if payload == "task":
            asyncio.get_running_loop().create_task(self.leave())
        await self.queue.put(payload)
        await asyncio.sleep(0)
        return {"got": await self.queue.get()}
    async def leave(self):
        raise SystemExit(2)
"""


def test_async_handlers_keep_one_loop_from_the_constructor_on(project: Project) -> None:
    with build(project(ASYNC)) as instance:
        assert [instance.call(n, "r") for n in range(3)] == [{"got": n} for n in range(3)]


@pytest.mark.parametrize(("payload", "kind"), [("exit", SystemExit), ("stop", RuntimeError)])
def test_an_async_handler_survives_what_it_raises(project: Project, payload: str, kind: type[BaseException]) -> None:
    with build(project(ASYNC)) as instance:
        with pytest.raises(kind):
            instance.call(payload, "r")
        assert instance.call(1, "r") == {"got": 1}


def test_a_background_task_that_exits_does_not_hang_later_calls(project: Project) -> None:
    with build(project(ASYNC)) as instance:
        assert instance.call("task", "r") == {"got": "task"}
        assert instance.call(1, "r") == {"got": 1}


def test_async_handlers_work_inside_a_running_loop(project: Project) -> None:
    root = project(ASYNC)

    async def cell() -> Any:
        with build(root) as instance:
            return instance.call(1, "r")

    assert asyncio.run(cell()) == {"got": 1}


def test_many_threads_share_the_loop_of_an_async_handler(project: Project) -> None:
    root = project(
        "import asyncio\nclass Handler:\n    def __init__(self, config):\n        self.meet = asyncio.Barrier(8)\n"
        "    async def handle_async(self, payload):\n        await self.meet.wait()\n        return {'p': payload}\n"
    )
    results: list[Any] = []
    with build(root) as instance:
        threads = [threading.Thread(target=lambda n=n: results.append(instance.call(n, "r"))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted(r["p"] for r in results) == list(range(8))


SYNC_RUN = """
import asyncio
class Handler:
    def handle_async(self, payload):
        async def double():
            await asyncio.sleep(0)
            return 2 * payload
        return {"v": asyncio.run(double())}
"""


def test_a_sync_handler_may_use_asyncio_run_also_inside_a_running_loop(project: Project) -> None:
    root = project(SYNC_RUN)

    async def cell() -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        value = build(root).call(2, "r")
        assert (asyncio.get_running_loop(), asyncio.current_task()) == (loop, task)
        await asyncio.sleep(0)
        return value

    assert build(root).call(1, "r") == {"v": 2}
    assert asyncio.run(cell()) == {"v": 4}


def test_a_plain_method_that_returns_a_coroutine_is_awaited(project: Project) -> None:
    root = project(
        "class Handler:\n    def handle_async(self, payload):\n        return self.work(payload)\n"
        "    async def work(self, payload):\n        return {'p': payload}\n"
    )
    with build(root) as instance:
        assert [instance.call(n, "r") for n in range(2)] == [{"p": 0}, {"p": 1}]


def test_sync_handlers_stay_on_the_callers_thread(project: Project) -> None:
    root = project(
        "import threading\nclass Handler:\n    def __init__(self, config):\n        self.t = threading.get_ident()\n"
        "    def handle_async(self):\n        return {'same': self.t == threading.get_ident(), 'id': self.t}\n"
    )
    assert build(root).call(None, "r") == {"same": True, "id": threading.get_ident()}


def test_calls_after_close_and_calls_that_wait_at_close_are_refused(project: Project) -> None:
    root = project(
        "import asyncio\nclass Handler:\n    def __init__(self, config):\n        self.config = config\n"
        "    async def handle_async(self):\n        self.config['entered'].set()\n        await asyncio.sleep(3600)\n"
    )
    instance = build(root)
    entered, errors = threading.Event(), []
    instance.handler.config["entered"] = entered

    def wait() -> None:
        try:
            instance.call(None, "r")
        except HandlerError as error:
            errors.append(error.details["kind"])

    thread = threading.Thread(target=wait)
    thread.start()
    assert entered.wait(10)
    instance.close()
    instance.close()
    thread.join(10)
    assert errors == ["closed"]
    with pytest.raises(HandlerError):
        instance.call(None, "r")


def test_a_method_patched_in_a_notebook_is_the_one_that_runs(project: Project) -> None:
    instance = build(project("class Handler:\n    def handle_async(self):\n        return {'v': 1}\n"))
    type(instance.handler).handle_async = lambda self: {"v": 2}
    assert instance.call(None, "r") == {"v": 2}


def test_a_coroutine_that_will_not_be_cancelled_does_not_hold_its_caller(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_cortex.handler.event_loop.PATIENCE", 0.2)
    root = project(
        "import asyncio\nclass Handler:\n    def __init__(self, config):\n        self.entered = None\n"
        "    async def handle_async(self):\n        self.entered.set()\n        while True:\n"
        "            try:\n                await asyncio.sleep(3600)\n"
        "            except asyncio.CancelledError:\n                pass\n"
    )
    instance = build(root)
    instance.handler.entered = entered = threading.Event()
    errors: list[BaseException] = []
    thread = threading.Thread(target=lambda: errors.append(raised(lambda: instance.call(None, "r"))))
    thread.start()
    assert entered.wait(10)
    instance.close()
    thread.join(10)
    assert [type(error) for error in errors] == [HandlerError]


def test_an_async_handlers_log_lines_and_prints_belong_to_their_request(project: Project) -> None:
    root = project(
        "import asyncio\nfrom cortex_internal.lib.log import logger\nclass Handler:\n"
        "    async def handle_async(self, payload):\n        logger.info('in')\n        await asyncio.sleep(0)\n"
        "        print('half', end='')\n        return {}\n"
    )
    kept: list[str] = []
    logs.setup_worker(kept.append, labels={})
    with build(root) as instance, logs.capture_prints(), logs.request("abc") as request:
        instance.call(1, "abc")
    assert [json.loads(line)["message"] for line in request.lines] == ["in", "half"]
    assert request.lines == kept


def test_a_tensorflow_handler_gets_its_client(project: Project) -> None:
    root = project(
        "class Handler:\n    def __init__(self, tensorflow_client, config):\n        self.t = tensorflow_client\n"
        "    def handle_async(self):\n        return {'t': self.t}\n"
    )
    assert build(root, handler_type="tensorflow", tensorflow_client=7).call(None, "r") == {"t": 7}
    (root / "handler.py").write_text("class Handler:\n    def __init__(self, config): ...\n")
    assert refusal(root, handler_type="tensorflow").details["argument"] == "tensorflow_client"


def test_a_line_is_named_only_when_it_is_in_the_handlers_file(project: Project) -> None:
    root = project("from impl import Handler\n", **{"impl.py": "class Handler:\n    def handle_async(self, x): ...\n"})
    assert "line" not in refusal(root).details


def test_the_shim_covers_up_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import ModuleType

    for name in ("cortex_internal", "cortex_internal.lib", "cortex_internal.lib.log"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    shim.install()
    before = sys.modules["cortex_internal.lib.log"]
    shim.install()
    assert sys.modules["cortex_internal.lib.log"] is before
    assert before.logger is logs.logger


def test_the_shim_gives_the_logger_of_the_runtime(project: Project) -> None:
    root = project(
        "from cortex_internal.lib.log import logger\nimport cortex_internal.lib\n"
        "class Handler:\n    def handle_async(self):\n        return {'name': logger.name}\n"
    )
    shim.install()
    instance = build(root)
    assert instance.call(None, "r") == {"name": "cortex"}
    assert sys.modules["cortex_internal.lib.log"].logger is logs.logger


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


def recurse() -> None:
    recurse()


def ping() -> None:
    pong()


def pong() -> None:
    ping()


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError


def throw(exc: BaseException) -> Callable[[], Any]:
    def thrower() -> None:
        raise exc

    return thrower


@pytest.mark.parametrize(
    "function",
    [
        throw(Unprintable()),
        recurse,
        ping,
        throw(ExceptionGroup("many", [ValueError("a"), ExceptionGroup("in", [Unprintable()])])),
        throw(ValueError("\ud800" * 100_000)),
        throw(ValueError("x" * 1_000_000)),
        throw(KeyboardInterrupt()),
    ],
)
def test_any_exception_can_be_described(function: Callable[[], Any]) -> None:
    text = describe(raised(function), None)
    assert len(text["traceback"].encode()) <= 64 * 1024
    assert len(text["message"].encode()) <= 8 * 1024
    assert text["type"].split(".")[-1] in text["traceback"]


def test_a_chain_of_ten_thousand_causes_can_be_described() -> None:
    exc: BaseException = ValueError(0)
    for number in range(10_000):
        following = ValueError(number)
        following.__cause__ = exc
        exc = following
    assert "9999" in describe(exc, None)["traceback"]
