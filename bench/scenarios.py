"""What is measured: a scenario starts servers of one side, loads them, and returns figures."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import trio

from servers import Program, Server, stops
from trio_agentapp.testing.redis_server import RedisServer
from wire import PROTOCOLS

Figures = dict[str, Any]

OURS, REPLACED, FLOOR = "ours", "replaced", "floor"
BOTH = (OURS, REPLACED)
WITH_FLOOR = (OURS, REPLACED, FLOOR)
PYTHONS_OWN_GC = {"AGENTAPP_GC_THRESHOLD": "0"}

RAMP = 2.0
"""Seconds over which slow chats start, where they do not all start at once."""

ENDED_SESSIONS = 30_000
SESSIONS_IN_REDIS = 10_000
SIGHT_ROUNDS = 5
COLLECTOR = Path(__file__).parents[1] / "examples/tracing/collector.py"
PARALLEL = 10
"""Short chats at a time: enough that the server never waits for the client."""


@dataclass(frozen=True)
class Bench:
    """One side of one scenario: starts its servers."""

    side: str
    program: Program
    log: Path
    settings: dict[str, str] = field(default_factory=dict)

    def start(self, *options: str) -> Server:
        return Server(self.program, self.log, self.settings, options)

    def with_redis(self, server: RedisServer, *, keep: bool) -> "Bench":
        """Carry stops over Redis; with `keep`, which is for ours only, keep events and histories there too."""
        if self.side == REPLACED:
            more = {"BENCH_REDIS_URL": server.url}
        else:
            more = {"AGENTAPP_INTERRUPT_REDIS_URL": server.url}
            if keep:
                more |= {"AGENTAPP_STATE_URL": server.url, "AGENTAPP_EVENT_STORE": "redis"}
        return replace(self, settings=self.settings | more)


@dataclass(frozen=True)
class Scenario:
    take: Callable[[Bench], Figures]
    sides: tuple[str, ...] = BOTH
    settings: dict[str, str] = field(default_factory=dict)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    trio.run(server.__aenter__)
    try:
        yield server
    finally:
        trio.run(server.aclose)


def checked(report: Figures) -> Figures:
    """A report worth taking figures from: a chat here and there may be lost, and stands under the table then."""
    if report["completed"] < 0.95 * report["chats"]:
        raise RuntimeError(f"{report['completed']} of {report['chats']} chats completed: {report['problems']}")
    return report


def warm_up(server: Server) -> None:
    checked(server.load("burst", count=10))


def us_per_event(report: Figures) -> float:
    return 1e6 * report["cpu_s"] / report["events"]


def ms_per_chat(report: Figures) -> float:
    return 1e3 * report["cpu_s"] / report["chats"]


def short_chats(server: Server, chats: int, *flags: str) -> Figures:
    """Chats of one delta, `PARALLEL` at a time."""
    return checked(server.load("burst", *flags, count=1, chats=chats, parallel=PARALLEL))


def start_up(bench: Bench, times: int = 3) -> Figures:
    with bench.start():
        pass  # fills the file cache and writes the compiled modules
    seconds, cpu, rss = [], [], []
    for _ in range(times):
        with bench.start() as server:
            seconds.append(server.start_s)
            time.sleep(0.5)
            cpu.append(server.cpu_s())
            rss.append(server.rss_kib() / 1024)
    return {"ready_s": median(seconds), "cpu_s": median(cpu), "idle_rss_mib": median(rss)}


def slow(bench: Bench, chats: int, count: int = 100, ramp: float = RAMP, client: str = "client.py") -> Figures:
    with bench.start() as server:
        warm_up(server)
        report = checked(server.load("slow", client=client, chats=chats, rate=20, count=count, ramp=ramp))
    return slow_figures(report)


def slow_figures(report: Figures) -> Figures:
    return {
        "us_per_event": us_per_event(report),
        "all_s": report["all_s"],
        "gap_late_p99_ms": report["gap_late_ms"]["p99"],
        "delay_p50_ms": report["delay_ms"]["p50"],
        "delay_p99_ms": report["delay_ms"]["p99"],
        "first_event_p99_ms": report["first_event_ms"]["p99"],
        "completed": report["completed"],
        "client": report,
    }


def starts_beside(bench: Bench) -> Figures:
    """200 chats that run while 500 more start within a second, each on a connection of its own."""
    with bench.start() as server:
        warm_up(server)
        with server.chats("slow", chats=200, rate=20, count=120, ramp=RAMP, deadline=60) as client:
            time.sleep(RAMP + 1)
            starts = checked(server.load("burst", count=1, chats=500, ramp=1))
            report = checked(client.report())
    return {
        "gap_late_p99_ms": report["gap_late_ms"]["p99"],
        "gap_late_max_ms": report["gap_late_ms"]["max"],
        "first_event_p99_ms": starts["first_event_ms"]["p99"],
        "client": report,
    }


def slow_over_redis(bench: Bench, *, keep: bool) -> Figures:
    with redis_server() as redis:
        bench = bench.with_redis(redis, keep=keep)
        with bench.start() as server:
            server.wait_ready_for_runs()
            warm_up(server)
            before = server.cpu_s()
            with server.chats("slow", chats=200, rate=20, count=100, ramp=RAMP, deadline=20) as client:
                time.sleep(RAMP + 1)  # all have begun, none has ended
                connections = connections_of(redis)
                report = client.report()
            report["cpu_s"] = server.cpu_s() - before
    if bench.side == OURS:
        checked(report)  # the replaced product refuses some: how many complete is one of the figures
    return slow_figures(report) | {"redis_connections": connections}


def connections_of(redis: RedisServer) -> int:
    """Connections of all clients but this one."""
    with socket.create_connection(("127.0.0.1", redis.port)) as connection:
        connection.sendall(b"INFO clients\r\n")
        answer = connection.recv(65536)
    return int(re.search(rb"connected_clients:(\d+)", answer)[1]) - 1


def short(bench: Bench, *flags: str, chats: int = 1000) -> Figures:
    with bench.start() as server:
        warm_up(server)
        short_chats(server, chats // 10, *flags)
        report = short_chats(server, chats, *flags)
    return {
        "ms_per_chat": ms_per_chat(report),
        "chats_per_s": report["chats"] / report["all_s"],
        "client": report,
    }


def burst(bench: Bench, model: str, rounds: int) -> Figures:
    with bench.start() as server:
        warm_up(server)
        report = checked(server.load(model, count=20_000, rounds=rounds))
    return {
        "cpu_s_per_1000": 1000 * report["cpu_s"] / report["events"],
        "first_delta_ms": report["first_delta_ms"]["p50"],
        "client": report,
    }


def idle(bench: Bench, chats: int = 1000, pause: float = 10) -> Figures:
    with bench.start() as server:
        warm_up(server)
        before = server.rss_kib()
        with server.chats("idle", "--hold", chats=chats, ramp=4) as client:
            client.wait_holding()
            time.sleep(1)
            grown = server.rss_kib() - before
            cpu = server.cpu_s()
            time.sleep(pause)
            cpu = server.cpu_s() - cpu
            report = checked(client.report())
    return {"kib_per_chat": grown / chats, "idle_cpu_percent": 100 * cpu / pause, "client": report}


def stops_on_one_node(bench: Bench) -> Figures:
    with bench.start() as server:
        warm_up(server)
        return stop_figures(bench, server, server)


def stops_across_two_nodes(bench: Bench) -> Figures:
    with redis_server() as redis:
        bench = bench.with_redis(redis, keep=False)
        second = replace(bench, log=bench.log.with_suffix(".second.log"))
        with bench.start() as runs, second.start() as stopping:
            for server in (runs, stopping):
                server.wait_ready_for_runs()
                warm_up(server)
            return stop_figures(bench, runs, stopping)


def stop_figures(bench: Bench, runs: Server, stopping: Server) -> Figures:
    took = stops("latency", runs, stopping, count=100)["stop_ms"]
    lost = stops("lost", runs, stopping, count=20)
    figures = {
        "stop_p50_ms": took["p50"],
        "stop_p99_ms": took["p99"],
        "lost_percent": 100 * lost["lost"] / lost["stops"],
        "by_session": lost,
    }
    if bench.side == OURS:
        lost = stops("lost", runs, stopping, "--by-run", count=20)
        figures |= {"lost_by_run_percent": 100 * lost["lost"] / lost["stops"], "by_run": lost}
    return figures


def bridge(bench: Bench) -> Figures:
    """The same chats of a Trio handler and of one on the asyncio loop."""
    figures: Figures = {}
    for name, settings in (("trio", {}), ("asyncio", {"BENCH_ASYNCIO": "1"})):
        with replace(bench, settings=bench.settings | settings).start() as server:
            warm_up(server)
            report = checked(server.load("slow", chats=200, rate=20, count=200, ramp=RAMP))
            figures |= {f"us_per_event_of_{name}": us_per_event(report), "client": report}
            burst = checked(server.load("burst", count=20_000, rounds=2))
            figures |= {f"us_per_burst_event_of_{name}": us_per_event(burst)}
    return figures | {"more_us": figures["us_per_event_of_asyncio"] - figures["us_per_event_of_trio"]}


def protocols(bench: Bench) -> Figures:
    """The same chats in our own protocol and in each other one, on one server, in turns."""
    figures: Figures = {}
    with bench.start() as server:
        cpu: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
        for name in cpu:
            checked(server.load("burst", protocol=name, count=100, chats=20))
        for _ in range(3):
            for name, took in cpu.items():
                report = checked(server.load("slow", protocol=name, chats=200, rate=20, count=100, ramp=RAMP))
                took.append(us_per_event(report))
                figures |= {"client": report}
    own = median(cpu["process"])
    for name, took in cpu.items():
        figures |= {f"us_per_event_of_{name}": median(took), f"{name}_of_process": median(took) / own}
    return figures


def growth_with_chats(bench: Bench) -> Figures:
    figures: Figures = {}
    with bench.start() as server:
        warm_up(server)
        for chats, rounds in ((1, 3), (10, 2), (100, 1), (1000, 1)):
            report = checked(server.load("slow", chats=chats, rate=20, count=100, ramp=RAMP, rounds=rounds))
            figures |= {f"us_per_event_at_{chats}": us_per_event(report), "client": report}
    return figures


def growth_with_past(bench: Bench) -> Figures:
    """Short chats on a server that has ended no session yet, and on the same after many."""
    with bench.start() as server:
        warm_up(server)
        short_chats(server, 500)
        first, before = short_chats(server, 1000), server.rss_kib()
        checked(server.load("burst", count=1, chats=ENDED_SESSIONS, parallel=PARALLEL, deadline=500))
        grown = server.rss_kib() - before
        last = short_chats(server, 1000)
    return {
        "ms_per_chat_at_first": ms_per_chat(first),
        "ms_per_chat_afterwards": ms_per_chat(last),
        "growth": ms_per_chat(last) / ms_per_chat(first),
        "kib_per_session": grown / ENDED_SESSIONS,
        "client": last,
    }


def growth_with_history(bench: Bench) -> Figures:
    """Short chats of a node beside an empty Redis, and of a fresh node beside one with many sessions."""
    with redis_server() as redis:
        bench = bench.with_redis(redis, keep=True)
        with bench.start() as server:
            server.wait_ready_for_runs()
            short_chats(server, 200)
            first = short_chats(server, 500)
            checked(server.load("burst", count=1, chats=SESSIONS_IN_REDIS, parallel=PARALLEL, deadline=300))
        with bench.start() as server:
            started = server.start_s
            server.wait_ready_for_runs()
            short_chats(server, 200)
            last = short_chats(server, 500)
    return {
        "ms_per_chat_at_first": ms_per_chat(first),
        "ms_per_chat_afterwards": ms_per_chat(last),
        "growth": ms_per_chat(last) / ms_per_chat(first),
        "ready_s": started,
        "client": last,
    }


def growth_with_workers(bench: Bench) -> Figures:
    figures: Figures = {}
    with redis_server() as redis:
        bench = bench.with_redis(redis, keep=False)
        for workers in (1, 2, 4):
            with bench.start(f"--workers={workers}") as server:
                server.wait_ready_for_runs()
                short_chats(server, 200)
                chats = short_chats(server, 2000)
                events = checked(server.load("slow", chats=200, rate=20, count=100, ramp=RAMP))
                figures |= {
                    f"ms_per_chat_at_{workers}": ms_per_chat(chats),
                    f"chats_per_s_at_{workers}": chats["chats"] / chats["all_s"],
                    f"us_per_event_at_{workers}": us_per_event(events),
                    "client": events,
                }
    return figures


@contextmanager
def collector() -> Iterator[str]:
    """The collector of the example, which takes spans and prints them to nowhere."""
    command = [sys.executable, str(COLLECTOR)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, "PORT": "0"}, **pipes) as process:
        try:
            yield process.stderr.readline().split()[-1]
        finally:
            process.terminate()


def sight(bench: Bench) -> Figures:
    """200 chats without and with metrics and JSON logs, and with all runs traced, too; in turns."""
    ratios: dict[str, list[float]] = {"watched": [], "traced": []}
    with collector() as url:
        watched = {"AGENTAPP_METRICS": "1", "AGENTAPP_LOG_FORMAT": "json"}
        traced = {**watched, "AGENTAPP_TRACES": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
        took: dict[str, list[float]] = {"plain": [], "watched": [], "traced": []}
        for _ in range(SIGHT_ROUNDS):
            for name, settings in (("plain", {}), ("watched", watched), ("traced", traced)):
                with replace(bench, settings=bench.settings | settings).start() as server:
                    warm_up(server)
                    report = checked(server.load("slow", chats=200, rate=20, count=100, ramp=RAMP))
                took[name].append(us_per_event(report))
            for name, found in ratios.items():
                found.append(took[name][-1] / took["plain"][-1])
    return {
        **{f"us_per_event_{name}": median(found) for name, found in took.items()},
        **{f"{name}_of_plain": median(found) for name, found in ratios.items()},
        "client": report,
    }


def us_per_floor_event(floor: Program, log: Path) -> float:
    """The unit: CPU us of one `send_all` by a bare Trio server, on this machine, now."""
    with Server(floor, log) as server:
        warm_up(server)
        return us_per_event(checked(server.load("burst", count=20_000, rounds=2)))


SCENARIOS = {
    "slow-1": Scenario(partial(slow, chats=1, ramp=0)),
    "slow-50": Scenario(partial(slow, chats=50)),
    "slow-200": Scenario(partial(slow, chats=200), WITH_FLOOR),
    "steady-200": Scenario(partial(slow, chats=200, count=400), WITH_FLOOR),
    "slow-500": Scenario(partial(slow, chats=500)),
    "slow-1000": Scenario(partial(slow, chats=1000, ramp=0), WITH_FLOOR),
    "starts-beside-200": Scenario(starts_beside),
    "short-new": Scenario(short),
    "short-kept": Scenario(lambda bench: short(bench, "--kept")),
    "burst": Scenario(partial(burst, model="burst", rounds=3)),
    "burst-never-awaiting": Scenario(partial(burst, model="burst-never-awaiting", rounds=10)),
    "idle-1000": Scenario(idle),
    "start-up": Scenario(start_up),
    "stops": Scenario(stops_on_one_node),
    "stops-two-nodes": Scenario(stops_across_two_nodes),
    "redis-200": Scenario(partial(slow_over_redis, keep=False)),
    "redis-events-200": Scenario(partial(slow_over_redis, keep=True), (OURS,)),
    "asyncio-reader-200": Scenario(partial(slow, chats=200, client="reader.py")),
    "bridge-200": Scenario(bridge, (OURS,)),
    "protocols-200": Scenario(protocols, (OURS,)),
    "sight-200": Scenario(sight, (OURS,)),
    "growth-chats": Scenario(growth_with_chats),
    "growth-past": Scenario(growth_with_past, (OURS,)),
    "growth-history": Scenario(growth_with_history, (OURS,)),
    "growth-workers": Scenario(growth_with_workers, (OURS,)),
    "slow-200-python-gc": Scenario(partial(slow, chats=200), (OURS,), PYTHONS_OWN_GC),
    "slow-500-python-gc": Scenario(partial(slow, chats=500), (OURS,), PYTHONS_OWN_GC),
}
