"""What happened: lines that the nodes' handlers wrote, and what clients and the test saw; on CLOCK_MONOTONIC."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import attrs

__all__ = [
    "TERMINAL",
    "Fault",
    "Flaw",
    "Freed",
    "History",
    "Line",
    "Record",
    "Sample",
    "Start",
    "Stop",
    "Stuck",
    "Terminal",
]

TERMINAL = ("STOPPED", "FINISHED", "ERROR")


@attrs.frozen(kw_only=True)
class Line:
    """Written by a handler in its own slice: enter, slice, cancelled, cleanup, cleaned, leave, exit."""

    t: float
    what: str
    run: str
    session: str
    token: int
    node: str


@attrs.frozen(kw_only=True)
class Start:
    """A request for a run and its answer; status 0: there was none."""

    t0: float
    t1: float
    run: str
    session: str
    node: str
    status: int
    code: str | None = None
    allowed: tuple[int, ...] = ()
    """Statuses of refusals that are in order."""


@attrs.frozen(kw_only=True)
class Terminal:
    """The terminal event that a client saw."""

    t: float
    run: str
    state: str
    code: str | None


@attrs.frozen(kw_only=True)
class Stop:
    """A stop by session or by run id, and its receipt; `target` is the run that the receipt names."""

    t0: float
    t1: float
    node: str = ""
    session: str | None = None
    run: str | None = None
    status: int = 200
    accepted: bool = False
    stopped: bool = False
    target: str | None = None
    state: str | None = None
    foreign: bool = False
    """Sent for another user: nothing may come of it."""


@attrs.frozen(kw_only=True)
class Record:
    """A run record as somebody read it: from Redis itself, or by way of a node."""

    t: float
    run: str
    state: str
    reason: str | None = None
    token: int = 0
    source: str = "redis"


@attrs.frozen(kw_only=True)
class Sample:
    """A session record and its run's, read in one step."""

    t: float
    session: str
    state: str
    run: str
    run_state: str | None


@attrs.frozen(kw_only=True)
class Fault:
    """Something was broken from `t0` to `t1`: "kill" and "pause" name a node, "data lost" is that of Redis."""

    kind: str
    t0: float
    t1: float
    node: str | None = None


@attrs.frozen(kw_only=True)
class Freed:
    """A session of a dead owner could be claimed again."""

    session: str
    died_at: float
    t: float


@attrs.frozen(kw_only=True)
class Stuck:
    """Something that should have ended has not."""

    t: float
    what: str


@attrs.frozen(kw_only=True)
class Flaw:
    """What a scenario itself has found wrong, and by which rule; "E1 lost" and "E1 doubled" are about events."""

    rule: str
    what: str


@attrs.define
class History:
    lines: list[Line] = attrs.field(factory=list)
    starts: list[Start] = attrs.field(factory=list)
    terminals: list[Terminal] = attrs.field(factory=list)
    stops: list[Stop] = attrs.field(factory=list)
    records: list[Record] = attrs.field(factory=list)
    samples: list[Sample] = attrs.field(factory=list)
    faults: list[Fault] = attrs.field(factory=list)
    freed: list[Freed] = attrs.field(factory=list)
    stuck: list[Stuck] = attrs.field(factory=list)
    flaws: list[Flaw] = attrs.field(factory=list)

    def read_lines(self, path: Path) -> None:
        """Take the nodes' lines anew; of a node that was killed the last one may be torn."""
        whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        self.lines = sorted((Line(**json.loads(line)) for line in whole), key=lambda line: line.t)

    def sessions(self) -> list[str]:
        return sorted({start.session for start in self.starts})

    def runs(self) -> list[str]:
        return list(dict.fromkeys([start.run for start in self.starts]))

    def faults_of(self, kind: str, node: str | None = None) -> Iterable[Fault]:
        return (fault for fault in self.faults if fault.kind == kind and node in (None, fault.node))
