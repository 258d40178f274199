"""SavedModels in this process, run by TensorFlow: all of them are loaded once, when the Handler is made."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from ..exceptions import UserException
from .convert import to_list
from .models import SINGLE, ModelProblem
from .signature import Signature, Tensor, choose


def tensorflow_present() -> bool:
    """Whether this Python has TensorFlow; it is not imported."""
    return importlib.util.find_spec("tensorflow") is not None


class SavedModels:
    """``models``: name -> version -> directory. ``keys``: name -> the configured signature_key. Raises ModelProblem, UserException."""

    def __init__(self, models: dict[str, dict[str, Path]], keys: dict[str, str | None]) -> None:
        # What TensorFlow says while it is imported is about its build, and would stand in the API's log at each start.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        import tensorflow

        self._tensorflow = tensorflow
        #: Name -> version -> signature, callable, and the loaded object: its variables go when it goes.
        self._loaded = {
            name: {version: self._load(directory, keys.get(name), _shown(name, version)) for version, directory in versions.items()}
            for name, versions in models.items()
        }

    def names(self) -> list[str]:
        return list(self._loaded)

    def versions(self, name: str) -> list[str]:
        """Those that are loaded, [] for a model that is not there."""
        return list(self._loaded.get(name, ()))

    def signature(self, name: str, version: str) -> Signature:
        return self._loaded[name][version][0]

    def run(self, name: str, version: str, arrays: dict[str, Any]) -> dict[str, list[Any]]:
        """Output name -> flat list. Raises UserException with TensorFlow's own words when the model refuses its input."""
        signature, function, _ = self._loaded[name][version]
        constant, cast = self._tensorflow.constant, self._tensorflow.cast
        tensors = {
            key: constant(array, "string") if signature.inputs[key].dtype == "string" else cast(array, signature.inputs[key].dtype)
            for key, array in arrays.items()
        }
        try:
            outputs = function(**tensors)
        except self._tensorflow.errors.OpError as error:
            raise UserException(f"{_shown(name, version)} cannot run: {error.message}") from error
        return {key: to_list(value.numpy(), value.dtype.name) for key, value in outputs.items()}

    def _load(self, directory: Path, wanted: str | None, shown: str) -> tuple[Signature, Any, Any]:
        try:
            loaded = self._tensorflow.saved_model.load(str(directory))
        except Exception as error:  # a damaged file, an operation that this TensorFlow does not have
            raise ModelProblem(
                f"{shown} cannot be loaded by TensorFlow {self._tensorflow.__version__}: {type(error).__name__}: {error}; export it again"
            ) from error
        key = choose(loaded.signatures, wanted, shown)
        function = loaded.signatures[key]
        inputs = {name: _tensor(spec) for name, spec in function.structured_input_signature[1].items()}
        outputs = {name: _tensor(spec) for name, spec in function.structured_outputs.items()}
        return Signature(key, inputs, outputs), function, loaded


def _shown(name: str, version: str) -> str:
    return f"the model (version {version})" if name == SINGLE else f"model {name!r} (version {version})"


def _tensor(spec: Any) -> Tensor:
    return Tensor(spec.dtype.name, None if spec.shape.rank is None else tuple(spec.shape.as_list()))


def missing_sentence() -> str:
    """What to do when it is not there."""
    return (
        f"handler.type is tensorflow, and TensorFlow is not installed in {sys.executable}: add tensorflow-cpu to requirements.txt or install it "
        f"(`{sys.executable} -m pip install tensorflow-cpu`), or name a TensorFlow Serving address in handler.models.serving"
    )
