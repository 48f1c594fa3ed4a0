"""Events that are written by the task that puts them, while the reader's task waits."""

from collections.abc import Sequence

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_agentapp.protocol.events import ContentEvent, Event
from trio_agentapp.runs import Delivery, EventLog


def event(number: int) -> ContentEvent:
    return ContentEvent(number, "in_progress", "text", 0, True, "msg", "x")


class Reader:
    """Reads a log in a task of its own, and takes what is offered as `answers` say; REFUSED after the last."""

    def __init__(self, log: EventLog, answers: Sequence[Delivery] = ()) -> None:
        self.seen: list[int] = []
        self.wake_ups = 0
        self.unsent = False
        self._answers = list(answers)
        self.subscriber = log.subscribe()
        self.subscriber.deliver = self.deliver

    def deliver(self, events: Sequence[Event]) -> Delivery:
        assert not self.unsent, "something is offered while a part of earlier events waits"
        answer = self._answers.pop(0) if self._answers else Delivery.REFUSED
        if answer is not Delivery.REFUSED:
            self.seen += [each.sequence_number for each in events]
        self.unsent = answer is Delivery.BEGUN
        return answer

    async def read(self) -> None:
        try:
            while True:
                batch = await self.subscriber.receive()
                self.wake_ups += 1
                self.unsent = False
                self.seen += [each.sequence_number for each in batch]
        except (trio.EndOfChannel, trio.ClosedResourceError):
            pass


async def test_the_task_of_the_reader_is_not_woken(autojump_clock: trio.abc.Clock) -> None:
    log = EventLog()
    reader = Reader(log, [Delivery.SENT] * 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        await wait_all_tasks_blocked()
        for number in range(3):
            log.put([event(number)])
        await wait_all_tasks_blocked()
        assert (reader.seen, reader.wake_ups) == ([0, 1, 2], 0)
        assert log.drained
        log.put([event(3)])
        await wait_all_tasks_blocked()
        assert (reader.seen, reader.wake_ups) == ([0, 1, 2, 3], 1)
        log.close()


async def test_a_reader_that_is_busy_or_behind_is_offered_nothing(autojump_clock: trio.abc.Clock) -> None:
    log = EventLog()
    reader = Reader(log, [Delivery.SENT] * 9)
    log.put([event(0)])
    assert reader.seen == [], "it does not wait yet"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        await wait_all_tasks_blocked()
        assert (reader.seen, reader.wake_ups) == ([0], 1)
        reader.subscriber.wake()
        log.put([event(1)])
        assert reader.seen == [0], "its task is about to run"
        await wait_all_tasks_blocked()
        assert reader.seen == [0, 1]
        log.close()


async def test_what_the_socket_did_not_take_comes_first(autojump_clock: trio.abc.Clock) -> None:
    log = EventLog()
    reader = Reader(log, [Delivery.BEGUN])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        await wait_all_tasks_blocked()
        log.put([event(0)])
        assert reader.unsent
        log.put([event(1)])
        await wait_all_tasks_blocked()
        assert (reader.seen, reader.unsent, reader.wake_ups) == ([0, 1], False, 1)
        log.close()


async def test_a_closed_reader_is_offered_nothing(autojump_clock: trio.abc.Clock) -> None:
    log = EventLog()
    reader = Reader(log, [Delivery.SENT])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        await wait_all_tasks_blocked()
        reader.subscriber.close()
        log.put([event(0)])
        assert reader.seen == []


@given(
    st.lists(st.sampled_from(Delivery), max_size=30),
    st.lists(st.one_of(st.integers(0, 4), st.just("turn"), st.just("nudge")), max_size=40),
)
def test_each_event_once_and_in_order(answers: list[Delivery], steps: list[object]) -> None:
    async def main() -> None:
        log = EventLog()
        readers = [Reader(log, answers), Reader(log, answers[::-1]), Reader(log)]
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader.read)
            for step in steps:
                if isinstance(step, int):
                    log.put([event(log.end + offset) for offset in range(step)])
                elif step == "turn":
                    await trio.lowlevel.checkpoint()
                else:
                    readers[0].subscriber.nudge()
            log.close()
        for reader in readers:
            assert reader.seen == list(range(log.end))
            assert reader.subscriber.position == log.end

    trio.run(main)
