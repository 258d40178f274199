"""Secrets that are written into the code: found by the name they are given or by how they look, and never shown."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from .tree import walk

_NAME = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|pwd|secret|token|api_?key|access_?key|secret_?key|private_?key|credentials?)(?:_?id)?"
    r"(?:_?\d+|_(?:prod|production|staging|dev|test|live))?$",
    re.IGNORECASE,
)
_TEXT = re.compile(
    r"AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{30,}|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{20,}|xox[abpr]-[A-Za-z0-9-]{10,}|hf_[A-Za-z0-9]{20,}|AIza[\w-]{30,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\b[a-z][a-z0-9+.-]*://[^\s:/@]*:[^\s:/@]{3,}@"
)
_PLACEHOLDER = re.compile(
    r"^(?:x+|\*+|\.+|<.*>|\[.*\]|\$?\{.*\}|your.*|change.?me|example.*|test.*|dummy.*|none|secret|password|token|bearer)$", re.IGNORECASE
)
#: In a shell line: what follows these words.
_ARGUMENT = re.compile(r"((?:password|passwd|token|secret|api[-_]?key|bearer)[\"']?\s*[=: ]\s*)(\S+)", re.IGNORECASE)
HIDDEN = "..."
_MAY_NAME = re.compile(r"pass|pwd|secret|token|key|credential", re.IGNORECASE)


def may_have_secrets(text: str) -> bool:
    """Whether it is worth to look into this source: most has no word that could name a secret."""
    return bool(_MAY_NAME.search(text) or _TEXT.search(text))


def secrets(node: ast.AST) -> Iterator[tuple[ast.Constant, str]]:
    """String literals that look like secrets, each with the name that it is given, or ""."""
    seen: set[int] = set()
    nodes = list(walk(node))
    for part in nodes:
        for name, value in _named_values(part):
            if isinstance(value, ast.Constant) and id(value) not in seen and _is_secret(value.value) and _NAME.search(name):
                seen.add(id(value))
                yield value, name
    for part in nodes:
        if isinstance(part, ast.Constant) and id(part) not in seen and _TEXT.search(_text(part.value)):
            yield part, ""


def hidden(node: ast.AST) -> str:
    """The source of a piece of code, secrets left out."""
    found = [constant for constant, _ in secrets(node)]
    kept = [constant.value for constant in found]
    try:
        for constant in found:
            constant.value = HIDDEN
        return ast.unparse(node)
    finally:
        for constant, value in zip(found, kept, strict=True):
            constant.value = value


def hidden_text(line: str) -> str:
    """A line that is no Python, secrets left out."""
    return _ARGUMENT.sub(rf"\g<1>{HIDDEN}", _TEXT.sub(HIDDEN, line))


def secret_lines(source: str, *, shell: bool = False) -> Iterator[int]:
    """The lines (from 1) of any text that hold what looks like a secret; ``shell``: also by the word in front of it (``password=...``)."""
    for number, line in enumerate(source.split("\n"), 1):
        named = (found[2] for found in _ARGUMENT.finditer(line)) if shell else ()
        if _TEXT.search(line) or any(value[0] not in "${" and _is_secret(value.strip("\"',;")) for value in named):
            yield number


def _text(value: object) -> str:
    return value if isinstance(value, str) else value.decode("latin-1") if isinstance(value, bytes) else ""


def _is_secret(value: object) -> bool:
    text = _text(value).strip()
    return len(text) >= 6 and " " not in text and not _PLACEHOLDER.match(text)


def _named_values(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of what an assignment, a keyword, a default, an item of a dict, a comparison or `getenv(name, value)` names."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _targets(target, node.value)
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
        yield from _targets(node.target, node.value)
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value
    elif isinstance(node, ast.Dict):
        yield from ((_name(key), value) for key, value in zip(node.keys, node.values, strict=True) if key is not None)
    elif isinstance(node, ast.arguments):
        given = [*node.posonlyargs, *node.args]
        yield from ((argument.arg, value) for argument, value in zip(given[len(given) - len(node.defaults) :], node.defaults, strict=True))
        yield from ((argument.arg, value) for argument, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value is not None)
    elif isinstance(node, ast.Compare) and len(node.comparators) == 1:
        yield _name(node.left), node.comparators[0]
    elif isinstance(node, ast.Call) and len(node.args) >= 2 and isinstance(node.args[0], ast.Constant):
        yield _name(node.args[0]), node.args[1]


def _targets(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)) and len(target.elts) == len(value.elts):
        for inner, part in zip(target.elts, value.elts, strict=True):
            yield from _targets(inner, part)
    else:
        yield _name(target), value


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Subscript):
        return _name(node.slice)
    return getattr(node, "attr", getattr(node, "id", ""))
