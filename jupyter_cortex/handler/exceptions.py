"""What a TensorFlow client raises, by the names that handlers written for Cortex catch (``cortex_internal.lib.exceptions``)."""

from __future__ import annotations


class CortexException(Exception):
    """The root of the family."""


class UserException(CortexException):
    """The input does not fit the model, or there is no such model version."""


class UserRuntimeException(UserException):
    """What was asked for cannot be: a model's name, a version, or a server that does not answer."""


class UnknownInput(UserException, KeyError):
    """A key that the model has no input for."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would put it in quotes


# Where handlers import them from is what tracebacks and failure groups say.
for _raised in (CortexException, UserException, UserRuntimeException):
    _raised.__module__ = "cortex_internal.lib.exceptions"
