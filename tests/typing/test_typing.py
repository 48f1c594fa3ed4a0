"""User code that must type-check, and uses that must not: mypy reads the files beside this one.

A line that must not pass has `# type: ignore[code]`. mypy reports an ignore that it does not need, so such a line
fails the test when its error goes away or becomes another one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_"))


def mypy(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_user_code_type_checks_and_mistakes_do_not() -> None:
    verdict = mypy(*FILES)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_has_mistakes(path: Path) -> None:
    accepted, _, rejected = path.read_text().partition("# What must not pass.")
    assert "type: ignore" not in accepted
    assert rejected.count("type: ignore[") > 3


def test_a_mistake_without_a_mark_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from trio_agentapp import AgentApp\n\nname: int = AgentApp().app_name\n")
    verdict = mypy(wrong)
    assert "wrong.py:3: error: Incompatible types in assignment" in verdict.stdout
