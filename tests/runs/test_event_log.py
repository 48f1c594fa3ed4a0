"""The numbered memory of a run and its readers."""

import random

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_agentapp.protocol.events import ContentEvent
from trio_agentapp.runs import EventLog, Gap, Subscriber, event_log
from trio_agentapp.testing import Script, say, wait

FINISHED = ("FINISHED", "returned")


def event(number: int, size: int = 0) -> ContentEvent:
    return ContentEvent(number, "in_progress", "text", 0, True, "msg", "x" * size)


def numbers(batch: list[object]) -> list[object]:
    return [each if isinstance(each, Gap) else each.sequence_number for each in batch]


def filled(count: int, *, size: int = 0, **bounds: int) -> EventLog:
    log = EventLog(**bounds)
    for number in range(count):
        log.put([event(number, size)])
    return log


async def read_all(reader: Subscriber) -> list[object]:
    read: list[object] = []
    try:
        while True:
            read += numbers(await reader.receive())
    except trio.EndOfChannel:
        return read


async def test_replay_then_live(autojump_clock) -> None:
    events = filled(3)
    reader = events.subscribe()
    assert numbers(await reader.receive()) == [0, 1, 2]
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def write() -> None:
            await trio.sleep(1)
            events.put([event(3), event(4)])
            events.close()

        assert await read_all(reader) == [3, 4]


@pytest.mark.parametrize(("after", "expected"), [(-5, [0, 1, 2]), (-1, [0, 1, 2]), (0, [1, 2]), (2, []), (9, [])])
async def test_a_reader_begins_after_its_cursor(after, expected) -> None:
    events = filled(3)
    events.close()
    assert await read_all(events.subscribe(after)) == expected


async def test_a_late_reader_is_told_of_the_gap() -> None:
    events = filled(100, max_events=40)
    events.close()
    read = await read_all(events.subscribe(4))
    assert read == [Gap(5, events.first - 1), *range(events.first, 100)]
    assert 100 - events.first >= 30


async def test_memory_is_bounded_by_number_and_by_weight() -> None:
    events = filled(10_000, max_events=100)
    assert len(events.kept) <= 100
    events = filled(1_000, size=1_000, max_weight=50_000)
    assert sum(each.weight for each in events.kept) <= 50_000
    assert events.end == 1_000


async def test_the_last_event_is_kept_however_heavy() -> None:
    events = filled(3, size=5_000, max_weight=1_000)
    events.close()
    assert await read_all(events.subscribe()) == [Gap(0, 1), 2]


async def test_the_foremost_reader_meets_no_gap_when_one_batch_is_heavier_than_the_bound() -> None:
    """The end of a message repeats it twice, in events that nobody can read in between."""
    events = EventLog(max_weight=10_000)
    events.put([event(0)])
    reader, slow = events.subscribe(), events.subscribe()
    assert numbers(await reader.receive()) == [0]
    events.put([event(1, 6_000), event(2, 6_000), event(3, 6_000)])
    events.close()
    assert await read_all(reader) == [1, 2, 3]
    # Others may, and are told.
    assert numbers(await slow.receive())[0] in (Gap(0, 0), 0)


async def test_a_large_item_reaches_its_reader_whole(autojump_clock, house, how) -> None:
    large = "x" * (event_log.MAX_WEIGHT // 3)
    run = await house.start(Script(say("a"), wait(1), say({"role": "assistant", "content": large}), wait(1)))
    assert await read_all(run.log.subscribe()) == list(range(run.log.end))
    assert how(run) == FINISHED


async def test_a_batch_is_bounded_by_weight_and_never_empty() -> None:
    events = filled(100, size=800)
    reader = events.subscribe()
    assert len(await reader.receive(max_weight=5_000)) == 5
    assert len(await reader.receive(max_weight=1)) == 1
    reader.close()


async def test_readers_end_after_the_last_event() -> None:
    events = filled(1)
    events.close()
    reader = events.subscribe()
    assert numbers(await reader.receive()) == [0]
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            await reader.receive()


async def test_a_closed_reader_raises_and_leaves(autojump_clock) -> None:
    events = filled(1)
    left = []
    with events.subscribe(0) as reader:
        reader.on_close = lambda: left.append(1)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def close() -> None:
                await trio.sleep(1)
                reader.close()

            with pytest.raises(trio.ClosedResourceError):
                await reader.receive()
    reader.close()
    assert left == [1]
    assert not events.reader_count
    assert not events._parked
    with pytest.raises(trio.ClosedResourceError):
        await reader.receive()


async def test_a_nudge_gives_an_empty_batch_once(autojump_clock) -> None:
    events = filled(1)
    reader = events.subscribe(0)
    reader.nudge()  # nobody waits: nothing to show
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def go_on() -> None:
            await trio.sleep(1)
            reader.nudge()
            await trio.sleep(1)
            reader.nudge()
            events.put([event(1)])
            await trio.sleep(1)
            events.close()

        assert await reader.receive() == []
        assert numbers(await reader.receive()) == [1]
        assert await read_all(reader) == []


async def test_a_quiet_reader_is_kept_alive_every_15_seconds(autojump_clock, house) -> None:
    run = await house.start(Script(say("a"), wait(40), say("b")))
    began = trio.current_time()
    quiet = []
    with run.log.subscribe() as reader:
        try:
            while True:
                if await reader.receive() == []:
                    quiet.append(round(trio.current_time() - began))
        except trio.EndOfChannel:
            pass
    assert quiet == [15, 30]


async def test_waits_that_are_cut_short_leave_nothing_behind(autojump_clock) -> None:
    events = filled(0)
    reader = events.subscribe()
    for _ in range(50):
        with trio.move_on_after(0.1):
            await reader.receive()
    assert len(events._parked) == 1
    events.put([event(0)])
    assert numbers(await reader.receive()) == [0]
    reader.close()
    assert not events._parked


async def test_a_slow_reader_slows_neither_the_run_nor_others(autojump_clock, house, how) -> None:
    async def handler(run):
        for _ in range(200):
            yield "x" * 10_000
            await trio.sleep(0.01)

    began = trio.current_time()
    run = await house.start(handler)
    slow, fast = run.log.subscribe(), run.log.subscribe()
    read = await read_all(fast)
    assert read == list(range(run.log.end))
    assert trio.current_time() - began == pytest.approx(2)
    assert how(run) == FINISHED
    late = await read_all(slow)
    assert late in ([*range(run.log.end)], [late[0], *range(run.log.first, run.log.end)])


async def test_a_run_is_held_back_when_every_reader_is_slow(autojump_clock, house, how) -> None:
    sent = []

    async def handler(run):
        for number in range(10_000):
            yield "x"
            sent.append(number)

    run = await house.start(handler)
    first, second = run.log.subscribe(), run.log.subscribe()
    await wait_all_tasks_blocked()
    assert event_log.HELD_BACK_EVENTS - 10 <= len(sent) <= event_log.HELD_BACK_EVENTS + 10
    # One of them reads on: the run follows it, and the other is not waited for.
    assert await read_all(first) == list(range(run.log.end))
    assert len(sent) == 10_000
    assert how(run) == FINISHED
    read = await read_all(second)
    assert read == [Gap(0, run.log.first - 1), *range(run.log.first, run.log.end)]


async def test_weight_holds_a_run_back_too(autojump_clock, house) -> None:
    sent = []

    async def handler(run):
        for number in range(1_000):
            yield "x" * 10_000
            sent.append(number)

    run = await house.start(handler)
    reader = run.log.subscribe()
    await wait_all_tasks_blocked()
    assert 80 <= len(sent) <= 110
    assert await read_all(reader) == list(range(run.log.end))


async def test_a_held_back_run_goes_on_when_its_last_reader_leaves(autojump_clock, house, how) -> None:
    async def handler(run):
        for _ in range(5_000):
            yield "x"

    run = await house.start(handler)
    reader = run.log.subscribe()
    await wait_all_tasks_blocked()
    assert not run.ended.is_set()
    reader.close()
    await run.ended.wait()
    assert how(run) == FINISHED


async def test_a_new_reader_at_the_end_relieves_the_run(autojump_clock, house, how) -> None:
    async def handler(run):
        for _ in range(3_000):
            yield "x"

    run = await house.start(handler)
    run.log.subscribe()
    await wait_all_tasks_blocked()
    assert not run.ended.is_set()
    run.log.subscribe(run.log.end - 1)
    await run.ended.wait()
    assert how(run) == FINISHED


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_every_reader_sees_each_event_once_or_is_told_exactly_what_it_missed(bounded_clock, seed: int) -> None:
    trio.run(read_at_random, random.Random(seed), clock=bounded_clock())


async def read_at_random(dice: random.Random) -> None:
    events = EventLog(max_events=dice.choice([8, 100]), max_weight=dice.choice([3_000, 100_000]))
    seen: list[tuple[int, list[object]]] = []

    async def read() -> None:
        await trio.sleep(dice.random() * 10)
        after = dice.choice([-1, -1, events.end // 2, events.end - 1])
        got: list[object] = []
        seen.append((after, got))
        reader = events.subscribe(after)
        pace = dice.choice([0, 0, 0.1, 1])
        try:
            while True:
                with trio.move_on_after(dice.choice([0.05, 100])):
                    got += numbers(await reader.receive(dice.choice([1, 600, 10_000])))
                if dice.random() < 0.05:
                    reader.nudge()
                await trio.sleep(pace)
        except trio.EndOfChannel:
            reader.close()

    async def write() -> None:
        while events.end < 60:
            if dice.random() < 0.7:
                await trio.sleep(dice.random() / 2)
            batch = [event(events.end + place, dice.choice([0, 50, 900])) for place in range(dice.randint(1, 5))]
            events.put(batch)
        events.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(dice.randint(1, 5)):
            nursery.start_soon(read)
    for after, got in seen:
        position = after + 1
        for each in got:
            if isinstance(each, Gap):
                assert each.start == position
                assert each.stop >= each.start
                position = each.stop + 1
            else:
                assert each == position
                position += 1
        assert position == max(events.end, after + 1)
    assert not events.reader_count
    assert not events._parked
