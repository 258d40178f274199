"""The Python API: Cortex's names, one set of errors, nothing changed behind the caller's back."""

from __future__ import annotations

import copy
import socket
import threading
from pathlib import Path

import pytest

import jupyter_cortex
from jupyter_cortex.core import errors
from jupyter_cortex.core.errors import CortexError, DeploymentNotFound, EnvironmentDown, ProjectError, SpecError, WorkloadNotFound, from_problem
from jupyter_cortex.environments import Environment as Where
from jupyter_cortex.project import bundle

from ..conftest import Environment, ProjectMaker, wait_until
from .deployable import Doubler


def test_deploy_async_api_publishes_a_class_of_an_importable_file(environment: Environment) -> None:
    spec = {"name": "py-class", "kind": "AsyncAPI", "handler": {"type": "python", "config": {"factor": 3}}}
    before = copy.deepcopy(spec)
    client = environment.client()
    deployed = client.deploy_async_api(spec, handler=Doubler, requirements=["pytest"])
    assert deployed.url == f"{environment.url}/py-class"
    assert client.result("py-class", client.submit("py-class", {"n": 5}), wait=60).result == {"n": 15}
    assert spec == before


def test_a_class_without_a_file_is_refused_with_the_way_out(environment: Environment) -> None:
    namespace: dict[str, type] = {}
    exec("class Handler:\n    def handle_async(self):\n        return {}\n", namespace)
    with pytest.raises(ProjectError, match="notebook"):
        environment.client().deploy_async_api({"name": "no-file"}, namespace["Handler"])
    with pytest.raises(ProjectError, match="must be a class"):
        environment.client().deploy_async_api({"name": "no-file"}, Doubler(config={}))  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="name"):
        environment.client().deploy_async_api({}, Doubler)


def test_deploy_takes_a_dict_with_a_project_directory(environment: Environment, project: ProjectMaker) -> None:
    made = project("py-dict")
    spec = {"name": "py-dict", "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py"}}
    client = environment.client()
    assert client.deploy(spec, made.directory)[0].outcome == "created"
    assert sorted(path.name for path in made.directory.iterdir()) == ["cortex.yaml", "handler.py"]


def test_a_file_with_two_apis_deploys_both(environment: Environment, project: ProjectMaker) -> None:
    made = project("py-one")
    text = (made.directory / "cortex.yaml").read_text()
    (made.directory / "cortex.yaml").write_text(text + text.replace("py-one", "py-two"))
    client = environment.client()
    assert [one.api for one in client.deploy(made.directory / "cortex.yaml")] == ["py-one", "py-two"]
    assert {"py-one", "py-two"} <= {api["name"] for api in client.list_apis()}


def test_a_version_s_archive_is_what_was_deployed_without_its_secrets(environment: Environment, project: ProjectMaker) -> None:
    made = project("py-bundle", files={"data/a.txt": "one", ".env": "PIN=open-sesame\n"})
    client = environment.client()
    assert client.deploy(made.directory / "cortex.yaml")[0].version == 1
    data = client.bundle("py-bundle", 1)
    assert bundle.digest_of(data) == client.deployment("py-bundle", 1)["digest"]
    assert bundle.names(data) == ["data/a.txt", "handler.py"]
    assert b"open-sesame" not in data
    with pytest.raises(DeploymentNotFound, match="no version 7"):
        client.bundle("py-bundle", 7)


def test_patch_changes_the_spec_of_what_is_deployed(environment: Environment, project: ProjectMaker) -> None:
    handler = (
        "class Handler:\n    def __init__(self, config):\n        self.config = config\n    def handle_async(self):\n        return self.config\n"
    )
    project("py-patch", handler, handler_spec="config: {v: 1}").deploy(environment)
    client = environment.client()
    spec = {"name": "py-patch", "kind": "AsyncAPI", "handler": {"type": "python", "path": "handler.py", "config": {"v": 2}}}
    assert client.patch(spec).outcome == "updating"
    assert client.result("py-patch", client.submit("py-patch", {}), wait=60).result == {"v": 2}


def test_cancel_takes_a_waiting_workload_back(environment: Environment, project: ProjectMaker) -> None:
    project("py-cancel").deploy(environment)
    client = environment.client()
    client.stop("py-cancel")
    wait_until(lambda: not environment.processes("replica", "py-cancel"), "the replica is gone")
    request_id = client.submit("py-cancel", {})
    assert client.cancel("py-cancel", request_id).status == "cancelled"
    client.start("py-cancel")
    assert client.result("py-cancel", client.submit("py-cancel", {}), wait=60).status == "completed"
    assert client.result("py-cancel", request_id).status == "cancelled"


def test_workloads_lists_the_newest_and_payload_gives_back_what_was_sent(environment: Environment, project: ProjectMaker) -> None:
    project("py-list", spec="retain:\n  payload: always").deploy(environment)
    client = environment.client()
    first = client.submit("py-list", {"n": 1})
    client.result("py-list", first, wait=60)
    second = client.submit("py-list", b"\x00\xff")
    client.result("py-list", second, wait=60)
    assert [one["id"] for one in client.workloads("py-list")] == [second, first]
    assert [one["id"] for one in client.workloads("py-list", limit=1)] == [second]
    assert [one["id"] for one in client.workloads("py-list", status="failed")] == [second], "bytes are no JSON to answer with"
    assert client.payload("py-list", first) == ("application/json", b'{"n": 1}')
    assert client.payload("py-list", second) == ("application/octet-stream", b"\x00\xff")
    client.delete("py-list")


def test_unknown_ids_and_apis_raise_their_own_errors(environment: Environment, project: ProjectMaker) -> None:
    project("py-errors").deploy(environment)
    client = environment.client()
    with pytest.raises(WorkloadNotFound):
        client.result("py-errors", "no-such-id")
    with pytest.raises(errors.ApiNotFound):
        client.get_api("nobody")


def test_an_environment_that_is_down_is_named_with_the_way_out(tmp_path: Path) -> None:
    client = jupyter_cortex.Client(Where("team", "http://127.0.0.1:9", "t"))
    with pytest.raises(EnvironmentDown, match=r"http://127\.0\.0\.1:9 does not answer"):
        client.list_apis()


def test_a_foreign_server_is_not_mistaken_for_a_gateway(environment: Environment) -> None:
    client = jupyter_cortex.Client(Where("team", f"{environment.url}/_cortex", environment.token))
    with pytest.raises(CortexError):
        client.list_apis()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>", b"HTTP/1.1 302 Found\r\nlocation: /login\r\n\r\n"])
def test_a_page_of_something_else_is_told_in_words(answer: bytes) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(3):
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(answer)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    client = jupyter_cortex.Client(Where("team", f"http://127.0.0.1:{server.getsockname()[1]}", "t"))
    for ask in (client.list_apis, lambda: client.submit("iris", {}), lambda: client.result("iris", "x")):
        with pytest.raises(CortexError, match="is it a jupyter-cortex gateway"):
            ask()
    server.close()


@pytest.mark.parametrize("payload", [{1, 2}, "\ud800", object(), {"x": b""}])
def test_what_cannot_travel_is_refused_with_what_can(environment: Environment, payload: object) -> None:
    with pytest.raises(errors.PayloadError, match="Send bytes, text, or what JSON knows"):
        environment.client().submit("anything", payload)


def test_an_id_that_no_header_may_have_is_refused_by_name(environment: Environment, project: ProjectMaker) -> None:
    project("py-ids").deploy(environment)
    for request_id in ("é", "\ud800", "a b", "x" * 129):
        with pytest.raises(errors.RequestIdError):
            environment.client().submit("py-ids", {}, request_id=request_id)


@pytest.mark.parametrize("cls", sorted(errors._family(CortexError).values(), key=lambda cls: cls.__name__))
def test_every_error_survives_the_way_over_http(cls: type[CortexError]) -> None:
    error = cls("what, where, what to do", path="handler.path")
    back = from_problem(error.problem())
    assert (type(back), back.message, back.details) == (cls, error.message, error.details)


def test_codes_and_titles_of_errors_are_their_own() -> None:
    def family(cls: type[CortexError]) -> list[type[CortexError]]:
        return [cls, *(member for child in cls.__subclasses__() for member in family(child))]

    # One without a code of its own is its parent's refusal, of another family, too.
    classes = [cls for cls in family(CortexError) if "code" in vars(cls)]
    assert len({cls.code for cls in classes}) == len({cls.title() for cls in classes}) == len(classes)
