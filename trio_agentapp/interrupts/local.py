"""The interrupt backend of one process.

Leases do not expire here: an owner cannot die without its backend. Each operation first removes old records, so
memory does not grow with the number of sessions ever used. Records of ended runs are kept as bytes, which the
garbage collector does not traverse: there may be 100,000.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from ..abc import (
    MAX_QUEUED,
    BaseInterruptBackend,
    Busy,
    Claim,
    Ended,
    Granted,
    IdempotencyKeys,
    Lease,
    Place,
    Queued,
    QueueIsFull,
    Renewal,
    RunListing,
    RunWakeups,
    Signal,
    StopAnswer,
    StopOutcome,
    StopSignal,
    Taken,
)
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Ending, RunRecord, RunState, SessionStatus
from .packed_records import RecordPacker, moment_of
from .tombstones import LoneTombstones, put_tombstone

__all__ = ["LocalInterruptBackend"]

RETENTION = 600.0
"""Seconds that a run's record is kept after its end."""

SESSION_TTL = 3600.0
"""Seconds that an idle session is remembered."""

TOMBSTONE_TTL = 60.0
"""Seconds that a tombstone is kept: the stop of a run that has not been claimed yet."""

MAX_TOMBSTONES = 16
"""Tombstones of one session. The oldest is dropped."""

MAX_PINS = 10_000
"""Idempotency keys. The oldest are dropped."""

PIN_TTL = 3600.0

MAX_RECORDS = 100_000
"""Ended runs, and sessions. The oldest are dropped."""


@attrs.define
class _Session:
    lease: Lease | None = None
    state: RunState = RunState.IDLE
    run_id: str | None = None
    node_id: str | None = None
    stop_requested: bool = False
    touched: float = 0.0
    touched_unix: float | None = None
    # None and empty tuples take no memory, and most of many thousand sessions have neither tombstones nor a queue.
    tombstones: OrderedDict[str, float] | None = None
    queue: tuple[tuple[Place, Lease], ...] = ()
    """Queued runs, the next one first.

    Their places do not expire, because the node cannot die without its backend.
    """
    wakers: tuple[Callable[[str], object], ...] = ()

    def has_place_of_another_node(self, lease: Lease) -> bool:
        return any(queued.run_id == lease.run_id and queued.node_id != lease.node_id for _, queued in self.queue)

    def leave_queue(self, run_id: str) -> None:
        self.queue = tuple(entry for entry in self.queue if entry[1].run_id != run_id)

    @property
    def unused(self) -> bool:
        return self.lease is None and not self.tombstones and not self.queue and not self.wakers

    def wake(self, run_id: str) -> None:
        for wake in self.wakers:
            wake(run_id)

    def leave_tombstone(self, run_id: str, expiry: float) -> None:
        if self.tombstones is None:
            self.tombstones = OrderedDict()
        put_tombstone(self.tombstones, run_id, expiry, MAX_TOMBSTONES)

    def take_tombstone(self, run_id: str) -> float:
        """Remove the tombstone of a run. Returns its expiry, 0 if there is none."""
        return 0.0 if self.tombstones is None else self.tombstones.pop(run_id, 0.0)


class LocalInterruptBackend(BaseInterruptBackend, RunListing, IdempotencyKeys, RunWakeups):
    """Leases and stops inside this process. Several nodes need `RedisInterruptBackend`."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[SessionKey, _Session] = OrderedDict()
        """Sessions that are in use, or whose last change was not the end of a run."""
        self._idle: OrderedDict[str, bytes] = OrderedDict()
        """All other sessions, by `_name`: the packed record of their last run, whose end was their last change."""
        self._packer = RecordPacker()
        self._live: dict[str, RunRecord] = {}
        self._ended: OrderedDict[str, bytes] = OrderedDict()
        self._lone_tombstones = LoneTombstones()
        self._listeners: dict[str, Callable[[Signal], None]] = {}
        self._started: dict[str, str | dict[str, None]] = {}
        """The known runs of each user, in the order of their start.

        A single run is kept as its id, as a dict takes 232 bytes.
        """
        self._pins: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._last_token = 0

    async def claim(self, lease: Lease) -> Claim:
        await trio.lowlevel.checkpoint()
        self._trim()
        record = self._record(lease.run_id)
        if record is not None and record.key != lease.key:
            return Taken()
        if record is not None and record.state.terminal:
            return Ended(record.state, record.reason)
        session = self._session(lease.key)
        if self._take_tombstone(session, lease):
            session.leave_queue(lease.run_id)
            record = lease.record_of_end(Ending(cause=Cause.STOPPED_BEFORE_START, stop_requested=True))
            self._keep(record)
            session.wake(lease.run_id)
            return Ended(record.state, record.reason)
        held = session.lease
        if held is not None and lease.is_claim_of(held):
            return Granted(held.token)
        refused = self._wait_in_line(session, lease, None if held is None else held.run_id)
        if refused is not None:
            return refused
        session.leave_queue(lease.run_id)
        # Tokens follow the clock, so they also grow after a restart, and when a session was forgotten.
        self._last_token = max(self._last_token + 1, time.time_ns() // 1000)
        session.lease = lease.with_token(self._last_token)
        session.state, session.run_id, session.node_id = RunState.RUNNING, lease.run_id, lease.node_id
        session.stop_requested = False
        self._live[lease.run_id] = lease.record_of_start(self._last_token)
        self._note_start(lease)
        return Granted(self._last_token)

    def _wait_in_line(self, session: _Session, lease: Lease, active: str | None) -> Claim | None:
        """Take or keep a place in the queue, and return the answer.

        None: the session is free, and this run is next.
        """
        waiting = [queued.run_id for _, queued in session.queue]
        before = active or (waiting[0] if waiting else lease.run_id)
        if session.has_place_of_another_node(lease):
            return Busy(lease.run_id, 1.0)
        if active is None and before == lease.run_id:
            return None
        if lease.place is None or before == lease.run_id:
            return Busy(before, 1.0)
        if lease.run_id not in waiting:
            if len(waiting) >= MAX_QUEUED:
                return QueueIsFull(before)
            # The sort is stable, so runs with the same place stay in the order of their arrival.
            queue = (*session.queue, (lease.place, lease))
            session.queue = tuple(sorted(queue, key=lambda entry: entry[0] is Place.LAST))
            waiting = [queued.run_id for _, queued in session.queue]
            if active is None and waiting[0] == lease.run_id:
                return None
            self._live[lease.run_id] = RunRecord(
                run_id=lease.run_id, key=lease.key, state=RunState.IDLE, node_id=lease.node_id
            )
        return Queued(active or waiting[0], waiting.index(lease.run_id))

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        await trio.lowlevel.checkpoint()
        return [self._renewal(lease) for lease in leases]

    def _renewal(self, lease: Lease) -> Renewal:
        session = self._sessions.get(lease.key)
        if session is None or session.lease is None or not lease.is_claim_of(session.lease):
            return Renewal.LOST
        return Renewal.STOP if session.stop_requested else Renewal.OK

    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        await trio.lowlevel.checkpoint()
        self._trim()
        if run_id is None:
            if key is None:
                raise ValueError("a stop needs a session, a run id, or both")
            return self._stop_session(key)
        record = self._record(run_id)
        if record is None:
            return self._leave_tombstone(key, run_id, user_id)
        if (key is not None and record.key != key) or user_id not in (None, record.key.user_id):
            # A run of another session or user: answer as for an unknown run, and store nothing.
            return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
        if record.state.terminal:
            return StopAnswer(outcome=StopOutcome.ENDED, run_id=run_id, state=record.state, node_id=record.node_id)
        if record.state is RunState.IDLE:
            return self._leave_tombstone(record.key, run_id, None)
        return self._stop_session(record.key)

    def _stop_session(self, key: SessionKey) -> StopAnswer:
        session = self._known(key)
        if session is None or session.lease is None:
            state = RunState.IDLE if session is None else session.state
            return StopAnswer(outcome=StopOutcome.NOT_RUNNING, state=state)
        lease = session.lease
        session.stop_requested = True
        self._live[lease.run_id] = attrs.evolve(self._live[lease.run_id], stop_requested=True)
        if (deliver := self._listeners.get(lease.node_id)) is not None:
            deliver(StopSignal(lease.run_id, lease.token))
        return StopAnswer(
            outcome=StopOutcome.ACCEPTED, run_id=lease.run_id, state=RunState.RUNNING, node_id=lease.node_id
        )

    def _leave_tombstone(self, key: SessionKey | None, run_id: str, user_id: str | None) -> StopAnswer:
        expiry = trio.current_time() + TOMBSTONE_TTL
        if key is not None:
            self._session(key).leave_tombstone(run_id, expiry)
        else:
            self._lone_tombstones.leave(user_id, run_id, expiry)
        return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)

    def _take_tombstone(self, session: _Session, lease: Lease) -> bool:
        now = trio.current_time()
        if session.take_tombstone(lease.run_id) > now:
            return True
        users = (None, lease.key.user_id)
        return any([self._lone_tombstones.take(user, lease.run_id) > now for user in users])  # noqa: C419  both are taken

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        await trio.lowlevel.checkpoint()
        self._trim()
        record = self._record(lease.run_id)
        if record is not None and record.key != lease.key:
            # The claim was refused, since the run id belongs to a run of another session. So no run ends here.
            return lease.record_of_end(ending)
        session = self._sessions.get(lease.key)
        owned = session is not None and session.lease is not None and lease.is_claim_of(session.lease)
        if record is not None and session is not None and session.has_place_of_another_node(lease):
            return record
        if session is not None:
            session.leave_queue(lease.run_id)
        if record is not None and record.state is RunState.RUNNING and not owned:
            # Another claim owns the live run with this id, and only that claim may end it.
            return record
        kept = None
        if record is None or not record.state.terminal:
            record = lease.record_of_end(ending, record)
            kept = self._keep(record)
        if session is not None and owned:
            session.lease = None
            session.state = record.state
            session.stop_requested = False
            self._touch(lease.key, session)
        if session is not None:
            session.wake(lease.run_id)
            if owned and kept is not None and session.unused:
                del self._sessions[lease.key]
                self._idle[_name(lease.key)] = kept
        return record

    @asynccontextmanager
    async def watching(self, key: SessionKey, wake: Callable[[str], object]) -> AsyncIterator[None]:
        session = self._session(key)
        session.wakers = (*session.wakers, wake)
        try:
            yield
        finally:
            place = session.wakers.index(wake)
            session.wakers = session.wakers[:place] + session.wakers[place + 1 :]

    async def list_runs(
        self, user_id: str, *, before: str | None = None, limit: int = 100
    ) -> tuple[Sequence[RunRecord], str | None]:
        await trio.lowlevel.checkpoint()
        self._trim()
        started = self._started.get(user_id, {})
        run_ids = [started] if isinstance(started, str) else list(reversed(started))
        if before is not None:
            run_ids = run_ids[run_ids.index(before) + 1 :] if before in run_ids else []
        records = [record for run_id in run_ids[:limit] if (record := self._record(run_id)) is not None]
        return records, run_ids[limit - 1] if len(run_ids) > limit else None

    async def pin(self, name: str, value: str) -> str:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        expiry, kept = self._pins.get(name, (0.0, value))
        if expiry > now:
            return kept
        self._pins[name] = (now + PIN_TTL, value)
        self._pins.move_to_end(name)
        while len(self._pins) > MAX_PINS or next(iter(self._pins.values()))[0] <= now:
            self._pins.popitem(last=False)
        return value

    async def unpin(self, name: str, value: str) -> None:
        await trio.lowlevel.checkpoint()
        if name in self._pins and self._pins[name][1] == value:
            del self._pins[name]

    async def run_status(self, run_id: str) -> RunRecord | None:
        await trio.lowlevel.checkpoint()
        self._trim()
        return self._record(run_id)

    async def status(self, key: SessionKey) -> SessionStatus:
        await trio.lowlevel.checkpoint()
        self._trim()
        session = self._known(key)
        if session is None or session.run_id is None:
            return SessionStatus()
        return SessionStatus(
            state=session.state,
            run_id=session.run_id,
            node_id=session.node_id,
            last_activity=session.touched_unix,
        )

    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._listeners[node_id] = deliver
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            if self._listeners.get(node_id) is deliver:
                del self._listeners[node_id]

    def _record(self, run_id: str) -> RunRecord | None:
        if (live := self._live.get(run_id)) is not None:
            return live
        packed = self._ended.get(run_id)
        return None if packed is None else self._packer.unpack(packed)

    def _keep(self, record: RunRecord) -> bytes:
        self._live.pop(record.run_id, None)
        packed = self._ended[record.run_id] = self._packer.pack(record)
        return packed

    def _known(self, key: SessionKey) -> _Session | None:
        """Return a session for reading; None if it is unknown. Changes of it may be lost."""
        session = self._sessions.get(key)
        if session is None and (packed := self._idle.get(_name(key))) is not None:
            session = self._idle_session(packed)
        return session

    def _session(self, key: SessionKey) -> _Session:
        """Return a session for reading and writing. An unknown one is created."""
        session = self._sessions.get(key)
        if session is None:
            packed = self._idle.pop(_name(key), None)
            session = self._sessions[key] = _Session() if packed is None else self._idle_session(packed)
        self._touch(key, session)
        return session

    def _idle_session(self, packed: bytes) -> _Session:
        """Return the session in the state after the end of its last run."""
        record = self._packer.unpack(packed)
        return _Session(
            state=record.state,
            run_id=record.run_id,
            node_id=record.node_id,
            touched=moment_of(packed),
            touched_unix=record.ended_at,
        )

    def _touch(self, key: SessionKey, session: _Session) -> None:
        session.touched, session.touched_unix = trio.current_time(), time.time()
        self._sessions.move_to_end(key)

    def _note_start(self, lease: Lease) -> None:
        started = self._started.setdefault(lease.key.user_id, lease.run_id)
        if isinstance(started, dict):
            started[lease.run_id] = None
        elif started != lease.run_id:
            self._started[lease.key.user_id] = {started: None, lease.run_id: None}

    def _forget_start(self, record: RunRecord) -> None:
        started = self._started.get(record.key.user_id)
        if isinstance(started, dict):
            started.pop(record.run_id, None)
        if not started or started == record.run_id:
            self._started.pop(record.key.user_id, None)

    def _trim(self) -> None:
        """Remove old records. The oldest come first. A session in use is not removed, but moved to the end."""
        now = trio.current_time()
        while self._ended:
            run_id, packed = next(iter(self._ended.items()))
            if moment_of(packed) + RETENTION > now and len(self._ended) <= MAX_RECORDS:
                break
            del self._ended[run_id]
            self._forget_start(self._packer.unpack(packed))
        while self._idle:
            name, packed = next(iter(self._idle.items()))
            if moment_of(packed) + SESSION_TTL > now and len(self._idle) <= MAX_RECORDS:
                break
            del self._idle[name]
        while self._sessions:
            key, session = next(iter(self._sessions.items()))
            if session.touched + SESSION_TTL > now and len(self._sessions) <= MAX_RECORDS:
                break
            if session.lease is not None or session.queue or session.wakers:
                self._touch(key, session)
                break
            del self._sessions[key]


def _name(key: SessionKey) -> str:
    """Return one string for user and session. The length makes ("a", "bc") and ("ab", "c") different."""
    return f"{len(key.user_id)}:{key.user_id}{key.session_id}"
