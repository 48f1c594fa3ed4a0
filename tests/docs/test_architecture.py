"""ARCHITECTURE.md and the protocol pages describe the code: what they name exists, and what exists is named."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import attrs
import pytest

from trio_agentapp import AgentApp
from trio_agentapp.app import Settings
from trio_agentapp.limits import DEFAULT_PER_SECOND
from trio_agentapp.protocol.codec import encode_event
from trio_agentapp.protocol.keys import SHARDS, Layout
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.runs.registry import MAX_RUNS_PER_USER

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "trio_agentapp"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
PROTOCOL = ROOT / "docs/reference/interrupt-protocol.md"
WIRE = ROOT / "docs/reference/wire.md"
LIMITS = ROOT / "docs/reference/limits.md"
HOT_PATH = ROOT / "docs/discussion/hot-path.md"
PAGES = [ARCHITECTURE, PROTOCOL, WIRE, LIMITS, HOT_PATH, ROOT / "CONTRIBUTING.md"]
FROM_THE_ROOT = ("docs/", "tests/", "bench/", "examples/", "trio_agentapp/", ".ci/", ".github/")
FILE = re.compile(r"(?<![\w./-])((?:[\w.-]+/)*[\w-]+\.(?:py|lua|md|toml|yaml)|(?:[\w-]+/)+)(?![\w*])")
CALL = re.compile(r"`((?:\w+/)*\w+\.py)`\s+`(\w+(?:\.\w+)*)`")


def exists(name: str) -> bool:
    if name.startswith(FROM_THE_ROOT) or (ROOT / name).is_file():
        return (ROOT / name).exists()
    if "/" not in name:
        return any(PACKAGE.rglob(name))
    return (PACKAGE / name).exists()


def names_in(path: Path) -> set[str]:
    """Every function and class of a module, also nested ones, by its qualified name."""
    found: set[str] = set()

    def visit(node: ast.AST, before: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(before + child.name)
                visit(child, f"{before}{child.name}.")
            else:
                visit(child, before)

    visit(ast.parse(path.read_text()), "")
    return found


@cache
def constants() -> dict[str, set[object]]:
    """The values of all constants of modules of the package, by name."""
    found: dict[str, set[object]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                try:
                    value = eval(compile(ast.Expression(node.value), str(path), "eval"), {"__builtins__": {}})
                    found.setdefault(node.targets[0].id, set()).add(value)
                except (NameError, TypeError, AttributeError):
                    continue  # made of other things than numbers
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows(page: Path, heading: str) -> list[list[str]]:
    part = page.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert part, heading
    table = [cells(line) for line in part.splitlines() if line.startswith("|")]
    return table[2:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    names = {name for text in coded(page) for name in FILE.findall(text)}
    assert not {name for name in names if not exists(name)}


def coded(page: Path) -> list[str]:
    """What stands in backticks, and the lines of trees. Another test follows the links of all pages."""
    text = page.read_text()
    tree = [line for line in text.splitlines() if line.lstrip("│ ").startswith(("├", "└"))]
    return [*re.findall(r"`([^`\n]+)`", text), *tree]


def test_every_function_of_the_traces_exists() -> None:
    calls = CALL.findall(ARCHITECTURE.read_text())
    assert len(calls) > 40
    assert not [(file, name) for file, name in calls if name not in names_in(PACKAGE / file)]


def test_every_package_is_in_the_list_of_layers() -> None:
    named = {row[1].strip("`").rstrip("/") for row in rows(ARCHITECTURE, "Layers")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert named == packages | modules


def test_every_file_of_the_run_core_is_listed() -> None:
    named = {row[0].strip("`") for row in rows(ARCHITECTURE, "The files of `runs/`")}
    assert named == {path.name for path in (PACKAGE / "runs").glob("*.py")} - {"__init__.py"}


def test_every_file_of_the_web_package_is_listed() -> None:
    named = {
        name for row in rows(ARCHITECTURE, "The files of `web/`") for name in re.findall(r"`(\S+\.py)`", row[0])
    }
    assert {name.removeprefix("web/") for name in named} == files_of("web")


def test_every_file_of_a_protocol_is_listed() -> None:
    listed = rows(ARCHITECTURE, "The files of `wires/`")
    named = {row[0].strip("`") + name for row in listed for name in re.findall(r"`(\w+\.py)`", " ".join(row[1:]))}
    files = {f"wires/{name}" for name in files_of("wires") if "/" in name}
    assert named == {name for name in files if not name.endswith("/adapter.py")}


def files_of(package: str) -> set[str]:
    paths = (PACKAGE / package).rglob("*.py")
    return {str(path.relative_to(PACKAGE / package)) for path in paths if path.name != "__init__.py"}


def test_every_script_is_in_the_protocol() -> None:
    named = {row[0].strip("`") for row in rows(PROTOCOL, "Scripts")}
    scripts = {
        path.name for folder in ("interrupts", "events") for path in (PACKAGE / folder / "lua").glob("*.lua")
    }
    assert named == scripts - {"_prelude.lua"}


def test_every_key_is_in_the_protocol() -> None:
    text = " ".join(row[0] for row in rows(PROTOCOL, "Keys")).replace("\\", "")
    layout = Layout("P")
    keys = {
        layout.session("h"),
        layout.events("h", "<run>"),
        layout.viewers("h", "<run>"),
        layout.viewed("h", "<run>"),
        layout.session_channel("h"),
        layout.run("<run>"),
        layout.user("ann").rpartition(":")[0] + ":<hash>",
        layout.pin("name").rpartition(":")[0] + ":<hash>",
        layout.node_channel("<node>"),
        layout.shard(0)[:-1] + f"<0..{SHARDS - 1}>",
    }
    assert not {key for key in keys if f"`{key}`" not in text}
    scripts = "\n".join(path.read_text() for path in (PACKAGE / "interrupts/lua").glob("*.lua"))
    for suffix in set(re.findall(r"base \.\. '(\w+):?'", scripts)):
        assert f"`P:{{h}}:{suffix}" in text, suffix


def test_every_timing_is_in_the_protocol() -> None:
    by_name = {name: row for row in rows(PROTOCOL, "Timings") for name in re.findall(r"`(\w+)`", row[1])}
    for field in attrs.fields(Timings):
        row = by_name[field.name]
        names = re.findall(r"`(\w+)`", row[1])
        said = row[2].split(", ")[names.index(field.name)]
        number, unit = said.split(" ")
        assert float(number) * {"s": 1, "min": 60, "h": 3600}[unit] == field.default, field.name


def test_the_limits_of_the_reference_are_those_of_the_code() -> None:
    checked = 0
    for _, _, value, where, _ in rows(LIMITS, "The table"):
        for name in re.findall(r"`([A-Z_]+)`", where):
            said = re.match(r"\d+", value)
            assert said is not None
            assert float(said[0]) in constants().get(name, set()), (name, value)
            checked += 1
        for setting in re.findall(r"`([a-z_]+)`", where):
            default = getattr(Settings(), setting)
            if default is None:
                default = MAX_RUNS_PER_USER if setting == "max_runs_per_user" else DEFAULT_PER_SECOND
            assert float(value) == default, setting
            checked += 1
    assert checked > 25


def test_every_counted_limit_is_in_the_reference() -> None:
    """The names that the code counts refusals under, and those of the table."""
    counted = {"requests", "frames"}  # given where the rates are made
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        counted |= {*re.findall(r'note_refusal\("(\w+)"\)', source), *re.findall(r'\blimit="(\w+)"', source)}
        for table in re.findall(r"^LIMITS = \{(.*)\}$", source, re.MULTILINE):
            counted |= {*re.findall(r'"(\w+)"', table)}
    listed = {name.strip("`") for name, *_ in rows(LIMITS, "The table")} - {"-"}
    assert counted == listed


async def test_the_chat_of_the_wire_is_what_is_sent() -> None:
    app = AgentApp()

    @app.query()
    async def chat() -> AsyncIterator[str]:
        yield "Hello"
        yield " World!"

    async with app.stream_query({"input": "Hi", "session_id": "s1"}) as events:
        sent = [encode_event(event).decode() async for event in events]
    shown = re.findall(r"^\{.*\}$", WIRE.read_text().partition("## The stream of a run")[2], re.MULTILINE)[:8]
    assert [normalised(line) for line in sent] == [normalised(line) for line in shown]


def normalised(line: str) -> str:
    line = re.sub(r'"(created_at|completed_at)":\d+', r'"\1":0', line)
    return re.sub(r'"(response|msg)_[0-9a-f]+"', r'"\1"', line)
