"""The pages on the stack name tests and modules that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/discussion" / name for name in ("stack.md", "server.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_test_and_module_exists(page: Path) -> None:
    text = page.read_text()
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    tests = {name for source in sources for name in re.findall(r"def (test_\w+)", source)}
    assert set(re.findall(r"`(test_\w+)`", text)) <= tests
    package = ROOT / "trio_agentapp"
    folders = (package, package / "server")
    for module in re.findall(r"`([\w/]+\.py)`", text):
        assert any((folder / module).exists() for folder in folders), module


def test_each_file_of_the_server_is_described() -> None:
    page = (ROOT / "docs/discussion/server.md").read_text()
    files = {path.name for path in (ROOT / "trio_agentapp/server").glob("*.py")} - {"__init__.py"}
    assert files <= set(re.findall(r"`(\w+\.py)`", page))
