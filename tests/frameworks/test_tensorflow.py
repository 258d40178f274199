"""The TensorFlow handler with TensorFlow itself: real SavedModels, in this process, in a kernel's shell and in replicas.

``pytest tests/frameworks/test_tensorflow.py`` in an environment that has TensorFlow; elsewhere it is skipped.
"""

from __future__ import annotations

import base64
import shutil
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import HandlerError
from jupyter_cortex.core.schema import MODELS, read_map
from jupyter_cortex.handler.exceptions import UserException
from jupyter_cortex.handler.instance import tensorflow_client

from ..conftest import Environment
from ..notebook.conftest import Shell, shell
from ..parity.test_model_urls import SECRET, Bucket, bucket, server

__all__ = ["bucket", "server", "shell"]  # fixtures

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed here")

HANDLER = """
class Handler:
    def __init__(self, tensorflow_client, config):
        self.client = tensorflow_client

    def handle_async(self, payload):
        return self.client.predict({"x": payload["x"]}, payload.get("name"), payload.get("version", "latest"))
"""


class Times(tf.Module):  # type: ignore[misc, name-defined]
    """x of any number of pairs -> their products with a factor, the index of the greater, and a word for each."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def predict(self, x: Any) -> dict[str, Any]:
        return {"y": x * self.factor, "at": tf.argmax(x, axis=1), "word": tf.strings.as_string(tf.argmax(x, axis=1))}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.string, name="x"), tf.TensorSpec(None, tf.bfloat16, name="any")])
    def join(self, x: Any, any: Any) -> dict[str, Any]:
        return {"joined": tf.strings.reduce_join(x, axis=1), "any": any * 2, "complex": tf.complex(1.0, tf.cast(tf.size(x), tf.float32))}

    @tf.function(input_signature=[tf.TensorSpec([2, 2], tf.float32, name="x")])
    def solve(self, x: Any) -> dict[str, Any]:
        return {"y": tf.linalg.inv(x)}


def save(directory: Path, factor: float, *signatures: str) -> None:
    module = Times(factor)
    tf.saved_model.save(module, str(directory), signatures={name: getattr(module, name) for name in signatures or ("predict",)})


def client_of(root: Path, **models: Any) -> Any:
    return tensorflow_client({"type": "tensorflow", "models": read_map(models, MODELS)}, root)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    save(root / "times" / "9", 9.0)
    save(root / "times" / "10", 10.0)
    save(root / "both", 2.0, "predict", "solve")
    save(root / "texts", 1.0, "join")
    return root


WORDS = [base64.b64encode(word).decode() for word in (b"1", b"0")]


def test_the_latest_version_answers_with_flat_lists_that_json_holds(models: Path) -> None:
    client = client_of(models, path="times")
    assert client.predict({"x": [[0.1, 2], [3, 1]]}) == {"y": [1.0, 20.0, 30.0, 10.0], "at": ["1", "0"], "word": WORDS}
    assert client.predict({"x": [[0, 1]]}, "whatever", "9")["y"] == [0.0, 9.0]
    with pytest.raises(UserException, match="has no version 8; it has 9, 10"):
        client.predict({"x": [[0, 1]]}, model_version="8")
    with pytest.raises(UserException, match=r"key 'x' of the model \(version 10\): expected float32 of shape \[\?, 2\], got int64 of shape \[2\]"):
        client.predict({"x": [0, 1]})


def test_names_and_signatures_of_several_models(models: Path) -> None:
    paths = [{"name": "a", "path": "times"}, {"name": "b", "path": str(models / "both"), "signature_key": "solve"}]
    client = client_of(Path("/nowhere") / models, paths=paths)
    assert client.predict({"x": [[0, 1]]}, "a")["y"] == [0.0, 10.0]
    assert client.predict({"x": [[2, 0], [0, 4]]}, "b", "1") == {"y": [0.5, 0.0, 0.0, 0.25]}
    everything = client_of(models.parent, dir=models.name)
    assert everything.predict({"x": [[1, 1]]}, "both")["y"] == [2.0, 2.0], "predict is taken of several"
    with pytest.raises(HandlerError, match=r"has no signature 'c'; signature_key must be one of: predict, solve"):
        client_of(models, path="both", signature_key="c")


def test_texts_any_shapes_and_types_that_numpy_lacks(models: Path) -> None:
    client = client_of(models, path="texts")
    joined = [base64.b64encode(text).decode() for text in (b"a\xff", "éb".encode())]
    found = client.predict({"x": [["a", b"\xff"], ["é", "b"]], "any": [[0.5], [2]]})
    assert found == {"joined": joined, "any": [1.0, 4.0], "complex": [1.0, 4.0]}
    assert client.predict({"x": [[]], "any": 1})["joined"] == [""]


def test_what_the_model_itself_refuses_is_told_in_its_words(models: Path) -> None:
    with pytest.raises(UserException, match=r"(?s)^the model \(version 1\) cannot run: .*Input is not invertible"):
        client_of(models, path="both", signature_key="solve").predict({"x": [[0, 0], [0, 0]]})


def test_several_threads_may_call_one_client(models: Path) -> None:
    client = client_of(models, path="times")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: client.predict({"x": [[number, 1]]})["y"][0], range(64)))
    assert found == [10.0 * number for number in range(64)]


def test_a_damaged_model_fails_the_start_and_names_its_directory(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "both", tmp_path / "m")
    (tmp_path / "m" / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(HandlerError, match=r"handler\.models: the model \(version 1\) cannot be loaded by TensorFlow") as caught:
        client_of(tmp_path, path="m")
    assert caught.value.details["kind"] == "model"


def spec(name: str, models: str, more: str = "") -> str:
    head = f"- name: {name}\n  kind: AsyncAPI\n  handler:\n    type: tensorflow\n    path: handler.py\n    models: {models}\n"
    return head + textwrap.indent(textwrap.dedent(more), "    ")


def test_a_kernel_has_the_client_of_a_replica_and_sees_a_model_that_is_saved_again(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "models" / "1", 3.0)
    (tmp_path / "cortex.yaml").write_text(spec("times", "{path: models}"))
    shell.run(HANDLER)

    def tried() -> str:
        capsys.readouterr()
        shell.run('%%cortex payload --content-type application/json\n{"x": [[1, 0]]}')
        return capsys.readouterr().out + shell.text

    first = tried()
    assert "3.0" in first, first
    client = shell.session.instance({}).handler.client
    shell.run(HANDLER)  # another class, the same models
    tried()
    assert shell.session.instance({}).handler.client is client
    save(tmp_path / "models" / "2", 4.0)
    assert "4.0" in tried()


@pytest.fixture
def deployed(environment: Environment, tmp_path: Path) -> Iterator[Any]:
    client, names = environment.client(), []

    def deploy(name: str, models: str, more: str = "", dotenv: str = "") -> Any:
        (tmp_path / "cortex.yaml").write_text(spec(name, models, more))
        (tmp_path / "handler.py").write_text(HANDLER)
        (tmp_path / ".env").write_text(dotenv)
        names.append(name)
        client.deploy(tmp_path / "cortex.yaml")
        return lambda payload: client.result(name, client.submit(name, payload), wait=120).result

    yield deploy
    for name in names:
        client.delete(name)


def test_a_project_s_model_travels_and_answers_as_it_does_here(deployed: Any, models: Path, tmp_path: Path, environment: Environment) -> None:
    shutil.copytree(models / "times", tmp_path / "models" / "times")
    ask = deployed("tf-times", "{dir: models}")
    shutil.rmtree(tmp_path / "models")
    payload = {"x": [[0.1, 2], [3, 1]]}
    own = client_of(models, path="times")
    assert ask({**payload, "name": "times"}) == own.predict(payload)
    assert ask({**payload, "name": "times", "version": "9"}) == own.predict(payload, model_version="9")


def test_a_model_in_a_bucket_is_served_with_the_credentials_of_env_which_nobody_reads(
    deployed: Any, bucket: Bucket, server: str, models: Path, tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (models / "times").rglob("*"):
        if file.is_file():
            bucket.put(f"times/{file.relative_to(models / 'times').as_posix()}", file.read_bytes())
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    env = f"env:\n  AWS_ENDPOINT_URL: {server}\n  AWS_DEFAULT_REGION: us-east-1\n  XDG_CACHE_HOME: {tmp_path / 'cache'}\n"
    ask = deployed("tf-bucket", "{path: s3://models/times/}", env, f"AWS_ACCESS_KEY_ID=somebody\nAWS_SECRET_ACCESS_KEY={SECRET}\n")
    assert ask({"x": [[0, 1]]})["y"] == [0.0, 10.0]
    assert len(list((tmp_path / "cache").rglob("saved_model.pb"))) == 2
    log = "\n".join(str(line) for line in environment.client().logs("tf-bucket", lines=1000))
    assert "copying s3://models/times/" in log
    assert SECRET not in log
