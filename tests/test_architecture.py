"""The house stands as drawn: arrows go down, towers do not touch, each library lives in its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jupyter_cortex"

#: Room -> the rooms it may import. The ground carries both towers; only the roof may join them.
GROUND = {"core", "handler", "project"}
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "handler": {"core"},
    "project": {"core", "handler"},
    "store": {"core"},
    "serving": GROUND | {"store"},
    "operator": GROUND | {"store", "serving"},
    "gateway": GROUND | {"store", "serving", "operator"},
    "environments": {"core"},
    "client": GROUND | {"environments"},
    "commands": GROUND | {"client", "environments"},
    "render": {"core", "commands"},
    "widgets": {"core", "handler", "client", "commands", "render"},
    "magics": GROUND | {"client", "commands", "render", "environments", "widgets"},
    "extension": {"core", "environments", "client", "commands"},
    "demo": {"core", "project"},
    "cli": GROUND | {"client", "commands", "render", "environments", "demo", "operator", "gateway"},
}
#: Library -> the rooms that may import it.
LIBRARIES: dict[str, set[str]] = {
    "redis": {"store", "serving", "operator", "gateway"},
    "hiredis": {"serving"},
    "blake3": {"serving"},
    "dramatiq": {"serving"},
    "fsspec": {"serving", "handler"},
    "numpy": {"handler", "project"},
    "tensorflow": {"handler"},
    "fastapi": {"gateway"},
    "starlette": {"gateway"},
    "uvicorn": {"gateway"},
    "httpx": {"client"},
    "click": {"cli", "commands", "magics"},
    "rich": {"cli", "render", "demo"},
    "yaml": {"project"},
    "pydantic": {"core", "gateway"},
    "psutil": {"operator"},
    "packaging": {"project"},
    "dill": {"handler"},
    "ipykernel": {"handler"},
    "jupyter_client": {"handler"},
    "nbclient": {"handler"},
    "nbconvert": {"gateway"},
    "nbformat": {"handler", "project", "gateway"},
    "IPython": {"magics", "widgets"},
    "ipywidgets": {"widgets"},
    "jupyter_server": {"extension"},
    "jupyter_core": {"extension"},
    "tornado": {"extension"},
    "traitlets": {"extension"},
    "papermill": {"project", "handler"},
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, str]]:
    """(kind, name) of every import, wherever it stands: ("room", "store") or ("library", "redis")."""
    parts = ("jupyter_cortex", *path.relative_to(PACKAGE).with_suffix("").parts)
    package = parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = list(package[: len(package) - node.level + 1]) + (node.module.split(".") if node.module else [])
            names = [base] if len(base) > 1 else [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")]
        else:
            continue
        for name in names:
            if name[0] == "jupyter_cortex":
                found.append(("room", name[1] if len(name) > 1 else ""))
            else:
                found.append(("library", name[0]))
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{room} is not in the house's plan"
    for kind, name in imports(path):
        if kind == "room":
            assert name in {room, "", "__version__"} | ROOMS[room], f"{room} must not import {name}"
        else:
            assert room in LIBRARIES.get(name, {room}), f"{name} does not live in {room}"


def test_the_plan_has_no_circle() -> None:
    def below(room: str, path: tuple[str, ...] = ()) -> None:
        assert room not in path, " -> ".join([*path, room])
        for other in ROOMS[room]:
            below(other, (*path, room))

    for room in ROOMS:
        below(room)


def test_the_towers_are_joined_by_http_only() -> None:
    client_tower, server_tower = (
        {"client", "commands", "render", "environments", "demo", "magics", "widgets", "extension"},
        {"store", "serving", "operator", "gateway"},
    )
    assert not any(ROOMS[room] & server_tower for room in client_tower)
    assert not any(ROOMS[room] & client_tower for room in server_tower)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("jupyter_cortex", ["pydantic", "redis", "httpx", "dramatiq", "yaml", "jupyter_server", "tornado"]),
        ("jupyter_cortex.extension", ["pydantic", "redis", "httpx", "dramatiq", "click", "rich"]),
        ("jupyter_cortex.serving.replica", ["pydantic", "fastapi", "httpx", "yaml", "click"]),
        ("jupyter_cortex.serving.worker", ["pydantic", "fastapi", "httpx", "yaml", "dramatiq"]),
    ],
)
def test_importing_a_light_module_opens_no_heavy_room(module: str, heavy: list[str]) -> None:
    code = f"import {module}, sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_top_level_of_the_repository_is_as_agreed() -> None:
    root = PACKAGE.parent
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    tops = {name.split("/")[0] for name in listed if not name.startswith(".")}
    agreed = {"jupyter_cortex", "labextension", "kernels", "examples", "tests", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    assert tops <= agreed
