"""The figures as tables, and the page that holds them; nothing else writes docs/reference/benchmarks.md."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from scenarios import FLOOR, OURS, REPLACED

Slice = Mapping[str, Any]
"""One scenario in one round, as `measure.py` keeps it."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    scenario: str
    figure: str
    what: str
    aim: float | None = None
    """What our median should reach."""
    of_other: float | None = None
    """What the ratio to the replaced product should reach."""
    of_floor: float | None = None
    """What the ratio to the floor should reach."""
    unit: float = 1.0
    """The floor's figure is in this many of ours."""
    more_is_better: bool = False


def slow_rows(scenario: str, what: str, **aims: dict[str, float]) -> list[Row]:
    names = {
        "us_per_event": "CPU us/event",
        "all_s": "until all are done, s",
        "first_event_p99_ms": "first event p99, ms",
        "delay_p50_ms": "handler to client p50, ms",
        "delay_p99_ms": "handler to client p99, ms",
        "gap_late_p99_ms": "gap late p99, ms",
    }
    return [Row(scenario, figure, f"{what}: {name}", **aims.get(figure, {})) for figure, name in names.items()]


THEN, NOW = "ms_per_chat_at_first", "ms_per_chat_afterwards"

SLOW = [
    *slow_rows("slow-1", "1 chat"),
    *slow_rows("slow-50", "50 chats"),
    *slow_rows("slow-200", "200 chats", gap_late_p99_ms={"aim": 30}),
    *slow_rows("steady-200", "200 chats, 400 deltas", us_per_event={"aim": 85, "of_other": 0.40, "of_floor": 1.6}),
    *slow_rows("slow-500", "500 chats", gap_late_p99_ms={"aim": 60}),
    *slow_rows(
        "slow-1000",
        "1,000 chats at once",
        all_s={"aim": 8, "of_other": 0.30},
        first_event_p99_ms={"aim": 700},
        delay_p99_ms={"aim": 5},
    ),
    *slow_rows("asyncio-reader-200", "200 chats, asyncio reader"),
]

TABLES = {
    "CPU": [
        *(row for row in SLOW if row.figure == "us_per_event"),
        Row("redis-200", "us_per_event", "200 chats, stops over Redis: CPU us/event"),
        Row("redis-events-200", "us_per_event", "200 chats, events in Redis too: CPU us/event"),
        Row("short-new", "ms_per_chat", "short chat, new connection: CPU ms", 1.6),
        Row("short-kept", "ms_per_chat", "short chat, kept connection: CPU ms"),
        Row("burst", "cpu_s_per_1000", "burst, awaiting: CPU s/1,000 events", 0.0113),
        Row("burst-never-awaiting", "cpu_s_per_1000", "burst, never awaiting: CPU s/1,000 events", 0.0069),
        Row("idle-1000", "idle_cpu_percent", "1,000 idle chats: CPU % of a core"),
        Row("start-up", "cpu_s", "start: CPU s"),
        Row("bridge-200", "us_per_event_of_trio", "200 chats, 200 deltas, Trio handler: CPU us/event"),
        Row("bridge-200", "us_per_event_of_asyncio", "200 chats, 200 deltas, asyncio handler: CPU us/event"),
        Row("bridge-200", "more_us", "200 chats, 200 deltas, the way from the asyncio loop: CPU us/event", 25),
        Row("bridge-200", "us_per_burst_event_of_asyncio", "burst, asyncio handler: CPU us/event"),
        Row("protocols-200", "us_per_event_of_process", "200 chats over POST /process: CPU us/event"),
        Row("protocols-200", "a2a_of_process", "A2A in units of POST /process", 1.3),
        Row("protocols-200", "responses_of_process", "OpenAI Responses in units of POST /process", 1.4),
        Row("protocols-200", "completions_of_process", "Chat Completions in units of POST /process", 1.4),
        Row("protocols-200", "ag-ui_of_process", "AG-UI in units of POST /process", 1.4),
        Row("protocols-200", "ai-sdk_of_process", "the AI SDK in units of POST /process", 1.4),
        Row("sight-200", "us_per_event_plain", "200 chats, without metrics: CPU us/event"),
        Row("sight-200", "us_per_event_watched", "200 chats, metrics and JSON logs: CPU us/event"),
        Row("sight-200", "watched_of_plain", "the second in units of the first", aim=1.05),
        Row("sight-200", "us_per_event_traced", "200 chats, traces too, all sampled: CPU us/event"),
        Row("sight-200", "traced_of_plain", "the same in units of the first", aim=1.2),
        Row("slow-200-python-gc", "us_per_event", "200 chats, Python's own gc: CPU us/event"),
        Row("slow-500-python-gc", "us_per_event", "500 chats, Python's own gc: CPU us/event"),
    ],
    "Time": [
        *(row for row in SLOW if row.figure != "us_per_event"),
        Row("starts-beside-200", "gap_late_p99_ms", "200 chats while 500 start in 1 s: gap late p99, ms", 30),
        Row("starts-beside-200", "gap_late_max_ms", "200 chats while 500 start in 1 s: gap late max, ms"),
        Row("starts-beside-200", "first_event_p99_ms", "500 starts beside 200 chats: first event p99, ms"),
        Row("redis-events-200", "delay_p50_ms", "200 chats, events in Redis too: handler to client p50, ms"),
        Row("redis-events-200", "delay_p99_ms", "200 chats, events in Redis too: handler to client p99, ms"),
        Row("short-new", "chats_per_s", "short chats, new connections: per second", more_is_better=True),
        Row("short-kept", "chats_per_s", "short chats, kept connections: per second", more_is_better=True),
        Row("burst-never-awaiting", "first_delta_ms", "burst, never awaiting: first delta, ms", 20),
        Row("start-up", "ready_s", "start to ready line, s", 1.0),
        Row("slow-200-python-gc", "gap_late_p99_ms", "200 chats, Python's own gc: gap late p99, ms"),
        Row("slow-500-python-gc", "gap_late_p99_ms", "500 chats, Python's own gc: gap late p99, ms"),
    ],
    "Memory and connections": [
        Row("start-up", "idle_rss_mib", "idle server: RSS MiB", 65),
        Row("idle-1000", "kib_per_chat", "1,000 idle chats: RSS KiB/chat", 45),
        Row("redis-200", "completed", "200 chats, stops over Redis: completed", 200, more_is_better=True),
        Row("redis-200", "redis_connections", "Redis connections of a process with 200 chats"),
    ],
    "Stops": [
        *(
            Row(scenario, figure, f"{where}: {what}", aim)
            for scenario, where in (("stops", "one node"), ("stops-two-nodes", "two nodes"))
            for figure, what, aim in (
                ("stop_p50_ms", "stop to end of stream p50, ms", None),
                ("stop_p99_ms", "stop to end of stream p99, ms", None),
                ("lost_percent", "stops lost, by session, %", None),
                ("lost_by_run_percent", "stops lost, by run, %", 0),
            )
        )
    ],
    "Growth of cost": [
        *(
            Row("growth-chats", f"us_per_event_at_{chats}", f"{chats:,} at a time: CPU us/event")
            for chats in (1, 10, 100, 1000)
        ),
        Row("growth-past", THEN, "short chat, fresh server: CPU ms"),
        Row("growth-past", NOW, "short chat, after 30,000 ended sessions: CPU ms"),
        Row("growth-past", "growth", "the second in units of the first", 1.05),
        Row("growth-past", "kib_per_session", "kept for each ended session: RSS KiB", 1),
        Row("growth-history", THEN, "short chat, everything in an empty Redis: CPU ms"),
        Row("growth-history", NOW, "short chat, 10,000 sessions in Redis: CPU ms"),
        Row("growth-history", "growth", "the second in units of the first", 1.05),
        Row("growth-history", "ready_s", "start with 10,000 sessions in Redis, s"),
        *(
            Row("growth-workers", f"{figure}_at_{workers}", f"workers {workers}: {what}", more_is_better=more)
            for figure, what, more in (
                ("ms_per_chat", "short chat, CPU ms", False),
                ("chats_per_s", "short chats per second", True),
                ("us_per_event", "200 chats, CPU us/event", False),
            )
            for workers in (1, 2, 4)
        ),
    ],
}

UNEVEN = 0.2
"""Of the machine: about as much as half a core of two."""

HEADINGS = ("what", "ours", "replaced", "ratio", "floor", "times floor", "client CPU", "aim")


def cells(row: Row, rounds: Sequence[Slice]) -> tuple[str, ...] | None:
    """A line of the table; None if nothing of it was measured. Ratios are taken in each round, then the median."""
    ours = values(row, rounds, OURS)
    if not ours:
        return None
    ratio, times = ratios(row, rounds, REPLACED), ratios(row, rounds, FLOOR)
    return (
        row.what,
        spread(ours.values()),
        spread(values(row, rounds, REPLACED).values()),
        f"{median(ratio):.2f}{' uneven' if uneven(rounds) else ''}" if ratio else "",
        spread(values(row, rounds, FLOOR).values()),
        f"{median(times):.2f}" if times else "",
        " / ".join(busy(rounds, side) for side in (OURS, REPLACED) if busy(rounds, side)),
        judged(row, median(ours.values()), ratio, times),
    )


def values(row: Row, rounds: Sequence[Slice], side: str) -> dict[int, float]:
    """The figure in each round in which it was taken."""
    found = ((number, taken["sides"].get(side, {}).get(row.figure)) for number, taken in enumerate(rounds))
    return {number: figure for number, figure in found if figure is not None}


def ratios(row: Row, rounds: Sequence[Slice], side: str) -> list[float]:
    ours, others = values(row, rounds, OURS), values(row, rounds, side)
    return [ours[number] / other for number, other in others.items() if number in ours and other]


def uneven(rounds: Sequence[Slice]) -> bool:
    """Whether other processes took much more of the machine beside one side than beside the other."""
    shares = ([taken["others"][side] for taken in rounds if side in taken["others"]] for side in (OURS, REPLACED))
    ours, others = (median(share) if share else 0.0 for share in shares)
    return abs(ours - others) > UNEVEN


def spread(figures: Sequence[float] | Any) -> str:
    """Median, and minimum and maximum if there are several: never the best run alone."""
    figures = list(figures)
    if not figures:
        return ""
    middle = number(median(figures))
    return middle if len(figures) == 1 else f"{middle} ({number(min(figures))} to {number(max(figures))})"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def busy(rounds: Sequence[Slice], side: str) -> str:
    """How much of one core the load client took: near 100 %, it and not the server is what was measured."""
    reports = [report for taken in rounds if (report := taken["sides"].get(side, {}).get("client"))]
    return f"{median(report['client_cpu_s'] / report['wall_s'] for report in reports):.0%}" if reports else ""


def judged(row: Row, value: float, ratio: Sequence[float], times: Sequence[float]) -> str:
    aims = [("", row.aim, value)]
    aims += [("ratio ", row.of_other, median(ratio))] if ratio else []
    aims += [("floor ", row.of_floor, median(times))] if times else []
    return ", ".join(
        f"{name}{aim:g} {'ok' if (value >= aim if row.more_is_better else value <= aim) else 'MISS'}"
        for name, aim, value in aims
        if aim is not None
    )


def render(lines: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """A table of Markdown, padded so that a terminal shows it, too; columns without any figure are left out."""
    used = [i for i in range(len(HEADINGS)) if i == 0 or any(line[i] for line in lines)]
    table = [[line[i] for i in used] for line in (HEADINGS, *lines)]
    widths = [max(len(line[i]) for line in table) for i in range(len(used))]
    for at, line in enumerate(table):
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield f"| {' | '.join(padded)} |"
        if at == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"


def tables(results: Mapping[str, Sequence[Slice]]) -> Iterator[str]:
    for title, rows in TABLES.items():
        lines = [line for row in rows if (line := cells(row, results.get(row.scenario, ())))]
        if lines:
            yield from (f"## {title}", "", *render(lines), "")


def remarks(results: Mapping[str, Sequence[Slice]]) -> Iterator[str]:
    """What a reader of the tables has to know before believing them."""
    for name, rounds in results.items():
        for at, taken in enumerate(rounds, 1):
            low, high = sorted(taken["units"])
            if high > 1.25 * low:
                yield f"{name}, round {at}: noisy, one `send_all` took {low:.1f} us, or {high:.1f}."
            for side, figures in taken["sides"].items():
                if failure := figures.get("failed"):
                    yield f"{name}, round {at}, {side}: failed: {failure}"
                if (others := taken["others"][side]) > 0.1:
                    yield f"{name}, round {at}, {side}: other processes took {others:.0%} of the machine."
                report = figures.get("client", {})
                for problem, count in report.get("problems", {}).items():
                    yield f"{name}, round {at}, {side}: {count} of {report['chats']} chats: {problem}"


PREFACE = """\
# Benchmarks

Written by `make bench`; do not edit. What is measured and how to read it:
[bench/README.md]({root}/bench/README.md).
"Replaced" is {replaced} with the same agent, one process each, in the same run, one
after the other. "Floor" is a bare Trio program that sleeps and sends. A figure is the median; with several rounds,
minimum and maximum follow. The ratio is ours to the replaced product's. An "uneven" ratio says little: other
processes took much more of the machine beside one of the two. "Client CPU" is the share of a core that the load
client took (ours / replaced). The aims are those for a machine that is otherwise idle.
"""


def page(results: Mapping[str, Sequence[Slice]], about: Mapping[str, Any], missing: Sequence[str]) -> str:
    return "\n".join(
        (
            PREFACE.format(root="../..", replaced=about["replaced"]),
            *(f"- {name}: {value}" for name, value in about["machine"].items()),
            f"- ours: {', '.join(f'{name} {version}' for name, version in about['ours'].items())}",
            f"- replaced: {', '.join(f'{name} {version}' for name, version in about['theirs'].items())}",
            f"- taken: {taken(results)}",
            f"- what else ran: {company(results)}",
            "",
            *tables(results),
            "## Remarks",
            "",
            *(f"- {remark}" for remark in remarks(results)),
            f"- Not measured with this code: {', '.join(missing) or 'nothing'}.",
            "",
        )
    )


def taken(results: Mapping[str, Sequence[Slice]]) -> str:
    slices = [taken for rounds in results.values() for taken in rounds]
    if not slices:
        return "nothing"
    times = sorted(taken["taken"] for taken in slices)
    codes = sorted({taken["revision"] for taken in slices})
    return f"{times[0]} to {times[-1]}, revision {', '.join(codes)}, rounds: {max(map(len, results.values()))}"


def company(results: Mapping[str, Sequence[Slice]]) -> str:
    shares = [share for rounds in results.values() for taken in rounds for share in taken["others"].values()]
    loads = [taken["load"] for rounds in results.values() for taken in rounds]
    if not shares:
        return "unknown"
    return (
        f"other processes took {median(shares):.0%} of the machine ({min(shares):.0%} to {max(shares):.0%}), "
        f"load average before each slice {median(loads):.1f} ({min(loads):.1f} to {max(loads):.1f})"
    )
