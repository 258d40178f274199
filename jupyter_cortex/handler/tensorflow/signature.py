"""What a model takes and gives: named tensors, each with a type and a shape. The same for both backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from ..exceptions import UserException

T = TypeVar("T")


@dataclass(frozen=True)
class Tensor:
    """``dtype``: TensorFlow's name (``float32``, ``int64``, ``string``…). ``shape``: None for a dimension of any size; None for any rank."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        return f"{self.dtype} of {shown(self.shape)}"


@dataclass(frozen=True)
class Signature:
    """One way to call a model; ``inputs`` and ``outputs`` by name."""

    key: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def shown(shape: tuple[int | None, ...] | None) -> str:
    """``shape [?, 4]``"""
    if shape is None:
        return "any shape"
    return "shape [" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def choose(available: dict[str, T], wanted: str | None, model: str) -> str:
    """The signature to call: the configured one, else the only one, else ``predict``. Raises UserException, which lists what there is."""
    keys = ", ".join(sorted(available))
    if not available:
        raise UserException(f"{model} has no signature; export it with one (`signatures=` of tf.saved_model.save, or Keras's model.export)")
    if wanted is not None:
        if wanted not in available:
            raise UserException(f"{model} has no signature {wanted!r}; signature_key must be one of: {keys}")
        return wanted
    if len(available) == 1:
        return next(iter(available))
    if "predict" in available:
        return "predict"
    raise UserException(f"{model} has several signatures; choose one of them with signature_key in handler.models: {keys}")
