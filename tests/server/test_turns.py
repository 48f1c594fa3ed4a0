"""How many connections go on in one turn of the event loop."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from trio_agentapp.server.turns import READS_PER_TURN, Turns


async def test_a_few_go_on_in_each_turn_in_order() -> None:
    turns = Turns()
    gone: list[int] = []
    sizes: list[int] = []

    async def connection(number: int) -> None:
        if not turns.take():
            await turns.wait()
        gone.append(number)

    async def watch() -> None:
        before = 0
        while len(gone) < 100:
            await trio.lowlevel.checkpoint()
            sizes.append(len(gone) - before)
            before = len(gone)

    async with turns.served():
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for number in range(100):
                nursery.start_soon(connection, number)
        assert sorted(gone) == [*range(100)]
        # The watcher may stand before or after the others within its turn.
        assert max(sizes) <= 2 * READS_PER_TURN
        assert sum(sizes) == 100
        await wait_all_tasks_blocked()
        assert [turns.take() for _ in range(READS_PER_TURN + 1)] == [True] * READS_PER_TURN + [False]
        await wait_all_tasks_blocked()
        assert turns.take(), "the next turn has begun"


async def test_one_that_is_cancelled_takes_no_place() -> None:
    turns = Turns()
    async with turns.served():
        while turns.take():
            pass
        with trio.move_on_after(0) as given_up:
            await turns.wait()
        assert given_up.cancelled_caught
        with trio.fail_after(1):
            await turns.wait()


async def test_fewer_connections_are_accepted_while_others_wait() -> None:
    turns = Turns()
    assert turns.admitted == READS_PER_TURN + 1
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(turns.wait)
        await wait_all_tasks_blocked()
        assert turns.admitted == 1, "a flood of connections must not be accepted faster than it is handled"
        nursery.cancel_scope.cancel()
