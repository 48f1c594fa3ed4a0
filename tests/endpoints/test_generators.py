"""A generator as a stream: driven, written, closed wherever it stands; on Trio's virtual clock."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_agentapp.endpoints.closing import interruptible, without_exit
from trio_agentapp.endpoints.generators import BUFFER, GeneratorBody
from trio_agentapp.errors import Forbidden
from trio_agentapp.runs.ticker import KEEP_ALIVE

BUDGET = 30.0
SHUTDOWN = {
    "error": "shutdown",
    "error_type": "Cancelled",
    "message": "The server is shutting down; the stream is cut.",
}


def body_of(items: Any, **options: Any) -> GeneratorBody:
    options = {"name": "it", "budget": BUDGET, "threads": trio.CapacityLimiter(5), **options}
    return GeneratorBody(items, **options)


def items_of(data: bytes) -> list[Any]:
    frames = [frame for frame in data.decode().split("\n\n") if frame and not frame.startswith(":")]
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


async def read_all(body: GeneratorBody) -> bytes:
    async with body as pieces:
        return b"".join([piece async for piece in pieces])


class Reader:
    """A reader that can hang up, as the connection's task does: by a cancelled scope."""

    def __init__(self, body: GeneratorBody) -> None:
        self.body = body
        self.pieces: list[bytes] = []
        self.left = trio.Event()
        self.scope = trio.CancelScope()
        self.stuck: trio.Event | None = None

    async def read(self) -> None:
        with self.scope:
            try:
                async with self.body as pieces:
                    async for piece in pieces:
                        self.pieces.append(piece)
                        if self.stuck is not None:
                            await self.stuck.wait()
            finally:
                self.left.set()

    @property
    def items(self) -> list[Any]:
        return items_of(b"".join(self.pieces))

    async def hang_up(self) -> None:
        self.scope.cancel()
        await self.left.wait()


@asynccontextmanager
async def reading(body: GeneratorBody) -> AsyncIterator[Reader]:
    reader = Reader(body)
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.read)
            await wait_all_tasks_blocked()
            yield reader


# What is sent.


async def test_items_become_frames() -> None:
    async def items() -> AsyncIterator[Any]:
        yield "number: 0\n"
        yield {"a": [1, None]}
        yield None
        yield "\u2028\r\n"

    data = await read_all(body_of(items()))
    assert data.startswith(b'data: "number: 0\\n"\n\ndata: {"a":[1,null]}\n\ndata: null\n\n')
    assert items_of(data)[3] == "\u2028\r\n"


async def test_headers_go_out_before_the_first_item() -> None:
    async def items() -> AsyncIterator[int]:
        await trio.sleep_forever()
        yield 1

    async with reading(body_of(items())) as reader:
        assert reader.pieces == [b""]
        await reader.hang_up()


async def test_each_item_is_sent_when_it_comes(autojump_clock: MockClock) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await trio.sleep(10)

    async with reading(body_of(items())) as reader:
        assert reader.items == [0]
        await trio.sleep(10.5)
        assert reader.items == [0, 1]


async def test_sync_items_are_sent_when_they_come() -> None:
    go = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in range(3):
            go.acquire(timeout=10)
            yield number

    async with reading(body_of(items())) as reader:
        for count in range(3):
            assert reader.items == list(range(count))
            go.release()
            with trio.fail_after(5):
                while len(reader.items) <= count:
                    await trio.sleep(0.001)


async def test_a_sync_generator_stays_in_one_thread_and_off_the_loop() -> None:
    seen = []

    def items() -> Iterator[int]:
        try:
            for number in range(5):
                seen.append(threading.get_ident())
                yield number
        finally:
            seen.append(threading.get_ident())

    assert items_of(await read_all(body_of(items()))) == [0, 1, 2, 3, 4]
    assert len(set(seen)) == 1
    assert threading.get_ident() not in seen


async def test_silence_is_broken(autojump_clock: MockClock) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(3.5 * KEEP_ALIVE)
        yield 2

    data = await read_all(body_of(items()))
    assert data == b"data: 1\n\n" + 3 * b": keep-alive\n\n" + b"data: 2\n\n"


async def test_no_keep_alive_while_items_come(autojump_clock: MockClock) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(20):
            await trio.sleep(KEEP_ALIVE * 0.7)
            yield number

    assert b"keep-alive" not in await read_all(body_of(items()))


# Back-pressure.


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_slow_reader_holds_the_generator(kind: str) -> None:
    text = "x" * 1000
    made = 0

    async def async_items() -> AsyncIterator[str]:
        nonlocal made
        while True:
            made += 1
            yield text

    def sync_items() -> Iterator[str]:
        nonlocal made
        while True:
            made += 1
            yield text

    reader = Reader(body_of(async_items() if kind == "async" else sync_items()))
    reader.stuck = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        with trio.fail_after(10):
            while made < BUFFER / 2000:
                await trio.sleep(0.01)
            before = -1
            while made != before:
                before = made
                await trio.sleep(0.05)
        assert made < 2 * BUFFER / 1000
        before = made
        reader.stuck.set()
        reader.stuck = None
        with trio.fail_after(10):
            while made < before + 1000:
                await trio.sleep(0.01)
        await reader.hang_up()
    assert max(map(len, reader.pieces)) < BUFFER + 2000


async def test_a_generator_that_never_awaits_lets_others_run() -> None:
    async def items() -> AsyncIterator[int]:
        number = 0
        while True:
            number += 1
            yield number

    reader = Reader(body_of(items()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        began = time.monotonic()
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert time.monotonic() - began < 10
        await reader.hang_up()


# What goes wrong.


async def test_an_exception_is_the_last_event(caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise LookupError("secret")

    data = await read_all(body_of(items(), name="lookup"))
    assert items_of(data) == [
        1,
        {"error": "internal", "error_type": "LookupError", "message": "Something went wrong in this stream."},
    ]
    (record,) = caplog.records
    assert record.getMessage() == "endpoint lookup: its stream failed"
    assert record.exc_info is not None
    assert "secret" in str(record.exc_info[1])


async def test_with_debug_it_shows_its_text(caplog: pytest.LogCaptureFixture) -> None:
    def items() -> Iterator[int]:
        raise LookupError("not so secret")
        yield 1

    assert items_of(await read_all(body_of(items(), debug=True)))[-1]["message"] == "not so secret"


async def test_a_refusal_of_ours_shows_its_code_and_no_class(caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        raise Forbidden("Not for you.")
        yield 1

    (told,) = items_of(await read_all(body_of(items())))
    assert told == {"error": "forbidden", "error_type": "Exception", "message": "Not for you."}


async def test_a_group_of_one_is_the_one(caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        async with trio.open_nursery():
            raise LookupError("secret")
            yield 1

    assert items_of(await read_all(body_of(items())))[0]["error_type"] == "LookupError"


async def test_what_cannot_be_sent_is_raised_at_the_yield(caplog: pytest.LogCaptureFixture) -> None:
    caught = []

    async def items() -> AsyncIterator[object]:
        try:
            yield object()
        except TypeError as exc:
            caught.append(str(exc))
            yield "instead"
        yield object()

    told = items_of(await read_all(body_of(items())))
    assert caught == ["object at $ cannot be sent as JSON"]
    assert told[0] == "instead"
    assert (told[1]["error"], told[1]["error_type"]) == ("internal", "TypeError")


async def test_the_same_in_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    def items() -> Iterator[object]:
        try:
            yield object()
        except TypeError:
            yield "instead"

    assert items_of(await read_all(body_of(items()))) == ["instead"]


# How it is closed.


class Trace(list[str]):
    async def slowly(self, text: str, seconds: float = 5) -> None:
        await trio.sleep(seconds)
        self.append(text)


async def standing_at_await(trace: Trace) -> AsyncIterator[int]:
    try:
        yield 1
        await trio.sleep_forever()
    except GeneratorExit:
        await trace.slowly("exit")
        raise
    finally:
        await trio.lowlevel.checkpoint_if_cancelled()
        await trace.slowly("finally")


async def standing_at_yield(trace: Trace) -> AsyncIterator[int]:
    try:
        while True:
            yield 1
    except GeneratorExit:
        await trace.slowly("exit")
        raise
    finally:
        await trace.slowly("finally")


async def standing_in_a_nursery(trace: Trace) -> AsyncIterator[int]:
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield 1
            await trio.sleep_forever()
        trace.append("went on behind its nursery")
    except* GeneratorExit:
        await trace.slowly("exit")
        raise
    finally:
        await trace.slowly("finally")


async def inner(trace: Trace) -> AsyncIterator[int]:
    try:
        yield 1
        await trio.lowlevel.checkpoint()
        await trio.sleep_forever()
    finally:
        await trace.slowly("exit")


async def standing_in_another(trace: Trace) -> AsyncIterator[int]:
    try:
        async for item in inner(trace):
            yield item
    finally:
        await trace.slowly("finally")


async def helper(trace: Trace) -> None:
    try:
        await trio.sleep_forever()
    finally:
        await trace.slowly("exit")


async def standing_in_a_coroutine(trace: Trace) -> AsyncIterator[int]:
    try:
        yield 1
        await helper(trace)
    finally:
        await trace.slowly("finally")


@asynccontextmanager
async def resource(trace: Trace) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await trace.slowly("exit")


async def standing_in_a_context_manager(trace: Trace) -> AsyncIterator[int]:
    try:
        async with resource(trace):
            yield 1
            await trio.sleep_forever()
    finally:
        await trace.slowly("finally")


@trio.as_safe_channel
async def channelled(trace: Trace) -> AsyncIterator[int]:
    yield 1
    await trio.sleep_forever()


async def standing_in_a_channel(trace: Trace) -> AsyncIterator[int]:
    try:
        async with channelled(trace) as items:
            async for item in items:
                yield item
    finally:
        await trace.slowly("exit")
        await trace.slowly("finally")


async def standing_under_a_timeout(trace: Trace) -> AsyncIterator[int]:
    try:
        with trio.move_on_after(10_000):
            yield 1
            await trio.sleep_forever()
        trace.append("went on behind its timeout")
    finally:
        await trace.slowly("exit")
        await trace.slowly("finally")


STANDING = [
    standing_at_await,
    standing_at_yield,
    standing_in_a_nursery,
    standing_in_another,
    standing_in_a_coroutine,
    standing_in_a_context_manager,
    standing_in_a_channel,
    standing_under_a_timeout,
]


@pytest.mark.parametrize("make", STANDING, ids=lambda make: make.__name__)
async def test_hanging_up_closes_it_and_its_finally_may_await(
    make: Callable[[Trace], AsyncIterator[int]], autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    trace = Trace()
    reader = Reader(body_of(make(trace)))
    if make is standing_at_yield:
        reader.stuck = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        await trio.sleep(1)
        assert not trace
        began = trio.current_time()
        await reader.hang_up()
    assert trace == ["exit", "finally"]
    assert trio.current_time() - began == pytest.approx(10)
    assert not caplog.records


@pytest.mark.parametrize("make", STANDING, ids=lambda make: make.__name__)
async def test_a_server_that_leaves_closes_it_and_says_so(
    make: Callable[[Trace], AsyncIterator[int]], autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    trace = Trace()
    reader = Reader(body_of(make(trace)))
    reader.stuck = trio.Event() if make is standing_at_yield else None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        await trio.sleep(1)
        reader.body.wind_down()
        if reader.stuck is not None:
            reader.stuck.set()
    assert trace == ["exit", "finally"]
    assert reader.items[0] == 1
    assert reader.items[-1] == SHUTDOWN
    assert not caplog.records


async def test_cleanup_is_cut_when_the_budget_is_used_up(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    trace = Trace()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            try:
                await trace.slowly("never", 10_000)
            finally:
                trace.append("cut")

    async with reading(body_of(items(), budget=7.0)) as reader:
        began = trio.current_time()
        await reader.hang_up()
        assert trio.current_time() - began == pytest.approx(7)
    assert trace == ["cut"]
    assert [record.getMessage() for record in caplog.records] == [
        "endpoint it: its cleanup took longer than 7 s and was cut"
    ]


async def test_one_that_ignores_it_is_closed_at_its_next_yield(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    trace = Trace()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            try:
                await trio.sleep_forever()
            except GeneratorExit:
                trace.append("ignored")
            yield 2
        finally:
            trace.append("finally")

    async with reading(body_of(items())) as reader:
        await reader.hang_up()
    assert trace == ["ignored", "finally"]


async def test_what_cleanup_raises_is_logged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            raise LookupError("in cleanup")

    async with reading(body_of(items())) as reader:
        await reader.hang_up()
    assert [record.getMessage() for record in caplog.records] == [
        "endpoint it: its stream failed when it was closed"
    ]


async def test_a_timeout_of_its_own_is_a_timeout(autojump_clock: MockClock) -> None:
    async def items() -> AsyncIterator[str]:
        with trio.move_on_after(1):
            await trio.sleep_forever()
        yield "moved on"
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.checkpoint()
        yield "cancelled"

    assert items_of(await read_all(body_of(items()))) == ["moved on", "cancelled"]


async def test_hanging_up_before_the_first_step() -> None:
    started = []

    async def items() -> AsyncIterator[int]:
        started.append(1)
        yield 1

    body = body_of(items())
    async with body as pieces:
        body.wind_down()
        data = b"".join([piece async for piece in pieces])
    assert items_of(data) == [SHUTDOWN]
    assert not started


async def test_a_sync_generator_is_closed_at_its_next_yield() -> None:
    trace: list[str] = []
    go = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            go.wait(10)
            yield 2
            trace.append("went on")
        finally:
            trace.append("finally")

    async with reading(body_of(items())) as reader:
        with trio.fail_after(5):
            while not reader.items:
                await trio.sleep(0.001)
        reader.scope.cancel()
        await wait_all_tasks_blocked()
        assert not reader.left.is_set()
        go.set()
        with trio.fail_after(5):
            await reader.left.wait()
    assert trace == ["finally"]


async def test_a_sync_generator_can_look_whether_it_is_wanted() -> None:
    trace: list[str] = []

    def items() -> Iterator[int]:
        yield 1
        try:
            while True:
                trio.from_thread.check_cancelled()
                time.sleep(0.001)
        finally:
            trace.append("finally")

    async with reading(body_of(items())) as reader:
        with trio.fail_after(5):
            while not reader.items:
                await trio.sleep(0.001)
            await reader.hang_up()
    assert trace == ["finally"]


async def test_threads_are_bounded() -> None:
    running = 0
    most = 0
    lock = threading.Lock()

    def items() -> Iterator[int]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        yield 1
        with lock:
            running -= 1

    limiter = trio.CapacityLimiter(2)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(read_all, body_of(items(), threads=limiter))
    assert most == 2


async def test_nothing_is_left_behind(autojump_clock: MockClock) -> None:
    before = trio.lowlevel.current_statistics().tasks_living

    async def items() -> AsyncIterator[int]:
        yield 1

    await read_all(body_of(items()))
    async with reading(body_of(standing_at_await(Trace()))) as reader:
        await reader.hang_up()
    assert trio.lowlevel.current_statistics().tasks_living == before


# The two parts it rests on.


async def test_interruptible_passes_values_and_errors() -> None:
    async def five() -> int:
        await trio.lowlevel.checkpoint()
        return 5

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError

    assert await interruptible(five(), lambda: True) == 5
    with pytest.raises(LookupError):
        await interruptible(fail(), lambda: True)
    with trio.move_on_after(0) as scope:
        await interruptible(trio.sleep_forever(), lambda: False)  # noqa: ASYNC105
    assert scope.cancelled_caught
    with pytest.raises(GeneratorExit), trio.move_on_after(0):
        await interruptible(trio.sleep_forever(), lambda: True)  # noqa: ASYNC105


def test_without_exit() -> None:
    error = LookupError()
    assert without_exit(GeneratorExit()) is None
    assert without_exit(error) is error
    assert without_exit(BaseExceptionGroup("", [GeneratorExit()])) is None
    rest = without_exit(BaseExceptionGroup("", [GeneratorExit(), error]))
    assert isinstance(rest, BaseExceptionGroup)
    assert rest.exceptions == (error,)
