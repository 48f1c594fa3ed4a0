"""`run.state` while a handler is executed: when its changes are sent, in which order, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from trio_agentapp.errors import ItemError
from trio_agentapp.protocol.events import ContentEvent, StateEvent
from trio_agentapp.runs import Run
from trio_agentapp.runs.run import STATE_INTERVAL

from .conftest import House, events_of, how, open_a_house


async def states_of(run: Run) -> list[Any]:
    """What each state event holds: the whole, or the values of its patch."""
    found = [event for event in await events_of(run) if isinstance(event, StateEvent)]
    return [event.state if event.patch is None else [each.get("value") for each in event.patch] for event in found]


@pytest.fixture
async def house(autojump_clock: Any) -> AsyncIterator[House]:
    async with open_a_house() as opened:
        yield opened


async def test_changes_without_an_await_between_them_are_one_event(house: House) -> None:
    async def handler(run: Run) -> None:
        for number in range(1000):
            run.state["n"] = number
        await trio.sleep(1)
        run.state["n"] = "last"
        await trio.sleep(1)
        assert len([event for event in run.log.kept if isinstance(event, StateEvent)]) == 2

    run = await house.play(handler)
    assert how(run) == ("FINISHED", "returned")
    assert await states_of(run) == [{"n": 999}, ["last"]]
    await house.check_ended(run)


async def test_fast_changes_are_sent_a_few_times_in_a_second(house: House) -> None:
    took = 0.0

    async def handler(run: Run) -> None:
        nonlocal took
        began = trio.current_time()
        for number in range(1000):
            run.state["n"] = number
            await trio.sleep(0.001)
        took = trio.current_time() - began

    run = await house.play(handler)
    sent = await states_of(run)
    assert 2 < len(sent) <= took / STATE_INTERVAL + 2
    assert sent[-1] == [999]


async def test_a_change_is_sent_before_what_is_yielded_after_it(house: House) -> None:
    async def handler(run: Run) -> AsyncIterator[str]:
        yield "a"
        run.state["step"] = 1
        yield "b"
        run.state["step"] = 2
        yield "c"
        run.state["step"] = 3

    run = await house.play(handler)
    order = [
        event.text if isinstance(event, ContentEvent) else event.state or event.patch
        for event in await events_of(run)
        if isinstance(event, StateEvent) or (isinstance(event, ContentEvent) and event.delta)
    ]
    assert ["state" if not isinstance(each, str) else each for each in order] == [
        *("a", "state", "b", "state", "c", "state")
    ]
    numbers = [event.sequence_number for event in await events_of(run)]
    assert numbers == list(range(len(numbers)))


async def test_a_stop_sends_what_the_cleanup_has_set(house: House) -> None:
    began = trio.Event()

    async def handler(run: Run) -> None:
        try:
            run.state["phase"] = "works"
            began.set()
            await trio.sleep_forever()
        finally:
            run.state["phase"] = "stopped"

    run = await house.start(handler)
    await began.wait()
    await house.stop(run, wait=True)
    await run.ended.wait()
    assert (await states_of(run))[-1] in ({"phase": "stopped"}, ["stopped"])
    await house.check_ended(run)


async def test_sync_handlers_change_it_in_their_thread(house: House) -> None:
    def handler(run: Run) -> Iterator[str]:
        run.state["n"] = 1
        yield "a"
        run.state = {"n": 2}

    run = await house.play(handler)
    assert how(run) == ("FINISHED", "returned")
    assert await states_of(run) == [{"n": 1}, [2]]


async def test_what_cannot_be_sent_is_an_error_of_the_handler(house: House) -> None:
    async def handler(run: Run) -> None:
        with pytest.raises(ItemError, match="must be a mapping"):
            run.state = 3  # type: ignore[assignment]
        run.state["x"] = object()

    run = await house.play(handler)
    assert how(run) == ("ERROR", "exception")
    assert await states_of(run) == []


async def test_a_run_without_state_sends_none(house: House) -> None:
    async def handler(run: Run) -> None:
        assert run.state.get("x") is None

    assert await states_of(await house.play(handler)) == []
