"""The TensorFlow client: what it accepts, chooses, converts and refuses. TensorFlow itself is not needed (tests/frameworks has what does)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import HandlerError
from jupyter_cortex.core.schema import MODELS, read_map
from jupyter_cortex.handler import shim
from jupyter_cortex.handler.exceptions import UserException, UserRuntimeException
from jupyter_cortex.handler.instance import tensorflow_client
from jupyter_cortex.handler.tensorflow.convert import to_arrays, to_list
from jupyter_cortex.handler.tensorflow.models import ModelProblem, models_in, versions
from jupyter_cortex.handler.tensorflow.rest import Serving
from jupyter_cortex.handler.tensorflow.savedmodel import tensorflow_present
from jupyter_cortex.handler.tensorflow.signature import Signature, Tensor, choose

from ..tensorflow_serving import ANY_SHAPE, Server, Version, irises, serving, signature, tensor

WHOLE = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


def saved(directory: Path, *without: str) -> Path:
    """A directory with the files of a SavedModel, which no TensorFlow could load."""
    for name in WHOLE:
        if name not in without:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(b"")
    return directory


def section(**models: Any) -> dict[str, Any]:
    return {"type": "tensorflow", "models": read_map(models, MODELS)}


def client_of(**models: Any) -> Any:
    return tensorflow_client(section(**models), Path("/"))


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"iris": {"2": irises(2), "10": irises(10), "11": Version({}, dict, state="LOADING")}}) as made:
        yield made


# Model directories ----------------------------------------------------------------------------------------------------


def test_an_unversioned_model_is_version_1_and_versions_are_sorted_by_number(tmp_path: Path) -> None:
    assert versions(saved(tmp_path / "one"), "one") == {"1": tmp_path / "one"}
    for name in ("9", "10", "2"):
        saved(tmp_path / "many" / name)
    (tmp_path / "many" / ".DS_Store").touch()
    assert list(versions(tmp_path / "many", "many")) == ["2", "9", "10"]


@pytest.mark.parametrize("name", WHOLE)
def test_each_needed_file_is_missed_by_its_name(name: str, tmp_path: Path) -> None:
    saved(tmp_path / "m" / "3", name)
    with pytest.raises(ModelProblem, match=rf"^m/3 is no whole SavedModel: {name.replace('-00001', '-…')} is missing"):
        versions(tmp_path / "m", "m")


def test_a_mixture_of_versions_and_anything_else_is_refused(tmp_path: Path) -> None:
    for other in ("notes.txt", "saved_model.pb"):
        saved(tmp_path / other / "1")
        (tmp_path / other / other).touch()
        with pytest.raises(ModelProblem, match=rf"mixes versions with other things: {other} beside 1"):
            versions(tmp_path / other, "m")
    saved(tmp_path / "twice" / "1")
    saved(tmp_path / "twice" / "01")
    with pytest.raises(ModelProblem, match="version 1 twice: 01 and 1"):
        versions(tmp_path / "twice", "m")


def test_a_directory_that_is_no_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("away", "is not there"),
        ("file", "is a file; name the directory"),
        ("empty", "is no model: it has neither saved_model.pb nor"),
    ):
        with pytest.raises(ModelProblem, match=said):
            versions(tmp_path / name, name)
    with pytest.raises(ModelProblem, match="holds no model; put one directory per model there"):
        models_in(tmp_path / "empty", "empty")


def test_a_directory_of_models_has_one_per_directory(tmp_path: Path) -> None:
    saved(tmp_path / "iris" / "4")
    saved(tmp_path / "text")
    (tmp_path / "README").touch()
    assert models_in(tmp_path, "models") == {"iris": {"4": tmp_path / "iris" / "4"}, "text": {"1": tmp_path / "text"}}


# The signature --------------------------------------------------------------------------------------------------------


def test_the_configured_signature_must_be_there_else_the_only_one_is_taken_else_predict() -> None:
    assert choose({"a": 1, "b": 2}, "b", "m") == "b"
    assert choose({"a": 1}, None, "m") == "a"
    assert choose({"a": 1, "predict": 2}, None, "m") == "predict"
    for available, wanted, said in (
        ({"a": 1, "b": 2}, None, r"m has several signatures; choose one of them with signature_key in handler\.models: a, b"),
        ({"a": 1, "b": 2}, "c", r"m has no signature 'c'; signature_key must be one of: a, b"),
        ({}, None, "m has no signature; export it with one"),
    ):
        with pytest.raises(UserException, match=said):
            choose(available, wanted, "m")


# Inputs ---------------------------------------------------------------------------------------------------------------


def arrays(value: Any, dtype: str = "float32", *shape: int | None) -> Any:
    return to_arrays(Signature("s", {"x": Tensor(dtype, shape or None)}, {}), {"x": value}, "model 'm'")["x"]


@pytest.mark.parametrize(
    ("value", "dtype", "shape", "found"),
    [
        ([[1, 2.5]], "float32", (None, 2), [[1.0, 2.5]]),
        ([1, 2], "int32", (2,), [1, 2]),
        ([], "int64", (None,), []),
        (True, "bool", (), True),
        (5.1, "float64", (None, 1), [[5.1]]),
        ("iris", "string", (None,), [b"iris"]),
        ([["a", b"\xff"]], "string", (None, None), [[b"a", b"\xff"]]),
        ([1 + 2j], "complex64", (1,), [1 + 2j]),
        ([[1], [2]], "int8", (), [[1], [2]]),
        ([True, 3], "uint8", (2,), [1, 3]),
    ],
)
def test_a_value_becomes_a_tensor_of_the_signature_s_type(value: Any, dtype: str, shape: tuple[Any, ...], found: Any) -> None:
    shape_or_any = None if dtype == "int8" else shape
    made = to_arrays(Signature("s", {"x": Tensor(dtype, shape_or_any)}, {}), {"x": value}, "m")["x"]
    assert made.tolist() == found
    assert str(made.dtype) == ("object" if dtype == "string" else dtype)


@pytest.mark.parametrize(
    ("value", "dtype", "shape", "said"),
    [
        ([[1.0, 2.0]], "float32", (None, 3), r"key 'x' of model 'm': expected float32 of shape \[\?, 3\], got float64 of shape \[1, 2\]"),
        ([1.0], "float32", (None, 1), r"expected float32 of shape \[\?, 1\], got float64 of shape \[1\]"),
        (1.0, "float32", (None, 4), r"got float64 of shape \[\]"),
        ([1.5], "int64", (None,), r"expected int64 of shape \[\?\], got float64 of shape \[1\]"),
        ([300], "uint8", (None,), "expected uint8 .* got numbers from 300 to 300"),
        ([1e300], "float32", (None,), "got numbers that are too large for it"),
        ([1], "bool", (None,), "expected bool .* got int64"),
        (["5.1"], "float32", (None,), "expected float32 .* got text"),
        ([None], "float32", (None,), "that is no number"),
        ([[1, 2], [3]], "float32", (None, None), "got what is no tensor"),
        ([1], "string", (None,), r"expected string of shape \[\?\], got int"),
        ([["a"], ["b", "c"]], "string", (None, None), "lists of different lengths"),
        ({"a": 1}, "string", (None,), "got dict"),
        ([1j], "float32", (None,), "got complex128"),
    ],
)
def test_a_value_of_another_type_or_shape_names_key_type_and_shape(value: Any, dtype: str, shape: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UserException, match=said):
        arrays(value, dtype, *shape)


def test_a_missing_key_an_extra_key_and_no_dict_are_told_apart() -> None:
    wanted = Signature("s", {"a": Tensor("float32", ()), "b": Tensor("float32", ())}, {})
    with pytest.raises(UserException, match=r"missing key 'b' for m; its keys are: a, b"):
        to_arrays(wanted, {"a": 1}, "m")
    with pytest.raises(KeyError) as caught:
        to_arrays(wanted, {"a": 1, "b": 2, "c": 3}, "m")
    assert str(caught.value) == "m has no input 'c'; its keys are: a, b"
    assert isinstance(caught.value, UserException)
    with pytest.raises(UserException, match="must be a dict with the keys a, b, not list"):
        to_arrays(wanted, [1, 2], "m")


def test_the_author_s_own_array_of_texts_is_left_as_it_was() -> None:
    np = pytest.importorskip("numpy")
    given = np.array(["a", "b"], dtype=object)
    assert arrays(given, "string", None).tolist() == [b"a", b"b"]
    assert given.tolist() == ["a", "b"]


# Outputs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "found"),
    [
        ([[0, 1], [2, 3]], "int64", ["0", "1", "2", "3"]),
        ([2**63], "uint64", [str(2**63)]),
        ([[1], [2]], "int32", [1, 2]),
        ([[0.1, 0.9]], "float32", [0.1, 0.9]),
        ([0.1], "float64", [0.1]),
        ([0.5], "bfloat16", [0.5]),
        ([float("nan"), float("inf"), float("-inf"), 1], "float32", ["NaN", "Infinity", "-Infinity", 1.0]),
        ([True, False], "bool", [True, False]),
        ([[b"\xff", "é"]], "string", [base64.b64encode(b"\xff").decode(), base64.b64encode("é".encode()).decode()]),
        ([1 + 2j, 3], "complex64", [1.0, 2.0, 3.0, 0.0]),
        (7, "int32", [7]),
        ([], "float32", []),
    ],
)
def test_an_output_is_a_flat_list_as_protobuf_s_json_has_it(value: Any, dtype: str, found: list[Any]) -> None:
    assert to_list(value, dtype) == found


# Names and versions, with a TensorFlow Serving ------------------------------------------------------------------------

FLOWER = {"measurements": [[5.1, 3.5, 1.4, 0.2]]}


def test_a_prediction_takes_the_highest_version_that_is_available(server: Server) -> None:
    client = client_of(path="s3://bucket/iris/", serving=server.address)
    assert client.predict(FLOWER) == {"class_ids": ["40"], "chances": [0.1, 0.9], "names": [base64.b64encode(b"setosa").decode()]}
    assert client.predict(FLOWER, "any name at all", "2")["class_ids"] == ["8"]
    assert server.asked[-1] == (
        "/v1/models/iris/versions/2:predict",
        {"signature_name": "predict", "inputs": {"measurements": [[5.099999904632568, 3.5, 1.399999976158142, 0.20000000298023224]]}},
    )
    assert client.predict(FLOWER, model_version="0010")["class_ids"] == ["40"]
    with pytest.raises(UserException, match=r"has no version 3; it has 2, 10"):
        client.predict(FLOWER, model_version="3")


@pytest.mark.parametrize("version", ["newest", "-1", "1.0", "", "²", None, 1.0, True])
def test_a_version_that_is_neither_latest_nor_digits_is_a_runtime_exception(version: Any, server: Server) -> None:
    with pytest.raises(UserRuntimeException, match="must be 'latest' or a number"):
        client_of(path="iris", serving=server.address).predict(FLOWER, model_version=version)


def test_with_paths_a_name_is_needed_and_must_be_listed(server: Server) -> None:
    client = client_of(paths=[{"name": "iris", "path": "s3://b/i"}], serving=server.address)
    assert client.predict(FLOWER, "iris")["class_ids"] == ["40"]
    with pytest.raises(UserRuntimeException, match="model_name must be said; choose one of: iris"):
        client.predict(FLOWER)
    with pytest.raises(UserRuntimeException, match="there is no model 'rose'; choose one of: iris"):
        client.predict(FLOWER, "rose")


def test_with_dir_a_name_is_needed_and_one_without_versions_is_a_user_exception(server: Server) -> None:
    client = client_of(dir="s3://b/all", serving=server.address)
    assert client.predict(FLOWER, "iris")["class_ids"] == ["40"]
    with pytest.raises(UserRuntimeException, match="model_name must be said"):
        client.predict(FLOWER)
    with pytest.raises(UserException, match="model 'rose' has no version") as caught:
        client.predict(FLOWER, "rose")
    assert not isinstance(caught.value, UserRuntimeException)


def test_input_is_checked_before_it_is_sent_and_the_server_s_refusal_is_told(server: Server) -> None:
    client = client_of(path="iris", serving=server.address)
    sent = len(server.asked)
    with pytest.raises(UserException, match=r"key 'measurements' of the model \(version 10\): expected float32 of shape \[\?, 4\]"):
        client.predict({"measurements": [[1.0]]})
    assert not any(path.endswith(":predict") for path, _ in server.asked[sent:])
    with pytest.raises(UserException, match="answered 400: a flower has no negative length"):
        client.predict({"measurements": [[-1, 1, 1, 1]]})


def test_one_output_bytes_and_any_shape_go_over_the_wire() -> None:
    texts = signature({"text": tensor("DT_STRING", -1)}, {"out_bytes": tensor("DT_STRING", -1)})
    free = signature({"x": ANY_SHAPE}, {"y": ANY_SHAPE})
    models = {
        "text": {"1": Version({"serving_default": texts}, lambda inputs: inputs["text"])},
        "free": {"1": Version({"a": free}, lambda inputs: inputs["x"])},
    }
    with serving(models) as server:
        client = client_of(dir="all", serving=server.address)
        assert client.predict({"text": [b"\xff\x00", "é"]}, "text") == {
            "out_bytes": [base64.b64encode(b"\xff\x00").decode(), base64.b64encode("é".encode()).decode()]
        }
        assert client.predict({"x": [[1], [2]]}, "free") == {"y": [1.0, 2.0]}


def test_a_signature_is_chosen_per_model_when_the_client_is_made() -> None:
    one = signature({"x": tensor("DT_FLOAT")}, {"y": tensor("DT_FLOAT")})
    with serving({"m": {"1": Version({"a": one, "b": one}, lambda inputs: inputs["x"])}}) as server:
        listed = {"name": "m", "path": "s3://b/m"}
        assert client_of(paths=[{**listed, "signature_key": "b"}], signature_key="c", serving=server.address).predict({"x": 1}, "m") == {"y": [1.0]}
        assert server.asked[-1][1]["signature_name"] == "b"
        with pytest.raises(HandlerError, match=r"handler\.models: model 'm' version 1 has several signatures; .*: a, b"):
            client_of(paths=[listed], serving=server.address)
        with pytest.raises(HandlerError, match="has no signature 'c'"):
            client_of(paths=[listed], signature_key="c", serving=server.address)


def test_a_server_that_is_away_silent_or_without_the_model_fails_the_start(server: Server) -> None:
    with pytest.raises(HandlerError, match=r"has no model 'rose' available; start it with that model") as caught:
        client_of(path="models/rose", serving=server.address)
    assert (caught.value.details["stage"], caught.value.details["kind"]) == ("init", "model")
    with pytest.raises(HandlerError, match=r"127\.0\.0\.1:1 cannot be used: .*; is it running there\?"):
        client_of(path="iris", serving="http://127.0.0.1:1")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserRuntimeException, match=r"did not answer within 0\.2 s"):
        Serving(f"http://127.0.0.1:{silent.getsockname()[1]}", {}, timeout=0.2).versions("iris")


def test_another_server_at_that_address_is_told_from_a_tensorflow_serving() -> None:
    with serving({"m": {"1": Version({"a": {"inputs": [], "outputs": 1}}, dict)}}) as server, pytest.raises(HandlerError) as caught:
        client_of(path="m", serving=server.address)
    assert "answers, but not as a TensorFlow Serving does" in str(caught.value)


# The rest -------------------------------------------------------------------------------------------------------------


def test_absent_tensorflow_is_one_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    if tensorflow_present():
        pytest.skip("TensorFlow is installed here")
    saved(tmp_path / "m")
    with pytest.raises(HandlerError, match=r"add tensorflow-cpu to requirements\.txt or install it") as caught:
        tensorflow_client(section(path="m"), tmp_path)
    assert caught.value.details["kind"] == "tensorflow_missing"


def test_another_type_has_no_client_and_opens_nothing() -> None:
    assert tensorflow_client({"type": "python"}, Path("/nowhere")) is None


def test_handlers_written_for_cortex_catch_its_exceptions_by_name() -> None:
    shim.install()
    from cortex_internal.lib.exceptions import CortexException, UserException, UserRuntimeException  # type: ignore[import-not-found]

    assert issubclass(UserRuntimeException, UserException)
    assert issubclass(UserException, CortexException)
    assert UserException is choose.__globals__["UserException"]
