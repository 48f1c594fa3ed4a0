"""A subprocess that dies is restarted, after pauses that grow, until it is stopped."""

from __future__ import annotations

import pytest
import trio

from trio_agentapp.restarts import FIRST_PAUSE, LONGEST_PAUSE, keep_running


class Process:
    """Lives for the seconds of each of `lives` in turn, and ends with code 3, or with code 7 if it was stopped."""

    def __init__(self, *lives: float) -> None:
        self.lives = list(lives)
        self.stopping = trio.Event()
        self.deaths: list[tuple[int, float]] = []
        self.starts: list[float] = []

    async def run(self) -> int:
        self.starts.append(trio.current_time())
        with trio.move_on_after(self.lives.pop(0)):
            await self.stopping.wait()
            return 7
        return 3

    def report(self, code: int, pause: float) -> None:
        self.deaths.append((code, pause))
        if not self.lives:
            self.stopping.set()

    async def keep(self) -> int:
        return await keep_running(self.run, self.stopping, self.report)


async def test_pauses_double_up_to_the_longest(autojump_clock: trio.testing.MockClock) -> None:
    process = Process(*[1.0] * 9)
    assert await process.keep() == 0
    assert process.deaths == [(3, pause) for pause in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]
    gaps = [later - earlier for earlier, later in zip(process.starts, process.starts[1:], strict=False)]
    assert gaps == pytest.approx([1 + pause for _, pause in process.deaths[:-1]])


async def test_a_process_that_has_lived_long_is_restarted_soon(autojump_clock: trio.testing.MockClock) -> None:
    process = Process(1, 1, LONGEST_PAUSE + 1, 1)
    await process.keep()
    assert [pause for _, pause in process.deaths] == [FIRST_PAUSE, 1.0, FIRST_PAUSE, 1.0]


@pytest.mark.parametrize(("stop_at", "code"), [(0.5, 7), (1.2, 0)], ids=["while it lives", "during a pause"])
async def test_a_stop_ends_it(autojump_clock: trio.testing.MockClock, stop_at: float, code: int) -> None:
    process = Process(1, 1000)

    async def stop() -> None:
        await trio.sleep(stop_at)
        process.stopping.set()

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        assert await process.keep() == code
    assert trio.current_time() - began == pytest.approx(stop_at)
    assert len(process.starts) == 1
