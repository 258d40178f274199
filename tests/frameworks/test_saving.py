"""`%cortex save` with the real frameworks: run by ``run.py`` in each environment; what an environment lacks is skipped there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.project import objects


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(value: Any, name: str = "model") -> objects.Saved:
    return objects.save(Path.cwd(), name, value, name)


def elsewhere(line: str, code: str) -> str:
    """What a fresh process prints that has nothing but the file and the line."""
    done = subprocess.run([sys.executable, "-c", f"{line}\n{code}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_weights_of_a_module_are_saved_and_loaded_into_another() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(2, 1).eval()
    expected = module(torch.ones(2)).item()
    shown = saved(module)
    assert shown.path.suffix == (".safetensors" if _has("safetensors") else ".pt")
    made = "import torch; model = torch.nn.Linear(2, 1)\n"
    assert float(elsewhere(made + shown.line, "print(model(torch.ones(2)).item())")) == pytest.approx(expected)
    assert shown.line.endswith("model.eval()")
    assert not saved(module.train()).line.endswith("model.eval()")


def test_weights_that_two_layers_share_go_where_they_can_be_shared() -> None:
    torch = pytest.importorskip("torch")
    one = torch.nn.Linear(2, 2)
    module = torch.nn.Sequential(one, one).eval()
    shown = saved(module)
    assert shown.path.name == "model.state.pt"
    made = "import torch; one = torch.nn.Linear(2, 2); model = torch.nn.Sequential(one, one)\n"
    got = float(elsewhere(made + shown.line, "print(model(torch.ones(2)).sum().item())"))
    assert got == pytest.approx(module(torch.ones(2)).sum().item())


@pytest.mark.parametrize("kind", ["XGBClassifier", "XGBRegressor", "Booster"])
def test_trees_answer_as_before_and_are_of_the_same_class(kind: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    import numpy

    rows, labels = numpy.arange(20.0).reshape(10, 2), numpy.array([0, 1] * 5)
    if kind == "Booster":
        model = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(rows, labels), 3)
        call, expected = "model.predict(xgboost.DMatrix(rows))", model.predict(xgboost.DMatrix(rows))
    else:
        model = getattr(xgboost, kind)(n_estimators=3).fit(rows, labels)
        call, expected = "model.predict(rows)", model.predict(rows)
    code = f"import numpy; rows = numpy.arange(20.0).reshape(10, 2)\nprint(type(model).__name__, {call}.tolist())"
    assert elsewhere(saved(model).line, code) == f"{kind} {expected.tolist()}"


def test_a_graph_of_onnx_is_saved_as_a_model_and_as_a_session() -> None:
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert elsewhere(saved(model).line, "print(model.graph.name)") == "double"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    code = "import numpy; print(model.run(None, {'x': numpy.array([1, 2], dtype='float32')})[0].tolist())"
    assert elsewhere(saved(session, "other").line.replace("other =", "model ="), code) == "[2.0, 4.0]"
    assert onnx.load("other.session.onnx").graph.name == "double"


def test_a_keras_model_answers_as_before() -> None:
    keras = pytest.importorskip("keras")
    import numpy

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    expected = float(numpy.asarray(model(numpy.ones((1, 2)))).item())
    shown = saved(model)
    assert shown.path.name == "model.keras"
    assert float(elsewhere(shown.line, "import numpy; print(float(numpy.asarray(model(numpy.ones((1, 2)))).item()))")) == pytest.approx(expected)


def test_a_module_of_tensorflow_is_saved_as_a_directory() -> None:
    tensorflow = pytest.importorskip("tensorflow")

    class Double(tensorflow.Module):
        @tensorflow.function(input_signature=[tensorflow.TensorSpec([None], tensorflow.float32)])
        def __call__(self, x: Any) -> Any:
            return 2 * x

    shown = saved(Double())
    assert (Path.cwd() / "model.savedmodel" / "saved_model.pb").is_file()
    assert elsewhere(shown.line, "print(model(tensorflow.constant([1.5])).numpy().tolist())") == "[3.0]"


def _has(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
