"""Leases on a virtual clock: what the keeper does when renewals are late, refused, lost, or cannot be sent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from trio_agentapp.abc import Lease, Renewal, Resync, Signal, StopSignal
from trio_agentapp.errors import BackendUnavailable, SessionBusy
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.lifecycle import Cause, Ending, Phase, RunRecord, RunState
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.runs import Handler, Run, end_writer, keeper
from trio_agentapp.runs.keeper import Keeper
from trio_agentapp.testing import UnrulyBackend

T = Timings()
LATEST = T.heartbeat * 1.1
"""Seconds from one heartbeat to the next at most, when all is well."""


class Leasing(LocalInterruptBackend):
    """A server for one test: its heartbeats can be slow, refused, lost or broken, and it notes when they come."""

    timings: Timings = T

    def __init__(self) -> None:
        super().__init__()
        self.beats: list[tuple[float, list[str]]] = []
        self.way_there = self.way_back = 0.0
        self.down: Exception | None = None
        self.silent = False
        self.taken: set[str] = set()
        self.deaf = False
        self.confirmed_at: dict[str, float] = {}
        """When the last renewal that was confirmed had been sent, by run."""
        self.deliver: Callable[[Signal], None] = lambda signal: None
        self.finishes = 0

    async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
        sent_at = trio.current_time()
        self.beats.append((sent_at, [lease.run_id for lease in leases]))
        await trio.sleep(self.way_there)
        if self.silent:
            await trio.sleep_forever()
        if self.down is not None:
            raise self.down
        answers = await super().heartbeat(leases)
        await trio.sleep(self.way_back)
        for lease in leases:
            self.confirmed_at[lease.run_id] = sent_at
        return [
            Renewal.LOST if lease.run_id in self.taken else answer
            for lease, answer in zip(leases, answers, strict=True)
        ]

    async def finish(self, lease: Lease, ending: Ending) -> RunRecord:
        self.finishes += 1
        return await super().finish(lease, ending)

    async def listen(self, node_id: str, deliver: Callable[[Signal], None], *, task_status: Any) -> None:
        self.deliver = deliver
        await super().listen(
            node_id, lambda signal: None if self.deaf else deliver(signal), task_status=task_status
        )

    def count_since(self, moment: float) -> int:
        return sum(at > moment for at, _ in self.beats)


class Body:
    """A handler that waits for ever, and notes when it was cancelled; then it cleans up for so long."""

    def __init__(self, cleanup: float = 0.0) -> None:
        self.cancelled_at: float | None = None
        self.through_at: float | None = None
        self._cleanup = cleanup

    async def __call__(self, run: Run) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled_at = trio.current_time()
            async with run.cleanup():
                await trio.sleep(self._cleanup)
            self.through_at = trio.current_time()
            raise


@pytest.fixture
def backend() -> Leasing:
    return Leasing()


@pytest.fixture
def unruly(backend: Leasing) -> UnrulyBackend:
    return UnrulyBackend(backend)


async def wait_beats(backend: Leasing, count: int) -> None:
    """Until so many heartbeats more have been answered, or have failed."""
    wanted = len(backend.beats) + count
    with trio.fail_after(60):
        while len(backend.beats) < wanted:
            await trio.sleep(0.01)
    await trio.sleep(backend.way_there + backend.way_back + 0.001)


def close(value: float | None, expected: float) -> bool:
    return value == pytest.approx(expected, abs=1e-6)


# The deadline.


async def test_the_body_ends_f_after_the_last_confirmed_renewal_was_sent(
    autojump_clock, open_house, unruly, backend: Leasing, how
) -> None:
    body = Body()
    async with open_house(backend=unruly) as house:
        run = await house.start(body)
        await wait_beats(backend, 3)
        backend.down = BackendUnavailable("down")
        await run.ended.wait()
        assert close(body.cancelled_at, backend.confirmed_at[run.run_id] + T.cutoff)
        assert how(run) == ("ERROR", "lease_lost")
        assert (await house.backend.run_status(run.run_id)).reason == "lease_lost"


async def test_a_rollback_ends_before_the_lease_does(
    autojump_clock, open_house, unruly, backend: Leasing, how
) -> None:
    """It writes for a session that is then another run's. Its budget would be longer."""
    undone_until: list[float] = []

    async def undo(key: SessionKey, token: int) -> None:
        backend.down = BackendUnavailable("down")
        try:
            await trio.sleep_forever()
        finally:
            undone_until.append(trio.current_time())

    async with open_house(backend=unruly, undo=undo, cleanup_budget=60.0) as house:
        first = await house.start(Body())
        run = await house.start(Body(), key=first.key, strategy="rollback")
        await run.ended.wait()
        last = backend.confirmed_at.get(run.run_id, run.renewed_at)
        assert undone_until == [pytest.approx(last + T.cutoff + T.offline_cleanup, abs=1e-6)]
        assert how(run) == ("ERROR", "cleanup_timeout")


@pytest.mark.parametrize("way", ["there", "back"])
async def test_it_counts_from_the_sending_and_not_from_the_answer(
    autojump_clock, open_house, unruly, backend: Leasing, way: str
) -> None:
    body = Body()
    setattr(backend, f"way_{way}", 1.5)
    async with open_house(backend=unruly) as house:
        run = await house.start(body)
        await wait_beats(backend, 2)
        backend.down = BackendUnavailable("down")
        await run.ended.wait()
        assert close(body.cancelled_at, backend.confirmed_at[run.run_id] + T.cutoff)


async def test_a_run_that_is_never_renewed_counts_from_its_claim(
    autojump_clock, open_house, unruly, backend: Leasing, how
) -> None:
    """From when the claim was sent: its answer took a second."""
    body = Body()
    backend.down = BackendUnavailable("down")
    gate = unruly.hold("claim", after=True)
    async with open_house(backend=unruly) as house, trio.open_nursery() as nursery:
        asked_at = trio.current_time()
        nursery.start_soon(house.start, body)
        await trio.sleep(1)
        gate.set()
        await trio.sleep(0.1)
        (run,) = house.registry.live()
        await run.ended.wait()
        assert close(body.cancelled_at, asked_at + T.cutoff)
        assert how(run) == ("ERROR", "lease_lost")


async def test_a_claim_that_took_long_is_renewed_at_once(
    autojump_clock, open_house, unruly, backend: Leasing, how
) -> None:
    """Else its time would be over before the next heartbeat: of F = 8 s, 5 are gone with the tries to claim."""
    async with open_house(backend=unruly) as house, trio.open_nursery() as nursery:
        for _ in range(30):  # with every phase of the node's heartbeat
            gate = unruly.hold("claim", after=True)
            nursery.start_soon(house.start, Body())
            await trio.sleep(T.claim_patience + 0.17)
            now, known = trio.current_time(), len(backend.beats)
            gate.set()
            await trio.testing.wait_all_tasks_blocked()
            assert len(backend.beats) == known + 1
            assert trio.current_time() == now
            (run,) = house.registry.live()
            assert backend.beats[-1][1] == [run.run_id]
            await trio.sleep(T.cutoff)
            assert not run.stopping
            await house.stop(run, wait=True)


async def test_a_quick_claim_costs_no_heartbeat(autojump_clock, open_house, unruly, backend: Leasing) -> None:
    async with open_house(backend=unruly) as house:
        runs = [await house.start(Body()) for _ in range(20)]
        await trio.testing.wait_all_tasks_blocked()
        assert backend.beats == []
        for run in runs:
            await house.stop(run)


async def test_a_renewed_run_lives_on_for_hours(autojump_clock, open_house, unruly, backend: Leasing, how) -> None:
    async def work() -> str:
        await trio.sleep(2 * 3600)
        return "done"

    async with open_house(backend=unruly) as house:
        run = await house.play(work)
        assert how(run) == ("FINISHED", "returned")
        gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(backend.beats)]
        assert max(gaps) <= LATEST + 1e-6
        assert min(gaps) >= T.heartbeat * 0.9 - 1e-6
        assert max(gaps) - min(gaps) > 0.1  # nodes do not march in step


async def test_a_local_backend_gets_no_heartbeats(autojump_clock, open_house) -> None:
    unruly = UnrulyBackend(LocalInterruptBackend())
    async with open_house(backend=unruly) as house:
        run = await house.start(Body())
        await trio.sleep(100)
        assert not run.stopping
        assert unruly.calls["heartbeat"] == 0
        await house.stop(run)


# Cleanup under the lease.


async def test_cleanup_is_extended_by_renewals(autojump_clock, open_house, unruly, backend: Leasing, how) -> None:
    body = Body(cleanup=50)
    async with open_house(backend=unruly, cleanup_budget=60.0) as house:
        run = await house.start(body)
        await trio.sleep(1)
        await house.request_stop(run)
        await run.ended.wait()
        assert how(run) == ("STOPPED", "stopped")
        assert close(body.through_at, body.cancelled_at + 50)


@pytest.mark.parametrize("stopped_first", [True, False])
async def test_cleanup_that_is_cut_off_ends_with_what_is_left(
    autojump_clock, open_house, unruly, backend: Leasing, how, stopped_first: bool
) -> None:
    """F + C_off after the last confirmed renewal was sent, whatever ended the body."""
    body = Body(cleanup=50)
    async with open_house(backend=unruly, cleanup_budget=60.0) as house:
        run = await house.start(body)
        await wait_beats(backend, 1)
        if stopped_first:
            await house.request_stop(run)
            await wait_beats(backend, 2)
        backend.down = BackendUnavailable("down")
        await run.ended.wait()
        assert body.through_at == trio.current_time()
        assert close(trio.current_time(), backend.confirmed_at[run.run_id] + T.cutoff + T.offline_cleanup)
        assert trio.current_time() < backend.confirmed_at[run.run_id] + T.lease - T.margin + 1e-6
        assert how(run) == ("ERROR", "cleanup_timeout")


async def test_cleanup_is_renewed_again_after_an_outage(
    autojump_clock, open_house, unruly, backend: Leasing, how
) -> None:
    body = Body(cleanup=50)
    async with open_house(backend=unruly, cleanup_budget=60.0) as house:
        run = await house.start(body)
        await trio.sleep(1)
        await house.request_stop(run)
        await wait_beats(backend, 1)
        backend.down = BackendUnavailable("down")
        await trio.sleep(T.cutoff)
        backend.down = None
        await run.ended.wait()
        assert how(run) == ("STOPPED", "stopped")


# What heartbeats tell.


async def test_a_lost_lease_ends_the_body(autojump_clock, open_house, unruly, backend: Leasing, how) -> None:
    body, other = Body(), Body()
    async with open_house(backend=unruly) as house:
        run, neighbour = await house.start(body), await house.start(other)
        await wait_beats(backend, 1)
        backend.taken.add(run.run_id)
        await run.ended.wait()
        assert body.cancelled_at == backend.beats[-1][0]
        assert how(run) == ("ERROR", "lease_lost")
        assert not neighbour.stopping
        await house.stop(neighbour)


async def test_a_lost_lease_that_comes_too_late_changes_nothing(
    autojump_clock, open_house, unruly, backend: Leasing, how
) -> None:
    """The body has returned and its end is being written, when a heartbeat finds the session free."""

    async def work() -> str:
        await trio.sleep(1)
        return "done"

    gate = unruly.hold("finish", after=True)
    async with open_house(backend=unruly) as house:
        run = await house.start(work)
        await trio.sleep(1.5)
        assert run.lifecycle.phase is Phase.FINISHING
        backend.deliver(Resync())
        await trio.sleep(0.1)
        assert backend.beats[-1][1] == [run.run_id]
        gate.set()
        await run.ended.wait()
        assert how(run) == ("FINISHED", "returned")


async def test_a_stop_is_found_by_a_heartbeat_when_the_wake_up_was_lost(
    autojump_clock, open_house, unruly, backend: Leasing, how
) -> None:
    body = Body()
    backend.deaf = True
    async with open_house(backend=unruly) as house:
        run = await house.start(body)
        await trio.sleep(10)
        await house.request_stop(run)
        asked_at = trio.current_time()
        assert body.cancelled_at is None
        await run.ended.wait()
        assert body.cancelled_at is not None
        assert asked_at < body.cancelled_at <= asked_at + LATEST
        assert body.cancelled_at == backend.beats[-1][0]
        assert how(run) == ("STOPPED", "stopped")
        assert run.lifecycle.ending is not None
        assert run.lifecycle.ending.stop_requested


async def test_a_resync_renews_at_once(autojump_clock, open_house, unruly, backend: Leasing, how) -> None:
    body = Body()
    backend.deaf = True
    async with open_house(backend=unruly) as house:
        run = await house.start(body)
        await trio.sleep(0.5)
        await house.request_stop(run)
        now = trio.current_time()
        backend.deliver(Resync())
        await run.ended.wait()
        assert backend.beats == [(now, [run.run_id])]
        assert close(body.cancelled_at, now)


async def test_one_call_renews_all_runs_of_the_node(autojump_clock, open_house, unruly, backend: Leasing) -> None:
    async with open_house(backend=unruly) as house:
        runs = [await house.start(Body()) for _ in range(3)]
        ids = [run.run_id for run in runs]
        await trio.sleep(600)
        assert all(renewed == ids for _, renewed in backend.beats)
        assert 600 / LATEST - 1 <= len(backend.beats) <= 600 / (T.heartbeat * 0.9) + 1
        for run in runs:
            await house.stop(run, wait=True)
        quiet = trio.current_time()
        await trio.sleep(60)
        assert backend.count_since(quiet) == 0  # nothing to renew, nothing sent


# Heartbeats that fail.


@pytest.mark.parametrize(
    "error", [BackendUnavailable("down"), OSError("down"), trio.TooSlowError(), RuntimeError("a bug")]
)
async def test_a_failed_heartbeat_is_sent_again_soon(
    autojump_clock, open_house, unruly, backend: Leasing, error: Exception, log_text, how
) -> None:
    async with open_house(backend=unruly) as house:
        run = await house.start(Body())
        await wait_beats(backend, 1)
        backend.down, before = error, len(backend.beats)
        await wait_beats(backend, 4)
        backend.down = None
        times = [at for at, _ in backend.beats[before:]]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(T.call_retry * 0.9 - 1e-6 <= gap <= T.call_retry * 1.1 + 1e-6 for gap in gaps)
        await trio.sleep(3 * T.cutoff)
        assert not run.stopping
        await house.stop(run, wait=True)
        if not isinstance(error, RuntimeError):
            # Told once, however long it lasts.
            assert log_text().count("the leases of 1 runs could not be renewed") == 1
            assert log_text().count("leases are renewed again") == 1


async def test_a_heartbeat_that_hangs_is_given_up(autojump_clock, open_house, unruly, backend: Leasing) -> None:
    async with open_house(backend=unruly) as house:
        run = await house.start(Body())
        await wait_beats(backend, 1)
        backend.silent, hung_at = True, trio.current_time()
        await wait_beats(backend, 1)
        backend.silent = False
        sent_at = backend.beats[-1][0]
        await wait_beats(backend, 1)
        assert backend.beats[-1][0] - sent_at <= keeper.CALL_TIMEOUTS * T.call_timeout + T.call_retry * 1.1 + 0.01
        await trio.sleep(hung_at + 2 * T.cutoff - trio.current_time())
        assert not run.stopping
        await house.stop(run)


async def test_a_backend_that_watches_its_calls_is_first_to_notice(autojump_clock, open_house) -> None:
    """The Redis link makes a new connection when a call takes too long; not when its caller goes away before."""
    noticed: list[str] = []

    class Watching(Leasing):
        async def heartbeat(self, leases: Sequence[Lease]) -> Sequence[Renewal]:
            with trio.move_on_after(T.call_timeout):
                return await super().heartbeat(leases)
            self.silent = False
            noticed.append("a new connection")
            raise BackendUnavailable("no answer")

    backend = Watching()
    async with open_house(backend=UnrulyBackend(backend)) as house:
        run = await house.start(Body())
        await wait_beats(backend, 1)
        backend.silent = True
        await trio.sleep(3 * T.cutoff)
        assert noticed == ["a new connection"]
        assert not run.stopping
        await house.stop(run)


# Ends that cannot be written.


async def test_an_end_is_written_again_until_it_is_done(
    autojump_clock, open_house, unruly, backend: Leasing, how
) -> None:
    unruly.fail("finish", times=6)
    async with open_house(backend=unruly) as house:
        run = await house.play(_nothing)
        assert how(run) == ("FINISHED", "returned")
        assert close(trio.current_time(), 0.05 + 0.1 + 0.2 + 0.4 + 0.8 + 1.0)


async def test_an_end_whose_answer_is_lost_stays(autojump_clock, open_house, unruly, how) -> None:
    unruly.lose("finish", times=2)
    async with open_house(backend=unruly) as house:
        run = await house.play(_nothing)
        assert how(run) == ("FINISHED", "returned")


async def test_an_end_that_hangs_is_written_again(
    autojump_clock, open_house, unruly, backend: Leasing, how
) -> None:
    unruly.hold("finish")
    async with open_house(backend=unruly) as house:
        run = await house.play(_nothing)
        assert how(run) == ("FINISHED", "returned")
        assert close(trio.current_time(), keeper.CALL_TIMEOUTS * T.call_timeout + end_writer.RETRY_FIRST)


async def test_an_error_that_cannot_be_written_is_given_up_with_the_lease(
    autojump_clock, open_house, unruly, backend: Leasing, how, events
) -> None:
    """Others have seen, or will see, that its owner was lost: an error in any case."""
    unruly.fail("finish", times=1000)
    async with open_house(backend=unruly, check=False) as house:
        run = await house.start(_fail_after(5))
        await wait_beats(backend, 1)
        backend.down = BackendUnavailable("down")
        await run.ended.wait()
        assert how(run) == ("ERROR", "lease_lost")
        lease_end = backend.confirmed_at[run.run_id] + T.lease
        assert lease_end <= trio.current_time() <= lease_end + end_writer.RETRY_LAST
        terminal = (await events(run))[-1]
        assert (terminal.status, terminal.error.code) == ("failed", "lease_lost")
        house.started.clear()


async def test_any_other_end_waits_until_it_is_written(
    autojump_clock, open_house, unruly, backend: Leasing, how, events
) -> None:
    """The answer may have been lost, and the end written: what the client is told has to agree with it."""
    async with open_house(backend=unruly) as house:
        run = await house.start(_seconds(5))
        await wait_beats(backend, 1)
        unruly.fail("finish", times=100)
        await trio.sleep(3 * T.lease)
        assert run.lifecycle.has_unwound
        assert not run.lifecycle.is_stuck
        assert not run.ended.is_set()
        await run.ended.wait()
        assert how(run) == ("FINISHED", "returned")
        assert (await events(run))[-1].status == "completed"


async def test_an_end_that_another_wrote_is_adopted(
    autojump_clock, open_house, unruly, backend: Leasing, how, events
) -> None:
    async with open_house(backend=unruly) as house:
        run = await house.start(Body())
        await wait_beats(backend, 1)
        assert run.lease is not None
        await backend.finish(run.lease, Ending(cause=Cause.OWNER_LOST))
        await run.ended.wait()
        assert how(run) == ("ERROR", "owner_lost")
        assert (await events(run))[-1].error.code == "owner_lost"


# Claims whose outcome is not known.


async def test_a_claim_whose_outcome_is_unknown_is_taken_back_in_the_background(
    autojump_clock, open_house, unruly, backend: Leasing
) -> None:
    key = SessionKey("ann", "chat")
    unruly.lose("claim")
    unruly.fail("finish", times=4)
    async with open_house(backend=unruly) as house:
        asked_at = trio.current_time()
        with pytest.raises(BackendUnavailable):
            await house.start(_nothing, key=key, run_id="first-run")
        assert trio.current_time() == asked_at  # the caller does not wait for it
        assert (await backend.status(key)).state is RunState.RUNNING
        await trio.sleep(2)
        assert (await backend.status(key)).state is RunState.ERROR
        record = await backend.run_status("first-run")
        assert record is not None
        assert record.reason == "claim_failed"
        await house.play(_nothing, key=key)


async def test_taking_a_claim_back_ends_with_its_lease(
    autojump_clock, open_house, unruly, backend: Leasing
) -> None:
    unruly.fail("claim")
    unruly.fail("finish", times=1000)
    async with open_house(backend=unruly) as house:
        with pytest.raises(BackendUnavailable):
            await house.start(_nothing)
        await trio.sleep(T.lease + end_writer.RETRY_LAST)
        tried = unruly.calls["finish"]
        assert tried > 10
        await trio.sleep(60)
        assert unruly.calls["finish"] == tried


# Suspension.


@contextmanager
def suspending(monkeypatch: pytest.MonkeyPatch):
    clock = {"suspended": 1000.0}
    monkeypatch.setattr(keeper, "_suspended", lambda: clock["suspended"])
    yield clock


async def test_a_suspended_machine_renews_when_it_wakes(
    autojump_clock, open_house, unruly, backend: Leasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock stood still meanwhile: nobody but the boot-time clock knows."""
    with suspending(monkeypatch) as clock:
        async with open_house(backend=unruly) as house:
            body = Body()
            run = await house.start(body)
            await wait_beats(backend, 1)
            last = backend.beats[-1][0]
            await trio.sleep(0.2)
            clock["suspended"] += 3600
            backend.taken.add(run.run_id)
            await run.ended.wait()
            assert body.cancelled_at is not None
            assert body.cancelled_at <= last + 0.2 + keeper.SUSPENSION_POLL
            # Once for each suspension.
            await house.start(Body())
            woken = trio.current_time()
            await trio.sleep(2)
            assert backend.count_since(woken) == 0
            for each in house.registry.live():
                await house.stop(each)


async def test_a_clock_that_is_only_corrected_is_no_suspension(
    autojump_clock, open_house, unruly, backend: Leasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with suspending(monkeypatch) as clock:
        async with open_house(backend=unruly) as house:
            run = await house.start(Body())
            await wait_beats(backend, 1)
            clock["suspended"] += keeper.SUSPENDED / 2
            now = trio.current_time()
            await trio.sleep(T.heartbeat * 0.9 - 0.1)
            assert backend.count_since(now) == 0
            await house.stop(run)


def test_this_machine_has_not_been_suspended_backwards() -> None:
    assert keeper._suspended() >= -0.001


def test_a_system_that_does_not_tell_is_never_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("time.CLOCK_BOOTTIME", raising=False)
    assert keeper._suspended() == 0


# Signals.


@pytest.mark.parametrize(("own", "signalled", "stops"), [(7, 7, True), (7, 6, False), (7, 8, False), (0, 7, True)])
async def test_a_signal_is_for_one_token(own: int, signalled: int, stops: bool, backend: Leasing) -> None:
    """One may overtake the answer to its run's claim, and then the token is not known yet."""
    run = Run(run_id="run-00001", key=SessionKey("ann", "chat"))
    run.token = own
    Keeper(backend, {run.run_id: run}).receive(StopSignal(run.run_id, signalled))
    assert bool(run.stopping) is stops


async def test_a_signal_for_no_run_of_ours_is_ignored(backend: Leasing) -> None:
    Keeper(backend, {}).receive(StopSignal("run-00001", 1))


async def test_a_refused_claim_gives_the_run_no_lease(autojump_clock, open_house, unruly, backend: Leasing) -> None:
    """Only a claim that was granted counts as renewed."""
    async with open_house(backend=unruly) as house:
        owner = await house.start(Body())
        run = house.new_run(key=owner.key)
        with pytest.raises(SessionBusy):
            await house.registry.start(run, Handler(_nothing), {})
        assert (run.lifecycle.state, run.token, run.lease) == (RunState.IDLE, 0, None)
        assert run.scope.ends_at == float("inf")
        assert run.ended.is_set()
        await house.stop(owner)


async def _nothing() -> None:
    pass


def _fail_after(seconds: float) -> Callable[[], Any]:
    async def work() -> None:
        await trio.sleep(seconds)
        raise ValueError("meant")

    return work


def _seconds(count: float) -> Callable[[], Any]:
    async def work() -> str:
        await trio.sleep(count)
        return "done"

    return work
