"""What happens at a `yield`: an error of the receiver is raised there, or closes the generator."""

from functools import partial

import pytest
import trio

from trio_agentapp.runs.generators import drive_generator, drive_in_thread
from trio_agentapp.runs.grace import grace_period


class Receiver:
    """Fails at the second item."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.items: list[object] = []

    def send(self, item: object) -> bool:
        self.items.append(item)
        if len(self.items) == 2:
            raise self.error
        return True


async def recovering(seen: list[str]):
    try:
        yield 1
        try:
            yield 2
        except ValueError as exc:
            seen.append("raised with a context" if exc.__context__ else "raised at the yield")
        yield 3
    finally:
        await trio.lowlevel.checkpoint()
        seen.append("closed")


async def test_an_error_of_the_receiver_is_raised_at_the_yield() -> None:
    seen: list[str] = []
    receiver = Receiver(ValueError())
    await drive_generator(recovering(seen), receiver.send, trio.lowlevel.checkpoint)
    assert receiver.items == [1, 2, 3]
    assert seen == ["raised at the yield", "closed"]


async def test_another_error_closes_the_generator() -> None:
    seen: list[str] = []
    receiver = Receiver(ValueError("second item"))
    with pytest.raises(ValueError, match="second item"):
        await drive_generator(recovering(seen), receiver.send, trio.lowlevel.checkpoint, throws=trio.Cancelled)
    assert receiver.items == [1, 2]
    assert seen == ["closed"]


@pytest.mark.parametrize(
    ("throws", "items", "told"), [(BaseException, [1, 2, 3], ["raised", "closed"]), (KeyError, [1, 2], ["closed"])]
)
def test_a_synchronous_generator(throws: type[BaseException], items: list[int], told: list[str]) -> None:
    seen: list[str] = []

    def generator():
        try:
            yield 1
            try:
                yield 2
            except ValueError:
                seen.append("raised")
            yield 3
        finally:
            seen.append("closed")

    receiver = Receiver(ValueError())
    try:
        drive_in_thread(generator(), receiver.send, throws=throws)
    except ValueError:
        assert throws is KeyError
    assert (receiver.items, seen) == (items, told)


@pytest.mark.parametrize(("ends", "hurries", "takes"), [(3, 30, 3), (30, 30, 10), (30, 5, 5)])
async def test_a_grace_period_ends_with_the_work_the_timeout_or_the_hurry(
    autojump_clock, ends: float, hurries: float, takes: float
) -> None:
    hurry = trio.Event()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def press() -> None:
            await trio.sleep(hurries)
            hurry.set()

        nursery.start_soon(press)
        await grace_period(partial(trio.sleep, ends), 10, hurry)
        assert trio.current_time() - began == takes
        nursery.cancel_scope.cancel()
