"""Counts and times the runs of a node for Prometheus. Needs the extra `metrics`.

Nothing is counted for each event: the number of events is read from the logs of the runs once a second. No label
holds a user, a session or a run. If runs are traced, the exemplars of histograms name traces.

With several workers, `prometheus_client` keeps the values of each worker in a file of its own, in the folder
`PROMETHEUS_MULTIPROC_DIR`, and any worker answers for all of them.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import trio

from ..abc import ClaimResult, Instrument, NodeFigures, RunEnd, RunFacts
from ..errors import ConfigurationError
from ..protocol.lifecycle import Cause, CleanupResult
from ..refusals import refusals

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["WORKERS_FOLDER", "Metrics", "forget_worker", "shared_by_workers"]

WORKERS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that `prometheus_client` reads when it is imported."""

PERIOD = 1.0
"""Seconds between two readings of the node's state."""

LAG_PERIOD = 0.25
"""Seconds between two measurements of the event loop's lateness.

Four in a second cost an idle process very little.
"""

BLOCKED = 1.0
"""Seconds of lateness that count as a blocked loop, as in the log."""

RUN_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
FIRST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STOP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
CLAIM_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics(Instrument):
    """The metrics of one app.

    Args:
        connections: returns the number of open connections; None if the server does not count them.
        registrations: returns the name of each registry of agents, and whether the app is registered in it.
        trace_id: returns the id of the current trace for exemplars; None without tracing.

    Raises:
        ConfigurationError: the extra is not installed.
    """

    def __init__(
        self,
        *,
        connections: Callable[[], int | None] = lambda: None,
        registrations: Callable[[], Mapping[str, bool]] = dict,
        trace_id: Callable[[], str | None] = lambda: None,
    ) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise ConfigurationError(
                "metrics needs the extra `metrics`: pip install 'trio-agentapp[metrics]'"
            ) from error
        self._client: Any = prometheus_client
        self._connections = connections
        self._registrations = registrations
        self._trace_id = trace_id
        self._figures: Callable[[], NodeFigures] | None = None
        self._counted_events = 0
        self._counted_cpu = 0.0
        self._counted_refusals: Counter[str] = Counter()
        self._was_up = True
        self._shared = WORKERS_FOLDER in os.environ
        self._registry = prometheus_client.CollectorRegistry()
        self._define()

    def _define(self) -> None:
        self._runs = self._counter("agent_runs", "Runs that have ended.", "entry", "outcome")
        self._causes = self._counter(
            "agent_run_ends", "Runs that have ended, by the reason in their record.", "cause"
        )
        self._duration = self._histogram(
            "agent_run_duration_seconds", "Time from the request of a run to its end.", RUN_SECONDS, "entry"
        )
        self._first = self._histogram(
            "agent_first_event_seconds",
            "Time from the request of a run to the first item of its handler.",
            FIRST_SECONDS,
            "entry",
        )
        self._stops = self._histogram(
            "agent_stop_latency_seconds",
            "Time from the arrival of a stop at the node of its run until nothing of the run is executed.",
            STOP_SECONDS,
            "scope",
        )
        self._claims = self._counter("agent_claims", "Answered claims of sessions.", "result")
        self._claim_time = self._histogram(
            "agent_claim_seconds", "Time that the interrupt backend took to answer a claim.", CLAIM_SECONDS
        )
        self._events = self._counter("agent_events", "Events of all runs.")
        self._lost = self._counter("agent_lease_lost", "Runs that ended because their lease was lost.")
        self._overruns = self._counter("agent_cleanup_overruns", "Runs whose cleanup exceeded its budget.")
        self._live = self._gauge("agent_runs_active", "Runs that are claimed, queued or executed.")
        self._queued = self._gauge("agent_runs_queued", "Runs that wait for their session.")
        self._stuck = self._gauge("agent_runs_stuck", "Stopped runs that did not end within their cleanup budget.")
        self._subscribers = self._gauge("agent_subscribers", "Open readers of runs.")
        self._draining = self._gauge("agent_draining", "1 while no new runs are accepted.", "livemax")
        self._up = self._gauge("agent_backend_up", "1 while the interrupt backend is reachable.", "livemin")
        self._outages = self._counter(
            "agent_backend_outages", "Times that the interrupt backend became unreachable."
        )
        self._refusals = self._counter("agent_limit_refusals", "Times that a limit was reached.", "limit")
        self._lag = self._histogram(
            "agent_loop_lag_seconds",
            "How late the event loop woke a task, measured four times a second.",
            LAG_SECONDS,
        )
        self._blocked = self._counter(
            "agent_loop_blocked", "Times that the event loop was blocked for over a second."
        )
        self._tasks = self._gauge("agent_tasks", "Tasks of the event loop.")
        self._open = self._gauge("agent_connections", "Open connections of the server.")
        self._registered = self._client.Gauge(
            "agent_registered",
            "1 while the app is registered in this registry of agents.",
            ["registry"],
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        if self._shared:
            # The collectors of the client library with these names do not work for several workers.
            self._memory = self._gauge("process_resident_memory_bytes", "Resident memory size in bytes.")
            self._files = self._gauge("process_open_fds", "Number of open file descriptors.")
            self._cpu = self._counter("process_cpu_seconds", "Total user and system CPU time spent in seconds.")

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        return self._client.Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Any:
        return self._client.Histogram(name, text, labels, buckets=buckets, registry=self._registry)

    def _gauge(self, name: str, text: str, mode: str = "livesum") -> Any:
        """Make a gauge. `mode`: how `prometheus_client` combines the values of several workers."""
        return self._client.Gauge(name, text, registry=self._registry, multiprocess_mode=mode)

    # What the runtime reports.

    async def serve(self, figures: Callable[[], NodeFigures]) -> None:
        self._figures = figures
        self._counted_events = 0
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._measure_lag)
                while True:
                    self._read()
                    await trio.sleep(PERIOD)
        finally:
            self._figures = None

    async def _measure_lag(self) -> None:
        while True:
            due = trio.current_time() + LAG_PERIOD
            await trio.sleep_until(due)
            late = max(0.0, trio.current_time() - due)
            self._lag.observe(late)
            if late > BLOCKED:
                self._blocked.inc()

    def claimed(self, run: RunFacts, result: ClaimResult, seconds: float) -> None:  # noqa: ARG002
        self._claims.labels(result).inc()
        self._claim_time.observe(seconds, self._exemplar())

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        exemplar = self._exemplar()
        cause = end.ending.cause
        outcome = "rejected" if cause is Cause.REJECTED else end.ending.state.value.lower()
        self._runs.labels(run.entry, outcome).inc()
        self._causes.labels(cause.value).inc()
        self._duration.labels(run.entry).observe(end.seconds, exemplar)
        if end.first_event_seconds is not None:
            self._first.labels(run.entry).observe(end.first_event_seconds, exemplar)
        if end.stop_seconds is not None:
            self._stops.labels(end.stop_scope).observe(end.stop_seconds, exemplar)
        if cause is Cause.LEASE_LOST:
            self._lost.inc()
        if end.cleanup is CleanupResult.TIMED_OUT:
            self._overruns.inc()

    def _exemplar(self) -> Mapping[str, str] | None:
        # The exemplar does not name the run, because clients that may read the metrics may not read all runs.
        trace_id = self._trace_id()
        return None if trace_id is None else {"trace_id": trace_id}

    def _read(self) -> None:
        """Read the state of the node into the gauges."""
        if self._figures is None:
            return
        figures = self._figures()
        self._events.inc(max(0, figures.events - self._counted_events))
        self._counted_events = figures.events
        self._live.set(figures.live)
        self._queued.set(figures.queued)
        self._stuck.set(len(figures.stuck))
        self._subscribers.set(figures.subscribers)
        self._draining.set(figures.draining)
        self._up.set(figures.backend_up)
        if self._was_up and not figures.backend_up:
            self._outages.inc()
        self._was_up = figures.backend_up
        self._tasks.set(trio.lowlevel.current_statistics().tasks_living)
        if (connections := self._connections()) is not None:
            self._open.set(connections)
        for registry, registered in self._registrations().items():
            self._registered.labels(registry).set(registered)
        for limit, count in refusals.items():
            self._refusals.labels(limit).inc(count - self._counted_refusals[limit])
        self._counted_refusals = refusals.copy()
        if self._shared:
            self._read_process()

    def _read_process(self) -> None:
        with open("/proc/self/statm") as statm:
            self._memory.set(int(statm.read().split()[1]) * resource.getpagesize())
        self._files.set(len(os.listdir("/proc/self/fd")))
        cpu = time.process_time()
        self._cpu.inc(cpu - self._counted_cpu)
        self._counted_cpu = cpu

    # The response to a scrape.

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, in the format that the header `Accept` asks for.

        Metrics of the user's own, in the client library's default registry, are among them. It reads files if there
        are several workers; call it in a thread then.
        """
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return encode(self), content_type

    def refresh(self) -> None:
        """Read the state of the node now. Call it in the event loop, before `page`."""
        self._read()

    def collect(self) -> Iterator[Metric]:
        if self._shared:
            from prometheus_client.multiprocess import MultiProcessCollector

            registry = self._client.CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            yield from registry.collect()
        else:
            yield from self._registry.collect()
            yield from self._client.REGISTRY.collect()


@contextmanager
def shared_by_workers() -> Iterator[None]:
    """Inside this block, processes that are started keep their metrics in a common folder."""
    if WORKERS_FOLDER in os.environ:
        yield
        return
    with TemporaryDirectory(prefix="agentapp-metrics-") as folder:
        os.environ[WORKERS_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[WORKERS_FOLDER]


def forget_worker(pid: int) -> None:
    """Remove the gauges of a worker that has ended. Its counters stay."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]
