"""How bodies end: returned, failed, stopped, out of time; and what runs after that and what does not."""

import math
import time
from contextlib import suppress

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from trio_agentapp.errors import ItemError
from trio_agentapp.protocol.lifecycle import Cause, CleanupResult
from trio_agentapp.testing import Script, fail, say, swallow, wait

STOPPED = ("STOPPED", "stopped")
FINISHED = ("FINISHED", "returned")
FAILED = ("ERROR", "exception")
LATE = ("ERROR", "deadline_exceeded")


async def test_a_handler_that_returns_has_finished(autojump_clock, house, how, words) -> None:
    run = await house.play(Script(say("a"), wait(1), say("b")))
    assert how(run) == FINISHED
    assert words(run) == "ab"
    assert run.lifecycle.ending.cleanup is CleanupResult.NONE
    assert not run.lifecycle.ending.stop_requested


# Exceptions.


@pytest.mark.parametrize("before", [(), (say("a"),), (say("a"), wait(1))])
async def test_an_exception_is_an_error(autojump_clock, house, how, words, log_text, before) -> None:
    run = await house.play(Script(*before, fail(ValueError("secret"))))
    assert how(run) == FAILED
    assert words(run) == ("a" if before else "")
    assert "ValueError: secret" in log_text()


async def test_clients_are_not_told_the_words_of_an_exception(autojump_clock, house, events) -> None:
    run = await house.play(Script(fail(ValueError("secret"))))
    assert (await events(run))[-1].error.message == "The agent failed."


async def test_in_debug_mode_they_are(autojump_clock, open_house, events) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    async with open_house(debug=True) as house:
        run = await house.play(Script(fail(ValueError("secret"))))
        assert (await events(run))[-1].error.message == "ValueError: secret"
        run = await house.play(Script(fail(Mute())))
        assert (await events(run))[-1].error.message == "Mute"


async def test_an_exception_group_is_an_error(autojump_clock, house, how) -> None:
    async def handler(run):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 100)
            yield "a"
            await trio.sleep(1)
            raise ValueError("inside a nursery")

    assert how(await house.play(handler)) == FAILED


async def test_a_group_of_only_cancelled_is_a_stop(autojump_clock, house, how) -> None:
    async def handler(run):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.sleep_forever)
            yield "a"
            await trio.sleep_forever()

    run = await house.start(handler)
    await trio.sleep(1)
    run.scope.set_deadline(math.inf)
    await house.stop(run, wait=True)
    assert how(run) == STOPPED


async def test_an_exception_after_a_stop_is_logged_and_the_run_is_stopped(
    autojump_clock, house, how, log_text
) -> None:
    async def handler(run):
        try:
            yield "a"
            await trio.sleep_forever()
        finally:
            raise ValueError("while leaving")

    run = await house.start(handler)
    await wait_all_tasks_blocked()
    await house.stop(run, wait=True)
    assert how(run) == STOPPED
    assert "ValueError: while leaving" in log_text()


async def test_a_cancelled_from_elsewhere_is_an_error_and_nothing_worse(autojump_clock, house, how) -> None:
    """A Cancelled that is kept and raised again is no stop of this run."""
    kept = []

    async def handler(run):
        with trio.CancelScope() as scope:
            scope.cancel(reason="to get one")
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as exc:
                kept.append(exc)
                raise
        raise kept[0]
        yield

    assert how(await house.play(handler)) == FAILED


@pytest.mark.parametrize("grouped", [False, True])
async def test_ctrl_c_without_a_server_goes_on_when_the_run_has_ended(
    autojump_clock, open_house, how, grouped
) -> None:
    fatal = KeyboardInterrupt

    async def handler(run):
        yield "a"
        if grouped:
            raise BaseExceptionGroup("two", [ValueError("beside it"), fatal()])
        raise fatal

    bystander_left = []

    async def bystander(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(1)
                bystander_left.append(True)

    runs = []
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012  the registry has to be inside
        async with open_house() as house:
            runs.append(await house.start(bystander))
            runs.append(await house.start(handler))
            await trio.sleep_forever()
    assert caught.value.split(fatal)[0] is not None
    assert [how(run) for run in runs] == [("STOPPED", "shutdown")] * 2
    assert bystander_left == [True]
    for run in runs:
        await house.check_ended(run)


# Stops.


async def test_a_stop_raises_cancelled_at_an_await(autojump_clock, house, how, words) -> None:
    script = Script(say("a"), wait(), say("never"))
    run = await house.start(script)
    await trio.sleep(5)
    receipt = await house.stop(run, wait=True)
    assert (receipt.accepted, receipt.stopped, receipt.state.value) == (True, True, "STOPPED")
    assert how(run) == STOPPED
    assert words(run) == "a"
    assert script.done == [say("a"), wait(), "unwound"]


async def test_a_stop_from_another_node_does_too(autojump_clock, house, how) -> None:
    run = await house.start(Script(say("a"), wait()))
    await trio.sleep(5)
    await house.request_stop(run)
    await run.ended.wait()
    assert how(run) == STOPPED


async def test_a_stop_inside_the_handlers_own_nursery_runs_no_statement_after_it(
    autojump_clock, house, how
) -> None:
    """TRIO-NOTES 5: with a one-shot cancel, a tool loop went on to its next step here."""
    steps = []

    async def tool() -> None:
        await trio.sleep_forever()

    async def handler(run):
        for step in range(3):
            steps.append(step)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tool)
                yield f"step {step}"
                await trio.lowlevel.checkpoint()
            steps.append("after the nursery")

    run = await house.start(handler)
    await trio.sleep(1)
    await house.stop(run, wait=True)
    assert how(run) == STOPPED
    assert steps == [0]


async def test_a_stop_at_a_yield_is_raised_there(autojump_clock, house, how) -> None:
    """The generator is held back at its yield: there, and nowhere else, the stop must reach it."""
    seen = []

    async def handler(run):
        try:
            for _ in range(10_000):
                yield "x" * 1000
        except trio.Cancelled:
            seen.append("at the yield")
            async with run.cleanup():
                await trio.sleep(1)
                seen.append("cleaned up")
            raise

    run = await house.start(handler)
    with run.log.subscribe():
        await wait_all_tasks_blocked()
        assert not run.ended.is_set()
        await house.stop(run, wait=True)
    assert seen == ["at the yield", "cleaned up"]
    assert how(run) == STOPPED
    assert run.lifecycle.ending.cleanup is CleanupResult.DONE


async def test_a_yield_inside_nursery_and_scope_survives_a_stop(autojump_clock, house, how) -> None:
    """TRIO-NOTES 5: a new scope around `aclose()` corrupts the scope stack of such a handler."""

    async def handler(run):
        with trio.CancelScope():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                with trio.move_on_after(1000):
                    while True:
                        yield "x" * 5000

    run = await house.start(handler)
    with run.log.subscribe():
        await wait_all_tasks_blocked()
        await house.stop(run, wait=True)
    assert how(run) == STOPPED


async def test_a_handler_that_never_awaits_is_stopped_between_items(autojump_clock, house, how) -> None:
    async def handler(run):
        while True:
            yield "x"

    run = await house.start(handler)
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    await house.stop(run, wait=True)
    assert how(run) == STOPPED


async def test_a_handler_that_never_awaits_lets_others_run(autojump_clock, house, how) -> None:
    turns = []

    async def handler(run):
        while len(turns) < 5:
            yield "x"

    run = await house.start(handler)
    while not run.ended.is_set():
        turns.append(1)
        await trio.lowlevel.checkpoint()
    assert how(run) == FINISHED


async def test_a_busy_handler_lets_its_reader_read(autojump_clock, house) -> None:
    read_meanwhile = []

    async def handler(run):
        for _ in range(40):
            time.sleep(0.002)  # noqa: ASYNC251  the work of a handler that never awaits
            yield "x"
        read_meanwhile.append(reader.position)

    run = await house.start(handler)
    reader = run.log.subscribe()
    with suppress(trio.EndOfChannel):
        while True:
            await reader.receive()
    assert read_meanwhile[0] > 10


async def test_a_handler_that_swallows_a_stop_is_stopped_and_muted(autojump_clock, house, how, words) -> None:
    script = Script(say("a"), swallow(100), say("b"), swallow(1), say("c"))
    run, other = await house.start(script), await house.start(Script(wait(50)))
    await trio.sleep(1)
    await house.stop(run, wait=True)
    assert how(run) == STOPPED
    assert words(run) == "a"
    assert script.done == [say("a"), swallow(100), "swallowed", say("b"), "unwound"]
    await other.ended.wait()
    assert how(other) == FINISHED


async def test_one_that_swallows_for_ever_burns_time_and_others_run(autojump_clock, house, how) -> None:
    let_go = False

    async def handler(run):
        while not let_go:
            with suppress(trio.Cancelled):
                await trio.sleep(1)
            with suppress(trio.Cancelled):
                yield "x"

    run = await house.start(handler)
    await trio.sleep(2.5)
    shown = run.log.end
    await house.stop(run)
    for _ in range(200):
        await trio.lowlevel.checkpoint()
    assert not run.ended.is_set()
    assert run.log.end == shown
    let_go = True
    await run.ended.wait()
    assert how(run) == STOPPED


async def test_a_stop_seen_first_means_stopped_even_if_the_body_returns(autojump_clock, house, how) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return

    run = await house.start(handler)
    await wait_all_tasks_blocked()
    await house.stop(run, wait=True)
    assert how(run) == STOPPED


async def test_a_stop_seen_after_the_end_of_the_body_comes_too_late(autojump_clock, house, how) -> None:
    async def leave() -> None:
        await trio.sleep(5)

    async def handler(run):
        run.on_exit(leave)

    run = await house.start(handler)
    await trio.sleep(2)
    assert not run.scope.stop(Cause.SHUTDOWN)
    assert not run.stopping
    await house.request_stop(run)
    await run.ended.wait()
    assert how(run) == FINISHED
    assert run.lifecycle.ending.stop_requested


async def test_a_second_stop_neither_disturbs_cleanup_nor_renews_its_budget(autojump_clock, house, how) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(9)
                await trio.sleep(9)

    run = await house.start(handler)
    await wait_all_tasks_blocked()
    began = trio.current_time()
    for _ in range(5):
        await house.stop(run)
        await trio.sleep(1)
    await run.ended.wait()
    assert trio.current_time() - began == pytest.approx(10)
    assert how(run) == ("ERROR", "cleanup_timeout")


# Its own time.


async def test_a_run_that_takes_too_long_is_an_error(autojump_clock, house, how, words) -> None:
    began = trio.current_time()
    run = await house.play(Script(say("a"), wait(), say("b")), timeout_s=3)
    assert trio.current_time() - began == pytest.approx(3)
    assert how(run) == LATE
    assert words(run) == "a"


async def test_a_deadline_gives_time_to_clean_up(autojump_clock, house, how) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            assert run.stopping
            async with run.cleanup():
                await trio.sleep(4)

    run = await house.play(handler, timeout_s=3)
    assert how(run) == LATE
    assert run.lifecycle.ending.cleanup is CleanupResult.DONE


async def test_a_handler_that_swallows_its_deadline_is_muted(autojump_clock, house, how, words) -> None:
    run = await house.play(Script(say("a"), swallow(100), say("b"), swallow(1), say("c")), timeout_s=3)
    assert how(run) == LATE
    assert words(run) == "a"


async def test_a_deadline_reaches_a_handler_that_never_awaits(autojump_clock, house, how) -> None:
    async def handler(run):
        while True:
            yield "x"

    run = await house.start(handler, timeout_s=0.001)
    # The virtual clock stands still as long as somebody is busy.
    await trio.lowlevel.checkpoint()
    run.scope.set_deadline(-math.inf)
    await run.ended.wait()
    assert how(run) == LATE


async def test_a_stop_before_the_deadline_means_stopped(autojump_clock, house, how) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(5)

    run = await house.start(handler, timeout_s=3)
    await trio.sleep(2)
    await house.stop(run, wait=True)
    assert how(run) == STOPPED


async def test_a_stop_after_the_deadline_changes_nothing(autojump_clock, house, how) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(5)

    run = await house.start(handler, timeout_s=3)
    await trio.sleep(4)
    receipt = await house.stop(run, wait=True)
    assert how(run) == LATE
    assert run.lifecycle.ending.stop_requested
    assert not receipt.stopped


async def test_a_lost_lease_is_told_from_a_deadline(autojump_clock, house, how) -> None:
    run = await house.start(Script(wait()), timeout_s=100)
    run.renew(body_until=trio.current_time() + 8, cleanup_until=trio.current_time() + 13)
    await trio.sleep(5)
    run.renew(body_until=trio.current_time() + 8, cleanup_until=trio.current_time() + 13)
    await trio.sleep(7.9)
    assert not run.ended.is_set()
    await run.ended.wait()
    assert how(run) == ("ERROR", "lease_lost")


async def test_a_late_renewal_does_not_make_a_lost_lease_a_deadline(autojump_clock, house, how) -> None:
    async def handler(run):
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(3)

    run = await house.start(handler, timeout_s=10)
    start = trio.current_time()
    run.renew(body_until=start + 8, cleanup_until=start + 13)
    await trio.sleep(8.5)
    run.renew(body_until=start + 16, cleanup_until=start + 21)
    await run.ended.wait()
    assert how(run) == ("ERROR", "lease_lost")


# Children.


async def test_children_live_as_long_as_the_handler(autojump_clock, house, how) -> None:
    seen = []

    async def child(run) -> None:
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(2)
                seen.append("child left")

    async def handler(run):
        run.start_soon(child, run)
        yield "a"
        await trio.sleep(1)

    run = await house.play(handler)
    assert seen == ["child left"]
    assert how(run) == FINISHED


async def test_children_may_emit(autojump_clock, house, words) -> None:
    async def child(run) -> None:
        await run.emit("from the child")

    async def handler(run):
        run.start_soon(child, run)
        await trio.sleep(1)

    assert words(await house.play(handler)) == "from the child"


async def test_an_exception_of_a_child_ends_the_run(autojump_clock, house, how) -> None:
    async def child() -> None:
        await trio.sleep(1)
        raise ValueError("child")

    async def handler(run):
        run.start_soon(child)
        await trio.sleep_forever()

    run = await house.play(handler)
    assert how(run) == FAILED
    with pytest.raises(RuntimeError, match="while the handler is being executed"):
        run.start_soon(child)


async def test_an_exception_of_a_child_that_is_joined_ends_the_run_as_an_error(autojump_clock, house, how) -> None:
    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("child")

    async def handler(run):
        run.start_soon(child)
        await trio.sleep(1)

    assert how(await house.play(handler)) == FAILED


async def test_a_stop_reaches_children(autojump_clock, house, how) -> None:
    left = []

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            left.append(1)

    async def handler(run):
        run.start_soon(child)
        run.start_soon(child)
        await trio.sleep_forever()

    run = await house.start(handler)
    await trio.sleep(1)
    await house.stop(run, wait=True)
    assert how(run) == STOPPED
    assert left == [1, 1]


# Items.


async def test_an_item_that_cannot_be_sent_is_raised_at_the_yield(autojump_clock, house, how, log_text) -> None:
    async def handler(run):
        yield "fine"
        yield object()  # this line

    run = await house.play(handler)
    assert how(run) == FAILED
    assert "yield object()  # this line" in log_text()
    assert "ItemError" in log_text()


async def test_a_handler_may_catch_it_and_go_on(autojump_clock, house, how, words) -> None:
    async def handler(run):
        try:
            yield 7
        except ItemError:
            yield "seven"

    run = await house.play(handler)
    assert how(run) == FINISHED
    assert words(run) == "seven"


# Stuck.


async def test_a_body_past_its_cleanup_deadline_is_stuck_until_it_ends(
    autojump_clock, house, how, log_text
) -> None:
    let_go = trio.Event()

    async def handler(run):
        with trio.CancelScope(shield=True):
            await let_go.wait()

    run = await house.start(handler)
    await trio.sleep(1)
    await house.stop(run)
    await trio.sleep(10)
    assert house.registry.statistics().stuck == ()
    await trio.sleep(3)
    assert house.registry.statistics().stuck == (run.run_id,)
    assert f"run {run.run_id} (handler 'test_a_body" in log_text()
    assert "is stuck" in log_text()
    assert (await house.backend.status(run.key)).state.value == "RUNNING"
    let_go.set()
    await run.ended.wait()
    assert house.registry.statistics().stuck == ()
    assert how(run) == STOPPED


async def test_children_that_do_not_unwind_after_the_handler_are_stuck_too(autojump_clock, house, how) -> None:
    let_go = trio.Event()

    async def child() -> None:
        with trio.CancelScope(shield=True):
            await let_go.wait()

    async def handler(run):
        run.start_soon(child)
        await trio.lowlevel.checkpoint()

    run = await house.start(handler)
    await trio.sleep(9)
    assert house.registry.statistics().stuck == ()
    await trio.sleep(4)
    assert house.registry.statistics().stuck == (run.run_id,)
    let_go.set()
    await run.ended.wait()
    assert how(run) == FINISHED


async def test_a_run_that_works_for_long_is_not_stuck(autojump_clock, house, how) -> None:
    run = await house.start(Script(wait(1000)))
    await trio.sleep(900)
    assert house.registry.statistics().stuck == ()
    await run.ended.wait()


async def test_a_stop_while_children_leave_comes_too_late_for_a_body_that_is_over(
    autojump_clock, house, how
) -> None:
    async def child(run) -> None:
        try:
            await trio.sleep_forever()
        finally:
            async with run.cleanup():
                await trio.sleep(5)

    async def returns(run):
        run.start_soon(child, run)
        await trio.sleep(1)

    async def raises(run):
        run.start_soon(child, run)
        await trio.sleep(1)
        raise ValueError("over")

    for handler, expected in ((returns, FINISHED), (raises, FAILED)):
        run = await house.start(handler)
        await trio.sleep(3)
        await house.stop(run, wait=True)
        assert how(run) == expected
        assert run.lifecycle.ending.stop_requested


async def test_usage_is_told_by_the_terminal_event_of_a_stopped_run_too(house, events) -> None:
    async def handler(run):
        run.usage = {"input_tokens": 3, "output_tokens": 1}
        yield "word"
        await trio.sleep_forever()

    run = await house.start(handler)
    await trio.testing.wait_all_tasks_blocked()
    await house.stop(run, wait=True)
    last = (await events(run))[-1]
    assert (last.status, last.usage) == ("canceled", {"input_tokens": 3, "output_tokens": 1})
