"""User code ends its own run and nothing else: generators left early, scopes left open, exceptions without text."""

from __future__ import annotations

import contextlib
import gc
import logging

import attrs
import pytest
import trio

from trio_agentapp.protocol.exception_groups import leaves
from trio_agentapp.runs.containment import LeftOpen, closing_dropped, contain, orderly
from trio_agentapp.runs.failures import printable

FINISHED, FAILED = ("FINISHED", "returned"), ("ERROR", "exception")


class Log:
    """What happened inside of the generators, in its order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def ticks(self, name: str = "ticks", *, late: float = 0.0):
        """Holds a nursery across its yields, with a task in it that cleans up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._produce, name, late)
            for number in range(100):
                yield number
                await trio.sleep(0.01)

    async def _produce(self, name: str, late: float) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(late)
            self.lines.append(f"{name} ended")

    async def timed(self):
        with trio.fail_after(50):
            for number in range(100):
                yield number


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(autouse=True)
def nothing_is_unraisable(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    yield
    gc.collect()
    assert not [each for each in caplog.records if each.name == "trio.async_generator_errors"]


async def first_of(items):
    async for item in items:
        return item
    return None


@pytest.fixture
async def house_with_bystander(house, how):
    """A registry with a second live run, which must not be affected."""

    async def bystander(run):
        for number in range(20):
            await trio.sleep(1)
            yield str(number)

    other = await house.start(bystander)
    yield house
    await other.ended.wait()
    assert how(other) == FINISHED
    assert house.registry.statistics().live == 0


@pytest.mark.parametrize("kind", ["break", "return", "anext", "local", "exception"])
async def test_a_generator_that_is_left_early_is_closed_when_the_handler_ends(
    autojump_clock, house_with_bystander, how, log, kind
) -> None:
    async def handler(run):
        yield "a"
        match kind:
            case "break":
                async for _ in log.ticks():
                    break
            case "return":
                await first_of(log.ticks())
            case "anext":
                await anext(log.ticks())
            case "local":
                items = log.ticks()
                await anext(items)
            case "exception":
                with contextlib.suppress(LookupError):
                    async for _ in log.ticks():
                        raise LookupError
        await trio.sleep(1)
        yield "b"
        log.lines.append("handler ended")

    run = await house_with_bystander.play(handler)
    assert how(run) == FINISHED
    assert log.lines == ["handler ended", "ticks ended"]


async def test_generators_are_closed_in_reverse_order(autojump_clock, house_with_bystander, how, log) -> None:
    async def handler(run):
        for name in "abc":
            async for _ in log.ticks(name):
                break
        async for _ in log.timed():
            break

    assert how(await house_with_bystander.play(handler)) == FINISHED
    assert log.lines == ["c ended", "b ended", "a ended"]


@pytest.mark.parametrize("where", ["child", "own nursery", "grandchild", "start"])
async def test_a_generator_is_closed_by_the_child_that_began_it(
    autojump_clock, house_with_bystander, how, log, where
) -> None:
    async def child(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        async for _ in log.ticks(late=1):
            break
        log.lines.append("child ended")

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    async def handler(run):
        if where == "child":
            run.start_soon(child)
            await trio.sleep(5)
            return
        async with trio.open_nursery() as nursery:
            if where == "start":
                await nursery.start(child)
            else:
                nursery.start_soon(child if where == "own nursery" else parent)
        log.lines.append("nursery left")

    assert how(await house_with_bystander.play(handler)) == FINISHED
    assert log.lines[:2] == ["child ended", "ticks ended"]


async def test_a_stop_closes_them_too(autojump_clock, house_with_bystander, how, log) -> None:
    async def handler(run):
        yield "a"
        async for _ in log.ticks(late=1):
            await trio.sleep_forever()

    run = await house_with_bystander.start(handler)
    await trio.sleep(1)
    await house_with_bystander.stop(run)
    await run.ended.wait()
    assert how(run) == ("STOPPED", "stopped")
    assert log.lines == ["ticks ended"]


async def test_a_generator_in_a_cycle_is_found_too(autojump_clock, house_with_bystander, how, log) -> None:
    async def handler(run):
        items = log.ticks()
        await anext(items)
        cycle = [items]
        cycle.append(cycle)
        del items, cycle
        gc.collect()
        await trio.sleep(1)

    assert how(await house_with_bystander.play(handler)) == FINISHED
    assert log.lines == ["ticks ended"]


async def test_a_generator_that_another_keeps_is_left_alone(autojump_clock, house, how, log) -> None:
    async def numbers():
        for number in range(3):
            yield number

    kept = []

    async def handler(run):
        kept.append(numbers())
        yield str(await anext(kept[0]))

    assert how(await house.play(handler)) == FINISHED
    assert await anext(kept[0]) == 1
    await kept[0].aclose()


async def test_many_generators_cost_no_memory(autojump_clock, house, how, log) -> None:
    async def one():
        yield 1

    sizes = []

    async def handler(run):
        for number in range(5_000):
            async for _ in one():
                pass
            if number % 1000 == 0:
                from trio_agentapp.runs.containment import _ledgers

                sizes.append(len(_ledgers[trio.lowlevel.current_task()]._begun))
        async for _ in log.ticks():
            break

    assert how(await house.play(handler)) == FINISHED
    assert max(sizes) <= 200
    assert log.lines == ["ticks ended"]


@pytest.mark.parametrize("scope", ["timeout", "nursery"])
async def test_what_cannot_be_left_in_order_ends_its_run_with_advice(
    autojump_clock, house_with_bystander, how, log, log_text, scope
) -> None:
    async def handler(run):
        yield "a"
        if scope == "timeout":
            with trio.move_on_after(10):
                async for _ in log.ticks():
                    break
        else:
            async with trio.open_nursery():
                async for _ in log.ticks():
                    break

    assert how(await house_with_bystander.play(handler)) == FAILED
    assert "Log.ticks" in log_text()
    assert "aclosing" in log_text()
    assert log.lines == ["ticks ended"]


async def test_a_generator_that_goes_on_ends_its_run_with_advice(
    autojump_clock, house_with_bystander, how, log_text
) -> None:
    async def stubborn():
        while True:
            try:
                yield 1
            except GeneratorExit:
                yield 2

    async def handler(run):
        async for _ in stubborn():
            break

    assert how(await house_with_bystander.play(handler)) == FAILED
    assert "stubborn" in log_text()
    assert "aclosing" in log_text()


@pytest.mark.parametrize("what", ["scope", "nursery", "nursery with a task", "in a child", "outer first"])
async def test_a_scope_that_is_not_left_ends_its_run(
    autojump_clock, house_with_bystander, how, log, log_text, what
) -> None:
    async def enter(run) -> None:
        if what == "scope":
            trio.CancelScope().__enter__()
            return
        if what == "outer first":
            outer, inner = trio.CancelScope(), trio.CancelScope()
            outer.__enter__()
            inner.__enter__()
            outer.__exit__(None, None, None)
        manager = trio.open_nursery()
        nursery = await manager.__aenter__()
        if what == "nursery with a task":
            nursery.start_soon(log._produce, "task", 1)
            await trio.sleep(1)

    async def handler(run):
        yield "a"
        if what == "in a child":
            run.start_soon(enter, run)
            await trio.sleep(1)
        else:
            await enter(run)

    assert how(await house_with_bystander.play(handler)) == FAILED
    if what == "nursery with a task":
        assert log.lines == ["task ended"]


class Mute(Exception):
    def __repr__(self) -> str:
        raise SystemExit(self.args[0])

    __str__ = __repr__


@attrs.frozen
class FrozenMute(Exception):
    words: str

    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


class NoText:
    def __repr__(self) -> str:
        return 3  # type: ignore[return-value]


class Words(Exception):
    def __str__(self) -> str:
        return "half of a pair: \ud83d"


class MuteGroup(ExceptionGroup[Exception]):
    def __repr__(self) -> str:
        raise ValueError

    def derive(self, excs):
        raise ValueError


def deep(depth: int = 5_000) -> BaseException:
    error: Exception = ValueError("inside")
    for _ in range(depth):
        error = ExceptionGroup("deep", [error])
    return error


MUTE = {
    "own class": lambda: Mute("x"),
    "frozen": lambda: FrozenMute("x"),
    "argument": lambda: KeyError(NoText()),
    "argument and file": lambda: OSError(1, NoText(), NoText()),
    "group": lambda: BaseExceptionGroup("two", [Mute("x"), ValueError("y")]),
    "own group": lambda: MuteGroup("one", [Mute("x")]),
    "deep": deep,
    "surrogate": Words,
}


@pytest.mark.parametrize("kind", MUTE)
def test_every_exception_can_be_printed(kind) -> None:
    error = printable(MUTE[kind]())
    assert isinstance(repr(error), str)
    assert isinstance(str(error), str)
    assert printable(error) is error


def test_what_is_made_printable_is_caught_as_before() -> None:
    error = Mute("x")
    assert printable(error) is error
    assert isinstance(error, Mute)
    assert type(error).__name__ == "Mute"
    group = BaseExceptionGroup("two", [FrozenMute("x"), ValueError("y")])
    assert printable(group) is group
    matched, rest = group.split(FrozenMute)
    assert matched is not None
    assert rest is not None


async def fail_in(where, run, fail) -> None:
    """Have a handler fail at a place of its run."""
    match where:
        case "handler":
            await fail()
        case "nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await fail()
        case "child":
            run.start_soon(fail)
            await trio.sleep_forever()
        case "own nursery":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                await trio.sleep_forever()
        case "exit":
            run.on_exit(fail)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("where", ["handler", "nursery", "child", "own nursery", "exit"])
@pytest.mark.parametrize("kind", sorted({*MUTE} - {"surrogate"}))  # pytest-xdist cannot report what is logged of it
async def test_an_exception_without_text_is_one_runs_own(
    autojump_clock, open_house, how, events, kind, where, debug
) -> None:
    async def fail() -> None:
        raise MUTE[kind]()

    async def handler(run):
        yield "a"
        await fail_in(where, run, fail)

    async def bystander(run):
        yield "a"
        await trio.sleep(5)

    async with open_house(debug=debug) as house:
        other = await house.start(bystander)
        run = await house.play(handler)
        assert how(run) == FAILED
        assert (await events(run))[-1].error.code == "exception"
        await other.ended.wait()
        assert how(other) == FINISHED


class Odd(BaseException):
    pass


ODD = [SystemExit, GeneratorExit, Odd, StopAsyncIteration]


@pytest.mark.parametrize("where", ["handler", "child", "own nursery", "exit", "group"])
@pytest.mark.parametrize("kind", ODD)
async def test_no_exception_of_a_run_concerns_the_process(
    autojump_clock, house_with_bystander, how, kind, where
) -> None:
    async def fail() -> None:
        raise kind(3)

    async def handler(run):
        if where == "group":
            raise BaseExceptionGroup("two", [kind(), ValueError()])
        await fail_in(where, run, fail)

    assert how(await house_with_bystander.play(handler)) == FAILED


@pytest.mark.parametrize("where", ["thread", "sync function", "sync generator"])
@pytest.mark.parametrize("kind", [*ODD, StopIteration, KeyError, lambda _: Mute("x")])
async def test_nor_does_one_of_its_threads(house, how, kind, where) -> None:
    def fail() -> None:
        raise kind(NoText())

    async def handler(run):
        await trio.to_thread.run_sync(fail)

    def function(run):
        fail()

    def generator(run):
        yield "a"
        fail()

    fn = {"thread": handler, "sync function": function, "sync generator": generator}[where]
    release = trio.Event()

    async def bystander(run):
        yield "a"
        await release.wait()

    other = await house.start(bystander)
    assert how(await house.play(fn)) == FAILED
    release.set()
    await other.ended.wait()
    assert how(other) == FINISHED


async def test_contain_gives_what_came_of_it() -> None:
    async def add(one: int, two: int) -> int:
        await trio.lowlevel.checkpoint()
        return one + two

    async def fail() -> None:
        raise SystemExit(1)

    assert (await contain(add, 1, 2)).unwrap() == 3
    with pytest.raises(SystemExit):
        (await contain(fail)).unwrap()
    with trio.CancelScope() as scope:
        scope.cancel()
        (await contain(trio.sleep_forever)).unwrap()
    assert scope.cancelled_caught


async def test_orderly_may_be_nested(log) -> None:
    async def inner() -> None:
        async for _ in log.ticks("inner"):
            break

    async def outer() -> None:
        async for _ in log.ticks("outer"):
            break
        await orderly(inner)
        assert log.lines == ["inner ended"]

    (await contain(outer)).unwrap()
    assert log.lines == ["inner ended", "outer ended"]


async def test_a_call_in_a_task_of_other_code_closes_what_it_drops(log) -> None:
    async def call(word: str) -> str:
        async for _ in log.ticks():
            break
        return word

    async with trio.open_nursery() as nursery:
        assert await closing_dropped(call, "value") == "value"
        assert log.lines == ["ticks ended"], "closed before it returns, so in this task"
        nursery.start_soon(trio.lowlevel.checkpoint)


async def test_a_fault_is_raised_where_nothing_else_is(log) -> None:
    async def enter() -> None:
        await trio.open_nursery().__aenter__()

    with pytest.raises(LeftOpen, match="async with"):
        (await contain(enter)).unwrap()


def test_leaves_of_a_deep_group() -> None:
    assert [type(leaf) for leaf in leaves(deep(100_000))] == [ValueError]
