"""The documentation is that of the version which is installed."""

from __future__ import annotations

from .conftest import Lab


def test_the_documentation_comes_with_the_package_as_markdown(lab: Lab) -> None:
    answer = lab.get("help")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.text.startswith("# jupyter-cortex\n")
