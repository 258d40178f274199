"""Reads ``cortex.yaml``: from bytes to plain Python values, with the scalars that the contract's YAML has."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import SpecError
from ..core.readers import printable
from ..core.spec import APISpec, check_documents, check_specs

#: The size of a config body that is accepted anywhere.
MAX_CONFIG_BYTES = 10 * 1024 * 1024
#: The keys of one map after its ``<<`` merges.
MAX_MERGED_KEYS = 100_000

_REPLACED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """SafeLoader, except that ``2024-01-01`` and ``1:30`` are strings and ``1e-3`` is a number.

    PyYAML makes a date, the integer 90 (base 60) and a string of them. Dates have no place in JSON, and an author who
    writes a learning rate means a number.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and type are PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Carry out ``<<`` merges, but not those that double a map line by line."""
        super().flatten_mapping(node)
        if len(node.value) > MAX_MERGED_KEYS:
            raise yaml.constructor.ConstructorError(None, None, "'<<' merges too many keys", node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]*[01]_*|0x[0-9a-fA-F_]*[0-9a-fA-F]_*|0[0-7_]*|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)


class Dumper(yaml.SafeDumper):
    """Puts quotes around exactly those texts that the loader would take for something else: PyYAML's own rules say ``1e5`` is none of them."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


def written(documents: list[dict[str, Any]]) -> str:
    """The text of a config file that :func:`load` reads as these entries."""
    return yaml.dump(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def load(path: Path) -> list[dict[str, Any]]:
    """The entries of the config file ``path``: a list of one or more maps with string keys.

    Raises SpecError with ``kind`` file_missing, unreadable, too_long, yaml, multiple_documents, no_apis or
    not_a_list_of_maps; YAML errors have ``line`` and ``column`` too.
    """
    return check_documents(_parse(_read(path), path.name), path.name)


def doubled(path: Path) -> list[str]:
    """A sentence for each key that stands twice in one map of a file that :func:`load` takes: YAML lets the last one count, and says nothing."""
    found, nodes, seen = [], [yaml.compose(_read(path), Loader=_Loader)], set()
    while nodes:
        node = nodes.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue  # an alias leads to a node again
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            nodes.append(value)
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                same = key.tag, key.value  # 1 and '1' are two keys
                if same in lines:
                    places = f"{printable(key.value)} stands at line {lines[same]} and again at line {line}"
                    found.append((line, f"{path.name}: {places}; only the last one counts."))
                lines[same] = line
    return [sentence for _, sentence in sorted(found)]


def value_of(text: str | bytes, source: str) -> Any:
    """One YAML value with the scalars of a config file: ``0.5``, ``[a, b]``, ``2024-01-01`` (a text). Raises SpecError (kind ``yaml``)."""
    return _parse(text.encode() if isinstance(text, str) else text, source)


def read_specs(config_path: Path, files: Collection[str]) -> list[APISpec]:
    """The APIs of the config file, checked against the paths in ``files``. Raises SpecError."""
    return check_specs(load(config_path), files, config_path.name)


def _read(path: Path) -> bytes:
    try:
        # One byte more than is allowed tells that there is more, without reading all of it.
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        sentence = "the file does not exist; check the path."
        raise SpecError(f"{path.name}: {sentence}", path="", kind="file_missing") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise SpecError(f"{path.name}: the file cannot be read: {reason}.", path="", kind="unreadable") from None
    if len(data) > MAX_CONFIG_BYTES:
        sentence = f"the file is larger than {MAX_CONFIG_BYTES:,} bytes; put data into other files of the project."
        raise SpecError(f"{path.name}: {sentence}", path="", kind="too_long")
    return data


def _parse(data: bytes, source: str) -> Any:
    loader = None
    try:
        loader = _Loader(data)
        document = loader.get_data() if loader.check_data() else None
        if loader.check_data():
            line = loader.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            sentence = f"a second document begins at line {line}; put all APIs into one list and remove the '---'."
            raise SpecError(f"{source}: {sentence}", path="", kind="multiple_documents", line=line)
        return document
    except yaml.MarkedYAMLError as error:
        raise _marked(error, source) from None
    except RecursionError:
        raise SpecError(f"{source}: the YAML is nested too deeply.", path="", kind="yaml") from None
    except (yaml.YAMLError, ValueError, OverflowError, LookupError, TypeError, AttributeError):
        # ReaderError for bytes that are no text; the others are PyYAML's own slips on odd explicit tags and numbers.
        line = loader.line + 1 if loader else 1
        sentence = f"invalid YAML at or before line {line}: a character or a value that cannot be read."
        raise SpecError(f"{source}: {sentence}", path="", kind="yaml", line=line) from None
    finally:
        if loader is not None:
            loader.dispose()


def _marked(error: yaml.MarkedYAMLError, source: str) -> SpecError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
    problem = printable(error.problem or error.context or "it cannot be parsed")
    if "'\\t'" in problem:
        problem = "found a tab; indent with spaces"
    where = f" at line {line}, column {column}" if mark else ""
    return SpecError(f"{source}: invalid YAML{where}: {problem}.", path="", kind="yaml", line=line, column=column)
