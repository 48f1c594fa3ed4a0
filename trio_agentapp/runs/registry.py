"""Starts runs, knows the live ones, owns the nursery they live in, and ends them all before it ends itself."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from ..abc import BaseInterruptBackend, Busy, Ended, Granted, Lease, Signal, StopSignal
from ..errors import BackendUnavailable, Draining, RequestError, SessionBusy, TooManyRuns, ValidationError
from ..protocol.ids import SessionKey, new_run_id
from ..protocol.lifecycle import Cause, Ending, Phase, RunState
from .cleanup import leaves
from .driver import drive
from .ending import adopted, error_message, terminal_events
from .handler import Handler
from .keeper import Keeper
from .run import Run
from .ticker import tick

__all__ = ["MAX_RUNS", "RegistryStatistics", "RunRegistry"]

logger = logging.getLogger("trio_agentapp.runs")

MAX_RUNS = 10_000
"""Open runs of one node; at about 45 KiB an idle chat this is half a gigabyte."""


@attrs.frozen
class RegistryStatistics:
    live: int
    stuck: tuple[str, ...]
    draining: bool


class RunRegistry:
    """The live runs of this node, by run id and by session.

    Args:
        backend: says which run may have a session, and carries stops.
        node_id: fresh for each process.
        cleanup_budget: seconds a run's cleanup may take.
        debug: show the text of a handler's exception to its client.
        max_runs: open runs at most.
    """

    def __init__(
        self,
        backend: BaseInterruptBackend,
        *,
        node_id: str,
        cleanup_budget: float = 30.0,
        debug: bool = False,
        max_runs: int = MAX_RUNS,
    ) -> None:
        self.node_id = node_id
        self.cleanup_budget = cleanup_budget
        self.draining = False
        self._backend = backend
        self._debug = debug
        self._max_runs = max_runs
        self._runs: dict[str, Run] = {}
        self._by_key: dict[SessionKey, list[Run]] = {}
        self._empty = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._keeper = Keeper(backend, self.live)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take runs inside this block. On leaving it every run is stopped, cleaned up and joined.

        What the block raises comes out as it is, unless something else failed beside it.
        """
        own: list[BaseException] = []
        try:
            async with self._opened(own):
                yield
        except BaseExceptionGroup as group:
            if [*leaves(group)] == own:
                raise own[0] from own[0].__cause__
            raise

    @asynccontextmanager
    async def _opened(self, raised: list[BaseException]) -> AsyncIterator[None]:
        async with trio.open_nursery() as services, trio.open_nursery() as runs:
            await services.start(self._backend.serve)
            await services.start(self._backend.listen, self.node_id, self._on_signal)
            services.start_soon(self._keeper.beat, name="lease keeper")
            services.start_soon(tick, self, name="run ticker")
            self._nursery = runs
            try:
                yield
            except BaseException as exc:
                raised.append(exc)
                raise
            finally:
                self.draining = True
                self._nursery = None
                self._keeper.close()
                self.stop_all(Cause.SHUTDOWN)
                # Runs are shielded: they end by their own scopes, within the cleanup budget, and are joined here.
                with trio.CancelScope(shield=True):
                    await self.wait_empty()
                services.cancel_scope.cancel(reason="the run registry is closed")

    def statistics(self) -> RegistryStatistics:
        stuck = tuple(run.run_id for run in self._runs.values() if run.stuck)
        return RegistryStatistics(len(self._runs), stuck, self.draining)

    def live(self) -> list[Run]:
        return list(self._runs.values())

    def find(self, run_id: str) -> Run | None:
        """The live run of this id on this node."""
        return self._runs.get(run_id)

    def find_by_key(self, key: SessionKey) -> Run | None:
        """The live run of this session on this node; one that owns it before one that is still claiming."""
        return max(self._by_key.get(key, ()), key=lambda run: run.state is RunState.RUNNING, default=None)

    async def start(self, run: Run, handler: Handler, offered: Mapping[str, object]) -> None:
        """Claim the session for `run` and start it. When this returns, the run will end with a terminal event.

        Cancelled before that, nothing was started and the session is free.

        Raises:
            Draining, TooManyRuns, SessionBusy, BackendUnavailable: nothing was started.
            ValidationError: the run id is taken.
        """
        if self._open_nursery() is None or self.draining:
            raise Draining
        if len(self._runs) >= self._max_runs:
            raise TooManyRuns("This node has as many open runs as it takes.", retry_after=1.0)
        if (known := self._runs.get(run.run_id)) is not None:
            if known.key == run.key:
                raise SessionBusy(known.run_id)
            raise ValidationError([("$.id", "this id is taken by another run")])
        lease = Lease(key=run.key, run_id=run.run_id, node_id=self.node_id, nonce=new_run_id())
        # Registered before the claim, so that a stop which arrives meanwhile finds its run.
        self._runs[run.run_id] = run
        self._by_key.setdefault(run.key, []).append(run)
        try:
            lease = await self._claim(run, lease)
        except BaseException:
            self._leave(run)
            raise
        # Closed meanwhile: the run is stopped before its body, by the same way as any other.
        nursery = self._open_nursery()
        if nursery is None:
            run.stop(Cause.SHUTDOWN)
            with trio.CancelScope(shield=True):
                await self._end(run, lease, Ending(cause=run.cause or Cause.SHUTDOWN))
            raise Draining
        nursery.start_soon(self._live, run, lease, handler, offered, name=f"run {run.run_id}")

    def _open_nursery(self) -> trio.Nursery | None:
        return self._nursery

    async def _claim(self, run: Run, lease: Lease) -> Lease:
        try:
            claim = await self._keeper.claim(run, lease)
        except BaseException as exc:
            await self._take_back(lease)
            if isinstance(exc, RequestError) or not isinstance(exc, Exception):
                raise
            logger.exception("the interrupt backend failed to claim")
            raise BackendUnavailable(
                "The session could not be claimed; nothing was started.", retry_after=1.0
            ) from exc
        match claim:
            case Granted(token):
                run.lease = attrs.evolve(lease, token=token)
                return run.lease
            case Busy(active, retry_after):
                raise SessionBusy(active, retry_after=retry_after)
            case Ended(RunState.STOPPED, Cause.STOPPED_BEFORE_START):
                run.stop(Cause.STOPPED)
                run.cause = Cause.STOPPED_BEFORE_START
                return lease
            case Ended():
                raise ValidationError([("$.id", "a run of this id has ended already")])
            case _:
                raise ValidationError([("$.id", "this id is taken by another run")])

    async def _take_back(self, lease: Lease) -> None:
        """A claim whose answer is not known may have succeeded, or arrive yet: end its run before it begins.

        Tried once while the caller waits, and then on until its lease would have ended.
        """
        ending = Ending(cause=Cause.CLAIM_FAILED)
        with trio.CancelScope(shield=True):
            if await self._keeper.finish(lease, ending, until=-math.inf) is not None:
                return
        logger.warning("run %s: its claim failed, and the session could not be freed yet", lease.run_id)
        if (nursery := self._open_nursery()) is not None and self._backend.timings is not None:
            nursery.start_soon(self._keep_taking_back, lease, ending, name=f"freeing the session of {lease.run_id}")

    async def _keep_taking_back(self, lease: Lease, ending: Ending) -> None:
        with trio.CancelScope(shield=True):
            await self._keeper.finish(lease, ending, until=self._keeper.give_up_at())

    async def _live(self, run: Run, lease: Lease, handler: Handler, offered: Mapping[str, object]) -> None:
        """The task of one run. Only what concerns the process leaves it: a failure here is one run's own."""
        try:
            await self._carry(run, lease, handler, offered)
        except Exception:
            logger.critical("run %s: the runtime failed; the run is left behind", run.run_id, exc_info=True)
            if run.run_id in self._runs:
                self._leave(run)

    async def _carry(self, run: Run, lease: Lease, handler: Handler, offered: Mapping[str, object]) -> None:
        # A drain may have shown an end already, to readers of a run that was still claiming.
        if not run.log.closed:
            run.log.extend(run.builder.start())
        if run.cause is Cause.STOPPED_BEFORE_START:
            await self._end(run, lease, Ending(cause=Cause.STOPPED_BEFORE_START, stop_requested=True))
            return
        driven = await drive(run, handler, offered)
        run.unwound = True
        run.stuck = False
        message = error_message(driven.ending.cause, driven.error, debug=self._debug)
        with trio.CancelScope(shield=True):
            await self._end(run, lease, driven.ending, message)
        if driven.fatal is not None:
            raise driven.fatal

    async def _end(self, run: Run, lease: Lease, ending: Ending, message: str = "") -> None:
        """Write the terminal state, show the terminal event, leave the registry: in this order.

        So the session is free before anybody can see the end, and nobody waits for a run that is not there.
        """
        if ending.cause is not Cause.STOPPED_BEFORE_START:
            record = await self._keeper.finish(lease, ending, until=self._keeper.patience_for(run, ending))
            if record is not None:
                held = adopted(ending, record)
            elif self._backend.timings is None:
                held = ending
            else:
                # Its lease has ended meanwhile: whatever it was, others have seen it end as an error.
                held = attrs.evolve(ending, cause=Cause.LEASE_LOST)
            message = message if held.cause is ending.cause else ""
            ending = held
        run.ending = ending
        run.state = ending.state
        run.phase = Phase.ENDED
        # A drain may have shown an end already, to readers of a run that overran its cleanup.
        if not run.log.closed:
            run.log.extend(terminal_events(run.builder, ending, message))
        self._leave(run)

    def _leave(self, run: Run) -> None:
        run.log.close()
        run.ended.set()
        del self._runs[run.run_id]
        of_session = self._by_key[run.key]
        of_session.remove(run)
        if not of_session:
            del self._by_key[run.key]
        if not self._runs:
            self._empty.set()
            self._empty = trio.Event()

    def stop_all(self, cause: Cause) -> None:
        for run in self.live():
            run.stop(cause)

    async def wait_empty(self) -> None:
        """Wait until no run is live."""
        while self._runs:
            await self._empty.wait()

    def _on_signal(self, signal: Signal) -> None:
        self._keeper.hear(signal, self._runs.get(signal.run_id) if isinstance(signal, StopSignal) else None)
