"""The live runs of this node: a dictionary of runs, and the nursery in which their tasks live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from ..abc import BaseInterruptBackend, EventStore, InputSignal, Instrument, NodeFigures, Signal
from ..errors import Draining, SessionBusy, TooManyRuns, ValidationError
from ..nursery import nursery_around
from ..protocol.ids import SessionKey
from ..protocol.lifecycle import Cause, Phase, RunState
from ..protocol.request import MultitaskStrategy
from .containment import apart
from .end_writer import EndWriter
from .handler import Handler
from .inbox import InboxFetcher
from .instruments import Instruments
from .keeper import Keeper
from .node import Node, Remember, Undo
from .question_poster import QuestionPoster
from .run import Run
from .services import KeptServices
from .task import RunTask
from .ticker import MAX_NODE_WEIGHT, Ticker

__all__ = ["MAX_RUNS", "MAX_RUNS_PER_USER", "RunRegistry"]

MAX_RUNS = 10_000
"""Open runs of one node. At about 45 KiB for an idle chat this is half a gigabyte."""

MAX_RUNS_PER_USER = 100
"""Open runs of one user on a node: a hundredth of `MAX_RUNS`, and far more than one person watches."""


class RunRegistry:
    """Starts runs, finds them, and ends all of them before it closes.

    Args:
        backend: decides which run may own a session, and carries stops.
        node_id: fresh for each process.
        cleanup_budget: seconds that a run's cleanup may take.
        debug: show the text of a handler's exception to its client.
        max_runs: limit of open runs.
        max_runs_per_user: limit of open runs of one user; they include those that wait for their session.
        store: keeps events for readers on other nodes and for later; without one they are dropped with the run.
        remember: saves what the next turn of a session needs.
        instruments: count, time or trace the runs.
        undo: rolls back what an interrupted run has saved, before the run that replaces it starts.
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
        max_runs_per_user: int = MAX_RUNS_PER_USER,
        instruments: Sequence[Instrument] = (),
    ) -> None:
        self.node_id = node_id
        self.cleanup_budget = cleanup_budget
        self.draining = False
        self._backend = backend
        self._store = store
        self._max_runs = max_runs
        self._max_runs_per_user = max_runs_per_user
        self._by_user: dict[str, int] = {}
        self._runs: dict[str, Run] = {}
        self._by_key: dict[SessionKey, list[Run]] = {}
        self._empty = trio.Event()
        self._services: trio.Nursery | None = None
        self._ended = self._ended_events = 0
        self.instruments = Instruments(instruments)
        self.ticker = Ticker(self._runs, store)
        self._node = Node(
            node_id=node_id,
            backend=backend,
            store=store,
            keeper=Keeper(backend, self._runs),
            inbox=InboxFetcher(backend),
            questions=QuestionPoster(backend),
            end_writer=EndWriter(backend),
            cleanup_budget=cleanup_budget,
            debug=debug,
            remember=remember,
            undo=undo,
            instruments=self.instruments,
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Accept runs inside this block. At its end every run is stopped, cleaned up and joined.

        An exception of the block is raised as it is, unless a service has failed as well.
        """
        node = self._node
        async with nursery_around() as services, KeptServices(services) as kept, nursery_around() as runs:
            await kept.start("the interrupt backend", self._backend.serve)
            if self._store is not None:
                await kept.start("the event store", self._store.serve)
            await kept.start("the input fetcher", node.inbox.serve)
            await kept.start("the poster of questions", node.questions.serve)
            await kept.start("the listener for stops", self._backend.listen, self.node_id, self._receive)
            kept.start_soon("the lease keeper", node.keeper.beat)
            kept.start_soon("the run ticker", self.ticker.tick)
            kept.start_soon("the instruments", partial(self.instruments.serve, self.statistics))
            kept.shield()
            self._services = services
            node.nursery = runs
            try:
                yield
            finally:
                self.draining = True
                node.nursery = None
                node.end_writer.close()
                self.stop_all(Cause.SHUTDOWN)
                # Runs are shielded: they end by their own scopes, within the cleanup budget, and are joined here.
                with trio.CancelScope(shield=True):
                    await self.wait_empty()
                self._services = None
                services.cancel_scope.cancel(reason="the run registry is closed")

    def stuck(self) -> tuple[str, ...]:
        """Return the ids of stopped runs that have not ended within their cleanup budget."""
        return tuple(run.run_id for run in self._runs.values() if run.lifecycle.is_stuck)

    def statistics(self) -> NodeFigures:
        """Return the state of this node. It costs about a millisecond for 10,000 runs."""
        runs = self._runs.values()
        return NodeFigures(
            live=len(runs),
            queued=sum(run.lifecycle.phase is Phase.QUEUED for run in runs),
            ended=self._ended,
            stuck=self.stuck(),
            subscribers=sum(log.reader_count for log in (*(run.log for run in runs), *self.ticker.logs)),
            events=self._ended_events + sum(run.log.end for run in runs),
            draining=self.draining,
            backend_up=self._backend.trouble is None,
        )

    def live(self) -> list[Run]:
        return list(self._runs.values())

    def find(self, run_id: str) -> Run | None:
        """Return the live run of this id on this node."""
        return self._runs.get(run_id)

    def find_by_key(self, key: SessionKey) -> Run | None:
        """Return the live run of this session on this node: the owner, if others are still claiming the session."""
        runs = self._by_key.get(key, ())
        return max(runs, key=lambda run: run.lifecycle.state is RunState.RUNNING, default=None)

    @property
    def services(self) -> trio.Nursery:
        """The nursery of services for readers on this node. It lives as long as the registry is open.

        Raises:
            Draining: the registry is not open.
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

        A run whose `strategy` makes it wait for its session is queued when this returns. If this is cancelled,
        nothing was started and the session is free.

        Raises:
            Draining, TooManyRuns, SessionBusy, QueueFull, BackendUnavailable: nothing was started.
            ValidationError: the run id is taken.
        """
        self._check_admission(run)
        task = RunTask(self._node, run, handler, offered, strategy=strategy)
        run.on_unwatched = self.ticker.hurry
        # Register the run before its claim, so that a stop that arrives in the meantime finds it.
        self._add(run)
        try:
            await task.claim()
        except BaseException:
            self._remove(run)
            raise
        if self.draining and run.lifecycle.phase is Phase.QUEUED:
            run.scope.stop(Cause.SHUTDOWN)
        if self._node.nursery is None:
            await task.end_unstarted()
            self._remove(run)
            raise Draining
        with apart():
            self._node.nursery.start_soon(self._live, task, name=f"run {run.run_id}")

    async def _live(self, task: RunTask) -> None:
        try:
            await task.live()
        finally:
            # There was no checkpoint since the run was closed, so no other task has seen it closed and still
            # registered.
            self._remove(task.run)

    def _check_admission(self, run: Run) -> None:
        if self._node.nursery is None or self.draining:
            raise Draining
        if len(self._runs) >= self._max_runs:
            raise TooManyRuns(
                f"The limit of open runs on this node is reached ({self._max_runs}).",
                limit="runs_per_node",
                quota=self._max_runs,
            )
        if self.ticker.weight > MAX_NODE_WEIGHT:
            raise TooManyRuns(
                "The memory limit for events of open runs on this node is reached.",
                limit="event_bytes_per_node",
                quota=MAX_NODE_WEIGHT,
            )
        if self._by_user.get(run.key.user_id, 0) >= self._max_runs_per_user:
            raise TooManyRuns(
                f"The limit of open runs of one user on this node is reached ({self._max_runs_per_user}).",
                limit="runs_per_user",
                quota=self._max_runs_per_user,
            )
        if (known := self._runs.get(run.run_id)) is not None:
            if known.key == run.key:
                raise SessionBusy(known.run_id)
            raise ValidationError([("$.id", "this id is taken by another run")])

    def _add(self, run: Run) -> None:
        self._runs[run.run_id] = run
        self._by_key.setdefault(run.key, []).append(run)
        self._by_user[run.key.user_id] = self._by_user.get(run.key.user_id, 0) + 1

    def _remove(self, run: Run) -> None:
        del self._runs[run.run_id]
        self._ended += 1
        self._ended_events += run.log.end
        of_session = self._by_key[run.key]
        of_session.remove(run)
        if not of_session:
            del self._by_key[run.key]
        if (others := self._by_user.pop(run.key.user_id) - 1) > 0:
            self._by_user[run.key.user_id] = others
        if not self._runs:
            self._empty.set()
            self._empty = trio.Event()

    def stop_all(self, cause: Cause) -> None:
        for run in self.live():
            run.scope.stop(cause)

    async def wait_empty(self) -> None:
        """Wait until no run is live."""
        while self._runs:
            await self._empty.wait()

    def _receive(self, signal: Signal) -> None:
        if not isinstance(signal, InputSignal):
            self._node.keeper.receive(signal)
        elif (run := self._runs.get(signal.run_id)) is not None:
            self._node.inbox.fetch_soon(run)
