"""A backend as a user would write one, from nothing but the contract: over SQLite, for processes of one machine.

Not Redis and not ours, so that the contract is known to be enough: the same questions, and an app on top.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_agentapp import AgentApp, BaseInterruptBackend, Timings
from trio_agentapp.abc import (
    Busy,
    Claim,
    Ended,
    Granted,
    Lease,
    Renewal,
    Signal,
    StopAnswer,
    StopOutcome,
    StopSignal,
    Taken,
)
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.lifecycle import CleanupResult, Ending, RunRecord, RunState, SessionStatus
from trio_agentapp.testing import Question, ask, interrupt_questions

TABLES = """
create table if not exists runs (id text primary key, user text, session text, state text, reason text, token int,
    node text, nonce text, expires real, started real, ended real, stop int default 0, cleanup text default 'none',
    cut int default 0);
create table if not exists stops (run text, user text, session text, until real);
create index if not exists by_session on runs (user, session);
"""
LIVE = "select * from runs where user = ? and session = ? and state = 'RUNNING'"
LAST = "select * from runs where user = ? and session = ? and token > 0 order by token desc limit 1"


class SqliteBackend(BaseInterruptBackend):
    """Every operation is one transaction in a thread. Stops are found by looking, five times a second."""

    def __init__(self, path: Path, timings: Timings) -> None:
        self.timings = timings
        self._path = path
        with self._connection() as db:
            db.executescript(TABLES)
        db.close()

    def _connection(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        db.row_factory = sqlite3.Row
        return db

    async def _do(self, work: Callable, *args, **options):
        def in_a_thread():
            db = self._connection()
            try:
                db.execute("begin immediate")
                result = work(db, *args, **options)
                db.execute("commit")
                return result
            finally:
                db.close()

        return await trio.to_thread.run_sync(in_a_thread)

    async def claim(self, lease: Lease) -> Claim:
        return await self._do(self._claim, lease)

    def _claim(self, db: sqlite3.Connection, lease: Lease) -> Claim:
        now, key = time.time(), (lease.key.user_id, lease.key.session_id)
        self._reap(db)
        known = _find(db, lease.run_id)
        if known is not None and (known["user"], known["session"]) != key:
            return Taken()
        if known is not None and known["state"] != "RUNNING":
            return Ended(RunState(known["state"]), known["reason"])
        stopped = db.execute(
            "delete from stops where run = ? and coalesce(user, ?) = ? and coalesce(session, ?) = ? and until > ? "
            "returning run",
            (lease.run_id, key[0], key[0], key[1], key[1], now),
        ).fetchall()
        if stopped:
            self._insert(db, lease, "STOPPED", "stopped_before_start", 0, now, stop=1)
            return Ended(RunState.STOPPED, "stopped_before_start")
        live = db.execute(LIVE, key).fetchone()
        if live is not None and (live["id"], live["node"], live["nonce"]) == (
            lease.run_id,
            lease.node_id,
            lease.nonce,
        ):
            db.execute("update runs set expires = ? where id = ?", (now + self.timings.lease, lease.run_id))
            return Granted(live["token"])
        if live is not None:
            return Busy(live["id"], max(1.0, live["expires"] - now))
        last = db.execute(LAST, key).fetchone()
        token = max(time.time_ns() // 1000, last["token"] + 1 if last is not None else 0)
        self._insert(db, lease, "RUNNING", None, token, None)
        return Granted(token)

    def _insert(self, db, lease: Lease, state: str, reason, token: int, ended, *, stop: int = 0) -> None:
        now = time.time()
        values = (lease.run_id, lease.key.user_id, lease.key.session_id, state, reason, token, lease.node_id)
        values += (lease.nonce, now + self.timings.lease, now, ended, stop, "none", 0)
        db.execute(f"insert into runs values ({','.join('?' * len(values))})", values)

    def _reap(self, db: sqlite3.Connection) -> None:
        now = time.time()
        db.execute(
            "update runs set state = 'ERROR', reason = 'owner_lost', ended = ? "
            "where state = 'RUNNING' and expires <= ?",
            (now, now),
        )

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        return await self._do(self._heartbeat, leases)

    def _heartbeat(self, db: sqlite3.Connection, leases: Sequence[Lease]) -> Sequence[Renewal]:
        answers = []
        for lease in leases:
            row = db.execute(
                "update runs set expires = ? where id = ? and user = ? and session = ? and token = ? "
                "and state = 'RUNNING' returning stop",
                (time.time() + self.timings.lease, lease.run_id, *_key(lease.key), lease.token),
            ).fetchone()
            answers.append(Renewal.LOST if row is None else Renewal.STOP if row["stop"] else Renewal.OK)
        return answers

    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        if key is None and run_id is None:
            raise ValueError("a stop names a session, a run, or both")
        return await self._do(self._stop, key, run_id, user_id)

    def _stop(self, db, key: SessionKey | None, run_id: str | None, user_id: str | None) -> StopAnswer:
        self._reap(db)
        if run_id is None:
            row = db.execute(LIVE, _key(key)).fetchone()
            if row is None:
                last = db.execute(LAST, _key(key)).fetchone()
                state = RunState.IDLE if last is None else RunState(last["state"])
                return StopAnswer(outcome=StopOutcome.NOT_RUNNING, state=state)
        else:
            row = _find(db, run_id)
            if row is None:
                user, session = (user_id, None) if key is None else _key(key)
                until = time.time() + self.timings.tombstone
                db.execute("insert into stops values (?, ?, ?, ?)", (run_id, user, session, until))
            foreign = row is None or (key is not None and _key(key) != (row["user"], row["session"]))
            if foreign or user_id not in (None, row["user"]):
                return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
        if row["state"] != "RUNNING":
            outcome = StopOutcome.ENDED
        else:
            outcome = StopOutcome.ACCEPTED
            db.execute("update runs set stop = 1 where id = ?", (row["id"],))
        return StopAnswer(outcome=outcome, run_id=row["id"], state=RunState(row["state"]), node_id=row["node"])

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        return await self._do(self._finish, lease, ending)

    def _finish(self, db: sqlite3.Connection, lease: Lease, ending: Ending) -> RunRecord:
        row, now = _find(db, lease.run_id), time.time()
        if row is None:
            self._insert(db, lease, ending.state, ending.cause, lease.token, now)
            row = _find(db, lease.run_id)
        elif (row["user"], row["session"]) != _key(lease.key):
            return RunRecord(run_id=lease.run_id, key=lease.key, state=ending.state, reason=ending.cause)
        mine = row["token"] == lease.token if lease.token else (row["node"], row["nonce"]) == (
            lease.node_id, lease.nonce)  # fmt: skip
        if mine:
            db.execute(
                "update runs set state = ?, reason = ?, ended = ?, stop = max(stop, ?), cleanup = ?, cut = ? "
                "where id = ? and state = 'RUNNING'",
                (ending.state, ending.cause, now, ending.stop_requested, ending.cleanup,
                 ending.cleanup_interrupted, lease.run_id),
            )  # fmt: skip
        return _record(_find(db, lease.run_id))

    async def run_status(self, run_id: str) -> RunRecord | None:
        def look(db: sqlite3.Connection) -> RunRecord | None:
            self._reap(db)
            row = _find(db, run_id)
            return None if row is None else _record(row)

        return await self._do(look)

    async def status(self, key: SessionKey) -> SessionStatus:
        def look(db: sqlite3.Connection) -> SessionStatus:
            self._reap(db)
            row = db.execute(LAST, _key(key)).fetchone()
            if row is None:
                return SessionStatus()
            return SessionStatus(
                state=RunState(row["state"]),
                run_id=row["id"],
                node_id=row["node"],
                last_activity=row["ended"] or row["started"],
            )

        return await self._do(look)

    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        def stopped(db: sqlite3.Connection) -> list[sqlite3.Row]:
            return db.execute(
                "select id, token from runs where node = ? and stop = 1 and state = 'RUNNING'", (node_id,)
            ).fetchall()

        task_status.started()
        while True:
            for row in await self._do(stopped):
                deliver(StopSignal(row["id"], row["token"]))
            await trio.sleep(0.2)


def _key(key: SessionKey) -> tuple[str, str]:
    return key.user_id, key.session_id


def _find(db: sqlite3.Connection, run_id: str) -> sqlite3.Row | None:
    return db.execute("select * from runs where id = ?", (run_id,)).fetchone()


def _record(row: sqlite3.Row) -> RunRecord:
    return RunRecord(
        run_id=row["id"],
        key=SessionKey(row["user"], row["session"]),
        state=RunState(row["state"]),
        reason=row["reason"],
        token=row["token"],
        node_id=row["node"],
        started_at=row["started"],
        ended_at=row["ended"],
        stop_requested=bool(row["stop"]),
        cleanup=CleanupResult(row["cleanup"]),
        cleanup_interrupted=bool(row["cut"]),
    )


@pytest.mark.parametrize("question", interrupt_questions(), ids=lambda question: question.__name__)
async def test_it_answers(question: Question, tmp_path: Path) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[SqliteBackend]:
        yield SqliteBackend(tmp_path / "leases", Timings())

    await ask(make, question)


async def test_two_apps_share_it(tmp_path: Path) -> None:
    """A chat on one is stopped from the other, through the file alone."""
    make = partial(SqliteBackend, tmp_path / "leases", Timings())

    async def chat():
        while True:
            yield "word "
            await trio.sleep(0.01)

    here, there = (AgentApp(agent=chat, interrupt_backend=make()) for _ in range(2))
    async with here.runtime(), there.runtime():
        request = {"input": "Hi", "user_id": "u1", "session_id": "s1"}
        async with here.stream_query(request) as events:
            async for event in events:
                if event.object == "content":
                    break
            receipt = await there.stop_chat("u1", "s1", wait=True)
            assert (receipt.accepted, receipt.stopped, receipt.state) == (True, True, RunState.STOPPED)
            async for event in events:
                last = event
        assert last.status == "canceled"


async def test_a_dead_owner_frees_its_session(tmp_path: Path) -> None:
    timings = Timings(lease=0.3, heartbeat=0.05, cutoff=0.15, offline_cleanup=0.05, margin=0.05, call_timeout=0.05)
    backend = SqliteBackend(tmp_path / "leases", timings)
    key = SessionKey("u1", "s1")
    lease = Lease(key=key, run_id="run-00001", node_id="dead", nonce="n")
    assert isinstance(await backend.claim(lease), Granted)
    with trio.fail_after(5):
        while (await backend.status(key)).state is RunState.RUNNING:
            await trio.sleep(0.01)
    record = await backend.run_status("run-00001")
    assert record is not None
    assert (record.state, record.reason) == (RunState.ERROR, "owner_lost")
