"""All scenarios: how each is run, how often in the tests, and how often for the full numbers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from trio_agentapp.protocol.timings import Timings
from trio_agentapp.testing.redis_server import RedisServer

from . import burdens, faults, line, load, once, soak, sockets, streams, watching
from .checker import Verdict
from .cluster import LONG_LEASE, SHORT, Cluster

__all__ = ["SCENARIOS", "Outcome", "Scenario", "run_scenario"]

Load = Callable[[Cluster, int], Awaitable[Any]]
Fault = Callable[[Cluster], Awaitable[None]]


@attrs.frozen(kw_only=True)
class Scenario:
    """`short`, `full`: trials in the tests, and in all; `at_once`: trials of one slice.

    A load does its trials in one cluster, a fault is one trial in a fresh one.
    """

    name: str
    what: str
    load: Load | None = None
    fault: Fault | None = None
    short: int = 1
    full: int = 10
    at_once: int = 10
    nodes: int = 2
    proxied: bool = False
    least: float = 0.5
    """The share of trials with a stop that is accepted, below which a load proves too little."""
    broken: bool = False
    """Leases may be lost, and starts refused."""
    readers: bool = False
    """Many readers, and few stops or none."""
    node: dict[str, Any] = attrs.field(factory=dict, eq=False)
    """What its nodes are to be like; see `Node`."""
    timings: Timings = SHORT
    within: float = 540.0
    """Seconds that one slice may take."""

    def slices(self) -> list[int]:
        """The trials of each slice."""
        whole, rest = divmod(self.full, self.at_once)
        return [self.at_once] * whole + ([rest] if rest else [])


@attrs.define(kw_only=True)
class Outcome:
    trials: int = 0
    seconds: float = 0.0
    accepted: int = 0
    started: int = 0
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    other: int = 0
    latencies: list[float] = attrs.field(factory=list)
    """Seconds from the call of a stop to the end of the body."""
    freed_after: list[float] = attrs.field(factory=list)
    figures: dict[str, float] = attrs.field(factory=dict)
    violations: list[str] = attrs.field(factory=list)

    def add(self, cluster: Cluster, verdict: Verdict) -> None:
        self.accepted += verdict.accepted
        self.started += sum(start.status == 200 for start in cluster.history.starts)
        self.lost += verdict.lost
        self.doubled += verdict.doubled
        self.stuck += verdict.stuck
        self.other += verdict.other
        self.latencies += verdict.stop_latencies
        self.freed_after += verdict.freed_after
        self.violations += [str(violation) for violation in verdict.violations]

    def assert_clean(self) -> None:
        shown = "\n".join(self.violations[:20])
        assert not self.violations, f"{len(self.violations)} violations:\n{shown}"


def _load(fn: Load, *, short: int, full: int, at_once: int, **more: Any) -> Scenario:
    return Scenario(
        name=fn.__name__.replace("_", "-"),
        what=(fn.__doc__ or "").partition("\n")[0],
        load=fn,
        short=short,
        full=full,
        at_once=at_once,
        **more,
    )


def _fault(fn: Fault, **more: Any) -> Scenario:
    return Scenario(
        name=fn.__name__.replace("_", "-"),
        what=(fn.__doc__ or "").partition("\n")[0],
        fault=fn,
        broken=True,
        **more,
    )


def _stream(
    fn: Load, *, name: str | None = None, events: str = "redis", short: int, full: int, at_once: int, **more: Any
) -> Scenario:
    """Many readers, and few stops or none."""
    node = {"events": events, **more.pop("node", {})}
    return attrs.evolve(
        _load(fn, short=short, full=full, at_once=at_once, least=0.0, readers=True, node=node, **more),
        **({} if name is None else {"name": name}),
    )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _load(load.stops_at_random_times, short=60, full=2000, at_once=500),
        _load(load.stops_on_the_first_event, short=30, full=400, at_once=400),
        _load(load.stops_around_the_claim, short=40, full=400, at_once=400),
        _load(load.stops_around_the_finish, short=40, full=400, at_once=400, least=0.2),
        _load(load.stops_without_subscriptions, short=12, full=200, at_once=100),
        _load(load.simultaneous_starts, short=10, full=1000, at_once=250),
        _load(load.cross_node_latency, short=15, full=400, at_once=400),
        _load(load.connections, short=100, full=2000, at_once=2000),
        _stream(streams.readers_cut, short=10, full=200, at_once=100),
        _stream(
            streams.readers_cut,
            name="readers-cut-one-node",
            events="local",
            nodes=1,
            short=5,
            full=100,
            at_once=100,
        ),
        _stream(sockets.sockets_cut, short=5, full=200, at_once=100),
        _stream(sockets.shared_sockets_cut, short=1, full=20, at_once=10),
        _stream(streams.readers_of_killed_owners, short=1, full=10, at_once=1, nodes=3, broken=True),
        _stream(streams.events_in_memory_elsewhere, events="local", short=3, full=20, at_once=20, broken=True),
        _stream(streams.output_after_stops, short=15, full=300, at_once=150),
        _stream(watching.readers_leave, short=30, full=200, at_once=100),
        _stream(
            watching.readers_leave,
            name="readers-leave-one-node",
            events="local",
            nodes=1,
            short=10,
            full=100,
            at_once=100,
        ),
        _stream(watching.readers_leave_after_real_time, short=0, full=40, at_once=40),
        *[
            _stream(
                burdens.readers_that_do_not_read,
                name=f"readers-that-do-not-read-{events}-{way}",
                events=events,
                node={"stalled": 1.5, "way": way},
                nodes=1,
                short=4,
                full=40,
                at_once=40,
            )
            for events, way in (("local", "run"), ("redis", "hypercorn"))
        ],
        *[
            _stream(
                burdens.readers_that_do_not_read_for_long,
                name=f"readers-that-do-not-read-for-long-{events}-{way}",
                events=events,
                node={"way": way},
                nodes=1,
                short=0,
                full=20,
                at_once=20,
            )
            for events in ("local", "redis")
            for way in ("run", "hypercorn")
        ],
        _stream(line.requests_wait_in_line, short=6, full=120, at_once=120),
        _stream(line.places_are_left, short=8, full=200, at_once=100),
        _stream(line.interrupts_at_once, short=3, full=100, at_once=50),
        _stream(line.interrupts_around_a_turn, short=20, full=400, at_once=200),
        _stream(line.places_of_dead_nodes, short=1, full=10, at_once=1, nodes=4, broken=True),
        _stream(once.keys_used_at_once, short=3, full=100, at_once=50),
        _stream(
            once.keys_used_at_once,
            name="keys-used-at-once-local-events",
            nodes=1,
            events="local",
            short=2,
            full=50,
            at_once=50,
        ),
        _stream(once.keys_after_refusals, short=1, full=10, at_once=1, broken=True),
        _stream(once.input_from_elsewhere, short=2, full=60, at_once=30),
        # The longest first: the tests run several of these beside each other.
        _fault(faults.redis_killed),
        _fault(faults.redis_full, nodes=3),
        _fault(faults.owners_paused, nodes=4),
        _fault(faults.redis_paused),
        _fault(faults.network_cut_for_all, proxied=True),
        _fault(faults.network_cut_for_one, proxied=True),
        _fault(faults.owner_paused_and_cut_off, proxied=True),
        _fault(faults.data_lost_while_one_is_cut_off, proxied=True),
        _fault(faults.random_replies_lost, proxied=True),
        _fault(faults.command_connections_killed),
        _fault(faults.claim_replies_lost, proxied=True),
        _fault(faults.owner_killed, nodes=3),
        _fault(faults.owner_terminated),
        _fault(faults.heartbeat_replies_lost, proxied=True, timings=LONG_LEASE),
        _fault(faults.redis_restarted_with_data),
        _fault(faults.finish_replies_lost_for_a_lease, proxied=True),
        _fault(faults.redis_restarted_without_data),
        _fault(faults.stop_replies_lost, proxied=True),
        _fault(faults.same_run_asked_of_a_node_that_is_cut_off, proxied=True),
        _fault(faults.clients_leave_while_redis_is_down),
        _fault(faults.finish_replies_lost, proxied=True),
        # 30 minutes. It is not a part of the tests.
        _load(
            soak.soak,
            short=0,
            full=180,
            at_once=180,
            nodes=3,
            proxied=True,
            broken=True,
            readers=True,
            least=0.0,
            within=3000.0,
            # What is kept of ended runs is forgotten within a slice.
            timings=attrs.evolve(SHORT, retention=30.0, session_ttl=60.0, tombstone=15.0),
        ),
    )
}


async def run_scenario(scenario: Scenario, trials: int, *, server: RedisServer | None = None) -> Outcome:
    """Run and judge it; on `server`, if it leaves that whole."""
    outcome = Outcome(trials=trials)
    began = time.monotonic()
    with trio.fail_after(scenario.within):
        if scenario.load is not None:
            await _run_once(scenario, trials, outcome, server)
            assert outcome.accepted >= trials * scenario.least, f"only {outcome.accepted} stops were accepted"
        else:
            for _ in range(trials):
                await _run_once(scenario, 1, outcome, server)
    assert outcome.started, "not one run was started"
    outcome.seconds = time.monotonic() - began
    return outcome


async def _run_once(scenario: Scenario, trials: int, outcome: Outcome, server: RedisServer | None) -> None:
    if server is None:
        async with RedisServer() as fresh:
            await _run_once(scenario, trials, outcome, fresh)
        return
    cluster_of_its_kind = Cluster.open(
        server, nodes=scenario.nodes, timings=scenario.timings, proxied=scenario.proxied, **scenario.node
    )
    async with cluster_of_its_kind as cluster:
        try:
            if scenario.load is not None:
                outcome.figures |= await scenario.load(cluster, trials) or {}
                await cluster.settle()
            elif scenario.fault is not None:
                await scenario.fault(cluster)
        except BaseException as exc:
            for node in cluster.nodes:
                exc.add_note(f"-- {node.name}\n{node.log[-2000:]}")
            raise
        outcome.add(cluster, cluster.judge(faults=scenario.broken))
