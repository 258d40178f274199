"""``tensorflow_client``: what a Handler of type tensorflow calls."""

from __future__ import annotations

from typing import Any, Protocol

from ..exceptions import UserException, UserRuntimeException
from .convert import to_arrays
from .signature import Signature


class Backend(Protocol):
    """Where models run: in this process, or in a TensorFlow Serving."""

    def names(self) -> list[str]: ...

    def versions(self, name: str) -> list[str]: ...

    def signature(self, name: str, version: str) -> Signature: ...

    def run(self, name: str, version: str, arrays: dict[str, Any]) -> dict[str, list[Any]]: ...


class TensorFlowClient:
    """Safe to use from several threads. ``single``: the only model there is, None where its name must be said.

    ``listed``: whether only the names that the spec lists are there (``paths``), rather than whatever is found (``dir``).
    """

    def __init__(self, backend: Backend, *, single: str | None, listed: bool) -> None:
        self._backend, self._single, self._listed = backend, single, listed

    def predict(self, model_input: Any, model_name: str | None = None, model_version: str = "latest") -> dict[str, list[Any]]:
        """The model's outputs: name -> flat list of values (int64 as text, byte strings as base64; shapes are lost).

        ``model_input``: a dict with a value for every input of the model's signature. ``model_name``: ignored with ``models.path``, else needed.
        ``model_version``: ``"latest"`` (the highest number) or a number as text.

        Raises UserRuntimeException for a name or a version that cannot be meant, UserException for a version that is not there and for an input
        that does not fit, and a UserException that is a KeyError for a key too many.
        """
        version = _version(model_version)
        name = self._name(model_name)
        available = self._backend.versions(name)
        shown = "the model" if self._single else f"model {name!r}"
        if version == "latest":
            if not available:
                raise UserException(f"{shown} has no version; the models here are: {', '.join(self._backend.names()) or 'none'}")
            version = max(available, key=int)
        elif version not in available:
            raise UserException(f"{shown} has no version {version}; it has {', '.join(sorted(available, key=int)) or 'none'}")
        signature = self._backend.signature(name, version)
        arrays = to_arrays(signature, model_input, f"{shown} (version {version})")
        return self._backend.run(name, version, arrays)

    def _name(self, given: str | None) -> str:
        if self._single is not None:
            return self._single
        names = ", ".join(self._backend.names())
        if given is None:
            raise UserRuntimeException(f"model_name must be said{f'; choose one of: {names}' if names else ''}")
        if self._listed and given not in self._backend.names():
            raise UserRuntimeException(f"there is no model {given!r}; choose one of: {names}")
        return str(given)


def _version(given: Any) -> str:
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    if text == "latest":
        return "latest"
    if not (isinstance(text, str) and text.isascii() and text.isdigit()):
        raise UserRuntimeException(f"model_version must be 'latest' or a number as text, such as '2', not {given!r}")
    return str(int(text))
