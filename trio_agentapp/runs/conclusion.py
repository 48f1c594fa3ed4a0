"""What is done about a run beside its body: undo before it, remember and conclude after it."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import attrs
import trio

from ..abc import BaseInterruptBackend, Lease
from ..protocol.codec import encode_event
from ..protocol.events import Event
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Ending, RunState
from .driver import Driven
from .ending import adopted, numbered_from
from .keeper import Keeper
from .run import Run, current_run

__all__ = ["Conclusion", "Remember", "Undo"]

logger = logging.getLogger("trio_agentapp.runs")

Remember = Callable[[Run], Awaitable[None]]
"""Called with a run whose handler and cleanup are through, before its end is written and its session is free."""

Undo = Callable[[SessionKey, int], Awaitable[None]]
"""Called with a session and the token of a run, before the body of the one that took its place."""

MEMORY_TIMEOUT = 5.0
"""Seconds that adding a run's messages to the history of its session may hold up the end of the run."""


@attrs.frozen(kw_only=True)
class Conclusion:
    backend: BaseInterruptBackend
    keeper: Keeper
    cleanup_budget: float
    remember: Remember | None
    undo: Undo | None

    async def undo_replaced(self, run: Run) -> Driven | None:
        """Undo what the runs that this one stopped have saved. None: done; otherwise the body must not begin."""
        if not run.undoes or self.undo is None:
            return None
        token = current_run.set(run)
        try:
            with trio.CancelScope(shield=True), trio.fail_after(self.cleanup_budget):
                for run_id in run.replaces:
                    record = await self.backend.run_status(run_id)
                    if record is not None and record.state is not RunState.FINISHED:
                        await self.undo(run.key, record.token)
        except Exception as exc:
            logger.exception("run %s: what the run before it saved could not be undone", run.run_id)
            return Driven(Ending(cause=Cause.EXCEPTION), exc, None)
        finally:
            current_run.reset(token)
        return None

    async def write(self, run: Run, lease: Lease, ending: Ending, last: Event | None) -> Ending:
        """Write the end of a run; the ending that holds: the first one written."""
        if lease.token:
            await self._remember(run)
        if run.cause is Cause.STOPPED_BEFORE_START:
            return ending  # whoever said so has written it down
        until = self.keeper.patience_for(run, ending)
        # A server that is full takes no events for longer than that, and yet the end of the run.
        with trio.move_on_at(min(until, self.keeper.give_up_at())):
            await run.sink.flush()
        run.sink.give_up()
        if lease.fallback_events and last is not None:
            [event] = numbered_from(run.log.end, [last])
            ending = attrs.evolve(ending, terminal_event=encode_event(event))
        record = await self.keeper.finish(lease, ending, until=until)
        if record is not None:
            return adopted(ending, record)
        if self.backend.timings is None:
            return ending
        # Its lease has ended meanwhile: whatever it was, others have seen it end as an error.
        return attrs.evolve(ending, cause=Cause.LEASE_LOST)

    async def _remember(self, run: Run) -> None:
        if self.remember is None:
            return
        with trio.move_on_after(MEMORY_TIMEOUT) as patience:
            try:
                await self.remember(run)
            except Exception:
                logger.exception("run %s: its messages could not be added to the session's history", run.run_id)
        if patience.cancelled_caught:
            logger.error("run %s: adding its messages to the session's history took too long", run.run_id)

    async def take_back(self, lease: Lease, nursery: trio.Nursery | None) -> None:
        """A claim whose answer is not known may have succeeded, or arrive yet: end its run before it begins.

        Tried once while the caller waits, and then on in `nursery` until its lease would have ended.
        """
        ending = Ending(cause=Cause.CLAIM_FAILED)
        with trio.CancelScope(shield=True):
            if await self.keeper.finish(lease, ending, until=-math.inf) is not None:
                return
        logger.warning("run %s: its claim failed, and the session could not be freed yet", lease.run_id)
        if nursery is not None and self.backend.timings is not None:
            nursery.start_soon(self._keep_taking_back, lease, ending, name=f"freeing the session of {lease.run_id}")

    async def _keep_taking_back(self, lease: Lease, ending: Ending) -> None:
        with trio.CancelScope(shield=True):
            await self.keeper.finish(lease, ending, until=self.keeper.give_up_at())
