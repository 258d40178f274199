"""What `%cortex save` writes for which object, and the line that loads it.

A file tells from its name how it is loaded. An object is known by its class; no framework is imported that the kernel has not imported.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Format:
    """``write(object, path)``, which makes a file, or a directory; ``line`` loads it, with ``{target}`` and ``{path}`` filled in."""

    suffix: str
    line: str
    write: Callable[[Any, Path], None]


def _joblib(value: Any, path: Path) -> None:
    import joblib

    joblib.dump(value, path)


def _torch_state(value: Any, path: Path) -> None:
    import torch

    torch.save(value.state_dict(), path)


def _safetensors(value: Any, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in value.state_dict().items()}, path)


def _torch_tensors(value: Any, path: Path) -> None:
    import torch

    torch.save(value, path)


def _onnx_model(value: Any, path: Path) -> None:
    path.write_bytes(value.SerializeToString())


def _onnx_session(value: Any, path: Path) -> None:
    if value._model_bytes:
        path.write_bytes(value._model_bytes)
    else:
        shutil.copyfile(value._model_path, path)


def _saved_model(value: Any, path: Path) -> None:
    sys.modules["tensorflow"].saved_model.save(value, str(path))


def _exported(value: Path, path: Path) -> None:
    shutil.copytree(value, path)


def _numpy(value: Any, path: Path) -> None:
    import numpy

    with path.open("wb") as file:  # np.save adds a suffix of its own to a name
        numpy.save(file, value, allow_pickle=False)


def _parquet(value: Any, path: Path) -> None:
    value.to_parquet(path)


def _json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), "utf-8")


def _cloudpickle(value: Any, path: Path) -> None:
    import cloudpickle

    with path.open("wb") as file:
        cloudpickle.dump(value, file)


#: XGBoost's classes in scikit-learn's manner: its file does not say which of them it was.
XGBOOST = ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor")
_WEIGHTS = "; {target}.eval()"


def _xgboost(cls: str) -> Format:
    line = f'import xgboost; {{target}} = xgboost.{cls}(); {{target}}.load_model("{{path}}")'
    return Format(f".{cls.removeprefix('XGB').lower()}.ubj", line, lambda value, path: value.save_model(path))


#: By suffix, the most specific first: a file tells from its name how it is loaded.
FORMATS = {
    "safetensors": Format(
        ".safetensors",
        'import safetensors.torch; {target}.load_state_dict(safetensors.torch.load_file("{path}"))' + _WEIGHTS,
        _safetensors,
    ),
    "torch_state": Format(
        ".state.pt",
        'import torch; {target}.load_state_dict(torch.load("{path}", weights_only=True, map_location="cpu"))' + _WEIGHTS,
        _torch_state,
    ),
    "torch_tensors": Format(".pt", 'import torch; {target} = torch.load("{path}", weights_only=True, map_location="cpu")', _torch_tensors),
    **{cls: _xgboost(cls) for cls in XGBOOST},
    "Booster": Format(".ubj", 'import xgboost; {target} = xgboost.Booster(model_file="{path}")', lambda value, path: value.save_model(path)),
    "onnx_session": Format(
        ".session.onnx",
        'import onnxruntime; {target} = onnxruntime.InferenceSession("{path}", providers=onnxruntime.get_available_providers())',
        _onnx_session,
    ),
    "onnx": Format(".onnx", 'import onnx; {target} = onnx.load("{path}")', _onnx_model),
    "keras": Format(".keras", 'import keras; {target} = keras.models.load_model("{path}")', lambda value, path: value.save(path)),
    "saved_model": Format(".savedmodel", 'import tensorflow; {target} = tensorflow.saved_model.load("{path}")', _saved_model),
    "exported": Format(".exported", 'import pathlib; {target} = pathlib.Path("{path}")', _exported),
    "joblib": Format(".joblib", 'import joblib; {target} = joblib.load("{path}")', _joblib),
    "parquet": Format(".parquet", 'import pandas; {target} = pandas.read_parquet("{path}")', _parquet),
    "numpy": Format(".npy", 'import numpy; {target} = numpy.load("{path}")', _numpy),
    "json": Format(".json", 'import json; {target} = json.loads(open("{path}", encoding="utf-8").read())', _json),
    "cloudpickle": Format(".pkl", 'import pickle; {target} = pickle.loads(open("{path}", "rb").read())', _cloudpickle),
}


def loading_line(chosen: str, value: Any, target: str, path: str) -> str:
    """The line that makes of the file what the object is."""
    line = FORMATS[chosen].line.format(target=target, path=path)
    if chosen in ("torch_state", "safetensors") and value.training:
        return line.removesuffix(_WEIGHTS.format(target=target))  # what runs here is what runs in production
    return line


def choose(value: Any) -> str:
    """The format for an object, by what it is; nothing is imported that the kernel has not imported."""
    if own := framework_format(value):
        return own
    numpy, pandas = (sys.modules.get(name) for name in ("numpy", "pandas"))
    engine = any(importlib.util.find_spec(name) for name in ("pyarrow", "fastparquet"))
    if pandas is not None and engine and isinstance(value, pandas.DataFrame) and all(isinstance(column, str) for column in value.columns):
        return "parquet"
    if numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject:
        return "numpy"
    with suppress(RecursionError):  # a list that holds itself
        if _is_json(value):
            return "json"
    estimator = any(cls.__module__.partition(".")[0] == "sklearn" for cls in type(value).__mro__)
    if estimator and importlib.util.find_spec("joblib") and not _needs_the_notebook(value):
        return "joblib"
    return "cloudpickle"


def framework_format(value: Any) -> str:
    """The format of the framework that the object's class is of, "" when there is none."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        return "safetensors" if _fits_safetensors(value, torch) else "torch_state"
    if torch is not None and (isinstance(value, torch.Tensor) or _holds_tensors(value, torch)):
        return "torch_tensors"
    classes = list(_classes(value))
    package, name = classes[0]
    if package == "xgboost":
        # A wrapper's own word for a missing value is not in the file.
        lost = name != "Booster" and getattr(value, "missing", None) == getattr(value, "missing", None)
        return name if (name == "Booster" or name in XGBOOST) and not lost else ""
    if package == "onnxruntime" and name == "InferenceSession":
        return "onnx_session"
    if package == "onnx" and name == "ModelProto":
        return "onnx"
    if ("keras", "Model") in classes:
        return "keras"
    if ("tensorflow", "Module") in classes and "tensorflow" in sys.modules:
        return "saved_model"
    return "exported" if isinstance(value, Path) and (value / "saved_model.pb").is_file() else ""


def _classes(value: Any) -> Iterator[tuple[str, str]]:
    """(package, name) of the object's class and of those it inherits from."""
    for cls in type(value).__mro__:
        yield cls.__module__.partition(".")[0], cls.__name__


def _fits_safetensors(module: Any, torch: Any) -> bool:
    """Whether that package is there and can hold the weights: plain tensors, no two of which share their memory."""
    if importlib.util.find_spec("safetensors") is None:
        return False
    state = list(module.state_dict().values())
    if not all(isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided for tensor in state):
        return False
    places = [tensor.untyped_storage().data_ptr() for tensor in state if tensor.numel()]
    return len(set(places)) == len(places)


class _Sink:
    """Takes bytes and keeps none."""

    def write(self, data: Any) -> int:
        return len(data)


class _Looking(pickle.Pickler):
    """Pickles into nothing, to see whether a class or function of the notebook is in it: another process could not import it by name."""

    found = False

    def reducer_override(self, value: Any) -> Any:
        self.found = self.found or getattr(value, "__module__", None) == "__main__"
        return NotImplemented


def _needs_the_notebook(value: Any) -> bool:
    looking = _Looking(_Sink(), protocol=5, buffer_callback=lambda buffer: False)  # type: ignore[arg-type]
    with suppress(Exception):  # what cannot be pickled is told when it is written
        looking.dump(value)
    return looking.found


def _holds_tensors(value: Any, torch: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(item, torch.Tensor) for item in value.values())


def _is_json(value: Any) -> bool:
    """Whether JSON brings back the very same value; a tuple or a key that is no text does not come back."""
    if value is None or type(value) in (bool, int, str):
        return True
    if type(value) is float:
        return value == value and abs(value) != float("inf")
    if type(value) is list:
        return all(map(_is_json, value))
    return type(value) is dict and all(type(key) is str for key in value) and all(map(_is_json, value.values()))


def tied(chosen: str, value: Any) -> str:
    """What the file is tied to, or lacks."""
    if chosen == "cloudpickle":
        package = type(value).__module__.partition(".")[0]
        beside = "" if package in ("builtins", "__main__") else f" and to this version of {package}"
        return f"a pickle is tied to Python {platform.python_version()}{beside}: replicas that have another may not load it"
    if chosen in ("torch_state", "safetensors"):
        mode = ", and it is in training mode: call .eval() and save again, unless replicas should drop out, too" if value.training else ""
        return f"only the weights are saved: the class stays code, so the statement that constructs it travels in the module{mode}"
    if chosen == "onnx":
        return "to serve it without the package onnx, save a session: onnxruntime.InferenceSession(model.SerializeToString())"
    if chosen == "keras" and (own := sorted({type(layer).__name__ for layer in [value, *value.layers] if type(layer).__module__ == "__main__"})):
        return (
            f"loading finds {', '.join(own)} by name: decorate {'it' if len(own) == 1 else 'each'} with "
            "@keras.saving.register_keras_serializable() and tag its cell `cortex`, so that it travels in the module"
        )
    return ""
