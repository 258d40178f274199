"""What the text of each field of a spec must look like: one function per field that has a rule of its own."""

from __future__ import annotations

import re
from typing import Any

from .readers import INT64, FieldError, a_map, a_string, one_of, printable, text, texts

KINDS = ("RealtimeAPI", "BatchAPI", "TrafficSplitter", "TaskAPI", "AsyncAPI")
NAME_LIMIT = 42
ENDPOINT_LIMIT = 1000
#: Image names are longer than this nowhere; the limit keeps the pattern below quick.
IMAGE_LIMIT = 512
#: The gateway's own paths; nobody can publish at or below them.
RESERVED_ENDPOINTS = ("/_cortex", "/metrics", "/healthz", "/readyz")
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
#: The longest path that travels, in bytes: macOS has 1,024 for a whole path, the directory it is unpacked to included.
MAX_PATH_BYTES = 800
#: What no name in a bundle may have: it would not mean the same file on another system.
_FOREIGN = re.compile(r"\\|^[A-Za-z]:|[\0\ud800-\udfff]")
_MODEL_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ENDPOINT = re.compile(r"[A-Za-z0-9_\-./]*", re.ASCII)
_PROTOBUF = re.compile(r"[A-Za-z0-9._]+\.proto", re.ASCII)
_SURGE = re.compile(r"([0-9]{1,10})(%?)", re.ASCII)
_ORIGIN = re.compile(r"(https?)://([a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


def is_portable(path: str) -> bool:
    """Whether the relative posix ``path`` names the same file below any root on any system."""
    if _FOREIGN.search(path) or len(path.encode()) > MAX_PATH_BYTES:
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))


def check_name(value: str) -> str:
    if value.startswith("b-"):
        raise FieldError("value", "a name cannot start with 'b-'; choose another.")
    if not NAME.fullmatch(value):
        raise FieldError(
            "value",
            "a name has lower-case letters, digits and dashes, starts with a letter and does not end in a dash.",
        )
    return value


def check_kind(value: str) -> str:
    if value not in KINDS:
        raise FieldError("value", f"{printable(value)!r} is not a kind; use AsyncAPI.")
    if value != "AsyncAPI":
        raise FieldError("unsupported_kind", f"{value} is not supported here; use AsyncAPI.")
    return value


def check_type(value: str) -> str:
    if value == "onnx":
        raise FieldError("value", "onnx is not a type any more; use python and load the model in the Handler.")
    return str(one_of("python", "tensorflow", "notebook")(value))


def check_path(value: str) -> str:
    # Which of them the type wants is a rule between fields (rules.py).
    if not value.endswith((".py", ".pickle", ".ipynb")):
        raise FieldError("value", f"{printable(value)!r} must end in .py or .pickle.")
    return value.removeprefix("./")


def check_python_path(value: str) -> str:
    if value in (".", "./", "./."):
        raise FieldError("value", "the project's root is importable anyway; name a directory below it, or remove the key.")
    if value.startswith(("/", "~/")):
        raise FieldError("value", "this must be relative to the project's root.")
    return value.removeprefix("./").rstrip("/") + "/"


def check_image(value: str) -> str:
    if len(value) > IMAGE_LIMIT or not _IMAGE.fullmatch(value):
        raise FieldError("value", f"{printable(value)!r} is not the name of a container image.")
    return value


def check_protobuf_path(value: str) -> str:
    if not _PROTOBUF.fullmatch(value):
        raise FieldError("value", "this has letters, digits, dots and underscores and ends in .proto.")
    return value


def check_model_name(value: str) -> str:
    if not _MODEL_NAME.fullmatch(value):
        raise FieldError("value", "a model's name has letters, digits, dashes and underscores only.")
    if value == "_cortex_default":
        raise FieldError("reserved", "this name is reserved; choose another.")
    return value


def check_node_group(value: str) -> str:
    if not _MODEL_NAME.fullmatch(value):
        raise FieldError("value", "a node group's name has letters, digits, dashes and underscores only.")
    return value


def check_endpoint(value: str) -> str:
    if not _ENDPOINT.fullmatch(value):
        raise FieldError("value", "an endpoint has letters, digits and _ - . / only.")
    if "//" in value:
        raise FieldError("value", "an endpoint cannot contain //.")
    endpoint = "/" + value.strip("/")
    if endpoint == "/":
        raise FieldError("value", "a path must be specified; / alone cannot be published.")
    return check_reserved(endpoint)


def check_reserved(endpoint: str) -> str:
    """``endpoint`` unless it is one of the gateway's own paths, or below one."""
    for reserved in RESERVED_ENDPOINTS:
        if endpoint == reserved or endpoint.startswith(reserved + "/"):
            raise FieldError("reserved", f"{reserved} and all below it is the gateway's own; choose another endpoint.")
    return endpoint


def _origin(value: str) -> str:
    if value == "*":
        return value
    match = _ORIGIN.fullmatch(value.lower()) if len(value) <= ENDPOINT_LIMIT else None
    if match is None or int(match[3] or 0) > 65535:
        raise FieldError("value", f"{printable(value)!r} is not an origin; write https://host, https://host:port or '*'.")
    # Browsers leave the default port out of the Origin header.
    default = {"http": 80, "https": 443}[match[1]]
    port = "" if match[3] is None or int(match[3]) == default else f":{int(match[3])}"
    return f"{match[1]}://{match[2]}{port}"


def check_origins(value: Any) -> list[str]:
    origins = list(dict.fromkeys(texts(text(_origin))(value)))
    if "*" in origins and len(origins) > 1:
        raise FieldError("conflict", "'*' allows every origin; use it alone or remove it.")
    return origins


def check_env(value: Any) -> dict[str, str]:
    """Never shows a value: they may be secret."""
    env = a_map(value)
    for key, item in env.items():
        if not isinstance(item, str):
            raise FieldError("type", f"the value of {printable(key)} must be a string; put quotes around it.")
        if not key or "=" in key:
            raise FieldError("value", "a variable's name cannot be empty or contain =.")
        try:
            a_string(key)
            a_string(item)
        except FieldError as error:
            raise error.below(key) from None
    return dict(env)


def check_surge(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        if not -INT64 - 1 <= value <= INT64:
            raise FieldError("type", f"this must be an integer of at most {INT64:,}.")
        value = str(value)
    string = str(text()(value))
    match = _SURGE.fullmatch(string)
    if match is None or int(match[1]) > (100 if match[2] else 2**31 - 1):
        raise FieldError("value", f"{printable(string)!r} must be an integer of 0 or more, or a percentage from 0% to 100%.")
    return string
