"""What the local backend forgets, and when; and a long random life against a small model of it."""

import gc
import random
from collections.abc import Callable

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_agentapp.abc import (
    Busy,
    Ended,
    Granted,
    Lease,
    Place,
    Renewal,
    StopAnswer,
    StopOutcome,
    StopSignal,
    Taken,
)
from trio_agentapp.interrupts import LocalInterruptBackend, local, tombstones
from trio_agentapp.protocol.ids import SessionKey
from trio_agentapp.protocol.lifecycle import Cause, Ending, RunRecord, RunState, SessionStatus

KEY = SessionKey("ann", "chat")


def lease_of(run_id: str, key: SessionKey = KEY, node_id: str = "node", nonce: str = "n", token: int = 0) -> Lease:
    return Lease(key=key, run_id=run_id, node_id=node_id, nonce=nonce, token=token)


@pytest.fixture
def backend() -> LocalInterruptBackend:
    return LocalInterruptBackend()


async def granted(backend: LocalInterruptBackend, lease: Lease) -> Lease:
    answer = await backend.claim(lease)
    assert isinstance(answer, Granted)
    return attrs.evolve(lease, token=answer.token)


@pytest.mark.parametrize("key", [KEY, None])
async def test_a_tombstone_lasts_a_minute(
    backend: LocalInterruptBackend, key: SessionKey | None, mock_clock: MockClock
) -> None:
    await backend.request_stop(key, "run-1")
    await backend.request_stop(key, "run-2")
    mock_clock.jump(59.9)
    assert await backend.claim(lease_of("run-1")) == Ended(RunState.STOPPED, "stopped_before_start")
    mock_clock.jump(0.2)
    assert isinstance(await backend.claim(lease_of("run-2")), Granted)


@pytest.mark.parametrize("key", [KEY, None])
async def test_a_repeated_stop_renews_its_tombstone(
    backend: LocalInterruptBackend, key: SessionKey | None, mock_clock: MockClock
) -> None:
    await backend.request_stop(key, "run-1")
    mock_clock.jump(50)
    await backend.request_stop(key, "run-1")
    mock_clock.jump(50)
    assert isinstance(await backend.claim(lease_of("run-1")), Ended)


async def test_a_session_keeps_16_tombstones_the_newest(backend: LocalInterruptBackend) -> None:
    for number in range(17):
        await backend.request_stop(KEY, f"run-{number:02}")
        # This one is asked for again and again, so it is never the oldest.
        await backend.request_stop(KEY, "run-00")
    answers = {number: await backend.claim(lease_of(f"run-{number:02}")) for number in (0, 2, 16)}
    assert {number: type(answer) for number, answer in answers.items()} == {0: Ended, 2: Ended, 16: Ended}
    assert isinstance(await backend.claim(lease_of("run-01")), Granted)


async def test_stops_by_run_alone_are_bounded(
    backend: LocalInterruptBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tombstones, "MAX_LONE_TOMBSTONES", 3)
    for number in range(4):
        await backend.request_stop(None, f"run-{number}")
    assert isinstance(await backend.claim(lease_of("run-3")), Ended)
    assert isinstance(await backend.claim(lease_of("run-0")), Granted)


async def test_a_user_who_stops_unknown_runs_drops_no_stop_of_another(
    backend: LocalInterruptBackend, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    monkeypatch.setattr(tombstones, "MAX_LONE_TOMBSTONES", 3)
    monkeypatch.setattr(tombstones, "MAX_LONE_USERS", 2)
    await backend.request_stop(None, "run-of-u", user_id=KEY.user_id)
    for number in range(100):
        await backend.request_stop(None, f"unknown-{number}", user_id="flood")
    assert [*map(len, backend._lone_tombstones.by_user.values())] == [1, 3]
    assert isinstance(await backend.claim(lease_of("run-of-u")), Ended)
    # A third user: the one that stopped first is forgotten. After a minute all are.
    await backend.request_stop(None, "run-1", user_id="third")
    assert [*backend._lone_tombstones.by_user] == ["flood", "third"]
    mock_clock.jump(61)
    await backend.request_stop(None, "run-1", user_id="fourth")
    assert [*backend._lone_tombstones.by_user] == ["fourth"]


async def test_a_record_is_kept_for_ten_minutes(backend: LocalInterruptBackend, mock_clock: MockClock) -> None:
    lease = await granted(backend, lease_of("run-1"))
    mock_clock.jump(100_000)
    await backend.finish(lease, Ending(cause=Cause.RETURNED))
    mock_clock.jump(599.9)
    record = await backend.run_status("run-1")
    assert record is not None
    assert record.state is RunState.FINISHED
    mock_clock.jump(0.2)
    assert await backend.run_status("run-1") is None
    assert (await backend.request_stop(KEY, "run-1")).outcome is StopOutcome.PENDING


async def test_an_idle_session_is_kept_for_an_hour(backend: LocalInterruptBackend, mock_clock: MockClock) -> None:
    lease = await granted(backend, lease_of("run-1"))
    await backend.finish(lease, Ending(cause=Cause.RETURNED))
    mock_clock.jump(3599)
    assert (await backend.status(KEY)).state is RunState.FINISHED
    mock_clock.jump(2)
    assert await backend.status(KEY) == SessionStatus()


async def test_a_running_session_is_never_forgotten(backend: LocalInterruptBackend, mock_clock: MockClock) -> None:
    lease = await granted(backend, lease_of("run-1"))
    other = SessionKey("bob", "chat")
    await backend.finish(await granted(backend, lease_of("run-2", other)), Ending(cause=Cause.RETURNED))
    for _ in range(5):
        mock_clock.jump(4000)
        assert (await backend.status(KEY)).state is RunState.RUNNING
    assert await backend.status(other) == SessionStatus()
    assert await backend.heartbeat([lease]) == [Renewal.OK]


async def test_tokens_grow_across_forgotten_sessions_and_restarts(
    backend: LocalInterruptBackend, mock_clock: MockClock
) -> None:
    first = await granted(backend, lease_of("run-1"))
    await backend.finish(first, Ending(cause=Cause.RETURNED))
    mock_clock.jump(10_000)
    second = await granted(backend, lease_of("run-1"))
    assert second.token > first.token
    assert await backend.heartbeat([first]) == [Renewal.LOST]
    await backend.finish(first, Ending(cause=Cause.EXCEPTION))
    assert await backend.heartbeat([second]) == [Renewal.OK]
    assert (await granted(LocalInterruptBackend(), lease_of("run-1"))).token > second.token


async def test_records_and_sessions_are_bounded(
    backend: LocalInterruptBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_RECORDS", 10)
    owner = await granted(backend, lease_of("owner", SessionKey("owner", "s")))
    for number in range(50):
        lease = await granted(backend, lease_of(f"run-{number}", SessionKey("ann", str(number))))
        await backend.finish(lease, Ending(cause=Cause.RETURNED))
    assert len(backend._ended) <= 11
    assert len(backend._sessions) <= 12
    assert len(backend._idle) <= 11
    assert await backend.heartbeat([owner]) == [Renewal.OK]


async def test_a_second_listener_of_a_node_survives_the_first(backend: LocalInterruptBackend) -> None:
    heard: list[object] = []
    lease = await granted(backend, lease_of("run-1"))
    async with trio.open_nursery() as second:
        async with trio.open_nursery() as first:
            await first.start(backend.listen, "node", heard.append)
            await second.start(backend.listen, "node", lambda signal: heard.append(("second", signal)))
            first.cancel_scope.cancel(reason="replaced")
        await backend.request_stop(KEY)
        second.cancel_scope.cancel(reason="done")
    assert heard == [("second", StopSignal("run-1", lease.token))]


# A random life. The model knows who owns, who has ended and how, and which stops wait for their run.

RUNS = [f"run-{number}" for number in range(4)]
KEYS = [SessionKey("a", "1"), SessionKey("a", "2"), SessionKey("b", "1")]


class Model:
    def __init__(self) -> None:
        self.owner: dict[SessionKey, Lease] = {}
        self.ended: dict[str, tuple[SessionKey, RunState]] = {}
        self.tombs: set[tuple[SessionKey | None, str, str | None]] = set()
        self.stopping: set[str] = set()

    def live(self, run_id: str) -> Lease | None:
        return next((lease for lease in self.owner.values() if lease.run_id == run_id), None)

    def claim(self, lease: Lease) -> Callable[[object], bool]:
        live = self.live(lease.run_id)
        home = live.key if live is not None else self.ended.get(lease.run_id, (lease.key, None))[0]
        if home != lease.key:
            return lambda answer: answer == Taken()
        if lease.run_id in self.ended and self.ended[lease.run_id][0] != lease.key:
            return lambda answer: answer == Taken()
        if lease.run_id in self.ended:
            return lambda answer: isinstance(answer, Ended) and answer.state is self.ended[lease.run_id][1]
        names = {(lease.key, lease.run_id, None)}
        names |= {(None, lease.run_id, user) for user in (None, lease.key.user_id)}
        if self.tombs & names:
            self.tombs -= names
            self.ended[lease.run_id] = (lease.key, RunState.STOPPED)
            return lambda answer: answer == Ended(RunState.STOPPED, "stopped_before_start")
        held = self.owner.get(lease.key)
        if held is not None and attrs.evolve(held, token=0) == lease:
            return lambda answer: answer == Granted(held.token)
        if held is not None:
            return lambda answer: isinstance(answer, Busy)
        return lambda answer: isinstance(answer, Granted)

    def stop(self, key: SessionKey | None, run_id: str | None, user_id: str | None) -> StopOutcome:
        if run_id is None:
            assert key is not None
            if key not in self.owner:
                return StopOutcome.NOT_RUNNING
            self.stopping.add(self.owner[key].run_id)
            return StopOutcome.ACCEPTED
        live = self.live(run_id)
        home = live.key if live is not None else self.ended[run_id][0] if run_id in self.ended else None
        if home is None:
            self.tombs.add((key, run_id, None if key is not None else user_id))
            return StopOutcome.PENDING
        if key not in (None, home) or user_id not in (None, home.user_id):
            return StopOutcome.PENDING
        if live is None:
            return StopOutcome.ENDED
        self.stopping.add(run_id)
        return StopOutcome.ACCEPTED


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_a_random_life(seed: int) -> None:
    trio.run(live_at_random, random.Random(seed), clock=MockClock())


async def live_at_random(dice: random.Random) -> None:
    backend, model = LocalInterruptBackend(), Model()
    tokens: dict[SessionKey, int] = {}
    known: list[Lease] = []
    for _ in range(60):
        key, run_id = dice.choice(KEYS), dice.choice(RUNS)
        match dice.choice(["claim", "claim", "stop", "finish", "heartbeat", "status"]):
            case "claim":
                lease = lease_of(run_id, key, dice.choice("xy"), dice.choice("12"))
                fits = model.claim(lease)
                answer = await backend.claim(lease)
                assert fits(answer), (lease, answer)
                if isinstance(answer, Granted):
                    held = model.owner.get(key)
                    assert held is not None or answer.token > tokens.get(key, 0)
                    tokens[key] = answer.token
                    model.owner[key] = attrs.evolve(lease, token=answer.token)
                known.append(attrs.evolve(lease, token=dice.choice([0, tokens.get(key, 0)])))
            case "stop":
                asked = dice.choice([(key, None, None), (key, run_id, None), (None, run_id, None)])
                asked = dice.choice([asked, (None, run_id, key.user_id)])
                expected = model.stop(*asked)
                told: StopAnswer = await backend.request_stop(asked[0], asked[1], user_id=asked[2])
                assert told.outcome is expected
            case "finish" if known:
                lease = dice.choice(known)
                ending = Ending(cause=dice.choice([Cause.RETURNED, Cause.EXCEPTION]))
                record = await backend.finish(lease, ending)
                held = model.owner.get(lease.key)
                mine = held is not None and held.run_id == lease.run_id
                mine = mine and lease in (held, attrs.evolve(held, token=0), attrs.evolve(lease, token=held.token))
                live = model.live(lease.run_id)
                if mine:
                    del model.owner[lease.key]
                    model.stopping.discard(lease.run_id)
                    model.ended[lease.run_id] = (lease.key, ending.state)
                elif live is None and lease.run_id not in model.ended:
                    model.ended[lease.run_id] = (lease.key, ending.state)
                if lease.run_id in model.ended and model.ended[lease.run_id][0] == lease.key:
                    assert record.state is model.ended[lease.run_id][1]
            case "heartbeat" if known:
                lease = dice.choice(known)
                held = model.owner.get(lease.key)
                mine = held is not None and held.run_id == lease.run_id
                if mine and not lease.token:
                    mine = (held.node_id, held.nonce) == (lease.node_id, lease.nonce)
                elif mine:
                    mine = held.token == lease.token
                stop = lease.run_id in model.stopping
                expected_renewal = (Renewal.STOP if stop else Renewal.OK) if mine else Renewal.LOST
                assert await backend.heartbeat([lease]) == [expected_renewal]
        for each in KEYS:
            status = await backend.status(each)
            assert (status.state is RunState.RUNNING) == (each in model.owner)
        for each in RUNS:
            record = await backend.run_status(each)
            state = RunState.RUNNING if model.live(each) is not None else model.ended.get(each, (None, None))[1]
            assert (None if record is None else record.state) is state


async def test_who_watches_a_session_is_woken_after_any_time(autojump_clock: MockClock) -> None:
    backend = LocalInterruptBackend()
    lease = lease_of("run-1")
    woken: list[str] = []
    async with backend.watching(lease.key, woken.append):
        await trio.sleep(2 * local.SESSION_TTL)
        await backend.run_status("unknown")
        await backend.finish(await granted(backend, lease), Ending(cause=Cause.RETURNED))
        assert woken == [lease.run_id]
    await trio.sleep(2 * local.SESSION_TTL)
    await backend.run_status("unknown")
    assert not backend._sessions
    assert not backend._idle


async def test_the_past_is_nothing_that_the_garbage_collector_walks(backend: LocalInterruptBackend) -> None:
    for number in range(100):
        lease = await granted(backend, lease_of(f"run-{number}", SessionKey("ann", str(number))))
        await backend.finish(lease, Ending(cause=Cause.RETURNED, stop_requested=number == 7))
    gc.collect()
    for place in (backend._idle, backend._ended):
        assert len(place) == 100
        assert not [each for each in (*place, *place.values()) if gc.is_tracked(each)]
    assert not backend._sessions
    record = await backend.run_status("run-7")
    assert record == RunRecord(
        run_id="run-7",
        key=SessionKey("ann", "7"),
        state=RunState.FINISHED,
        reason="returned",
        token=record.token,
        node_id="node",
        started_at=record.started_at,
        ended_at=record.ended_at,
        stop_requested=True,
    )
    assert 0 < record.token < lease.token
    assert record.started_at <= record.ended_at
    status = await backend.status(record.key)
    assert status == SessionStatus(
        state=RunState.FINISHED, run_id="run-7", node_id="node", last_activity=record.ended_at
    )


async def test_idle_sessions_are_kept_apart(backend: LocalInterruptBackend) -> None:
    keys = [SessionKey("a", "bc"), SessionKey("ab", "c"), SessionKey("1:a", "b"), SessionKey("1", ":ab")]
    for number, key in enumerate(keys):
        lease = await granted(backend, lease_of(f"run-{number}", key, node_id=f"node-{number}"))
        await backend.finish(lease, Ending(cause=Cause.RETURNED))
    for number, key in enumerate(keys):
        status = await backend.status(key)
        assert (status.run_id, status.node_id) == (f"run-{number}", f"node-{number}")


def test_a_granted_lease_differs_in_its_token_only() -> None:
    lease = Lease(
        key=KEY,
        run_id="run",
        node_id="node",
        nonce="n",
        place=Place.FIRST,
        fallback_events={Cause.OWNER_LOST: [b"{}"]},
    )
    assert lease.with_token(7) == attrs.evolve(lease, token=7)


async def test_an_idle_session_is_used_again(backend: LocalInterruptBackend, mock_clock: MockClock) -> None:
    for number in range(3):
        lease = await granted(backend, lease_of(f"run-{number}"))
        assert (await backend.status(KEY)).state is RunState.RUNNING
        await backend.finish(lease, Ending(cause=Cause.EXCEPTION))
        status = await backend.status(KEY)
        assert (status.state, status.run_id) == (RunState.ERROR, f"run-{number}")
        assert (await backend.request_stop(KEY)).outcome is StopOutcome.NOT_RUNNING
        mock_clock.jump(local.SESSION_TTL - 1)
    # A stop of a run to come keeps the session in use, and what is known of it.
    await backend.request_stop(KEY, "later")
    assert (await backend.status(KEY)).run_id == "run-2"
    assert isinstance(await backend.claim(lease_of("later")), Ended)
    assert len(backend._sessions) + len(backend._idle) == 1


async def test_runs_that_are_forgotten_are_not_listed(autojump_clock: MockClock) -> None:
    backend = LocalInterruptBackend()
    first = await granted(backend, lease_of("run-1", SessionKey("ann", "s1")))
    second = await granted(backend, lease_of("run-2", SessionKey("ann", "s2")))
    await backend.finish(first, Ending(cause=Cause.RETURNED))
    await trio.sleep(local.RETENTION + 1)
    records, more = await backend.list_runs("ann")
    assert ([record.run_id for record in records], more) == ([second.run_id], None)
    await backend.finish(second, Ending(cause=Cause.RETURNED))
    await trio.sleep(local.RETENTION + 1)
    assert await backend.list_runs("ann") == ([], None)
    assert backend._started == {}


async def test_keys_are_bounded_in_number_and_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_agentapp.interrupts.local.MAX_PINS", 3)
    backend = LocalInterruptBackend()
    for number in range(5):
        await backend.pin(f"key-{number}", "first")
    assert len(backend._pins) == 3
    assert [await backend.pin(f"key-{number}", "again") for number in (4, 3, 2)] == ["first"] * 3
    await trio.sleep(3601)
    assert await backend.pin("key-4", "later") == "later"
    assert list(backend._pins) == ["key-4"]


async def test_runs_of_a_user_are_listed_and_forgotten_whether_one_or_several(autojump_clock: MockClock) -> None:
    backend = LocalInterruptBackend()

    async def listed(user: str) -> list[str]:
        return [record.run_id for record in (await backend.list_runs(user))[0]]

    async def end(lease: Lease) -> None:
        granted = await backend.claim(lease)
        assert isinstance(granted, Granted)
        await backend.finish(attrs.evolve(lease, token=granted.token), Ending(cause=Cause.RETURNED))

    for number in range(3):
        key = SessionKey("several", f"s{number}")
        await end(Lease(key=key, run_id=f"run-{number}", node_id="node", nonce=f"nonce-{number}"))
        assert await listed("several") == [f"run-{each}" for each in range(number, -1, -1)]
        await trio.sleep(local.RETENTION / 4)
    await trio.sleep(local.RETENTION * 0.6)
    assert await listed("several") == ["run-2"]
    await end(Lease(key=SessionKey("one", "s"), run_id="only", node_id="node", nonce="nonce"))
    assert await listed("one") == ["only"]
    await trio.sleep(local.RETENTION + 1)
    assert await listed("one") == await listed("several") == []
    assert not backend._started
