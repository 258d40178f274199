"""What `%cortex save` writes for the frameworks' objects, and that the shown line loads it: with small stand-ins of their names.

The frameworks themselves are in ``tests/frameworks/test_saving.py``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jupyter_cortex.project import formats, objects

FAKES = {
    "xgboost": """
        from pathlib import Path
        class Booster:
            def __init__(self, model_file=None): self.text = model_file and Path(model_file).read_text()
            def save_model(self, path): Path(path).write_text(self.text)
        class XGBModel(Booster):
            missing = float("nan")
            def load_model(self, path): self.text = Path(path).read_text()
        class XGBClassifier(XGBModel): pass
        class XGBRFRegressor(XGBModel): pass
    """,
    "onnx": """
        from pathlib import Path
        class ModelProto:
            text = None
            def SerializeToString(self): return self.text.encode()
        def load(path):
            model = ModelProto()
            model.text = Path(path).read_text()
            return model
    """,
    "onnxruntime": """
        from pathlib import Path
        class InferenceSession:
            def __init__(self, model, providers=()):
                self._model_bytes, self._model_path = (model, None) if isinstance(model, bytes) else (None, model)
                self.text = (model if isinstance(model, bytes) else Path(model).read_bytes()).decode()
        def get_available_providers(): return ["CPUExecutionProvider"]
    """,
    "keras": """
        from pathlib import Path
        from types import SimpleNamespace
        class Model:
            text, layers = None, ()
            def save(self, path):
                assert str(path).endswith(".keras"), "Keras refuses every other name"
                Path(path).write_text(self.text)
        def _load(path):
            model = Model()
            model.text = Path(path).read_text()
            return model
        models = SimpleNamespace(load_model=_load)
    """,
    "tensorflow": """
        from pathlib import Path
        from types import SimpleNamespace
        class Module: text = None
        def _save(module, path):
            (Path(path) / "variables").mkdir(parents=True)
            (Path(path) / "saved_model.pb").write_text(module.text)
            (Path(path) / "variables" / "variables.index").write_text("index")
        def _load(path):
            module = Module()
            module.text = (Path(path) / "saved_model.pb").read_text()
            return module
        saved_model = SimpleNamespace(save=_save, load=_load)
    """,
}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``fake("onnx")`` imports the stand-in; the working directory is an empty one."""
    import textwrap

    directory = tmp_path / "fakes"
    directory.mkdir()
    for name, source in FAKES.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(directory))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    before = {name: sys.modules.pop(name) for name in FAKES if name in sys.modules}

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in FAKES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def saved(value: Any, name: str = "model") -> objects.Saved:
    return objects.save(Path.cwd(), name, value, name)


def loaded(line: str) -> Any:
    space: dict[str, Any] = {}
    exec(line, space)
    return space["model"]


@pytest.mark.parametrize(
    ("package", "cls", "file"),
    [
        ("xgboost", "Booster", "model.ubj"),
        ("xgboost", "XGBClassifier", "model.classifier.ubj"),
        ("xgboost", "XGBRFRegressor", "model.rfregressor.ubj"),
        ("onnx", "ModelProto", "model.onnx"),
        ("keras", "Model", "model.keras"),
        ("tensorflow", "Module", "model.savedmodel"),
    ],
)
def test_an_object_of_a_framework_is_saved_in_its_own_format_and_the_shown_line_loads_it(fake: Any, package: str, cls: str, file: str) -> None:
    value = getattr(fake(package), cls)()
    for text in ("first", "second"):  # the second takes the place of the first, a directory, too
        value.text = text
        shown = saved(value)
        assert shown.path.name == file
        again = loaded(shown.line)
        assert (type(again), again.text) == (type(value), text)
    assert objects.loading_from(Path.cwd())("model", "model") == shown.line, "the saved notebook knows it from the file's name"
    assert [path.name for path in Path.cwd().iterdir() if path.name != ".cortex-saved.json"] == [file]


@pytest.mark.parametrize("given", ["bytes", "path"])
def test_a_session_is_saved_as_the_graph_it_was_made_of(fake: Any, given: str) -> None:
    Path("somewhere.onnx").write_bytes(b"graph")
    shown = saved(fake("onnxruntime").InferenceSession(b"graph" if given == "bytes" else "somewhere.onnx"))
    assert shown.path.name == "model.session.onnx"
    assert loaded(shown.line).text == "graph"


def test_an_exported_directory_stays_a_path(fake: Any) -> None:
    module = fake("tensorflow").Module()
    module.text = "graph"
    sys.modules["tensorflow"].saved_model.save(module, "export/1")
    shown = saved(Path("export/1"))
    assert (loaded(shown.line) / "saved_model.pb").read_text() == "graph"
    assert objects.files_above(shown, -1) == ["model.exported/saved_model.pb", "model.exported/variables/variables.index"]
    assert objects.files_above(shown, 8) == []
    assert formats.choose(Path()) != "exported"


def test_another_format_takes_the_place_of_a_directory_that_was_saved_before(fake: Any) -> None:
    module = fake("tensorflow").Module()
    module.text = "graph"
    assert saved(module).path.is_dir()
    assert saved({"a": 1}).path.name == "model.json"
    assert not Path("model.savedmodel").exists()


def test_what_xgboost_s_file_would_lose_is_saved_whole(fake: Any) -> None:
    model = fake("xgboost").XGBClassifier()
    model.missing = -1.0
    assert formats.choose(model) == "cloudpickle"
    own = type("Own", (type(model),), {"__module__": "__main__"})()
    assert formats.choose(own) == "cloudpickle", "the loading line would make another class"


def test_a_keras_model_with_layers_of_the_notebook_says_how_they_are_found(fake: Any) -> None:
    model = fake("keras").Model()
    model.text, model.layers = "x", [type("Scale", (), {"__module__": "__main__"})()]
    assert "decorate it with @keras.saving.register_keras_serializable()" in saved(model).warning


def test_looking_at_an_object_imports_no_framework(fake: Any) -> None:
    for value in ({"a": 1}, object(), Path(), [1.5]):
        formats.choose(value)
    assert not set(FAKES) & set(sys.modules)
