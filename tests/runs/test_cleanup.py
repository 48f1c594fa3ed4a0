"""What may await after a stop, and for how long; and the hint to those who try it without."""

import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_agentapp.protocol.lifecycle import CleanupResult
from trio_agentapp.runs import current_run, shielded_write
from trio_agentapp.testing import Script, ask_for_exit, cleanup, fail, say, wait

STOPPED = ("STOPPED", "stopped")
FINISHED = ("FINISHED", "returned")
FAILED = ("ERROR", "exception")
TIMED_OUT = ("ERROR", "cleanup_timeout")


# `async with run.cleanup():`


async def test_cleanup_after_a_stop_runs_to_its_end(autojump_clock, house, how) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(9)
                saved.append(True)

    saved = []
    run = await house.start(handler)
    await trio.sleep(1)
    receipt = await house.stop(run, wait=True)
    assert saved == [True]
    assert how(run) == STOPPED
    assert receipt.cleanup is CleanupResult.DONE


async def test_cleanup_entered_before_a_stop_is_not_disturbed(autojump_clock, house, how) -> None:
    times = []

    async def handler(run):
        async with run.cleanup():
            await trio.sleep(9.5)
            times.append("whole")
        await trio.sleep_forever()

    run = await house.start(handler)
    await trio.sleep(9)
    await house.stop(run, wait=True)
    assert times == ["whole"]
    assert how(run) == STOPPED


async def test_it_has_the_budget_from_its_own_entry(autojump_clock, house, how) -> None:
    began = trio.current_time()

    async def handler(run):
        async with run.cleanup():
            await trio.sleep(1000)

    run = await house.play(handler)
    assert trio.current_time() - began == pytest.approx(10)
    assert how(run) == TIMED_OUT


async def test_after_a_stop_all_cleanup_has_one_deadline(autojump_clock, house, how) -> None:
    begun = []

    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            for number in range(3):
                async with run.cleanup():
                    begun.append(number)
                    await trio.sleep(6)

    run = await house.start(handler)
    await trio.sleep(3)
    stopped = trio.current_time()
    receipt = await house.stop(run, wait=True)
    assert trio.current_time() - stopped == pytest.approx(10)
    assert begun == [0, 1, 2]
    assert how(run) == TIMED_OUT
    assert run.lifecycle.ending.cleanup is CleanupResult.TIMED_OUT
    assert receipt.cleanup is CleanupResult.TIMED_OUT
    assert receipt.stopped


async def test_the_budget_counts_from_the_deadline_not_from_when_it_was_noticed(autojump_clock, house, how) -> None:
    ended = []

    async def handler(run):
        with trio.CancelScope(shield=True):
            await trio.sleep(6)
        async with run.cleanup():
            await trio.sleep(20)
        ended.append(trio.current_time())

    began = trio.current_time()
    run = await house.play(handler, timeout_s=2)
    assert ended == [pytest.approx(began + 12)]
    assert how(run) == TIMED_OUT


async def test_ordinary_work_in_it_is_not_called_cleanup(autojump_clock, house, how) -> None:
    run = await house.play(Script(cleanup(3), say("a")))
    assert how(run) == FINISHED
    assert run.lifecycle.ending.cleanup is CleanupResult.NONE


async def test_yields_inside_it_are_silent_after_a_stop(autojump_clock, house, how, words) -> None:
    async def handler(run):
        try:
            yield "a"
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                yield "unheard"
                await trio.sleep(1)
                done.append(True)

    done = []
    run = await house.start(handler)
    await trio.sleep(1)
    await house.stop(run, wait=True)
    assert words(run) == "a"
    assert done == [True]


async def test_exceptions_pass_through_it(autojump_clock, house, how) -> None:
    async def handler(run):
        async with run.cleanup():
            raise ValueError("inside")

    assert how(await house.play(handler)) == FAILED


async def test_a_renewal_moves_open_scopes(autojump_clock, house, how) -> None:
    async def handler(run):
        async with run.cleanup():
            await trio.sleep(9)
            whole.append(1)

    whole = []
    began = trio.current_time()
    run = await house.start(handler)
    run.renew(body_until=began + 8, cleanup_until=began + 5)
    await trio.sleep(4)
    run.renew(body_until=began + 12, cleanup_until=began + 9.5)
    await run.ended.wait()
    assert whole == [1]
    assert how(run) == FINISHED


async def test_a_lease_that_is_not_renewed_ends_open_scopes(autojump_clock, house, how) -> None:
    began = trio.current_time()
    run = await house.start(Script(cleanup(9)))
    run.renew(body_until=began + 4, cleanup_until=began + 5)
    await run.ended.wait()
    assert trio.current_time() == pytest.approx(began + 5)
    assert how(run) == TIMED_OUT


async def test_renewals_do_not_stretch_the_budget(autojump_clock, house, how) -> None:
    began = trio.current_time()
    run = await house.start(Script(cleanup(100)))
    for _ in range(8):
        run.renew(body_until=trio.current_time() + 8, cleanup_until=trio.current_time() + 13)
        await trio.sleep(3)
    await run.ended.wait()
    assert how(run) == TIMED_OUT
    assert not house.registry.live()
    assert trio.current_time() - began == pytest.approx(24)


async def test_children_may_clean_up_side_by_side(autojump_clock, house, how) -> None:
    left = []

    async def child(run, seconds) -> None:
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(seconds)
                left.append(seconds)

    async def handler(run):
        for seconds in (5, 1, 8):
            run.start_soon(child, run, seconds)
        await trio.sleep_forever()

    run = await house.start(handler)
    await trio.sleep(1)
    await house.stop(run, wait=True)
    assert left == [1, 5, 8]
    assert how(run) == STOPPED


# The writes of stores.


async def test_a_shielded_write_is_whole_after_a_stop(autojump_clock, house, how) -> None:
    written = []

    async def save() -> None:
        async with shielded_write():
            await trio.sleep(1)
            written.append(current_run.get().run_id)

    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            await save()
            await save()

    run = await house.start(handler)
    await trio.sleep(1)
    await house.stop(run, wait=True)
    assert written == [run.run_id] * 2
    assert not run.lifecycle.ending.cleanup_interrupted
    assert run.lifecycle.ending.cleanup is CleanupResult.DONE


async def test_a_shielded_write_outside_of_runs_is_whole_too(autojump_clock) -> None:
    written = []
    with trio.CancelScope() as scope:
        scope.cancel(reason="test")
        async with shielded_write():
            await trio.sleep(9)
            written.append(1)
    assert written == [1]


# `run.on_exit(fn)`


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), FINISHED),
        ((fail(ValueError()),), FAILED),
        ((wait(),), STOPPED),
    ],
)
async def test_exit_callbacks_run_last_in_first_out_whatever_ended_the_body(
    autojump_clock, house, how, steps, expected
) -> None:
    called = []

    def plain() -> None:
        called.append("plain")

    async def slow() -> None:
        await trio.sleep(1)
        called.append("slow")

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            called.append("child left")

    async def handler(run):
        run.on_exit(plain)
        run.on_exit(slow)
        run.on_exit(lambda: called.append("lambda"))
        run.start_soon(child)
        await trio.sleep(0.1)
        async for item in Script(*steps)(run):
            yield item

    run = await house.start(handler)
    await trio.sleep(0.5)
    if expected == STOPPED:
        await house.stop(run)
    await run.ended.wait()
    assert called == ["child left", "lambda", "slow", "plain"]
    assert how(run) == expected


async def test_a_callback_may_register_another(autojump_clock, house) -> None:
    called = []

    async def handler(run):
        def first() -> None:
            called.append("first")
            run.on_exit(lambda: called.append("second"))

        run.on_exit(first)

    await house.play(handler)
    assert called == ["first", "second"]


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_failing_callback_makes_finished_an_error_and_leaves_stopped(
    autojump_clock, house, how, log_text, stopped
) -> None:
    script = Script(ask_for_exit(1), ask_for_exit(1, ValueError("exit")), wait(100))
    run = await house.start(script)
    await trio.sleep(1)
    if stopped:
        await house.stop(run)
    await run.ended.wait()
    assert how(run) == (STOPPED if stopped else FAILED)
    assert script.done.count("exit") == 2
    assert "ValueError: exit" in log_text()


async def test_a_callback_that_is_too_slow_is_cut_and_the_next_is_called(autojump_clock, house, how) -> None:
    script = Script(ask_for_exit(0), ask_for_exit(1000), wait(1))
    run = await house.play(script)
    assert script.done.count("exit") == 2
    assert how(run) == TIMED_OUT


async def test_a_callback_that_fails_while_it_is_cut_harms_nobody(autojump_clock, house, how, log_text) -> None:
    """Its group of Cancelled and ValueError is no Exception, so it must be caught outside of the scope."""

    async def worse() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in a child of the callback")

    async def leave() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worse)
            nursery.start_soon(trio.sleep_forever)

    async def handler(run):
        run.on_exit(leave)

    bystander = await house.start(Script(wait(100)))
    run = await house.play(handler)
    assert how(run) == TIMED_OUT
    assert "in a child of the callback" in log_text()
    await bystander.ended.wait()
    assert how(bystander) == FINISHED


async def test_ctrl_c_without_a_server_leaves_a_callback_when_the_run_has_ended(
    autojump_clock, open_house, how
) -> None:
    script = Script(ask_for_exit(0), ask_for_exit(0, KeyboardInterrupt()))
    house = None

    async def live() -> None:
        nonlocal house
        async with open_house() as house:
            await house.start(script)
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await live()
    assert caught.value.split(KeyboardInterrupt)[0] is not None
    assert script.done.count("exit") == 2
    assert how(house.started[0]) == ("STOPPED", "shutdown")
    await house.check_ended(house.started[0])


async def test_a_callback_cannot_emit(autojump_clock, house, words) -> None:
    async def handler(run):
        run.on_exit(lambda: run.emit("too late"))
        yield "a"

    assert words(await house.play(handler)) == "a"


# The hint about a cut cleanup.


def warnings_in(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def play_and_stop(house, handler):
    run = await house.start(handler)
    await trio.sleep(1)
    await house.stop(run, wait=True)
    return run


async def test_an_unshielded_await_in_cleanup_is_named_once(autojump_clock, house, how, caplog) -> None:
    async def careless(run):
        try:
            await trio.sleep_forever()
        finally:
            await trio.sleep(1)  # cut here

    for _ in range(3):
        run = await play_and_stop(house, careless)
        assert run.lifecycle.ending.cleanup_interrupted
        assert how(run) == STOPPED
    (warning,) = warnings_in(caplog)
    line = careless.__code__.co_firstlineno + 4
    assert f"test_cleanup.py:{line};" in warning
    assert "careless" in warning
    assert "run.cleanup()" in warning


async def test_it_is_found_at_a_yield_and_in_a_nursery_too(autojump_clock, house, caplog) -> None:
    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            await trio.sleep(1)  # cut here

    async def careless(run):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            yield "a"
            await trio.sleep_forever()

    run = await play_and_stop(house, careless)
    assert run.lifecycle.ending.cleanup_interrupted
    assert len(warnings_in(caplog)) == 1


async def careful_with_cleanup(run):
    try:
        yield "a"
        await trio.sleep_forever()
    except trio.Cancelled:
        async with run.cleanup():
            await trio.sleep(1)
        raise


async def careful_with_finally(run):
    try:
        yield "a"
        await trio.sleep_forever()
    finally:
        async with run.cleanup():
            await trio.sleep(1)
            with trio.move_on_after(0.1):
                await trio.sleep(5)
        async with shielded_write():
            await trio.sleep(1)


async def careful_without_awaits(run):
    left = []
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            async with trio.open_nursery() as inner:
                inner.start_soon(trio.sleep_forever)
                with trio.CancelScope():
                    yield "a"
                    await trio.sleep_forever()
    finally:
        left.append(1)


async def careful_with_trio_resources(run):
    sender, receiver = trio.open_memory_channel(0)
    async with sender, receiver, trio.Lock():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await receiver.receive()


async def careful_with_a_file(run):
    async with await trio.open_file("/dev/null") as file:
        await file.read()
        await trio.sleep_forever()


async def careful_when_held_back(run):
    try:
        while True:
            yield "x" * 5000
    finally:
        async with run.cleanup():
            await trio.sleep(1)


@pytest.mark.parametrize(
    "handler",
    [
        careful_with_cleanup,
        careful_with_finally,
        careful_without_awaits,
        careful_with_trio_resources,
        careful_when_held_back,
    ],
    ids=lambda handler: handler.__name__,
)
async def test_careful_handlers_are_not_warned(autojump_clock, house, how, caplog, handler) -> None:
    run = await house.start(handler)
    with run.log.subscribe():
        await wait_all_tasks_blocked(0.01)
        await house.stop(run, wait=True)
    assert how(run) == STOPPED
    assert not run.lifecycle.ending.cleanup_interrupted
    assert warnings_in(caplog) == []


async def test_cleanup_that_was_cut_is_told_even_if_it_raises_something_else(autojump_clock, house, how) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                try:
                    await trio.sleep(100)
                except trio.Cancelled:
                    raise ValueError("not saved") from None

    run = await house.start(handler)
    await trio.sleep(1)
    await house.stop(run, wait=True)
    assert how(run) == TIMED_OUT


async def test_a_file_closes_without_a_warning(house, how, caplog) -> None:
    """On the real clock: a virtual one does not wait for the file's thread."""
    run = await house.start(careful_with_a_file)
    await trio.sleep(0.05)
    await house.stop(run, wait=True)
    assert how(run) == STOPPED
    assert warnings_in(caplog) == []
