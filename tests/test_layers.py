"""The layers of the package hold, and import-linter finds a violation. The contracts are in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the package in `folder`: it comes first on the path of the linter."""
    environment = os.environ | {"PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "trio_agentapp", tmp_path / "trio_agentapp", ignore=ignored)
    return tmp_path


def test_the_layers_hold() -> None:
    verdict = lint(ROOT)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("protocol", "trio"),
        ("protocol", "trio_agentapp.runs"),
        ("runs", "quart"),
        ("runs", "redis"),
        ("runs", "trio_agentapp.web"),
        ("stores", "trio_agentapp.interrupts"),
        ("interrupts", "hypercorn"),
        ("server", "trio_agentapp.endpoints"),
        ("endpoints", "trio_agentapp.web"),
        ("web", "trio_agentapp.app"),
        ("app", "trio_agentapp.testing"),
        ("agents", "trio_agentapp.app"),
    ],
)
def test_a_forbidden_import_is_found(copy: Path, module: str, forbidden: str) -> None:
    (copy / "trio_agentapp" / module / "intruder.py").write_text(f"import {forbidden}\n")
    (copy / "trio_agentapp" / "testing").mkdir(exist_ok=True)
    (copy / "trio_agentapp" / "testing" / "__init__.py").touch()

    verdict = lint(copy)

    assert verdict.returncode == 1, verdict.stdout + verdict.stderr
    found = " ".join(verdict.stdout.split())
    assert f"trio_agentapp.{module} is not allowed to import {forbidden}:" in found
    assert f"trio_agentapp.{module}.intruder -> {forbidden} (l.1)" in found


def test_a_package_that_no_layer_lists_is_found(copy: Path) -> None:
    (copy / "trio_agentapp" / "odds").mkdir()
    (copy / "trio_agentapp" / "odds" / "__init__.py").touch()

    verdict = lint(copy)

    assert verdict.returncode == 1, verdict.stdout + verdict.stderr
    assert "- trio_agentapp.odds" in verdict.stdout


BACK_REFERENCES = [
    ("trio_agentapp.runs.stream", "trio_agentapp.runs.event_log"),
    ("trio_agentapp.wires.a2a.call", "trio_agentapp.wires.a2a.adapter"),
]
"""The imports that close a circle of files. A comment in the first file says why."""


def test_files_import_each_other_in_no_circle() -> None:
    """Imports for the type checker, and those inside functions, count as well."""
    graph = grimp.build_graph("trio_agentapp", exclude_type_checking_imports=False, cache_dir=None)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    for importer, other in BACK_REFERENCES:
        imported[importer].remove(other)
    TopologicalSorter(imported).prepare()  # raises CycleError, with the files of a circle
