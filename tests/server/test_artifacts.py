"""Artifacts: files that are too large for a bundle, from the author's disk to the Handler, on one machine and on several."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from jupyter_cortex.client import Deployed
from jupyter_cortex.core.errors import ArtifactsUnavailable, DeployFailed, EnvironmentProblem, ProjectError, Refused, SpecError
from jupyter_cortex.operator import tidy
from jupyter_cortex.operator.home import Home
from jupyter_cortex.serving.artifacts import Artifacts
from jupyter_cortex.serving.remote import Remote, environ
from jupyter_cortex.store import artifacts as ledger

from ..conftest import Environment, Project, ProjectMaker, wait_until
from .test_control_http import entry, keys_of, request_of, uploaded
from .test_public_http import refused

V1 = "/_cortex/v1"
DAY_MS = 86_400_000
READS = """
import hashlib
import os
import pathlib

class Handler:
    def __init__(self, config):
        self.files = {path: pathlib.Path(path) for path in config["paths"]}

    def handle_async(self):
        digests = {path: hashlib.sha256(file.read_bytes()).hexdigest() for path, file in self.files.items()}
        return {"digests": digests, "project": os.environ["CORTEX_PROJECT_DIR"], "links": [file.is_symlink() for file in self.files.values()]}
"""


@pytest.fixture
def control(environment: Environment) -> Iterator[httpx.Client]:
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as client:
        yield client


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def model(project: ProjectMaker, name: str, files: dict[str, bytes], ignore: bytes = b"") -> Project:
    """A project whose artifacts are ``files``, and whose Handler answers with the digest of each."""
    listed = ", ".join(files)
    return project(name, READS, f"artifacts: [{listed}]", files={**files, ".cortexignore": ignore}, handler_spec=f"config: {{paths: [{listed}]}}")


def digests(environment: Environment, name: str) -> dict[str, str]:
    client = environment.client()
    found = client.result(name, client.submit(name, {}), wait=60)
    assert found.status == "completed", found
    return dict(found.result["digests"])


def contents(home: Path) -> set[str]:
    """What lies in a home's directory of artifacts, everything included."""
    return {path.name for path in (home / "artifacts").rglob("*") if path.is_file()}


def uploads(made: Project, environment: Environment, **options: Any) -> tuple[Deployed, list[str]]:
    steps: list[str] = []
    return made.deploy(environment, progress=steps.append, **options), [step for step in steps if " of " in step]


# From the author's disk to the Handler --------------------------------------------------------------------------------


def test_a_file_that_no_bundle_and_no_control_body_could_hold_arrives_at_its_path(environment: Environment, project: ProjectMaker) -> None:
    content = os.urandom(50 * 2**20)
    made = model(project, "art-large", {"models/large.bin": content})
    deployed, steps = uploads(made, environment)
    try:
        assert deployed.warnings == []
        assert steps == [f"uploading models/large.bin {done} of 50 MiB" for done in (0, 16, 32, 48)]
        assert digests(environment, "art-large") == {"models/large.bin": sha(content)}
        spec = environment.client().get_api("art-large")["spec"]
        assert spec["artifacts"] == [{"path": "models/large.bin", "sha256": sha(content), "bytes": len(content)}]
    finally:
        environment.client().delete("art-large")


def test_cortexignore_and_hidden_names_do_not_keep_an_artifact_back(environment: Environment, project: ProjectMaker) -> None:
    files = {"models/a.bin": b"a", ".cache/b.bin": b"b", "empty": b""}
    made = model(project, "art-ignored", files, b"models\n*.bin\n")
    made.deploy(environment)
    try:
        assert digests(environment, "art-ignored") == {path: sha(content) for path, content in files.items()}
    finally:
        environment.client().delete("art-ignored")


def test_what_has_not_changed_is_sent_once_for_all_apis_and_lies_on_the_disk_once(environment: Environment, project: ProjectMaker) -> None:
    content = os.urandom(1000)
    made = model(project, "art-once", {"m.bin": content})
    try:
        assert uploads(made, environment)[1] == ["uploading m.bin 0 of 0 MiB"]
        again, steps = uploads(made, environment)
        assert (again.outcome, steps) == ("up_to_date", [])
        changed, steps = uploads(made.write(READS + "\n# another\n"), environment)
        assert (changed.version, steps) == (2, [])
        assert uploads(model(project, "art-too", {"other/name.bin": content}), environment)[1] == []
        places = list((environment.home / "projects").glob("art-*/project/m.bin")) + list(
            (environment.home / "projects").glob("art-too-*/**/name.bin")
        )
        assert len(places) >= 2
        assert {place.stat().st_ino for place in places} == {Artifacts(environment.home / "artifacts").path(sha(content)).stat().st_ino}
        assert digests(environment, "art-too") == {"other/name.bin": sha(content)}
    finally:
        for name in ("art-once", "art-too"):
            environment.client().delete(name)


def test_a_changed_artifact_is_a_new_version_with_new_replicas(environment: Environment, project: ProjectMaker) -> None:
    made = model(project, "art-new", {"m.bin": b"one"})
    made.deploy(environment)
    try:
        (made.directory / "m.bin").write_bytes(b"two")
        deployed = made.deploy(environment)
        assert (deployed.outcome, deployed.version) == ("updating", 2)
        wait_until(lambda: digests(environment, "art-new") == {"m.bin": sha(b"two")}, "the new content is served")
        versions = environment.client().get_api("art-new")["api_versions"]
        assert [version["spec"]["artifacts"][0]["sha256"] for version in versions] == [sha(b"two"), sha(b"one")]
        assert len({version["digest"] for version in versions}) == 1, "it is not in the bundle"
    finally:
        environment.client().delete("art-new")


def test_an_artifact_that_is_missing_is_refused_before_anything_is_sent(environment: Environment, project: ProjectMaker) -> None:
    made = model(project, "art-missing", {"there.bin": b"there and nowhere else", "not/there.bin": b""})
    (made.directory / "not" / "there.bin").unlink()
    with pytest.raises(ProjectError, match=r"not/there\.bin is not there") as caught:
        made.deploy(environment)
    assert (caught.value.details["kind"], caught.value.details["path"]) == ("artifact_missing", "not/there.bin")
    assert not keys_of(environment, "art-missing")
    assert sha(b"there and nowhere else") not in contents(environment.home)


def test_a_refresh_and_a_patch_keep_the_artifacts_that_are_there(environment: Environment, project: ProjectMaker) -> None:
    made = model(project, "art-again", {"m.bin": b"kept"})
    made.deploy(environment)
    client = environment.client()
    try:
        assert client.refresh("art-again").version == 2
        handler = {"type": "python", "path": "handler.py", "config": {"paths": ["m.bin"], "more": 1}}
        assert client.patch(entry("art-again", handler=handler, artifacts=["m.bin"])).version == 3
        assert digests(environment, "art-again") == {"m.bin": sha(b"kept")}
        assert client.refresh("art-again").version == 4
        with pytest.raises(SpecError, match=r"other\.bin has no sha256.*cortex deploy"):
            client.patch(entry("art-again", artifacts=["other.bin"]))
    finally:
        client.delete("art-again")


# The door -------------------------------------------------------------------------------------------------------------


def test_a_content_is_taken_only_from_a_holder_of_the_token(environment: Environment) -> None:
    content = os.urandom(100)
    with environment.http() as stranger:
        for method in ("GET", "PUT"):
            refused(stranger.request(method, f"{V1}/artifacts/{sha(content)}", content=content), 401, "unauthorized")
    assert sha(content) not in contents(environment.home)


def test_a_damaged_upload_is_refused_and_leaves_nothing(environment: Environment, control: httpx.Client) -> None:
    content = os.urandom(3 * 2**20)
    place, before = f"{V1}/artifacts/{sha(content)}", contents(environment.home)
    for body in (content[:-1], content + b"x", b"", content[:-1] + bytes([content[-1] ^ 1])):
        assert "damaged" in refused(control.put(place, content=body), 400, "refused")["detail"]
    assert control.get(place).json() == {"present": False, "bytes": None}
    assert contents(environment.home) == before
    assert control.put(place, content=content).json() == {"present": True, "bytes": len(content)}
    assert control.get(place).json() == {"present": True, "bytes": len(content)}
    for odd in ("x", sha(content).upper(), sha(content) + "0", "..%2f..%2fconfig.json"):
        assert control.put(f"{V1}/artifacts/{odd}", content=content).status_code in (400, 404)


def test_an_upload_whose_sender_goes_away_leaves_nothing(environment: Environment) -> None:
    content = os.urandom(4 * 2**20)
    before = contents(environment.home)
    url = httpx.URL(environment.url)
    with socket.create_connection((url.host, url.port or 80)) as line:
        head = f"PUT {V1}/artifacts/{sha(content)} HTTP/1.1\r\nHost: {url.host}\r\nAuthorization: Bearer {environment.token}\r\n"
        line.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[: 2 * 2**20])
        wait_until(lambda: contents(environment.home) - before, "it is on its way")
    wait_until(lambda: contents(environment.home) == before, "nothing is left")
    assert "ClientDisconnect" not in (environment.home / "logs" / "gateway.log").read_text()


def test_a_disk_that_takes_no_more_is_a_503_that_says_so_and_leaves_nothing(own_environment: Callable[..., Environment]) -> None:
    environment = own_environment()
    gateway = psutil.Process(environment.slot("gateway").pid())
    if not hasattr(gateway, "rlimit"):
        pytest.skip("no limits of another process can be set on this system")
    content = os.urandom(3 * 2**20)
    limits = gateway.rlimit(psutil.RLIMIT_FSIZE)
    gateway.rlimit(psutil.RLIMIT_FSIZE, (2 * 2**20, limits[1]))
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as door:
        place = f"{V1}/artifacts/{sha(content)}"
        document = refused(door.put(place, content=content), 503, "artifacts_unavailable")
        assert "does not take the artifact" in document["detail"]
        assert contents(environment.home) == set()
        too_much = door.build_request("PUT", place, content=iter([b"x"]), headers={"content-length": str(10**15)})
        with socket.create_connection((too_much.url.host, too_much.url.port or 80)) as line:
            line.sendall(f"PUT {place} HTTP/1.1\r\n".encode() + b"".join(b"%s: %s\r\n" % pair for pair in too_much.headers.raw) + b"\r\nx")
            said = b""
            while b"make room" not in said and (more := line.recv(4096)):
                said += more
            assert b"make room" in said
        gateway.rlimit(psutil.RLIMIT_FSIZE, limits)
        assert door.put(place, content=content).status_code == 200


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "a/../../evil", "handler.py", ".env", "a\\b"])
def test_the_gateway_refuses_a_path_that_is_not_an_artifact_s(path: str, control: httpx.Client) -> None:
    digest = uploaded(control, "art-slip")
    spec = entry("art-slip", artifacts=[{"path": path, "sha256": sha(b""), "bytes": 0}])
    control.put(f"{V1}/artifacts/{sha(b'')}", content=b"")
    document = refused(control.put(f"{V1}/apis/art-slip", json=request_of("art-slip", digest, spec)), 400, "invalid_spec")
    assert document["path"] == "artifacts[0].path"


def test_the_gateway_refuses_a_spec_whose_artifacts_it_does_not_hold(control: httpx.Client) -> None:
    digest = uploaded(control, "art-none")
    control.put(f"{V1}/artifacts/{sha(b'abc')}", content=b"abc")
    for artifact, where, said in (
        ("m.bin", "artifacts[0].sha256", "has no sha256"),
        ({"path": "m.bin", "sha256": "0" * 64, "bytes": 1}, "artifacts[0].sha256", "is not here; deploy from"),
        ({"path": "m.bin", "sha256": sha(b"abc"), "bytes": 4}, "artifacts[0].bytes", "has 3 bytes here"),
    ):
        answer = control.put(f"{V1}/apis/art-none", json=request_of("art-none", digest, entry("art-none", artifacts=[artifact])))
        document = refused(answer, 400, "invalid_spec")
        assert document["path"] == where
        assert said in document["detail"]
        assert "m.bin" in document["detail"]


# What a start does when the content is not what it was ----------------------------------------------------------------


def test_a_content_that_cannot_come_fails_the_deploy_and_the_old_version_serves_on(
    own_environment: Callable[..., Environment], project: ProjectMaker
) -> None:
    environment = own_environment()
    made = model(project, "art-lost", {"m.bin": b"one"})
    made.deploy(environment)
    (made.directory / "m.bin").write_bytes(b"two")
    environment.slot("operator").signal(signal.SIGSTOP)
    try:
        version = made.deploy(environment, wait=False).version
        Artifacts(environment.home / "artifacts").path(sha(b"two")).unlink()
    finally:
        environment.slot("operator").signal(signal.SIGCONT)
    with pytest.raises(DeployFailed, match=r"m\.bin: its content .* is not in .*set JUPYTER_CORTEX_ARTIFACTS"):
        environment.client().wait_live("art-lost", version)
    assert digests(environment, "art-lost") == {"m.bin": sha(b"one")}
    assert made.deploy(environment).version == version + 1, "the next deploy sends it again"
    wait_until(lambda: digests(environment, "art-lost") == {"m.bin": sha(b"two")}, "the new content is served")


def kept(artifacts: Artifacts, content: bytes) -> Path:
    with artifacts.receive() as incoming:
        incoming.write(content)
        return incoming.keep(sha(content))


def test_what_a_handler_wrote_into_its_artifact_reaches_no_other_version(tmp_path: Path) -> None:
    for url in ("", f"file://{tmp_path}/shared"):
        artifacts = Artifacts(tmp_path / f"home{len(url)}", url)
        kept(artifacts, b"content")
        first, second = tmp_path / f"first{len(url)}" / "m.bin", tmp_path / f"second{len(url)}" / "m.bin"
        artifacts.place(sha(b"content"), first)
        assert first.stat().st_mode & 0o777 == 0o444
        first.chmod(0o644)
        first.write_bytes(b"CONTENT")
        if url:
            artifacts.place(sha(b"content"), second)
            artifacts.place(sha(b"content"), first)
            assert (first.read_bytes(), second.read_bytes()) == (b"content", b"content")
        else:
            assert artifacts.held(sha(b"content")) is None, "so that the next deploy sends it again"
            with pytest.raises(EnvironmentProblem, match="deploy again"):
                artifacts.place(sha(b"content"), second)


def test_a_content_that_was_only_touched_is_still_good(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    os.utime(kept(artifacts, b"content"))
    assert artifacts.held(sha(b"content")) == 7


def test_where_there_are_no_hard_links_a_project_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    artifacts = Artifacts(tmp_path / "home")
    kept(artifacts, b"content")
    for _ in range(2):
        artifacts.place(sha(b"content"), tmp_path / "project" / "m.bin")
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["m.bin"]
    assert (tmp_path / "project" / "m.bin").read_bytes() == b"content"


# At a URL, for several machines ---------------------------------------------------------------------------------------


class Elsewhere:
    """``cortex worker`` with a home of its own, playing another machine."""

    def __init__(self, environment: Environment, name: str, home: Path, **variables: str) -> None:
        self.home = home / "elsewhere"
        command = [sys.executable, "-m", "jupyter_cortex.cli", "worker", name, "--redis", Home(environment.home).redis_url(), "--no-gateway"]
        env = {**os.environ, "JUPYTER_CORTEX_HOME": str(home), **variables}
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, said
        return said


def served_from(environment: Environment, name: str, home: Path) -> dict[str, str]:
    """The digests as a replica below ``home`` answers them."""
    client = environment.client()

    def answer() -> Any:
        result = client.result(name, client.submit(name, {}), wait=60).result
        return result if result and result["project"].startswith(str(home)) else None

    return dict(wait_until(answer, f"a replica in {home} answers")["digests"])


def trouble(environment: Environment, name: str) -> str:
    """What a worker of the API says of itself that is wrong."""
    workers = environment.client().get_api(name)["workers"].values()
    return next((worker["trouble"] for worker in workers if worker["trouble"]), "")


def test_another_machine_fetches_an_artifact_from_the_url_once(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/shared"
    environment = own_environment(artifacts=url)
    content = os.urandom(5 * 2**20)
    made = model(project, "art-far", {"m.bin": content})
    assert uploads(made, environment)[1] == ["uploading m.bin 0 of 5 MiB"]
    assert digests(environment, "art-far") == {"m.bin": sha(content)}
    assert [path.read_bytes() for path in (tmp_path / "shared").rglob("*") if path.is_file()] == [content]
    far = Elsewhere(environment, "art-far", tmp_path / "far", JUPYTER_CORTEX_ARTIFACTS=url)
    try:
        assert served_from(environment, "art-far", far.home) == {"m.bin": sha(content)}
        assert contents(far.home) == {sha(content), "lock"}
        Remote(url).remove(sha(content))
        with pytest.raises(SpecError, match="is not here"):
            environment.client().refresh("art-far")
        deployed, steps = uploads(made, environment, force=True)
        assert (deployed.version, steps) == (2, ["uploading m.bin 0 of 5 MiB"])
    finally:
        far.stop()


def test_a_live_version_whose_content_is_away_starts_when_it_is_back(
    own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/shared"
    environment = own_environment(artifacts=url)
    model(project, "art-away", {"m.bin": b"content"}).deploy(environment)
    (tmp_path / "shared").rename(tmp_path / "away")
    far = Elsewhere(environment, "art-away", tmp_path / "far", JUPYTER_CORTEX_ARTIFACTS=url)
    try:
        assert "m.bin: its content" in wait_until(lambda: trouble(environment, "art-away"), "the worker says what is wrong")
        (tmp_path / "away").rename(tmp_path / "shared")
        assert served_from(environment, "art-away", far.home) == {"m.bin": sha(b"content")}
        assert not trouble(environment, "art-away")
    finally:
        far.stop()


def test_another_machine_without_a_url_says_what_to_set(own_environment: Callable[..., Environment], project: ProjectMaker, tmp_path: Path) -> None:
    environment = own_environment()
    model(project, "art-here", {"m.bin": b"here only"}).deploy(environment)
    far = Elsewhere(environment, "art-here", tmp_path / "far")

    sentence = wait_until(lambda: trouble(environment, "art-here"), "the worker says what is wrong")
    assert "m.bin: its content" in sentence
    assert "set JUPYTER_CORTEX_ARTIFACTS on both to a URL that both reach" in sentence
    assert digests(environment, "art-here") == {"m.bin": sha(b"here only")}
    assert sentence in far.stop()


def test_two_fetches_of_one_content_at_once_are_one(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    content = os.urandom(20 * 2**20)
    kept(Artifacts(tmp_path / "near", url), content)
    code = "import sys, pathlib; from jupyter_cortex.serving.artifacts import Artifacts\n"
    code += "print(Artifacts(pathlib.Path(sys.argv[1]), sys.argv[2]).fetch(sys.argv[3]).stat().st_ino)"
    arguments = [sys.executable, "-c", code, str(tmp_path / "far"), url, sha(content)]
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate(timeout=60)[0] for process in both}) == 1
    assert Artifacts(tmp_path / "far").held(sha(content)) == len(content)


def test_a_content_that_was_damaged_at_the_url_is_not_used(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared"
    kept(Artifacts(tmp_path / "near", url), b"content")
    (tmp_path / "shared" / sha(b"content")[:2] / sha(b"content")).unlink()
    (tmp_path / "shared" / sha(b"content")[:2] / sha(b"content")).write_bytes(b"CONTENT")
    with pytest.raises(Refused, match="damaged"):
        Artifacts(tmp_path / "far", url).fetch(sha(b"content"))
    assert not list((tmp_path / "far").rglob("*.part"))


def test_a_url_that_cannot_be_used_is_said_with_the_line_that_helps_and_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="must be a URL"):
        Artifacts(tmp_path, "no-url").check()
    with pytest.raises(EnvironmentProblem, match="knows no protocol nonsense://"):
        Artifacts(tmp_path, "nonsense://x").check()
    away = Artifacts(tmp_path, "ftp://user:hunter2@127.0.0.1:9/there")
    away.check()
    for attempt in (lambda: away.held("0" * 64), lambda: away.fetch("0" * 64), lambda: kept(away, b"x"), lambda: away.remove("0" * 64)):
        with pytest.raises(ArtifactsUnavailable, match=r"\(ftp://…\) cannot be used now") as caught:
            attempt()
        assert "hunter2" not in repr(caught.value) + caught.value.message
    assert not list(tmp_path.rglob("*.part"))


def test_nothing_is_made_above_the_url_where_a_share_may_not_be_mounted(tmp_path: Path) -> None:
    with pytest.raises(ArtifactsUnavailable, match="No such file or directory"):
        kept(Artifacts(tmp_path / "home", f"file://{tmp_path}/not/mounted"), b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("absent", "line"), [("fsspec", "pip install 'jupyter-cortex[artifacts]' s3fs"), ("s3fs", "s3fs")])
def test_a_package_that_is_not_installed_is_named_in_one_line(absent: str, line: str, tmp_path: Path) -> None:
    code = f"import sys, pathlib; sys.modules[{absent!r}] = None; from jupyter_cortex.serving.artifacts import Artifacts\n"
    code += "Artifacts(pathlib.Path(sys.argv[1]), 's3://bucket/path').check()"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "EnvironmentProblem" in done.stderr
    assert f"`pip install 'jupyter-cortex[artifacts]' {line.rpartition(' ')[2]}`" in done.stderr


def test_the_keys_of_a_url_reach_our_processes_only_when_there_is_one() -> None:
    variables = {"AWS_SECRET_ACCESS_KEY": "x", "FSSPEC_S3_KEY": "y", "HOME": "/"}
    assert environ("", variables) == {}
    assert environ("s3://b", variables) == {"AWS_SECRET_ACCESS_KEY": "x", "FSSPEC_S3_KEY": "y"}


# What goes, and when --------------------------------------------------------------------------------------------------


def test_what_no_version_needs_goes_after_a_day_and_what_one_needs_stays(own_environment: Callable[..., Environment], project: ProjectMaker) -> None:
    environment = own_environment()
    made = model(project, "art-prune", {"m.bin": b"used"})
    made.deploy(environment)
    artifacts, client, store = Artifacts(environment.home / "artifacts"), environment.client(), environment.redis()
    with environment.http(headers={"authorization": f"Bearer {environment.token}"}) as door:
        assert door.put(f"{V1}/artifacts/{sha(b'unused')}", content=b"unused").status_code == 200
    now = int(time.time() * 1000)
    assert tidy.prune(store, artifacts, now + DAY_MS // 2) == []
    assert tidy.prune(store, artifacts, now + 2 * DAY_MS) == [sha(b"unused")]
    assert contents(environment.home) == {sha(b"used")}
    client.delete("art-prune")
    wait_until(lambda: not keys_of(environment, "art-prune"), "the API is gone")
    assert tidy.prune(store, artifacts, now + 2 * DAY_MS + DAY_MS // 2) == [], "it was needed half a day ago"
    assert tidy.prune(store, artifacts, now + 4 * DAY_MS) == [sha(b"used")]
    assert contents(environment.home) == set()
    assert not store.exists("cx:artifacts")


def test_the_operator_removes_by_itself_what_is_due_and_what_was_left_half(own_environment: Callable[..., Environment]) -> None:
    environment = own_environment()
    artifacts = Artifacts(environment.home / "artifacts")
    kept(artifacts, b"old")
    kept(artifacts, b"new")
    ledger.note(environment.redis(), [sha(b"old")], int(time.time() * 1000) - 2 * DAY_MS)
    ledger.note(environment.redis(), [sha(b"new")], int(time.time() * 1000))
    half = artifacts.directory / "incoming-x.part"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    environment.slot("operator").signal(signal.SIGKILL)
    wait_until(lambda: contents(environment.home) == {sha(b"new")}, "a new operator has tidied up")


def test_asking_for_a_content_keeps_it_for_another_day(environment: Environment, control: httpx.Client) -> None:
    place = f"{V1}/artifacts/{sha(b'asked')}"
    control.put(place, content=b"asked")
    store = environment.redis()
    store.zadd("cx:artifacts", {sha(b"asked"): 0})
    assert control.get(place).json()["present"]
    assert not ledger.is_due(store, sha(b"asked"), int(time.time() * 1000))


def test_a_cache_keeps_what_a_project_has_and_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts(tmp_path / "home")
    kept(artifacts, b"linked")
    kept(artifacts, b"alone")
    artifacts.place(sha(b"linked"), tmp_path / "project" / "m.bin")
    artifacts.tidy(unused=True)
    assert {path.name for path in artifacts.directory.glob("??/*")} == {sha(b"linked"), sha(b"alone")}
    later = time.time() + 2 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    artifacts.tidy(unused=True)
    assert {path.name for path in artifacts.directory.glob("??/*")} == {sha(b"linked")}
