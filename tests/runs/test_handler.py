"""The user's function in all its shapes, and what it is given."""

import functools
import threading
import time
from collections.abc import AsyncIterator

import pytest
import trio
import trio.lowlevel

from trio_agentapp.errors import ConfigurationError
from trio_agentapp.runs import Handler, HandlerKind, handler

FINISHED = ("FINISHED", "returned")
FAILED = ("ERROR", "exception")
STOPPED = ("STOPPED", "stopped")
LATE = ("ERROR", "deadline_exceeded")


async def agen(msgs):
    yield "a"
    yield "b"


async def coro(msgs):
    return "ab"


def plain(msgs):
    return "ab"


def gen(msgs):
    yield "a"
    yield "b"


async def coro_of_agen(msgs):
    return agen(msgs)


async def coro_of_gen(msgs):
    return gen(msgs)


def plain_of_agen(msgs):
    return agen(msgs)


def plain_of_gen(msgs):
    return gen(msgs)


def plain_of_coro(msgs):
    return coro(msgs)


def passing_on(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)

    return wrapper


def collecting(fn):
    """A decorator that makes a coroutine of an async generator."""

    @functools.wraps(fn)
    async def wrapper(*args, **kwargs):
        return "".join([item async for item in fn(*args, **kwargs)])

    return wrapper


def as_stream(fn):
    """A decorator that makes an async generator of a coroutine."""

    @functools.wraps(fn)
    async def wrapper(*args, **kwargs):
        yield await fn(*args, **kwargs)

    return wrapper


def in_the_loop(fn):
    """A decorator that makes a coroutine of a function."""

    @functools.wraps(fn)
    async def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)

    return wrapper


class CalledAgen:
    async def __call__(self, msgs):
        yield "a"
        yield "b"


class CalledCoro:
    async def __call__(self, msgs):
        return "ab"

    async def method(self, msgs):
        yield "ab"


class CalledPlain:
    def __call__(self, msgs):
        return "ab"


class Stream:
    """An iterable whose iterator is an async generator."""

    async def __aiter__(self) -> AsyncIterator[str]:
        yield "a"
        yield "b"


async def coro_of_stream(msgs):
    return Stream()


K = HandlerKind

SHAPES = [
    (agen, K.ASYNC_GENERATOR),
    (coro, K.COROUTINE),
    (plain, K.SYNC),
    (gen, K.SYNC_GENERATOR),
    (coro_of_agen, K.COROUTINE),
    (coro_of_gen, K.COROUTINE),
    (coro_of_stream, K.COROUTINE),
    (plain_of_agen, K.SYNC),
    (plain_of_gen, K.SYNC),
    (plain_of_coro, K.SYNC),
    (CalledAgen(), K.ASYNC_GENERATOR),
    (CalledCoro(), K.COROUTINE),
    (CalledCoro().method, K.ASYNC_GENERATOR),
    (CalledPlain(), K.SYNC),
    (functools.partial(agen), K.ASYNC_GENERATOR),
    (functools.partial(functools.partial(coro)), K.COROUTINE),
    (functools.partial(CalledAgen()), K.ASYNC_GENERATOR),
    (passing_on(agen), K.ASYNC_GENERATOR),
    (passing_on(coro), K.COROUTINE),
    (passing_on(plain), K.SYNC),
    (passing_on(gen), K.SYNC_GENERATOR),
    (functools.partial(passing_on(agen)), K.ASYNC_GENERATOR),
    (collecting(agen), K.COROUTINE),
    (as_stream(coro), K.ASYNC_GENERATOR),
    (in_the_loop(plain), K.COROUTINE),
    (passing_on(as_stream(coro)), K.ASYNC_GENERATOR),
    (functools.cache(plain), K.SYNC),
]


@pytest.mark.parametrize(
    ("fn", "kind"), SHAPES, ids=[f"{number}-{kind.value}" for number, (_, kind) in enumerate(SHAPES)]
)
async def test_every_shape_is_one_stream(house, how, words, fn, kind) -> None:
    assert Handler(fn).kind is kind
    if isinstance(fn, functools._lru_cache_wrapper):
        return
    run = await house.play(fn)
    assert how(run) == FINISHED
    assert words(run) == "ab"


async def test_nothing_returned_is_nothing_sent(house, how, words) -> None:
    async def quiet():
        return None

    def quiet_too():
        return None

    for fn in (quiet, quiet_too):
        run = await house.play(fn)
        assert (how(run), words(run)) == (FINISHED, "")


# Arguments.


def given(fn):
    offered = {"self": "S", "msgs": "M", "request": "R", "run": "U", "app": "A"}
    return Handler(fn).arguments(offered)


def test_a_handler_gets_what_it_asks_for_by_name() -> None:
    assert given(lambda run, msgs: None) == {"run": "U", "msgs": "M"}
    assert given(lambda: None) == {}
    assert given(lambda self, request=None, other=5: None) == {"self": "S", "request": "R"}
    assert given(lambda *args, app: None) == {"app": "A"}
    assert given(lambda **rest: None) == {"msgs": "M", "request": "R", "run": "U", "app": "A"}
    assert given(lambda self, **rest: None).keys() == {"self", "msgs", "request", "run", "app"}
    assert given(functools.partial(lambda model, msgs: None, "gpt")) == {"msgs": "M"}
    assert given(functools.partial(lambda model, msgs: None, model="gpt")) == {"msgs": "M"}
    assert given(CalledCoro().method) == {"msgs": "M"}


def test_a_parameter_nobody_gives_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"'temperature'.*self, msgs, request, run, app"):
        Handler(lambda msgs, temperature: None)
    with pytest.raises(ConfigurationError, match="'msgs' is positional-only"):
        Handler(lambda msgs, /: None)


def test_what_cannot_be_called_is_no_handler() -> None:
    with pytest.raises(ConfigurationError, match="callable, not str"):
        Handler("agent")


def test_a_function_without_a_readable_signature_is_no_handler() -> None:
    with pytest.raises(ConfigurationError, match="signature"):
        Handler(dict)


# Generators are left closed.


async def test_an_iterable_that_makes_a_generator_is_stopped_at_its_yield(autojump_clock, house, how) -> None:
    left = []

    class Endless:
        async def __aiter__(self):
            try:
                while True:
                    yield "x" * 5_000
            finally:
                left.append(1)

    async def handler(run):
        return Endless()

    run = await house.start(handler)
    with run.log.subscribe():
        await trio.testing.wait_all_tasks_blocked()
        await house.stop(run, wait=True)
        assert left == [1]
    assert how(run) == STOPPED


# Threads, on the real clock: a virtual one does not wait for them.


async def test_sync_handlers_run_in_a_thread_and_do_not_block(house, how, words) -> None:
    threads = []

    def handler(run):
        threads.append(threading.get_ident())
        time.sleep(0.1)
        return "done"

    run = await house.start(handler)
    turns = 0
    while not run.ended.is_set():
        turns += 1
        await trio.sleep(0.005)
    assert turns > 5
    assert threads != [threading.get_ident()]
    assert (how(run), words(run)) == (FINISHED, "done")


async def test_a_sync_generator_stays_on_one_thread(house, how, words) -> None:
    threads = set()

    def handler(run):
        for _ in range(50):
            threads.add(threading.get_ident())
            yield "x"

    runs = [await house.start(handler) for _ in range(3)]
    for run in runs:
        await run.ended.wait()
        assert (how(run), words(run)) == (FINISHED, "x" * 50)
    assert threading.get_ident() not in threads
    assert len(threads) <= 3


async def test_a_stopped_sync_generator_ends_at_its_next_item(house, how, words) -> None:
    left = []
    go_on = threading.Event()

    def handler(run):
        try:
            yield "a"
            go_on.wait(5)
            yield "unheard"
            left.append("after the item")
        finally:
            left.append("finally")

    run = await house.start(handler)
    await wait_for(lambda: words(run) == "a")
    await house.stop(run)
    go_on.set()
    await run.ended.wait()
    assert how(run) == STOPPED
    assert words(run) == "a"
    assert left == ["finally"]


async def test_threads_see_the_flag_and_check_cancelled(house, how) -> None:
    seen = []

    def by_flag(run):
        while not run.stopping:
            time.sleep(0.002)
        seen.append("flag")
        return "too late"

    def by_check(run):
        try:
            while True:
                trio.from_thread.check_cancelled()
                time.sleep(0.002)
        except trio.Cancelled:
            seen.append("check")
            raise

    for fn in (by_flag, by_check):
        run = await house.start(fn)
        await trio.sleep(0.02)
        await house.stop(run, wait=True)
        assert how(run) == STOPPED
    assert seen == ["flag", "check"]


async def test_a_thread_of_an_async_handler_sees_the_flag_too(house, how) -> None:
    def work(run):
        while not run.stopping.is_set():
            time.sleep(0.002)

    async def handler(run):
        await trio.to_thread.run_sync(work, run)
        yield "unheard"

    run = await house.start(handler)
    await trio.sleep(0.02)
    await house.stop(run, wait=True)
    assert how(run) == STOPPED


async def test_a_deadline_reaches_sync_functions_and_generators(house, how, words) -> None:
    def function(run):
        while not run.stopping:
            time.sleep(0.002)

    def generator(run):
        while True:
            time.sleep(0.002)
            yield "x"

    for fn in (function, generator):
        began = trio.current_time()
        run = await house.play(fn, timeout_s=0.05)
        assert how(run) == LATE
        # At once: not only when the ticker passes by, once a second.
        assert trio.current_time() - began < 0.7


async def test_a_sync_handler_saves_through_on_exit(house, how) -> None:
    saved = []

    async def save() -> None:
        await trio.lowlevel.checkpoint()
        saved.append(1)

    def handler(run):
        run.on_exit(save)
        while True:
            trio.from_thread.check_cancelled()
            time.sleep(0.002)

    run = await house.start(handler)
    await trio.sleep(0.02)
    await house.stop(run, wait=True)
    assert how(run) == STOPPED
    assert saved == [1]


async def test_errors_of_sync_handlers_end_the_run(house, how, words) -> None:
    def function():
        raise ValueError("thread")

    def generator():
        yield "a"
        raise ValueError("thread")

    def wrong_item():
        try:
            yield object()
        except TypeError:
            yield "caught"
        raise ValueError("thread")

    assert how(await house.play(function)) == FAILED
    run = await house.play(generator)
    assert (how(run), words(run)) == (FAILED, "a")
    run = await house.play(wrong_item)
    assert (how(run), words(run)) == (FAILED, "caught")


async def test_more_sync_handlers_than_threads_wait_and_can_be_stopped(house, how, monkeypatch) -> None:
    monkeypatch.setattr(handler, "MAX_HANDLER_THREADS", 1)
    gate = threading.Event()

    def fn(run):
        gate.wait(5)
        return "x"

    one = Handler(fn)
    runs = [house.new_run() for _ in range(2)]
    for run in runs:
        await house.registry.start(run, one, {"run": run})
        house.started.append(run)
    await trio.sleep(0.01)
    await house.stop(runs[1], wait=True)
    assert how(runs[1]) == STOPPED
    gate.set()
    await runs[0].ended.wait()
    assert how(runs[0]) == FINISHED


async def wait_for(condition) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.002)
