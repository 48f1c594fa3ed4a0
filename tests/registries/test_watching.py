"""Following changes by reading again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from trio_agentapp.abc import RegisteredAgent
from trio_agentapp.errors import RegistryError
from trio_agentapp.registries.watching import Snapshots, Wakeup

A, B = (
    RegisteredAgent(name="Friday", instance_id=instance, agent_card={"name": "Friday"}, transports=[])
    for instance in "ab"
)


class Place:
    """Answers in turn, the last answer for ever."""

    def __init__(self, *answers: Sequence[RegisteredAgent] | Exception) -> None:
        self.answers = list(answers)
        self.reads = 0

    async def read(self) -> Sequence[RegisteredAgent]:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_there_is_an_item_for_each_change_only(autojump_clock: trio.testing.MockClock) -> None:
    place = Place([], [], [A], [A], [B, A], [A, B], [B])
    changes = Snapshots(place.read, Wakeup(), poll=10)
    assert [await anext(changes) for _ in range(4)] == [[], [A], [B, A], [B]]
    assert place.reads == 7
    with trio.move_on_after(1000) as scope:
        await anext(changes)
    assert scope.cancelled_caught


async def test_failures_are_logged_once_and_give_no_items(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    down = RegistryError("no answer")
    changes = Snapshots(Place(down, down, [A], down, down, [A], [B]).read, Wakeup(), poll=10)
    assert [await anext(changes) for _ in range(2)] == [[A], [B]]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["changes of agents cannot be read at present: no answer"] * 2


async def test_a_wake_up_during_a_read_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    wakeup = Wakeup()
    place = Place([], [A])

    async def read() -> Sequence[RegisteredAgent]:
        wakeup.wake()
        return await place.read()

    changes = Snapshots(read, wakeup, poll=1000)
    begin = trio.current_time()
    assert [await anext(changes) for _ in range(2)] == [[], [A]]
    assert trio.current_time() - begin < 1  # of the virtual clock
