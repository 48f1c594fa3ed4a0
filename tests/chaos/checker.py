"""Judges a history by the guarantees of the interrupt protocol. One checker for all scenarios.

What the protocol declares void is allowed, and nothing else: a node that was paused for longer than its lease may
execute the one slice that was already scheduled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import quantiles

import attrs

from .history import TERMINAL, Fault, History, Line, Record, Stop

__all__ = ["Rules", "Verdict", "Violation", "judge"]

BODY_ENDED = ("cancelled", "leave")


@attrs.frozen(kw_only=True)
class Rules:
    """Durations in seconds."""

    lease: float
    stop_within: float
    """From an accepted stop to the end of the body."""
    grace: float = 0.1
    """A body that ended by itself so soon after a stop was accepted did not have to see it."""
    slack: float = 1.0
    """For processes that wait for a processor, and for the probe's own pace."""
    faults: bool = False
    """Leases may be lost, so runs may end as errors."""


@attrs.frozen
class Violation:
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@attrs.define
class Verdict:
    violations: list[Violation] = attrs.field(factory=list)
    stop_latencies: list[float] = attrs.field(factory=list)
    """From the call of a stop to the end of the body it ended, in seconds."""
    freed_after: list[float] = attrs.field(factory=list)
    accepted: int = 0

    def count(self, *rules: str) -> int:
        return sum(violation.rule in rules for violation in self.violations)

    @property
    def lost(self) -> int:
        return self.count("L1", "E1 lost")

    @property
    def doubled(self) -> int:
        return self.count("S1", "E1 doubled")

    @property
    def stuck(self) -> int:
        return self.count("stuck", "L2")

    @property
    def other(self) -> int:
        return len(self.violations) - self.lost - self.doubled - self.stuck

    def latency(self, percent: int) -> float | None:
        """A percentile of the stop latencies, in seconds."""
        if len(self.stop_latencies) < 2:
            return None
        return quantiles(self.stop_latencies, n=100, method="inclusive")[percent - 1]

    def assert_clean(self) -> None:
        shown = "\n".join(map(str, self.violations[:20]))
        assert not self.violations, f"{len(self.violations)} violations:\n{shown}"


def judge(history: History, rules: Rules) -> Verdict:
    return _Judge(history, rules).judge()


class _Judge:
    def __init__(self, history: History, rules: Rules) -> None:
        self.history = history
        self.rules = rules
        self.verdict = Verdict()
        self.by_session: dict[str, list[Line]] = defaultdict(list)
        self.by_run: dict[str, list[Line]] = defaultdict(list)
        for line in sorted(history.lines, key=lambda line: line.t):
            self.by_session[line.session].append(line)
            self.by_run[line.run].append(line)
        self.records: dict[str, list[Record]] = defaultdict(list)
        for record in sorted(history.records, key=lambda record: record.t):
            self.records[record.run].append(record)
        self.session_of = {start.run: start.session for start in history.starts}
        self.stops_by_run: dict[str, list[Stop]] = defaultdict(list)
        self.stops_by_session: dict[str | None, list[Stop]] = defaultdict(list)
        for stop in history.stops:
            if stop.run is not None:
                self.stops_by_run[stop.run].append(stop)
            else:
                self.stops_by_session[stop.session].append(stop)

    def judge(self) -> Verdict:
        for session, lines in self.by_session.items():
            self._s1_one_body(session, lines)
            self._s5_tokens(session, lines)
        for run, lines in self.by_run.items():
            self._s2_ended(run, lines)
            self._c1_cleanup(run, lines)
        self._s2_one_state()
        self._refused()
        self._s3_samples()
        self._s4_stopped_by_own()
        for stop in self.history.stops:
            self._l1(stop)
        self._l2()
        for stuck in self.history.stuck:
            self._blame("stuck", stuck.what)
        for flaw in self.history.flaws:
            self._blame(flaw.rule, flaw.what)
        return self.verdict

    def _blame(self, rule: str, text: str) -> None:
        self.verdict.violations.append(Violation(rule, text))

    # Safety.

    def _s1_one_body(self, session: str, lines: list[Line]) -> None:
        """Body and cleanup of one run are over before the next one's begin: the runs' lines do not interleave."""
        current: str | None = None
        over: dict[str, float] = {}
        late: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            if line.run == current:
                continue
            if line.run in over:
                late[line.run].append(line)
                continue
            if current is not None:
                over[current] = line.t
            current = line.run
        for run, after in late.items():
            if not self._is_one_slice_after_pause(over[run], after):
                did = ", ".join(f"{line.what} +{line.t - over[run]:.3f}" for line in after[:6])
                self._blame("S1", f"session {session}: run {run} goes on beside the next one: {did}")

    def _is_one_slice_after_pause(self, next_began: float, after: list[Line]) -> bool:
        for pause in self._long_pauses(after[0].node):
            if pause.t0 < next_began and after[0].t >= pause.t1 - 0.05:
                # Its unwinding is part of that slice or is shielded cleanup, whose time is over: it cannot await.
                return (
                    sum(line.what in ("slice", "enter") for line in after) <= 1
                    and after[-1].t <= pause.t1 + self.rules.slack
                )
        return False

    def _long_pauses(self, node: str) -> Iterable[Fault]:
        """Pauses after which a lease may have ended."""
        return (
            fault for fault in self.history.faults_of("pause", node) if fault.t1 - fault.t0 > 0.8 * self.rules.lease
        )

    def _s5_tokens(self, session: str, lines: list[Line]) -> None:
        last = 0
        for line in lines:
            if line.what == "enter":
                if line.token <= last:
                    self._blame("S5", f"session {session}: run {line.run} has token {line.token} after {last}")
                last = max(last, line.token)

    def _s2_ended(self, run: str, lines: list[Line]) -> None:
        enters = [line for line in lines if line.what == "enter"]
        if len(enters) > 1:
            self._blame("S1", f"run {run} was executed {len(enters)} times")
        if lines[-1].what != "exit" and not self._killed(lines[0].node, lines[0].t):
            self._blame("S2", f"run {run} did not end: its last sign is {lines[-1].what}")
        lost = any(fault.t1 >= lines[0].t for fault in self.history.faults_of("data lost"))
        if self._final(run) is None and not lost:
            self._blame("S2", f"run {run} was executed and has no terminal state")

    def _killed(self, node: str, after: float) -> bool:
        return any(fault.t0 >= after for fault in self.history.faults_of("kill", node))

    def _c1_cleanup(self, run: str, lines: list[Line]) -> None:
        did = [line.what for line in lines]
        if "cleanup" not in did or "cleaned" in did or self._killed(lines[0].node, lines[0].t):
            return
        last = self._final(run)
        if last is None or last.reason not in ("cleanup_timeout", "lease_lost", "owner_lost"):
            self._blame("C1", f"run {run}: its cleanup was cut, and it ended as {last}")

    def _final(self, run: str) -> Record | None:
        return next((record for record in self.records[run] if record.state in TERMINAL), None)

    def _s2_one_state(self) -> None:
        for run, records in self.records.items():
            first = self._final(run)
            if first is None:
                continue
            for record in records:
                if record.t > first.t and (record.state, record.reason) != (first.state, first.reason):
                    self._blame(
                        "S2",
                        f"run {run} was {first.state}/{first.reason} and became {record.state}/{record.reason} "
                        f"({record.source})",
                    )
                    break
        for terminal in self.history.terminals:
            record = self._final(terminal.run)
            if record is not None and record.state != terminal.state:
                self._blame(
                    "S2",
                    f"run {terminal.run}: its client was told {terminal.state}/{terminal.code}, "
                    f"and its record says {record.state}/{record.reason}",
                )
        for stop in self.history.stops:
            record = self._final(stop.target or "")
            if stop.foreign and stop.state in TERMINAL:
                self._blame("S4", f"a stop for another user was told of run {stop.target}: {stop.state}")
            elif record is not None and stop.state in TERMINAL and stop.state != record.state:
                self._blame(
                    "S2", f"run {stop.target}: a stop was told {stop.state}, its record says {record.state}"
                )

    def _refused(self) -> None:
        for start in self.history.starts:
            if start.status not in (200, 409, *start.allowed) and not self.rules.faults:
                self._blame(
                    "refused", f"run {start.run} was refused ({start.status} {start.code}), and nothing is broken"
                )
            if start.status not in (0, 200) and start.run in self.by_run:
                self._blame("S1", f"run {start.run} was refused ({start.status} {start.code}) and executed")

    def _s3_samples(self) -> None:
        for sample in self.history.samples:
            if sample.run_state is None:
                continue
            if (sample.state == "RUNNING") == (sample.run_state in TERMINAL):
                self._blame(
                    "S3", f"session {sample.session} is {sample.state}, its run {sample.run} is {sample.run_state}"
                )

    def _s4_stopped_by_own(self) -> None:
        """A run that was stopped was meant by a stop."""
        for run, session in self.session_of.items():
            record = self._final(run)
            if record is None or record.reason not in ("stopped", "stopped_before_start"):
                continue
            stops = (*self.stops_by_run.get(run, ()), *self.stops_by_session.get(session, ()))
            if not any(self._may_mean(stop, run) for stop in stops):
                self._blame("S4", f"run {run} of session {session} was {record.reason}, and no stop meant it")

    def _may_mean(self, stop: Stop, run: str) -> bool:
        """Of a stop that names the run, or only its session."""
        if stop.foreign:
            return False
        if stop.run is not None:
            return True
        # Without an answer nobody knows which run it met; it was one of those that ran meanwhile.
        return stop.target == run if stop.status == 200 else self._lives_at(run, stop.t0)

    def _lives_at(self, run: str, t: float) -> bool:
        return not self.by_run[run] or self.by_run[run][-1].t >= t

    # Liveness.

    def _l1(self, stop: Stop) -> None:
        if stop.status != 200 or not stop.accepted or stop.foreign:
            return
        self.verdict.accepted += 1
        target = stop.target
        if target is None:
            self._blame("L1", f"a stop was accepted and names no run: {stop}")
            return
        named = f"the stop of run {target} by {'run id' if stop.run else 'session'}"
        lines = self.by_run[target]
        final = self._final(target)
        if not lines:
            if final is not None and final.state == "FINISHED":
                self._blame("L1", f"{named} was lost: it finished, unseen")
            return
        ended = next((line.t for line in lines if line.what in BODY_ENDED), None)
        if final is None:
            if not self.rules.faults:
                self._blame("L1", f"{named} was lost: it has no end")
        elif final.state == "FINISHED":
            if ended is None or ended - stop.t1 > self.rules.grace:
                self._blame("L1", f"{named} was lost: it worked for {(ended or 0) - stop.t1:.3f} s after it")
        elif final.state == "ERROR" and not self.rules.faults:
            self._blame("L1", f"{named}: it ended as {final.reason}")
        # A node that was paused meanwhile could not pass the stop on.
        waited = any(pause.t0 < stop.t1 and stop.t0 < pause.t1 for pause in self._long_pauses(stop.node))
        if ended is not None and ended >= stop.t0 and not waited and not any(self._long_pauses(lines[0].node)):
            self.verdict.stop_latencies.append(ended - stop.t0)
            if ended - stop.t0 > self.rules.stop_within:
                self._blame("late", f"{named} took {ended - stop.t0:.3f} s")

    def _l2(self) -> None:
        for freed in self.history.freed:
            after = freed.t - freed.died_at
            self.verdict.freed_after.append(after)
            if after > self.rules.lease + self.rules.slack:
                self._blame("L2", f"session {freed.session} could be claimed {after:.3f} s after its owner's death")
