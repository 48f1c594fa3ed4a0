"""Measure the figures that the documentation states about speed, and print them; see bench/README.md.

python bench/measure.py                     what is still missing, then the table
python bench/measure.py slow-200 --again    one scenario anew
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import trio

from client import raise_limit_of_open_files
from servers import HERE, Server
from trio_agentapp.testing.redis_server import RedisServer

FLOOR = HERE / "floor.py"
CODE = HERE.parent / "trio_agentapp"
PYTHONS_OWN_GC = {"AGENTAPP_GC_THRESHOLD": "0"}

Figures = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """How to measure one slice: `take` gets a function that starts the server, and returns figures."""

    take: Callable[[Callable[[], Server]], Figures]
    settings: dict[str, str] = field(default_factory=dict)
    server: Path | None = None
    """The server to start; None: the app that is measured."""
    redis: bool = False
    """Start a Redis for sessions and events."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    scenario: str
    figure: str
    what: str
    aim: float | None = None
    to_us: float = 0
    """Factor from the figure to CPU us per event, for the comparison with the floor; 0: not such a cost."""


def start_up(start: Callable[[], Server]) -> Figures:
    with start():
        pass  # fills the file cache and writes the compiled modules
    seconds, rss = [], []
    for _ in range(5):
        with start() as server:
            seconds.append(server.start_s)
            time.sleep(0.5)
            rss.append(server.rss_kib() / 1024)
    return {"ready_s": median(seconds), "idle_rss_mib": median(rss)}


def idle(start: Callable[[], Server], chats: int = 1000) -> Figures:
    with start() as server:
        warm_up(server)
        before = server.rss_kib()
        with server.hold("idle", chats=chats, ramp=4) as client:
            client.wait_holding()
            time.sleep(1)
            grown = server.rss_kib() - before
            cpu, pause = server.cpu_s(), 10
            time.sleep(pause)
            cpu = server.cpu_s() - cpu
            report = checked(client.report())
    return {"kib_per_chat": grown / chats, "idle_cpu_percent": 100 * cpu / pause, "client": report}


def slow(start: Callable[[], Server], chats: int) -> Figures:
    with start() as server:
        warm_up(server)
        report = checked(server.load("slow", chats=chats, rate=20, count=100, ramp=2))
    return {
        "us_per_event": 1e6 * report["cpu_s"] / report["events"],
        "gap_late_p99_ms": report["gap_late_ms"]["p99"],
        "chat_p50_s": report["chat_s"].get("p50"),
        "completed": report["completed"],
        "client": report,
    }


def stamped(start: Callable[[], Server]) -> Figures:
    with start() as server:
        server.wait_ready_for_runs()
        warm_up(server)
        report = checked(server.load("stamped", chats=200, rate=20, count=100, ramp=2))
    return {
        "us_per_event": 1e6 * report["cpu_s"] / report["events"],
        "delay_p50_ms": report["delay_ms"]["p50"],
        "delay_p99_ms": report["delay_ms"]["p99"],
        "client": report,
    }


def burst(start: Callable[[], Server], model: str, rounds: int) -> Figures:
    with start() as server:
        warm_up(server)
        report = checked(server.load(model, count=20_000, rounds=rounds))
    return {
        "cpu_s_per_1000": 1000 * report["cpu_s"] / report["events"],
        "first_delta_ms": report["first_delta_ms"]["p50"],
        "client": report,
    }


def checked(report: Figures) -> Figures:
    """Check a report: a few chats may be lost, and are then listed under the table."""
    if report["completed"] < 0.95 * report["chats"]:
        raise RuntimeError(f"{report['completed']} of {report['chats']} chats completed: {report['problems']}")
    return report


def warm_up(server: Server) -> None:
    checked(server.load("burst", count=10))


def us_per_floor_event(logs: Path) -> float:
    """Measure the unit: CPU us of one `send_all` of a bare Trio server, on this machine, now."""
    with Server(FLOOR, logs / "unit.log") as server:
        warm_up(server)
        report = checked(server.load("burst", count=20_000, rounds=2))
    return 1e6 * report["cpu_s"] / report["events"]


SCENARIOS = {
    "floor": Scenario(lambda start: slow(start, 200), server=FLOOR),
    "start-up": Scenario(start_up),
    "idle-1000": Scenario(idle),
    "slow-200": Scenario(lambda start: slow(start, 200)),
    "slow-200-python-gc": Scenario(lambda start: slow(start, 200), PYTHONS_OWN_GC),
    "slow-500": Scenario(lambda start: slow(start, 500)),
    "slow-500-python-gc": Scenario(lambda start: slow(start, 500), PYTHONS_OWN_GC),
    "stamped-200-local": Scenario(stamped),
    "stamped-200-redis": Scenario(stamped, redis=True),
    "burst": Scenario(lambda start: burst(start, "burst", rounds=3)),
    "burst-never-awaiting": Scenario(lambda start: burst(start, "burst-never-awaiting", rounds=10)),
}

ROWS = [
    Row("floor", "floor_us_per_event", "bare Trio, one send_all per event: CPU us/event", to_us=1),
    Row("floor", "us_per_event", "bare Trio, 200 chats of 20 tokens/s: CPU us/event", to_us=1),
    Row("start-up", "ready_s", "start to ready line: s", 1.0),
    Row("start-up", "idle_rss_mib", "idle server: RSS MiB", 65),
    Row("idle-1000", "kib_per_chat", "1,000 idle chats: RSS KiB/chat", 60),
    Row("idle-1000", "idle_cpu_percent", "1,000 idle chats: CPU %"),
    Row("slow-200", "us_per_event", "200 chats of 20 tokens/s: CPU us/event", 180, to_us=1),
    Row("slow-200", "gap_late_p99_ms", "200 chats of 20 tokens/s: gap late p99 ms"),
    Row("slow-500", "us_per_event", "500 chats of 20 tokens/s: CPU us/event", to_us=1),
    Row("slow-500", "gap_late_p99_ms", "500 chats of 20 tokens/s: gap late p99 ms", 60),
    Row("slow-500", "chat_p50_s", "500 chats of 20 tokens/s: chat p50 s (5 is ideal)"),
    Row("slow-500", "completed", "500 chats of 20 tokens/s: completed", 500),
    Row("slow-200-python-gc", "us_per_event", "200 chats, Python's gc: CPU us/event", to_us=1),
    Row("slow-200-python-gc", "gap_late_p99_ms", "200 chats, Python's gc: gap late p99 ms"),
    Row("slow-500-python-gc", "us_per_event", "500 chats, Python's gc: CPU us/event", to_us=1),
    Row("slow-500-python-gc", "gap_late_p99_ms", "500 chats, Python's gc: gap late p99 ms"),
    Row("slow-500-python-gc", "completed", "500 chats, Python's gc: completed"),
    Row("stamped-200-local", "us_per_event", "200 stamped chats, local events: CPU us/event", to_us=1),
    Row("stamped-200-local", "delay_p50_ms", "200 stamped chats, local events: delay p50 ms"),
    Row("stamped-200-local", "delay_p99_ms", "200 stamped chats, local events: delay p99 ms"),
    Row("stamped-200-redis", "us_per_event", "200 stamped chats, events in Redis: CPU us/event", to_us=1),
    Row("stamped-200-redis", "delay_p50_ms", "200 stamped chats, events in Redis: delay p50 ms"),
    Row("stamped-200-redis", "delay_p99_ms", "200 stamped chats, events in Redis: delay p99 ms"),
    Row("burst", "cpu_s_per_1000", "burst, awaiting: CPU s/1,000 events", 0.040, to_us=1000),
    Row(
        "burst-never-awaiting",
        "cpu_s_per_1000",
        "burst, never awaiting: CPU s/1,000 events",
        0.006,
        to_us=1000,
    ),
    Row("burst-never-awaiting", "first_delta_ms", "burst, never awaiting: first delta ms", 20),
]
MORE_IS_BETTER = {"completed"}


class Results:
    """The folder of finished slices: one file for each run of each scenario."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, scenario: str, run: int) -> Path:
        return self.folder / f"{scenario}-{run}.json"

    def runs(self, scenario: str) -> dict[int, Figures]:
        numbers = (path.stem.removeprefix(f"{scenario}-") for path in self.folder.glob(f"{scenario}-*.json"))
        runs = sorted(int(number) for number in numbers if number.isdigit())
        return {run: json.loads(self.file(scenario, run).read_text()) for run in runs}


@contextmanager
def redis_settings() -> Iterator[dict[str, str]]:
    """A Redis for the length of the block, and the settings that have an app use it."""
    server = RedisServer()
    trio.run(server.__aenter__)
    try:
        yield {"AGENTAPP_INTERRUPT_REDIS_URL": server.url, "AGENTAPP_EVENT_STORE": "redis"}
    finally:
        trio.run(server.aclose)


def take(name: str, app: Path, logs: Path) -> Figures:
    """Measure one slice: a scenario between two measurements of the floor, and the load of the machine."""
    scenario = SCENARIOS[name]
    script = scenario.server or app
    load = os.getloadavg()[0]
    floors = [us_per_floor_event(logs)]
    with redis_settings() if scenario.redis else nullcontext({}) as more:
        figures = scenario.take(lambda: Server(script, logs / f"{name}.log", scenario.settings | more))
    floors.append(us_per_floor_event(logs))
    return {
        "scenario": name,
        "figures": figures | {"floor_us_per_event": mean(floors)},
        "floors": floors,
        "machine": {"load": load, "cores": os.cpu_count(), "python": platform.python_version()},
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def take_missing(names: list[str], results: Results, runs: int, app: Path, *, again: bool) -> bool:
    """Measure all slices; True if all succeeded.

    Each scenario is measured once, then each again, because noise comes in waves.
    """
    complete = True
    for run in range(1, runs + 1):
        for name in names:
            file = results.file(name, run)
            if file.exists() and not again:
                continue
            print(f"{name}, run {run} of {runs} ...", file=sys.stderr, flush=True)
            try:
                result = take(name, app, results.folder)
            except (RuntimeError, LookupError) as error:
                print(f"{name} failed: {error!r}", file=sys.stderr)
                complete = False
            else:
                file.write_text(json.dumps(result, indent=2) + "\n")
    return complete


def table(results: Results) -> Iterator[str]:
    yield line("figure", "median", "all runs", "runs", "aim", "x floor", "client")
    for row in ROWS:
        runs = [run["figures"] for run in results.runs(row.scenario).values()]
        runs = [figures for figures in runs if figures.get(row.figure) is not None]
        if not runs:
            yield line(row.what, "-")
            continue
        values = [figures[row.figure] for figures in runs]
        ratios = [row.to_us * figures[row.figure] / figures["floor_us_per_event"] for figures in runs]
        busy = median(client_busy(figures) for figures in runs)
        yield line(
            row.what,
            f"{median(values):.4g}",
            f"{min(values):.4g} to {max(values):.4g}",
            str(len(runs)),
            judged(row, median(values)),
            f"{median(ratios):.2f}" if row.to_us else "",
            f"{busy:.0%}" if busy else "",
        )


def line(*cells: str) -> str:
    widths = (-51, 8, 18, 4, 11, 7, 6)
    padded = (
        cell.rjust(width) if width > 0 else cell.ljust(-width) for cell, width in zip(cells, widths, strict=False)
    )
    return "  ".join(padded).rstrip()


def judged(row: Row, value: float) -> str:
    if row.aim is None:
        return ""
    reached = value >= row.aim if row.figure in MORE_IS_BETTER else value <= row.aim
    return f"{row.aim:g} {'ok' if reached else 'MISS':4}"


def client_busy(figures: Figures) -> float:
    """The part of one core that the load client needed. Near 1 the client was measured, not the server."""
    report = figures.get("client")
    return report["client_cpu_s"] / report["wall_s"] if report else 0.0


def remarks(results: Results) -> Iterator[str]:
    """Remarks under the table that a reader has to know."""
    newest_code = max((path.stat().st_mtime for path in CODE.rglob("*.py")), default=0.0)
    outdated = []
    for name in SCENARIOS:
        for run, result in results.runs(name).items():
            if results.file(name, run).stat().st_mtime < newest_code and name != "floor":
                outdated.append(f"{name} {run}")
            low, high = sorted(result["floors"])
            if high > 1.25 * low:
                yield f"{name}, run {run}: a noisy machine, the floor went from {low:.1f} to {high:.1f} us"
            report = result["figures"].get("client", {})
            for problem, count in report.get("problems", {}).items():
                yield f"{name}, run {run}: {count} of {report['chats']} chats: {problem}"
    if outdated:
        yield f"older than the code, take them with --again: {', '.join(outdated)}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the server; see bench/README.md.")
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="also what has been measured already")
    parser.add_argument("--app", type=Path, help="another server to measure; needs --results")
    parser.add_argument("--results", type=Path, help="where finished slices are kept")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if options.app and not options.results:
        parser.error("the figures of another server must not mix with ours: name their folder with --results")
    results = Results(options.results or HERE / "results")
    results.folder.mkdir(parents=True, exist_ok=True)
    raise_limit_of_open_files()
    names = options.scenarios or list(SCENARIOS)
    app = options.app or HERE / "agents.py"
    complete = take_missing(names, results, options.runs, app, again=options.again)
    for line in (*table(results), *remarks(results)):
        print(line)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
