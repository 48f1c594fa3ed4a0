"""Starts runs, knows the live ones, owns the nursery they live in, and ends them all before it ends itself."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from ..abc import (
    BaseInterruptBackend,
    Busy,
    Claim,
    Ended,
    EventStore,
    Granted,
    InputSignal,
    Lease,
    Queued,
    QueueIsFull,
    Signal,
    StopSignal,
)
from ..errors import (
    BackendUnavailable,
    Draining,
    QueueFull,
    RequestError,
    SessionBusy,
    TooManyRuns,
    ValidationError,
)
from ..protocol.events import ResponseEvent
from ..protocol.ids import SessionKey, new_run_id
from ..protocol.lifecycle import Cause, Ending, Phase, RunState
from ..protocol.request import MultitaskStrategy
from .conclusion import Conclusion, Remember, Undo
from .containment import apart
from .driver import drive
from .ending import error_message, farewells, numbered_from, restated, terminal_events
from .failures import ctrl_c_in, is_cancelled, leaves
from .handler import Handler
from .inbox import InboxFetcher
from .keeper import Keeper
from .kept_services import KeptServices
from .line import place_of, wait_in_line
from .log_fields import add_log_fields
from .run import Run, log_end
from .ticker import Ticker

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
        store: keeps events for readers on other nodes and for later; None: they are gone with the run.
        remember: puts away what the next turn of a session must find.
        undo: undoes what a run has saved, for the one that took its place.
    """

    def __init__(
        self,
        backend: BaseInterruptBackend,
        *,
        store: EventStore | None = None,
        remember: Remember | None = None,
        undo: Undo | None = None,
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
        self._services: trio.Nursery | None = None
        self._keeper = Keeper(backend, self.live)
        self._inbox = InboxFetcher(backend, lambda: self._services)
        self._conclusion = Conclusion(
            backend=backend, keeper=self._keeper, cleanup_budget=cleanup_budget, remember=remember, undo=undo
        )
        self._store = store
        self.ticker = Ticker(self, store)

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
        async with trio.open_nursery() as services, KeptServices(services) as kept, trio.open_nursery() as runs:
            await kept.start("the interrupt backend", self._backend.serve)
            if self._store is not None:
                await kept.start("the event store", self._store.serve)
            await kept.start("the listener for stops", self._backend.listen, self.node_id, self._on_signal)
            kept.start_soon("the lease keeper", self._keeper.beat)
            kept.start_soon("the run ticker", self.ticker.tick)
            kept.shield()
            self._services = services
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
                self._services = None
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

    @property
    def services(self) -> trio.Nursery:
        """Where what serves readers of this node lives, for as long as the registry is open.

        Raises:
            Draining: it is not.
        """
        if self._services is None:
            raise Draining
        return self._services

    async def start(
        self,
        run: Run,
        handler: Handler,
        offered: Mapping[str, object],
        *,
        strategy: MultitaskStrategy = "reject",
    ) -> None:
        """Claim the session for `run` and start it. When this returns, the run will end with a terminal event.

        A run whose `strategy` has it wait for its session does so in a task of its own: it has not begun when this
        returns. Cancelled before that, nothing was started and the session is free.

        Raises:
            Draining, TooManyRuns, SessionBusy, QueueFull, BackendUnavailable: nothing was started.
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
        shared = self._store is not None and self._store.shared
        lease = Lease(
            key=run.key,
            run_id=run.run_id,
            node_id=self.node_id,
            nonce=new_run_id(),
            place=place_of(strategy),
            fallback_events=farewells(run.builder) if shared else {},
        )
        run.undoes = strategy == "rollback"
        run.shared = shared
        run.on_unwatched = self.ticker.hurry
        if self._backend.timings is not None:
            run.on_input_wanted = lambda: self._inbox.fetch_soon(run)
        # Registered before the claim, so that a stop which arrives meanwhile finds its run.
        self._runs[run.run_id] = run
        self._by_key.setdefault(run.key, []).append(run)
        try:
            claim = await self._claim(run, lease)
            waits = claim if isinstance(claim, Queued) else None
            run.waits = waits is not None
            if waits is None:
                lease = self._granted(run, lease, claim)
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
        with apart():
            nursery.start_soon(self._live, run, lease, waits, handler, offered, name=f"run {run.run_id}")

    def _open_nursery(self) -> trio.Nursery | None:
        return self._nursery

    async def _claim(self, run: Run, lease: Lease, waits: Queued | None = None) -> Claim | None:
        """Ask for the session, or wait for it in line. None: the run was stopped while it waited."""
        try:
            if waits is None:
                return await self._keeper.claim(run, lease)
            return await wait_in_line(self._backend, self._keeper, run, lease, waits)
        except BaseException as exc:
            await self._conclusion.take_back(lease, self._open_nursery())
            if isinstance(exc, RequestError) or not isinstance(exc, Exception):
                raise
            logger.exception("the interrupt backend failed to claim")
            raise BackendUnavailable(
                "The session could not be claimed; nothing was started.", retry_after=1.0
            ) from exc

    def _granted(self, run: Run, lease: Lease, claim: Claim | None) -> Lease:
        """The lease that came of a claim; of a run that was stopped before it, the one without a token."""
        match claim:
            case Granted(token):
                run.lease = lease = attrs.evolve(lease, token=token)
                self._open_sink(run, lease)
                return lease
            case Busy(active, retry_after):
                raise SessionBusy(active, retry_after=retry_after)
            case QueueIsFull(active):
                raise QueueFull("As many runs wait for this session as may.", retry_after=1.0)
            case Ended(RunState.STOPPED, Cause.STOPPED_BEFORE_START):
                run.stop(Cause.STOPPED)
                run.cause = Cause.STOPPED_BEFORE_START
                return lease
            case Ended():
                raise ValidationError([("$.id", "a run of this id has ended already")])
            case _:
                raise ValidationError([("$.id", "this id is taken by another run")])

    def _open_sink(self, run: Run, lease: Lease) -> None:
        store = self._store
        sink = None if store is None else store.sink(lease, run.log.put, lambda told: self._keeper.learn(run, told))
        if store is not None and sink is not None:
            run.sink = sink
            run.log.keep_in(partial(store.read, run.key, run.run_id))

    async def _live(
        self, run: Run, lease: Lease, waits: Queued | None, handler: Handler, offered: Mapping[str, object]
    ) -> None:
        """The task of one run. Only what concerns the process leaves it: a failure here is one run's own."""
        add_log_fields(run_id=run.run_id, session_id=run.session_id, node_id=self.node_id)
        try:
            if waits is not None:
                if self.draining:
                    run.stop(Cause.SHUTDOWN)
                with trio.CancelScope(shield=True):
                    held = await self._wait(run, lease, waits)
                if held is None:
                    return
                run.waits = False
                lease = held
            await self._carry(run, lease, handler, offered)
        except BaseException as exc:
            if is_cancelled(exc) or ctrl_c_in(exc) is not None:
                raise
            logger.critical("run %s: the runtime failed; the run is left behind", run.run_id, exc_info=True)
            if run.run_id in self._runs:
                self._leave(run)

    async def _wait(self, run: Run, lease: Lease, waits: Queued) -> Lease | None:
        """Wait in line, to its end: the lease, or None if the run ended instead. A stop ends the waiting."""
        try:
            claim = await self._claim(run, lease, waits)
            if claim is not None:
                return self._granted(run, lease, claim)
            cause = Cause.STOPPED_BEFORE_START if run.cause is Cause.STOPPED else run.cause
            ending = Ending(cause=cause or Cause.SHUTDOWN, stop_requested=run.stop_requested)
        except RequestError as exc:
            logger.warning("run %s: it cannot wait for its session any more: %s", run.run_id, exc)
            ending = Ending(cause=Cause.CLAIM_FAILED)
        _begin(run)
        await self._end(run, lease, ending)
        return None

    async def _carry(self, run: Run, lease: Lease, handler: Handler, offered: Mapping[str, object]) -> None:
        _begin(run)
        if run.cause is Cause.STOPPED_BEFORE_START:
            await self._end(run, lease, Ending(cause=Cause.STOPPED_BEFORE_START, stop_requested=True))
            return
        logger.info("run %s has started (handler %r)", run.run_id, run.handler_name)
        driven = await self._conclusion.undo_replaced(run) or await drive(run, handler, offered)
        run.unwound = True
        run.stuck = False
        message = error_message(driven.ending.cause, driven.error, debug=self._debug)
        with trio.CancelScope(shield=True):
            await self._end(run, lease, driven.ending, message)
        if driven.fatal is not None:
            raise driven.fatal

    async def _end(self, run: Run, lease: Lease, ending: Ending, message: str = "") -> None:
        """Close what is open, write the terminal state, show the terminal event, leave the registry: in this order.

        So the session is free before anybody can see the end, and nobody waits for a run that is not there.
        """
        # A drain may have shown an end already, to readers of a run that overran its cleanup.
        *closing, last = [None] if run.log.closed else terminal_events(run.builder, ending, message)
        run.sink.put([event for event in closing if event is not None])
        held = await self._conclusion.write(run, lease, ending, last)
        run.ending = held
        run.state = held.state
        run.phase = Phase.ENDED
        if isinstance(last, ResponseEvent) and held.cause is not ending.cause:
            last = restated(last, held)
        if isinstance(last, ResponseEvent) and not run.log.closed:
            run.log.put(numbered_from(run.log.end, [last]))
        if self._store is not None:
            self._store.keep(run.key, run.run_id, run.log.kept)
        self._leave(run)
        log_end(run, held, last.error if isinstance(last, ResponseEvent) else None)

    def _leave(self, run: Run) -> None:
        run.log.close()
        run.ended.set()
        # Each of these may refer to the run.
        run.sink, run.on_input_wanted, run.on_unwatched = run.log, None, None
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
        if isinstance(signal, InputSignal):
            if (run := self._runs.get(signal.run_id)) is not None:
                self._inbox.fetch_soon(run)
            return
        self._keeper.hear(signal, self._runs.get(signal.run_id) if isinstance(signal, StopSignal) else None)


def _begin(run: Run) -> None:
    # A drain may have shown an end already, to readers of a run that was still claiming.
    if not run.log.closed:
        run.sink.put(run.builder.start())
