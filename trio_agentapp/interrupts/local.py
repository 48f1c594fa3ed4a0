"""The interrupt backend of one process: the shortest that holds the contract.

No lease expires here, since an owner cannot die without its backend. Records are trimmed as they are passed by, so
nothing grows with the number of sessions ever seen.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import attrs
import trio

from ..abc import (
    BaseInterruptBackend,
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
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Ending, RunRecord, RunState, SessionStatus

__all__ = ["LocalInterruptBackend"]

RETENTION = 600.0
"""Seconds a run record is kept after its end (INTERRUPT-PROTOCOL, section 2)."""

SESSION_TTL = 3600.0

TOMBSTONE_TTL = 60.0

MAX_TOMBSTONES = 16
"""Per session; the oldest gives way."""

MAX_LONE_TOMBSTONES = 4096
"""Stops by a run id alone whose session is not known."""

MAX_RECORDS = 100_000
"""Ended runs and idle sessions each; past it the oldest are forgotten before their time."""


@attrs.define
class _Session:
    lease: Lease | None = None
    state: RunState = RunState.IDLE
    run_id: str | None = None
    node_id: str | None = None
    stop_requested: bool = False
    touched: float = 0.0
    touched_unix: float = 0.0
    tombstones: OrderedDict[str, float] = attrs.field(factory=OrderedDict)


class LocalInterruptBackend(BaseInterruptBackend):
    """Leases and stops inside this process; several nodes need a Redis."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[SessionKey, _Session] = OrderedDict()
        self._live: dict[str, RunRecord] = {}
        self._ended: OrderedDict[str, tuple[float, RunRecord]] = OrderedDict()
        # By run id and user: what one user asks for does not replace what another did.
        self._lone_tombstones: OrderedDict[tuple[str, str | None], float] = OrderedDict()
        self._listeners: dict[str, Callable[[Signal], None]] = {}
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
            record = _record_of(lease, Ending(cause=Cause.STOPPED_BEFORE_START, stop_requested=True))
            self._keep(record)
            return Ended(record.state, record.reason)
        held = session.lease
        if held is not None:
            if (held.run_id, held.node_id, held.nonce) == (lease.run_id, lease.node_id, lease.nonce):
                return Granted(held.token)
            return Busy(held.run_id, 1.0)
        # Never smaller than the clock, so that tokens grow also across forgotten sessions and restarts.
        self._last_token = max(self._last_token + 1, time.time_ns() // 1000)
        session.lease = attrs.evolve(lease, token=self._last_token)
        session.state, session.run_id, session.node_id = RunState.RUNNING, lease.run_id, lease.node_id
        session.stop_requested = False
        self._live[lease.run_id] = RunRecord(
            run_id=lease.run_id,
            key=lease.key,
            state=RunState.RUNNING,
            token=self._last_token,
            node_id=lease.node_id,
            started_at=time.time(),
        )
        return Granted(self._last_token)

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        await trio.lowlevel.checkpoint()
        return [self._renewal(lease) for lease in leases]

    def _renewal(self, lease: Lease) -> Renewal:
        session = self._sessions.get(lease.key)
        if session is None or session.lease is None or not _same_claim(session.lease, lease):
            return Renewal.LOST
        return Renewal.STOP if session.stop_requested else Renewal.OK

    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        await trio.lowlevel.checkpoint()
        self._trim()
        if run_id is None:
            if key is None:
                raise ValueError("a stop names a session, a run, or both")
            return self._stop_session(key)
        record = self._record(run_id)
        if record is None:
            return self._leave_tombstone(key, run_id, user_id)
        if (key is not None and record.key != key) or user_id not in (None, record.key.user_id):
            # Another's run: the answer is that for an unknown one, and nothing is stored.
            return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
        if record.state.terminal:
            return StopAnswer(outcome=StopOutcome.ENDED, run_id=run_id, state=record.state, node_id=record.node_id)
        return self._stop_session(record.key)

    def _stop_session(self, key: SessionKey) -> StopAnswer:
        session = self._sessions.get(key)
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
            tombstones = self._session(key).tombstones
            tombstones[run_id] = expiry
            tombstones.move_to_end(run_id)
            while len(tombstones) > MAX_TOMBSTONES:
                tombstones.popitem(last=False)
        else:
            self._lone_tombstones[run_id, user_id] = expiry
            self._lone_tombstones.move_to_end((run_id, user_id))
            while len(self._lone_tombstones) > MAX_LONE_TOMBSTONES:
                self._lone_tombstones.popitem(last=False)
        return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)

    def _take_tombstone(self, session: _Session, lease: Lease) -> bool:
        now = trio.current_time()
        if session.tombstones.pop(lease.run_id, 0.0) > now:
            return True
        names = [(lease.run_id, user_id) for user_id in (None, lease.key.user_id)]
        return any([self._lone_tombstones.pop(name, 0.0) > now for name in names])  # noqa: C419  both are taken

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        await trio.lowlevel.checkpoint()
        self._trim()
        record = self._record(lease.run_id)
        if record is not None and record.key != lease.key:
            # A claim that another session's run of the same id had refused: there is nothing to end.
            return _record_of(lease, ending)
        session = self._sessions.get(lease.key)
        owned = session is not None and session.lease is not None and _same_claim(session.lease, lease)
        if record is not None and not record.state.terminal and not owned:
            # The live run of this id belongs to another claim: ending its record would leave it without an owner.
            return record
        if record is None or not record.state.terminal:
            record = _record_of(lease, ending, live=record)
            self._keep(record)
        if session is not None and owned:
            session.lease = None
            session.state = record.state
            session.stop_requested = False
            self._touch(lease.key, session)
        return record

    async def run_status(self, run_id: str) -> RunRecord | None:
        await trio.lowlevel.checkpoint()
        self._trim()
        return self._record(run_id)

    async def status(self, key: SessionKey) -> SessionStatus:
        await trio.lowlevel.checkpoint()
        self._trim()
        session = self._sessions.get(key)
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
        live = self._live.get(run_id)
        if live is not None:
            return live
        return self._ended[run_id][1] if run_id in self._ended else None

    def _keep(self, record: RunRecord) -> None:
        self._live.pop(record.run_id, None)
        self._ended[record.run_id] = (trio.current_time() + RETENTION, record)

    def _session(self, key: SessionKey) -> _Session:
        session = self._sessions.setdefault(key, _Session())
        self._touch(key, session)
        return session

    def _touch(self, key: SessionKey, session: _Session) -> None:
        session.touched, session.touched_unix = trio.current_time(), time.time()
        self._sessions.move_to_end(key)

    def _trim(self) -> None:
        """Forget what is over: the oldest stand first. A session that is owned goes to the end instead."""
        now = trio.current_time()
        while self._ended:
            run_id, (expiry, _) = next(iter(self._ended.items()))
            if expiry > now and len(self._ended) <= MAX_RECORDS:
                break
            del self._ended[run_id]
        while self._sessions:
            key, session = next(iter(self._sessions.items()))
            if session.touched + SESSION_TTL > now and len(self._sessions) <= MAX_RECORDS:
                break
            if session.lease is not None:
                self._touch(key, session)
                break
            del self._sessions[key]


def _same_claim(held: Lease, lease: Lease) -> bool:
    if held.run_id != lease.run_id:
        return False
    if lease.token:
        return held.token == lease.token
    return (held.node_id, held.nonce) == (lease.node_id, lease.nonce)


def _record_of(lease: Lease, ending: Ending, *, live: RunRecord | None = None) -> RunRecord:
    return RunRecord(
        run_id=lease.run_id,
        key=lease.key,
        state=ending.state,
        reason=ending.cause.value,
        token=live.token if live is not None else lease.token,
        node_id=lease.node_id,
        started_at=live.started_at if live is not None else None,
        ended_at=time.time(),
        stop_requested=ending.stop_requested or (live is not None and live.stop_requested),
        cleanup=ending.cleanup,
        cleanup_interrupted=ending.cleanup_interrupted,
    )
