"""Models at a URL: copied to this machine once, from a real S3 server on this machine."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jupyter_cortex.handler import logs
from jupyter_cortex.handler.tensorflow.download import local_copy
from jupyter_cortex.handler.tensorflow.models import ModelProblem, versions

from ..conftest import missing

SECRET = "a-secret-that-nobody-may-read"
WHOLE = {"1/saved_model.pb": b"graph", "1/variables/variables.index": b"index", "1/variables/variables.data-00000-of-00001": b"numbers"}


class Bucket:
    """One bucket of the S3 server, and how it is reached: by the variables that every S3 client knows."""

    def __init__(self, address: str) -> None:
        import boto3

        self._client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
        self._client.create_bucket(Bucket="models")

    def put(self, path: str, content: bytes) -> None:
        self._client.put_object(Bucket="models", Key=path, Body=content)

    def model(self, name: str, **changed: bytes) -> str:
        for path, content in {**WHOLE, **changed}.items():
            self.put(f"{name}/{path}", content)
        return f"s3://models/{name}"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        missing("moto is not installed, which is the S3 server of these tests: pip install '.[test]'")
    made = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    made.start()
    yield "http://{}:{}".format(*made.get_host_and_port())
    made.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    return Bucket(server)


@pytest.fixture
def said() -> list[str]:
    """The lines of the API's log."""
    found: list[str] = []
    logs.setup_worker(found.append, labels={}, level="info", rate=1000)
    return found


def copies(said: list[str]) -> int:
    return sum("copying s3://" in line for line in said)


def test_a_model_is_copied_once_and_again_when_it_changes_there(bucket: Bucket, tmp_path: Path, said: list[str]) -> None:
    url = bucket.model("once")
    first = local_copy(url + "/", tmp_path)
    assert {name: (first / name).read_bytes() for name in WHOLE} == WHOLE
    assert list(versions(first, url)) == ["1"]
    assert local_copy(url + "/", tmp_path) == first
    assert copies(said) == 1
    bucket.put("once/1/saved_model.pb", b"other")
    second = local_copy(url + "/", tmp_path)
    assert (second / "1/saved_model.pb").read_bytes() == b"other"
    assert (first / "1/saved_model.pb").read_bytes() == b"graph", "a replica that has it keeps it"
    assert copies(said) == 2


def test_a_copy_that_was_touched_is_used_when_it_is_the_same_and_fetched_when_it_is_not(bucket: Bucket, tmp_path: Path, said: list[str]) -> None:
    url = bucket.model("touched")
    copy = local_copy(url, tmp_path)
    (copy / "1/saved_model.pb").touch()
    assert (local_copy(url, tmp_path), copies(said)) == (copy, 1)
    (copy / "1/saved_model.pb").write_bytes(b"wrong")
    (copy / "1/variables/variables.index").unlink()
    assert (local_copy(url, tmp_path), copies(said)) == (copy, 2)
    assert {name: (copy / name).read_bytes() for name in WHOLE} == WHOLE


def test_replicas_that_start_together_copy_it_once(bucket: Bucket, tmp_path: Path, said: list[str]) -> None:
    url, together = bucket.model("together"), threading.Barrier(4)

    def start(_: int) -> Path:
        together.wait()
        return local_copy(url, tmp_path)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, range(4)))) == 1
    assert copies(said) == 1


def test_a_server_that_is_away_leaves_the_copy_of_this_machine(
    bucket: Bucket, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bucket.model("away")
    before = local_copy(url, tmp_path)
    os.utime(before.parent / "whole.json", (at := time.time() - 3600, at))
    bucket.put("away/1/saved_model.pb", b"newer")
    copy = local_copy(url, tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert (local_copy(url, tmp_path), (before / "1/saved_model.pb").is_file()) == (copy, True)
    assert "the copy of it that is on this machine is used" in said[-1]
    with pytest.raises(ModelProblem, match=r"s3://models/never cannot be read now: \w+") as caught:
        local_copy("s3://models/never", tmp_path)
    assert SECRET not in "\n".join([str(caught.value), *said])


def test_a_place_with_nothing_is_told_and_leaves_nothing(bucket: Bucket, tmp_path: Path) -> None:
    for url in ("s3://models/nothing", "s3://no-such-bucket/model"):
        with pytest.raises(ModelProblem, match=f"there is nothing at {url}; upload the model"):
            local_copy(url, tmp_path)
    assert not list(tmp_path.glob("*/*/content"))


def test_a_package_that_is_missing_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # type: ignore[arg-type]
    with pytest.raises(ModelProblem, match=r"gs://b/m needs gcsfs: add it to requirements\.txt, or `.* -m pip install gcsfs`"):
        local_copy("gs://b/m", tmp_path)
    with pytest.raises(ModelProblem, match="fsspec knows no protocol nowhere://"):
        local_copy("nowhere://b/m", tmp_path)
    monkeypatch.setitem(sys.modules, "fsspec", None)  # type: ignore[arg-type]
    with pytest.raises(ModelProblem, match="needs fsspec s3fs"):
        local_copy("s3://b/m", tmp_path)


def test_a_shared_directory_by_its_url_is_copied_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    for name, content in WHOLE.items():
        (tmp_path / "shared" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shared" / name).write_bytes(content)
    copy = local_copy(f"file://{tmp_path}/shared", tmp_path / "cache")
    assert {name: (copy / name).read_bytes() for name in WHOLE} == WHOLE
