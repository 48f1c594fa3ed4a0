"""The documentation is correct: its code runs, its links have targets, its tables are complete."""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing

from trio_agentapp import AgentApp, Run, RunState, StopReceipt, errors
from trio_agentapp.app import Settings
from trio_agentapp.app.variables import PREFIX
from trio_agentapp.frameworks.asyncio_run import AsyncioRun
from trio_agentapp.interrupts.redis import RedisInterruptBackend
from trio_agentapp.protocol.content import CONTENT_TYPES, FIELDS
from trio_agentapp.protocol.events import TERMINAL
from trio_agentapp.protocol.lifecycle import ENDS, CleanupResult
from trio_agentapp.protocol.message import MESSAGE_TYPES, ROLES
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.runs.handler import OFFERED
from trio_agentapp.server.problems import KNOWN, OTHERS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [
    path
    for folder in ("docs", "examples", "bench")
    for path in sorted((ROOT / folder).rglob("*.md"))
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)  # bench has an environment of its own
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
REFERENCE = ROOT / "docs/reference"


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def python_blocks(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text()
    for found in FENCE.finditer(text):
        if found[1] == "python":
            yield text.count("\n", 0, found.start()) + 1, found[2]


def rows(name: str, heading: str = "") -> dict[str, list[str]]:
    """Return the table rows of a reference page, or of one section, by the code in their first column."""
    text = (REFERENCE / name).read_text()
    if heading:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        assert text, heading
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
            for key in re.findall(r"`([^`]+)`", cells[0]):
                found[key] = [cell.strip().strip("`") for cell in cells]
    return found


def module(path: Path) -> Iterator[types.ModuleType]:
    """Make a module for a page, so that classes defined in the page belong to a module."""
    page = types.ModuleType("documentation_" + path.stem.replace("-", "_"))
    sys.modules[page.__name__] = page
    yield page
    del sys.modules[page.__name__]


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    for page in module(request.param):
        yield page.__dict__


RUNNABLE = [path for path in PAGES if any(True for _ in python_blocks(path))]


@pytest.mark.parametrize(
    ("path", "namespace"), [(path, path) for path in RUNNABLE], ids=map(named, RUNNABLE), indirect=["namespace"]
)
def test_python_blocks_run(
    path: Path, namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Run the blocks of a page in order, then its tests, and ask its agents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AgentApp, "run", lambda *_args, **_options: pytest.fail("app.run was called"))
    for line, code in python_blocks(path):
        before = dict(namespace)
        # Padded, so that a traceback names the line of the page.
        exec(compile("\n" * line + code, named(path), "exec"), namespace)
        new = {name: value for name, value in namespace.items() if before.get(name) is not value}
        for name, value in new.items():
            if name.startswith("test_") and inspect.iscoroutinefunction(value):
                trio.run(value)
        if "@app.query" in code and not namespace["app"].settings.require_auth:
            # Processes and sleeping threads do not work with a virtual clock.
            real = any(
                name in code for name in ("open_process", "time.sleep", "to_thread", "framework=", "bridge.")
            )
            clock = None if real else trio.testing.MockClock(autojump_threshold=0)
            assert trio.run(last_status, namespace["app"], clock=clock) == "completed"


async def last_status(app: AgentApp) -> str:
    with trio.fail_after(20):
        async with app.stream_query("Hello world") as events:
            async for event in events:
                last = event
    return last.status


async def test_the_warning_of_a_cut_cleanup_is_the_documented_one(caplog: pytest.LogCaptureFixture) -> None:
    app = AgentApp()

    @app.query()
    async def chat(run: Run) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await trio.lowlevel.checkpoint()

    async with app.runtime():
        request = {"input": "Hi", "user_id": "u1", "session_id": "s1"}
        async with app.stream_query(request) as events:
            async for event in events:
                if event.status == "in_progress":
                    await trio.testing.wait_all_tasks_blocked()
                    await app.stop_chat("u1", "s1")
    (record,) = caplog.records
    page = (ROOT / "docs/how-to/clean-up-after-a-stop.md").read_text()
    (shown,) = (line for line in page.splitlines() if line.startswith("handler 'chat'"))
    said = re.sub(r"at \S+:\d+;", "at agent.py:31;", record.getMessage())
    assert re.sub(r"'[\w.<>]*chat'", "'chat'", said) == shown


def test_the_pages_are_found() -> None:
    folders = {path.parent.name for path in PAGES if "docs" in path.parts}
    assert {"tutorials", "how-to", "discussion", "reference"} <= folders
    assert len(RUNNABLE) > 8


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), target
        if anchor:
            assert anchor in [slug(line) for line in page.read_text().splitlines() if line.startswith("#")], target


def slug(heading: str) -> str:
    """Return the anchor that renderers make for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower()).replace(" ", "-")


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "docs/README.md").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        if path.name != "README.md":
            assert f"({path.relative_to(ROOT / 'docs')})" in contents


def test_every_setting_is_in_the_reference() -> None:
    table = rows("settings.md")
    for field in attrs.fields(Settings):
        _, default, variable, meaning = table[field.name]
        made = isinstance(field.default, attrs.Factory)
        assert default == (f"{field.default.factory.__name__}()" if made else repr(field.default)), field.name
        readable = field.metadata.get("environment", type(field.default)) in (str, tuple, bool, int, float)
        assert variable == (PREFIX + field.name.upper() if readable else ""), field.name
        assert meaning
    assert set(table) - set(rows("settings.md", "Timings")) == {field.name for field in attrs.fields(Settings)}


def test_every_timing_is_in_the_reference() -> None:
    table = rows("settings.md", "Timings")
    assert {name: cells[1] for name, cells in table.items()} == {
        field.name: repr(field.default) for field in attrs.fields(Timings)
    }


def test_the_reasons_to_be_unready_are_the_documented_ones() -> None:
    page = (ROOT / "docs/how-to/run-several-nodes.md").read_text()
    backend = RedisInterruptBackend("redis://localhost")
    assert f"| `{backend.trouble}` |" in page
    source = inspect.getsource(RedisInterruptBackend)
    assert "Redis has just started or taken over; no new runs for another {left:.0f} s" in source
    assert "| `Redis has just started or taken over; no new runs for another 12 s` |" in page


def request_errors(cls: type[errors.RequestError] = errors.RequestError) -> Iterator[type[errors.RequestError]]:
    yield cls
    for below in cls.__subclasses__():
        if below.__module__.startswith("trio_agentapp"):
            yield from request_errors(below)


def test_every_error_code_is_in_the_reference() -> None:
    table = rows("errors.md", "Before a run starts")
    for error in request_errors():
        code, status, _, name = table[error.code]
        assert (code, status, name) == (error.code, str(error.status), error.__name__)
    for status, known in KNOWN.items():
        assert table[known.code][1] == str(status)
    assert set(table) == {error.code for error in request_errors()} | {
        known.code for known in KNOWN.values()
    } | set(OTHERS.values())


def test_every_error_class_is_in_the_reference() -> None:
    page = (REFERENCE / "errors.md").read_text()
    assert not [name for name in errors.__all__ if f"`{name}`" not in page]


def test_every_end_of_a_run_is_in_the_reference() -> None:
    table = rows("errors.md", "How a run ends")
    ends = {cause.value: state.value for cause, state in ENDS.items()}
    assert {reason: cells[1] for reason, cells in table.items()} == ends


async def test_every_route_is_in_the_reference() -> None:
    app = AgentApp(agent=lambda: "hello")
    table = rows("routes.md")
    async with app.runtime():
        answer = await app.test_client().get("/")
        routes = (await answer.get_json())["routes"]
    for path, methods in routes.items():
        for method in methods:
            assert f"{method} {path}" in table


def test_every_word_of_events_is_in_the_reference() -> None:
    page = (REFERENCE / "events.md").read_text()
    for word in (*MESSAGE_TYPES, *CONTENT_TYPES, *ROLES, *TERMINAL, "created", "in_progress", "incomplete"):
        assert f"`{word}`" in page, word
    table = rows("events.md", "`content`")
    for kind, fields in FIELDS.items():
        for name in fields:
            assert name in table[kind][1], (kind, name)


def test_the_handler_api_is_in_the_reference() -> None:
    page = (REFERENCE / "handlers.md").read_text()
    assert set(OFFERED) <= set(rows("handlers.md", "The handler"))
    for name in ("run_id", "user_id", "session_id", "token", "deadline", "stopping", "emit", "cleanup", "on_exit"):
        assert re.search(rf"`(await )?{name}\b", page), name
        assert hasattr(Run, name) or name in (Run.__doc__ or ""), name
    for field in attrs.fields(StopReceipt):
        assert field.name in rows("handlers.md", "`StopReceipt`")
    for word in (*RunState, *CleanupResult):
        assert f"`{word.value}`" in page, word


def test_every_field_of_a_request_is_in_the_reference() -> None:
    from trio_agentapp import AgentRequest

    page = (REFERENCE / "routes.md").read_text()
    fields = {field.name for field in attrs.fields(AgentRequest)} - {"extra"}
    assert not [name for name in fields if f"`{name}`" not in page]


def test_every_block_has_a_language() -> None:
    bare = {
        named(path): len(found)
        for path in PAGES
        if (found := [kind for kind, _ in FENCE.findall(path.read_text()) if not kind])
    }
    assert not bare


def test_nothing_is_documented_that_does_not_exist() -> None:
    """Parameters in code blocks are refused if they do not exist; attributes in prose are looked up here."""
    known = set(dir(AgentApp)) | {"state", "settings", "app_name", "app_description"}
    for path in PAGES:
        text = path.read_text()
        if path.name in ("migrate-from-fastapi.md", "CHANGELOG.md"):
            continue
        for name in re.findall(r"`(?:await )?app\.(?!py\b)(\w+)", text):
            assert name in known, (named(path), name)
        for name in re.findall(r"`(?:async with )?(?:await )?run\.(?!py\b)(\w+)", text):
            assert any(hasattr(run, name) or name in (run.__doc__ or "") for run in (Run, AsyncioRun)), (
                named(path),
                name,
            )
