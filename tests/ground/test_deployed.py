"""A deployed version on the author's machine: its module runs beside the kernel's own, and what differs is named."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from jupyter_cortex.core.errors import HandlerError, ProjectError
from jupyter_cortex.handler import origin
from jupyter_cortex.project import bundle
from jupyter_cortex.project.deployed import Deployed
from jupyter_cortex.project.files import ProjectFile

HANDLER = "import helper, os\nclass Handler:\n    def handle_async(self):\n        return {'n': helper.N, 'mode': os.environ.get('MODE')}\n"


def deployed(files: dict[str, str], spec: dict[str, Any] | None = None, meta: dict[str, bytes] | None = None, **handler: Any) -> Deployed:
    packed = bundle.pack([ProjectFile.made(path, text.encode()) for path, text in files.items()], meta=meta)
    return Deployed(packed.data, {"handler": {"path": "handler.py", "env": {}, **handler}, **(spec or {})})


def test_a_version_s_module_runs_with_its_own_files_and_leaves_the_process_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helper.py").write_text("N = 'mine'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import helper  # type: ignore[import-not-found]

    path, environ, lookup = list(sys.path), dict(os.environ), origin.used()
    version = deployed({"handler.py": HANDLER, "helper.py": "N = 'deployed'\n"}, env={"MODE": "then"})
    try:
        with version.imported() as cls:
            assert cls().handle_async() == {"n": "deployed", "mode": "then"}
        assert (sys.path, dict(os.environ), origin.used()) == (path, environ, lookup)
        assert sys.modules["helper"] is helper
        assert "cortex_async_handler" not in sys.modules
    finally:
        version.close()
        del sys.modules["helper"]
    assert not version.project.exists()


def test_a_module_that_cannot_be_imported_is_said_and_taken_back(tmp_path: Path) -> None:
    path = list(sys.path)
    version = deployed({"handler.py": "import no_such_module_here\n"})
    with pytest.raises(HandlerError, match="no_such_module_here"), version.imported():
        pass
    assert sys.path == path
    version.close()


def test_files_that_differ_or_are_missing_are_named(tmp_path: Path) -> None:
    version = deployed({"handler.py": HANDLER, "helper.py": "N = 1\n", "data/labels.txt": "a\n", "same.txt": "same\n"})
    (tmp_path / "handler.py").write_text(HANDLER)
    (tmp_path / "helper.py").write_text("N = 2\n")
    (tmp_path / "same.txt").write_text("same\n")
    assert version.differing(tmp_path) == ["data/labels.txt of that version is not here", "helper.py differs"]
    version.close()


def test_a_module_that_was_made_from_a_notebook_is_no_file_to_compare(tmp_path: Path) -> None:
    version = deployed({"handler.py": HANDLER}, meta={"lines.json": b'{"lines": []}'})
    assert version.differing(tmp_path) == []
    version.close()


def test_artifacts_are_the_author_s_files_and_named_where_they_are_others(tmp_path: Path) -> None:
    weights = b"weights"
    item = {"path": "model/w.bin", "sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}
    version = deployed({"handler.py": HANDLER}, {"artifacts": [item]})
    with pytest.raises(ProjectError, match=r"model/w\.bin"):
        version.link_artifacts(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.bin").write_bytes(weights)
    assert version.differing(tmp_path) == ["handler.py of that version is not here"]
    version.link_artifacts(tmp_path)
    version.link_artifacts(tmp_path)
    assert (version.project / "model" / "w.bin").read_bytes() == weights
    (tmp_path / "model" / "w.bin").write_bytes(b"WEIGHTS")
    assert "the artifact model/w.bin differs" in version.differing(tmp_path)
    version.close()
