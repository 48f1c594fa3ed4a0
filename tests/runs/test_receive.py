"""Messages for a running run: in order, within a bound, each once."""

from __future__ import annotations

import pytest
import trio

from trio_agentapp.abc import MAX_INPUT, InputSignal, RunInbox
from trio_agentapp.interrupts import LocalInterruptBackend
from trio_agentapp.protocol.message import Message
from trio_agentapp.protocol.message_json import encode_message
from trio_agentapp.protocol.timings import Timings
from trio_agentapp.runs import Run
from trio_agentapp.testing import UnrulyBackend

from .conftest import House, how, open_a_house


def message(text: object) -> Message:
    return Message(role="user", content=str(text))


async def test_messages_come_in_order_and_wait_for_each_other(autojump_clock, house: House) -> None:
    got: list[tuple[str, float]] = []

    async def listen(run: Run) -> None:
        for _ in range(4):
            got.append(((await run.receive()).text, trio.current_time()))

    run = await house.start(listen)
    began = trio.current_time()
    run.input.give(message(0))
    run.input.give(message(1))
    await trio.sleep(5.5)
    run.input.give(message(2))
    run.input.give(message(3))
    await run.ended.wait()
    assert [text for text, _ in got] == ["0", "1", "2", "3"]
    assert [round(at - began, 2) for _, at in got] == [0.0, 0.0, 5.5, 5.5]


async def test_as_many_messages_as_may_wait(autojump_clock, house: House) -> None:
    async def listen(run: Run) -> None:
        await trio.sleep(1)
        for _ in range(MAX_INPUT):
            await run.receive()

    run = await house.start(listen)
    assert all(run.input.give(message(number)) for number in range(MAX_INPUT))
    assert not run.input.has_room
    assert not run.input.give(message("too much"))
    await run.ended.wait()
    assert how(run) == ("FINISHED", "returned")


async def test_a_stop_while_it_waits(autojump_clock, house: House) -> None:
    async def listen(run: Run) -> None:
        await run.receive()

    run = await house.start(listen)
    await trio.sleep(2.5)
    await house.stop(run, wait=True)
    assert how(run) == ("STOPPED", "stopped")


async def test_a_stopped_run_takes_no_message(autojump_clock, house: House) -> None:
    async def listen(run: Run) -> None:
        run.input.give(message("left"))
        run.stopping.set()
        run.scope.cancel_scope.cancel()
        with pytest.raises(trio.Cancelled):
            await run.receive()
        assert len(run.input._inbox) == 1
        await trio.sleep(1)

    run = await house.play(listen)
    assert run.ended.is_set()


async def test_several_receivers_share_the_messages(autojump_clock, house: House) -> None:
    got: list[tuple[str, float]] = []

    async def one(run: Run) -> None:
        got.append(((await run.receive()).text, trio.current_time()))

    async def listen(run: Run) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one, run)

    run = await house.start(listen)
    await trio.sleep(0.3)
    began = trio.current_time()
    for number in range(3):
        run.input.give(message(number))
    await run.ended.wait()
    assert sorted(text for text, _ in got) == ["0", "1", "2"]
    assert all(at == began for _, at in got)


# From other nodes.


class Postbox(LocalInterruptBackend, RunInbox):
    """Carries input as the Redis backend does; its leases end, so that runs look for it."""

    timings = Timings()

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.forgotten = 0
        self.asked: list[int] = []

    async def send_input(self, key, run_id: str, message: bytes):
        raise NotImplementedError  # these tests put messages into `sent` themselves

    async def take_input(self, lease, received: int):
        await trio.lowlevel.checkpoint()
        self.asked.append(received)
        assert received >= self.forgotten
        self.forgotten = received
        return self.sent[received:]


async def test_input_from_elsewhere_comes_once_although_answers_are_lost(autojump_clock) -> None:
    server = Postbox()
    got: list[str] = []

    async def listen(run: Run) -> None:
        while len(got) < 12:
            got.append((await run.receive()).text)

    async with open_a_house(backend=UnrulyBackend(server)) as house:
        run = await house.start(listen)
        for number in range(12):
            if number % 2:
                house.backend.lose("take_input")
            if number % 3 == 0:
                house.backend.fail("take_input", OSError("down"))
            server.sent.append(encode_message(message(number)))
            await trio.sleep(0.7)
        with trio.fail_after(30):
            await run.ended.wait()
    assert got == [str(number) for number in range(12)]


async def test_a_signal_brings_input_at_once(autojump_clock) -> None:
    server = Postbox()
    got: list[float] = []

    async def listen(run: Run) -> None:
        await run.receive()
        got.append(trio.current_time())

    async with open_a_house(backend=UnrulyBackend(server)) as house:
        run = await house.start(listen)
        await trio.sleep(0.3)
        server.sent.append(encode_message(message("now")))
        told_at = trio.current_time()
        for run_id in (run.run_id, "unknown-run"):
            server._listeners["node-1"](InputSignal(run_id))
        await run.ended.wait()
    assert got == [told_at]


async def test_what_there_is_no_room_for_stays_where_it_is(autojump_clock) -> None:
    server = Postbox()
    server.sent = [encode_message(message(number)) for number in range(MAX_INPUT + 10)]
    got: list[str] = []

    async def listen(run: Run) -> None:
        await run.receive()
        await trio.sleep(5)
        while len(got) < MAX_INPUT + 9:
            got.append((await run.receive()).text)

    async with open_a_house(backend=UnrulyBackend(server)) as house:
        run = await house.start(listen)
        await run.ended.wait()
    assert got == [str(number) for number in range(1, MAX_INPUT + 10)]
    assert how(run) == ("FINISHED", "returned")


async def test_one_fetch_at_a_time(autojump_clock) -> None:
    server = Postbox()

    async def listen(run: Run) -> None:
        await run.receive()

    async with open_a_house(backend=UnrulyBackend(server)) as house:
        gate = house.backend.hold("take_input", after=True)
        run = await house.start(listen)
        await trio.sleep(10)
        assert house.backend.calls["take_input"] == 1
        gate.set()
        server.sent.append(encode_message(message("now")))
        with trio.fail_after(5):
            await run.ended.wait()


async def test_what_is_no_message_ends_nobody(autojump_clock, log_text) -> None:
    server = Postbox()

    async def listen(run: Run) -> None:
        with trio.move_on_after(3):
            await run.receive()

    async with open_a_house(backend=UnrulyBackend(server)) as house:
        server.sent.append(b"{]")
        run = await house.play(listen)
    assert how(run) == ("FINISHED", "returned")
    assert "input could not be fetched" in log_text()
