"""States and histories in one SQLite file, for the processes of one machine.

A write is one transaction in write-ahead-log mode: if the process is killed, the old version or the new one is
there. With `synchronous=FULL` each write waits for the disk, so it also survives a power cut. With NORMAL the file
would stay consistent, but the last turns, which clients have seen, could be lost. FULL costs some milliseconds in a
thread for each save, and a handler saves once or twice a turn.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias, TypeVar

import trio

from ..errors import BackendUnavailable, ConfigurationError
from ..protocol.ids import SessionKey
from .record import Record
from .shelf import FORGET_AFTER, Shelf
from .turns import Turn, surplus

__all__ = ["Database"]

logger = logging.getLogger("trio_agentapp.stores")

T = TypeVar("T")

Side: TypeAlias = tuple[sqlite3.Connection, trio.CapacityLimiter]
"""A connection, and the limiter by which one thread at a time uses it."""

BUSY_TIMEOUT = 5.0
"""Seconds that a write waits for writes of other processes, which take milliseconds."""

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE records (
    shelf TEXT NOT NULL, user_id TEXT NOT NULL, session_id TEXT NOT NULL,
    value BLOB, before BLOB, writer INTEGER, fence INTEGER NOT NULL, changed REAL NOT NULL,
    PRIMARY KEY (shelf, user_id, session_id)
);
CREATE INDEX deleted ON records (changed) WHERE value IS NULL;
CREATE TABLE turns (
    number INTEGER PRIMARY KEY, shelf TEXT NOT NULL, user_id TEXT NOT NULL, session_id TEXT NOT NULL,
    run_id TEXT NOT NULL, token INTEGER NOT NULL, count INTEGER NOT NULL, messages BLOB NOT NULL,
    UNIQUE (shelf, user_id, session_id, run_id)
);
"""

FORGET = """
DELETE FROM records WHERE value IS NULL AND changed < ? AND NOT EXISTS (
    SELECT 1 FROM turns AS t
    WHERE (t.shelf, t.user_id, t.session_id) = (records.shelf, records.user_id, records.session_id)
)
"""

FIND = """
SELECT value, before, writer, fence FROM records WHERE (shelf, user_id, session_id) = (?, ?, ?)
"""

KEEP = "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

ADD_TURN = """
INSERT INTO turns (shelf, user_id, session_id, run_id, token, count, messages) VALUES (?, ?, ?, ?, ?, ?, ?)
"""

FIND_TURNS = """
SELECT number, run_id, count, length(messages) FROM turns
WHERE (shelf, user_id, session_id) = (?, ?, ?) ORDER BY number
"""

READ_TURNS = """
SELECT messages FROM turns WHERE (shelf, user_id, session_id) = (?, ?, ?) ORDER BY number DESC LIMIT ?
"""

DROP_TURN = "DELETE FROM turns WHERE number = ?"

DROP_TURNS = "DELETE FROM turns WHERE (shelf, user_id, session_id) = (?, ?, ?)"

DROP_LAST_TURN = """
DELETE FROM turns WHERE token = ? AND number = (
    SELECT max(number) FROM turns WHERE (shelf, user_id, session_id) = (?, ?, ?)
)
"""


class Database:
    """One file.

    Reads do not wait for writes, because they have a connection of their own. One thread at a time uses each.

    Raises:
        ConfigurationError: the URL does not name a file.
    """

    def __init__(self, url: str) -> None:
        head, slashes, self._path = url.partition("sqlite:///")
        if head or not slashes or not self._path or self._path == ":memory:" or "?" in self._path:
            raise ConfigurationError(
                f"state_url must be sqlite:///file, or sqlite:////folder/file for an absolute path, not {url!r}; "
                "without it states are in memory"
            )
        self._writer: Side | None = None
        self._reader: Side | None = None

    def shelf(self, name: str) -> Shelf:
        return SQLiteShelf(self, name)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the file. Raises ConfigurationError: it cannot be opened, or is not a file of this package."""
        async with self._connected() as self._writer, self._connected() as self._reader:
            try:
                yield
            finally:
                self._writer = self._reader = None

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Side]:
        limiter = trio.CapacityLimiter(1)
        connection = await trio.to_thread.run_sync(self._connect, limiter=limiter)
        try:
            yield connection, limiter
        finally:
            # The limiter makes this wait for a thread that is still working. The last close moves the log into the
            # file.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(connection.close, limiter=limiter)

    def _connect(self) -> sqlite3.Connection:
        try:
            _make_private(self._path)
            connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"state_url: {self._path} cannot be opened: {error}") from error
        try:
            self._prepare(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise ConfigurationError(f"state_url: {self._path} cannot be used: {error}") from error
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        mode = _write_ahead(connection)
        if mode != "wal":
            raise ConfigurationError(
                f"state_url: {self._path} is on a file system without support for SQLite's write-ahead log ({mode})"
            )
        connection.execute("PRAGMA synchronous = FULL")
        with transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in filter(str.strip, SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise ConfigurationError(
                    f"state_url: {self._path} was written by another version of trio-agentapp (schema {version}); "
                    f"this version needs schema {SCHEMA_VERSION}"
                )
            connection.execute(FORGET, (time.time() - FORGET_AFTER,))

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Call `fn` in a transaction, in a thread."""

        def work(connection: sqlite3.Connection) -> T:
            with transaction(connection):
                return fn(connection)

        return await self._in_thread(self._writer, work, "kept")

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._in_thread(self._reader, fn, "read")

    async def _in_thread(
        self,
        side: Side | None,
        fn: Callable[[sqlite3.Connection], T],
        verb: str,
    ) -> T:
        if side is None:
            raise RuntimeError("the stores are not open; they are while the app runs")
        connection, limiter = side
        try:
            return await trio.to_thread.run_sync(fn, connection, limiter=limiter)
        except sqlite3.Error as error:
            logger.warning("SQLite, %s: %s", self._path, error)
            raise BackendUnavailable(f"The state could not be {verb}.", retry_after=1.0) from error


def _make_private(path: str) -> None:
    """Create the file, readable by its owner only, if there is none. SQLite gives its other files the same rights.

    The file must not be opened and closed here. Closing it would release all locks of this process on it, also
    those of SQLite's connections. Then another process that closes the file could believe that it is the last one,
    and remove the log to which this process still writes.
    """
    try:
        os.mknod(path, stat.S_IFREG | 0o600)
    except FileExistsError:
        if os.path.isdir(path):
            raise IsADirectoryError(f"{path} is a directory") from None


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Set the write-ahead-log mode of the file, permanently.

    While another process does so, SQLite refuses at once.
    """
    until = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Begin a transaction with the write lock.

    One that reads first would fail if another one writes before it does.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class SQLiteShelf(Shelf):
    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name

    async def read(self, key: SessionKey) -> bytes | None:
        return (await self._database.read(lambda connection: self._find(connection, key))).value

    async def write(self, key: SessionKey, value: bytes | None, token: int | None) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            record = self._find(connection, key)
            existed = record.value is not None
            record.write(value, token)
            if value is None:
                turns = connection.execute(DROP_TURNS, self._place(key))
                existed = existed or turns.rowcount > 0
            self._keep(connection, key, record)
            return existed

        return await self._database.write(work)

    async def undo(self, key: SessionKey, undone: int, token: int | None) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            record = self._find(connection, key)
            record.admit(token)
            did = record.undo(undone)
            turns = connection.execute(DROP_LAST_TURN, (undone, *self._place(key)))
            did = did or turns.rowcount > 0
            if did or token is not None:
                self._keep(connection, key, record)
            return did

        return await self._database.write(work)

    async def add(self, key: SessionKey, turn: Turn) -> None:
        def work(connection: sqlite3.Connection) -> None:
            known = connection.execute(FIND_TURNS, self._place(key)).fetchall()
            if any(run_id == turn.run_id for _, run_id, _, _ in known):
                return
            record = self._find(connection, key)
            record.admit(turn.token)
            connection.execute(ADD_TURN, (*self._place(key), turn.run_id, turn.token, turn.count, turn.messages))
            sizes = [(count, size) for _, _, count, size in known]
            dropped = surplus([*sizes, (turn.count, len(turn.messages))])
            connection.executemany(DROP_TURN, [row[:1] for row in known[:dropped]])
            self._keep(connection, key, record)

        await self._database.write(work)

    async def turns(self, key: SessionKey, limit: int | None) -> Sequence[bytes]:
        def work(connection: sqlite3.Connection) -> list[bytes]:
            rows = connection.execute(READ_TURNS, (*self._place(key), -1 if limit is None else limit))
            return [messages for (messages,) in rows][::-1]

        return await self._database.read(work)

    def _place(self, key: SessionKey) -> tuple[str, str, str]:
        return self._name, key.user_id, key.session_id

    def _find(self, connection: sqlite3.Connection, key: SessionKey) -> Record:
        row = connection.execute(FIND, self._place(key)).fetchone()
        return Record() if row is None else Record(*row)

    def _keep(self, connection: sqlite3.Connection, key: SessionKey, record: Record) -> None:
        values = (record.value, record.before, record.writer, record.fence, time.time())
        connection.execute(KEEP, (*self._place(key), *values))
