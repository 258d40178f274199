"""Walking a syntax tree: as `ast.walk` does, in less than half of its time, which is most of a slice's."""

from __future__ import annotations

import ast
from collections.abc import Iterator

#: Fields that hold no names and no code.
_DULL = frozenset({"ctx", "op", "ops", "lineno", "type_ignores", "kind", "conversion", "is_async", "simple", "level", "type_comment"})


_fields: dict[type[ast.AST], tuple[str, ...]] = {}


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below, in the order of the source, without contexts and operators."""
    found: list[ast.AST] = []
    kind = type(node)
    fields = _fields.get(kind)
    if fields is None:
        fields = _fields[kind] = tuple(name for name in kind._fields if name not in _DULL)
    for name in fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [part for part in value if isinstance(part, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all that is below it, in no order to rely on."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += children(node)


def root_name(node: ast.AST) -> str:
    """``x`` for ``x``, ``x.y``, ``x[0].z``, ``x.get(1)``; "" for what begins with something else."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred, ast.Call)):
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Attribute):
                return ""
            node = node.func.value
        else:
            node = node.value
    return node.id if isinstance(node, ast.Name) else ""
