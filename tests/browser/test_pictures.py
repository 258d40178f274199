"""README's pictures are what a browser shows today."""

from __future__ import annotations

import re
import subprocess
import sys

from playwright.sync_api import Browser

from .conftest import Shots
from .jupyter import ROOT


def test_readme_s_pictures_of_jupyterlab_are_made_from_a_failure_and_its_replay(shot: Shots, browser: Browser) -> None:
    """In a process of its own: it starts a browser itself."""
    wanted = set(re.findall(r"\]\(\.github/(lab-[a-z-]+\.png)\)", (ROOT / "README.md").read_text()))
    assert "lab-replay.png" in wanted
    command = [sys.executable, "-m", "tests.browser.pictures", str(shot.directory)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    for name in wanted:
        assert (shot.directory / name).read_bytes().startswith(b"\x89PNG"), name
