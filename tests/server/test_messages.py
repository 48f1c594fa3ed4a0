"""Messages of the server to a request: received one by one, or passed to it."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing
from hypercorn.typing import ASGIReceiveEvent

from trio_agentapp.server.messages import Messages


def part(number: int) -> ASGIReceiveEvent:
    return {"type": "http.request", "body": b"%d" % number, "more_body": True}


class Listener:
    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.shutdowns = 0

    def take(self, message: ASGIReceiveEvent) -> None:
        self.taken.append(message)

    def shut_down(self) -> None:
        self.shutdowns += 1


async def put_all(messages: Messages, count: int) -> None:
    for number in range(count):
        await messages.put(part(number))


async def test_a_listener_gets_each_message_once_in_order_also_those_before_it() -> None:
    messages, listener = Messages(3), Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, messages, 6)
        await trio.testing.wait_all_tasks_blocked()
        messages.pass_to(listener)
        assert listener.taken == [part(number) for number in range(3)]
    assert listener.taken == [part(number) for number in range(6)]


async def test_few_messages_wait_for_an_app_that_receives() -> None:
    messages = Messages(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_all, messages, 5)
        for number in range(5):
            await trio.testing.wait_all_tasks_blocked()
            assert len(messages._kept) == min(2, 5 - number)
            assert await messages.receive() == part(number)


async def test_an_app_waits_for_a_message() -> None:
    messages = Messages(2)
    received: list[Any] = []

    async def receive() -> None:
        received.append(await messages.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        assert received == []
        await messages.put(part(0))
    assert received == [part(0)]


async def test_only_a_listener_is_told_of_the_shutdown() -> None:
    messages, listener = Messages(2), Listener()
    messages.shut_down()
    messages.pass_to(listener)
    messages.shut_down()
    assert listener.shutdowns == 1
