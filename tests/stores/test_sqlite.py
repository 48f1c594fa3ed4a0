"""One SQLite file: what it takes to open it, several processes on it, and what happens when it cannot be used."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_agentapp.errors import BackendUnavailable, ConfigurationError
from trio_agentapp.protocol.message import Message
from trio_agentapp.stores import open_stores, sqlite, stores_of
from trio_agentapp.stores.shelf import FORGET_AFTER

from .saver import SESSIONS, is_whole

HERE = Path(__file__).parent


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/states.db"


@pytest.mark.parametrize(
    "url",
    ["sqlite:", "sqlite://", "sqlite:///", "sqlite://states.db", "sqlite:///:memory:", "sqlite:///a.db?mode=ro"],
)
def test_a_url_without_a_file(url: str) -> None:
    with pytest.raises(ConfigurationError, match="state_url must be sqlite:///file.*" + url.replace("?", r"\?")):
        stores_of(url)


async def test_a_path_is_relative_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_stores("sqlite:///some states.db") as stores:
        await stores.states.save("ann", "chat", {"n": 1})
    async with open_stores(f"sqlite:///{tmp_path}/some states.db") as stores:
        assert await stores.states.load("ann", "chat") == {"n": 1}
    assert os.listdir(tmp_path) == ["some states.db"]


async def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("This is no database, and it is long enough to be looked at as one. " * 20)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE records (something)")
    other.close()
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 7")
    newer.close()
    for name, reason in (
        ("missing/states.db", "No such file"),
        (".", "directory"),
        ("text", "not a database"),
        ("other.db", "already exists"),
        ("newer.db", "another version"),
    ):
        with pytest.raises(ConfigurationError, match=f"state_url: .*{name}.*{reason}"):
            async with open_stores(f"sqlite:///{tmp_path}/{name}"):
                pass


async def test_a_file_is_for_its_owner_only(tmp_path: Path) -> None:
    async with open_stores(url_of(tmp_path)) as stores:
        await stores.states.save("ann", "chat", {"n": 1})
        names = os.listdir(tmp_path)
        assert len(names) == 3
        assert {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in names} == {0o600}


async def test_stores_are_used_while_open(tmp_path: Path) -> None:
    stores = stores_of(url_of(tmp_path))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the stores are not open"):
            await stores.states.load("ann", "chat")
        async with stores.open():
            loaded = await stores.states.load("ann", "chat") or {"n": 0}
            await stores.states.save("ann", "chat", {"n": loaded["n"] + 1})
    async with stores.open():
        assert await stores.states.load("ann", "chat") == {"n": 2}


async def test_what_was_deleted_long_ago_is_forgotten(tmp_path: Path) -> None:
    async with open_stores(url_of(tmp_path)) as stores:
        for name in ("long ago", "lately"):
            await stores.states.save("ann", name, {})
            await stores.states.delete("ann", name)
        await stores.sessions.append("ann", "long ago", [Message(content="x")], run_id="run", token=2)
    with sqlite3.connect(tmp_path / "states.db") as connection:
        connection.execute(
            "UPDATE records SET changed = changed - ? WHERE session_id = 'long ago'", (FORGET_AFTER + 1,)
        )
    connection.close()
    async with open_stores(url_of(tmp_path)) as stores:
        assert len(await stores.sessions.history("ann", "long ago")) == 1
    connection = sqlite3.connect(tmp_path / "states.db")
    assert connection.execute("SELECT shelf, session_id FROM records ORDER BY 1").fetchall() == [
        ("session", "long ago"),
        ("state", "lately"),
    ]
    connection.close()


async def test_a_file_that_stays_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.1)
    async with open_stores(url_of(tmp_path)) as stores:
        await stores.states.save("ann", "chat", {"n": 1})
        other = sqlite3.connect(tmp_path / "states.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable, match=r"The state could not be kept\."):
            await stores.states.save("ann", "chat", {"n": 2})
        assert "database is locked" in caplog.text
        # Nobody waits to read.
        assert await stores.states.load("ann", "chat") == {"n": 1}
        other.execute("ROLLBACK")
        other.close()
        await stores.states.save("ann", "chat", {"n": 3})
        assert await stores.states.load("ann", "chat") == {"n": 3}


async def test_a_process_that_closes_the_file_leaves_it_to_the_others(tmp_path: Path) -> None:
    """What is saved after it is in the file, and no log of a file that is in use is removed."""
    command = [sys.executable, "-W", "error", str(HERE / "saver.py"), url_of(tmp_path), "two", "other", "1"]
    async with open_stores(url_of(tmp_path)) as stores:
        await stores.states.save("ann", "chat", {"n": 1})
        await trio.run_process(command, stdout=subprocess.DEVNULL)
        assert len(os.listdir(tmp_path)) == 3
        await stores.states.save("ann", "chat", {"n": 2})
        with sqlite3.connect(tmp_path / "states.db") as connection:
            rows = connection.execute("SELECT value FROM records WHERE user_id = 'ann'").fetchall()
        connection.close()
        assert rows == [(b'{"n":2}',)]


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    stores = stores_of(url_of(tmp_path))
    async with stores.open():
        await stores.states.save("ann", "chat", {"n": 1})
        database = stores.states._shelf._database  # type: ignore[attr-defined]
        await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 20"))
        with pytest.raises(BackendUnavailable):
            await stores.states.save("ann", "chat", {"text": "x" * 1_000_000})
        assert await stores.states.load("ann", "chat") == {"n": 1}
        await stores.states.save("ann", "chat", {"n": 2})
        assert await stores.states.load("ann", "chat") == {"n": 2}


async def test_a_write_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    stores = stores_of(url_of(tmp_path))
    async with stores.open():
        await stores.states.save("ann", "chat", {"n": 1})

        def fail(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM records")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await stores.states._shelf._database.write(fail)  # type: ignore[attr-defined]
        assert await stores.states.load("ann", "chat") == {"n": 1}


async def test_two_processes_on_one_file(tmp_path: Path) -> None:
    """Both make the file, save in sessions of their own, and vie for one; nothing is lost or mixed."""
    command = [sys.executable, "-W", "error", str(HERE / "saver.py"), url_of(tmp_path), "two"]
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for name in ("one", "two"):
                nursery.start_soon(
                    partial(
                        trio.run_process,
                        [*command, name, "60"],
                        stdout=subprocess.DEVNULL,
                        env={**os.environ, "SHARED_SESSION": "shared"},
                    )
                )
    async with open_stores(url_of(tmp_path)) as stores:
        for name in ("one", "two"):
            for number in range(SESSIONS):
                state = await stores.states.load(name, f"{number}")
                assert is_whole(state)
                assert state["n"] == 60 - SESSIONS + number
        shared = await stores.states.load("all", "shared")
        assert is_whole(shared)
        assert shared["n"] == 59
        history = [message.text for message in await stores.sessions.history("all", "shared")]
        for name in ("one", "two"):
            assert [text for text in history if text.startswith(name)] == [
                f"{name} {number} {place}" for number in range(60) for place in "ab"
            ]
        assert all(history[at][:-1] == history[at + 1][:-1] for at in range(0, len(history), 2))
