"""The minimal contract in one short class: an interrupt backend over dicts, for one process.

It forgets nothing, so it is an example and not for use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import attrs
import trio

from trio_agentapp.abc import (
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
from trio_agentapp.protocol import Cause, Ending, RunRecord, SessionKey, SessionStatus


class ToyBackend(BaseInterruptBackend):
    def __init__(self) -> None:
        self.runs: dict[str, RunRecord] = {}
        self.owners: dict[SessionKey, Lease] = {}
        self.last: dict[SessionKey, str] = {}
        self.tombstones: set[tuple[str, SessionKey | str | None]] = set()
        self.nodes: dict[str, Callable[[Signal], None]] = {}

    async def claim(self, lease: Lease) -> Claim:
        run, owner = self.runs.get(lease.run_id), self.owners.get(lease.key)
        if run is not None and run.key != lease.key:
            return Taken()
        if run is None and self.tombstones & {(lease.run_id, who) for who in (lease.key, lease.key.user_id, None)}:
            ending = Ending(cause=Cause.STOPPED_BEFORE_START, stop_requested=True)
            run = self.runs[lease.run_id] = lease.record_of_end(ending)
        if run is not None and run.state.terminal:
            return Ended(run.state, run.reason)
        if owner is not None:
            return Granted(owner.token) if lease.is_claim_of(owner) else Busy(owner.run_id, 1.0)
        token = time.time_ns()
        self.owners[lease.key], self.last[lease.key] = attrs.evolve(lease, token=token), lease.run_id
        self.runs[lease.run_id] = lease.record_of_start(token)
        return Granted(token)

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        return [self._renewal(lease) for lease in leases]

    def _renewal(self, lease: Lease) -> Renewal:
        owner = self.owners.get(lease.key)
        if owner is None or not lease.is_claim_of(owner):
            return Renewal.LOST
        return Renewal.STOP if self.runs[lease.run_id].stop_requested else Renewal.OK

    async def request_stop(
        self, key: SessionKey | None, run_id: str | None = None, *, user_id: str | None = None
    ) -> StopAnswer:
        if run_id is None:
            if key is None:
                raise ValueError("a stop needs a session, a run id, or both")
            if key not in self.owners:
                return StopAnswer(outcome=StopOutcome.NOT_RUNNING, state=(await self.status(key)).state)
            run_id = self.owners[key].run_id
        run = self.runs.get(run_id)
        if run is None:
            self.tombstones.add((run_id, key or user_id))
        if run is None or key not in (None, run.key) or user_id not in (None, run.key.user_id):
            return StopAnswer(outcome=StopOutcome.PENDING, run_id=run_id)
        outcome = StopOutcome.ENDED
        if not run.state.terminal:
            outcome = StopOutcome.ACCEPTED
            self.runs[run_id] = attrs.evolve(run, stop_requested=True)
            if run.node_id in self.nodes:
                self.nodes[run.node_id](StopSignal(run_id, run.token))
        return StopAnswer(outcome=outcome, run_id=run_id, state=run.state, node_id=run.node_id)

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        run, owner = self.runs.get(lease.run_id), self.owners.get(lease.key)
        if owner is not None and lease.is_claim_of(owner):
            del self.owners[lease.key]
        elif run is not None:
            return run
        if run is None or not run.state.terminal:
            run = self.runs[lease.run_id] = lease.record_of_end(ending, run)
        return run

    async def run_status(self, run_id: str) -> RunRecord | None:
        return self.runs.get(run_id)

    async def status(self, key: SessionKey) -> SessionStatus:
        run = self.runs.get(self.last.get(key, ""))
        if run is None:
            return SessionStatus()
        return SessionStatus(state=run.state, run_id=run.run_id, node_id=run.node_id)

    async def listen(
        self,
        node_id: str,
        deliver: Callable[[Signal], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.nodes[node_id] = deliver
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            del self.nodes[node_id]
