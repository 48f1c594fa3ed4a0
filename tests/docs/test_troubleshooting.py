"""The messages that the page explains exist in the package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/troubleshoot.md"
FOREIGN = {"no running event loop"}
"""Messages of other packages: here Python's asyncio."""


def constants() -> str:
    """Return all string constants of the package; those of f-strings are in pieces."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "trio_agentapp").rglob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree))
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join(texts) + " ".join(
        node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)
    )


def test_every_message_is_one_of_the_package() -> None:
    written = constants()
    cells = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    messages = {message for cell in cells for message in re.findall(r"`([^`/]+)`", cell)} - FOREIGN
    assert len(messages) > 30
    assert not [message for message in messages if message not in written and message != "code"]
