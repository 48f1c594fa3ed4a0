"""Rules for every file: what must not land, whatever the linters say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".md", ".toml", ".lua", ".yml", ".yaml"}
WITHOUT_SUFFIX = {"Makefile", "run", ".gitignore", ".editorconfig"}
GENERATED = {"__pycache__", "build", "dist", "results"}
HIDDEN_BUT_OURS = {".ci", ".gitignore", ".editorconfig", ".pre-commit-config.yaml"}
ASYNCIO_MAY_BE_USED_IN = {"frameworks", "tasks", "deploy"}

# Put together at run time, so that this file does not contain what it forbids.
PLACEHOLDER = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(" + "|".join(("work", "home", "root")) + r")/")


def texts(folder: Path = ROOT) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in GENERATED or (path.name.startswith(".") and path.name not in HIDDEN_BUT_OURS):
            continue
        if path.is_dir():
            yield from texts(path)
        elif path.suffix in SUFFIXES or path.name in WITHOUT_SUFFIX:
            yield path


def lines_with(pattern: re.Pattern[str], text: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]


def swallowed_errors(source: str) -> list[int]:
    """Lines of `except:`, and of handlers that catch everything only to do nothing."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (catches_everything(node.type) and does_nothing(node.body)))
    ]


def catches_everything(caught: ast.expr) -> bool:
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"} for kind in kinds)


def does_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )


def imports_of_asyncio(source: str) -> list[int]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        found += [node.lineno for name in names if name.partition(".")[0] == "asyncio"]
    return found


ALL = list(texts())
PYTHON = [path for path in ALL if path.suffix == ".py"]
PACKAGE = [path for path in PYTHON if path.is_relative_to(ROOT / "trio_agentapp")]


def test_no_placeholders() -> None:
    assert not {str(path): found for path in ALL if (found := lines_with(PLACEHOLDER, path.read_text()))}


def test_no_paths_of_one_machine() -> None:
    assert not {str(path): found for path in ALL if (found := lines_with(MACHINE_PATH, path.read_text()))}


def test_no_swallowed_errors() -> None:
    assert not {str(path): found for path in PYTHON if (found := swallowed_errors(path.read_text()))}


def test_asyncio_is_used_in_its_packages_only() -> None:
    elsewhere = [p for p in PACKAGE if p.relative_to(ROOT).parts[1] not in ASYNCIO_MAY_BE_USED_IN]
    assert not {str(path): found for path in elsewhere if (found := imports_of_asyncio(path.read_text()))}


def test_the_files_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in ALL}
    assert {"pyproject.toml", "Makefile", "README.md", ".ci/run", "trio_agentapp/errors.py"} <= names
    assert Path(__file__) in PYTHON


@pytest.mark.parametrize("text", ["# TO" + "DO: later", "FIX" + "ME", "see X" + "XX."])
def test_the_rule_sees_placeholders(text: str) -> None:
    assert lines_with(PLACEHOLDER, f"fine\n{text}\n") == [2]
    assert not lines_with(PLACEHOLDER, text.lower())


@pytest.mark.parametrize("name", ["work", "home", "root"])
def test_the_rule_sees_machine_paths(name: str) -> None:
    assert lines_with(MACHINE_PATH, f"open('/{name}/me/file')") == [1]
    assert not lines_with(MACHINE_PATH, f"https://example.com/{name}/me and net{name}/x and /{name}s/")


@pytest.mark.parametrize(
    ("handler", "faulty"),
    [
        ("except:\n    raise", True),
        ("except Exception:\n    pass", True),
        ("except (ValueError, BaseException):\n    ...", True),
        ("except ValueError:\n    pass", False),
        ("except Exception:\n    log()", False),
    ],
)
def test_the_rule_sees_swallowed_errors(handler: str, faulty: bool) -> None:
    assert swallowed_errors(f"try:\n    work()\n{handler}\n") == ([3] if faulty else [])


@pytest.mark.parametrize(
    ("line", "faulty"),
    [
        ("import asyncio", True),
        ("import os, asyncio.events", True),
        ("from asyncio import Queue", True),
        ("from .asyncio import x", False),
        ("import asyncio_like", False),
    ],
)
def test_the_rule_sees_asyncio(line: str, faulty: bool) -> None:
    assert imports_of_asyncio(f"def late():\n    {line}\n") == ([2] if faulty else [])
