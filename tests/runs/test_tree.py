"""The tree of a run: how long its tasks have waited, as far as looks at the tree can tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
from trio.testing import MockClock

from trio_agentapp.runs.tree import tree_of


async def sleeper(event: trio.Event) -> None:
    await event.wait()
    await trio.sleep_forever()


async def test_a_wait_is_as_long_as_it_was_seen(autojump_clock: MockClock) -> None:
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        run: Any = SimpleNamespace(run_id="r", children=nursery)

        def waits() -> list[float]:
            root = tree_of(run)
            assert root is not None
            return [child["waits_s"] for child in root["children"]]

        nursery.start_soon(sleeper, event)
        await trio.sleep(5)
        assert waits() == [0.0]
        await trio.sleep(7)
        assert waits() == [7.0]
        # It has moved: what was seen before says nothing about the present wait.
        event.set()
        await trio.sleep(3)
        assert waits() == [0.0]
        await trio.sleep(2)
        assert waits() == [2.0]
        nursery.cancel_scope.cancel()
