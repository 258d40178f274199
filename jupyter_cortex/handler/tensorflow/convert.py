"""From what a handler passes to tensors of the model's types, and from its tensors to what JSON can hold. Needs numpy, not TensorFlow."""

from __future__ import annotations

import base64
import math
from typing import Any

from ..exceptions import UnknownInput, UserException
from .signature import Signature, Tensor, shown

#: Types that numpy does not have, and what holds their values.
_WIDER = {"bfloat16": "float32"}


def numpy_type(dtype: str) -> str:
    """The numpy type for TensorFlow's name of a type. ``string`` becomes ``object``: bytes of any length."""
    return "object" if dtype == "string" else _WIDER.get(dtype, dtype)


def to_arrays(signature: Signature, model_input: Any, model: str) -> dict[str, Any]:
    """Input name -> array of its type and shape. ``model``: how it is called in errors.

    Raises UserException for a missing key and for a value of another type or shape, UnknownInput (a KeyError) for a key too many.
    """
    names = ", ".join(sorted(signature.inputs))
    if not isinstance(model_input, dict):
        raise UserException(f"the input of {model} must be a dict with the keys {names}, not {type(model_input).__name__}")
    for name in signature.inputs:
        if name not in model_input:
            raise UserException(f"missing key {name!r} for {model}; its keys are: {names}")
    for name in model_input:
        if name not in signature.inputs:
            raise UnknownInput(f"{model} has no input {name!r}; its keys are: {names}")
    return {name: _array(model_input[name], tensor, f"key {name!r} of {model}") for name, tensor in signature.inputs.items()}


def _array(value: Any, tensor: Tensor, where: str) -> Any:
    import numpy as np

    try:
        if tensor.dtype == "string":
            found = np.array(value, dtype=object, order="C")
        else:
            found = np.asarray(value)
    except Exception as error:  # ragged lists; and whatever the value's own conversion raises
        raise UserException(f"{where}: expected {tensor}, got what is no tensor ({type(error).__name__}: {error})") from None
    problem = _bytes(found) if tensor.dtype == "string" else _misfit(found, tensor.dtype)
    if not problem and not _fits(found.shape, tensor.shape):
        # A lone number for a model that takes a batch of one, as {"sepal_length": 5.1}.
        if found.ndim == 0 and all(size in (None, 1) for size in tensor.shape or ()):
            found = found.reshape((1,) * len(tensor.shape or ()))
        else:
            problem = f"{found.dtype if tensor.dtype != 'string' else 'string'} of {shown(found.shape)}"
    if problem:
        raise UserException(f"{where}: expected {tensor}, got {problem}")
    return found if tensor.dtype == "string" else found.astype(numpy_type(tensor.dtype))


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    return wanted is None or (len(shape) == len(wanted) and all(need in (None, size) for size, need in zip(shape, wanted, strict=True)))


def _bytes(found: Any) -> str:
    """Encode an array of texts where it stands. What it holds instead of texts and bytes, "" when nothing."""
    flat = found.reshape(-1)
    for at, item in enumerate(flat):
        if isinstance(item, str):
            flat[at] = item.encode("utf-8", "surrogatepass")
        elif not isinstance(item, bytes):
            return "lists of different lengths" if isinstance(item, list | tuple) else f"{type(item).__name__} (text and bytes are strings)"
        else:
            flat[at] = bytes(item)  # not numpy's own kind
    return ""


def _misfit(found: Any, dtype: str) -> str:
    """What is wrong with an array of numbers for this type, "" when it can be cast without loss of sense."""
    import numpy as np

    what = f"{found.dtype} of {shown(found.shape)}"
    if found.dtype.kind not in "biufc":
        return "text" if found.dtype.kind in "US" else f"{what}; that is no number"
    if found.size == 0:
        return ""
    target = np.dtype(numpy_type(dtype))
    if target.kind == "b":
        return "" if found.dtype.kind == "b" else what
    if target.kind in "iu":
        if found.dtype.kind not in "biu":
            return what
        least, most = int(found.min()), int(found.max())
        limits = np.iinfo(target)
        return "" if limits.min <= least and most <= limits.max else f"numbers from {least} to {most}"
    if found.dtype.kind == "c":
        return "" if target.kind == "c" else what
    with np.errstate(over="ignore"):
        overflows = bool((np.isinf(found.astype(target)) & np.isfinite(found)).any())
    return "numbers that are too large for it" if overflows else ""


def to_list(values: Any, dtype: str) -> list[Any]:
    """A tensor (an array, or nested lists) as a flat list that JSON can hold, as protobuf's JSON mapping has it.

    Shapes are lost. 64-bit integers become texts, byte strings base64, NaN and infinities the texts "NaN", "Infinity" and "-Infinity"; a complex
    number becomes two.
    """
    import numpy as np

    if dtype == "string":
        return [
            base64.b64encode(item.encode("utf-8", "surrogatepass") if isinstance(item, str) else bytes(item)).decode() for item in _leaves(values)
        ]
    flat = np.ascontiguousarray(values, dtype=numpy_type(dtype)).reshape(-1)
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    if flat.dtype in (np.int64, np.uint64):
        return [str(number) for number in flat.tolist()]
    if flat.dtype.kind != "f":
        return list(flat.tolist())
    if flat.dtype.itemsize < 8:
        flat = flat.astype("U32").astype("float64")  # 0.1, not 0.10000000149011612: the shortest number that is the same in 32 bits
    numbers = flat.tolist()
    return numbers if bool(np.isfinite(flat).all()) else [number if math.isfinite(number) else _word(number) for number in numbers]


def _word(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _leaves(values: Any) -> list[Any]:
    """What nested lists or an array of objects hold, in order."""
    if hasattr(values, "reshape"):
        return list(values.reshape(-1))
    if not isinstance(values, list | tuple):
        return [values]
    found: list[Any] = []
    for item in values:
        found += _leaves(item)
    return found
