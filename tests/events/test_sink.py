"""A run's events on their way to Redis, against a server in Python that fails in every way a real one does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import OutOfMemoryError

from trio_agentapp.abc import Lease, Renewal
from trio_agentapp.events import sink as sinks
from trio_agentapp.events.sink import RedisSink
from trio_agentapp.protocol.events import ContentEvent, Event
from trio_agentapp.protocol.ids import SessionKey

LEASE = Lease(key=SessionKey("ann", "s"), run_id="run-00001", node_id="n", nonce="x", token=7)


def events_from(first: int, count: int = 1, size: int = 0) -> list[Event]:
    return [ContentEvent(first + i, "in_progress", "text", 0, True, "m", "x" * size) for i in range(count)]


def number_of(raw: bytes) -> int:
    return orjson.loads(raw)["sequence_number"]


class Server:
    """What EMIT does, in other words, to one stream: numbers only."""

    def __init__(self) -> None:
        self.stream: list[int] = []
        self.owned = True
        self.stopped = False

    def emit(self, first: int, least: int, after_a_gap: bool, batch: Sequence[bytes]) -> list[Any]:
        numbers = [number_of(raw) for raw in batch]
        assert numbers == list(range(first, first + len(batch)))
        if not self.owned:
            return [b"LOST"]
        last = self.stream[-1] if self.stream else -1
        if first > last + 1 and not after_a_gap:
            return [b"GAP", str(last).encode()]
        self.stream += [number for number in numbers if number > last]
        self.stream = [number for number in self.stream if number >= least]
        return [b"STOP"] if self.stopped else [b"OK"]


class Desk:
    """A sink, who sees what it shows, and the server it writes to."""

    def __init__(self) -> None:
        self.server = Server()
        self.shown: list[int] = []
        self.heard: list[Renewal] = []
        self.marks = 0
        self.put_so_far = 0
        self.sink = RedisSink(LEASE, self._show, self.heard.append, self._mark)
        self.on_show: Callable[[], None] = lambda: None

    def _show(self, events: Sequence[Event]) -> None:
        self.shown += [event.sequence_number for event in events]
        self.on_show()

    def _mark(self, sink: RedisSink) -> None:
        assert sink is self.sink
        self.marks += 1

    def put(self, count: int = 1, size: int = 0) -> None:
        self.sink.put(events_from(self.put_so_far, count, size))
        self.put_so_far += count

    def send(self) -> list[Any] | None:
        """What the server answers to the next batch; None: there is none."""
        batch = self.sink.take_batch()
        if not batch:
            return None
        return self.server.emit(self.sink.first, self.sink.least, self.sink.after_a_gap, batch)

    def write(self) -> None:
        if (reply := self.send()) is not None:
            self.sink.settle(reply)

    def write_all(self) -> None:
        while not self.sink.drained:
            self.write()


async def test_what_is_written_is_shown_once_and_in_order() -> None:
    desk = Desk()
    desk.put(100)
    assert desk.shown == []
    desk.write()
    assert desk.shown == list(range(sinks.BATCH_EVENTS))
    desk.write_all()
    assert desk.shown == desk.server.stream == list(range(100))
    assert desk.send() is None


async def test_a_batch_is_bounded_by_bytes_and_never_empty() -> None:
    desk = Desk()
    desk.put(10, size=sinks.BATCH_BYTES // 2)
    desk.write()
    assert desk.shown == [0]
    desk.put(1, size=2 * sinks.BATCH_BYTES)
    desk.write_all()
    assert desk.shown == list(range(11))


async def test_a_lost_answer_shows_nothing_twice() -> None:
    desk = Desk()
    desk.put(3)
    desk.send()
    assert desk.shown == []
    desk.put(3)
    desk.write()
    assert desk.shown == desk.server.stream == list(range(6))


async def test_there_is_something_to_write_as_long_as_something_is_pending() -> None:
    desk = Desk()
    desk.put(2 * sinks.BATCH_EVENTS)
    assert desk.marks == 1
    desk.write()
    assert desk.marks == 2
    desk.write()
    assert desk.marks == 2


async def test_a_refusal_is_tried_again_after_a_pause(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    desk.put(2)
    desk.sink.take_batch()
    marks = desk.marks
    desk.sink.settle(OutOfMemoryError("full"))
    assert desk.sink.trouble == "full"
    assert desk.sink.retry_at == trio.current_time() + sinks.PAUSE
    assert desk.marks == marks + 1
    desk.write()
    assert desk.sink.trouble is None
    assert desk.shown == [0, 1]


async def test_a_session_that_is_lost_shows_nothing_more() -> None:
    desk = Desk()
    desk.put(3)
    desk.write()
    desk.server.owned = False
    desk.put(3)
    desk.write()
    assert desk.heard == [Renewal.LOST]
    assert desk.sink.drained
    desk.put(3)
    assert desk.send() is None
    assert desk.shown == [0, 1, 2]


async def test_a_stop_is_heard_with_what_is_written() -> None:
    desk = Desk()
    desk.server.stopped = True
    desk.put(1)
    desk.write()
    assert desk.heard == [Renewal.STOP]
    assert desk.shown == [0]


async def test_what_a_fail_over_lost_is_written_again_and_shown_once() -> None:
    desk = Desk()
    desk.put(10)
    desk.write_all()
    desk.server.stream = [0, 1, 2]
    desk.put(2)
    desk.write_all()
    assert desk.server.stream == desk.shown == list(range(12))


async def test_a_second_fail_over_may_lose_more_than_the_first() -> None:
    desk = Desk()
    desk.put(10)
    desk.write_all()
    for left in (8, 2):
        desk.server.stream = list(range(left))
        desk.put(1)
        desk.write_all()
        assert desk.server.stream == desk.shown == list(range(desk.put_so_far))


async def test_what_nobody_remembers_leaves_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "RING", 4)
    desk = Desk()
    desk.put(10)
    desk.write_all()
    desk.server.stream = [0, 1]
    desk.put(1)
    desk.write_all()
    assert desk.server.stream == [0, 1, 6, 7, 8, 9, 10]
    assert desk.shown == list(range(11))
    desk.server.stream = []
    desk.sink._ring.clear()
    desk.put(1)
    desk.write_all()
    assert desk.server.stream == [11]
    # Once over it, the next gap is one again.
    desk.server.stream = [5]
    desk.put(1)
    assert desk.send()[0] == b"GAP"


async def test_old_events_are_trimmed_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "KEPT_WEIGHT", 10_000)
    desk = Desk()
    for _ in range(30):
        desk.put(1, size=1000)
        desk.write_all()
    assert 7 <= len(desk.server.stream) <= 9
    assert desk.server.stream[-1] == 29
    assert desk.shown == list(range(30))


async def test_what_is_written_again_is_not_weighed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "KEPT_WEIGHT", 20_000)
    desk = Desk()
    for _ in range(10):
        desk.put(1, size=1000)
        desk.write_all()
        desk.server.stream = []
    desk.put(1, size=1000)
    desk.write_all()
    assert desk.server.stream == list(range(11))


async def test_give_up_with_a_call_in_flight() -> None:
    desk = Desk()
    desk.put(3)
    reply = desk.send()
    desk.sink.give_up()
    desk.sink.settle(reply)
    assert desk.shown == []
    assert desk.sink.drained
    assert not desk.sink.congested


async def test_waiting_for_room_and_for_the_end(autojump_clock: trio.testing.MockClock) -> None:
    desk = Desk()
    desk.put(sinks.UNACKNOWLEDGED_EVENTS)
    assert not desk.sink.congested
    desk.put(1)
    assert desk.sink.congested
    done: list[str] = []

    async def wait_for(what: str, wait: Callable[[], Any]) -> None:
        await wait()
        done.append(what)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for, "room", desk.sink.wait_relieved)
        nursery.start_soon(wait_for, "flush", desk.sink.flush)
        await trio.sleep(1)
        assert done == []
        desk.write()
        await trio.sleep(1)
        assert done == ["room"]
        desk.write_all()
    assert done == ["room", "flush"]


@pytest.mark.parametrize("lost", [False, True])
async def test_giving_up_ends_all_waiting(autojump_clock: trio.testing.MockClock, lost: bool) -> None:
    desk = Desk()
    desk.put(sinks.UNACKNOWLEDGED_EVENTS + 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.sink.wait_relieved)
        nursery.start_soon(desk.sink.flush)
        await trio.sleep(1)
        desk.server.owned = False
        if lost:
            desk.write()
        else:
            desk.sink.give_up()


async def test_weight_holds_a_run_back_too() -> None:
    desk = Desk()
    desk.put(1, size=sinks.UNACKNOWLEDGED_WEIGHT)
    assert desk.sink.congested
    desk.write()
    assert not desk.sink.congested


async def test_what_is_put_while_others_are_shown_comes_after_them() -> None:
    desk = Desk()
    desk.put(2)
    desk.on_show = lambda: desk.put(1) if desk.put_so_far < 5 else None
    desk.write_all()
    assert desk.shown == desk.server.stream == list(range(5))


# Whatever happens: what was shown is a prefix of what was put, each once; what is in the stream agrees.

FAULTS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 90)),
    st.tuples(st.just("write"), st.just(0)),
    st.tuples(st.just("lose answer"), st.just(0)),
    st.tuples(st.just("never arrives"), st.just(0)),
    st.tuples(st.just("full"), st.just(0)),
    st.tuples(st.just("fail over"), st.integers(0, 60)),
    st.tuples(st.just("reap"), st.just(0)),
    st.tuples(st.just("give up"), st.just(0)),
)


@given(steps=st.lists(FAULTS, max_size=30), ring=st.sampled_from([8, 1024]))
@settings(max_examples=300, deadline=None)
def test_whatever_fails_each_event_is_shown_once_and_in_order(steps: list[tuple[str, int]], ring: int) -> None:
    async def main() -> None:
        patch = pytest.MonkeyPatch()
        patch.setattr(sinks, "RING", ring)
        try:
            desk = Desk()
        finally:
            patch.undo()
        for step, amount in steps:
            match step:
                case "put":
                    desk.put(amount)
                case "write":
                    desk.write()
                case "lose answer":
                    desk.send()
                case "never arrives":
                    desk.sink.take_batch()
                case "full":
                    if desk.sink.take_batch():
                        desk.sink.settle(OutOfMemoryError("full"))
                case "fail over":
                    desk.server.stream = desk.server.stream[: max(0, len(desk.server.stream) - amount)]
                case "reap":
                    desk.server.owned = False
                case "give up":
                    desk.sink.give_up()
            assert desk.shown == list(range(len(desk.shown)))
            numbers = desk.server.stream
            assert numbers == sorted(set(numbers))
        if desk.server.owned and desk.sink._over is False:
            desk.put(1)
            desk.write_all()
            assert desk.shown == list(range(desk.put_so_far))
            assert desk.server.stream[-1] == desk.put_so_far - 1
            if ring == 1024:
                assert desk.server.stream == desk.shown

    logging.disable(logging.CRITICAL)
    try:
        trio.run(main)
    finally:
        logging.disable(logging.NOTSET)
