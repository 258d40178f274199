"""Models that a TensorFlow Serving runs, over its REST API."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from ..exceptions import UserException, UserRuntimeException
from .convert import to_list
from .signature import Signature, Tensor, choose

#: Seconds until a server that says nothing is given up.
TIMEOUT_S = 300.0
#: What TensorFlow's own module says before its first use; no way to call the model.
_NOT_A_SIGNATURE = "__saved_model_init_op"
#: Types whose name is not the one in small letters.
_NAMES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}


class Serving:
    """``address``: ``http://host:port``, maybe with a path. ``keys``: name -> the configured signature_key."""

    def __init__(self, address: str, keys: dict[str, str | None], default_key: str | None = None, timeout: float = TIMEOUT_S) -> None:
        self._address, self._keys, self._default_key, self._timeout = address, keys, default_key, timeout
        self._signatures: dict[tuple[str, str], Signature] = {}
        host = urlsplit(address).hostname or ""
        # A proxy of this machine's is of no use for the machine itself.
        here = host == "localhost" or host == "::1" or host.startswith("127.")
        self._open = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else [])).open

    def names(self) -> list[str]:
        return list(self._keys)

    def versions(self, name: str) -> list[str]:
        """Those that the server has available now, [] for a model that it does not know."""
        try:
            found = self._ask(f"/v1/models/{quote(name, safe='')}")
        except _NotThere:
            return []
        with self._understood():
            return [str(row["version"]) for row in found["model_version_status"] if row["state"] == "AVAILABLE"]

    def signature(self, name: str, version: str) -> Signature:
        """Asked once per version. Raises UserException, UserRuntimeException."""
        known = self._signatures.get((name, version))
        if known is None:
            shown = f"model {name!r} version {version}"
            try:
                document = self._ask(f"/v1/models/{quote(name, safe='')}/versions/{version}/metadata")
            except _NotThere as error:
                raise UserException(f"{shown} is not served by {self._address}: {error}") from None
            with self._understood():
                known = _signature(document, self._keys.get(name, self._default_key), shown)
            self._signatures[name, version] = known
        return known

    def run(self, name: str, version: str, arrays: dict[str, Any]) -> dict[str, list[Any]]:
        """Output name -> flat list. Raises UserException with the server's words when it refuses, UserRuntimeException when it does not answer."""
        signature = self.signature(name, version)
        inputs = {key: _written(array.tolist()) if signature.inputs[key].dtype == "string" else array.tolist() for key, array in arrays.items()}
        try:
            document = self._ask(f"/v1/models/{quote(name, safe='')}/versions/{version}:predict", {"signature_name": signature.key, "inputs": inputs})
        except _NotThere as error:
            raise UserException(f"model {name!r} version {version} is not served by {self._address}: {error}") from None
        with self._understood():
            outputs = document["outputs"]
            if len(signature.outputs) == 1:  # then it is not named
                outputs = {next(iter(signature.outputs)): outputs}
            return {key: _flat(outputs[key], tensor.dtype) for key, tensor in signature.outputs.items()}

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            data = None if body is None else json.dumps(body).encode()
        except TypeError:
            raise UserException("complex numbers cannot be sent to a TensorFlow Serving: its REST API has none") from None
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"})
        try:
            with self._open(request, timeout=self._timeout) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                said = _error(error.read(100_000))
            if error.code == 404:
                raise _NotThere(said) from None
            kind = UserException if error.code < 500 else UserRuntimeException
            raise kind(f"TensorFlow Serving at {self._address} answered {error.code}: {said}") from None
        except TimeoutError:
            raise self._silent() from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise self._silent() from None
            raise UserRuntimeException(f"TensorFlow Serving at {self._address} cannot be used: {reason}; is it running there?") from None

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Whatever else listens at that address may answer anything."""
        try:
            yield
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
            raise UserRuntimeException(f"{self._address} answers, but not as a TensorFlow Serving does ({said}); correct models.serving") from None

    def _silent(self) -> UserRuntimeException:
        return UserRuntimeException(f"TensorFlow Serving at {self._address} did not answer within {self._timeout:g} s")


class _NotThere(Exception):
    """404, with the server's words."""


def _error(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def _signature(document: dict[str, Any], wanted: str | None, shown: str) -> Signature:
    rows = document["metadata"]["signature_def"]["signature_def"]
    available = {key: row for key, row in rows.items() if key != _NOT_A_SIGNATURE}
    key = choose(available, wanted, shown)
    inputs, outputs = ({name: _tensor(row) for name, row in (available[key].get(side) or {}).items()} for side in ("inputs", "outputs"))
    return Signature(key, inputs, outputs)


def _tensor(row: dict[str, Any]) -> Tensor:
    dtype, shape = str(row["dtype"]), row.get("tensor_shape") or {}
    name = _NAMES.get(dtype, dtype.removeprefix("DT_").lower())
    if shape.get("unknown_rank"):
        return Tensor(name, None)
    sizes = [int(dim["size"]) for dim in shape.get("dim") or ()]
    return Tensor(name, tuple(None if size < 0 else size for size in sizes))


def _written(value: Any) -> Any:
    """Byte strings, as the REST API has them."""
    if isinstance(value, list):
        return [_written(item) for item in value]
    return {"b64": to_list(value, "string")[0]}


def _flat(value: Any, dtype: str) -> list[Any]:
    return to_list(_decoded(value) if dtype == "string" else value, dtype)


def _decoded(value: Any) -> Any:
    """Texts, and bytes where the server says ``{"b64": …}`` (for outputs whose name ends in ``_bytes``)."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value
