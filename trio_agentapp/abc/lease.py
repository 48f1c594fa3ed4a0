"""The right of a node to run one run of a session, and the records of the run that follow from it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

import attrs

from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Ending, RunRecord, RunState

__all__ = ["Lease", "Place"]


class Place(StrEnum):
    """Where in the queue a run waits if its session is busy."""

    LAST = "last"
    """At the end of the queue."""
    FIRST = "first"
    """Before all runs with the place LAST, after earlier runs with the place FIRST."""


@attrs.frozen(kw_only=True)
class Lease:
    """The right of one node to run one run of a session, from its claim to its finish.

    Attributes:
        nonce: identifies one claim. It is the same when a claim is repeated because its answer was lost.
        token: the fencing token; 0 until the claim was answered.
        place: where the run waits if the session is busy; None: it does not wait. Each further claim keeps the
            place.
        fallback_events: the last events of the run (JSON) by cause, with the terminal event at the end. A backend
            that ends the run without its owner appends them to the run's events, and sets the number and the time
            (`completed_at`, which is 0) of the terminal event. Empty if the backend's server keeps no events.
    """

    key: SessionKey
    run_id: str
    node_id: str
    nonce: str
    token: int = 0
    place: Place | None = None
    fallback_events: Mapping[Cause, Sequence[bytes]] = attrs.field(default=MappingProxyType({}), hash=False)

    @property
    def opening(self) -> Sequence[bytes]:
        """The first events of a run that ends in the queue.

        It cannot write them itself, as it never owned the session.
        """
        return self.fallback_events.get(Cause.STOPPED_BEFORE_START, [])[:-1]

    def is_claim_of(self, owner: Lease) -> bool:
        """Whether the claim of this lease is the one that owns the session as `owner`.

        Without a token the answer to the claim was lost; then node and nonce identify it.
        """
        if self.token:
            return (self.run_id, self.token) == (owner.run_id, owner.token)
        return (self.run_id, self.node_id, self.nonce) == (owner.run_id, owner.node_id, owner.nonce)

    def with_token(self, token: int) -> Lease:
        """Return this lease with its token.

        It is ten times as fast as `attrs.evolve`, and called once or twice for each run.
        """
        return Lease(
            key=self.key,
            run_id=self.run_id,
            node_id=self.node_id,
            nonce=self.nonce,
            token=token,
            place=self.place,
            fallback_events=self.fallback_events,
        )

    def record_of_start(self, token: int) -> RunRecord:
        """Return the record of the run when it is granted its session."""
        return RunRecord(
            run_id=self.run_id,
            key=self.key,
            state=RunState.RUNNING,
            token=token,
            node_id=self.node_id,
            started_at=time.time(),
        )

    def record_of_end(self, ending: Ending, live: RunRecord | None = None) -> RunRecord:
        """Return the record of the run when it has ended. `live` is its record before; None: it never started."""
        return RunRecord(
            run_id=self.run_id,
            key=self.key,
            state=ending.state,
            reason=ending.cause.value,
            token=live.token if live is not None else self.token,
            node_id=self.node_id,
            started_at=live.started_at if live is not None else None,
            ended_at=time.time(),
            stop_requested=ending.stop_requested or (live is not None and live.stop_requested),
            cleanup=ending.cleanup,
            cleanup_interrupted=ending.cleanup_interrupted,
        )
