"""Rules for every file: what must not land, whatever the linters say."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".md", ".toml", ".lua", ".yml", ".yaml"}
WITHOUT_SUFFIX = {"Makefile", "run", ".gitignore", ".editorconfig"}
GENERATED = {"__pycache__", "build", "dist", "results"}
HIDDEN_BUT_OURS = {".ci", ".gitignore", ".editorconfig", ".pre-commit-config.yaml"}
TOP = {
    *HIDDEN_BUT_OURS, "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "README.md", "bench",
    "docs", "examples", "pyproject.toml", "tests", "trio_agentapp",
}  # fmt: skip
"""What stands beside each other at the top of the repository: a newcomer reads it first."""
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


ABSENT = re.compile(r"\b(WIRE|INTERRUPT-PROTOCOL|HOT-PATH|DESIGN|TRIO-NOTES|INTEGRATIONS|REFERENCE|STYLE)\b")
"""Documents that are not in the repository."""

PAGE = re.compile(r"(?<![\w./<>{}*-])((?:[\w.-]+/)*[\w-]+\.md)\b")

DIALECT = {
    r"\bfarewells?\b": "a fallback terminal event",
    r"\b(still|un)born\b": "events of a run that was stopped before it started",
    r"\bgood-?byes?\b": "the terminal frame; to close",
    r"\blast words\b": "the tail of the log; the last output",
    r"\bpatience\b": "a time-out",
    r"\binsist(s|ed|ing)?\b": "to force; a force timeout",
    r"\bwhom?ever\b": "the caller, the client, the user",
    r"\bas many\b[^.;:]{0,60}\bas (there )?(may|(it|they) (takes|may|can))\b": "the limit is reached; is full",
    r"\bhouse\b": "the package",
    r"\b(wire words?|words? of (the|its|this|a) wire)\b": "the protocol",
    r"\bwithout a word\b": "silently",
}
"""Words and phrases that readers stumbled over, with what to write instead."""

NAMES = re.compile(r"FAREWELL|STILLBORN|GOODBYE|LAST_WORDS|PATIENCE|INSIST")


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that people read: comments and strings of Python, comments of Lua and Make, all of a page."""
    text = path.read_text()
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                for number, line in enumerate(token.string.splitlines(), token.start[0]):
                    yield number, line
    elif path.suffix == ".lua":
        for number, line in enumerate(text.splitlines(), 1):
            yield number, line.partition("--")[2]
    else:
        yield from enumerate(text.splitlines(), 1)


def names(path: Path) -> Iterator[tuple[int, str]]:
    """The names in a Python file, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def absent_documents(path: Path) -> list[str]:
    return [f"{number}: {found[0]}" for number, line in prose(path) for found in ABSENT.finditer(line)]


def absent_pages(path: Path) -> list[str]:
    """Pages that a file names and that do not exist; their folders may be left out."""
    cited = [(number, name) for number, line in prose(path) for name in PAGE.findall(line)]
    return [f"{number}: {name}" for number, name in cited if not is_page(name, path.parent)]


def is_page(name: str, folder: Path) -> bool:
    if "/" not in name:
        return name in {page.name for page in ALL if page.suffix == ".md"}
    return any((start / name).is_file() for start in (ROOT, folder, ROOT / "docs"))


def dialect(path: Path) -> list[str]:
    found = []
    for number, line in prose(path):
        # Code in a sentence keeps its name, such as a field of a Redis record.
        said = re.sub(r"`[^`]*`", "`", line)
        for pattern, better in DIALECT.items():
            hits = re.finditer(pattern, said, re.IGNORECASE)
            found += [f"{number}: {hit[0]!r}, better: {better}" for hit in hits]
    if path.suffix == ".py":
        found += [f"{number}: the name {name}" for number, name in names(path) if NAMES.search(name)]
    return found


ALL = list(texts())
READ = {"trio_agentapp", "docs", "examples", "bench", "Makefile", *(page.name for page in ROOT.glob("*.md"))}
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


def test_no_cited_document_is_missing() -> None:
    others = [path for path in ALL if path != Path(__file__)]
    assert not {str(path): found for path in others if (found := absent_documents(path))}
    # Not the tests, which also name pages that they make.
    cited = [path for path in others if path.relative_to(ROOT).parts[0] != "tests"]
    assert not {str(path): found for path in cited if (found := absent_pages(path))}


def test_plain_english() -> None:
    read = [path for path in ALL if path.relative_to(ROOT).parts[0] in READ]
    assert not {str(path): found for path in read if (found := dialect(path))}


def test_the_files_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in ALL}
    assert {"pyproject.toml", "Makefile", "README.md", ".ci/run", "trio_agentapp/errors.py"} <= names
    assert Path(__file__) in PYTHON


def test_nothing_strays_into_the_top_level() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is not a checkout of git")
    assert {name.partition("/")[0] for name in listed.stdout.splitlines()} == TOP


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


@pytest.mark.parametrize(
    ("suffix", "line", "faulty"),
    [
        (".py", "# see WIRE, section 3", True),
        (".py", '"""Rules: DESIGN."""', True),
        (".lua", "-- HOT-PATH, section 3", True),
        (".md", "The rules of INTERRUPT-PROTOCOL.", True),
        (".py", "WIRE = 1", False),
        (".py", "# see docs/reference/wire.md and settings.md", False),
        (".py", "# see docs/reference/no-such-page.md", True),
        (".md", "[a page](no/such/page.md)", True),
    ],
)
def test_the_rule_sees_absent_documents(suffix: str, line: str, faulty: bool, tmp_path: Path) -> None:
    (path := tmp_path / f"file{suffix}").write_text(f"{line}\n")
    assert bool(absent_documents(path) or absent_pages(path)) == faulty


@pytest.mark.parametrize(
    ("suffix", "line", "faulty"),
    [
        (".py", '"""The farewells of a run."""', True),
        (".py", "CLOSING_PATIENCE = 1", True),
        (".py", "# whoever asks", True),
        (".py", 'raise QueueFull("As many runs wait for this session as may.")', True),
        (".py", "timings.claim_patience = 1", False),
        (".py", "# the field `claim_patience`", False),
        (".py", "# a warehouse, and household", False),
        (".py", "# as many as 16 runs may wait", False),
        (".lua", "redis.call('HDEL', key, 'farewell')", False),
        (".lua", "-- the farewell of a run", True),
        (".md", "The rules of the house.", True),
    ],
)
def test_the_rule_sees_dialect(suffix: str, line: str, faulty: bool, tmp_path: Path) -> None:
    (path := tmp_path / f"file{suffix}").write_text(f"{line}\n")
    assert bool(dialect(path)) == faulty
